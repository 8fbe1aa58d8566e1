"""The web server: probes, metrics, addresses."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from reconcile.errors import Invalid
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.server import make_app, parse_address, serving


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9440", ("127.0.0.1", 9440)),
        (":9440", ("", 9440)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_an_address_is_host_and_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "9440x", "host", "host:", "host:x", "host:65536", "host:-1", "host:²", "host:" + "9" * 5000]
)
def test_a_wrong_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_address(text)
    assert str(caught.value).endswith("is not an address to listen on: write it like 127.0.0.1:9440 or :9440")


async def test_the_probes_say_what_is_wrong() -> None:
    wrong: dict[str, str | None] = {"store": None, "manager": None}
    probes = {name: (lambda name=name: wrong[name]) for name in wrong}
    app = make_app(Metrics(), probes, {"ready": lambda: "not yet"})
    async with serving(app, "127.0.0.1:0") as url, httpx.AsyncClient(base_url=url) as client:
        healthy = await client.get("/healthz")
        assert (healthy.status_code, healthy.text) == (200, "[+]store ok\n[+]manager ok")
        wrong["manager"] = "the watch has ended"
        ill = await client.get("/healthz")
        assert (ill.status_code, ill.text) == (503, "[+]store ok\n[-]manager the watch has ended")
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.text) == (503, "[-]ready not yet")
        assert (await client.head("/healthz")).status_code == 503
        assert (await client.post("/healthz")).status_code == 405
        assert (await client.get("/nowhere")).status_code == 404
        assert "server" not in healthy.headers


async def test_metrics_are_the_text_exposition() -> None:
    metrics = Metrics()
    metrics.announce("imagerepository", 4)
    async with serving(make_app(metrics, {}, {}), "127.0.0.1:0") as url, httpx.AsyncClient(base_url=url) as client:
        found = await client.get("/metrics")
        assert found.headers["content-type"].startswith("text/plain; version=")
        assert 'controller_runtime_max_concurrent_reconciles{controller="imagerepository"} 4' in found.text
        assert (await client.get("/healthz")).text == "ok"


async def test_packages_add_routes() -> None:
    async def hello(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = make_app(Metrics(), {}, {}, [Route("/hello", hello)])
    async with serving(app, "127.0.0.1:0") as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/hello")).text == "hello"


async def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Invalid) as caught:
            async with serving(make_app(Metrics(), {}, {}), address):
                pytest.fail("two servers on one port")
    assert str(caught.value) == (
        f"cannot listen on {address}: Address already in use; choose another address or end what uses it"
    )


async def test_an_address_that_is_not_here_is_named() -> None:
    with pytest.raises(Invalid, match=r"cannot listen on 203\.0\.113\.1:9440: "):
        async with serving(make_app(Metrics(), {}, {}), "203.0.113.1:9440"):
            pytest.fail("that is another machine")


async def test_an_ipv6_address_makes_a_url_that_works() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with serving(make_app(Metrics(), {}, {}), "[::1]:0") as url, httpx.AsyncClient(base_url=url) as client:
        assert url.startswith("http://[::1]:")
        assert (await client.get("/healthz")).status_code == 200


async def test_the_server_answers_as_soon_as_it_is_there_and_ends_at_once() -> None:
    for _ in range(3):
        async with serving(make_app(Metrics(), {}, {}), "127.0.0.1:0") as url:
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.close()
            await writer.wait_closed()
        async with serving(make_app(Metrics(), {}, {}), "127.0.0.1:0"):
            pass
