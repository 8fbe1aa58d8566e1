"""How a Canary is told to people: strategy, ladder, what it waits for. Pure; from its spec and status alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from canary.options import DEFAULTS
from canary.phases import Phase
from canary.plan import HookType, Plan, Strategy, hooks_of, make_plan
from canary.routing.base import TOTAL
from canary.site import CanaryResource
from canary.status import phase_of
from canary.tick import ACTION, PAUSE
from canary.weights import step
from reconcile.api.duration import format_duration
from reconcile.cli.columns import age
from reconcile.ports.clock import parse_timestamp

RESTING = frozenset({Phase.INITIALIZED, Phase.SUCCEEDED, Phase.FAILED})
RUNNING = frozenset({Phase.PROGRESSING, Phase.WAITING_PROMOTION})
STARTING = frozenset({Phase.NEW, Phase.INITIALIZING})

MOST_RUNGS = 12
"""Steps of a ladder that are all shown; of more, those around the present one."""
BAR = 40
"""Characters of a bar."""


@dataclass(frozen=True, slots=True)
class View:
    """A Canary and the rules that its spec makes."""

    canary: CanaryResource
    plan: Plan

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return phase_of(self.canary.status)

    @property
    def name(self) -> str:
        """`namespace/name`."""
        return str(self.canary.key)

    @property
    def failed(self) -> int:
        """Failed checks of the run."""
        return self.canary.status.failed_checks or 0

    @property
    def weight(self) -> int:
        """Percent of the traffic that the status says."""
        return self.canary.status.canary_weight or 0

    @property
    def iterations(self) -> int:
        """Iterations of the run; the status has -1 while a ladder waits for its promotion."""
        return max(0, self.canary.status.iterations or 0)

    @property
    def counted(self) -> bool:
        """Whether its steps are iterations and not weights."""
        return self.plan.strategy is not Strategy.CANARY

    @property
    def paused(self) -> str:
        """Why somebody holds the run; empty when nobody does."""
        return self.canary.meta.annotations.get(PAUSE, "")

    @property
    def asked(self) -> str:
        """What somebody asks for and no controller has done yet; empty without."""
        text = self.canary.meta.annotations.get(ACTION, "")
        return text if text != (self.canary.status.last_handled_action or "") else ""

    def hooks(self, wanted: HookType) -> str:
        """Names of the hooks of a type."""
        return ", ".join(hook.name for hook in hooks_of(self.canary.spec, wanted))


def view_of(canary: CanaryResource, mesh_provider: str = DEFAULTS.mesh_provider) -> View:
    """The view of a Canary; the provider counts where it names none."""
    return View(canary, make_plan(canary.spec, canary.spec.provider or mesh_provider))


# --- time


def short(seconds: float) -> str:
    """A duration without the zeros at its end: `10m`, `1h30m`, `12s`."""
    return re.sub(r"(?<=[hm])0[ms](0s)?$", "", format_duration(seconds))


def since(moment: str | None, now: datetime) -> str:
    """`for 5m`, or nothing when the moment is not known."""
    return f"for {age(moment, now)}" if moment else ""


def seconds_left(view: View, now: datetime) -> float | None:
    """Seconds to the next step, 0 when it is due; None when none is planned."""
    text = view.canary.status.next_step_time
    if not text or view.phase in RESTING or view.canary.spec.suspend:
        return None
    try:
        return max(0.0, (parse_timestamp(text) - now).total_seconds())
    except ValueError:
        return None


def countdown(view: View, now: datetime) -> str:
    """`12s`, `due`, or `-` when no step is planned."""
    left = seconds_left(view, now)
    if left is None:
        return "-"
    return short(round(left)) if left >= 1 else "due"


# --- steps


def rungs(plan: Plan) -> tuple[int, ...]:
    """The weights of a ladder from the first to the one that is promoted from; empty where there are no weights."""
    if plan.strategy is not Strategy.CANARY:
        return ()
    found: list[int] = []
    weight = 0
    while weight < plan.top_weight:
        by = step(weight, plan.step_weight, plan.step_weights)
        if by <= 0:
            break
        weight = min(TOTAL, weight + by)
        found.append(weight)
    return tuple(found)


def ladder(view: View) -> str:
    """The steps of a run, the present one in brackets: `mirror → 10 → [20] → 30 → promotion`."""
    plan, running = view.plan, view.phase in RUNNING
    if view.counted:
        return f"{plan.iterations} iterations → promotion"
    words = [str(weight) for weight in rungs(plan)]
    if not words:
        return "no steps: neither stepWeight nor stepWeights says how far to go"
    if plan.mirror:
        words.insert(0, "mirror")
    words.append("promotion")
    here = _here(view, words) if running else None
    if view.phase in {Phase.WAITING_PROMOTION, Phase.PROMOTING, Phase.FINALISING}:
        here = len(words) - 1
    if here is not None:
        words[here] = f"[{words[here]}]"
    return " → ".join(_around(words, here or 0))


def _here(view: View, words: Sequence[str]) -> int | None:
    return words.index(str(view.weight)) if str(view.weight) in words else None


def _around(words: list[str], here: int) -> list[str]:
    """The words, with gaps when they are many: the first, those around the present one, the last two."""
    if len(words) <= MOST_RUNGS:
        return words
    kept = {0, 1, *range(here - 2, here + 3), len(words) - 2, len(words) - 1}
    shown: list[str] = []
    for place, word in enumerate(words):
        if place in kept:
            shown.append(word)
        elif shown[-1] != "…":
            shown.append("…")
    return shown


def progress(view: View) -> str:
    """How far the run is: `40%`, or `3/10` of a run that counts; `-` at rest."""
    if view.phase is Phase.WAITING_PROMOTION:
        return f"{view.plan.iterations}/{view.plan.iterations}" if view.counted else f"{view.plan.top_weight}%"
    if view.counted and view.phase in RUNNING | {Phase.PROMOTING}:
        return f"{min(view.iterations, view.plan.iterations)}/{view.plan.iterations}"
    return f"{view.weight}%" if view.weight or view.phase in RUNNING else "-"


def bar(percent: float, width: int = BAR) -> str:
    """A bar of a share in percent; a share above 0 has a character at least."""
    full = max(1, round(percent * width / TOTAL)) if percent > 0 else 0
    return "━" * min(full, width) + "─" * (width - min(full, width))


def share(view: View) -> float:
    """What the bar shows in percent: traffic, or iterations done."""
    if view.counted:
        return TOTAL * min(view.iterations, view.plan.iterations) / view.plan.iterations if view.phase in RUNNING else 0
    return view.plan.top_weight if view.phase is Phase.WAITING_PROMOTION else view.weight


def strategy_words(view: View) -> str:
    """The strategy in words."""
    plan = view.plan
    if plan.skip:
        return "none: the analysis is skipped (skipAnalysis)"
    match plan.strategy:
        case Strategy.AB_TESTING:
            return f"A/B test: requests that match go to the canary for {plan.iterations} checks"
        case Strategy.BLUE_GREEN:
            if not plan.weighted:
                return f"blue/green: {plan.iterations} checks of the canary beside the live traffic, then the promotion"
            mirrored = ", with mirrored traffic" if plan.mirror else ""
            return f"blue/green: {plan.iterations} checks{mirrored}, then all traffic at once"
        case _:
            steps = ", ".join(map(str, plan.step_weights)) if not plan.step_weight else f"by {plan.step_weight}"
            limited = " of the requests that match" if view.canary.spec.analysis.match else " of the traffic"
            return f"canary: {steps} up to {plan.top_weight} percent{limited}, every {short(plan.interval)}"


# --- why it stands where it stands


def why(view: View, now: datetime) -> str:
    """What the Canary waits for, or why it failed, in one line; empty when there is nothing to say."""
    meta, spec, status = view.canary.meta, view.canary.spec, view.canary.status
    if meta.deletion_timestamp:
        return "is being deleted"
    if spec.suspend:
        return "suspended"
    if not status.phase:
        return "no controller has looked at it yet"
    text = _why(view, now)
    if view.asked:
        return f"{text + '; ' if text else ''}asked to {view.asked.split()[0]}"
    return text


def _why(view: View, now: datetime) -> str:
    status = view.canary.status
    unready = f"{_unready(view.phase)} is not ready {since(status.not_ready_since, now)}" if status.not_ready_since else ""
    match view.phase:
        case Phase.NEW | Phase.INITIALIZING:
            return unready or "is being set up"
        case Phase.WAITING:
            return unready or f"gate: {view.hooks(HookType.CONFIRM_ROLLOUT) or 'confirm-rollout'}"
        case Phase.WAITING_PROMOTION:
            return unready or f"gate: {view.hooks(HookType.CONFIRM_PROMOTION) or 'confirm-promotion'}"
        case Phase.PROGRESSING:
            if unready:
                return unready
            if view.paused:
                return f"paused: {view.paused}"
            if status.hold_since:
                return f"no data {since(status.hold_since, now)}"
            return (
                f"gate: {view.hooks(HookType.CONFIRM_TRAFFIC_INCREASE) or 'confirm-traffic-increase'}"
                if status.gate_since
                else ""
            )
        case Phase.PROMOTING:
            return unready or "the primary gets the new revision"
        case Phase.FINALISING:
            return unready or "traffic is back on the primary"
        case Phase.FAILED:
            return status.failure or "failed"
        case _:
            return f"paused: {view.paused}" if view.paused else ""


def _unready(phase: Phase) -> str:
    return "the first primary" if phase in STARTING else "a workload"
