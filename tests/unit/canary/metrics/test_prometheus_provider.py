"""Prometheus through prometheus-api-client, against a scripted server on a real socket."""

from __future__ import annotations

import asyncio
import base64
import math
import ssl
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from canary.metrics.base import NoValues, ProviderConfig, Sample
from canary.metrics.prometheus import Connections, Prometheus, Server
from reconcile.errors import Invalid, ReconcileError
from reconcile.net.proxy import ProxyEnvironment
from tests.support.prometheus import INTERNAL, FakePrometheus, Raw, vector


@pytest.fixture
async def backend() -> AsyncIterator[FakePrometheus]:
    async with FakePrometheus() as server:
        yield server
    assert not server.problems


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    made = Connections(environment=ProxyEnvironment())
    yield made
    await made.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("prometheus")]


def provider(connections: Connections, address: str, secret: dict[str, bytes] | None = None, **fields: Any) -> Prometheus:
    credentials = None if secret is None else tuple(sorted(secret.items()))
    return Prometheus(ProviderConfig("prometheus", address, credentials=credentials, **fields), connections)


async def said(asked: Prometheus, query: str = "up") -> str:
    with pytest.raises(ReconcileError) as caught:
        await asked.query(query)
    return str(caught.value)


def refused(config: ProviderConfig) -> str:
    with pytest.raises(Invalid) as caught:
        Server.of(config)
    return str(caught.value)


# --- what is sent


async def test_a_query_is_one_get_with_the_query_alone(backend: FakePrometheus, connections: Connections) -> None:
    backend.default = 97.2
    assert await provider(connections, backend.url).query(' sum( up{a="b  c"} )\n  / 2 + 1%') == Sample(97.2)
    assert backend.texts == [' sum( up{a="b c"} ) / 2 + 1%']
    assert "authorization" not in backend.queries[0].headers
    assert "cookie" not in backend.queries[0].headers


@pytest.mark.parametrize("tail", ["/base/path", "/base/path/", "/base/path?token=x&y=z", "/base/path#top"])
async def test_the_base_path_is_kept_and_the_rest_dropped(backend: FakePrometheus, connections: Connections, tail: str) -> None:
    backend.bases = ("/base/path",)
    await provider(connections, backend.url + tail).query("up")
    assert backend.queries[0].path == "/base/path/api/v1/query"


BASIC = "Basic " + base64.b64encode(b"ann:s3cret word").decode()


@pytest.mark.parametrize(
    ("user", "secret", "headers", "sent"),
    [
        ("", {"token": b"t0ken\n"}, (), "Bearer t0ken"),
        ("", {"token": b"t0ken", "username": b"ann", "password": b"p"}, (), "Bearer t0ken"),
        ("", {"username": b"ann", "password": b"s3cret word"}, (), BASIC),
        ("ann:s3cret%20word@", None, (), BASIC),
        ("bob:other@", {"username": b"ann", "password": b"s3cret word"}, (), BASIC),
        ("bob:other@", {"token": b"t0ken"}, (), "Bearer t0ken"),
        ("bob:other@", None, (("Authorization", ("Custom x",)),), "Custom x"),
        ("", {"token": b"t0ken"}, (("authorization", ("Custom x",)),), "Bearer t0ken"),
    ],
)
async def test_credentials(
    backend: FakePrometheus, connections: Connections, user: str, secret: Any, headers: Any, sent: str
) -> None:
    asked = provider(connections, f"http://{user}{backend.host}", secret, headers=headers)
    await asked.query("up")
    await asked.query("up")
    assert [query.headers["authorization"] for query in backend.queries] == [sent, sent]


