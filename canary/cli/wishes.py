"""What may be asked of a Canary in which phase, and why not in another. Pure."""

from __future__ import annotations

from canary.cli.view import RUNNING, View
from canary.phases import Phase
from canary.seen import Wish

_OVER = "no run is under way"

DOING = {Wish.PROMOTE: "promoting", Wish.ROLLBACK: "rolling back", Wish.RETRY: "starting again"}
PASSIVE = {Wish.PROMOTE: "promoted", Wish.ROLLBACK: "rolled back", Wish.RETRY: "started again"}


def refusal(view: View, wish: Wish) -> str:
    """Why a controller would not do what is asked, with what to do instead; empty when it would."""
    meta = view.canary.meta
    if meta.deletion_timestamp:
        return "it is being deleted"
    if view.canary.spec.suspend:
        return f"it is suspended, so nobody would do it; end that with: imagebot resume canary {meta.name} -n {meta.namespace}"
    if not view.canary.status.phase:
        return "no controller has looked at it yet"
    return _REFUSALS[wish](view)


def _promote(view: View) -> str:
    match view.phase:
        case Phase.WAITING | Phase.PROGRESSING | Phase.WAITING_PROMOTION:
            return ""
        case Phase.PROMOTING | Phase.FINALISING:
            return "it is being promoted already"
        case Phase.FAILED if _initialized(view):
            return f"the run has failed; to try the revision again: {_command('retry', view)}"
        case Phase.SUCCEEDED:
            return f"{_OVER}: the last one has succeeded, so the primary has the revision already"
        case _:
            return f"{_OVER}: {_resting(view)}"


def _rollback(view: View) -> str:
    match view.phase:
        case Phase.PROMOTING | Phase.FINALISING:
            return "the primary has got the new revision already; put the one before into the target, and it is promoted in turn"
        case phase if phase in RUNNING or phase is Phase.WAITING:
            return ""
        case Phase.FAILED if _initialized(view):
            return f"{_OVER}: it has failed, and all traffic is on the primary"
        case Phase.SUCCEEDED:
            return f"{_OVER}: the primary has the revision; put the one before into the target, and it is promoted in turn"
        case _:
            return f"{_OVER}: {_resting(view)}"


def _retry(view: View) -> str:
    match view.phase:
        case Phase.FAILED if _initialized(view):
            return ""
        case Phase.FAILED:
            return "its first primary has never been ready; once the target is mended it goes on by itself"
        case Phase.SUCCEEDED:
            return f"{_OVER}, and the last one has succeeded; a new revision of the target starts one"
        case Phase.INITIALIZED | Phase.NEW | Phase.INITIALIZING | Phase.TERMINATING | Phase.TERMINATED:
            return f"no run has failed: {_resting(view)}"
        case _:
            return f"a run is under way; to end it first: {_command('rollback', view)}"


def _resting(view: View) -> str:
    if view.phase is Phase.INITIALIZED:
        return "it was set up, and the target has not changed since"
    if view.phase is Phase.FAILED:
        return "its first primary has never been ready"
    return "it is being set up" if view.phase in {Phase.NEW, Phase.INITIALIZING} else "it is being deleted"


def _initialized(view: View) -> bool:
    return bool(view.canary.status.last_promoted_spec)


def _command(verb: str, view: View) -> str:
    return f"imagebot canary {verb} {view.canary.meta.name} -n {view.canary.meta.namespace}"


_LEADS_TO = {
    Wish.PROMOTE: {Phase.PROGRESSING, Phase.PROMOTING, Phase.FINALISING, Phase.SUCCEEDED},
    Wish.ROLLBACK: {Phase.FAILED},
    Wish.RETRY: {Phase.PROGRESSING, Phase.WAITING_PROMOTION, Phase.PROMOTING, Phase.FINALISING, Phase.SUCCEEDED},
}
_REFUSALS = {Wish.PROMOTE: _promote, Wish.ROLLBACK: _rollback, Wish.RETRY: _retry}


def taken_up(view: View, wish: Wish, asked: str) -> str:
    """What a controller has made of a request, in words; empty while it has not taken it up.

    A request that came too late is noted as handled as well, and nothing is done: then the phase is another one.
    """
    if view.canary.status.last_handled_action == asked and view.phase in _LEADS_TO[wish]:
        return f"done, the phase is {view.phase.value}"
    if wish is Wish.RETRY and view.phase is Phase.WAITING:
        return "taken up; it waits at a closed gate now, and begins when that opens"
    return ""


def settled_otherwise(view: View, wish: Wish) -> str:
    """Why the request will not be carried out any more; empty while it may be."""
    if view.canary.meta.deletion_timestamp:
        return "it is being deleted"
    if view.phase in {Phase.WAITING, *RUNNING} or (wish is Wish.RETRY and view.phase is Phase.FAILED):
        return ""
    ended = f"{view.phase.value}: {view.canary.status.failure}" if view.canary.status.failure else view.phase.value
    return f"the run has come to its end before it was carried out: {ended}"
