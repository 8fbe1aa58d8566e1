"""Our queries and verdicts on a real Prometheus that scrapes an exporter."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from canary.errors import Problem
from canary.metrics.base import NoValues, ProviderConfig, Sample, Verdict
from canary.metrics.checks import Checks
from canary.metrics.prometheus import Connections, Prometheus
from canary.metrics.providers import Providers
from canary.settings import CanarySettings
from canary.site import Site
from reconcile.errors import NotFound, ReconcileError
from reconcile.net.proxy import ProxyEnvironment
from reconcile.ports.clock import SystemClock
from tests.support.canary_posts import site
from tests.support.objects import MemoryObjects
from tests.support.real_prometheus import PASSWORD, USER, Exporter, RealPrometheus, real_prometheus

pytestmark = pytest.mark.needs("prometheus")

METRICS = [
    {"name": "request-success-rate", "interval": "2s", "thresholdRange": {"min": 99}},
    {"name": "request-duration", "interval": "2s", "thresholdRange": {"max": 500}},
    {"name": "parts", "query": "part", "thresholdRange": {"max": 2}},
]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RealPrometheus]:
    async with real_prometheus(tmp_path, Exporter("prod", "web")) as running:
        yield running


class NoStore:
    """No templates are asked for here."""

    async def get(self, kind: str, key: Any) -> Any:
        raise NotFound(f"{kind} {key}")


def address(server: RealPrometheus, password: str = PASSWORD) -> str:
    return server.url.replace("://", f"://{USER}:{password}@")


@pytest.mark.slow
async def test_verdicts_follow_the_traffic(server: RealPrometheus) -> None:
    seen: dict[str, float] = {}

    def observed(about: Site, metric: str, value: float) -> None:
        seen[metric] = value

    objects = MemoryObjects()
    providers = Providers(objects, environment=ProxyEnvironment())
    checks = Checks(NoStore(), objects, CanarySettings(), SystemClock(), observed, providers=providers)  # type: ignore[arg-type]
    analysis = {"interval": "10s", "threshold": 3, "stepWeight": 20, "metrics": METRICS}
    about = site(analysis=analysis, spec={"provider": "istio", "metricsServer": address(server)})

    async def verdicts(more: int = 10) -> list[tuple[Verdict, str]]:
        await server.scraped(more)  # more than the window
        return [(check.verdict, check.text) for check in await checks.measure(about, datetime.now(UTC))]

    await checks.probe(about)
    good = (Verdict.PASS, "")
    assert await verdicts() == [good, good, good]
    assert seen["request-success-rate"] == 100
    assert 0 < seen["request-duration"] <= 0.01

    server.exporter.failed = 0.5
    halt = "Halt web.prod advancement"
    assert await verdicts() == [(Verdict.FAIL, f"{halt} success rate 50.00% < 99%"), good, good]

    server.exporter.failed, server.exporter.milliseconds = 0.0, 900.0
    rate, (verdict, text), _ = await verdicts()
    assert rate == good
    assert verdict is Verdict.FAIL
    assert text.startswith(f"{halt} request duration 9")
    assert text.endswith("ms > 500ms")

    server.exporter.silent = True
    (rate_verdict, rate_text), (slow_verdict, _), parts = await verdicts(14)
    assert rate_verdict is slow_verdict is Verdict.NO_DATA
    assert rate_text == (
        "Halt advancement no values found for istio metric request-success-rate probably web.prod is not receiving traffic: "
        "running query failed: no values found"
    )
    assert parts == (Verdict.NO_DATA, "Halt advancement no values found for metric: parts")

    stranger = site(analysis=analysis, spec={"provider": "istio", "metricsServer": address(server, "wrong-password")})
    with pytest.raises(Problem) as caught:
        await checks.probe(stranger)
    assert str(caught.value).startswith("prometheus not avaiable: running query failed: error response: Status 401 Unauthorized")
    assert "wrong-password" not in str(caught.value)
    await checks.aclose()


async def test_answers_of_every_kind(server: RealPrometheus) -> None:
    await server.scraped(2)
    connections = Connections(environment=ProxyEnvironment())
    secret = (("password", PASSWORD.encode()), ("username", USER.encode()))
    asked = Prometheus(ProviderConfig("prometheus", server.url, credentials=secret), connections)
    await asked.online()
    assert await asked.query("vector(0.25)\n\t + 1") == Sample(1.25)
    assert await asked.query("vector(1) / 0") == Sample(math.inf)
    assert await asked.query("-vector(1) / 0") == Sample(-math.inf)
    several = await asked.query("sort(part)")
    assert several == Sample(2.0, 3, (0.0, 2.0))
    for query in ("absent_metric", "vector(0) / 0"):
        with pytest.raises(NoValues):
            await asked.query(query)
    for query, text in (
        ("part[1m]", "query returned multiple values"),
        ("scalar(vector(1))", "error unmarshaling result: the result is a scalar, not a vector, "),
        ('"text"', "error unmarshaling result: the result is a string, not a vector, "),
        ("sum(", 'error response: Status 400 Bad Request: {"status":"error","errorType":"bad_data",'),
        ("part * on() group_left() (part)", 'error response: Status 422 Unprocessable Entity: {"status":"error",'),
    ):
        with pytest.raises(ReconcileError) as caught:
            await asked.query(query)
        assert str(caught.value).startswith(text)
    await connections.close()
