"""Splunk: which value of a SignalFlow computation counts, what is asked, and what is said when it fails."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from canary.metrics.base import NoValues, Sample
from canary.metrics.splunk import _place
from reconcile.errors import Invalid, ReconcileError
from tests.support.metric_backends import FAULTS, SECRET, FakeBackend, Raw, Request, Rule, provider_of, short

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEYS = {"sf_token_key": f"{SECRET}\n"}
AUTH = {"X-SF-Token": SECRET}
PATH = "/v2/signalflow/execute"
QUERY = "A = data('errors').sum()\n(A/2).publish()"


def body(request: Request) -> str:
    return "" if request.body.decode() == QUERY else f"program {request.body!r}"


def backend() -> FakeBackend:
    return FakeBackend(
        Rule(
            "POST",
            PATH,
            {"start": "[0-9]{13}", "stop": "[0-9]{13}", "immediate": "true"},
            auth=AUTH,
            headers={"Content-Type": "text/plain", "Accept": "text/event-stream"},
            body=body,
        ),
        Rule("GET", "/v2/metric", {"limit": "[0-9]+"}, auth=AUTH),
    )


def event(kind: str, **payload: Any) -> str:
    lines = json.dumps(payload, indent=1).splitlines()  # as SignalFlow writes them: several data lines for one event
    return f"event: {kind}\n" + "".join(f"data: {line}\n" for line in lines) + "\n"


def control(name: str, **more: Any) -> str:
    return event("control-message", event=name, timestampMs=1, **more)


def data(*points: tuple[str, Any], at: int = 0) -> str:
    return event("data", data=[{"tsId": series, "value": value} for series, value in points], logicalTimestampMs=at)


START = (
    control("STREAM_START") + control("JOB_START", handle="h") + ": a comment\n\n" + event("metadata", tsId="a", properties={})
)
END = control("END_OF_CHANNEL")


def answer(*events: str, end: str = END) -> Raw:
    return Raw(body=START + "".join(events) + end, headers={"Content-Type": "text/event-stream"})


async def ask(reply: Any, *, timeout: float = 5.0) -> Sample:
    async with backend() as server, provider_of("splunk", server.url, KEYS, timeout=timeout) as provider:
        server.replies[PATH] = reply
        try:
            return await provider.query(QUERY, "1m", NOW)
        finally:
            assert not server.problems
            assert len(server.requests) == 1


@pytest.mark.parametrize("type_", ["splunk", "signalfx"])
async def test_what_is_asked(type_: str) -> None:
    async with backend() as server, provider_of(type_, server.url.replace("http", "ws"), KEYS) as provider:
        server.replies[PATH] = answer(data(("a", 1.5)))
        assert await provider.query(QUERY, "30s", NOW) == Sample(1.5, 1)
        assert server.last.params == [("start", "1767268500000"), ("stop", "1767268800000"), ("immediate", "true")]
        await provider.online()
        assert (server.last.method, server.last.path) == ("GET", "/v2/metric")
        assert server.problems == []


@pytest.mark.parametrize(
    ("address", "stream", "api"),
    [
        ("https://api.us1.signalfx.com", "https://stream.us1.signalfx.com", "https://api.us1.signalfx.com"),
        ("wss://stream.eu0.signalfx.com/", "https://stream.eu0.signalfx.com/", "https://api.eu0.signalfx.com/"),
        ("http://apis.example:8080/x", "http://apis.example:8080/x", "http://apis.example:8080/x"),
        ("https://api:1", "https://api:1", "https://api:1"),
    ],
)
def test_places_of_a_realm(address: str, stream: str, api: str) -> None:
    assert (_place(address, "api", "stream"), _place(address, "stream", "api")) == (stream, api)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer(data(("a", 1)), data(("a", 2)), data(("a", 3.5))), Sample(3.5, 3)),  # the newest
        (answer(data(("a", 1)), data(("a", None))), Sample(1.0, 1)),  # that is not null
        (answer(data(("a", 1), ("b", None)), data(("b", "NaN"))), Sample(1.0, 1)),  # of the series that has values
        (answer(data(("a", 1)), event("message", messageCode="X"), event("expired-tsid", tsId="b")), Sample(1.0, 1)),
        (answer(data(("a", 1)), END, data(("a", 2))), Sample(1.0, 1)),  # what comes after the end is not read
    ],
)
async def test_which_value_counts(reply: Raw, expected: Sample) -> None:
    assert await ask(reply) == expected


@pytest.mark.parametrize("reply", [answer(), answer(data()), answer(data(("a", None))), answer(data(("a", "NaN")))])
async def test_nothing_is_no_value(reply: Raw) -> None:
    with pytest.raises(NoValues):
        await ask(reply)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (answer(data(("a", 1), ("b", 2))), "invalid response: query returned multiple values"),
        (answer(data(("a", 1)), end=""), "the stream ended before the computation"),
        (answer(data(("a", 1)), end=END.rstrip("\n")), "the stream ended before the computation"),
        (
            answer(data(("a", 1)), end=control("CHANNEL_ABORT", abortInfo={"sf_job_abortReason": "x"})),
            "the computation failed: .*x",
        ),
        (answer(end=event("error", error=400, message=f"bad {SECRET}")), "the computation failed: .*bad"),
        (answer("event: data\ndata: {\n\n"), "error unmarshaling result"),
        (answer(data(("a", {}))), "is not a number"),
        (Raw(body="{}"), "the stream ended before the computation"),
    ],
)
async def test_computations_that_cannot_be_used(reply: Raw, text: str) -> None:
    with pytest.raises(ReconcileError, match=text) as caught:
        await ask(reply)
    assert SECRET not in str(caught.value)
    assert not isinstance(caught.value, NoValues)


@pytest.mark.parametrize("fault", FAULTS)
async def test_faults(fault: str) -> None:
    reply, text = FAULTS[fault]
    with pytest.raises(ReconcileError, match=f"error executing query: {text}") as caught:
        await ask(reply, timeout=short(fault))
    assert SECRET not in repr(caught.value)
    assert not isinstance(caught.value, NoValues)


async def test_a_wrong_token_is_refused_by_both_endpoints() -> None:
    async with backend() as server, provider_of("splunk", server.url, {"sf_token_key": "other"}) as provider:
        for call in (provider.query(QUERY, "1m", NOW), provider.online()):
            with pytest.raises(ReconcileError, match="Status 401 Unauthorized"):
                await call
        assert server.problems == ["missing or wrong X-SF-Token"] * 2


@pytest.mark.parametrize(
    ("address", "secret", "text"),
    [
        ("", KEYS, "splunk endpoint is not set"),
        ("ftp://h", KEYS, "splunk address ftp://h is not a valid URL"),
        ("https://h", {}, "splunk credentials does not contain sf_token_key"),
    ],
)
async def test_what_cannot_be_used(address: str, secret: Any, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        async with provider_of("splunk", address, secret):
            pass


async def test_an_interval_is_needed() -> None:
    async with backend() as server, provider_of("splunk", server.url, KEYS) as provider:
        with pytest.raises(Invalid, match="error parsing metric interval"):
            await provider.query(QUERY, "", NOW)
        assert server.requests == []
