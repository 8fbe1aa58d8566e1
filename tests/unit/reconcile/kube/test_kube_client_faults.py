"""The client against a server that is busy, broken, lying or cut off, on loopback: what is repeated, and what is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from aiohttp import web

from reconcile.kube import client as module
from reconcile.kube.cache import Cache
from reconcile.kube.client import Client, open_client
from reconcile.kube.connect import KubeSettings
from reconcile.kube.discovery import Discovery
from reconcile.kube.errors import (
    Expired,
    KubeError,
    Late,
    LeaseLost,
    Outdated,
    Target,
    Temporary,
    TooLarge,
    Unauthenticated,
    Unreachable,
    from_status,
)
from reconcile.kube.limiter import PATIENCE, SLOTS, SPARE, Limiter
from reconcile.kube.metrics import KubeMetrics
from reconcile.kube.reflector import Reflector, Scope
from reconcile.runtime.feed import Feed
from reconcile.runtime.metrics import Metrics
from tests.support.kube import THING, scheme_of

THINGS = Target(THING.group, "v1", "things", "ns")
ONE = Target(THING.group, "v1", "things", "ns", "a")
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Clock:
    """Time that passes only by sleeping; keeps what was slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


class Server:
    """Answers in the order given, the last one for ever; keeps what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


def status(code: int, message: str = "m", *, headers: dict[str, str] | None = None, **details: Any) -> Answer:
    """A Status object."""

    async def answer(_: web.Request) -> web.StreamResponse:
        body = {"kind": "Status", "apiVersion": "v1", "message": message, "code": code, "details": details}
        return web.Response(status=code, body=orjson.dumps(body), headers=headers, content_type="application/json")

    return answer


def json(body: Any) -> Answer:
    """A good answer."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    return answer


