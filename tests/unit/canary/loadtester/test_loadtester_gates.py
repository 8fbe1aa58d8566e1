"""Gates over a real socket: every path, any method, who may ask, and what a restart remembers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from canary.loadtester import gates as module
from canary.loadtester.gates import Gates, Space, read_gates
from canary.loadtester.kinds import Allowed
from canary.loadtester.payload import MAX_BODY, Refused
from reconcile.api.meta import Key
from reconcile.errors import Invalid
from reconcile.regexp import Regexp
from tests.support.loadtesting import running

METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]


@pytest.mark.parametrize("space", ["gate", "rollback"])
async def test_a_gate_is_closed_until_it_is_opened_and_closed_again(space: Space) -> None:
    async with running() as tester:
        assert await tester.post(f"/{space}/check") == (403, "Forbidden")
        assert await tester.post(f"/{space}/open") == (202, "")
        assert await tester.post(f"/{space}/check") == (200, "Approved")
        assert await tester.post(f"/{space}/open") == (202, "")
        assert await tester.post(f"/{space}/close") == (202, "")
        assert await tester.post(f"/{space}/check") == (403, "Forbidden")


async def test_gates_belong_to_one_canary_and_spaces_are_apart() -> None:
    async with running() as tester:
        await tester.post("/gate/open")
        assert (await tester.post("/gate/check", namespace="other"))[0] == 403
        assert (await tester.post("/gate/check", name="other"))[0] == 403
        assert (await tester.post("/rollback/check"))[0] == 403
        assert (await tester.post("/gate/check", phase="Progressing", checksum="1", metadata={"a": "b"}))[0] == 200
        metrics = await tester.metrics()
        assert metrics['imagebot_loadtester_open_gates{space="gate"}'] == 1
        assert metrics['imagebot_loadtester_open_gates{space="rollback"}'] == 0
        assert metrics['imagebot_loadtester_calls_total{code="403",path="/gate/check"}'] == 2


async def test_fixed_gates_and_health_answer_whatever_is_sent() -> None:
    async with running(allowed=Allowed(namespaces=Regexp("^test$"))) as tester:
        for content in (b"", b"{", b'{"namespace": "elsewhere"}'):
            assert await tester.post("/gate/approve", content) == (200, "OK")
            assert await tester.post("/gate/halt", content) == (403, "Forbidden")
            assert await tester.post("/healthz", content) == (200, "OK")
            assert (await tester.post("/metrics", content))[0] == 200


async def test_every_method_is_taken() -> None:
    body = b'{"name": "my-app", "namespace": "production"}'
    async with running() as tester:
        for method in METHODS:
            for path, status in [
                ("/healthz", 200),
                ("/gate/approve", 200),
                ("/gate/open", 202),
                ("/gate/check", 200),
                ("/", 400),
            ]:
                answer = await tester.client.request(method, tester.url + path, content=body)
                assert (method, path, answer.status_code) == (method, path, status)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"name": 1}',
        b'{"name": "a b"}',
        b'{"name": "my-app", "namespace": "a.b"}',
        b'{"name": "my-app", "namespace": "production\\n"}',
        b'{"name": "my-app", "namespace": "../kube-system"}',
        b'{"metadata": {"a": 1}}',
        b'{"metadata": []}',
        b"[" * 100_000,
    ],
)
async def test_what_cannot_be_read_is_a_bad_request(body: bytes) -> None:
    async with running() as tester:
        for path in ("/", "/gate/check", "/gate/open", "/gate/close", "/rollback/check", "/rollback/open", "/rollback/close"):
            assert (path, (await tester.post(path, body))[0]) == (path, 400)


async def test_a_gate_of_nobody_is_a_bad_request() -> None:
    async with running() as tester:
        for body in (b"{}", b'{"name": "my-app"}', b'{"namespace": "production"}', b'{"name": null}'):
            assert await tester.post("/gate/open", body) == (400, "name and namespace of the Canary must be in the payload")


async def test_a_body_that_is_too_long_is_refused() -> None:
    async with running() as tester:
        assert (await tester.post("/gate/check", b" " * (MAX_BODY + 1)))[0] == 413
        fits = b'{"name": "my-app", "namespace": "production"}'.ljust(MAX_BODY)
        assert (await tester.post("/gate/check", fits))[0] == 403


async def test_other_namespaces_are_forbidden() -> None:
    metadata = {"type": "http", "url": "http://127.0.0.1:9/", "requests": "1"}
    async with running(allowed=Allowed(namespaces=Regexp("^(test|prod-.*)$"))) as tester:
        for path in ("/gate/open", "/gate/check", "/gate/close", "/rollback/open", "/rollback/check", "/rollback/close", "/"):
            for namespace in ("production", "nottest", "testing", ""):
                assert await tester.post(path, namespace=namespace, metadata=metadata) == (403, "Forbidden")
            for namespace in ("test", "prod-eu"):
                status, _ = await tester.post(path, namespace=namespace, metadata=metadata)
                assert (path, status) == (path, 200 if path.endswith("check") else 202)


async def test_a_regular_expression_matches_anywhere_as_in_go() -> None:
    async with running(allowed=Allowed(namespaces=Regexp("prod"))) as tester:
        assert (await tester.post("/gate/open", namespace="nonprod"))[0] == 202
        assert (await tester.post("/gate/open", namespace="test"))[0] == 403


# --- who may open


async def test_with_a_token_only_who_shows_it_opens_and_closes(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("tulip-7\n")
    body = b'{"name": "my-app", "namespace": "production"}'
    async with running(token=token) as tester:

        async def call(path: str, shown: str) -> int:
            answer = await tester.client.post(tester.url + path, content=body, headers={"Authorization": shown})
            return answer.status_code

        for path in ("/gate/open", "/gate/close", "/rollback/open", "/rollback/close"):
            assert await tester.post(path) == (401, "Unauthorized")
            assert [await call(path, shown) for shown in ("Bearer rose", "Basic tulip-7", "Bearer", "tulip-7")] == [401] * 4
            assert await call(path, "Bearer tulip-7") == 202
            assert await call(path, "bearer tulip-7") == 202
        assert await tester.post("/gate/check") == (403, "Forbidden")
        token.write_text("rose-8")
        assert await call("/gate/open", "Bearer tulip-7") == 401
        assert await call("/gate/open", "Bearer rose-8") == 202
        token.write_text("")
        assert await call("/gate/open", "Bearer") == 401
        token.unlink()
        assert await call("/gate/open", "Bearer rose-8") == 401


@pytest.mark.parametrize("content", [None, "", " \n"])
async def test_a_token_that_is_not_there_is_no_start(tmp_path: Path, content: str | None) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
    with pytest.raises(Invalid, match="has no token in it"):
        async with running(token=token):
            pass


# --- what is remembered


async def test_gates_in_memory_are_closed_again_by_a_restart() -> None:
    for _ in range(2):
        async with running() as tester:
            assert (await tester.post("/gate/check"))[0] == 403
            await tester.post("/gate/open")


async def test_gates_in_a_file_outlive_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "gates.json"
    async with running(state=state) as tester:
        await tester.post("/gate/open")
        await tester.post("/rollback/open", name="other")
        await tester.post("/gate/open", name="third")
        await tester.post("/gate/close", name="third")
    async with running(state=state) as tester:
        assert (await tester.post("/gate/check"))[0] == 200
        assert (await tester.post("/gate/check", name="third"))[0] == 403
        assert (await tester.post("/rollback/check"))[0] == 403
        assert (await tester.post("/rollback/check", name="other"))[0] == 200
    assert [path.name for path in tmp_path.iterdir()] == ["gates.json"]


async def test_an_unchanged_gate_writes_nothing(tmp_path: Path) -> None:
    state = tmp_path / "gates.json"
    gates = Gates(state)
    await gates.set("gate", Key("production", "my-app"), opened=False)
    assert not state.exists()
    await gates.set("gate", Key("production", "my-app"), opened=True)
    before = state.stat().st_ino
    await gates.set("gate", Key("production", "my-app"), opened=True)
    assert state.stat().st_ino == before


async def test_gates_opened_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    gates = Gates(tmp_path / "gates.json")
    keys = [Key("production", f"app-{n}") for n in range(30)]
    await asyncio.gather(*(gates.set("gate", key, opened=True) for key in keys))
    assert read_gates(tmp_path / "gates.json") == {"gate": frozenset(keys), "rollback": frozenset()}


async def test_a_gate_that_cannot_be_kept_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    gates, key = Gates(folder / "gates.json"), Key("production", "my-app")
    folder.rmdir()
    with pytest.raises(Refused, match="the gate is as it was"):
        await gates.set("gate", key, opened=True)
    assert not gates.is_open("gate", key)
    folder.mkdir()
    await gates.set("gate", key, opened=True)
    assert gates.is_open("gate", key)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2, "gate": [], "rollback": []}', '{"format": 1, "gate": ["x"]}'])
def test_a_file_that_holds_something_else_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "gates.json").write_text(content)
    with pytest.raises(Invalid, match="does not hold gates"):
        Gates(tmp_path / "gates.json")


async def test_there_is_an_end_to_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 2)
    gates = Gates()
    for name in ("a", "b"):
        await gates.set("gate", Key("production", name), opened=True)
    with pytest.raises(Refused, match="close some"):
        await gates.set("gate", Key("production", "c"), opened=True)
    await gates.set("gate", Key("production", "a"), opened=False)
    await gates.set("gate", Key("production", "c"), opened=True)
