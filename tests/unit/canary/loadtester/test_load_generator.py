"""The load generator against a server that counts, and its schedule on a clock that jumps."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from canary.loadtester.commandline import translate
from canary.loadtester.generator import MAX_ANSWER, generate, planned, succeeded
from canary.loadtester.load import Budget, Load
from canary.loadtester.measures import MAX_CANARIES, Measures
from canary.loadtester.summary import MAX_KINDS, Latencies, Summary
from reconcile.api.meta import Key
from reconcile.ports.clock import Clock, SystemClock
from reconcile.runtime.metrics import Metrics
from tests.support.clock import VirtualClock
from tests.support.pki import Authority
from tests.support.webhooks import Receiver, Reply

CANARY = Key("production", "my-app")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    async with Receiver() as server:
        yield server


@pytest.fixture
def measures(metrics: Metrics) -> Measures:
    return Measures(metrics)


async def put(load: Load, measures: Measures, clock: Clock | None = None) -> Summary:
    return await generate(load.within(60), measures.load_of(CANARY), clock or SystemClock())


def series(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"imagebot_loadtester_{name}", {"canary": str(CANARY), **labels}) or 0.0


# --- what is sent


async def test_as_many_requests_as_asked_for_and_no_more(target: Receiver, measures: Measures, metrics: Metrics) -> None:
    summary = await put(translate(f"hey -n 37 -c 4 {target.url}/path"), measures)
    assert target.paths == ["/path"] * 37
    assert target.most_open <= 4
    assert (summary.requests, summary.errors, summary.statuses) == (37, 0, {200: 37})
    assert series(metrics, "requests_total", code="200") == 37
    assert series(metrics, "request_duration_seconds_count") == 37


async def test_the_request_is_as_asked_for(target: Receiver, measures: Measures) -> None:
    command = f"hey -n 2 -c 1 -m POST -H 'Cookie: canary=always' -host my-app.company.com -d '{{\"ü\": 1}}' {target.url}/a?b=c"
    await put(translate(command), measures)
    first, second = target.requests
    assert (first.method, first.path, first.body) == ("POST", "/a?b=c", '{"ü": 1}'.encode())
    assert first == second
    assert {name: first.headers[name] for name in ("host", "cookie", "content-type", "accept-encoding")} == {
        "host": "my-app.company.com",
        "cookie": "canary=always",
        "content-type": "text/html",
        "accept-encoding": "gzip",
    }


async def test_cookies_of_the_server_are_not_kept(target: Receiver, measures: Measures) -> None:
    target.default = Reply(headers={"Set-Cookie": "session=1; Path=/"})
    await put(translate(f"hey -n 3 -c 1 {target.url}/"), measures)
    assert ["cookie" in request.headers for request in target.requests] == [False] * 3


async def test_without_keep_alive_every_request_says_so(target: Receiver, measures: Measures) -> None:
    await put(translate(f"hey -n 3 -c 1 -disable-keepalive {target.url}/"), measures)
    assert [request.headers["connection"] for request in target.requests] == ["close"] * 3


async def test_proxies_of_the_environment_are_for_others(
    target: Receiver, measures: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", target.url)
    summary = await put(Load("http://my-app.invalid/", requests=1), measures)
    assert (target.paths, summary.errors) == ([], 1)


async def test_redirects_are_answers(target: Receiver, measures: Measures) -> None:
    target.default = Reply(302, headers={"Location": "http://169.254.169.254/secret"})
    summary = await put(translate(f"hey -n 3 -c 1 {target.url}/"), measures)
    assert (summary.statuses, summary.errors, len(target.requests)) == ({302: 3}, 0, 3)


async def test_certificates_are_checked_unless_the_program_does_not(tmp_path: Path, measures: Measures) -> None:
    authority = Authority()
    certificate, key = authority.server(["127.0.0.1"])
    (tmp_path / "tls.crt").write_bytes(certificate)
    (tmp_path / "tls.key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    async with Receiver(context) as target:
        checked = await put(translate(f"curl {target.url}/"), measures)
        assert (checked.requests, checked.errors, target.paths) == (1, 1, [])
        assert "certificate" in next(iter(checked.failures))
        for command in ("curl -k", "hey -n 1", "hey -n 1 -host my-app.company.com:443"):
            assert (await put(translate(f"{command} {target.url}/"), measures)).errors == 0
        assert target.requests[-1].headers["host"] == "my-app.company.com:443"


# --- what is wrong


async def test_errors_are_counted_and_never_tried_again(target: Receiver, measures: Measures, metrics: Metrics) -> None:
    target.script("/", Reply(503), Reply(hang_up=True), Reply(429), Reply(404), Reply(200))
    summary = await put(Load(f"{target.url}/", requests=5), measures)
    assert len(target.requests) == 5
    assert (summary.requests, summary.errors) == (5, 4)
    assert summary.statuses == {503: 1, 429: 1, 404: 1, 200: 1}
    assert summary.failures == {"EOF": 1}
    assert series(metrics, "requests_total", code="none") == 1
    assert series(metrics, "request_duration_seconds_count") == 4


async def test_expected_statuses_and_budgets_make_the_verdict(target: Receiver, measures: Measures) -> None:
    target.default = Reply(404)
    load = Load(f"{target.url}/", requests=4, budget=Budget())
    assert not succeeded(load, await put(load, measures))
    right = replace(load, expect="404|410")
    assert succeeded(right, await put(right, measures))
    near = replace(load, expect="4")  # the whole status must match
    assert not succeeded(near, await put(near, measures))
    assert not succeeded(right, Summary())


async def test_a_server_that_does_not_answer_costs_one_timeout(target: Receiver, measures: Measures) -> None:
    target.script("/", Reply(hang=True), Reply(hang_body=True, body=b"x"))
    summary = await put(Load(f"{target.url}/", requests=3, timeout=0.2), measures)
    assert (summary.requests, summary.errors, summary.statuses) == (3, 2, {200: 1})
    assert summary.failures == {"no answer within 0.2s": 2}


async def test_nobody_listens(measures: Measures) -> None:
    summary = await put(Load("http://127.0.0.1:9/", requests=3, concurrency=3), measures)
    assert (summary.errors, len(summary.failures)) == (3, 1)
    assert "connection refused" in next(iter(summary.failures))


async def test_answers_are_read_up_to_a_limit(target: Receiver, measures: Measures) -> None:
    target.default = Reply(body=b"x" * (5 * MAX_ANSWER))
    summary = await put(Load(f"{target.url}/", requests=2), measures)
    assert (summary.errors, summary.statuses) == (0, {200: 2})
    assert 2 * MAX_ANSWER <= summary.received < 3 * MAX_ANSWER


async def test_a_load_that_is_ended_leaves_no_request_open(target: Receiver, measures: Measures) -> None:
    target.default = Reply(hang=True)
    running = asyncio.create_task(put(Load(f"{target.url}/", requests=100, concurrency=5, timeout=0), measures))
    await target.received(5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(20):
        while target.open:
            await asyncio.sleep(0.01)
    assert len(target.requests) == 5


# --- the schedule


class SteppingClock(VirtualClock):
    """Time that jumps over every pause; remembers when each pause ended."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self._passed += seconds
        self.starts.append(round(self._passed, 6))
        await asyncio.sleep(0)


