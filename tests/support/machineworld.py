"""A world for the canary machine without a cluster: what the effects of a tick do to status and routes, as `act` does them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from canary.api import CanarySpec, CanaryStatus
from canary.effects import Effect, Promote, Route, Say, ScaleDown, ScaleUp, Write
from canary.machine import decide
from canary.phases import Phase
from canary.plan import Plan, make_plan
from canary.routing.base import ALL_PRIMARY, Weights
from canary.seen import Ask, Question, Reply, Seen, Step, Wish
from canary.status import Present, phase_of, written
from canary.workload.base import READY, Readiness, Target

START = datetime(2026, 1, 1, tzinfo=UTC)


def plan_of(provider: str = "istio", *, skip: bool = False, **analysis: object) -> Plan:
    """The plan of a Canary with this analysis."""
    spec = {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "service": {"port": 80},
        "skipAnalysis": skip,
        "analysis": {"interval": "10s", "threshold": 3, **analysis},
    }
    return make_plan(CanarySpec.model_validate(spec), provider)


@dataclass
class MachineWorld:
    """Status, routes and target of one Canary, and what its ticks did.

    Attributes:
        revision: Of the target, now.
        replies: What hooks and metrics answer; a question that is not in it is answered with a yes.
        asked: Questions of the last tick.
        log: All effects so far.
    """

    plan: Plan
    status: CanaryStatus = field(default_factory=lambda: CanaryStatus.model_validate({}))
    live: Weights = ALL_PRIMARY
    revision: str = "one"
    running: bool = False
    primary: Readiness = READY
    ready: Readiness = READY
    wish: Wish | None = None
    paused: str = ""
    replies: dict[Question, tuple[Reply, ...]] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)
    log: list[Effect] = field(default_factory=list)
    now: datetime = START

    @classmethod
    def initialized(cls, plan: Plan) -> MachineWorld:
        """A Canary that rests with its first revision."""
        world = cls(plan)
        world.apply(Write(Phase.INITIALIZED, sync=True))
        return world

    @property
    def phase(self) -> Phase:
        """The phase."""
        return phase_of(self.status)

    @property
    def promoted(self) -> str:
        """The revision that the primary has, by the status."""
        return self.status.last_promoted_spec or ""

    def seen(self) -> Seen:
        """What a tick would observe."""
        changed = self.status.last_applied_spec != self.revision
        waited = (self.now - datetime.fromisoformat(self.status.phase_since or START.isoformat())).total_seconds()
        held = (self.now - datetime.fromisoformat(self.status.hold_since or self.now.isoformat())).total_seconds()
        gated = (self.now - datetime.fromisoformat(self.status.gate_since or self.now.isoformat())).total_seconds()
        return Seen(
            canary="web.test",
            target="web.test",
            kind="Deployment",
            plan=self.plan,
            phase=self.phase,
            failed=self.status.failed_checks or 0,
            iterations=self.status.iterations or 0,
            live=self.live,
            changed=changed,
            reverted=changed and self.revision == self.promoted,
            primary=self.primary,
            ready=self.ready,
            wish=self.wish,
            paused=self.paused,
            waited=waited,
            held=held,
            gated=gated,
        )

    def tick(self) -> Step:
        """One tick, an interval after the last."""
        self.now += timedelta(seconds=self.plan.interval)
        seen, self.asked = self.seen(), []
        decision = decide(seen)
        while isinstance(decision, Ask):
            self.asked.append(decision.question)
            replies = self.replies.get(decision.question, (Reply("hook", decision.question is not Question.ROLLBACK),))
            seen = seen.answered(decision.question, replies)
            decision = decide(seen)
        for effect in decision.effects:
            self.apply(effect)
        hold = self.status.hold_since or self.now.isoformat() if decision.held else None
        gate = self.status.gate_since or self.now.isoformat() if decision.gated else None
        self.status = self.status.model_copy(update={"hold_since": hold, "gate_since": gate})
        return decision

    def apply(self, effect: Effect) -> None:
        """What an effect does."""
        self.log.append(effect)
        if isinstance(effect, Route):
            self.live = effect.weights
        elif isinstance(effect, ScaleUp | ScaleDown):
            self.running = isinstance(effect, ScaleUp)
        elif isinstance(effect, Write):
            target = Target("app", "web", self.revision, generation=1)
            present = Present("Deployment", self.plan, target, {}, 3, self.now, self.now + timedelta(seconds=10))
            self.status = written(self.status, effect, present)

    def texts(self, effects: tuple[Effect, ...] | None = None) -> list[str]:
        """Texts of the events, of one tick if given."""
        return [effect.message for effect in (effects if effects is not None else self.log) if isinstance(effect, Say)]

    def promotions(self) -> int:
        """How often the primary was changed."""
        return sum(isinstance(effect, Promote) for effect in self.log)
