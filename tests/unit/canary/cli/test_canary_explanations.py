"""Why a Canary stands where it stands: one test for each reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from canary.cli.facts import Facts, Kind, Said
from canary.cli.reasons import explain
from canary.cli.view import View
from canary.phases import Phase
from canary.routing.base import Weights
from canary.workload.base import READY, Readiness, Target
from tests.support.canary_views import GATES, METRICS, NOW, OURS, at, view

TARGET = Target("app", "web", OURS)
UNREADY = Readiness(
    False, "canary deployment web.apps not ready: waiting for rollout to finish: 0 of 2 updated replicas are available"
)
FAILED_CHECK = {
    "metric": "errors",
    "value": "7",
    "threshold": "<= 5",
    "verdict": "Fail",
    "message": "Halt web.apps advancement errors",
}
NO_DATA = {
    "metric": "errors",
    "value": "",
    "threshold": "<= 5",
    "verdict": "NoData",
    "message": "Halt advancement no values found",
}


def told(shown: View, **found: Any) -> list[str]:
    """The explanation, each sentence behind its sign; with a healthy surrounding unless told otherwise."""
    facts = Facts(shown, NOW, target=TARGET, primary=READY, same=False, changed=False)
    return [f"{line.kind.value} {line.text}" for line in explain(replace(facts, **found))]


def warned(message: str, seconds: float = -10) -> Said:
    return Said(at(seconds), "Warning", message)


# --- what stops everything


def test_an_invalid_spec() -> None:
    lines = told(view("Initialized"), invalid="can't use autoscaler with Knative Service")
    assert lines[0].startswith("▶ The service refuses this Canary")
    assert lines[1] == "✗ can't use autoscaler with Knative Service."


def test_suspended() -> None:
    lines = told(view("Succeeded", spec={"suspend": True}), changed=True)
    assert lines == [
        "▶ It is suspended: nothing is done until that ends.",
        "· A new revision of the target waits for that.",
        "→ imagebot resume canary web -n apps",
    ]
    assert len(told(view("Progressing", spec={"suspend": True}))) == 2


def test_no_controller() -> None:
    lines = told(view(""))
    assert lines[0] == "▶ No controller has looked at it yet."
    assert "--controllers" in lines[1]


def test_being_deleted() -> None:
    lines = told(view("Terminating", deleted=True, spec={"revertOnDeletion": True}))
    assert lines[0] == "▶ It has been in deletion for 60s."
    assert "revertOnDeletion" in lines[1]
    stuck = told(view("Terminating", deleted=True), target=None, target_problem='deployments.apps "web" not found')
    assert stuck[1].endswith("there is nothing to give back to.")


# --- setting up


def test_setting_up_waits_for_the_primary() -> None:
    shown = view("Initializing", {"notReadySince": at(-120), "lastPromotedSpec": None})
    lines = told(shown, primary=Readiness(False, "web-primary.apps not ready: waiting"))
    assert lines[1] == "✗ web-primary.apps not ready: waiting."
    # 600 seconds and one interval of 30, of which 120 are over.
    assert lines[2] == "· So it has been for 2m, and may be for 8m30s more: traffic and pods are left to the target then."


def test_setting_up_without_a_target() -> None:
    lines = told(
        view("Initializing"), target=None, target_problem='deployment web.apps get query error: deployments.apps "web" not found'
    )
    assert lines[1].startswith("✗ deployment web.apps get query error")
    assert lines[2].startswith("→ Create or correct the target")


def test_setting_up_with_a_metrics_server_that_cannot_be_reached() -> None:
    lines = told(view("Initializing"), said=(warned("Error checking metric providers: prometheus not avaiable"),))
    assert any("setting up goes on without" in line for line in lines)
    assert not any(
        "setting up" in line
        for line in told(view("Initializing"), said=(warned("Error checking metric providers: x", -900),))[1:]
    )


# --- at rest


@pytest.mark.parametrize("phase", ["Initialized", "Succeeded"])
def test_nothing_is_to_be_done(phase: str) -> None:
    lines = told(view(phase), same=True)
    assert lines[0].startswith("▶ Nothing is to be done: ")
    assert lines[1] == "✔ The primary runs what the target says."


def test_a_new_revision_has_not_begun() -> None:
    lines = told(view("Succeeded"), changed=True)
    assert lines[0] == "▶ There is a new revision: the last run has succeeded, and no run has begun since."
    assert lines[1].startswith("◎ A run begins when the service looks next")
    held = told(view("Succeeded"), changed=True, primary=Readiness(False, "web-primary.apps not ready: x"))
    assert held[2] == "· No run begins while the primary is not ready."


def test_nothing_can_begin_without_the_definitions_of_the_provider() -> None:
    problem = (
        'VirtualService web.apps get query error no matches for kind "VirtualService" in version "networking.istio.io/v1beta1"'
    )
    lines = told(view("Initialized"), routes_problem=problem)
    assert lines[0] == "▶ No run is under way (it was set up), and none can begin."
    assert lines[1:] == [f"✗ {problem}.", "→ Install the definitions of this provider, or name another one in spec.provider."]


def test_a_pause_of_the_next_run() -> None:
    lines = told(view("Initialized", annotations={"imagebot.dev/pause": "lunch"}), same=True)
    assert lines[-2:] == ["· The next run will be held at its start: lunch.", "→ imagebot canary resume web -n apps"]


# --- gates


def test_a_closed_start_gate() -> None:
    said = (warned("Halt web.apps advancement waiting for approval approve", -300),)
    lines = told(view("Waiting", {"nextStepTime": at(12)}, webhooks=GATES), said=said)
    assert lines[1:4] == [
        "◎ The gate approve (confirm-rollout) is closed, for 5m.",
        "· It waits for ever: there is no gateDeadline.",
        "◎ The gate is asked again in 12s.",
    ]
    assert lines[-2:] == [
        "→ Open the gate, or let this run in: imagebot canary promote web -n apps",
        "→ To give the revision up: imagebot canary rollback web -n apps",
    ]


def test_a_closed_gate_with_a_deadline_and_without_its_event() -> None:
    lines = told(view("WaitingPromotion", webhooks=GATES, gateDeadline="1h"))
    assert lines[1] == "◎ One of the gates is closed, for 5m: qa (confirm-promotion)."
    assert lines[2] == "· In 55m it is rolled back, if the gate is closed still (gateDeadline)."
    # An event of an earlier phase speaks of another time.
    old = (warned("Halt web.apps advancement waiting for promotion approval other", -4000),)
    assert told(view("WaitingPromotion", webhooks=GATES), said=old)[1].startswith("◎ One of the gates")


def test_a_gate_that_was_taken_away() -> None:
    assert told(view("Waiting"))[1] == "◎ The spec has no confirm-rollout gate any more: it goes on with the next step."


def test_a_closed_gate_of_the_weight() -> None:
    said = (warned("Halt web.apps advancement waiting for traffic increase approval more"),)
    text = "◎ A closed gate (confirm-traffic-increase) keeps the weight where it is: more."
    assert text in told(view("Progressing", webhooks=GATES), said=said)
    assert text not in told(view("Progressing", webhooks=GATES), said=(replace(said[0], at=at(-200)),))
    lines = told(view("Progressing", {"gateSince": at(-120)}, webhooks=GATES, gateDeadline="10m"))
    assert "◎ A closed gate (confirm-traffic-increase) keeps the weight where it is, for 2m: more." in lines
    assert "· In 8m it is rolled back, if the gate is closed still (gateDeadline)." in lines


# --- runs


def test_a_run_that_does_well() -> None:
    lines = told(view("Progressing", {"canaryWeight": 20, "nextStepTime": at(12)}), live=Weights.at(20))
    assert lines == [
        "▶ A run is under way, at 20%, for 5m.",
        "✔ The routes send 20 percent to the canary.",
        "◎ The next step is due in 12s.",
    ]


def test_a_service_that_does_not_run() -> None:
    lines = told(view("Progressing", {"nextStepTime": at(-300)}))
    assert lines[-1] == "✗ The next step is 5m late: does the service run?"
    assert told(view("Progressing", {"nextStepTime": at(-5)}))[-1] == "◎ The next step is due now."


def test_failing_checks() -> None:
    lines = told(view("Progressing", {"failedChecks": 1, "checks": [FAILED_CHECK, NO_DATA]}))
    assert lines[1:4] == [
        "✗ 1 of 2 checks have failed; 1 more, and it is rolled back.",
        "✗ Metric errors is 7, and should be <= 5.",
        "✗ Metric errors: Halt advancement no values found.",
    ]


def test_a_failing_webhook() -> None:
    message = "Halt web.apps advancement external check load failed no such host"
    assert f"✗ {message}." in told(view("Progressing", {"failedChecks": 1}), said=(warned(message),))


def test_a_run_that_holds_for_data() -> None:
    lines = told(view("Progressing", {"holdSince": at(-120), "checks": [NO_DATA]}, onNoData="Hold", maxHold="30m"))
    assert any(line.endswith("after 30m that counts as a failed check (maxHold).") and "for 2m" in line for line in lines)
    assert any(line.startswith("→ Does the canary get any requests?") for line in lines)


def test_a_paused_run() -> None:
    lines = told(view("Progressing", annotations={"imagebot.dev/pause": "lunch"}))
    assert lines[1:3] == [
        "◎ Somebody holds it where it is: lunch. Failing checks still roll it back.",
        "→ imagebot canary resume web -n apps",
    ]
    assert any(
        "The gate is not asked then" in line for line in told(view("WaitingPromotion", annotations={"imagebot.dev/pause": "x"}))
    )


@pytest.mark.parametrize("phase", ["Progressing", "WaitingPromotion"])
def test_a_target_that_is_not_ready(phase: str) -> None:
    lines = told(view(phase, {"notReadySince": at(-60)}), ready=UNREADY)
    assert lines[1] == f"✗ {UNREADY.text}."
    assert lines[2].endswith("the run is rolled back then.")
    late = told(view(phase), ready=replace(UNREADY, retriable=False))
    assert late[2] == "· Its deadline is over (10m, progressDeadlineSeconds): the run is rolled back then."


def test_a_weight_that_somebody_has_set() -> None:
    lines = told(view("Progressing", {"canaryWeight": 20}), live=Weights.at(70))
    assert "· The routes send 70 percent to the canary, the status says 20: what is live counts." in lines


def test_a_route_that_the_gateway_has_not_accepted() -> None:
    problem = "HTTPRoute web.apps parent public is not ready (status: False, observed generation: 1, current generation: 2)"
    lines = told(view("Progressing"), routes_problem=problem)
    assert lines[2] == "→ The gateway has not accepted the route: see the status of the HTTPRoute and of its Gateway."


def test_a_template_that_is_missing_stops_nothing_but_is_named() -> None:
    lines = told(
        view("Progressing", {"canaryWeight": 20}), missing_templates=("apps/errors (metric errors)",), live=Weights.at(20)
    )
    assert "✗ There is no MetricTemplate apps/errors (metric errors): each check fails." in lines
    assert "✔ The routes send 20 percent to the canary." in lines


def test_a_configmap_that_is_missing() -> None:
    lines = told(view("Progressing"), configs_problem="GetTargetConfigs failed: configmap web.apps get query error")
    assert lines[2] == "→ Create it, or mark the reference optional."


def test_a_primary_that_does_not_take_the_revision() -> None:
    lines = told(view("Promoting"), primary=Readiness(False, "web-primary.apps not ready: x", retriable=False))
    assert "all traffic goes to the canary then" in lines[2]
    assert (
        told(view("Finalising"), primary=Readiness(False, "web-primary.apps not ready: x"))[1]
        == "✗ web-primary.apps not ready: x."
    )


# --- failures


def test_a_failure_with_its_checks() -> None:
    shown = view(
        "Failed", {"failure": "Halt web.apps advancement errors", "checks": [FAILED_CHECK, {**NO_DATA, "metric": "latency"}]}
    )
    assert told(shown) == [
        "▶ The last run failed, 5m ago.",
        "✗ Halt web.apps advancement errors.",
        "✗ Metric latency: Halt advancement no values found.",
        "· All traffic is on the primary, with the revision before; the target has no pods.",
        "· The revision that failed is not tried again by itself.",
        "→ Give the target a new revision, or the one before; or try this one again: imagebot canary retry web -n apps",
    ]


def test_a_failure_that_is_only_in_events() -> None:
    said = (warned("Rolling back web.apps failed checks threshold reached 2", -290), Said(at(-280), "Normal", "x"))
    assert told(view("Failed"), said=said)[1] == "✗ Rolling back web.apps failed checks threshold reached 2."
    assert "Events are gone" in told(view("Failed"))[1]


def test_a_failed_promotion() -> None:
    lines = told(
        view("Failed", {"canaryWeight": 100, "failure": "primary not ready"}), primary=Readiness(False, "web-primary not ready")
    )
    assert "✗ All traffic is on the canary: the primary got the revision, and could not take it." in lines
    assert "✗ web-primary not ready." in lines


def test_what_failed_is_kept() -> None:
    assert any("(onFail: Hold)" in line for line in told(view("Failed", onFail="Hold")))


def test_a_failure_after_which_the_target_has_changed() -> None:
    assert told(view("Failed"), changed=True)[-1] == "◎ The target has changed since: a run begins when the service looks next."


def test_what_could_never_be_set_up() -> None:
    lines = told(view("Failed", {"lastPromotedSpec": None, "failure": "deadline"}))
    assert lines[0] == "▶ It could not be set up: its first primary has never been ready."
    assert lines[-1].startswith("→ Mend the target")


# --- requests, rights


def test_a_request_that_nobody_has_done_yet() -> None:
    lines = told(view("Progressing", annotations={"imagebot.dev/action": "promote 1"}))
    assert lines[-1] == "· Somebody asks for promote, and it is not done yet."
    lines = told(view("Progressing", annotations={"imagebot.dev/action": "explode now"}))
    assert 'says "explode": known are promote, rollback and retry' in lines[-1]


def test_what_may_not_be_read() -> None:
    lines = told(view("Succeeded"), denied=("deployments is forbidden",), changed=None, primary=None, same=None)
    assert lines[-1] == "· Not known, because you may not read it: deployments is forbidden"


def test_every_phase_has_an_explanation() -> None:
    for phase in Phase:
        lines = explain(Facts(view(phase.value, metrics=METRICS), NOW))
        assert lines[0].kind is Kind.VERDICT
        assert all(line.text.strip() for line in lines)
