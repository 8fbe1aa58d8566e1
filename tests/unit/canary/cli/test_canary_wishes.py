"""What may be asked of a Canary, and in which phase a controller would do it: held against the machine itself."""

from __future__ import annotations

import pytest

from canary.cli.wishes import refusal, settled_otherwise, taken_up
from canary.effects import Handled
from canary.machine import decide
from canary.observe import WISHES
from canary.phases import Phase
from canary.plan import make_plan
from canary.seen import Ask, Seen, Step, Wish
from tests.support.canary_views import view

ASKED = "promote 2030-01-01T00:00:00Z"
ALLOWED = {
    Wish.PROMOTE: {Phase.WAITING, Phase.PROGRESSING, Phase.WAITING_PROMOTION},
    Wish.ROLLBACK: {Phase.WAITING, Phase.PROGRESSING, Phase.WAITING_PROMOTION},
    Wish.RETRY: {Phase.FAILED},
}
NOT_OFFERED = {Phase.INITIALIZED, Phase.SUCCEEDED, Phase.WAITING}
"""Where the machine would begin a run of a revision that nothing is wrong with."""


@pytest.mark.parametrize("wish", Wish)
@pytest.mark.parametrize("phase", Phase)
def test_a_wish_is_refused_exactly_where_the_machine_would_not_carry_it_out(phase: Phase, wish: Wish) -> None:
    shown = view(phase.value)
    changed = phase is Phase.WAITING  # there is a revision at the gate, else the phase would be another
    seen = Seen("web.apps", "web.apps", "Deployment", make_plan(shown.canary.spec, "istio"), phase, wish=wish, changed=changed)
    decision = decide(seen)
    assert not isinstance(decision, Ask)
    assert isinstance(decision, Step)
    carried_out = any(isinstance(effect, Handled) for effect in decision.effects)
    assert (refusal(shown, wish) == "") is (phase in ALLOWED[wish])
    assert carried_out is (phase in ALLOWED[wish] or (wish is Wish.RETRY and phase in NOT_OFFERED))


def test_the_service_takes_up_what_the_command_lets_through() -> None:
    for wish, phases in ALLOWED.items():
        assert all(wish in WISHES[phase] for phase in phases)


@pytest.mark.parametrize("wish", Wish)
def test_what_nobody_looks_at_is_refused(wish: Wish) -> None:
    phase = "Failed" if wish is Wish.RETRY else "Progressing"
    suspended = refusal(view(phase, spec={"suspend": True}), wish)
    assert suspended.endswith("imagebot resume canary web -n apps")
    assert refusal(view(phase, deleted=True), wish) == "it is being deleted"
    assert refusal(view(""), wish) == "no controller has looked at it yet"


def test_refusals_say_what_to_do_instead() -> None:
    assert refusal(view("Failed"), Wish.PROMOTE).endswith("imagebot canary retry web -n apps")
    assert refusal(view("Progressing"), Wish.RETRY).endswith("imagebot canary rollback web -n apps")
    assert "put the one before into the target" in refusal(view("Promoting"), Wish.ROLLBACK)


def test_a_canary_that_was_never_set_up_has_nothing_to_try_again() -> None:
    never = view("Failed", {"lastPromotedSpec": None})
    assert refusal(never, Wish.RETRY).startswith("its first primary has never been ready")
    assert refusal(never, Wish.PROMOTE) == "no run is under way: its first primary has never been ready"


def test_a_request_is_taken_up_when_the_status_has_its_text() -> None:
    assert taken_up(view("Progressing"), Wish.PROMOTE, ASKED) == ""
    assert taken_up(view("Promoting", {"lastHandledAction": ASKED}), Wish.PROMOTE, ASKED) == "done, the phase is Promoting"
    assert taken_up(view("Promoting", {"lastHandledAction": "promote earlier"}), Wish.PROMOTE, ASKED) == ""
    late = view("Failed", {"lastHandledAction": ASKED, "failure": "errors"})  # noted, so that no later run is promoted by it
    assert taken_up(late, Wish.PROMOTE, ASKED) == ""
    assert settled_otherwise(late, Wish.PROMOTE).endswith("Failed: errors")
    assert "closed gate" in taken_up(view("Waiting"), Wish.RETRY, ASKED)
    assert taken_up(view("Waiting"), Wish.PROMOTE, ASKED) == ""


def test_a_run_that_ends_by_itself_ends_the_wait() -> None:
    assert settled_otherwise(view("Progressing"), Wish.PROMOTE) == ""
    assert settled_otherwise(view("Failed"), Wish.RETRY) == ""
    assert settled_otherwise(view("Failed", {"failure": "too slow"}), Wish.PROMOTE).endswith("Failed: too slow")
    assert settled_otherwise(view("Progressing", deleted=True), Wish.PROMOTE) == "it is being deleted"