async def test_headers_of_the_template_are_sent(backend: FakePrometheus, connections: Connections) -> None:
    headers = (("X-Scope-OrgID", ("tenant",)), ("X-Many", ("a", "b")))
    await provider(connections, backend.url, {"token": b"x"}, headers=headers).query("up")
    sent = backend.queries[0].headers
    assert (sent["x-scope-orgid"], sent["x-many"]) == ("tenant", "a, b")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (ProviderConfig("prometheus"), "prometheus address  is not a valid URL"),
        (ProviderConfig("prometheus", "prometheus:9090"), "prometheus address prometheus:9090 is not a valid URL"),
        (ProviderConfig("prometheus", "ftp://u:p@host"), "prometheus address ftp://host is not a valid URL"),
        (ProviderConfig("prometheus", "http://h", credentials=()), "prometheus credentials does not contain a username"),
        (ProviderConfig("prometheus", "http://h", credentials=(("username", b"u"),)),
         "prometheus credentials does not contain a password"),
        (ProviderConfig("prometheus", "http://h", credentials=(("token", b"\xff"),)),
         "prometheus credentials have a token that is not UTF-8 text"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(config: ProviderConfig, text: str) -> None:
    assert refused(config) == text


# --- what comes back


@pytest.mark.parametrize(
    ("reply", "sample"),
    [
        (0.25, Sample(0.25)),
        ("inf", Sample(math.inf)),
        ("-inf", Sample(-math.inf)),
        ([3.0, 9.0, 5.0], Sample(5.0, 3, (3.0, 9.0))),
        ([3.0, math.nan, 5.0], Sample(5.0, 3, (3.0, 5.0))),
        (Raw(body=vector(2.0).replace('"success"', '"error"')), Sample(2.0)),
        (Raw(body='{"data":{"resultType":"vector","result":[{"value":[1,"1e3"]}]}}'), Sample(1000.0)),
    ],
)
async def test_answers_with_a_value(backend: FakePrometheus, connections: Connections, reply: Any, sample: Sample) -> None:
    backend.default = reply
    assert await provider(connections, backend.url).query("up") == sample


@pytest.mark.parametrize(
    "reply",
    ["empty", "nan", [math.nan, math.nan], Raw(body="{}"), Raw(body="null"), Raw(body='{"data":null}'),
     Raw(body='{"data":{"resultType":"vector","result":null}}'),
     Raw(body='{"data":{"resultType":"vector","result":[{"value":[1,2]}]}}')],
)  # fmt: skip
async def test_answers_without_a_value(backend: FakePrometheus, connections: Connections, reply: Any) -> None:
    backend.default = reply
    with pytest.raises(NoValues, match=r"^no values found$"):
        await provider(connections, backend.url).query("up")


SCALAR = '{"data": {"resultType": "scalar", "result": [1700000000, "1"]}}'


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("error500", f"error response: Status 500 Internal Server Error: {INTERNAL}"),
        (Raw(422, "parse error"), "error response: Status 422 Unprocessable Entity: parse error"),
        (Raw(401, ""), "error response: Status 401 Unauthorized: "),
        (Raw(503, "x" * 9000), "error response: Status 503 Service Unavailable: " + "x" * 512),
        ("matrix", "query returned multiple values"),
        ("scalar", f"error unmarshaling result: the result is a scalar, not a vector, '{SCALAR}'"),
        (Raw(body="[1]"), "error unmarshaling result: the answer has no vector, '[1]'"),
        ("histogram", "query returned a native histogram: take a number from it, with histogram_quantile or histogram_sum"),
        (Raw(body='{"data":{"result":[{"value":[1]}]}}'), "error unmarshaling result: a series has no value"),
        (Raw(body='{"data":{"result":[{"value":[1,"many"]}]}}'), 'strconv.ParseFloat: parsing "many": invalid syntax'),
    ],
)  # fmt: skip
async def test_answers_that_are_errors(backend: FakePrometheus, connections: Connections, reply: Any, text: str) -> None:
    backend.default = reply
    assert await said(provider(connections, backend.url)) == text
    assert len(backend.queries) == 1  # nothing is tried again


@pytest.mark.parametrize("body", ['{"status":"success","data":{"resul', "<html>", "", "1 2"])
async def test_what_is_no_json_is_shown(backend: FakePrometheus, connections: Connections, body: str) -> None:
    backend.default = Raw(body=body)
    text = await said(provider(connections, backend.url))
    assert text.startswith("error unmarshaling result: ")
    assert text.endswith(f", '{body}'")


