"""Datadog: which point counts, what is asked, and what is said when it fails."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from canary.metrics.base import NoValues, Sample
from reconcile.errors import Invalid, ReconcileError
from tests.support.metric_backends import BAD_JSON, FAULTS, SECRET, FakeBackend, Raw, Rule, provider_of, short

NOW = datetime(2026, 1, 1, 12, 0, 0, 900_000, tzinfo=UTC)
KEYS = {"datadog_api_key": f"{SECRET}\n", "datadog_application_key": "application-key"}
AUTH = {"DD-API-KEY": SECRET, "DD-APPLICATION-KEY": "application-key"}
QUERY = "avg:system.load{*} by {host}.as_rate()/2+1"


def backend() -> FakeBackend:
    return FakeBackend(
        Rule("GET", "/api/v1/query", {"query": ".+", "from": "[0-9]{10}", "to": "[0-9]{10}"}, auth=AUTH, denied=403),
        Rule("GET", "/api/v1/validate", auth=AUTH, denied=403),
    )


def series(*points: Any) -> dict[str, Any]:
    return {"metric": "system.load", "pointlist": [[1767268200000.0 + 60_000 * n, value] for n, value in enumerate(points)]}


def answer(*found: dict[str, Any], **more: Any) -> Raw:
    return Raw(body=json.dumps({"status": "ok", "res_type": "time_series", "series": list(found), **more}))


async def ask(reply: Any, *, interval: str = "1m", timeout: float = 5.0) -> Sample:
    async with backend() as server, provider_of("datadog", server.url, KEYS, timeout=timeout) as provider:
        server.replies["/api/v1/query"] = reply
        try:
            return await provider.query(QUERY, interval, NOW)
        finally:
            assert not server.problems
            assert len(server.requests) == 1


async def test_what_is_asked() -> None:
    async with backend() as server, provider_of("datadog", f"{server.url}/", KEYS) as provider:
        server.replies["/api/v1/query"] = answer(series(1.5))
        assert await provider.query(QUERY, "1m30s", NOW) == Sample(1.5, 1)
        assert server.last.params == [("query", QUERY), ("from", "1767267900"), ("to", "1767268800")]
        await provider.online()
        assert [request.path for request in server.requests] == ["/api/v1/query", "/api/v1/validate"]
        assert server.problems == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([series(1.5, 2.5, 3.5)], Sample(1.5, 3)),  # the oldest
        ([series(7), series(1)], Sample(7.0, 1)),  # of the first series
        ([series(None, None, 4.0, 5.0)], Sample(4.0, 2)),
        ([series("NaN", 0.0)], Sample(0.0, 1)),
        ([series(-1e300)], Sample(-1e300, 1)),
    ],
)
async def test_which_value_counts(found: Any, expected: Sample) -> None:
    assert await ask(answer(*found)) == expected


@pytest.mark.parametrize(
    "reply",
    [answer(), answer(series()), answer(series(None, None)), answer(series("NaN")), Raw(body="{}"), Raw(body='{"series":null}')],
)
async def test_nothing_is_no_value(reply: Raw) -> None:
    with pytest.raises(NoValues, match="no values found"):
        await ask(reply)


@pytest.mark.parametrize("fault", FAULTS)
async def test_faults(fault: str) -> None:
    reply, text = FAULTS[fault]
    with pytest.raises(ReconcileError, match=text) as caught:
        await ask(reply, timeout=short(fault))
    assert SECRET not in f"{caught.value!r}"
    assert not isinstance(caught.value, NoValues)


@pytest.mark.parametrize("body", BAD_JSON)
async def test_bodies_that_make_no_sense(body: str) -> None:
    with pytest.raises(ReconcileError, match=BAD_JSON[body]):
        await ask(Raw(body=body))


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"series": [{"pointlist": [[1]]}]}, "a point is not a pair"),
        ({"series": [{"pointlist": [[1, {}]]}]}, "is not a number"),
        ({"series": [{"pointlist": [[1, True]]}]}, "'True' is not a number"),
        ({"series": {"a": 1}}, "series is not a list"),
        ({"status": "error", "error": f"query {SECRET} is bad", "series": []}, "error response: query"),
    ],
)
async def test_answers_of_another_shape(found: Any, text: str) -> None:
    with pytest.raises(ReconcileError, match=text) as caught:
        await ask(Raw(body=json.dumps(found)))
    assert not isinstance(caught.value, NoValues)


async def test_wrong_keys_are_refused_by_both_endpoints() -> None:
    wrong = {**KEYS, "datadog_application_key": "other"}
    async with backend() as server, provider_of("datadog", server.url, wrong) as provider:
        for call in (provider.query(QUERY, "1m", NOW), provider.online()):
            with pytest.raises(ReconcileError, match="Status 403 Forbidden"):
                await call
        assert server.problems == ["missing or wrong DD-APPLICATION-KEY"] * 2


@pytest.mark.parametrize("interval", ["", "1", "0s", "-1m"])
async def test_an_interval_is_needed(interval: str) -> None:
    async with backend() as server, provider_of("datadog", server.url, KEYS) as provider:
        with pytest.raises(Invalid, match="error parsing metric interval"):
            await provider.query(QUERY, interval, NOW)
        assert server.requests == []


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (None, "datadog credentials does not contain datadog_api_key"),
        ({"datadog_api_key": "x"}, "datadog credentials does not contain datadog_application_key"),
        ({**KEYS, "datadog_api_key": f"{SECRET}\r\nX: y"}, "datadog_api_key that is empty or not printable"),
        ({**KEYS, "datadog_api_key": b"\xff"}, "datadog_api_key that is empty or not printable"),
        ({**KEYS, "datadog_api_key": ""}, "datadog_api_key that is empty or not printable"),
    ],
)
async def test_secrets_that_cannot_be_used(secret: Any, text: str) -> None:
    with pytest.raises(Invalid, match=text) as caught:
        async with provider_of("datadog", "http://127.0.0.1:1", secret):
            pass
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("address", ["ftp://host", "host:80", "http://", "/path"])
async def test_addresses_that_cannot_be_used(address: str) -> None:
    with pytest.raises(Invalid, match=r"datadog address .* is not a valid URL"):
        async with provider_of("datadog", address, KEYS):
            pass


async def test_a_query_that_fits_into_no_url() -> None:
    async with backend() as server, provider_of("datadog", server.url, KEYS) as provider:
        with pytest.raises(Invalid, match=r"the request cannot be sent: .*too long"):
            await provider.query("{" * 64 * 1024, "1m", NOW)
        assert server.requests == []
