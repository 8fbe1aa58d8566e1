"""Threat: a registry, or who stands in its place, that answers to do harm: bombs, floods, endless pages, redirects."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import orjson
import pytest

from tests.support.lab import image_repository, secret
from tests.support.neighbours import Street, street
from tests.support.registry import BareServer, Exchange

KIND = "ImageRepository"
LOGIN = "Basic Ym90Omh1bnRlcjI="  # bot:hunter2
TAGS = orjson.dumps({"tags": ["1.0.0"]})
Handler = Callable[[Exchange], Awaitable[None]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Street]:
    async with street(tmp_path) as made:
        yield made


def declare(world: Street, host: str, timeout: str = "30s") -> None:
    """An image at `host`, with a login for that host alone."""
    auths = {"auths": {host: {"username": "bot", "password": "hunter2"}}}
    world.declare(
        image_repository("bad", f"{host}/acme/app", secretRef={"name": "pull"}, timeout=timeout),
        secret("pull", {".dockerconfigjson": orjson.dumps(auths).decode()}, "kubernetes.io/dockerconfigjson"),
    )


def fixed(body: bytes, status: str = "200 OK", **headers: str) -> Handler:
    async def handler(exchange: Exchange) -> None:
        if exchange.target == "/v2/":
            await exchange.answer()
        else:
            await exchange.answer(status, body, **headers)

    return handler


async def endless_pages(exchange: Exchange) -> None:
    """Each page is another one and names the next."""
    if exchange.target == "/v2/":
        await exchange.answer()
        return
    number = int(exchange.target.rpartition("last=")[2]) if "last=" in exchange.target else 0
    body = orjson.dumps({"tags": [f"{number}." + "1" * 100] * 80_000})
    await exchange.answer("200 OK", body, Link=f'</v2/acme/app/tags/list?n=1000&last={number + 1}>; rel="next"')


async def endless_header(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(200):
        await exchange.send(b"a" * 100_000)


async def drops(exchange: Exchange) -> None:
    """A byte at a time, each soon enough for a limit of time between bytes."""
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        await exchange.send(b" ")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (fixed(gzip.compress(b" " * 100_000_000, 1), Content_Encoding="gzip"), "larger than the limit"),
        (fixed(gzip.compress(gzip.compress(b" " * 90_000_000, 1), 1), Content_Encoding="gzip, gzip"), "unknown encoding"),
        (fixed(b"[" * 1_000_000), "not JSON"),
        (fixed(b'{"tags":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "the tag list is not JSON|not a string"),
        (fixed(b'{"a":' * 500_000 + b"1" + b"}" * 500_000), "not JSON"),
        (fixed(orjson.dumps({"tags": [{"a": [[[1]]]}]})), "is not a string"),
        (fixed(b"", "200 OK", **{f"X_{n}": "a" * 60_000 for n in range(40)}), ""),
        (fixed(b"a: &a [x,x]\nb: *a\n"), "not JSON"),
        (endless_header, ""),
        (endless_pages, "the tag list is larger than its limit|deadline exceeded"),
    ],
    ids=["gzip", "gzip-twice", "lists", "deep-lists", "deep-objects", "shapes", "headers", "yaml", "long-header", "pages"],
)  # fmt: skip
async def test_answers_that_are_bombs(world: Street, handler: Handler, said: str) -> None:
    async with BareServer(handler) as server:
        declare(world, server.host)
        done = await world.once()
    status, reason, message = done.ready(KIND, "bad")
    assert (status, reason) == ("False", "ReadOperationFailed")
    assert any(part in message for part in said.split("|"))
    assert len(message) < 2000


async def test_a_registry_that_sends_byte_by_byte_meets_the_timeout(world: Street) -> None:
    async with BareServer(drops) as server:
        declare(world, server.host, timeout="1s")
        done = await world.once()
    status, reason, message = done.ready(KIND, "bad")
    assert (status, reason) == ("False", "ReadOperationFailed")
    assert "deadline exceeded" in message


async def test_tags_that_are_no_tags_are_left_out(world: Street) -> None:
    evil = [
        "1.0.0",
        "2.0.0\nx",
        "\x1b[2J",
        "../../x",
        "-x",
        "a" * 200,
        "3.0.0 ",
        "$(id)",
        "4.0.0;id",
        "é",
        "{{ env }}",
        "5.0.0@sha256:00",
    ]
    async with BareServer(fixed(orjson.dumps({"tags": evil}))) as server:
        declare(world, server.host)
        done = await world.once()
    assert done.ready(KIND, "bad")[2].startswith("successful scan: found 4 tags")
    # What stays is visible, has no blank, and ends no reference; it reaches programs and YAML as one word.
    assert sorted(done.objects[KIND, "apps/bad"].status.last_scan_result.latest_tags) == ["$(id)", "-x", "1.0.0", "4.0.0;id"]


async def logged_in(exchange: Exchange, then: Handler) -> None:
    """Ask for a login, and go on with `then` once it is shown."""
    if exchange.headers.get("authorization") == LOGIN:
        await then(exchange)
    else:
        await exchange.answer("401 Unauthorized", WWW_Authenticate='Basic realm="x"')


@pytest.mark.parametrize("way", ["link", "realm", "realm-userinfo", "redirect-307", "redirect-303"])
async def test_the_login_goes_to_no_other_server(world: Street, way: str) -> None:
    """The next page, the token service and a redirect at another server: asked without the login, or not at all."""
    async with BareServer(fixed(TAGS)) as stranger:

        async def elsewhere(exchange: Exchange) -> None:
            if way == "link":
                await exchange.answer("200 OK", TAGS, Link=f'<http://{stranger.host}/v2/acme/app/tags/list>; rel="next"')
            else:
                await exchange.answer(f"{way[-3:]} Moved", Location=f"http://{stranger.host}{exchange.target}")

        async def handler(exchange: Exchange) -> None:
            if way == "realm-userinfo":
                await exchange.answer(
                    "401 Unauthorized", WWW_Authenticate=f'Bearer realm="http://{exchange.headers["host"]}@10.0.0.1/t"'
                )
            elif way == "realm":
                await exchange.answer(
                    "401 Unauthorized", WWW_Authenticate='Bearer realm="http://169.254.169.254/token",service="x"'
                )
            else:
                await logged_in(exchange, elsewhere)

        async with BareServer(handler) as server:
            declare(world, server.host)
            done = await world.once()
    assert all("authorization" not in exchange.headers for exchange in stranger.exchanges)
    if way.startswith(("link", "realm")):
        assert stranger.exchanges == []
        assert "another host" in done.ready(KIND, "bad")[2] or "private or link-local address" in done.ready(KIND, "bad")[2]


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[fd00:ec2::254]/",
        "file:///etc/passwd",
        "http://localhost:1/",
    ],
)
async def test_a_registry_sends_nobody_to_inner_addresses(world: Street, target: str) -> None:
    """By a redirect, where its answer would be quoted in a status."""
    async with BareServer(fixed(b"", "302 Found", Location=target)) as server:
        declare(world, server.host)
        done = await world.once()
    status, reason, message = done.ready(KIND, "bad")
    assert (status, reason) == ("False", "ReadOperationFailed")
    assert "refused" in message
