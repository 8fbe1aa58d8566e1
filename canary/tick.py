"""What a tick works with: the Canary as it was read, what was found out so far, and the ways to act."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from canary.alerts.notifier import Alerts
from canary.effects import Kind
from canary.events import TickEvents
from canary.exported import Exported
from canary.hooks import Hooks
from canary.metrics.base import Check
from canary.metrics.checks import Checks
from canary.phases import Phase
from canary.plan import Plan
from canary.routing.base import Router
from canary.settings import CanarySettings
from canary.site import CanaryResource, Site
from canary.status import phase_of
from canary.workload.base import Scaler, Target, Workload
from canary.workload.revision import pair_checksum
from canary.workload.tracker import texts
from reconcile.ports.clock import Clock
from reconcile.ports.objects import Objects
from reconcile.ports.store import Store

ACTION = "imagebot.dev/action"
"""Annotation by which a person asks for something: `promote`, `rollback` or `retry`, and a word that makes it a new request."""
PAUSE = "imagebot.dev/pause"
"""Annotation that holds a run where it is; its value says why."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What all ticks share."""

    store: Store
    objects: Objects
    clock: Clock
    settings: CanarySettings
    hooks: Hooks
    alerts: Alerts
    checks: Checks
    exported: Exported
    events: Callable[[float], TickEvents]
    """Makes what tells the events of one tick, of the seconds of its interval."""
    fence: Callable[[], None]
    """Raises when somebody else leads."""


@dataclass
class Tick:
    """One tick of one Canary.

    Attributes:
        phase: At the start; what events report unless an effect says otherwise.
        due: When the next step is due if this one goes well.
        target: The target, once it was read.
        configs: Checksums of what it refers to; None where nothing is tracked.
        measured: What the metrics said, if they were asked.
        pending: Fields of the status that go with the next write.
        analysed: Whether the tick got as far as its checks.
        raised: Monotonic moment at which the canary got more traffic.
        hindered: Why the run cannot go on, though it can be rolled back.
        unwritten: The status could not be written when it was tried last.
        uncounted: Failed checks of the run, with those that could not be written.
    """

    tools: Tools
    site: Site
    plan: Plan
    workload: Workload
    router: Router
    scaler: Scaler | None
    events: TickEvents
    now: datetime
    due: datetime
    phase: Phase
    stored: CanaryResource
    """As the store has it: what a write of the status is compared with."""
    target: Target | None = None
    configs: Mapping[str, str] | None = None
    measured: tuple[Check, ...] | None = None
    pending: dict[str, Any] = field(default_factory=dict)
    analysed: bool = False
    raised: float | None = None
    hindered: str = ""
    unwritten: bool = False
    uncounted: int = 0

    @property
    def canary(self) -> CanaryResource:
        """The Canary as it is known now."""
        return self.site.canary

    @property
    def found(self) -> Target:
        """The target; it is read before anything asks for it."""
        if self.target is None:
            raise RuntimeError("the target was not read yet")
        return self.target

    @property
    def checksum(self) -> str:
        """Of the revision in work, for webhooks; at the start of a run after a failure that of the new one."""
        status = self.site.status
        if self.target is not None and self.phase is Phase.FAILED is phase_of(status):
            return pair_checksum(texts(self.configs), self.target.revision)
        return pair_checksum(status.tracked_configs, status.last_applied_spec or "")

    @property
    def initializing(self) -> bool:
        """Whether the primary has never had a revision yet."""
        never = self.phase is Phase.FAILED and not self.site.status.last_promoted_spec
        return never or self.phase in {Phase.NEW, Phase.INITIALIZING}

    async def say(self, kind: Kind, message: str, phase: Phase | None = None) -> None:
        """Tell an event."""
        shown = phase if phase is not None else self.phase
        await self.events.tell(self.site, kind, message, phase=shown.value, checksum=self.checksum)
