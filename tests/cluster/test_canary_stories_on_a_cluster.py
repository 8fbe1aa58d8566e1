"""Stories of Canaries on a real API server with a real Prometheus, told side by side by one service.

Above each test is the story that it is about: a function that acts and waits. All stories that are asked for begin together; a
test waits for the end of its own and says what must have happened. In every story the ready pods cover the demand at every
moment, and no traffic goes where no pod is ready.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx
import pytest

from tests.support.canarylab import (
    INGRESS,
    ISTIO,
    Stage,
    Story,
    Theatre,
    autoscaler,
    canary,
    canary_lab,
    daemonset,
    deployment,
    istio_weight,
)
from tests.support.clusterlab import ROOT, until
from tests.support.controlplane import Cluster
from tests.support.history import changes
from tests.support.kubeapi import Object
from tests.support.prometheus_server import PrometheusServer
from tests.support.router_crds import open_definition, published
from tests.support.seed_canary import seed_canary
from tests.support.traffic import SLOW

pytestmark = [pytest.mark.slow, pytest.mark.needs("prometheus"), pytest.mark.timeout(600)]

Test = TypeVar("Test", bound=Callable[..., None])

RUN = ["Initializing", "Initialized", "Progressing", "Promoting", "Finalising", "Succeeded"]
FAILED = ["Initializing", "Initialized", "Progressing", "Failed"]
PROMOTED = [
    "Copying web.NS template spec to web-primary.NS",
    "Routing all traffic to primary",
    "Promotion completed! Scaling down web.NS",
]


def about(story: Story) -> Callable[[Test], Test]:
    """Which story a test is about."""

    def mark(test: Test) -> Test:
        test.story = story  # type: ignore[attr-defined]
        return test

    return mark


@pytest.fixture(scope="module")
def theatre(
    control_plane: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Theatre]:
    """All stories of the tests that were selected, begun."""
    if not control_plane.runs_workloads:
        pytest.skip("nothing runs on a bare API server")
    tests = [getattr(item, "function", None) for item in request.session.items]
    wanted: set[Story] = {test.story for test in tests if test is not None and hasattr(test, "story")}
    namespace = f"canary-stories-{secrets.token_hex(3)}"
    control_plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    try:
        with canary_lab(control_plane, namespace, tmp_path_factory.mktemp("stories")) as world, Theatre(world) as made:
            if a_router_is_installed_late in wanted:
                forget_traefik(made)
            world.service().start()
            # The longest first.
            for story in sorted(wanted, key=lambda story: (story is not the_chapter, story.__name__)):
                made.start(story.__name__, story, namespace="production" if story is the_chapter else "")
            yield made
    finally:
        control_plane.api.delete("v1", "Namespace", namespace, missing_ok=True)


@pytest.fixture
def stage(theatre: Theatre, request: pytest.FixtureRequest) -> Stage:
    """The story of the test, told to its end."""
    return theatre.told(request.function.story.__name__)


# --- all goes well


def a_revision_does_well(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary(stepWeight=20, maxWeight=40))
    stage.release("2")
    stage.until_phase("Succeeded")
    stage.until_event("Promotion completed!")
    stage.until(lambda: stage.sizes()[-1] == 0, "the target to be scaled down")


@about(a_revision_does_well)
def test_a_canary_is_bootstrapped(stage: Stage) -> None:
    first = [told.text for told in stage.events()]
    online, waiting = "all the metrics providers are available!", "web-primary.NS not ready: waiting for rollout to finish"
    begun = first.index("Initialization done! web.NS")
    assert first[0] == online
    assert all(text == online or text.startswith(waiting) for text in first[1:begun])
    assert stage.sizes("web-primary") == [2]
    assert stage.sizes()[:2] == [2, 0]
    # The target's pods go only when the primary's are there.
    order = stage.chronicle.of()
    down = next(v.revision for v in order if (v.kind, v.name) == ("Deployment", "web") and v.body["spec"]["replicas"] == 0)
    done = [v for v in order if (v.kind, v.name) == ("Deployment", "web-primary") and v.revision < down]
    assert done[-1].body["status"]["availableReplicas"] == 2
    route = next(v.body for v in order if v.kind == "VirtualService")
    assert route["spec"]["http"][0]["route"] == [
        {"destination": {"host": "web-primary"}, "weight": 100},
        {"destination": {"host": "web-canary"}, "weight": 0},
    ]
    services = {name: stage.api.get("v1", "Service", name, stage.namespace) for name in ("web", "web-primary", "web-canary")}
    assert {name: body["spec"]["selector"]["app"] for name, body in services.items()} == {
        "web": "web-primary",
        "web-primary": "web-primary",
        "web-canary": "web",
    }
    owners = [*services.values(), stage.find("Deployment", "web-primary"), route]
    assert {body["metadata"]["ownerReferences"][0]["kind"] for body in owners if body} == {"Canary"}
    first_status = next(s for s in stage.statuses() if s.get("phase") == "Initialized")
    assert first_status["lastAppliedSpec"] == first_status["lastPromotedSpec"] != ""
    assert first_status["conditions"][0]["message"] == "Deployment initialization completed."


@about(a_revision_does_well)
def test_a_revision_that_does_well_is_promoted_step_by_step(stage: Stage) -> None:
    assert stage.weights() == [0, 20, 40, 0]
    assert stage.phases() == RUN
    assert stage.texts() == [
        "New revision detected! Scaling up web.NS",
        "Starting canary analysis for web.NS",
        "Advance web.NS canary weight 20",
        "Advance web.NS canary weight 40",
        *PROMOTED,
    ]
    assert stage.warnings() == []
    assert (stage.image("web-primary"), stage.sizes()) == ("2", [2, 0, 2, 0])
    status = stage.status()
    assert (status["canaryWeight"], status["failedChecks"], status["iterations"]) == (0, 0, 0)
    assert status["lastAppliedSpec"] == status["lastPromotedSpec"]
    assert status["conditions"][0]["reason"] == "Succeeded"
    assert [(check["metric"], check["verdict"], check["value"]) for check in status["checks"]] == [
        ("request-success-rate", "Pass", "100"),
        ("request-duration", "Pass", "126"),
    ]
    ended = {"deployment_strategy": "canary", "analysis_status": "completed"}
    assert stage.metric("flagger_canary_successes_total", name="web", **ended) == 1
    assert stage.metric("flagger_canary_failures_total", name="web", **ended) is None
    assert stage.metric("flagger_canary_status", name="web") == 1
    assert stage.metric("flagger_canary_weight", workload="web") == 0
    assert stage.metric("flagger_canary_weight", workload="web-primary") == 100
    assert stage.metric("flagger_canary_metric_analysis", name="web", metric="request-success-rate") == 100
    assert stage.metric("flagger_canary_metric_analysis", name="web", metric="request-duration") == 0.126
    assert stage.metric("flagger_canary_total") == 1


@about(a_revision_does_well)
def test_steps_are_an_interval_apart(stage: Stage) -> None:
    """By what the status says, so that a machine that stalls fails nothing."""
    due = changes([str(status["nextStepTime"]) for status in stage.statuses() if status.get("nextStepTime")])
    moments = [int(text[11:13]) * 3600 + int(text[14:16]) * 60 + float(text[17:].rstrip("Z")) for text in due]
    steps = [(after - before) % 86400 for before, after in itertools.pairwise(moments)]
    assert len(steps) >= 4
    assert all(step >= 9 for step in steps), due


# --- it does not


def a_revision_fails_requests(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary(), failing=0.1)
    stage.release("2")
    stage.until_event("Canary failed!")
    stage.until_phase("Failed")


@about(a_revision_fails_requests)
def test_errors_roll_back(stage: Stage) -> None:
    failed = "Halt web.NS advancement success rate 90.00% < 99%"
    assert stage.weights() == [0, 50, 0]
    assert stage.phases() == FAILED
    assert stage.texts() == [
        "New revision detected! Scaling up web.NS",
        "Starting canary analysis for web.NS",
        "Advance web.NS canary weight 50",
        failed,
        failed,
        "Rolling back web.NS failed checks threshold reached 2",
        "Canary failed! Scaling down web.NS",
    ]
    assert stage.warnings() == stage.texts()[3:]
    assert stage.ladder("failedChecks") == [0, 1, 2, 0]
    assert (stage.image("web-primary"), stage.sizes()) == ("1", [2, 0, 2, 0])
    status = stage.status()
    assert status["failure"].replace(stage.namespace, "NS") == failed
    assert [check["verdict"] for check in status["checks"]] == ["Fail", "Pass"]
    assert status["lastAppliedSpec"] != status["lastPromotedSpec"]
    assert (status["conditions"][0]["status"], status["conditions"][0]["reason"]) == ("False", "Failed")
    ended = {"deployment_strategy": "canary", "analysis_status": "completed"}
    assert stage.metric("flagger_canary_failures_total", name="web", **ended) == 1
    assert stage.metric("flagger_canary_status", name="web") == 2
    assert stage.metric("flagger_canary_metric_analysis", name="web", metric="request-success-rate") == pytest.approx(90)


def a_revision_is_slow(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary(), latency=SLOW)
    stage.release("2")
    stage.until_event("Canary failed!")
    stage.until_phase("Failed")


@about(a_revision_is_slow)
def test_latency_rolls_back(stage: Stage) -> None:
    failed = "Halt web.NS advancement request duration 1.018s > 500ms"
    assert stage.weights() == [0, 50, 0]
    assert stage.warnings() == [
        failed,
        failed,
        "Rolling back web.NS failed checks threshold reached 2",
        "Canary failed! Scaling down web.NS",
    ]
    assert [check["verdict"] for check in stage.status()["checks"]] == ["Pass", "Fail"]
    assert stage.metric("flagger_canary_metric_analysis", name="web", metric="request-duration") == 1.018
    assert stage.image("web-primary") == "1"


def pods_crash(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary(spec={"progressDeadlineSeconds": 15}))
    stage.release("2", annotations={"imagebot.test/broken": "CrashLoopBackOff"})
    stage.until_event("Canary failed!")
    stage.until_phase("Failed")
    stage.until(lambda: stage.sizes()[-1] == 0, "the target to be scaled down")


@about(pods_crash)
def test_a_crash_loop_is_rolled_back_by_the_deadline(stage: Stage) -> None:
    assert stage.weights() == [0]
    assert stage.phases() == FAILED
    assert stage.waits()[0].startswith("canary deployment web.NS not ready: waiting for rollout to finish: ")
    assert stage.warnings()[-1:] == ["Canary failed! Scaling down web.NS"]
    assert not any("Advance" in text for text in stage.texts())
    assert (stage.image("web-primary"), stage.sizes()) == ("1", [2, 0, 2, 0])


def pods_are_slow_to_start(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary())
    stage.release("2", annotations={"imagebot.test/ready-after": "12s"})
    stage.until_phase("Succeeded", "Failed")


@about(pods_are_slow_to_start)
def test_pods_that_start_slowly_are_waited_for(stage: Stage) -> None:
    """On both sides: the primary's new pods take as long, and nothing ends before they are ready."""
    assert stage.phases() == RUN
    assert stage.weights() == [0, 50, 0]
    waits = stage.waits()
    assert waits[0].startswith("canary deployment web.NS not ready: waiting for rollout to finish: ")
    assert any(text.startswith("web-primary.NS not ready: waiting for rollout to finish: ") for text in waits)
    assert stage.ladder("failedChecks") == [0]
    assert stage.image("web-primary") == "2"


