"""What a tick does, as data: the machine says it, `act` carries it out, in this order and no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from canary.phases import Phase
from canary.routing.base import Weights

Severity = Literal["info", "warn", "error"]
Kind = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class Say:
    """An event. `phase` is the one it reports when that is not the phase at the start of the tick."""

    kind: Kind
    message: str
    phase: Phase | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """A chat message; with `details` it lists target, threshold, deadline and steps."""

    severity: Severity
    message: str
    details: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Make these weights live."""

    weights: Weights


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """Let the target's autoscaler run and give the target pods."""


@dataclass(frozen=True, slots=True)
class ScaleDown:
    """Pause the target's autoscaler and take the target's pods away."""


@dataclass(frozen=True, slots=True)
class Promote:
    """Copy the target to the primary, if it still is the revision that was judged."""


@dataclass(frozen=True, slots=True)
class PromoteScaler:
    """Bring the primary's autoscaler to the target's."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write of the status. Fields that are None stay.

    Attributes:
        phase: Enter this phase, with what Flagger resets at its entry.
        sync: Record the present revision and configs as the ones in work; weight, failed checks and iterations are then zero
            unless given.
        why: Why the run failed, for people; empty clears it when a phase is entered.
    """

    phase: Phase | None = None
    sync: bool = False
    weight: int | None = None
    failed: int | None = None
    iterations: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """A run has ended."""

    success: bool
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class PostRollout:
    """Call the post-rollout hooks, which are told this phase; events carry `phase` when given, else that of the tick's start."""

    told: Phase
    phase: Phase | None = None


@dataclass(frozen=True, slots=True)
class Handled:
    """The request of a person was carried out; the next write records it."""


Effect = Say | Alert | Route | ScaleUp | ScaleDown | Promote | PromoteScaler | Write | Count | PostRollout | Handled
