"""What the machine is given and what it says: observations, questions and their answers, the steps of a tick. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from canary.effects import Effect
from canary.phases import Phase
from canary.plan import Plan
from canary.routing.base import ALL_PRIMARY, Weights
from canary.workload.base import READY, Readiness


class Question(StrEnum):
    """What a decision may depend on besides what was observed."""

    CONFIRM_ROLLOUT = "confirm-rollout"
    ROLLBACK = "rollback"
    PRE_ROLLOUT = "pre-rollout"
    CHECKS = "checks"
    CONFIRM_TRAFFIC_INCREASE = "confirm-traffic-increase"
    CONFIRM_PROMOTION = "confirm-promotion"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of one hook or metric.

    Attributes:
        name: Of the hook or metric.
        passed: Whether it lets the run go on.
        text: Why not: for hooks what they answered, for metrics the whole text of the event.
        held: It says nothing, and the run is to wait for it instead of counting a failure.
        muted: No alert when it does not pass.
        metric: Whether it is a metric.
    """

    name: str
    passed: bool
    text: str = ""
    held: bool = False
    muted: bool = False
    metric: bool = False


class Wish(StrEnum):
    """What a person may ask of a Canary."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was observed for one tick.

    Attributes:
        canary: `NAME.NAMESPACE` of the Canary, for texts.
        target: `NAME.NAMESPACE` of the target.
        kind: Kind of the target.
        plan: The rules.
        phase: At the start of the tick.
        failed: Failed checks so far in this run.
        iterations: Iterations so far in this run.
        live: Weights that the routes have.
        changed: The target or its configuration is not what the status says is in work.
        reverted: The target is again what the primary runs, while something else is in work.
        known_good: The revision was promoted not long ago.
        primary: Of the primary.
        ready: Of the target.
        wish: What a person asks for, and nobody has done yet.
        paused: Why a person holds the run; empty when nobody does.
        waited: Seconds in the present phase.
        held: Seconds for which nothing has been known of the metrics.
        gated: Seconds for which a gate has kept the traffic from being increased.
        hindered: Why the run cannot go on, though it can be rolled back: its objects cannot be put right or its routes not read.
        unwritten: The status could not be written at the last tick.
        answers: By question.
    """

    canary: str
    target: str
    kind: str
    plan: Plan
    phase: Phase
    failed: int = 0
    iterations: int = 0
    live: Weights = ALL_PRIMARY
    changed: bool = False
    reverted: bool = False
    known_good: bool = False
    primary: Readiness = READY
    ready: Readiness = READY
    wish: Wish | None = None
    paused: str = ""
    waited: float = 0.0
    held: float = 0.0
    gated: float = 0.0
    hindered: str = ""
    unwritten: bool = False
    answers: Mapping[Question, tuple[Reply, ...]] = field(default_factory=dict)

    def answered(self, question: Question, replies: tuple[Reply, ...]) -> Seen:
        """The same with an answer."""
        return replace(self, answers={**self.answers, question: replies})

    @property
    def skips(self) -> bool:
        """Whether the analysis is skipped."""
        return self.plan.skip or self.known_good


@dataclass(frozen=True, slots=True)
class Ask:
    """The answer to this is needed."""

    question: Question


@dataclass(frozen=True, slots=True)
class Step:
    """What the tick does; nothing when there is nothing to do.

    Attributes:
        effects: In this order.
        held: The run waits for values of metrics.
        gated: The run waits for a gate to open for more traffic.
    """

    effects: tuple[Effect, ...] = ()
    held: bool = False
    gated: bool = False