# --- gates


def hooks(stage: Stage, *types: str) -> list[Object]:
    return [{"name": kind, "type": kind, "url": stage.world.gates.url(f"/{stage.namespace}/{kind}")} for kind in types]


def somebody_confirms_the_rollout(stage: Stage) -> None:
    path, gates = f"/{stage.namespace}/confirm-rollout", stage.world.gates
    stage.bootstrap(deployment(), canary(webhooks=hooks(stage, "confirm-rollout")))
    gates.close(path)
    stage.release("2")
    stage.until_phase("Waiting")
    stage.until(lambda: len(gates.requests(path)) >= 2, "a second look at the gate")
    stage.notes["sizes"] = stage.sizes()
    gates.open(path)
    stage.until_phase("Succeeded")


@about(somebody_confirms_the_rollout)
def test_a_closed_gate_keeps_a_rollout_from_its_start(stage: Stage) -> None:
    assert stage.notes["sizes"] == [2, 0]
    assert stage.phases() == [*RUN[:2], "Waiting", *RUN[2:]]
    assert stage.weights() == [0, 50, 0]
    assert stage.texts()[:3] == [
        "Halt web.NS advancement waiting for approval confirm-rollout",
        "Confirm-rollout check confirm-rollout passed",
        "New revision detected! Scaling up web.NS",
    ]
    asked = stage.world.gates.requests(f"/{stage.namespace}/confirm-rollout")
    assert [request.data["phase"] for request in asked][:2] == ["Initialized", "Waiting"]
    assert {(request.data["name"], request.data["namespace"]) for request in asked} == {("web", stage.namespace)}
    assert len({request.data["checksum"] for request in asked[1:]}) == 1


