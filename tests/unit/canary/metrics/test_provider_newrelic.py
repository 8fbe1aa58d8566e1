"""New Relic: which value counts, what is asked, and what is said when it fails."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from canary.metrics.base import NoValues, Sample
from reconcile.errors import Invalid, ReconcileError
from tests.support.metric_backends import BAD_JSON, FAULTS, SECRET, FakeBackend, Raw, Rule, provider_of, short

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEYS = {"newrelic_account_id": "51312\n", "newrelic_query_key": SECRET}
PATH = "/v1/accounts/51312/query"
QUERY = "SELECT filter(sum(errors), WHERE x = 'a+b') / sum(all) * 100 AS result FROM Metric"


def backend() -> FakeBackend:
    return FakeBackend(Rule("GET", PATH, {"nrql": "SELECT .+ SINCE [0-9]+ seconds ago"}, auth={"X-Query-Key": SECRET}))


def answer(*results: Any) -> Raw:
    return Raw(body=json.dumps({"results": results, "performanceStats": {"wallClockTime": 1}}))


async def ask(reply: Any, *, timeout: float = 5.0) -> Sample:
    async with backend() as server, provider_of("newrelic", server.url, KEYS, timeout=timeout) as provider:
        server.replies[PATH] = reply
        try:
            return await provider.query(QUERY, "1m", NOW)
        finally:
            assert not server.problems
            assert len(server.requests) == 1


async def test_what_is_asked() -> None:
    async with backend() as server, provider_of("newrelic", server.url, KEYS) as provider:
        server.replies[PATH] = answer({"result": 1.5})
        assert await provider.query(QUERY, "1m30s", NOW) == Sample(1.5, 1)
        assert server.last.params == [("nrql", f"{QUERY} SINCE 90 seconds ago")]
        await provider.online()
        assert server.last.param("nrql").startswith("SELECT * FROM Metric")
        assert server.problems == []


@pytest.mark.parametrize(("value", "expected"), [(0, 0.0), (-3, -3.0), (1e300, 1e300), ("2.5", 2.5)])
async def test_the_one_result_counts(value: Any, expected: float) -> None:
    assert await ask(answer({"result": value})) == Sample(expected, 1)


@pytest.mark.parametrize("reply", [answer(), answer({"result": None}), answer({"result": "NaN"}), Raw(body="{}")])
async def test_nothing_is_no_value(reply: Raw) -> None:
    with pytest.raises(NoValues):
        await ask(reply)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (answer({"result": 1}, {"result": 2}), "query returned multiple values"),
        (answer({"average": 1}), "no value with the name result"),
        (answer(7), "no value with the name result"),
        (answer({"result": []}), "is not a number"),
    ],
)
async def test_queries_of_another_shape_are_errors(reply: Raw, text: str) -> None:
    with pytest.raises(ReconcileError, match=text) as caught:
        await ask(reply)
    assert not isinstance(caught.value, NoValues)


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


async def test_a_wrong_key_is_refused() -> None:
    async with backend() as server, provider_of("newrelic", server.url, {**KEYS, "newrelic_query_key": "no"}) as provider:
        for call in (provider.query(QUERY, "1m", NOW), provider.online()):
            with pytest.raises(ReconcileError, match="Status 401 Unauthorized"):
                await call
        assert server.problems == ["missing or wrong X-Query-Key"] * 2


async def test_an_account_cannot_lead_elsewhere() -> None:
    keys = {**KEYS, "newrelic_account_id": "1/../../x?y"}
    async with backend() as server, provider_of("newrelic", server.url, keys) as provider:
        with pytest.raises(ReconcileError, match="Status 404 Not Found"):
            await provider.online()
        assert server.problems == ["path /v1/accounts/1%2F..%2F..%2Fx%3Fy/query"]


@pytest.mark.parametrize("missing", KEYS)
async def test_secrets_that_cannot_be_used(missing: str) -> None:
    with pytest.raises(Invalid, match=f"newrelic credentials does not contain {missing}"):
        async with provider_of("newrelic", "https://h", {key: value for key, value in KEYS.items() if key != missing}):
            pass


async def test_an_interval_is_needed() -> None:
    async with backend() as server, provider_of("newrelic", server.url, KEYS) as provider:
        with pytest.raises(Invalid, match="error parsing metric interval"):
            await provider.query(QUERY, "", NOW)
        assert server.requests == []
