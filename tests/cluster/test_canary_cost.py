"""What Canaries cost: nothing at rest; in a run the writes that change something, one status a tick, one query a metric."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.audit import WRITES
from tests.support.canarylab import Stage, Theatre, canary, canary_lab, deployment
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.counting_proxy import CountingProxy

pytestmark = [pytest.mark.slow, pytest.mark.needs("prometheus"), pytest.mark.timeout(600)]

IDLE = 20
SPAN = 30
"""Seconds for which idle Canaries are looked at; the exporter is scraped once in each."""


@pytest.fixture(scope="module")
def theatre(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    if not isinstance(control_plane, ControlPlane) or not control_plane.runs_workloads:
        pytest.skip("the audit log of a cluster with workloads is needed")
    namespace = f"canary-cost-{secrets.token_hex(3)}"
    control_plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    try:
        with canary_lab(control_plane, namespace, tmp_path_factory.mktemp("cost")) as world, Theatre(world) as made:
            for story in (many_rest, one_runs):
                made.start(story.__name__, story)
            yield made
    finally:
        control_plane.api.delete("v1", "Namespace", namespace, missing_ok=True)


def asked(stage: Stage, mark: int) -> Counter[str]:
    """What the service of a story has asked the API server since a mark, as `verb resource`, without watches."""
    audit = stage.world.lab.cluster.audit
    assert audit is not None
    user = stage.world.services[stage.served_by].replica.user
    found = [r for r in audit.select(mark, user=user) if r.verb != "watch" and r.resource != "leases"]
    return Counter(f"{r.verb} {r.resource}" for r in found)


def mark(stage: Stage) -> int:
    audit = stage.world.lab.cluster.audit
    assert audit is not None
    return audit.mark()


# --- at rest


def many_rest(stage: Stage) -> None:
    stage.served_by, stage.demand = "idle", 0
    names = [f"web-{n:02}" for n in range(IDLE)]
    for name in names:
        body = canary()
        body["metadata"]["name"] = body["spec"]["targetRef"]["name"] = name
        stage.create(deployment(name, replicas=1), body)
    stage.world.service("idle", namespace=stage.namespace).start()
    for name in names:
        until_at_rest(stage, name)
    stage.until(lambda: sum(told.text.startswith("Initialization done!") for told in stage.events()) == IDLE, "the events")
    stage.until(lambda: not any(pods_of(stage, name) for name in names), "the targets to have no pods")
    # What the last pods did has been seen by then.
    scrapes(stage, 3)
    began = mark(stage)
    scrapes(stage, SPAN)
    stage.notes["asked"] = asked(stage, began)
    stage.ended = 1


def until_at_rest(stage: Stage, name: str) -> None:
    stage.until(lambda: stage.phases(name)[-1:] == ["Initialized"], f"{name} to be initialized")
    stage.until(lambda: stage.sizes(name)[-1] == 0, f"{name} to be scaled down")


def pods_of(stage: Stage, name: str) -> int:
    return int((stage.chronicle.of("Deployment", name)[-1].body.get("status") or {}).get("replicas") or 0)


def scrapes(stage: Stage, count: int) -> None:
    traffic = stage.world.traffic
    wanted = traffic.scrapes + count
    stage.until(lambda: traffic.scrapes >= wanted, f"{count} scrapes")


def test_canaries_at_rest_cost_nothing(theatre: Theatre) -> None:
    stage = theatre.told(many_rest.__name__)
    assert stage.notes["asked"] == Counter()


# --- in a run


def one_runs(stage: Stage) -> None:
    stage.served_by = "busy"
    with CountingProxy(stage.world.prometheus.url) as proxy:
        stage.world.service("busy", namespace=stage.namespace, prometheus=proxy.url).start()
        stage.bootstrap(deployment(), canary(stepWeight=20, maxWeight=40))
        stage.until_event("Initialization done!")
        stage.until(lambda: pods_of(stage, "web") == 0, "the target to have no pods")
        stage.notes["before"] = list(proxy.queries)
        began = mark(stage)
        stage.release("2")
        stage.until_phase("Succeeded")
        stage.until_event("Promotion completed!")
        stage.until(lambda: pods_of(stage, "web") == 0, "the target to have no pods")
        scrapes(stage, 3)
        stage.notes["asked"] = asked(stage, began)
        stage.notes["queries"] = proxy.queries[len(stage.notes["before"]) :]


def test_a_run_writes_what_it_changes_and_one_status_a_tick(theatre: Theatre) -> None:
    stage = theatre.told(one_runs.__name__)
    assert stage.weights() == [0, 20, 40, 0]
    found = stage.notes["asked"]
    assert found == Counter(
        {
            "patch deployments": 3,  # the target up, the primary's template, the target down
            "patch virtualservices": 3,  # 20, 40 and back to 0
            "patch canaries/status": 6,  # Progressing, 20, 40, Promoting, Finalising, Succeeded: one for each tick
            "create events": 7,
        }
    )
    assert len(stage.texts()) == 7
    assert sum(count for line, count in found.items() if line.split()[0] in WRITES and "events" not in line) == 12


def test_a_tick_that_checks_sends_one_query_for_each_metric(theatre: Theatre) -> None:
    stage = theatre.told(one_runs.__name__)
    queries = stage.notes["queries"]
    # At 20 and at 40; before the first step there is nothing to check, and after the last nothing more.
    assert len(queries) == 4
    assert ["istio_requests_total" in query for query in queries] == [True, False, True, False]
    assert ["istio_request_duration_milliseconds_bucket" in query for query in queries] == [False, True, False, True]
    assert set(stage.notes["before"]) == {"vector(1)"}