def somebody_confirms_the_promotion(stage: Stage) -> None:
    path, gates = f"/{stage.namespace}/confirm-promotion", stage.world.gates
    types = ("pre-rollout", "rollout", "confirm-promotion", "post-rollout")
    stage.bootstrap(deployment(), canary(webhooks=hooks(stage, *types)))
    gates.close(path)
    stage.release("2")
    stage.until_phase("WaitingPromotion")
    stage.until(lambda: len(gates.requests(path)) >= 2, "a second look at the gate")
    stage.notes["weights"] = stage.weights()
    gates.open(path)
    stage.until_phase("Succeeded")
    stage.until_event("Post-rollout check post-rollout passed")


@about(somebody_confirms_the_promotion)
def test_a_closed_gate_keeps_a_rollout_from_its_promotion(stage: Stage) -> None:
    assert stage.notes["weights"] == [0, 50]
    assert stage.phases() == [*RUN[:3], "WaitingPromotion", *RUN[3:]]
    assert stage.weights() == [0, 50, 0]
    assert stage.texts() == [
        "New revision detected! Scaling up web.NS",
        "Starting canary analysis for web.NS",
        "Pre-rollout check pre-rollout passed",
        "Advance web.NS canary weight 50",
        "Halt web.NS advancement waiting for promotion approval confirm-promotion",
        "Confirm-promotion check confirm-promotion passed",
        *PROMOTED[:2],
        "Post-rollout check post-rollout passed",
        PROMOTED[2],
    ]
    gates = stage.world.gates
    counts = {kind: len(gates.requests(f"/{stage.namespace}/{kind}")) for kind in ("pre-rollout", "rollout", "post-rollout")}
    # Rollout hooks are asked in every tick that checks: at 50, and while the gate is closed.
    assert (counts["pre-rollout"], counts["post-rollout"]) == (1, 1)
    assert counts["rollout"] == len(gates.requests(f"/{stage.namespace}/confirm-promotion"))
    (post,) = gates.requests(f"/{stage.namespace}/post-rollout")
    assert post.data["phase"] == "Succeeded"