async def test_requests_begin_at_the_rate(target: Receiver, measures: Measures) -> None:
    clock = SteppingClock()
    summary = await put(Load(f"{target.url}/", rate=20.0, seconds=1.0), measures, clock)
    assert len(target.requests) == summary.requests == 20
    assert clock.starts == [round(n / 20, 6) for n in range(1, 20)]
    assert (summary.late, summary.missed) == (0, 0)


async def test_a_duration_bounds_the_requests_of_a_rate(target: Receiver, measures: Measures) -> None:
    load = translate(f"hey -z 2s -q 5 -c 2 {target.url}/").within(60)
    assert planned(load) == 20
    summary = await put(load, measures, SteppingClock())
    assert len(target.requests) + summary.missed == 20
    assert len(target.requests) <= 20


class LateClock(SteppingClock):
    """Every look at the time costs a quarter of a second: more than the rate has room for."""

    def monotonic(self) -> float:
        self._passed += 0.25
        return self._passed


async def test_what_begins_too_late_is_counted_and_what_never_begins_is_missed(
    target: Receiver, measures: Measures, metrics: Metrics
) -> None:
    summary = await put(Load(f"{target.url}/", rate=10.0, seconds=3.0), measures, LateClock())
    assert 0 < len(target.requests) == summary.requests < 30
    assert summary.missed == 30 - summary.requests
    assert 0 < summary.late <= summary.requests
    assert series(metrics, "late_requests_total") == summary.late
    assert series(metrics, "late_seconds_total") == pytest.approx(summary.late_seconds)


async def test_without_a_rate_nothing_is_late(target: Receiver, measures: Measures) -> None:
    summary = await put(Load(f"{target.url}/", requests=5), measures, LateClock())
    assert (summary.requests, summary.late, summary.missed) == (5, 0, 0)


def test_how_many_requests_are_planned() -> None:
    url = "http://a/"
    assert planned(Load(url, requests=5, seconds=60)) == 5
    assert planned(Load(url, seconds=60)) is None
    assert planned(Load(url, rate=2.5, seconds=3)) == 8
    assert planned(Load(url, rate=1, requests=100, seconds=10)) == 10


# --- the summary


def test_quantiles_are_right_within_two_per_cent() -> None:
    latencies = Latencies()
    for millisecond in range(1, 1001):
        latencies.add(millisecond / 1000)
    shown = latencies.shown()
    for name, value in {"p50": 500.0, "p90": 900.0, "p95": 950.0, "p99": 990.0, "max": 1000.0, "mean": 500.5}.items():
        assert shown[name] == pytest.approx(value, rel=0.021)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.00005, 1.0, 86_400.0, 1e12])
def test_one_request_is_every_quantile(seconds: float) -> None:
    latencies = Latencies()
    latencies.add(seconds)
    assert latencies.quantile(0.5) == latencies.quantile(0.99) <= seconds
    assert Latencies().shown()["p99"] == 0.0


def test_a_summary_stays_small() -> None:
    summary = Summary()
    for number in range(10 * MAX_KINDS):
        summary.failed(f"error {number}")
    assert len(summary.failures) == MAX_KINDS + 1
    assert summary.errors == summary.failures.total() == 10 * MAX_KINDS
    assert summary.shown()["failures"]["other"] == 9 * MAX_KINDS


def test_callers_cannot_make_series_without_end(measures: Measures) -> None:
    names = {measures.load_of(Key("production", f"app-{n}")).canary for n in range(MAX_CANARIES + 50)}
    assert len(names) == MAX_CANARIES + 1
    assert "other" in names
    assert measures.load_of(Key("production", "app-0")).canary == "production/app-0"
