"""What the demonstration of canaries is made of: its picture of a Canary, and its stand-in for Prometheus."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from rich.console import Console

from canary.metrics.builtin import DURATION, SUCCESS_RATE, collapse, resolve
from canary.metrics.template import Model
from tests.support.canary_demo import view
from tests.support.canary_demo.small_prometheus import NotUnderstood, SmallPrometheus, quantile
from tests.support.canary_demo.stage import canary, deployment, image
from tests.support.prometheus_server import PrometheusServer
from tests.support.supervisor import Supervisor
from tests.support.traffic import SLOW, Traffic

NOW = datetime(2024, 1, 1, tzinfo=UTC)


# --- the picture


def route(weight: int) -> dict[str, Any]:
    shares = {"shop-primary": 100 - weight, "shop-canary": weight}
    return {"spec": {"http": [{"route": [{"destination": {"host": host}, "weight": share} for host, share in shares.items()]}]}}


def seen(weight: int = 30, tag: str = "2.0.0", **status: Any) -> view.Seen:
    primary, target = deployment("shop"), deployment("shop")
    target["spec"]["template"]["spec"]["containers"][0]["image"] = image("shop", tag)
    checks = [
        {"metric": "request-success-rate", "value": "88", "threshold": ">= 99", "verdict": "Fail"},
        {"metric": "request-duration", "threshold": "<= 500ms", "verdict": "NoData"},
    ]
    given = {"phase": "Progressing", "checks": checks, "failedChecks": 1, "nextStepTime": "2024-01-01T00:00:07Z", **status}
    return view.seen({**canary("shop"), "status": given}, route(weight), {"shop": target, "shop-primary": primary})


def drawn(*found: view.Seen) -> str:
    console = Console(width=80, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(view.board(found, NOW))
    return captured.get()


def test_a_run_is_drawn_with_its_share_its_checks_and_its_next_step() -> None:
    assert [line.rstrip() for line in drawn(seen()).splitlines()] == [
        "",
        "   shop   Progressing    ━━━━━━━━━─────────────────────  30 % to shop:2.0.0",
        "          ✗ request-success-rate        88  >= 99     Fail",
        "          ✗ request-duration          none  <= 500ms  NoData",
        "          failed checks 1 of 2, next step in 7 s",
    ]


def test_a_failed_run_says_why() -> None:
    shown = drawn(seen(weight=0, phase="Failed", failure="Halt shop.demo", nextStepTime=None, checks=None, failedChecks=0))
    assert shown.splitlines()[1].rstrip().endswith("─  all to shop:1.0.0")
    assert "nothing measured yet" in shown
    assert shown.rstrip().endswith("why: Halt shop.demo")


def test_before_there_is_a_status_or_a_route_there_is_little_to_draw() -> None:
    shown = drawn(view.seen(canary("shop"), None, {}))
    assert "%" not in shown
    assert "all to" not in shown
    assert view.line(view.seen(canary("shop"), None, {})) == "new"


@pytest.mark.parametrize(("weight", "thick"), [(0, 0), (1, 1), (50, 15), (100, 30)])
def test_any_share_is_to_be_seen(weight: int, thick: int) -> None:
    assert view.bar(seen(weight)).plain == "━" * thick + "─" * (view.BAR - thick)


def test_in_one_line_there_is_nothing_that_changes_by_itself() -> None:
    later = seen(nextStepTime="2024-01-01T00:00:17Z")
    assert view.line(seen()) == view.line(later)
    assert view.line(later).split(", ") == [
        "Progressing",
        "30 % to shop:2.0.0",
        "✗ request-success-rate 88 (>= 99)",
        "✗ request-duration none (<= 500ms)",
        "failed checks 1 of 2",
    ]


def test_folded_lines_stay_under_their_text() -> None:
    assert view.folded("  · one two three", 10) == ["  · one", "    two", "    three"]
    assert view.folded("", 10) == [""]


# --- the stand-in


def query(metric: str, target: str = "shop", window: str = "10s") -> str:
    """The built-in query of Istio as the service sends it."""
    model = Model(name="shop", namespace="demo", target=target, service="shop", ingress="", route="", interval=window)
    return collapse(resolve("istio", metric, model))


class Page:
    """The page of an exporter whose time passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("tests.support.traffic.time", SimpleNamespace(monotonic=lambda: self.now))
        self.traffic = Traffic()
        self.server = SmallPrometheus(self.traffic.text)

    def pass_seconds(self, count: int) -> None:
        for _ in range(count):
            self.now += 1
            self.server.read(self.now)

    def value(self, metric: str, target: str = "shop") -> float | None:
        return self.server.value(query(metric, target), self.now)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    made = Page(monkeypatch)
    yield made
    made.traffic._server.server_close()
    made.server._server.server_close()