# --- other strategies


INSIDERS: list[Object] = [{"headers": {"x-insider": {"exact": "yes"}}}]


def insiders_try_it(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary(iterations=2, match=INSIDERS))
    stage.release("2")
    stage.until_phase("Succeeded")


@about(insiders_try_it)
def test_an_ab_test(stage: Stage) -> None:
    assert stage.phases() == RUN
    assert stage.weights() == [0, 100, 0]
    assert stage.ladder("iterations") == [0, 1, 2, 0]
    assert stage.texts()[2:4] == ["Advance web.NS canary iteration 1/2", "Advance web.NS canary iteration 2/2"]
    # Whoever is not asked for stays with the primary.
    during = next(v.body for v in stage.chronicle.of("VirtualService") if istio_weight(v.body) == 100)
    matched, others = during["spec"]["http"]
    assert matched["match"] == INSIDERS
    assert others["route"] == [{"destination": {"host": "web-primary"}, "weight": 0}]
    ended = {"deployment_strategy": "ab-testing", "analysis_status": "completed"}
    assert stage.metric("flagger_canary_successes_total", name="web", **ended) == 1


def blue_becomes_green(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary("kubernetes", iterations=2))
    stage.release("2")
    stage.until_phase("Succeeded")


@about(blue_becomes_green)
def test_blue_green_without_a_router(stage: Stage) -> None:
    assert stage.phases() == RUN
    assert stage.weights() == []
    assert stage.texts() == [
        "New revision detected! Scaling up web.NS",
        "Starting canary analysis for web.NS",
        "Advance web.NS canary iteration 1/2",
        "Advance web.NS canary iteration 2/2",
        *PROMOTED[:1],
        PROMOTED[2],
    ]
    assert [check["value"] for check in stage.status()["checks"]] == ["100", "126"]
    ended = {"deployment_strategy": "blue-green", "analysis_status": "completed"}
    assert stage.metric("flagger_canary_successes_total", name="web", **ended) == 1


def requests_are_mirrored_before_the_switch(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary(iterations=2, mirror=True))
    stage.release("2")
    stage.until_phase("Succeeded")


def mirrors(stage: Stage) -> list[tuple[int | None, bool]]:
    found = [v.body for v in stage.chronicle.of("VirtualService")]
    return changes([(istio_weight(body), "mirror" in body["spec"]["http"][0]) for body in found])


@about(requests_are_mirrored_before_the_switch)
def test_blue_green_with_mirroring(stage: Stage) -> None:
    assert mirrors(stage) == [(0, False), (0, True), (100, False), (0, False)]
    assert stage.phases() == RUN
    assert "Stop traffic mirroring and route all traffic to canary" in stage.texts()
    assert stage.ladder("iterations") == [0, 1, 2, 3, 0]


def requests_are_mirrored_before_the_first_step(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary(mirror=True))
    stage.release("2")
    stage.until_phase("Succeeded")


@about(requests_are_mirrored_before_the_first_step)
def test_a_canary_with_mirroring(stage: Stage) -> None:
    assert mirrors(stage) == [(0, False), (0, True), (50, False), (0, False)]
    assert stage.texts()[2:4] == ["Advance web.NS canary weight 0", "Advance web.NS canary weight 50"]
    assert stage.phases() == RUN


# --- autoscalers