# --- what goes wrong on the way


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        ("hang-up", "EOF"),
        ("truncated", "unexpected EOF"),
        ("huge", "the answer is larger than the limit of 1048576 bytes"),
        (Raw(302, headers={"Location": "ftp://elsewhere/"}), "redirect to scheme 'ftp' refused"),
        (Raw(302, headers={"Location": "http://10.0.0.1/"}), "redirect to a private or link-local address refused: 10.0.0.1"),
    ],
)
async def test_answers_that_do_not_come(backend: FakePrometheus, connections: Connections, reply: Any, cause: str) -> None:
    backend.default = reply
    text = await said(provider(connections, backend.url), "up 1")
    assert text == f'request failed: Get "{backend.url}/api/v1/query?query=up+1": {cause}'
    assert len(backend.queries) == 1


@pytest.mark.parametrize("reply", ["hang", "drip-head", "drip-body"])
async def test_a_deadline_ends_the_call_and_its_thread(backend: FakePrometheus, connections: Connections, reply: str) -> None:
    backend.default = reply
    text = await said(provider(connections, backend.url, timeout=0.3))
    assert text == f'request failed: Get "{backend.url}/api/v1/query?query=up": context deadline exceeded'
    while backend.open and reply != "hang":  # a server that sends sees the client leave
        await asyncio.sleep(0.01)


async def test_nobody_listens(connections: Connections) -> None:
    text = await said(provider(connections, "http://u:hidden-word@127.0.0.1:1/p"))
    assert (
        text
        == 'request failed: Get "http://127.0.0.1:1/p/api/v1/query?query=up": dial tcp 127.0.0.1:1: connect: connection refused'
    )


async def test_a_connection_that_the_server_closed_is_no_failure(backend: FakePrometheus, connections: Connections) -> None:
    backend.default = "stale"
    asked = provider(connections, backend.url)
    for _ in range(4):
        await asked.query("up")
    assert len(backend.queries) == 4


async def test_connections_are_kept_and_shared(backend: FakePrometheus, connections: Connections) -> None:
    for _ in range(3):
        await provider(connections, backend.url).query("up")
    assert backend.connections == 1
    await provider(connections, backend.url, {"token": b"x"}).query("up")
    assert backend.connections == 2


async def test_one_server_gets_so_many_queries_at_once_and_the_others_room(backend: FakePrometheus) -> None:
    connections = Connections(workers=4, per_server=2, environment=ProxyEnvironment())
    async with FakePrometheus() as stuck:
        stuck.default = "hang"
        bad = provider(connections, stuck.url, timeout=1.0)
        waiting = [asyncio.create_task(said(bad, f"q{n}")) for n in range(6)]
        while stuck.open < 2:
            await asyncio.sleep(0.01)
        assert await provider(connections, backend.url).query("up") == Sample(1.0)
        assert all("context deadline exceeded" in text for text in await asyncio.gather(*waiting))
        assert stuck.most_open == 2
    await connections.close()


async def test_few_sessions_are_kept(backend: FakePrometheus) -> None:
    connections = Connections(servers=2, environment=ProxyEnvironment())
    for token in (b"a", b"b", b"c", b"a"):
        await provider(connections, backend.url, {"token": token}).query("up")
    assert backend.connections == 4
    await provider(connections, backend.url, {"token": b"c"}).query("up")
    assert backend.connections == 4
    await connections.close()


async def test_closing_ends_what_hangs(backend: FakePrometheus) -> None:
    backend.default = "hang"
    connections = Connections(environment=ProxyEnvironment())
    asking = asyncio.create_task(said(provider(connections, backend.url, timeout=60.0)))
    while not backend.open:
        await asyncio.sleep(0.01)
    await connections.close()
    assert (await asking).startswith("request failed: ")


async def test_a_cancelled_call_frees_its_thread(backend: FakePrometheus) -> None:
    backend.default = "hang"
    connections = Connections(workers=1, environment=ProxyEnvironment())
    asking = asyncio.create_task(provider(connections, backend.url, timeout=60.0).query("up"))
    while not backend.open:
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    backend.default = 7.0
    assert await provider(connections, backend.url).query("up") == Sample(7.0)
    await connections.close()


# --- secrets


