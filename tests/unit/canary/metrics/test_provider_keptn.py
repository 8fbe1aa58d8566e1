"""Keptn: values of KeptnMetrics, and Analyses that are made, watched and taken away again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from canary.metrics.base import NoValues, Sample
from canary.metrics.keptn import API, Question
from reconcile.errors import Invalid, ReconcileError, TimedOut
from reconcile.ports.cluster import Object, Reference
from tests.support.metric_backends import provider_of
from tests.support.objects import MemoryObjects

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Ticking:
    """A clock whose sleeps pass at once; `then` is told each."""

    def __init__(self, then: Any = None) -> None:
        self.seconds = 0.0
        self.then = then

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)
        if self.then is not None:
            await self.then()


def metric(**status: Any) -> Object:
    return {
        "apiVersion": API,
        "kind": "KeptnMetric",
        "metadata": {"name": "latency", "namespace": "prod"},
        "spec": {},
        "status": status,
    }


async def ask(objects: MemoryObjects, query: str, clock: Any = None) -> Sample:
    async with provider_of("keptn", "", None, timeout=30.0, objects=objects, clock=clock or Ticking()) as provider:
        await provider.online()
        return await provider.query(query, "", NOW)


# --- queries


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("keptnmetric/prod/latency", Question("KeptnMetric", "prod", "latency")),
        (" KeptnMetrics/PROD/Latency\n", Question("KeptnMetric", "prod", "latency")),
        ("analysis/prod/slo", Question("Analysis", "prod", "slo", "1m")),
        (
            "analyses/prod/slo/5M/Project=X;stage=dev;odd",
            Question("Analysis", "prod", "slo", "5m", {"project": "x", "stage": "dev"}),
        ),
    ],
)
def test_queries(query: str, expected: Question) -> None:
    assert Question.parse(query) == expected


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "unexpected query format"),
        ("keptnmetric/latency", "unexpected query format"),
        ("analysis//x", "unexpected query format"),
        ("pod/prod/x", "unexpected resource kind"),
    ],
)
def test_queries_that_are_none(query: str, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        Question.parse(query)


# --- metrics


@pytest.mark.parametrize(("value", "expected"), [("1.5", 1.5), ("0", 0.0), ("-1e3", -1000.0), (7, 7.0)])
async def test_the_value_of_a_metric_costs_one_read(value: Any, expected: float) -> None:
    objects = MemoryObjects([metric(value=value)])
    assert await ask(objects, "keptnmetric/prod/latency") == Sample(expected)
    assert objects.reads == [("read", "KeptnMetric", "latency")]
    assert objects.writes == []


@pytest.mark.parametrize("status", [{}, {"value": ""}, {"value": None}, {"value": "NaN"}])
async def test_a_metric_without_a_value(status: Any) -> None:
    with pytest.raises(NoValues):
        await ask(MemoryObjects([metric(**status)]), "keptnmetric/prod/latency")


async def test_metrics_that_cannot_be_read() -> None:
    with pytest.raises(ReconcileError, match=r"could not parse value of KeptnMetric prod/latency to float: .*'fast'"):
        await ask(MemoryObjects([metric(value="fast")]), "keptnmetric/prod/latency")
    with pytest.raises(ReconcileError, match=r"could not retrieve KeptnMetric prod/latency: .*not found"):
        await ask(MemoryObjects(), "keptnmetric/prod/latency")
    objects = MemoryObjects([metric(value="1")])
    objects.missing_kinds.add((API, "KeptnMetric"))
    with pytest.raises(ReconcileError, match="could not retrieve KeptnMetric prod/latency"):
        await ask(objects, "keptnmetric/prod/latency")


# --- analyses


class Keptn:
    """What Keptn's operator does: writes the status of an Analysis at the nth look."""

    def __init__(self, *statuses: Object) -> None:
        self.objects = MemoryObjects(plurals={"Analysis": "analyses"})
        self.statuses = list(statuses)
        self.seen: list[Object] = []

    async def work(self) -> None:
        for which in self.names():
            self.seen.append(self.objects.now(which) or {})
            if self.statuses:
                self.objects.status(which, self.statuses.pop(0))

    def names(self) -> list[Reference]:
        made = [name for verb, kind, name in self.objects.writes if verb == "create"]
        gone = [name for verb, kind, name in self.objects.writes if verb == "delete"]
        return [Reference(API, "Analysis", "prod", name) for name in made if name not in gone]


@pytest.mark.parametrize(("passed", "value"), [(True, 1.0), (False, 0.0)])
async def test_an_analysis_is_made_watched_and_taken_away(passed: bool, value: float) -> None:
    keptn = Keptn({"state": "Pending"}, {"state": "Completed"}, {"state": "Completed", "pass": passed})
    clock = Ticking(keptn.work)
    assert await ask(keptn.objects, "analysis/prod/slo/5m/stage=dev", clock) == Sample(value)
    assert clock.seconds == 3.0
    made = keptn.seen[0]
    assert made["metadata"]["name"].startswith("slo-")
    assert made["spec"] == {"analysisDefinition": {"name": "slo"}, "timeframe": {"recent": "5m"}, "args": {"stage": "dev"}}
    assert [write[0] for write in keptn.objects.writes] == ["create", "delete"]
    assert keptn.names() == []


async def test_an_analysis_that_never_ends_is_given_up_after_ten_looks() -> None:
    keptn = Keptn()
    with pytest.raises(TimedOut, match="timeout while waiting for Keptn Analysis prod/slo to be finished"):
        await ask(keptn.objects, "analysis/prod/slo", Ticking(keptn.work))
    assert len(keptn.seen) == 10
    assert keptn.names() == []


async def test_an_analysis_is_taken_away_when_nobody_waits_any_more() -> None:
    keptn, begun = Keptn(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(ask(keptn.objects, "analysis/prod/slo", Ticking(hang)))
    await begun.wait()
    assert len(keptn.names()) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert keptn.names() == []


async def test_an_analysis_that_cannot_be_made_or_read() -> None:
    keptn = Keptn()
    keptn.objects.fail["create", "Analysis", "*"] = ReconcileError("forbidden")
    with pytest.raises(ReconcileError, match="could not create Keptn Analysis prod/slo: forbidden"):
        await ask(keptn.objects, "analysis/prod/slo")
    assert [write[0] for write in keptn.objects.writes] == ["create"]
    keptn = Keptn()
    keptn.objects.fail["read", "Analysis", "*"] = ReconcileError("down")
    with pytest.raises(ReconcileError, match="could not check status of created Keptn Analysis prod/slo: down"):
        await ask(keptn.objects, "analysis/prod/slo")
    assert [write[0] for write in keptn.objects.writes] == ["create", "delete"]


async def test_a_verdict_counts_though_the_analysis_stays() -> None:
    keptn = Keptn({"state": "Completed", "pass": True})
    keptn.objects.fail["delete", "Analysis", "*"] = ReconcileError("down")
    assert await ask(keptn.objects, "analysis/prod/slo", Ticking(keptn.work)) == Sample(1.0)


async def test_without_a_cluster_there_is_no_keptn() -> None:
    with pytest.raises(Invalid, match="could not initialize KeptnProvider"):
        async with provider_of("keptn", "", None):
            pass