REF = {"autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "web"}}


def an_autoscaler_runs(stage: Stage) -> None:
    stage.bootstrap(deployment(), autoscaler(least=2), canary(spec=REF))
    stage.api.merge_patch(
        "autoscaling/v2", "HorizontalPodAutoscaler", "web", {"spec": {"maxReplicas": 6, "minReplicas": 3}}, stage.namespace
    )
    stage.release("2")
    stage.until_phase("Succeeded")
    stage.until(lambda: stage.sizes("web-primary")[-1] == 3, "the primary's autoscaler to act")


@about(an_autoscaler_runs)
def test_an_autoscaler_is_copied_and_promoted(stage: Stage) -> None:
    """A change of the autoscaler is no revision; it comes to the primary with the next one."""
    assert stage.phases() == RUN
    copies = [v.body for v in stage.chronicle.of("HorizontalPodAutoscaler", "web-primary")]
    bounds = changes([(body["spec"]["minReplicas"], body["spec"]["maxReplicas"]) for body in copies])
    assert bounds == [(2, 4), (3, 6)]
    assert {body["spec"]["scaleTargetRef"]["name"] for body in copies} == {"web-primary"}
    assert copies[0]["spec"]["metrics"] == autoscaler()["spec"]["metrics"]
    # From zero the target begins with the least that the autoscaler allows; at zero the autoscaler leaves it alone.
    assert stage.sizes() == [2, 0, 3, 0]
    assert stage.sizes("web-primary") == [2, 3]


def it_begins_at_zero(stage: Stage) -> None:
    stage.bootstrap(deployment(replicas=0), autoscaler(least=2), canary(spec=REF))
    stage.release("2")
    stage.until_phase("Succeeded")


@about(it_begins_at_zero)
def test_a_target_at_zero_gets_a_primary_as_small_as_its_autoscaler_allows(stage: Stage) -> None:
    assert stage.phases() == RUN
    assert stage.sizes("web-primary") == [2]
    assert stage.sizes() == [0, 2, 0]
    assert stage.image("web-primary") == "2"


# --- configuration


def config(value: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"mode": value}}


def the_configuration_changes(stage: Stage) -> None:
    volumes = [{"name": "settings", "configMap": {"name": "settings"}}]
    stage.bootstrap(config("old"), deployment(volumes=volumes), canary())
    stage.notes["before"] = stage.find("ConfigMap", "settings-primary")
    stage.patch("ConfigMap", {"data": {"mode": "new"}}, "settings")
    stage.until_weight(50)
    stage.notes["during"] = stage.find("ConfigMap", "settings-primary")
    stage.until_phase("Succeeded")
    stage.notes["after"] = stage.find("ConfigMap", "settings-primary")


@about(the_configuration_changes)
def test_a_change_of_a_tracked_configuration_is_a_revision(stage: Stage) -> None:
    assert stage.phases() == RUN
    assert stage.weights() == [0, 50, 0]
    values = [stage.notes[when]["data"]["mode"] for when in ("before", "during", "after")]
    assert values == ["old", "old", "new"]
    primary = stage.find("Deployment", "web-primary")
    assert primary is not None
    assert primary["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] == "settings-primary"
    assert stage.texts()[0] == "New revision detected! Scaling up web.NS"


# --- people


def the_analysis_is_skipped(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary(spec={"skipAnalysis": True}), failing=0.5)
    stage.release("2")
    stage.until_phase("Succeeded")


@about(the_analysis_is_skipped)
def test_skipping_the_analysis(stage: Stage) -> None:
    assert stage.phases() == ["Initializing", "Initialized", "Progressing", "Succeeded"]
    assert stage.weights() == [0]
    assert stage.texts()[0] == "New revision detected! Scaling up web.NS"
    assert stage.texts()[-2:] == [
        "Copying web.NS template spec to web-primary.NS",
        "Promotion completed! Canary analysis was skipped for web.NS",
    ]
    assert stage.image("web-primary") == "2"
    skipped = {"deployment_strategy": "canary", "analysis_status": "skipped"}
    assert stage.metric("flagger_canary_successes_total", name="web", **skipped) == 1


def it_is_suspended(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary())
    stage.patch("Canary", {"spec": {"suspend": True}})
    stage.until_event("skipping canary run as object is suspended")
    stage.release("2")
    # Another Canary that does its work says that this one had its chance.
    other = canary()
    other["metadata"]["name"] = other["spec"]["targetRef"]["name"] = "other"
    stage.create(deployment("other"), other)
    stage.until(lambda: "Initialized" in stage.phases("other"), "the other Canary")
    stage.notes["sizes"] = stage.sizes()
    stage.delete(name="other")
    stage.patch("Canary", {"spec": {"suspend": False}})
    stage.until_phase("Succeeded")


@about(it_is_suspended)
def test_suspending_and_resuming(stage: Stage) -> None:
    assert stage.notes["sizes"] == [2, 0]
    assert stage.phases() == RUN
    assert [told.text for told in stage.events()].count("skipping canary run as object is suspended") == 1
    assert stage.image("web-primary") == "2"


def it_is_deleted_with_revert(stage: Stage) -> None:
    service = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    stage.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service})
    stage.bootstrap(deployment(), canary(spec={"revertOnDeletion": True}))
    stage.notes["selector"] = stage.api.get("v1", "Service", "web", stage.namespace)["spec"]["selector"]
    stage.release("2")
    stage.until_weight(50)
    stage.delete()
    stage.until(lambda: stage.chronicle.of("Canary")[-1].gone, "the Canary to go")
    stage.until(lambda: stage.chronicle.of("Deployment", "web-primary")[-1].gone, "the primary to be collected")
    stage.until_event("Terminated canary")