def test_rates_are_those_of_the_window(page: Page) -> None:
    page.traffic.set("demo", "shop", failing=0.25)
    page.pass_seconds(12)
    assert page.value(SUCCESS_RATE) == pytest.approx(75)
    page.traffic.set("demo", "shop", latency=SLOW)
    page.pass_seconds(5)
    assert page.value(SUCCESS_RATE) == pytest.approx(87.5)
    page.pass_seconds(6)
    assert page.value(SUCCESS_RATE) == pytest.approx(100)


def test_a_series_counts_from_where_it_begins(page: Page) -> None:
    page.traffic.set("demo", "cart")
    page.pass_seconds(6)
    page.traffic.set("demo", "shop", failing=0.25)
    page.pass_seconds(3)
    assert page.value(SUCCESS_RATE) == pytest.approx(75)


def test_of_what_nobody_asked_for_there_is_no_value(page: Page) -> None:
    page.traffic.set("demo", "shop")
    assert page.value(SUCCESS_RATE) is None
    page.pass_seconds(1)
    assert page.value(SUCCESS_RATE) is None  # one reading is no rate
    page.pass_seconds(1)
    assert page.value(SUCCESS_RATE) == pytest.approx(100)
    assert page.value(SUCCESS_RATE, "shop-primary") is None
    assert page.value(DURATION, "cart") is None
    page.now += 60
    assert page.value(SUCCESS_RATE) is None


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ({100.0: 100.0, math.inf: 100.0}, 99.0),
        ({100.0: 50.0, 200.0: 100.0, math.inf: 100.0}, 198.0),
        ({100.0: 50.0, 200.0: 50.0, math.inf: 100.0}, 200.0),
    ],
)
def test_a_quantile_is_linear_within_its_bucket(buckets: dict[float, float], expected: float) -> None:
    assert quantile(0.99, buckets) == expected


@pytest.mark.parametrize("buckets", [{}, {100.0: 0.0, math.inf: 0.0}, {100.0: 5.0}])
def test_without_requests_or_a_last_bucket_there_is_no_quantile(buckets: dict[float, float]) -> None:
    assert math.isnan(quantile(0.99, buckets))


@pytest.mark.parametrize("text", ["up", "sum(rate(x[1m]))", "", 'sum( rate( x{ a="b" }[10s] ) )'])
def test_what_it_does_not_understand_it_refuses(text: str, page: Page) -> None:
    with pytest.raises(NotUnderstood):
        page.server.value(text, 0)


def test_it_answers_by_the_http_api() -> None:
    with SmallPrometheus(lambda: "") as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        one = client.get("/api/v1/query", params={"query": "vector(1)"}).json()
        assert one["data"]["result"][0]["value"][1] == "1.0"
        none = client.post("/api/v1/query", data={"query": query(SUCCESS_RATE)}).json()
        assert none == {"status": "success", "data": {"resultType": "vector", "result": []}}
        refused = client.get("/api/v1/query", params={"query": "up"})
        assert (refused.status_code, refused.json()["errorType"]) == (400, "bad_data")
        assert client.get("/api/v1/labels").status_code == 404


@pytest.mark.slow
@pytest.mark.needs("prometheus")
def test_the_real_prometheus_gives_the_same_answers(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    supervisor = Supervisor(folder)
    try:
        with Traffic() as traffic, SmallPrometheus(traffic.text) as small:
            real = PrometheusServer(supervisor, folder / "prometheus", traffic.address)
            real.start()
            traffic.set("demo", "shop", failing=0.12)
            traffic.set("demo", "cart", latency=SLOW)
            for target in ("shop", "cart"):
                for metric in (SUCCESS_RATE, DURATION):
                    asked = query(metric, target)
                    expected = awaited(lambda asked=asked: real.ready() and real.value(asked))  # type: ignore[misc]
                    found = awaited(lambda asked=asked: small.value(asked, time.monotonic()))  # type: ignore[misc]
                    assert found == pytest.approx(expected, rel=1e-6)
    finally:
        supervisor.close()


def awaited(probe: Callable[[], Any]) -> Any:
    """The first true value."""
    end = datetime.now(UTC) + timedelta(seconds=60)
    while not (value := probe()):
        assert datetime.now(UTC) < end
        time.sleep(0.2)
    return value
