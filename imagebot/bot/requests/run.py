"""The pull requests of all automations: when a pass looks after them, and what its failures mean."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta

from imagebot.api import ImagePolicy, ImageRef, ImageUpdateAutomation
from imagebot.bot.job import Job
from imagebot.bot.requests.access import Forges
from imagebot.bot.requests.act import Merging
from imagebot.bot.requests.body import rule_of
from imagebot.bot.requests.look import Owners
from imagebot.bot.requests.passing import UP_TO_DATE, Calm, Choices, Pass
from imagebot.bot.requests.scene import is_over
from imagebot.bot.requests.settings import asked, settings_of
from imagebot.bot.source import Source
from imagebot.bot.update import MarkerMemory
from reconcile.api.meta import Key
from reconcile.errors import Failed, Invalid, NotFound, ReasonedError, ReconcileError, Waiting
from reconcile.forges.session import Observe
from reconcile.git.errors import GitError, PushFailed, PushRejected, SigningFailed
from reconcile.git.mirror import Mirror
from reconcile.ports.clock import Clock, parse_timestamp
from reconcile.ports.events import EventType
from reconcile.ports.forge import AccessRefused, RateLimited
from reconcile.ports.store import Store
from reconcile.runtime.bus import Bus
from reconcile.runtime.outcome import Success
from reconcile.runtime.run import Run

FAILED = "PullRequestFailed"
REFUSED = timedelta(days=1)
"""For how long a protected branch is taken for one."""


MakeJob = Callable[[ImageUpdateAutomation, Mapping[str, ImageRef], Source, Mirror], Job]
Hold = Callable[[Run, Job], Awaitable[Success | None]]
"""Has what a job found last wait for more, and says so; None: it is time."""


async def _never(run: Run, job: Job) -> Success | None:  # noqa: ARG001 - a default
    return None


class Requests:
    """The pull requests of all automations."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        memory: MarkerMemory,
        *,
        fence: Callable[[], None],
        bus: Bus,
        observe: Observe | None = None,
    ) -> None:
        """`fence` is asked right before each change of the outside world, and raises when we may change nothing; `observe` is
        told of every request to a forge."""
        self._store = store
        self.clock = clock
        self.memory = memory
        self.fence = fence
        self.bus = bus
        self._forges = Forges(store, clock, observe)
        self.owners = Owners()
        self.calm: dict[Key, Calm] = {}
        self._merging: dict[Key, Merging] = {}
        self.job: MakeJob = lambda resource, refs, source, mirror: Job(resource, refs, source, mirror, memory, clock)
        """Makes what finds out what is due."""
        self.hold: Hold = _never
        """Has what is due wait for more."""
        self.release: Callable[[Run], None] = lambda _: None
        """Told that nothing waits (any more)."""

    async def reconcile(
        self,
        run: Run,
        source: Source,
        mirror: Mirror,
        refs: Mapping[str, ImageRef],
        choices: Choices,
        *,
        opens: bool = True,
    ) -> Success:
        """Bring the requests of an automation in line with its policies.

        Args:
            run: the pass; its status is set, also when this fails.
            source: of the automation.
            mirror: of its repository.
            refs: the choices now, which are enough to see that nothing is due.
            choices: the choices to act on.
            opens: whether new requests may be opened.

        Raises:
            Stalled: `InvalidPullRequest`: only an edit mends it.
            Failed: `GitOperationFailed`, `PullRequestFailed`: tried again.
            Waiting: `RateLimited`: tried again when the forge allows it.
        """
        settings = settings_of(run.resource, source)
        if settings is None:
            return Success(UP_TO_DATE, after=run.resource.spec.interval, quiet=True, trace=UP_TO_DATE)
        try:
            async with self._forges.using(run.resource.key.namespace, settings.where, source) as forge:
                return await Pass(self, run, settings, source, mirror, forge, opens=opens).go(refs, choices)
        except RateLimited as error:
            raise Waiting("RateLimited", f"failed to propose changes: {error}", error.after) from error
        except ReasonedError:
            raise
        except (PushFailed, SigningFailed) as error:
            raise Failed("GitOperationFailed", f"failed to update source: {error}") from error
        except GitError as error:
            raise Failed("GitOperationFailed", f"failed to checkout source: {error}") from error
        except ReconcileError as error:
            raise Failed(FAILED, f"failed to propose changes: {error}") from error

    async def first(
        self, run: Run, source: Source, mirror: Mirror, refs: Mapping[str, ImageRef], choices: Choices
    ) -> Success | None:
        """What comes before a push: the whole pass, where changes are only ever proposed or the branch is known to be protected;
        the end of what was proposed, where nothing is to be proposed any more.

        None: what is due is pushed. Raises as `reconcile`.
        """
        spec = asked(run.resource)
        if spec is not None and spec.when == "PushRefused" and not refused_lately(run):
            if pending(run.resource):  # the branch was protected: what is merged or not needed any more is cleared away
                await self.reconcile(run, source, mirror, refs, choices, opens=False)
            return None
        if spec is not None:
            return await self.reconcile(run, source, mirror, refs, choices)
        try:
            await self.reconcile(run, source, mirror, refs, choices)
        except Failed as error:
            if not isinstance(error.__cause__, NotFound | Invalid | AccessRefused):
                raise
            self._give_up(run, error)  # the Secret has gone with the settings: that must not stop pushes
        return None

    def _give_up(self, run: Run, error: Failed) -> None:
        run.tell(EventType.WARNING, FAILED, f"open pull requests are left as they are: {error.message}")
        left = {"state": "Superseded", "head": None, "message": "left as it is: there is no way to the forge any more"}
        entries = [e if is_over(e) else e.model_copy(update=left) for e in run.status.pull_requests or []]
        run.set(pull_requests=[e for e in entries if e.number is not None] or None, observed_forge=None)

    async def instead(self, run: Run, source: Source, mirror: Mirror, refs: Mapping[str, ImageRef], failure: Failed) -> Success:
        """What comes after a push that failed: where the branch is protected and the spec asks for it, a request.

        Raises:
            Failed: `failure` itself, where a request is no answer to it; else as `reconcile`.
        """
        spec, cause = asked(run.resource), failure.__cause__
        if spec is None or not isinstance(cause, PushRejected) or not cause.protected:
            raise failure
        run.set(push_refused_time=run.timestamp)

        async def choices() -> Mapping[str, ImageRef]:
            return refs

        return await self.reconcile(run, source, mirror, refs, choices)

    def merging(self, key: Key) -> Merging:
        """Merges that were asked for, of one automation."""
        return self._merging.setdefault(key, Merging())

    async def rules(self, namespace: str) -> dict[str, str]:
        """How the policies of a namespace choose, by name."""
        policies: Sequence[ImagePolicy] = await self._store.list("ImagePolicy", namespace)
        return {policy.key.name: rule_of(policy.spec) for policy in policies}

    def forget(self, key: Key) -> None:
        """Drop what is kept for an automation; its requests stay as they are."""
        self.calm.pop(key, None)
        self._merging.pop(key, None)

    async def close(self) -> None:
        """Close the connections to the forges."""
        await self._forges.close()


def pending(resource: ImageUpdateAutomation) -> bool:
    """Whether something is left to be done for requests that were made before."""
    return any(not is_over(entry) for entry in resource.status.pull_requests or [])


def refused_lately(run: Run) -> bool:
    """Whether a push was refused because the branch is protected, so that trying again is in vain: for a day, or until the spec
    changes."""
    last = run.resource.status.push_refused_time
    return last is not None and not run.new_generation and run.now - parse_timestamp(last) < REFUSED