@about(it_is_deleted_with_revert)
def test_deletion_with_revert_gives_everything_back(stage: Stage) -> None:
    assert stage.phases()[-2:] == ["Progressing", "Terminating"]
    assert stage.texts()[-2:] == ["Terminating canary web.NS", "Terminated canary web.NS"]
    assert stage.sizes()[-1] == 2
    assert stage.notes["selector"] == {"app": "web-primary"}
    assert stage.api.get("v1", "Service", "web", stage.namespace)["spec"]["selector"] == {"app": "web"}
    assert stage.find("Deployment", "web-primary") is None
    assert stage.metric("flagger_canary_status", name="web") is None
    assert stage.metric("flagger_canary_total") in {None, 0}


def it_is_deleted_without_revert(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary())
    stage.ended = max(v.revision for v in stage.chronicle.of())
    stage.delete()
    stage.until(lambda: stage.chronicle.of("Canary")[-1].gone, "the Canary to go")
    stage.until(lambda: stage.chronicle.of("Deployment", "web-primary")[-1].gone, "the primary to be collected")
    stage.until(lambda: stage.chronicle.of("VirtualService", "web")[-1].gone, "the route to be collected")


@about(it_is_deleted_without_revert)
def test_deletion_without_revert_leaves_the_target_as_it_is(stage: Stage) -> None:
    """Flagger's contract: what is owned is collected, nothing is given back, and nobody waits for anything."""
    assert stage.phases() == RUN[:2]
    assert stage.sizes() == [2, 0]
    assert stage.texts() == []


def a_newer_revision_comes(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary(stepWeight=25, maxWeight=50))
    stage.release("2")
    stage.until_weight(25)
    stage.release("3")
    stage.until_event("New revision detected! Restarting analysis")
    stage.until_phase("Succeeded")


@about(a_newer_revision_comes)
def test_a_newer_revision_begins_again(stage: Stage) -> None:
    assert stage.weights() == [0, 25, 0, 25, 50, 0]
    assert stage.phases() == RUN
    assert stage.texts()[2:6] == [
        "Advance web.NS canary weight 25",
        "New revision detected! Restarting analysis for web.NS",
        "Starting canary analysis for web.NS",
        "Advance web.NS canary weight 25",
    ]
    tags = changes([v.body["spec"]["template"]["spec"]["containers"][0]["image"][-1]
                    for v in stage.chronicle.of("Deployment", "web-primary")])  # fmt: skip
    assert tags == ["1", "3"]


def somebody_goes_back(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary())
    stage.release("2")
    stage.until_weight(50)
    stage.release("1")
    stage.until_phase("Succeeded")
    stage.until(lambda: stage.sizes()[-1] == 0, "the target to be scaled down")


@about(somebody_goes_back)
def test_going_back_ends_a_run(stage: Stage) -> None:
    assert stage.weights() == [0, 50, 0]
    assert stage.phases() == ["Initializing", "Initialized", "Progressing", "Succeeded"]
    assert stage.texts()[-1] == "Revision of web.NS is back at the promoted one! Nothing to analyse"
    assert {stage.image("web-primary"), stage.image()} == {"1"}


# --- other workloads, other routers


def a_daemonset(stage: Stage) -> None:
    stage.demand = 1
    stage.bootstrap(daemonset(), canary(kind="DaemonSet"))
    stage.release("2", kind="DaemonSet")
    stage.until_phase("Succeeded")


@about(a_daemonset)
def test_a_daemonset_is_a_target(stage: Stage) -> None:
    assert stage.phases() == RUN
    assert stage.weights() == [0, 50, 0]
    assert stage.image("web-primary", "DaemonSet") == "2"
    found = [v.body["spec"]["template"]["spec"].get("nodeSelector") for v in stage.chronicle.of("DaemonSet", "web")]
    nowhere = {"flagger.app/scale-to-zero": "true"}
    assert changes(found) == [None, nowhere, None, nowhere]
    primaries = [v.body["spec"]["template"]["spec"].get("nodeSelector") for v in stage.chronicle.of("DaemonSet", "web-primary")]
    assert set(map(str, primaries)) == {"None"}