def stream(*chunks: bytes, cut: bool = False) -> Answer:
    """A watch that sends these bytes and ends, or breaks off."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0.01)
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


GOOD = json({"kind": "Thing", "metadata": {"name": "a"}})
BUSY = status(429, "storage is (re)initializing", headers={"Retry-After": "1"})


@asynccontextmanager
async def talking(server: Server, tmp_path: Path, *, timeout: float = 5.0) -> AsyncIterator[tuple[Client, Clock]]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "Secret0Token1Of2The3Test"}}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    clock = Clock()
    try:
        async with open_client(KubeSettings(kubeconfig=str(path), timeout=timeout), clock, environment={}) as client:
            yield client, clock
    finally:
        await runner.cleanup()


async def patch(client: Client) -> dict[str, Any]:
    return await client.merge_patch(ONE, {"metadata": {}}, manager="tests")


@pytest.mark.parametrize(
    ("answers", "requests", "slept"),
    [
        ([BUSY, BUSY, GOOD], 3, [1.0, 1.0]),
        ([status(503, retryAfterSeconds=2), GOOD], 2, [2.0]),
        ([status(401), GOOD], 2, [0.0]),
    ],
)
async def test_a_read_is_repeated_when_asked_to(answers: list[Answer], requests: int, slept: list[float], tmp_path: Path) -> None:
    server = Server(*answers)
    async with talking(server, tmp_path) as (client, clock):
        assert (await client.get(ONE))["kind"] == "Thing"
    assert (len(server.asked), clock.slept) == (requests, slept)


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
async def test_a_read_is_repeated_a_bounded_number_of_times(code: int, tmp_path: Path) -> None:
    server = Server(status(code, "no"))
    async with talking(server, tmp_path) as (client, clock):
        with pytest.raises(Temporary, match=r"no \(get things.kubetests.imagebot.dev ns/a\)"):
            await client.get(ONE)
    assert len(server.asked) == module.ATTEMPTS
    assert clock.slept == sorted(clock.slept)


async def test_a_write_is_repeated_only_when_it_was_not_carried_out(tmp_path: Path) -> None:
    server = Server(BUSY, status(401), GOOD)
    async with talking(server, tmp_path) as (client, _):
        with pytest.raises(Unauthenticated):  # once more with a new token, but only as the first thing
            await patch(client)
    server = Server(BUSY, BUSY, GOOD)
    async with talking(server, tmp_path) as (client, _):
        await patch(client)
    assert len(server.asked) == 3
    for code in (500, 503, 504):
        server = Server(status(code, retryAfterSeconds=1))
        async with talking(server, tmp_path) as (client, _):
            with pytest.raises(Temporary) as failed:
                await patch(client)
        assert (len(server.asked), failed.value.retry_after) == (1, 1.0)


async def test_a_server_that_wants_a_long_pause_gets_it(tmp_path: Path) -> None:
    server = Server(status(429, headers={"Retry-After": "60"}))
    async with talking(server, tmp_path) as (client, clock):
        with pytest.raises(Temporary) as failed:
            await client.get(ONE)
    assert (len(server.asked), clock.slept, failed.value.retry_after) == (1, [], 60.0)


async def test_a_conflict_is_not_repeated(tmp_path: Path) -> None:
    server = Server(status(409, "the object has been modified"))
    async with talking(server, tmp_path) as (client, _):
        with pytest.raises(Outdated, match="the object has been modified"):
            await patch(client)
    assert len(server.asked) == 1


async def test_the_fence_is_asked_before_every_attempt_of_a_write(tmp_path: Path) -> None:
    server, asked = Server(BUSY, GOOD), list[int]()

    def fence() -> None:
        asked.append(len(server.asked))
        if len(asked) == 2:
            raise LeaseLost("lost meanwhile")

    async with talking(server, tmp_path) as (client, _):
        client.fence = fence
        with pytest.raises(LeaseLost):
            await patch(client)
        await client.get(ONE)  # reading is free
    assert asked == [0, 1]
    assert [request.split()[0] for request in server.asked] == ["PATCH", "GET"]


async def test_answers_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>It works</html>", content_type="text/html")

    async def moved(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://127.0.0.1:1/elsewhere")

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError("waited for")

    async with talking(Server(page), tmp_path) as (client, _):
        with pytest.raises(Unreachable, match="is this an API server"):
            await client.get(ONE)
    async with talking(Server(moved), tmp_path) as (client, _):
        with pytest.raises(KubeError, match="HTTP 302"):
            await client.get(ONE)
    server = Server(hang)
    async with talking(server, tmp_path, timeout=0.2) as (client, _):
        with pytest.raises(Late, match="did not answer in time"):
            await patch(client)
    assert len(server.asked) == 1
    monkeypatch.setattr(module, "MAX_ANSWER", 1000)
    async with talking(Server(json({"text": "x" * 2000})), tmp_path) as (client, _):
        with pytest.raises(TooLarge):
            await client.get(ONE)


async def test_no_error_has_the_token(tmp_path: Path) -> None:
    async with talking(Server(status(403, "forbidden Bearer Secret0Token1Of2The3Test")), tmp_path) as (client, _):
        with pytest.raises(KubeError) as failed:
            await client.get(ONE)
        assert "Secret0Token" not in f"{failed.value}{client.connection!r}"


async def test_a_netrc_is_nobodys_business_and_a_proxy_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("default login eve password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    async with talking(Server(GOOD), tmp_path) as (client, _):
        assert (await client.get(ONE))["kind"] == "Thing"
    for environment, proxy in (
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, "http://proxy.example:3128"),
        ({"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "10.0.0.0/8"}, None),
    ):
        config = yaml.safe_load((tmp_path / "config").read_text())
        config["clusters"][0]["cluster"] = {"server": "https://10.1.2.3:6443"}
        (tmp_path / "other").write_text(yaml.safe_dump(config))
        settings = KubeSettings(kubeconfig=str(tmp_path / "other"))
        async with open_client(settings, Clock(), environment=environment) as client:
            assert client.connection.options.get("proxy") == proxy


def line(kind: str, version: int, **body: Any) -> bytes:
    meta = {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": str(version)}
    found = {"kind": "Thing", "apiVersion": THING.api_version, "metadata": meta, "spec": {"size": version}, **body}
    return orjson.dumps({"type": kind, "object": found}) + b"\n"


async def watched(answer: Answer, tmp_path: Path) -> list[str]:
    async with talking(Server(answer), tmp_path) as (client, _):
        return [f"{kind} {body['metadata']['resourceVersion']}" async for kind, body in client.watch(THINGS, "1")]


@pytest.mark.parametrize("size", [7, 100, 10_000])
async def test_events_arrive_whole_however_they_are_cut(size: int, tmp_path: Path) -> None:
    text = line("ADDED", 2) + line("MODIFIED", 3) + b"\n" + line("DELETED", 4)
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    assert await watched(stream(*chunks), tmp_path) == ["ADDED 2", "MODIFIED 3", "DELETED 4"]


async def test_a_watch_that_breaks_off_ends_and_half_an_event_is_none(tmp_path: Path) -> None:
    assert await watched(stream(line("ADDED", 2), line("MODIFIED", 3)[:20], cut=True), tmp_path) == ["ADDED 2"]


async def test_errors_of_a_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {"kind": "Status", "code": 410, "message": "too old resource version: 1 (5)", "reason": "Expired"}
    error = orjson.dumps({"type": "ERROR", "object": gone}) + b"\n"
    with pytest.raises(Expired, match="too old resource version"):
        await watched(stream(line("ADDED", 2), error), tmp_path)
    with pytest.raises(Expired):
        await watched(status(410), tmp_path)
    with pytest.raises(Unreachable, match="not JSON"):
        await watched(stream(b"{nonsense}\n"), tmp_path)
    monkeypatch.setattr(module, "MAX_WATCH_LINE", 100)
    with pytest.raises(TooLarge):
        await watched(stream(b"x" * 80, b"x" * 80), tmp_path)


def test_a_version_from_the_future_is_listed_again_too() -> None:
    details = {"causes": [{"reason": "ResourceVersionTooLarge"}], "retryAfterSeconds": 1}
    error = from_status({"code": 504, "message": "Timeout: Too large resource version", "details": details}, "watch", THINGS)
    assert isinstance(error, Expired)


async def reflected(watch: Answer, pauses: int, tmp_path: Path) -> tuple[list[float], Reflector[Cache], int]:
    """The first pauses of a reflector whose lists work and whose watches end like this; and how many lists it made."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith(THING.group):
            return await json({"versions": [{"version": "v1"}]})(request)
        if request.path.endswith("/v1"):
            return await json({"resources": [{"name": "things"}]})(request)
        if "watch" in request.query:
            return await watch(request)
        return await json({"metadata": {"resourceVersion": "1"}, "items": []})(request)

    metrics = KubeMetrics.declare(Metrics())
    async with talking(Server(answer), tmp_path) as (client, clock):
        cache = Cache(THING, scheme_of(THING), Feed())
        reflector = Reflector(client, Discovery(client), cache, Scope("ns"), clock, metrics)
        task = asyncio.create_task(reflector.run())
        async with asyncio.timeout(10):
            while len(clock.slept) < pauses:
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
    further = len(clock.slept) - pauses  # it may have gone on before it was seen to have paused often enough
    return clock.slept[:pauses], reflector, max(1, int(metrics.lists.labels(THING.kind)._value.get()) - further)


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_without_pause(tmp_path: Path) -> None:
    pauses, reflector, lists = await reflected(stream(), 6, tmp_path)
    assert all(later > earlier for earlier, later in pairwise(pauses))
    assert (type(reflector.error), lists) == (Temporary, 1)


