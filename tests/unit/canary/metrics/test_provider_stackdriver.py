"""Google Cloud Monitoring: tokens of two kinds, which value counts, and what is said when it fails."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from canary.api import MetricProvider
from canary.metrics.base import NoValues, Provider, Sample
from canary.metrics.logins import Logins
from canary.metrics.providers import Providers
from canary.metrics.stackdriver import ENDPOINT, Stackdriver
from reconcile.errors import Invalid, ReconcileError
from reconcile.net.client import make_client
from reconcile.net.proxy import ProxyEnvironment
from reconcile.registry.cloud_gcp import Gcp, GcpEndpoints
from tests.support.metric_backends import BAD_JSON, FAULTS, SECRET, FakeBackend, Raw, Request, Rule, short

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATH = "/v3/projects/acme/timeSeries:query"
METADATA = "/computeMetadata/v1/instance/service-accounts/default/token"
QUERY = "fetch k8s_container\n| metric 'x'\n| within 5m"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
TOKEN = Raw(
    body=json.dumps({"access_token": SECRET, "expires_in": 3600, "token_type": "Bearer"}), headers={"Metadata-Flavor": "Google"}
)


def account(**more: Any) -> bytes:
    document = {"type": "service_account", "client_email": "me@acme", "private_key_id": "k1", "private_key": PEM}
    return json.dumps({**document, **more}).encode()


def query_body(request: Request) -> str:
    return "" if set(json.loads(request.body)) == {"query"} else "body"


def token_body(request: Request) -> str:
    form = dict(parse_qsl(request.body.decode()))
    if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
        return "grant"
    unsigned, _, signature = form["assertion"].rpartition(".")
    KEY.public_key().verify(_decoded(signature), unsigned.encode(), padding.PKCS1v15(), hashes.SHA256())
    header, claims = (json.loads(_decoded(part)) for part in unsigned.split("."))
    good = header["alg"] == "RS256" and claims["iss"] == "me@acme" and claims["exp"] - claims["iat"] <= 3600
    return "" if good else "claims"


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Google:
    """A Google whose queries and tokens are counted."""

    def __init__(self, server: FakeBackend, providers: Providers, clock: Clock, timeout: float) -> None:
        self.server, self.clock = server, clock
        self._providers = providers
        self._timeout = timeout

    def provider(self, **secret: bytes) -> Provider:
        """One made for a tick, as the controller does."""
        config = self._providers.config(MetricProvider(type="stackdriver"), secret, timeout=self._timeout)
        return Stackdriver(config, self.server.url)

    def count(self, path: str) -> int:
        return sum(request.path == path for request in self.server.requests)


@contextlib.asynccontextmanager
async def google(reply: Any = None, *, timeout: float = 5.0) -> AsyncIterator[Google]:
    clock = Clock()
    client = make_client(environment=ProxyEnvironment())
    async with (
        FakeBackend(
            Rule(
                "POST",
                PATH,
                auth={"Authorization": f"Bearer {SECRET}"},
                headers={"Content-Type": "application/json"},
                body=query_body,
            ),
            Rule("GET", METADATA, {"scopes": ".*monitoring.*|.*cloud-platform.*"}, headers={"Metadata-Flavor": "Google"}),
            Rule("POST", "/token", body=token_body),
        ) as server,
        client,
    ):
        server.replies[METADATA] = server.replies["/token"] = TOKEN
        if reply is not None:
            server.replies[PATH] = reply
        identity = Gcp(environment={}, endpoints=GcpEndpoints(f"{server.url}/token", server.url), clock=clock)
        providers = Providers(clock=clock, environment=ProxyEnvironment(), logins=Logins(client, clock, gcp=identity))
        async with contextlib.aclosing(providers):
            yield Google(server, providers, clock, timeout)


def answer(*series: list[Any]) -> Raw:
    data = [{"labelValues": [], "pointData": [{"values": values, "timeInterval": {}} for values in points]} for points in series]
    return Raw(body=json.dumps({"timeSeriesDescriptor": {}, "timeSeriesData": data}))


def double(value: Any) -> list[Any]:
    return [{"doubleValue": value}]


async def ask(reply: Any, *, timeout: float = 5.0) -> Sample:
    async with google(reply, timeout=timeout) as cloud:
        try:
            return await cloud.provider(project=b"acme\n").query(QUERY, "", NOW)
        finally:
            assert cloud.server.problems == []
            assert cloud.count(PATH) == 1


async def test_the_identity_of_this_process_asks_and_its_token_is_kept() -> None:
    async with google(answer([double(1.5)])) as cloud:
        for _ in range(3):
            assert await cloud.provider(project=b"acme").query(QUERY, "", NOW) == Sample(1.5, 1)
        assert json.loads(cloud.server.last.body) == {"query": QUERY}
        assert (cloud.count(METADATA), cloud.count(PATH)) == (1, 3)
        cloud.clock.seconds += 3600
        await cloud.provider(project=b"acme").query(QUERY, "", NOW)
        assert (cloud.count(METADATA), cloud.count("/token")) == (2, 0)
        assert cloud.server.problems == []


async def test_a_key_of_the_secret_asks_and_its_token_is_nobody_elses() -> None:
    async with google(answer([double(1.5)])) as cloud:
        keys = account(token_uri=f"{cloud.server.url}/token"), account(token_uri=f"{cloud.server.url}/token", client_id="2")
        for key in (*keys, *keys):
            await cloud.provider(project=b"acme", serviceAccountKey=key).query(QUERY, "", NOW)
        assert (cloud.count(METADATA), cloud.count("/token"), cloud.count(PATH)) == (0, 2, 4)
        assert cloud.server.problems == []


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer([double(3.5), double(2), double(1)]), Sample(3.5, 3)),  # the newest comes first
        (answer([double(3)], [double(9)]), Sample(3.0, 1)),  # of the first series
        (answer([[{"doubleValue": 3}, {"doubleValue": 9}]]), Sample(3.0, 1)),  # and its first value
        (answer([[{"int64Value": "12"}]]), Sample(12.0, 1)),
        (answer([[{"doubleValue": "-Infinity"}]]), Sample(float("-inf"), 1)),
    ],
)
async def test_which_value_counts(reply: Raw, expected: Sample) -> None:
    assert await ask(reply) == expected


@pytest.mark.parametrize(
    "reply", [answer(), answer([]), answer([[]]), answer([double("NaN")]), answer([double(None)]), Raw(body="{}")]
)
async def test_nothing_is_no_value(reply: Raw) -> None:
    with pytest.raises(NoValues):
        await ask(reply)


@pytest.mark.parametrize("value", [{"boolValue": True}, {"stringValue": "1"}, {"distributionValue": {}}, 7])
async def test_values_that_are_no_numbers(value: Any) -> None:
    with pytest.raises(ReconcileError, match="the first value is neither a double nor an integer"):
        await ask(answer([[value]]))


@pytest.mark.parametrize("fault", FAULTS)
async def test_faults(fault: str) -> None:
    reply, text = FAULTS[fault]
    with pytest.raises(ReconcileError, match=f"error requesting stackdriver: ({text}|Post .*deadline exceeded)") as caught:
        await ask(reply, timeout=short(fault))
    assert SECRET not in repr(caught.value)
    assert not isinstance(caught.value, NoValues)


@pytest.mark.parametrize("body", BAD_JSON)
async def test_bodies_that_make_no_sense(body: str) -> None:
    with pytest.raises(ReconcileError, match=BAD_JSON[body]):
        await ask(Raw(body=body))


def refused(status: str, code: int = 400) -> Raw:
    return Raw(code, json.dumps({"error": {"code": code, "message": "no", "status": status}}))


async def test_an_empty_query_that_is_refused_for_that_means_online() -> None:
    async with google(refused("INVALID_ARGUMENT")) as cloud:
        await cloud.provider(project=b"acme").online()
        assert json.loads(cloud.server.last.body) == {"query": ""}


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (refused("PERMISSION_DENIED", 403), "unexpected status code: .*PERMISSION_DENIED"),
        (refused("FAILED_PRECONDITION"), "unexpected status code: .*FAILED_PRECONDITION"),
        (Raw(400, "<html>"), "unexpected status code: .*<html>"),
        ("hang-up", "unexpected error: request failed"),
    ],
)
async def test_offline(reply: Any, text: str) -> None:
    async with google(reply) as cloud:
        with pytest.raises(ReconcileError, match=text):
            await cloud.provider(project=b"acme").online()


async def test_logins_that_fail() -> None:
    async with google(answer([double(1)])) as cloud:
        cloud.server.replies[METADATA] = Raw(403, "no scopes")
        with pytest.raises(ReconcileError, match=r"error requesting stackdriver: gcp: metadata server: .* 403: no scopes"):
            await cloud.provider(project=b"acme").query(QUERY, "", NOW)
        cloud.server.replies["/token"] = Raw(400, json.dumps({"error": "invalid_grant"}))
        key = account(token_uri=f"{cloud.server.url}/token")
        with pytest.raises(ReconcileError, match=r"gcp: service account key: .* 400: invalid_grant"):
            await cloud.provider(project=b"acme", serviceAccountKey=key).query(QUERY, "", NOW)
        assert cloud.count(PATH) == 0


async def test_a_slow_login_does_not_outlast_the_query() -> None:
    async with google(answer([double(1)]), timeout=0.2) as cloud:
        cloud.server.replies[METADATA] = "hang"
        with pytest.raises(ReconcileError, match="deadline exceeded"):
            await cloud.provider(project=b"acme").query(QUERY, "", NOW)


@pytest.mark.parametrize("key", [b"", b"{", b"[]", account(type="external_account"), account(type="authorized_user")])
async def test_keys_of_another_kind_are_not_used(key: bytes) -> None:
    async with google() as cloud:
        with pytest.raises(ReconcileError, match="not the JSON of a key of type service_account"):
            await cloud.provider(project=b"acme", serviceAccountKey=key).query(QUERY, "", NOW)
        assert cloud.server.requests == []


async def test_what_cannot_be_used() -> None:
    async with google() as cloud:
        with pytest.raises(Invalid, match="stackdriver credentials does not contain a project id"):
            cloud.provider(serviceAccountKey=b"{}")


def test_tokens_go_to_google_whatever_the_address() -> None:
    config = Providers(environment=ProxyEnvironment()).config(
        MetricProvider(type="stackdriver", address="https://evil.example"), {"project": b"a/b?c"}
    )
    provider = Stackdriver(config)
    assert (provider._endpoint, provider._path) == (ENDPOINT, "/v3/projects/a%2Fb%3Fc/timeSeries:query")