def through_the_gateway_api(stage: Stage) -> None:
    gateway = {"gatewayRefs": [{"name": "gateway", "namespace": "infra"}], "hosts": ["web.example.org"]}
    stage.bootstrap(deployment(), canary("gatewayapi:v1", service=gateway))
    stage.release("2")
    stage.until_phase("Succeeded")


@about(through_the_gateway_api)
def test_the_gateway_api(stage: Stage) -> None:
    def weight(body: Object) -> int:
        refs = body["spec"]["rules"][0]["backendRefs"]
        return next(int(ref["weight"]) for ref in refs if ref["name"] == "web-canary")

    assert stage.weights("HTTPRoute", read=weight) == [0, 50, 0]
    assert stage.phases() == RUN
    assert [check["value"] for check in stage.status()["checks"]] == ["100", "126"]


def through_an_ingress(stage: Stage) -> None:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    rule = {"host": "web.example.org", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    ingress = {"apiVersion": INGRESS, "kind": "Ingress", "metadata": {"name": "web"}, "spec": {"rules": [rule]}}
    ref = {"ingressRef": {"apiVersion": INGRESS, "kind": "Ingress", "name": "web"}}
    stage.bootstrap(deployment(), ingress, canary("nginx", spec=ref))
    stage.release("2")
    stage.until_phase("Succeeded")


@about(through_an_ingress)
def test_an_nginx_ingress(stage: Stage) -> None:
    def weight(body: Object) -> int:
        return int(body["metadata"]["annotations"].get("nginx.ingress.kubernetes.io/canary-weight", "0"))

    assert stage.weights("Ingress", "web-canary", weight) == [0, 50, 0]
    assert stage.phases() == RUN
    assert [check["value"] for check in stage.status()["checks"]] == ["100", "50"]


def another_tool_has_the_route(stage: Stage) -> None:
    spec = {"hosts": ["web.example.org"], "gateways": ["infra/gateway"], "exportTo": ["*"],
            "http": [{"route": [{"destination": {"host": "web"}}]}]}  # fmt: skip
    meta = {"name": "web", "namespace": stage.namespace, "labels": {"team": "blue"}}
    route = {"apiVersion": ISTIO, "kind": "VirtualService", "metadata": meta, "spec": spec}
    stage.world.lab.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(route))
    stage.notes["spec"] = spec
    service = {"gateways": ["infra/gateway"], "hosts": ["web.example.org"]}
    stage.bootstrap(deployment(), canary(service=service, spec={"revertOnDeletion": True}))
    stage.notes["taken"] = stage.find("VirtualService")
    stage.release("2")
    stage.until_weight(50)
    # The tool does its work again, in the middle of a run.
    stage.world.lab.cluster.kubectl(
        "apply", "-f", "-", stdin=json.dumps({**route, "metadata": {**meta, "labels": {"team": "red"}}})
    )
    stage.until_phase("Succeeded")
    stage.until(lambda: stage.sizes()[-1] == 0, "the target to be scaled down")
    stage.delete()
    stage.until(lambda: stage.chronicle.of("Canary")[-1].gone, "the Canary to go")


@about(another_tool_has_the_route)
def test_a_route_of_another_tool_is_taken_over_and_given_back(stage: Stage) -> None:
    taken, left = stage.notes["taken"], stage.find("VirtualService")
    assert istio_weight(taken) == 0
    assert taken["spec"]["exportTo"] == ["*"]
    assert "ownerReferences" not in taken["metadata"]
    assert left is not None
    assert left["spec"] == stage.notes["spec"]
    assert left["metadata"]["labels"] == {"team": "red"}
    assert stage.phases() == [*RUN, "Terminating"]
    assert stage.image("web-primary" if stage.find("Deployment", "web-primary") else "web") == "2"


# --- faults


def prometheus_dies(stage: Stage) -> None:
    world = stage.world
    own = PrometheusServer(world.lab.supervisor, world.lab.root / "mortal", world.traffic.address, name="mortal")
    own.start()
    stage.until(own.ready, "the second Prometheus")
    stage.bootstrap(deployment(), canary(threshold=20, spec={"metricsServer": own.url}))
    stage.release("2")
    stage.until_weight(50)
    own.kill()
    stage.until(lambda: (stage.status().get("failedChecks") or 0) >= 1, "a failed check")
    stage.notes["during"] = (stage.phases()[-1], stage.weights()[-1])
    own.start()
    stage.until_phase("Succeeded")


@about(prometheus_dies)
def test_without_prometheus_a_run_waits(stage: Stage) -> None:
    assert stage.notes["during"] == ("Progressing", 50)
    assert stage.phases() == RUN
    assert stage.weights() == [0, 50, 0]
    failed = stage.warnings()
    assert failed[0].startswith("Prometheus query failed: running query failed: ")
    verdicts = [check["verdict"] for status in stage.statuses() for check in status.get("checks") or ()]
    assert "Error" in verdicts
    assert verdicts[-2:] == ["Pass", "Pass"]
    assert stage.image("web-primary") == "2"


