"""Names and labels of metrics are contract: dashboards and alerts use them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from reconcile.api.meta import Condition, Key
from reconcile.errors import Failed, Stalled
from reconcile.runtime.metrics import DURATION_BUCKETS, Metrics
from reconcile.runtime.outcome import Success
from tests.support.bench import KEY, KIND, bench

FAMILIES = {
    "gotk_reconcile_duration_seconds": ("histogram", {"kind", "name", "namespace"}),
    "gotk_reconcile_condition": ("gauge", {"kind", "name", "namespace", "type", "status"}),
    "gotk_suspend_status": ("gauge", {"kind", "name", "namespace"}),
    "controller_runtime_reconcile": ("counter", {"controller", "result"}),
    "controller_runtime_reconcile_errors": ("counter", {"controller"}),
    "controller_runtime_reconcile_panics": ("counter", {"controller"}),
    "controller_runtime_reconcile_time_seconds": ("histogram", {"controller"}),
    "controller_runtime_max_concurrent_reconciles": ("gauge", {"controller"}),
    "controller_runtime_active_workers": ("gauge", {"controller"}),
    "workqueue_depth": ("gauge", {"name"}),
    "workqueue_adds": ("counter", {"name"}),
    "workqueue_retries": ("counter", {"name"}),
}


def condition(kind: str, status: str) -> Condition:
    return Condition(type=kind, status=status, reason="Some", message="", last_transition_time="2024-01-01T00:00:00Z")


async def test_a_pass_fills_every_family(tmp_path: Path) -> None:
    async with bench(tmp_path) as world:
        await world.declare()
        world.controller.add(KEY)
        await world.step()
        world.reconciler.outcome = Failed("Broken", "it broke")
        await world.step()
        found = {family.name: family for family in world.metrics.registry.collect()}
        for name, (kind, labels) in FAMILIES.items():
            assert found[name].type == kind
            used = {label for sample in found[name].samples for label in sample.labels} - {"le"}
            assert used == labels, name
        assert world.value("controller_runtime_reconcile_total", controller="imagerepository", result="error") == 1
        assert world.value("controller_runtime_reconcile_total", controller="imagerepository", result="requeue_after") == 1
        assert world.value("controller_runtime_reconcile_errors_total", controller="imagerepository") == 1
        assert world.value("workqueue_adds_total", name="imagerepository") == 1
        assert world.value("workqueue_retries_total", name="imagerepository") == 1
        where = {"kind": KIND, "name": "a", "namespace": "default"}
        assert world.value("gotk_reconcile_duration_seconds_count", **where) == 2
        states = [world.value("gotk_reconcile_condition", **where, type="Ready", status=s) for s in ("True", "False", "Unknown")]
        assert states == [0, 1, 0]
        stalled = {**where, "type": "Stalled", "status": "True"}
        assert world.value("gotk_reconcile_condition", **stalled) == 0
        world.reconciler.outcome = Stalled("InvalidSpec", "it cannot be")
        world.controller.add(KEY)
        await world.step()
        assert world.value("gotk_reconcile_condition", **stalled) == 1
        world.reconciler.outcome = Success("it works")
        world.controller.add(KEY)
        await world.step()
        assert world.value("gotk_reconcile_condition", **stalled) == 0


def test_the_duration_has_ten_exponential_buckets_from_10_ms_to_30_min() -> None:
    assert len(DURATION_BUCKETS) == 10
    assert (DURATION_BUCKETS[0], DURATION_BUCKETS[-1]) == (0.01, pytest.approx(1800))
    ratios = [b / a for a, b in itertools.pairwise(DURATION_BUCKETS)]
    assert max(ratios) == pytest.approx(min(ratios))


def test_the_series_of_an_object_that_is_gone_go() -> None:
    metrics = Metrics()
    for name in ("a", "b"):
        metrics.duration.labels(KIND, name, "default").observe(1)
        metrics.suspended.labels(KIND, name, "default").set(0)
        metrics.show_conditions(KIND, Key("default", name), [condition("Ready", "True")])
    metrics.forget(KIND, "default", "a")
    metrics.forget(KIND, "default", "a")
    text = metrics.render().decode()
    assert 'name="a"' not in text
    assert text.count('name="b"') == len(DURATION_BUCKETS) + 1 + 2 + 1 + 4  # with +Inf, count and sum


@pytest.mark.parametrize(
    ("conditions", "shown"),
    [
        ((), {("Ready", "Unknown")}),
        ((("Ready", "True"),), {("Ready", "True")}),
        ((("Reconciling", "True"), ("Ready", "Unknown")), {("Ready", "Unknown")}),
        ((("Reconciling", "True"), ("Ready", "False")), {("Ready", "False")}),
        ((("Stalled", "True"), ("Ready", "False")), {("Ready", "False"), ("Stalled", "True")}),
        ((("Stalled", "False"), ("Ready", "True")), {("Ready", "True")}),
    ],
)
def test_conditions_are_four_series_for_any_object(conditions: tuple[tuple[str, str], ...], shown: set[tuple[str, str]]) -> None:
    metrics = Metrics()
    every = [condition(kind, status) for kind, status in (("Stalled", "True"), ("Ready", "False"))]
    for given in (every, [condition(kind, status) for kind, status in conditions]):
        metrics.show_conditions(KIND, KEY, given)
    series = {(s.labels["type"], s.labels["status"]): s.value for s in next(iter(metrics.condition.collect())).samples}
    assert set(series) == {("Ready", "True"), ("Ready", "False"), ("Ready", "Unknown"), ("Stalled", "True")}
    assert {name for name, value in series.items() if value == 1} == shown
    assert set(series.values()) == {0, 1}


def test_packages_declare_their_own() -> None:
    metrics = Metrics()
    metrics.counter("imagebot_things_total", "Things.", "kind").labels("x").inc()
    metrics.gauge("imagebot_size", "Size.").set(3)
    assert b'imagebot_things_total{kind="x"} 1\n' in metrics.render()
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.gauge("imagebot_size", "Size again.")
