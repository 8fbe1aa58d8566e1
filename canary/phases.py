"""The phases of a Canary and the moves between them. With `machine`, which says what one tick does, the whole life of a Canary.

Two rules hold in these two files, and nothing else changes a phase. Both are pure; nothing in them can wait.

First, **what is legal can be read**. `TABLE` lists every move from one phase to another with the reason for it; a move that is
not listed is an error and changes nothing. The diagram in the documentation is printed from the table.

Second, **a tick is a question and an answer**. `machine.decide` is given everything that was observed and says either *ask*
(these hooks, these metrics: the answer is needed before anything can be said) or *step* (these effects, in this order). It is
called again with the answer until it says *step*; the same observation always gives the same decision. A tick makes one step:
it starts a run, or advances it once, or halts it, or ends it. That a process may die between any two effects is part of the
design: weights are read from the routes and not from memory, counters and phases from the status, so the next tick finds
itself where the last one got.

A run goes like this. The target gets a new revision. When the gates for the start are open the target is scaled up and the
phase is Progressing. Each tick then checks (hooks, then metrics) and, if all is well, goes one step up: a weight, or an
iteration. At the top, when the gates for the promotion are open, the primary gets the target's template (Promoting). When it
is ready, traffic goes back to it (Finalising), the target is scaled to zero and the run has Succeeded. A check that fails
holds the run for a tick and is counted; when `threshold` of them have been counted all traffic goes to the primary, the
target is scaled to zero and the run has Failed.

Some things are as people wish that they were, and not as in Flagger. The tick that reaches the threshold also rolls back. Going
back to the promoted revision ends a run instead of promoting what nobody wants any more. A target is never scaled away while the
primary is not ready, and gets no traffic while it has no pods. A run that cannot go on, because something of it cannot be put
right or its routes cannot be read, is still judged and can still be rolled back. And when the target has all the traffic, as
after a promotion that failed, none of it goes back to a primary that is beyond hope: the next revision is analysed where it is,
and its promotion mends the primary.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """The phases of a Canary; the words are Flagger's and part of the API."""

    NEW = ""
    INITIALIZING = "Initializing"
    INITIALIZED = "Initialized"
    WAITING = "Waiting"
    PROGRESSING = "Progressing"
    WAITING_PROMOTION = "WaitingPromotion"
    PROMOTING = "Promoting"
    FINALISING = "Finalising"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TERMINATING = "Terminating"
    TERMINATED = "Terminated"


@dataclass(frozen=True, slots=True)
class Move:
    """A legal change of phase."""

    source: Phase
    target: Phase
    why: str


_RESTING = (Phase.INITIALIZED, Phase.SUCCEEDED, Phase.FAILED)
_RUNNING = (Phase.PROGRESSING, Phase.WAITING_PROMOTION)
_ENDING = (Phase.PROMOTING, Phase.FINALISING)

TABLE: tuple[Move, ...] = (
    Move(Phase.NEW, Phase.INITIALIZING, "the Canary is seen for the first time"),
    Move(Phase.INITIALIZING, Phase.INITIALIZED, "the primary is ready"),
    Move(Phase.INITIALIZING, Phase.FAILED, "the primary does not become ready in time"),
    Move(Phase.FAILED, Phase.INITIALIZED, "the first primary has become ready after all"),
    *(Move(phase, Phase.WAITING, "a new revision, and a confirm-rollout gate is closed") for phase in _RESTING),
    *(Move(phase, Phase.PROGRESSING, "a new revision, and the gates are open") for phase in _RESTING),
    *(Move(phase, Phase.FAILED, "a new revision, but the primary is broken") for phase in (Phase.INITIALIZED, Phase.SUCCEEDED)),
    Move(Phase.FAILED, Phase.SUCCEEDED, "the target is back at the promoted revision"),
    Move(Phase.WAITING, Phase.PROGRESSING, "the gates are open"),
    Move(Phase.WAITING, Phase.SUCCEEDED, "the target is back at the promoted revision"),
    Move(Phase.WAITING, Phase.FAILED, "a gate is closed beyond its deadline, the primary is broken, or a person's wish"),
    Move(Phase.PROGRESSING, Phase.WAITING_PROMOTION, "all is well, and a confirm-promotion gate is closed"),
    *(
        Move(phase, Phase.PROGRESSING, "a newer revision, or a change of its configuration")
        for phase in (Phase.WAITING_PROMOTION,)
    ),
    *(Move(phase, Phase.PROMOTING, "all is well, and the gates are open") for phase in _RUNNING),
    *(
        Move(phase, Phase.FAILED, "too many failed checks, a deadline, a rollback hook, or somebody asks for it")
        for phase in _RUNNING
    ),
    *(
        Move(phase, Phase.SUCCEEDED, "the analysis is skipped, or the target is back at the promoted revision")
        for phase in _RUNNING
    ),
    Move(Phase.PROMOTING, Phase.FINALISING, "all traffic is on the primary"),
    Move(Phase.PROMOTING, Phase.SUCCEEDED, "the analysis is skipped"),
    *(Move(phase, Phase.FAILED, "the primary or the target does not become ready in time") for phase in _ENDING),
    Move(Phase.FINALISING, Phase.SUCCEEDED, "the target is scaled to zero"),
    *(
        Move(phase, Phase.TERMINATING, "deletion with revertOnDeletion")
        for phase in Phase
        if phase not in {Phase.TERMINATING, Phase.TERMINATED}
    ),
)
_LEGAL = {(move.source, move.target) for move in TABLE}


class IllegalMove(Exception):
    """The table has no such move: a mistake of ours, not of a manifest."""


def require(source: Phase, target: Phase) -> None:
    """Raise IllegalMove unless the table has the move; to stay is always legal."""
    if source is not target and (source, target) not in _LEGAL:
        raise IllegalMove(f"no move from {source.value or 'none'} to {target.value}")


def diagram() -> str:
    """The table as a diagram of Mermaid (`stateDiagram-v2`): one arrow from phase to phase with all its reasons."""
    everywhere = {phase for phase in Phase if all((source, phase) in _LEGAL for source in _leaving(phase))}
    reasons: dict[tuple[str, str], list[str]] = {}
    for move in TABLE:
        source = _ANY if move.target in everywhere else move.source.value or "[*]"
        known = reasons.setdefault((source, move.target.value), [])
        if move.why not in known:
            known.append(move.why)
    arrows = [f"    {source} --> {target}: {'<br/>or '.join(why)}" for (source, target), why in reasons.items()]
    return "\n".join(["stateDiagram-v2", f'    state "any phase" as {_ANY}', *arrows]) + "\n"


_ANY = "AnyPhase"


def _leaving(target: Phase) -> list[Phase]:
    return [phase for phase in Phase if phase not in {target, Phase.TERMINATING, Phase.TERMINATED}]
