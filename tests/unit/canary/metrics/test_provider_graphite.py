"""Graphite: which point counts, what is asked, and what is said when it fails."""

from __future__ import annotations

import base64
import json
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from canary.metrics.base import NoValues, Sample
from reconcile.errors import Invalid, ReconcileError
from tests.support.metric_backends import BAD_JSON, FAULTS, SECRET, FakeBackend, Raw, Rule, provider_of, short
from tests.support.pki import Authority

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEYS = {"username": "me", "password": SECRET}
AUTH = {"Authorization": "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()}
PATH = "/graphite/render"
QUERY = "target=summarize(\n  a.{b,c}.d,\n  '1min')&from=-5min&until=now&target=x%2By\n"


def backend(auth: Any = AUTH) -> FakeBackend:
    return FakeBackend(Rule("GET", PATH, {"format": "json"}, optional=("target", "from", "until"), auth=auth))


def answer(*targets: Any) -> Raw:
    found = [{"target": "t", "datapoints": [[value, 1767268800 + n] for n, value in enumerate(values)]} for values in targets]
    return Raw(body=json.dumps(found))


async def ask(reply: Any, *, timeout: float = 5.0) -> Sample:
    async with backend() as server, provider_of("graphite", f"{server.url}/graphite", KEYS, timeout=timeout) as provider:
        server.replies[PATH] = reply
        try:
            return await provider.query("target=a", "", NOW)
        finally:
            assert not server.problems
            assert len(server.requests) == 1


async def test_what_is_asked() -> None:
    async with backend() as server, provider_of("graphite", f"{server.url}/graphite/", KEYS) as provider:
        server.replies[PATH] = answer([1.5])
        assert await provider.query(QUERY, "", NOW) == Sample(1.5, 1)
        assert server.last.params == [
            ("target", "summarize( a.{b,c}.d, '1min')"),
            ("target", "x+y"),
            ("from", "-5min"),
            ("until", "now"),
            ("format", "json"),
        ]
        await provider.query("format=csv&target=a", "", NOW)
        assert server.last.params == [("target", "a"), ("format", "json")]
        assert server.problems == []


async def test_without_a_secret_nobody_asks_but_the_address_may() -> None:
    async with backend({}) as server, provider_of("graphite", f"{server.url}/graphite", None) as provider:
        server.replies[PATH] = answer([2])
        assert await provider.query("target=a", "", NOW) == Sample(2.0, 1)
        assert "authorization" not in server.last.headers
    async with backend() as server:
        server.replies[PATH] = answer([3])
        address = server.url.replace("://", f"://me:{SECRET}@") + "/graphite"
        async with provider_of("graphite", address, None) as provider:
            assert await provider.query("target=a", "", NOW) == Sample(3.0, 1)
            server.replies[PATH] = Raw(500, f"you are me:{SECRET}")
            with pytest.raises(ReconcileError, match="Status 500") as caught:
                await provider.query("target=a", "", NOW)
            assert SECRET not in str(caught.value)
        assert server.problems == []


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer([1.0, 2.0, 3.5]), Sample(3.5, 3)),  # the newest
        (answer([1.0, 2.0, None]), Sample(2.0, 2)),  # that is not null
        (answer([1.0], [2.0]), Sample(2.0, 2)),  # of the last target
        (answer([1.0], [None]), Sample(1.0, 1)),  # that has one
        (answer(["4.5", "NaN"]), Sample(4.5, 1)),
    ],
)
async def test_which_value_counts(reply: Raw, expected: Sample) -> None:
    assert await ask(reply) == expected


@pytest.mark.parametrize("reply", [answer(), answer([]), answer([None, None]), answer(["NaN"]), Raw(body="null")])
async def test_nothing_is_no_value_and_still_online(reply: Raw) -> None:
    with pytest.raises(NoValues):
        await ask(reply)
    async with backend() as server, provider_of("graphite", f"{server.url}/graphite", KEYS) as provider:
        server.replies[PATH] = reply
        await provider.online()
        assert server.last.params == [("target", "test"), ("format", "json")]


@pytest.mark.parametrize("fault", FAULTS)
async def test_faults(fault: str) -> None:
    reply, text = FAULTS[fault]
    with pytest.raises(ReconcileError, match=text) as caught:
        await ask(reply, timeout=short(fault))
    assert SECRET not in repr(caught.value)
    assert not isinstance(caught.value, NoValues)


@pytest.mark.parametrize("body", [*BAD_JSON, "{}", '[{"datapoints":[[1]]}]', '[{"datapoints":[[{},1]]}]', "[{", "[1]"])
async def test_bodies_that_make_no_sense(body: str) -> None:
    with pytest.raises(ReconcileError, match="error unmarshaling result"):
        await ask(Raw(body=body))


async def test_offline() -> None:
    async with backend() as server, provider_of("graphite", f"{server.url}/graphite", {**KEYS, "password": "no"}) as provider:
        with pytest.raises(ReconcileError, match="running query failed: error response: Status 401 Unauthorized"):
            await provider.online()


async def test_any_certificate_will_do_only_when_the_template_says_so(tmp_path: Path) -> None:
    certificate, key = Authority().server(["127.0.0.1"])
    (tmp_path / "pem").write_bytes(certificate + key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "pem")
    async with FakeBackend(Rule("GET", "/render", {"format": "json"}, optional=("target",)), tls=tls) as server:
        server.replies["/render"] = answer([5])
        async with provider_of("graphite", server.url, None) as provider:
            with pytest.raises(ReconcileError, match="x509: certificate signed by unknown authority"):
                await provider.query("target=a", "", NOW)
        async with provider_of("graphite", server.url, None, spec={"insecureSkipVerify": True}) as provider:
            assert await provider.query("target=a", "", NOW) == Sample(5.0, 1)


async def test_queries_are_bounded() -> None:
    async with backend() as server, provider_of("graphite", f"{server.url}/graphite", KEYS) as provider:
        with pytest.raises(Invalid, match="more than 100 fields"):
            await provider.query("&".join(["target=a"] * 101), "", NOW)
        assert server.requests == []


@pytest.mark.parametrize(
    ("address", "secret", "text"),
    [
        ("", None, "graphite address  is not a valid URL"),
        ("http://h", {"password": "x"}, "graphite credentials does not contain a username"),
        ("http://h", {"username": "x"}, "graphite credentials does not contain a password"),
        ("http://h", {"username": "x", "password": b"\xff"}, "graphite credentials have a password that is not UTF-8"),
    ],
)
async def test_what_cannot_be_used(address: str, secret: Any, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        async with provider_of("graphite", address, secret):
            pass
