"""Dynatrace: which point counts, what is asked, and what is said when it fails."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from canary.metrics.base import NoValues, Sample
from reconcile.errors import Invalid, ReconcileError
from tests.support.metric_backends import BAD_JSON, FAULTS, SECRET, FakeBackend, Raw, Rule, provider_of, short

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEYS = {"dynatrace_token": f"{SECRET}\n"}
AUTH = {"Authorization": f"Api-Token {SECRET}"}
PATH = "/e/env/api/v2/metrics/query"
QUERY = 'builtin:service.errors:filter(eq("dt.entity.service","S-1")):avg'


def backend() -> FakeBackend:
    params = {"metricSelector": ".+", "resolution": "Inf", "from": "[0-9]{13}", "to": "[0-9]{13}"}
    return FakeBackend(
        Rule("GET", PATH, params, auth=AUTH), Rule("GET", "/e/env/api/v2/metrics", {"pageSize": "[0-9]+"}, auth=AUTH)
    )


def answer(*data: list[Any], more: Any = ()) -> Raw:
    tuples = [{"dimensions": [], "timestamps": [1] * len(values), "values": values} for values in data]
    return Raw(body=json.dumps({"totalCount": 1, "resolution": "Inf", "result": [{"metricId": "m", "data": tuples}, *more]}))


async def ask(reply: Any, *, timeout: float = 5.0) -> Sample:
    async with backend() as server, provider_of("dynatrace", f"{server.url}/e/env", KEYS, timeout=timeout) as provider:
        server.replies[PATH] = reply
        try:
            return await provider.query(QUERY, "1m", NOW)
        finally:
            assert not server.problems
            assert len(server.requests) == 1


async def test_what_is_asked() -> None:
    async with backend() as server, provider_of("dynatrace", f"{server.url}/e/env/", KEYS) as provider:
        server.replies[PATH] = answer([1.5])
        assert await provider.query(QUERY, "30s", NOW) == Sample(1.5, 1)
        wanted = [("metricSelector", QUERY), ("resolution", "Inf"), ("from", "1767268500000"), ("to", "1767268800000")]
        assert server.last.params == wanted
        await provider.online()
        assert server.last.path == "/e/env/api/v2/metrics"
        assert server.problems == []


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer([1.5, 2.5]), Sample(1.5, 2)),  # the first point
        (answer([1.0], [2.0], [3.0]), Sample(3.0, 1)),  # of the last tuple
        (answer([1.0], more=[{"metricId": "n", "data": [{"values": [9.0]}]}]), Sample(1.0, 1)),  # of the first metric
        (answer([None, 4]), Sample(4.0, 1)),
        (answer(["NaN", 0]), Sample(0.0, 1)),
    ],
)
async def test_which_value_counts(reply: Raw, expected: Sample) -> None:
    assert await ask(reply) == expected


@pytest.mark.parametrize(
    "reply", [answer(), answer([]), answer([1.0], [None]), answer(["NaN"]), Raw(body="{}"), Raw(body='{"result":[]}')]
)
async def test_nothing_is_no_value(reply: Raw) -> None:
    with pytest.raises(NoValues):
        await ask(reply)


@pytest.mark.parametrize("fault", FAULTS)
async def test_faults(fault: str) -> None:
    reply, text = FAULTS[fault]
    with pytest.raises(ReconcileError, match=text) as caught:
        await ask(reply, timeout=short(fault))
    assert SECRET not in repr(caught.value)
    assert not isinstance(caught.value, NoValues)


@pytest.mark.parametrize("body", BAD_JSON)
async def test_bodies_that_make_no_sense(body: str) -> None:
    with pytest.raises(ReconcileError, match=BAD_JSON[body]):
        await ask(Raw(body=body))


async def test_a_wrong_token_is_refused_by_both_endpoints() -> None:
    async with backend() as server, provider_of("dynatrace", f"{server.url}/e/env", {"dynatrace_token": "other"}) as provider:
        for call in (provider.query(QUERY, "1m", NOW), provider.online()):
            with pytest.raises(ReconcileError, match="Status 401 Unauthorized"):
                await call
        assert server.problems == ["missing or wrong Authorization"] * 2


@pytest.mark.parametrize(
    ("address", "secret", "text"),
    [
        ("", KEYS, "dynatrace endpoint is not set"),
        ("host", KEYS, "dynatrace address host is not a valid URL"),
        ("https://h", None, "dynatrace credentials does not contain dynatrace_token"),
    ],
)
async def test_what_cannot_be_used(address: str, secret: Any, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        async with provider_of("dynatrace", address, secret):
            pass


async def test_an_interval_is_needed() -> None:
    async with backend() as server, provider_of("dynatrace", server.url, KEYS) as provider:
        with pytest.raises(Invalid, match="error parsing metric interval"):
            await provider.query(QUERY, "", NOW)
        assert server.requests == []
