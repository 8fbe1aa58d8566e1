"""Canaries whose service is killed in the middle of a run, or loses its lease there: the run goes on where it was, once."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from tests.support.audit import WRITES
from tests.support.canarylab import Service, Stage, Theatre, canary, canary_lab, deployment
from tests.support.clusterlab import SHORT_LEASE, until
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.history import changes
from tests.support.kubeapi import Object

pytestmark = [pytest.mark.slow, pytest.mark.needs("prometheus"), pytest.mark.timeout(600)]

LADDER: Object = {"stepWeight": 30, "maxWeight": 60, "threshold": 5}
UNDISTURBED = [
    "New revision detected! Scaling up web.NS",
    "Starting canary analysis for web.NS",
    "Advance web.NS canary weight 30",
    "Advance web.NS canary weight 60",
    "Copying web.NS template spec to web-primary.NS",
    "Routing all traffic to primary",
    "Promotion completed! Scaling down web.NS",
]


@pytest.fixture(scope="module")
def theatre(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    if not isinstance(control_plane, ControlPlane) or not control_plane.runs_workloads:
        pytest.skip("the audit log of a cluster with workloads is needed")
    namespace = f"canary-restart-{secrets.token_hex(3)}"
    control_plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    try:
        with canary_lab(control_plane, namespace, tmp_path_factory.mktemp("restart")) as world, Theatre(world) as made:
            for story in (killed_again_and_again, the_leader_is_killed, the_leader_freezes_in_a_tick):
                made.start(story.__name__, story)
            yield made
    finally:
        control_plane.api.delete("v1", "Namespace", namespace, missing_ok=True)


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def counters(status: Object) -> dict[str, object]:
    names = ("phase", "canaryWeight", "failedChecks", "iterations", "lastAppliedSpec", "lastPromotedSpec", "nextStepTime")
    return {name: status.get(name) for name in names}


def promotions(stage: Stage) -> list[str]:
    """The images that the primary was given, in order."""
    found = [
        v.body["spec"]["template"]["spec"]["containers"][0]["image"] for v in stage.chronicle.of("Deployment", "web-primary")
    ]
    return changes([image.rpartition(":")[2] for image in found])


def writes_after(stage: Stage, mark: int) -> Callable[[], bool]:
    """Whether anything was written to the Canary since a version of it."""
    return lambda: stage.chronicle.of("Canary", "web")[-1].revision > mark


# --- one process


def killed_again_and_again(stage: Stage) -> None:
    stage.served_by = "killed"
    service = stage.world.service("killed", namespace=stage.namespace).start()
    path, gates = f"/{stage.namespace}/rollout", stage.world.gates
    stage.bootstrap(deployment(), canary(**LADDER, webhooks=[rollout_hook(stage)]))
    stage.release("2")
    stage.until_weight(30)
    gates.close(path)
    stage.until(lambda: stage.status().get("failedChecks") == 1, "a failed check")
    stage.until_event("Halt web.NS advancement")  # events are written in the background: a kill loses those that wait
    assert service.replica.kill() == -signal.SIGKILL
    gates.open(path)
    start_again(stage, service, "analysis")
    stage.until_weight(60)
    stage.until_phase("Promoting")
    stage.until_event("Copying web.NS template spec")
    assert service.replica.kill() == -signal.SIGKILL
    start_again(stage, service, "promotion")
    stage.until_phase("Succeeded")
    stage.until_event("Promotion completed!")


def rollout_hook(stage: Stage) -> Object:
    url = stage.world.gates.url(f"/{stage.namespace}/rollout")
    return {"name": "rollout", "type": "rollout", "url": url, "timeout": "300s"}


def start_again(stage: Stage, service: Service, name: str) -> None:
    """Note the status, and start the process again; `NAME after` is the status at its first write from then on."""
    found = stage.api.get("flagger.app/v1beta1", "Canary", "web", stage.namespace)
    stage.until(lambda: any(v.revision == int(found["metadata"]["resourceVersion"]) for v in stage.chronicle.of("Canary")), name)
    stage.notes[f"{name} before"] = counters(found["status"])
    stage.notes[f"{name} weights"] = stage.weights()[-1]
    mark = int(found["metadata"]["resourceVersion"])
    service.start(ready=False)
    stage.until(writes_after(stage, mark), "the first write after the start")
    after = next(v.body for v in stage.chronicle.of("Canary") if v.revision > mark)
    stage.notes[f"{name} after"] = counters(after["status"])


def test_a_run_goes_on_after_a_kill_with_the_same_weight_and_counters(theatre: Theatre) -> None:
    stage = theatre.told(killed_again_and_again.__name__)
    before, after = stage.notes["analysis before"], stage.notes["analysis after"]
    assert (before["phase"], before["canaryWeight"], before["failedChecks"]) == ("Progressing", 30, 1)
    assert stage.notes["analysis weights"] == 30
    assert (after["phase"], after["failedChecks"], after["lastAppliedSpec"]) == ("Progressing", 1, before["lastAppliedSpec"])
    assert stage.weights() == [0, 30, 60, 0]
    assert stage.ladder("failedChecks")[:2] == [0, 1]
    assert max(stage.ladder("failedChecks")) == 1
    # The first event of the new process is what was next: it does not begin anew.
    texts = stage.texts()
    assert texts[3] == "Halt web.NS advancement external check rollout failed not yet"
    assert texts[:3] + texts[4:] == UNDISTURBED


def test_the_next_step_is_made_when_it_is_due(theatre: Theatre) -> None:
    stage = theatre.told(killed_again_and_again.__name__)
    for name in ("analysis", "promotion"):
        due, following = (seconds(str(stage.notes[f"{name} {when}"]["nextStepTime"])) for when in ("before", "after"))
        # Steps are a whole interval apart, however often the process was started in between; times have whole seconds.
        assert following - due >= 9, stage.notes


def test_a_kill_in_mid_promotion_promotes_once(theatre: Theatre) -> None:
    stage = theatre.told(killed_again_and_again.__name__)
    assert stage.notes["promotion before"]["phase"] == "Promoting"
    assert promotions(stage) == ["1", "2"]
    assert stage.phases() == ["Initializing", "Initialized", "Progressing", "Promoting", "Finalising", "Succeeded"]
    assert stage.sizes() == [2, 0, 2, 0]
    ended = {"deployment_strategy": "canary", "analysis_status": "completed"}
    assert stage.metric("flagger_canary_successes_total", name="web", **ended) == 1


# --- two processes


def pair(stage: Stage, name: str) -> tuple[Service, Service]:
    """A leader and one that stands by."""
    first, second = (
        stage.world.service(f"{name}-{which}", *SHORT_LEASE, namespace=stage.namespace) for which in ("first", "second")
    )
    first.start()
    until(lambda: first.replica.leads, "the first to lead")
    second.start()
    stage.served_by = f"{name}-second"
    return first, second


def the_leader_is_killed(stage: Stage) -> None:
    audit = stage.world.lab.cluster.audit
    assert audit is not None
    stage.notes["mark"] = audit.mark()
    first, second = pair(stage, "killed")
    stage.bootstrap(deployment(), canary(**LADDER))
    stage.release("2")
    stage.until_weight(30)
    stage.until_event("Advance web.NS canary weight 30")
    first.replica.kill()
    until(lambda: second.replica.leads, "the second to lead")
    stage.until_event("Promotion completed!")
    stage.until_phase("Succeeded")


def the_leader_freezes_in_a_tick(stage: Stage) -> None:
    """A hook is being asked when the leader stops; its answer comes to one that does not lead any more."""
    audit = stage.world.lab.cluster.audit
    assert audit is not None
    stage.notes["mark"] = audit.mark()
    first, second = pair(stage, "frozen")
    path, gates = f"/{stage.namespace}/rollout", stage.world.gates
    stage.bootstrap(deployment(), canary(**LADDER, webhooks=[rollout_hook(stage)]))
    gates.hang(path)
    stage.release("2")
    stage.until(lambda: gates.requests(path), "the hook to be asked")
    first.replica.signal(signal.SIGSTOP)
    try:
        until(lambda: second.replica.leads, "the second to lead")
        stage.until_weight(60)
    finally:
        first.replica.signal(signal.SIGCONT)
    stage.notes["exit code"] = first.replica.ended()
    stage.notes["said"] = first.replica.says("lost the lease")
    stage.until_event("Promotion completed!")
    stage.until_phase("Succeeded")


@pytest.mark.parametrize("story", [the_leader_is_killed, the_leader_freezes_in_a_tick])
def test_another_leader_goes_on_and_nobody_repeats_a_step(theatre: Theatre, story: Callable[[Stage], None]) -> None:
    stage = theatre.told(story.__name__)
    assert stage.weights() == [0, 30, 60, 0]
    assert stage.texts() == UNDISTURBED
    assert stage.phases() == ["Initializing", "Initialized", "Progressing", "Promoting", "Finalising", "Succeeded"]
    assert promotions(stage) == ["1", "2"]
    assert stage.sizes() == [2, 0, 2, 0]
    ended = {"deployment_strategy": "canary", "analysis_status": "completed"}
    assert stage.metric("flagger_canary_successes_total", name="web", **ended) == 1
    assert_one_after_the_other(stage)


def assert_one_after_the_other(stage: Stage) -> None:
    """What the first wrote ended before the second had the lease; leases themselves do not count."""
    audit = stage.world.lab.cluster.audit
    assert audit is not None
    second = stage.world.services[stage.served_by].replica.user
    first = stage.world.services[stage.served_by.replace("second", "first")].replica.user
    requests = [r for r in audit.select(stage.notes["mark"], verb=WRITES) if r.user in {first, second} and r.code < 300]
    took = next(n for n, r in enumerate(requests) if r.user == second and r.resource == "leases")
    late = [f"{r.verb} {r.resource} {r.name}" for r in requests[took:] if r.user == first]
    early = [f"{r.verb} {r.resource} {r.name}" for r in requests[:took] if r.user == second]
    assert (late, early) == ([], [])


def test_a_leader_that_froze_ends(theatre: Theatre) -> None:
    stage = theatre.told(the_leader_freezes_in_a_tick.__name__)
    assert stage.notes["exit code"] != 0
    assert stage.notes["said"]
    # The hook was asked by the one, for the step that the other then made, and asked again by the other.
    assert len(stage.world.gates.requests(f"/{stage.namespace}/rollout")) >= 3