async def test_a_server_that_forgets_every_version_is_not_listed_without_pause(tmp_path: Path) -> None:
    pauses, _, lists = await reflected(status(410), 5, tmp_path)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert lists in {6, 7}


async def test_requests_are_spread_beyond_the_burst_and_urgent_ones_do_not_wait() -> None:
    clock = Clock()
    limiter = Limiter(clock, qps=10, burst=3)
    for _ in range(3):
        await limiter.take()
    assert clock.slept == []
    await limiter.take(urgent=True)
    assert clock.slept == []
    await limiter.take()
    assert clock.slept == [pytest.approx(0.2)]
    clock.slept.append(100.0)  # idle: no more than the burst is saved up
    for _ in range(3):
        await limiter.take()
    assert clock.slept == [pytest.approx(0.2), 100.0]
    await limiter.take()
    assert clock.slept[2:] == [pytest.approx(0.1)]


async def test_events_and_other_requests_do_not_wait_for_each_other_s_tokens() -> None:
    clock = Clock()
    limiter = Limiter(clock, qps=10, burst=8)
    assert [await limiter.take() for _ in range(8)] == [0.0] * 8
    assert [await limiter.take(spare=True) for _ in range(4)] == [0.0] * 4
    assert clock.slept == []
    assert await limiter.take(spare=True) == pytest.approx(1 / (10 * SPARE))


async def test_waiting_for_the_limit_is_measured_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = Metrics()
    async with talking(Server(GOOD), tmp_path) as (plain, clock):
        client = Client(plain.connection, Limiter(clock, qps=0.5, burst=1), KubeMetrics.declare(metrics))
        for _ in range(4):
            await client.get(ONE)
    text = metrics.render().decode()
    assert 'imagebot_kube_request_wait_seconds_count{priority="normal"} 4' in text
    assert 'imagebot_kube_request_wait_seconds_sum{priority="normal"} 6' in text
    assert "".join(capsys.readouterr()).count("requests wait for --kube-api-qps") == 1


async def test_only_so_many_requests_are_under_way_and_events_are_the_last_to_go() -> None:
    clock = Clock()
    limiter = Limiter(clock, qps=1000, burst=1000)
    async with AsyncExitStack() as held:
        for _ in range(SLOTS):
            await held.enter_async_context(limiter.slot())
        async with limiter.slot(urgent=True):
            pass
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), limiter.slot():
                pass
        assert (await limiter.take(), clock.slept) == (0.0, [])
        assert await limiter.take(spare=True) == pytest.approx(PATIENCE)  # and no longer
    assert await limiter.take(spare=True) == 0.0
