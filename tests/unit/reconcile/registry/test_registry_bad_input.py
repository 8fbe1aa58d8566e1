"""What hostile, broken and overloaded registries do to us: a clear error each, bounded work, and no credential for strangers."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc

import orjson
import pytest
from starlette.responses import Response

from imagebot.demo.door import Account
from reconcile.registry.budget import Budget, BudgetPolicy
from reconcile.registry.errors import BadAnswer, DeadlinePassed, Paused, RegistryError, StatusError, Unreachable
from reconcile.registry.keychain import Credential
from reconcile.registry.tags import TagLimits
from tests.support.registry import BareServer, Exchange, FakeClock, FixedKeychain, TestRegistry, make_pool

SOMEBODY = FixedKeychain(Credential("ann", "secret-password"))
BASIC = "Basic YW5uOnNlY3JldC1wYXNzd29yZA=="


async def list_tags(pool, repository, previous=None, **options):
    timeout = options.pop("timeout", None)
    client = await pool.client(repository, **options)
    return await client.list_tags(repository, previous, timeout=timeout)


def answering(body: bytes, status: str = "200 OK", **headers: str):
    """A handler that lets the ping pass and answers everything else with `body`."""

    async def handler(exchange: Exchange) -> None:
        if exchange.target == "/v2/":
            await exchange.answer()
        else:
            await exchange.answer(status, body, **headers)

    return handler


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (
            "403 Forbidden",
            b'{"errors":[{"code":"DENIED","message":"requested access is denied"}]}',
            "DENIED: requested access is denied",
        ),
        ("403 Forbidden", b"", "unexpected status code 403 Forbidden"),
        (
            "404 Not Found",
            b"<html><head><style>b{}</style></head><body><h1>404</h1> gone</body></html>",
            "unexpected status code 404 Not Found: 404 gone",
        ),
        ("401 Unauthorized", b"no", "unexpected status code 401 Unauthorized: no"),
        ("418 I'm a teapot", b"short and stout", "unexpected status code 418 I'm a Teapot: short and stout"),
        (
            "400 Bad Request",
            b'{"errors":[{"code":"NAME_INVALID","message":"bad"},{"code":"X","message":"y","detail":[1,true,null]}]}',
            "multiple errors returned: NAME_INVALID: bad; X: y; [1 true <nil>]",
        ),
    ],
)
async def test_error_statuses_have_fluxs_texts(status, body, text):
    async with BareServer(answering(body, status)) as server, make_pool() as pool:
        with pytest.raises(StatusError) as caught:
            await list_tags(pool, server.repository("acme/app"))
        assert str(caught.value) == f"GET http://{server.host}/v2/acme/app/tags/list?n=1000: {text}"
        assert len([exchange for exchange in server.exchanges if exchange.target != "/v2/"]) == 1


async def test_a_long_error_body_is_quoted_short():
    async with BareServer(answering(b"x" * 100_000, "404 Not Found")) as server, make_pool() as pool:
        with pytest.raises(StatusError) as caught:
            await list_tags(pool, server.repository("acme/app"))
        assert len(str(caught.value)) < 800


async def test_429_is_retried_after_the_time_the_registry_names():
    async with TestRegistry() as registry:
        clock = FakeClock()
        async with make_pool(clock=clock) as pool:
            registry.push_image("acme/app", "1.0.0")
            body = orjson.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]})
            registry.answers(Response(body, 429, {"Retry-After": "7"}), path="tags/list", times=1)
            assert (await list_tags(pool, registry.repository("acme/app"))).tags == ("1.0.0",)
            assert registry.requests["tags"] == 1
            assert registry.requests["fault"] == 1
            assert clock.slept == [7.0]


async def test_429_with_an_endless_pause_fails_at_once_and_leaves_the_host_alone():
    clock = FakeClock()
    async with TestRegistry() as registry, make_pool(clock=clock) as pool:
        registry.push_image("acme/app", "1.0.0")
        repository = registry.repository("acme/app")
        body = orjson.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]})
        registry.answers(Response(body, 429, {"Retry-After": "600"}), path="tags/list", times=1)
        with pytest.raises(StatusError, match=r"TOOMANYREQUESTS: slow down \(the registry asks to wait 600s\)$"):
            await list_tags(pool, repository)
        assert registry.requests["fault"] == 1
        registry.quiet()
        with pytest.raises(
            Paused, match=r"^GET http://.*/tags/list\?n=1000: the registry asked for a pause; next request in 600s$"
        ):
            await list_tags(pool, repository)
        assert not registry.requests
        clock.seconds += 600
        assert (await list_tags(pool, repository)).tags == ("1.0.0",)


async def test_429_without_end_is_tried_three_times():
    clock = FakeClock()
    async with TestRegistry() as registry, make_pool(clock=clock) as pool:
        registry.answers(Response(b"", 429), path="tags/list")
        with pytest.raises(StatusError, match=r"unexpected status code 429 Too Many Requests$"):
            await list_tags(pool, registry.repository("acme/app"))
        assert registry.requests["fault"] == 3
        assert [round(seconds) for seconds in clock.slept] == [1, 3]


async def test_html_instead_of_json():
    page = b"<!DOCTYPE html><html><body>Please <b>log in</b></body></html>"
    async with BareServer(answering(page, Content_Type="text/html; charset=utf-8")) as server, make_pool() as pool:
        with pytest.raises(BadAnswer) as caught:
            await list_tags(pool, server.repository("acme/app"))
        assert str(caught.value) == (
            f"GET http://{server.host}/v2/acme/app/tags/list?n=1000: the tag list is not JSON but text/html: Please log in"
        )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"[]", None),
        (b'"tags"', "no list 'tags' in it"),
        (b'{"tags": {}}', "no list 'tags' in it"),
        (b'{"tags": ["a", 1]}', "entry 1 of 'tags' is not a string"),
        (b'{"tags": ["a", null]}', "entry 1 of 'tags' is not a string"),
        (b'{"tags": ["a"', "the tag list is not JSON"),
        (b"", "the tag list is not JSON"),
    ],
)
async def test_json_of_another_shape(body, text):
    async with BareServer(answering(body)) as server, make_pool() as pool:
        if text is None:
            assert (await list_tags(pool, server.repository("acme/app"))).tags == ()
            return
        with pytest.raises(BadAnswer, match=text):
            await list_tags(pool, server.repository("acme/app"))


@pytest.mark.parametrize("body", [b'{"name":"acme/app","tags":null}', b'{"name":"acme/app","tags":[]}', b"{}"])
async def test_no_tags_at_all_is_an_empty_list(body):
    async with BareServer(answering(body)) as server, make_pool() as pool:
        pages = await list_tags(pool, server.repository("acme/app"))
        assert pages.tags == ()
        assert pages.dropped == 0


async def test_entries_that_cannot_be_tags_are_dropped_and_counted():
    bad = ["größe", "a b", "", "x" * 129, "a/b", "v1\n", "１"]
    body = orjson.dumps({"tags": ["v1", *bad, "V2_.-"]})
    async with BareServer(answering(body)) as server, make_pool() as pool:
        pages = await list_tags(pool, server.repository("acme/app"))
        assert pages.tags == ("v1", "V2_.-")
        assert pages.dropped == len(bad)


async def test_a_million_tags_in_one_page_fit_in_bounded_memory():
    body = orjson.dumps({"tags": [f"build-{number:07}" for number in range(1_000_000)]})
    async with BareServer(answering(body)) as server, make_pool() as pool:
        repository = server.repository("acme/app")
        tracemalloc.start()
        pages = await list_tags(pool, repository)
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(pages.tags) == 1_000_000
        assert pages.tags[-1] == "build-0999999"
        assert kept < 90 * 1024 * 1024
        assert peak < 320 * 1024 * 1024  # most of it reserved, not touched, by the JSON parser
        again = await list_tags(pool, repository, pages)
        assert again.unchanged


async def test_more_tags_than_the_limit_are_refused_not_cut():
    async with TestRegistry() as registry, make_pool(tag_limits=TagLimits(tags=2500)) as pool:
        registry.put_tags("acme/app", [f"v{number}" for number in range(2501)])
        with pytest.raises(BadAnswer, match="longer than the limit of 2500 tags"):
            await list_tags(pool, registry.repository("acme/app"))


async def test_a_body_of_100_mb_is_refused_when_announced_without_reading_it():
    sent = 0

    async def handler(exchange: Exchange) -> None:
        nonlocal sent
        if exchange.target == "/v2/":
            await exchange.answer()
            return
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(100):
            await exchange.send(b" " * 1_000_000)
            sent += 1

    async with BareServer(handler) as server, make_pool() as pool:
        with pytest.raises(Unreachable, match=r"larger than the limit of 67108864 bytes \(100000000 bytes announced\)"):
            await list_tags(pool, server.repository("acme/app"))
        assert sent < 20


async def test_a_body_of_100_mb_without_announcement_is_refused_at_the_limit():
    sent = 0

    async def handler(exchange: Exchange) -> None:
        nonlocal sent
        if exchange.target == "/v2/":
            await exchange.answer()
            return
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            await exchange.send(b"f4240\r\n" + b" " * 1_000_000 + b"\r\n")
            sent += 1

    async with BareServer(handler) as server, make_pool(tag_limits=TagLimits(page_bytes=5_000_000)) as pool:
        with pytest.raises(Unreachable, match="larger than the limit of 5000000 bytes"):
            await list_tags(pool, server.repository("acme/app"))
        assert sent < 30


async def test_a_gzip_bomb_is_refused_at_the_unpacked_limit():
    bomb = gzip.compress(b" " * 200_000_000, compresslevel=9)
    assert len(bomb) < 250_000
    async with BareServer(answering(bomb, Content_Encoding="gzip")) as server, make_pool() as pool:
        tracemalloc.start()
        with pytest.raises(Unreachable, match="larger than the limit of 67108864 bytes"):
            await list_tags(pool, server.repository("acme/app"))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 150_000_000


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
async def test_packed_answers_are_unpacked(encoding):
    import zlib

    plain = b'{"tags":["v1"]}'
    body = zlib.compress(plain) if encoding == "deflate" else gzip.compress(plain[:5]) + gzip.compress(plain[5:])
    async with BareServer(answering(body, Content_Encoding=encoding)) as server, make_pool() as pool:
        assert (await list_tags(pool, server.repository("acme/app"))).tags == ("v1",)


@pytest.mark.parametrize(
    ("body", "encoding", "text"),
    [
        (b"not gzip at all", "gzip", "gzip: invalid data"),
        (gzip.compress(b'{"tags":["v1"]}' * 100)[:-9], "gzip", "unexpected EOF"),
        (b"x", "br", "unknown encoding 'br'"),
    ],
)
async def test_answers_that_cannot_be_unpacked(body, encoding, text):
    async with BareServer(answering(body, Content_Encoding=encoding)) as server, make_pool() as pool:
        with pytest.raises(Unreachable, match=text):
            await list_tags(pool, server.repository("acme/app"))


async def test_a_redirect_to_another_host_carries_no_credentials():
    async with BareServer(answering(b'{"tags":["stolen"]}')) as stranger:

        async def handler(exchange: Exchange) -> None:
            if exchange.headers.get("authorization") != BASIC:
                await exchange.answer("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
                return
            await exchange.answer("307 Temporary Redirect", Location=f"http://{stranger.host}{exchange.target}")

        async with BareServer(handler) as server, make_pool() as pool:
            pages = await list_tags(pool, server.repository("acme/app"), keychain=SOMEBODY)
            assert pages.tags == ("stolen",)
            assert any(exchange.headers.get("authorization") == BASIC for exchange in server.exchanges)
            assert len(stranger.exchanges) == 1
            assert "authorization" not in stranger.exchanges[0].headers


async def test_a_challenge_from_a_redirects_target_gets_no_credentials():
    async with BareServer(answering(b"", "401 Unauthorized", WWW_Authenticate='Basic realm="give me"')) as stranger:

        async def handler(exchange: Exchange) -> None:
            if exchange.target == "/v2/":
                await exchange.answer()
                return
            await exchange.answer("302 Found", Location=f"http://{stranger.host}{exchange.target}")

        async with BareServer(handler) as server, make_pool() as pool:
            with pytest.raises(StatusError, match="unexpected status code 401 Unauthorized"):
                await list_tags(pool, server.repository("acme/app"), keychain=SOMEBODY)
            assert len(stranger.exchanges) == 1
            assert all("authorization" not in exchange.headers for exchange in stranger.exchanges + server.exchanges)


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("http://169.254.169.254/latest/meta-data/", "redirect to a private or link-local address refused: 169.254.169.254"),
        ("http://[fd00:ec2::254]/", "redirect to a private or link-local address refused: fd00:ec2::254"),
        ("http://[::ffff:10.0.0.1]/", "redirect to a private or link-local address refused"),
        ("http://localhost/", "redirect to a private or link-local address refused"),
        ("file:///etc/passwd", "redirect to scheme 'file' refused"),
        ("/v2/acme/app/tags/list?n=1000", "stopped after too many redirects"),
    ],
)
async def test_redirects_that_lead_astray(location, text):
    async def handler(exchange: Exchange) -> None:
        if exchange.target == "/v2/":
            await exchange.answer()
            return
        await exchange.answer("302 Found", Location=location)

    async with BareServer(handler) as server, make_pool() as pool:
        with pytest.raises(Unreachable, match=text):
            await list_tags(pool, server.repository("acme/app"))
        assert len(server.exchanges) <= 1 + 6


async def test_a_refresh_token_is_not_posted_to_a_redirects_target():
    async with BareServer(answering(b'{"token":"x"}')) as stranger:

        async def handler(exchange: Exchange) -> None:
            if exchange.target.startswith("/token"):
                await exchange.answer("307 Temporary Redirect", Location=f"http://localhost:{stranger.host.split(':')[1]}/token")
                return
            challenge = f'Bearer realm="http://{server.host}/token",service="s"'
            await exchange.answer("401 Unauthorized", WWW_Authenticate=challenge)

        async with BareServer(handler) as server, make_pool() as pool:
            keychain = FixedKeychain(Credential(identity_token="refresh-secret"))
            with pytest.raises(Unreachable, match="redirect of a POST to another host refused: localhost"):
                await list_tags(pool, server.repository("acme/app"), keychain=keychain)
            assert not stranger.exchanges


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ('<http://evil.example/v2/acme/app/tags/list?last=a>; rel="next"', "leads to another host: http://evil.example"),
        ('<https://{host}/v2/acme/app/tags/list?last=a>; rel="next"', "leads to another host: https://127.0.0.1"),
        ('</v2/acme/app/tags/list?n=1000>; rel="next"', "leads back to http://"),
        ("v2/acme; rel=next", "failed to parse link header: missing '<' in"),
        ("<http://[::1>; rel=next", "failed to parse link header"),
    ],
)
async def test_links_to_the_next_page_that_lead_astray(link, text):
    async def handler(exchange: Exchange) -> None:
        if exchange.target == "/v2/":
            await exchange.answer()
            return
        await exchange.answer(body=b'{"tags":["a"]}', Link=link.format(host=server.host))

    async with BareServer(handler) as server, make_pool() as pool:
        with pytest.raises(BadAnswer, match=text):
            await list_tags(pool, server.repository("acme/app"))
        assert len(server.exchanges) == 2


async def test_pages_without_end_stop_at_the_limit():
    async def handler(exchange: Exchange) -> None:
        if exchange.target == "/v2/":
            await exchange.answer()
            return
        link = f"<?n=1000&last={len(server.exchanges)}>; rel=next"
        await exchange.answer(body=b'{"tags":["a"]}', Link=link)

    async with BareServer(handler) as server, make_pool(tag_limits=TagLimits(pages=50)) as pool:
        with pytest.raises(BadAnswer, match="larger than its limit"):
            await list_tags(pool, server.repository("acme/app"))
        assert len(server.exchanges) == 1 + 50


async def test_a_server_that_drips_byte_after_byte_meets_the_deadline():
    async def handler(exchange: Exchange) -> None:
        if exchange.target == "/v2/":
            await exchange.answer()
            return
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await exchange.send(b" ")
            await asyncio.sleep(0.02)

    async with BareServer(handler) as server, make_pool() as pool:
        with pytest.raises(DeadlinePassed) as caught:
            await list_tags(pool, server.repository("acme/app"), timeout=0.7)
        assert str(caught.value) == f'Get "http://{server.host}/v2/acme/app/tags/list?n=1000": context deadline exceeded'


async def test_a_server_that_accepts_and_says_nothing_meets_the_deadline():
    async def handler(exchange: Exchange) -> None:
        await asyncio.sleep(60)

    async with BareServer(handler) as server, make_pool() as pool:
        with pytest.raises(DeadlinePassed, match=r'^Get "https?://.*/v2/": context deadline exceeded$'):
            await list_tags(pool, server.repository("acme/app"), timeout=0.6)


async def test_a_connection_cut_before_the_answer_is_tried_again():
    cuts = 2

    async def handler(exchange: Exchange) -> None:
        nonlocal cuts
        if exchange.target != "/v2/" and cuts:
            cuts -= 1
            exchange.writer.close()
            return
        await exchange.answer(body=b'{"tags":["v1"]}')

    async with BareServer(handler) as server, make_pool() as pool:
        assert (await list_tags(pool, server.repository("acme/app"))).tags == ("v1",)


async def test_a_connection_cut_in_the_body_is_an_error():
    async def handler(exchange: Exchange) -> None:
        if exchange.target == "/v2/":
            await exchange.answer()
            return
        await exchange.send(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"tags":["v1"')
        exchange.writer.close()

    async with BareServer(handler) as server, make_pool() as pool:
        with pytest.raises(Unreachable, match="unexpected EOF"):
            await list_tags(pool, server.repository("acme/app"))


async def test_a_refused_token_is_renewed_once_then_the_refusal_stands():
    account = Account("ann", "secret-password", scheme="bearer")
    async with TestRegistry(account=account) as registry, make_pool() as pool:
        registry.push_image("acme/app", "1.0.0")
        repository = registry.repository("acme/app")
        await list_tags(pool, repository, keychain=SOMEBODY)
        registry.door.tokens.clear()  # the registry forgot its tokens, as after a restart
        registry.quiet()
        assert (await list_tags(pool, repository, keychain=SOMEBODY)).tags == ("1.0.0",)
        assert dict(registry.requests) == {"tags": 2, "token": 1}
        registry.door.account = Account("ann", "secret-password", scheme="bearer", token_life=0)
        registry.door.tokens.clear()
        registry.quiet()
        with pytest.raises(StatusError, match=r"UNAUTHORIZED: authentication required$"):
            await list_tags(pool, repository, keychain=SOMEBODY)
        assert dict(registry.requests) == {"tags": 2, "token": 1}


async def test_a_token_answer_over_64_kib_is_refused():
    async def handler(exchange: Exchange) -> None:
        if exchange.target.startswith("/token"):
            await exchange.answer(body=orjson.dumps({"token": "x" * 70_000}))
            return
        await exchange.answer("401 Unauthorized", WWW_Authenticate=f'Bearer realm="http://{server.host}/token"')

    async with BareServer(handler) as server, make_pool() as pool:
        with pytest.raises(Unreachable, match="larger than the limit of 65536 bytes"):
            await list_tags(pool, server.repository("acme/app"))


@pytest.mark.parametrize(
    ("realm", "text"),
    [
        ("http://169.254.169.254/token", "realm host '169.254.169.254' is a private or link-local address"),
        ("http://localhost:1/token", "realm host 'localhost' is a private or link-local address"),
        ("ftp://127.0.0.1/token", "realm scheme 'ftp' not allowed"),
        ("", "missing realm"),
        ("http://", "no host"),
    ],
)
async def test_a_realm_that_would_carry_the_password_elsewhere_is_refused(realm, text):
    challenge = answering(b"", "401 Unauthorized", WWW_Authenticate=f'Bearer realm="{realm}",service="s"')
    async with BareServer(challenge) as server, make_pool() as pool:
        with pytest.raises(BadAnswer, match=text):
            await list_tags(pool, server.repository("acme/app"), keychain=SOMEBODY)
        assert all("authorization" not in exchange.headers for exchange in server.exchanges)


async def test_a_hanging_registry_does_not_hold_up_another():
    async def hang(exchange: Exchange) -> None:
        await asyncio.sleep(60)

    budget = Budget(BudgetPolicy(concurrency=2))
    async with BareServer(hang) as server, TestRegistry() as registry, make_pool(budget=budget) as pool:
        registry.push_image("acme/app", "1.0.0")
        stuck = [asyncio.create_task(list_tags(pool, server.repository(f"a/b{n}"), timeout=30)) for n in range(10)]
        await asyncio.sleep(0.05)
        assert (await list_tags(pool, registry.repository("acme/app"), timeout=10)).tags == ("1.0.0",)
        for task in stuck:
            task.cancel()
        results = await asyncio.gather(*stuck, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)


async def test_cookies_are_not_kept():
    async with BareServer(answering(b'{"tags":[]}', Set_Cookie="session=1; Path=/")) as server, make_pool() as pool:
        for _ in range(2):
            await list_tags(pool, server.repository("acme/app"))
        assert all("cookie" not in exchange.headers for exchange in server.exchanges)


async def test_every_error_is_ours():
    async def handler(exchange: Exchange) -> None:
        await exchange.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        exchange.writer.close()

    async with BareServer(handler) as server, make_pool() as pool:
        with pytest.raises(RegistryError, match="malformed HTTP response"):
            await list_tags(pool, server.repository("acme/app"))
