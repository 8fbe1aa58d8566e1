"""Hints that come to a process that stands by: passed on to the leader, and to nobody else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import get_args

import httpx
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from imagebot.hints import passing, server
from imagebot.hints.doors import refusal
from imagebot.hints.passing import HEADERS, NOTE, leader_address, own_address, passing_on
from imagebot.hints.payloads import pushed
from imagebot.hints.spec import HintType
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.server import serving
from tests.support.lab import eventually

PATH = "/hints/" + "0123456789abcdef" * 4


class Leader:
    """Something that answers as told and remembers what it was given."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, Headers, bytes]] = []
        self.answer = Response(status_code=202)
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def take(self, request: Request) -> Response:
        body = await request.body()
        self.taken.append((request.method, request.scope["raw_path"].decode(), request.headers, body))
        await self.go_on.wait()
        return self.answer


class World:
    """A leader, and a process that stands by."""

    def __init__(self, leader: Leader, url: str, waiting: str, metrics: Metrics, notes: dict[str, str]) -> None:
        self.leader, self.url, self.waiting, self.notes = leader, url, waiting, notes
        self._metrics = metrics

    async def send(self, body: bytes = b"{}", path: str = PATH, **more: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.waiting, trust_env=False, timeout=30.0) as client:
            return await client.post(path, content=body, headers={name.replace("_", "-"): v for name, v in more.items()})

    def count(self, outcome: str) -> int:
        labels = {"type": "unknown", "outcome": outcome}
        return int(self._metrics.registry.get_sample_value("imagebot_hints_total", labels) or 0)


@asynccontextmanager
async def standing_by(leader: Leader) -> AsyncIterator[World]:
    metrics, notes = Metrics(), dict[str, str]()
    app = Starlette(routes=[Route("/{path:path}", leader.take, methods=["POST"])])
    async with serving(app, "127.0.0.1:0") as url, passing_on("127.0.0.1:0", metrics, notes.get) as waiting:
        assert waiting is not None
        notes[NOTE] = url
        yield World(leader, url, waiting, metrics, notes)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with standing_by(Leader()) as made:
        yield made


async def test_a_hint_goes_on_as_it_came_and_the_answer_comes_back(world: World) -> None:
    answer = await world.send(b'{"tag":"1"}', X_Signature="sha256=00", Cookie="a=b", X_Forwarded_For="10.0.0.1")
    assert (answer.status_code, answer.content) == (202, b"")
    ((method, path, headers, body),) = world.leader.taken
    assert (method, path, body) == ("POST", PATH, b'{"tag":"1"}')
    assert (headers["x-signature"], headers["imagebot-passed-on"]) == ("sha256=00", "1")
    assert not {"cookie", "x-forwarded-for"} & set(headers)
    assert headers["host"] == world.url.removeprefix("http://")
    assert world.count("passed-on") == 1


async def test_a_header_that_comes_twice_goes_on_twice(world: World) -> None:
    async with httpx.AsyncClient(base_url=world.waiting, trust_env=False, timeout=30.0) as client:
        twice = [("authorization", "one"), ("authorization", "two")]
        assert (await client.post(PATH, content=b"{}", headers=twice)).status_code == 202
    assert world.leader.taken[0][2].getlist("authorization") == ["one", "two"]


@pytest.mark.parametrize(
    "answer",
    [
        Response("Not Found", 404, media_type="text/plain"),
        Response(status_code=401),
        Response(status_code=503, headers={"Retry-After": "1"}),
    ],
    ids=["404", "401", "503"],
)
async def test_what_the_leader_refuses_is_refused(world: World, answer: Response) -> None:
    world.leader.answer = answer
    got = await world.send()
    assert (got.status_code, got.content) == (answer.status_code, answer.body)
    assert got.headers.get("retry-after") == answer.headers.get("retry-after")
    assert len(world.leader.taken) == 1


async def test_a_redirect_is_not_followed(world: World) -> None:
    world.leader.answer = Response(status_code=307, headers={"Location": f"{world.url}/elsewhere"})
    assert (await world.send()).status_code == 307
    assert [path for _, path, _, _ in world.leader.taken] == [PATH]


@pytest.mark.parametrize("note", [None, "", "http://leader:9292", "http://169.254.169.254:80", "self", "closed"])
async def test_without_a_leader_that_answers_senders_are_asked_to_come_again(world: World, note: str | None) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        known = {"self": world.waiting, "closed": f"http://127.0.0.1:{closed.getsockname()[1]}"}
        world.notes.clear()
        if note is not None:
            world.notes[NOTE] = known.get(note, note)
        answer = await world.send()
    assert (answer.status_code, answer.headers["retry-after"], answer.content) == (503, "5", b"")
    assert (world.count("no-leader"), world.count("passed-on")) == (1, 0)


async def test_a_leader_that_does_not_answer_in_time_is_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "PATIENCE", 0.3)
    world.leader.go_on.clear()
    answer = await world.send()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    world.leader.go_on.set()


