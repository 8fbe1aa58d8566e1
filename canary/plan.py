"""What a Canary's spec asks for, with Flagger's defaults filled in: all that the machine knows of the spec. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from canary.api import Analysis, CanarySpec, Webhook
from canary.weights import top
from reconcile.api.duration import GoDuration, parse_duration
from reconcile.errors import Invalid

KUBERNETES = "kubernetes"
KUBERNETES_ITERATIONS = 10
"""Iterations of a Canary that asks a provider without weights for weights."""
LEAST_INTERVAL, DEFAULT_INTERVAL = 10.0, 60.0
DEFAULT_DEADLINE = 600


class Strategy(StrEnum):
    """How a revision is tried; the words are values of metric labels too."""

    CANARY = "canary"
    AB_TESTING = "ab-testing"
    BLUE_GREEN = "blue-green"


class HookType(StrEnum):
    """When a webhook is called; a hook without a type is a rollout hook."""

    CONFIRM_ROLLOUT = "confirm-rollout"
    PRE_ROLLOUT = "pre-rollout"
    ROLLOUT = "rollout"
    CONFIRM_TRAFFIC_INCREASE = "confirm-traffic-increase"
    CONFIRM_PROMOTION = "confirm-promotion"
    POST_ROLLOUT = "post-rollout"
    EVENT = "event"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class Plan:
    """The rules of one run.

    Attributes:
        stated: Strategy as the spec states it: what metrics are labelled with.
        strategy: Strategy in force; the kubernetes provider knows blue/green only.
        iterations: Checks before the switch; 0 for weights.
        interval: Seconds between ticks.
        deadline: Seconds that a workload has to become ready.
        notes: What is said at every step because the provider cannot do what was asked for.
        hooks: Which types of hooks there are.
        gate_deadline: Seconds that a gate may stay closed; None: for ever.
        max_hold: Seconds that a run may wait for values; None: for ever.
    """

    stated: Strategy
    strategy: Strategy
    interval: float
    threshold: int
    iterations: int
    mirror: bool
    top_weight: int
    step_weight: int
    step_weights: tuple[int, ...]
    step_weight_promotion: int
    weighted: bool
    skip: bool
    deadline: int
    notes: tuple[str, ...]
    hooks: frozenset[HookType]
    hold_on_failure: bool
    gate_deadline: float | None
    max_hold: float | None


def seconds(text: str | GoDuration | None) -> float | None:
    """Seconds of a Go duration; None without one, or for one that cannot be read."""
    if not text:
        return None
    try:
        return parse_duration(str(text))
    except (Invalid, ValueError):
        return None


def interval_of(analysis: Analysis) -> float:
    """Seconds between ticks: a minute when nothing sensible is said, never less than ten seconds."""
    found = seconds(analysis.interval)
    return max(LEAST_INTERVAL, found) if found and found > 0 else DEFAULT_INTERVAL


def deadline_of(spec: CanarySpec) -> int:
    """Seconds that a workload has to become ready."""
    given = spec.progress_deadline_seconds
    return DEFAULT_DEADLINE if given is None else given


def hooks_of(spec: CanarySpec, wanted: HookType) -> list[Webhook]:
    """The webhooks of a type in the order of the manifest."""
    return [hook for hook in spec.analysis.webhooks or () if (hook.type or HookType.ROLLOUT) == wanted]


def make_plan(spec: CanarySpec, provider: str) -> Plan:
    """The plan of a spec with this traffic provider in force."""
    analysis = spec.analysis
    iterations, match = analysis.iterations or 0, bool(analysis.match)
    stated = _strategy(iterations, match)
    weighted, notes = provider != KUBERNETES, list[str]()
    if not weighted:
        if match:
            notes.append("A/B testing is not supported when using the kubernetes provider")
            match = False
        if iterations < 1:
            iterations = KUBERNETES_ITERATIONS
            notes.append("Progressive traffic is not supported when using the kubernetes provider")
            notes.append(f"Setting canaryAnalysis.iterations: {iterations}")
    steps = tuple(analysis.step_weights or ())
    return Plan(
        stated=stated,
        strategy=_strategy(iterations, match),
        interval=interval_of(spec.analysis),
        threshold=analysis.threshold if analysis.threshold and analysis.threshold > 0 else 1,
        iterations=iterations,
        mirror=bool(analysis.mirror),
        top_weight=top(analysis.max_weight or 0, steps),
        step_weight=analysis.step_weight or 0,
        step_weights=steps,
        step_weight_promotion=analysis.step_weight_promotion or 0,
        weighted=weighted,
        skip=bool(spec.skip_analysis),
        deadline=deadline_of(spec),
        notes=tuple(notes),
        hooks=frozenset(HookType(hook.type or HookType.ROLLOUT) for hook in analysis.webhooks or ()),
        hold_on_failure=analysis.on_fail == "Hold",
        gate_deadline=seconds(analysis.gate_deadline),
        max_hold=seconds(analysis.max_hold),
    )


def _strategy(iterations: int, match: bool) -> Strategy:
    if iterations > 0:
        return Strategy.AB_TESTING if match else Strategy.BLUE_GREEN
    return Strategy.CANARY