async def test_a_redirect_takes_credentials_along_to_the_same_origin_only(
    backend: FakePrometheus, connections: Connections
) -> None:
    async with FakePrometheus() as other:
        elsewhere = f"{other.url}/api/v1/query?query=up"
        backend.replies["away"] = Raw(307, headers={"Location": elsewhere})
        backend.replies["near"] = Raw(302, headers={"Location": "/api/v1/query?query=up"})
        for secret in ({"token": b"t0ken"}, {"username": b"ann", "password": b"s3cret"}):
            asked = provider(connections, backend.url, secret, headers=(("X-Key", ("k3y",)),))
            assert await asked.query("away") == Sample(1.0)
            assert await asked.query("near") == Sample(1.0)
        assert len(other.queries) == 2
        assert not [query for query in other.queries if {"authorization", "x-key"} & set(query.headers)]
        assert all("authorization" in query.headers and query.headers["x-key"] == "k3y" for query in backend.queries)
        assert len(backend.queries) == 6


async def test_redirects_in_a_circle_end(backend: FakePrometheus, connections: Connections) -> None:
    backend.default = Raw(302, headers={"Location": "/api/v1/query?query=up"})
    assert (await said(provider(connections, backend.url))).endswith("stopped after 5 redirects")
    assert len(backend.queries) == 6


async def test_secrets_show_in_no_text(backend: FakePrometheus, connections: Connections) -> None:
    backend.default = Raw(401, "who are you, s3cret-word with Bearer t0ken-word?")
    basic = provider(connections, backend.url, {"username": b"ann", "password": b"s3cret-word"})
    bearer = provider(connections, backend.url, {"token": b"t0ken-word"})
    assert "s3cret-word" not in await said(basic)
    assert "t0ken-word" not in await said(bearer)
    for config in (
        ProviderConfig("prometheus", "http://h", credentials=(("token", b"t0ken-word"),)),
        ProviderConfig("prometheus", "http://h", credentials=(("username", b"ann"), ("password", b"t0ken-word"))),
    ):
        assert "t0ken-word" not in repr(config) + repr(Server.of(config))


async def test_netrc_and_cookies_are_not_used(
    backend: FakePrometheus, connections: Connections, tmp_path: Any, monkeypatch: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    backend.default = Raw(body=vector(1.0), headers={"Set-Cookie": "a=b; Path=/"})
    asked = provider(connections, backend.url)
    await asked.query("up")
    await asked.query("up")
    assert not [query for query in backend.queries if {"cookie", "authorization"} & set(query.headers)]


# --- proxies, TLS, availability


async def test_the_environments_proxy_is_not_for_loopback_nor_for_exceptions(backend: FakePrometheus) -> None:
    # A proxy is asked for the whole URL, which this server notes as a problem.
    proxied = Connections(environment=ProxyEnvironment(http=f"http://u:pr0xy-word@{backend.host}", exceptions=("192.0.2.1",)))
    await provider(proxied, backend.url).query("up")
    assert backend.texts == ["up"]
    text = await said(provider(proxied, "http://far.test"))
    assert text.startswith("error response: Status 400")
    assert [problem.removeprefix("path ") for problem in backend.problems] == ["http://far.test/api/v1/query"]
    backend.problems.clear()
    text = await said(provider(proxied, "http://192.0.2.1"))
    assert "pr0xy-word" not in text
    assert not backend.problems
    await proxied.close()


@pytest.mark.needs("openssl")
async def test_certificates_are_checked_unless_told_otherwise(
    backend: FakePrometheus, connections: Connections, tmp_path: Any
) -> None:
    await run_openssl(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = await asyncio.start_server(backend._serve, "127.0.0.1", 0, ssl=context)
    address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert "tls: failed to verify certificate: x509: certificate signed by unknown authority" in await said(
        provider(connections, address)
    )
    assert not backend.queries
    assert await provider(connections, address, insecure_skip_verify=True).query("up") == Sample(1.0)
    backend.default = "hang"
    assert "context deadline" in await said(provider(connections, address, insecure_skip_verify=True, timeout=0.3))
    server.close()


async def run_openssl(folder: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"),
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await process.wait() == 0


async def test_online_asks_for_one(backend: FakePrometheus, connections: Connections) -> None:
    asked = provider(connections, backend.url)
    await asked.online()
    assert backend.texts == ["vector(1)"]
    backend.replies["vector(1)"] = 2.0
    with pytest.raises(ReconcileError, match=r"^running query failed: vector\(1\) is 2$"):
        await asked.online()
    backend.replies["vector(1)"] = "error500"
    with pytest.raises(ReconcileError, match=r"^running query failed: error response: Status 500 "):
        await asked.online()