TRAEFIK_CRD = next(body for body in published() if body["spec"]["names"]["kind"] == "TraefikService")


def forget_traefik(theatre: Theatre) -> None:
    api, name = theatre.world.api, TRAEFIK_CRD["metadata"]["name"]
    crds = "apiextensions.k8s.io/v1"
    api.delete(crds, "CustomResourceDefinition", name)
    api.wait(crds, "CustomResourceDefinition", name, lambda found: found is None, seconds=60)


def a_router_is_installed_late(stage: Stage) -> None:
    stage.bootstrap(deployment(), canary("traefik"), wait=False)
    stage.until_event("traefik.io", times=2)
    stage.notes["during"] = (stage.phases(), [told.text for told in stage.events()])
    stage.api.install_crd(TRAEFIK_CRD)
    stage.until_phase("Initialized")
    stage.began = max(v.revision for v in stage.chronicle.of())
    stage.release("2")
    stage.until_phase("Succeeded")


@about(a_router_is_installed_late)
def test_a_router_that_is_installed_late(stage: Stage) -> None:
    def weight(body: Object) -> int:
        services = body["spec"]["weighted"]["services"]
        return next((int(s["weight"]) for s in services if s["name"] == "web-canary"), 0)

    phases, texts = stage.notes["during"]
    assert phases == ["Initializing"]
    assert any("TraefikService" in text or "traefikservices.traefik.io" in text for text in texts)
    assert stage.phases() == RUN
    assert stage.weights("TraefikService", read=weight) == [0, 50, 0]


# --- the chapter


def the_chapter(stage: Stage) -> None:
    """Its manifests as they are; only where its two host names lead is told apart, by a proxy."""
    world, stage.name = stage.world, "my-app"
    kinds = open_definition("helm.toolkit.fluxcd.io", "HelmRelease", "helmreleases", ("v2",))
    stage.api.install_crd(kinds)
    release = {"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": {"name": "my-app"}, "spec": {}}
    stage.create(release)
    ready = {"type": "Ready", "status": "True", "reason": "UpgradeSucceeded", "message": "Helm upgrade succeeded"}
    status = {"status": {"observedGeneration": 1, "conditions": [ready]}}
    stage.api.merge_patch("helm.toolkit.fluxcd.io/v2", "HelmRelease", "my-app", status, stage.namespace, subresource="status")
    world.proxy.places["flagger-loadtester.test"] = load_tester(stage)
    world.proxy.inside["http://my-app.company.com/"] = world.gates.url("/my-app")
    body = seed_canary()
    stage.bootstrap(deployment("my-app"), autoscaler("my-app"), body)
    stage.release("2")
    stage.until_weight(20, seconds=200)
    stage.until_event("Advance my-app.NS canary weight 20")


def load_tester(stage: Stage) -> str:
    """The real load tester, as a process; its address."""
    lab = stage.world.lab
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    config, _ = lab.kubeconfig("loadtester")
    argv = [
        sys.executable,
        "-m",
        "reconcile",
        "loadtester",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--kubeconfig",
        str(config),
    ]
    env = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(ROOT), "HOME": str(lab.root)}
    lab.supervisor.start("loadtester", argv, env=env, log=lab.root / "loadtester.log")
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/healthz", timeout=5.0, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    until(answers, "the load tester")
    return url


@about(the_chapter)
def test_the_canary_of_the_chapter(stage: Stage) -> None:
    assert stage.weights() == [0, 10, 20]
    assert stage.phases() == ["Initializing", "Initialized", "Progressing"]
    assert stage.texts() == [
        "New revision detected! Scaling up my-app.NS",
        "Starting canary analysis for my-app.NS",
        "Pre-rollout check flux-helm-release passed",
        "Advance my-app.NS canary weight 10",
        "Advance my-app.NS canary weight 20",
    ]
    route = stage.chronicle.of("VirtualService", "my-app")[-1].body["spec"]
    assert (route["gateways"], route["hosts"]) == (["istio-gateway"], ["my-app.company.com", "my-app"])
    scaler = stage.chronicle.of("HorizontalPodAutoscaler", "my-app-primary")[-1].body["spec"]
    assert scaler["scaleTargetRef"]["name"] == "my-app-primary"
    assert [(check["metric"], check["verdict"]) for check in stage.status()["checks"]] == [
        ("request-success-rate", "Pass"),
        ("request-duration", "Pass"),
    ]
    assert set(stage.world.proxy.asked) == {"http://flagger-loadtester.test/"}
    # hey -z 1m -q 10 -c 2, done by the load generator.
    stage.until(lambda: len(stage.world.gates.requests("/my-app")) >= 20, "the load")
