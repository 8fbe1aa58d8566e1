"""External metrics: from the cluster's API and from an adapter at an address."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from canary.metrics.base import NoValues, Sample
from reconcile.errors import Invalid, NotFound, ReconcileError
from tests.support.metric_backends import BAD_JSON, FAULTS, SECRET, FakeBackend, Raw, Rule, provider_of, short

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
API = "/apis/external.metrics.k8s.io/v1beta1"
PATH = f"{API}/namespaces/prod/queue-length"
KEYS = {"token": f"{SECRET}\n"}
QUERY = "prod/queue-length?labelSelector=app%3Dpodinfo%2Ctier+in+%28a%2Cb%29\n"


def backend(auth: Any = None) -> FakeBackend:
    auth = {"Authorization": f"Bearer {SECRET}"} if auth is None else auth
    return FakeBackend(
        Rule("GET", PATH, {"labelSelector": ".+"}, auth=auth),
        Rule("GET", f"{API}/namespaces/default/queue-length", auth=auth),
        Rule("GET", API, auth=auth),
    )


def found(*values: Any) -> dict[str, Any]:
    items = [{"metricName": "queue-length", "timestamp": "2026-01-01T00:00:00Z", "value": value} for value in values]
    return {"kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {}, "items": items}


def answer(*values: Any) -> Raw:
    return Raw(body=json.dumps(found(*values)))


async def ask(reply: Any, *, timeout: float = 5.0) -> Sample:
    async with backend() as server, provider_of("externalmetrics", server.url, KEYS, timeout=timeout) as provider:
        server.replies[PATH] = reply
        try:
            return await provider.query(QUERY, "", NOW)
        finally:
            assert not server.problems
            assert len(server.requests) == 1


class Cluster:
    """The cluster's API."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.paths: list[str] = []

    async def __call__(self, path: str) -> Any:
        self.paths.append(path)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_what_is_asked_at_an_address() -> None:
    async with backend() as server, provider_of("externalmetrics", f"{server.url}/", KEYS) as provider:
        server.replies[PATH] = answer("1500m")
        server.replies[f"{API}/namespaces/default/queue-length"] = answer("2k")
        assert await provider.query(QUERY, "", NOW) == Sample(1.5, 1)
        assert server.last.params == [("labelSelector", "app=podinfo,tier in (a,b)")]
        assert await provider.query("queue-length", "", NOW) == Sample(2000.0, 1)
        assert await provider.query("/queue-length", "", NOW) == Sample(2000.0, 1)
        await provider.online()
        assert server.last.path == API
        assert server.problems == []


async def test_what_is_asked_in_the_cluster() -> None:
    cluster = Cluster(found("7"))
    async with provider_of("externalmetrics", "", None, api=cluster) as provider:
        assert await provider.query(QUERY, "", NOW) == Sample(7.0, 1)
        await provider.online()
    assert cluster.paths == [f"{PATH}?labelSelector=app%3Dpodinfo%2Ctier+in+%28a%2Cb%29", API]


async def test_our_own_token_never_goes_to_an_address() -> None:
    cluster = Cluster(found("7"))
    async with backend({}) as server, provider_of("externalmetrics", server.url, None, api=cluster) as provider:
        server.replies[PATH] = answer("1")
        assert await provider.query(QUERY, "", NOW) == Sample(1.0, 1)
        assert "authorization" not in server.last.headers
    assert cluster.paths == []


@pytest.mark.parametrize(
    ("reply", "expected"),
    [(answer("1", "2"), Sample(1.0, 2)), (answer("-1.5"), Sample(-1.5, 1)), (answer(3), Sample(3.0, 1))],
)
async def test_which_value_counts(reply: Raw, expected: Sample) -> None:
    assert await ask(reply) == expected


@pytest.mark.parametrize("reply", [answer(), Raw(body="{}"), Raw(body='{"items":null}')])
async def test_nothing_is_no_value(reply: Raw) -> None:
    with pytest.raises(NoValues):
        await ask(reply)


@pytest.mark.parametrize("value", [None, "NaN", "many", {}, ""])
async def test_values_that_are_no_quantities(value: Any) -> None:
    with pytest.raises(ReconcileError, match="is not a quantity"):
        await ask(answer(value))


@pytest.mark.parametrize("fault", FAULTS)
async def test_faults(fault: str) -> None:
    reply, text = FAULTS[fault]
    with pytest.raises(ReconcileError, match=f"error querying external metrics API: {text}") as caught:
        await ask(reply, timeout=short(fault))
    assert SECRET not in repr(caught.value)
    assert not isinstance(caught.value, NoValues)


@pytest.mark.parametrize("body", BAD_JSON)
async def test_bodies_that_make_no_sense(body: str) -> None:
    with pytest.raises(ReconcileError, match=BAD_JSON[body]):
        await ask(Raw(body=body))


async def test_offline() -> None:
    async with backend() as server, provider_of("externalmetrics", server.url, {"token": "no"}) as provider:
        with pytest.raises(ReconcileError, match="external metrics service unavailable: error response: Status 401"):
            await provider.online()
    missing = Cluster(NotFound("the server could not find the requested resource"))
    async with provider_of("externalmetrics", "", None, api=missing) as provider:
        with pytest.raises(ReconcileError, match="external metrics service unavailable: the server could not find"):
            await provider.online()
        with pytest.raises(ReconcileError, match="error querying external metrics API: the server could not find"):
            await provider.query("m", "", NOW)


@pytest.mark.parametrize(
    ("query", "text"),
    [("a/b/c", "too many slashes"), ("", "metric name cannot be empty"), ("ns/", "metric name cannot be empty"),
     ("m?" + "a=b&" * 20, "malformed query string")],
)  # fmt: skip
async def test_queries_that_are_none(query: str, text: str) -> None:
    cluster = Cluster(found("1"))
    async with provider_of("externalmetrics", "", None, api=cluster) as provider:
        with pytest.raises(Invalid, match=f"error parsing metric query: .*{text}"):
            await provider.query(query, "", NOW)
    assert cluster.paths == []


async def test_names_cannot_lead_elsewhere() -> None:
    cluster = Cluster(found("1"))
    async with provider_of("externalmetrics", "", None, api=cluster) as provider:
        await provider.query("n s/m#x%2f..", "", NOW)
    assert cluster.paths == [f"{API}/namespaces/n%20s/m%23x%252f.."]


@pytest.mark.parametrize(
    ("address", "secret", "text"),
    [
        ("", None, "Not in a kubernetes cluster"),
        ("host", None, "externalmetrics address host is not a valid URL"),
        ("", KEYS, "has a token, but no address"),
        ("https://h", {"token": ""}, "have a token that is empty"),
    ],
)
async def test_what_cannot_be_used(address: str, secret: Any, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        async with provider_of("externalmetrics", address, secret):
            pass