async def test_an_answer_without_end_is_none(world: World) -> None:
    world.leader.answer = Response(b"a" * 100_000)
    assert (await world.send()).status_code == 503


async def test_nothing_is_passed_on_twice() -> None:
    """The note of one leads to another that stands by, and its note leads back."""
    notes: dict[str, dict[str, str]] = {"one": {}, "two": {}}
    metrics = {name: Metrics() for name in notes}
    async with (
        passing_on("127.0.0.1:0", metrics["one"], notes["one"].get) as one,
        passing_on("127.0.0.1:0", metrics["two"], notes["two"].get) as two,
        httpx.AsyncClient(trust_env=False, timeout=30.0) as client,
    ):
        assert one is not None
        assert two is not None
        notes["one"][NOTE], notes["two"][NOTE] = two, one
        assert (await client.post(one + PATH)).status_code == 503
    values = [
        metrics[name].registry.get_sample_value("imagebot_hints_total", {"type": "unknown", "outcome": outcome})
        for name, outcome in (("one", "passed-on"), ("two", "no-leader"), ("one", "no-leader"))
    ]
    assert values == [1.0, 1.0, None]


@pytest.mark.parametrize("path", ["/hints/short", PATH + "0", PATH.upper(), "/hints/%2e%2e", "/metrics", "/"])
async def test_what_is_no_path_of_a_hint_goes_nowhere(world: World, path: str) -> None:
    assert (await world.send(path=path)).status_code == 404
    assert world.leader.taken == []


async def test_a_body_that_is_too_large_goes_nowhere(world: World) -> None:
    assert (await world.send(b"a" * (server.MAX_BODY + 1))).status_code == 413
    assert (await world.send(b"a" * server.MAX_BODY)).status_code == 202
    assert [len(body) for _, _, _, body in world.leader.taken] == [server.MAX_BODY]


async def test_few_are_passed_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "PATIENCE", 60.0)
    async with standing_by(Leader()) as world:
        world.leader.go_on.clear()
        under_way = [asyncio.create_task(world.send()) for _ in range(server.AT_ONCE)]
        await eventually(lambda: len(world.leader.taken) == server.AT_ONCE, "as many as may be", 40)
        answer = await world.send()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        world.leader.go_on.set()
        assert {(await task).status_code for task in under_way} == {202}
        assert (world.count("busy"), world.count("passed-on")) == (1, server.AT_ONCE)
        assert (await world.send()).status_code == 202


async def test_no_path_is_logged(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    await world.send()
    world.notes.clear()
    await world.send()
    assert PATH[-16:] not in "".join(capsys.readouterr())


async def test_an_address_in_use_is_no_reason_not_to_stand_by(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    taken = world.waiting.removeprefix("http://")
    async with passing_on(taken, Metrics(), dict[str, str]().get) as url, passing_on("", Metrics(), dict[str, str]().get) as none:
        assert (url, none) == (None, None)
    assert "cannot pass hints on" in "".join(capsys.readouterr())


class Asked(Mapping[str, str]):
    """Headers that remember which of them somebody looked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def test_every_header_that_a_leader_looks_at_is_passed_on() -> None:
    headers = Asked()
    for kind in get_args(HintType):
        assert refusal(kind, b"token", headers, b"{}") in {"unsigned", None}
        pushed(kind, headers, b"{}")
    assert {name.encode() for name in headers.names} == HEADERS


@pytest.mark.parametrize(
    ("address", "url", "pod", "expected"),
    [
        (":9292", "http://127.0.0.1:9292", "10.1.2.3", "http://10.1.2.3:9292"),
        ("0.0.0.0:0", "http://127.0.0.1:41000", "10.1.2.3", "http://10.1.2.3:41000"),
        ("[::]:9292", "http://[::]:9292", "fd00::1", "http://[fd00::1]:9292"),
        (":9292", "http://127.0.0.1:9292", "", None),
        ("127.0.0.1:0", "http://127.0.0.1:41000", "10.1.2.3", "http://127.0.0.1:41000"),
    ],
)
def test_where_others_reach_us(address: str, url: str, pod: str, expected: str | None) -> None:
    assert own_address(address, url, pod) == expected
    assert expected is None or leader_address(expected) == expected


@pytest.mark.parametrize(
    "note",
    [
        None, "", "http://", "10.1.2.3:9292", "https://10.1.2.3:9292", "http://10.1.2.3", "http://10.1.2.3:", "http://10.1.2.3:0",
        "http://10.1.2.3:65536", "http://10.1.2.3:09292", "http://10.1.2.3:9292/", "http://10.1.2.3:9292/x?", "http://evil@10.1.2.3:9292",
        "http://leader.example.com:9292", "http://[fe80::1]:9292", "http://169.254.169.254:80", "http://0.0.0.0:80", "http://224.0.0.1:80",
        "http://10.1.2.3:9292\n", "http://http://10.1.2.3:9292", "http://0x7f.1:80", "http://[10.1.2.3]:9292",
    ],
)  # fmt: skip
def test_notes_that_are_not_followed(note: str | None) -> None:
    assert leader_address(note) is None
