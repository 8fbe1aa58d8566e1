"""Applies a set of objects in stages, and prunes what left it. A run that is killed at any point is finished by the next one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence

from reconcile.api import kstatus
from reconcile.api.appliers import IgnoreRule
from reconcile.apply.changeset import Action, ApplyFailed, Change, ChangeSet, apply_failure
from reconcile.apply.drift import Ignored
from reconcile.apply.health import flux_text
from reconcile.apply.judge import Judge, Plan, Refusal, Terms, labelled
from reconcile.apply.memory import Known, Memory, Remembered
from reconcile.apply.order import GroupKind, Stage, sort_key, stages
from reconcile.apply.owner import Marks, Owner
from reconcile.apply.prepare import CRD, group_kind
from reconcile.apply.prune import Pruner
from reconcile.errors import Conflict, ReconcileError, TimedOut
from reconcile.ports.clock import Clock
from reconcile.ports.cluster import Cluster, NotReady, Object, Propagation, Reference
from reconcile.ports.stamps import Mark, Stamps

STAGE_TIMEOUT = 60.0
"""Seconds for which a stage is waited for before the next."""
GONE_TIMEOUT, GONE_LOOK = 60.0, 0.5
"""Seconds for which an object that is made anew may take to be gone, and between two looks."""
TURN = 32
"""Objects after which others have their turn."""
ATTEMPTS = 3
"""Tries to write an object that others change at the same time."""

Intend = Callable[[Sequence[Reference]], Awaitable[None]]
"""Told which objects are about to be written, before the first of them is: to record them where nothing forgets them."""


class Applier:
    """Applies and prunes sets of objects of any owner, as one user of one cluster.

    Args:
        cluster: Where, and with whose rights.
        clock: Time.
        manager: Our field manager.
        concurrent: Objects of a stage that are judged at once.
        override_managers: Field managers that are taken over, as kubectl's are.
        custom_stages: Kinds (group, kind) with a stage of their own after definitions and classes.
        migrate: Give managedFields of other API versions that of the object before its dry run.
        memory: What was applied last; None: nothing is remembered.
        stamps: How objects look now; None, as for clusters that are not watched: they are asked for one by one.
    """

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        *,
        manager: str = "kustomize-controller",
        concurrent: int = 4,
        override_managers: Iterable[str] = (),
        custom_stages: Sequence[GroupKind] = (),
        migrate: bool = False,
        memory: Memory | None = None,
        stamps: Stamps | None = None,
    ) -> None:
        self._cluster, self._clock = cluster, clock
        self._manager, self._override = manager, tuple(override_managers)
        self._custom = tuple(custom_stages)
        self._memory = memory if memory is not None else Memory()
        self._migrate = migrate
        self._stamps = stamps
        self._concurrent = max(1, concurrent)

    async def apply(
        self,
        objects: Sequence[Object],
        *,
        owner: Owner,
        force: bool = False,
        ignore: Iterable[IgnoreRule] = (),
        intend: Intend | None = None,
        thorough: bool = False,
    ) -> ChangeSet:
        """Apply a set.

        Args:
            objects: As `prepare.prepared` gives them, in any order.
            owner: Whose they are.
            force: Delete and make anew what has a field that cannot be changed; never for any other error.
            ignore: Fields that are left as they are in the cluster.
            intend: Told the objects of each stage before the first of them is written.
            thorough: Look at each object and run it dry, whatever is remembered of it.

        Returns:
            What was done, in order: one change for each object.

        Raises:
            ApplyFailed: An object of a stage is refused: nothing of that stage is written. Or a write failed, or a stage did not
                become current in time.
            Invalid: An ignore rule or an object cannot be read.
        """
        terms = Terms(owner, self._manager, self._override, force, Ignored(ignore), thorough, self._migrate)
        known, done = self._memory.of(owner), ChangeSet()
        if self._stamps is not None:
            kinds = {(Reference.of(each).api_version, Reference.of(each).kind) for each in objects}
            await self._stamps.follow(sorted(kinds))
        defined: frozenset[str] = frozenset()
        for stage in stages(objects, self._custom):
            judge = Judge(self._cluster, self._clock, terms, known, self._stamps, defined)
            plans = await self._judged(judge, stage.objects, done)
            if intend is not None and any(plan.writes for plan in plans):
                await intend([plan.reference for plan in plans])
            done = await self._carried_out(judge, stage, plans, known, done, owner)
            defined |= {_defines(plan.desired) for plan in plans if plan.writes} - {""}
        known.keep(done.references())
        return done

    async def prune(self, stale: Iterable[Reference], *, owner: Owner, keep: Iterable[Reference] = ()) -> ChangeSet:
        """Delete what left the set.

        Args:
            stale: The objects.
            owner: Whose labels an object must carry to be deleted.
            keep: Objects that are wanted: none of them is deleted, under whatever version or namespace it is named.

        Raises:
            PruneFailed: Some could not be deleted; has what was done and what is left.
        """
        return await Pruner(self._cluster, owner, Marks(owner.prefix), self._concurrent).prune(stale, keep)

    def state(self, owner: Owner, references: Iterable[Reference]) -> str:
        """Digest of how the owner's objects were left; empty when that is not known of each. See `Remembered.state`."""
        return self._memory.of(owner).state(references)

    # --- a stage

    async def _judged(self, judge: Judge, objects: Sequence[Object], done: ChangeSet) -> list[Plan]:
        plans: dict[int, Plan] = {}
        refused: dict[int, Refusal] = {}

        async def one(index: int) -> bool:
            try:
                plans[index] = await judge.judge(objects[index])
            except Refusal as refusal:
                refused[index] = refusal
                return not refusal.hopeless
            return True

        await self._several(len(objects), one)
        if refused:
            raise ApplyFailed([str(refused[index]) for index in sorted(refused)], done)
        return [plans[index] for index in range(len(objects))]

    async def _carried_out(
        self, judge: Judge, stage: Stage, plans: Sequence[Plan], known: Remembered, done: ChangeSet, owner: Owner
    ) -> ChangeSet:
        """Write what the plans say, kind after kind, and wait for what the next stage needs."""
        changes: list[Change] = []
        awaited: list[Reference] = []
        for _, same in itertools.groupby(plans, key=lambda plan: sort_key(plan.reference)[:3]):
            written, failures = await self._written(judge, list(same), known)
            for plan, result in written:
                changes.append(Change(plan.reference, plan.action, plan.drift if plan.writes else ()))
                self._remember(known, plan, result, owner)
                if stage.awaited and result is not None and not self._is_current(plan, result):
                    awaited.append(plan.reference)
            if failures:
                raise ApplyFailed(failures, done, done + ChangeSet(tuple(changes)))
        completed = done + ChangeSet(tuple(changes))
        if awaited:
            try:
                await self._cluster.wait(awaited, timeout=STAGE_TIMEOUT, fail_fast=True)
            except NotReady as late:
                raise ApplyFailed([flux_text(late)], completed) from late
        return completed

    async def _written(
        self, judge: Judge, plans: Sequence[Plan], known: Remembered
    ) -> tuple[list[tuple[Plan, Object | None]], list[str]]:
        """Objects of one kind as they are after their writes, several at once, and what failed; after a failure none is begun."""
        written: dict[int, tuple[Plan, Object | None]] = {}
        failures: dict[int, str] = {}

        async def one(index: int) -> bool:
            plan = plans[index]
            try:
                written[index] = await self._write_again(judge, plan) if plan.writes else (plan, plan.live)
            except ReconcileError as error:
                known.forget(plan.reference)
                failures[index] = str(error) if isinstance(error, Refusal) else apply_failure(plan.reference, error)
            return not failures

        await self._several(len(plans), one)
        return [written[index] for index in sorted(written)], [failures[index] for index in sorted(failures)]

    async def _several(self, number: int, one: Callable[[int], Awaitable[bool]]) -> None:
        """Do things in order, some of them at once; none is begun after one has said that it is of no use."""
        waiting = iter(range(number))
        useful = True

        async def work() -> None:
            nonlocal useful
            while useful and (index := next(waiting, None)) is not None:
                useful = await one(index) and useful
                if index % TURN == TURN - 1:
                    await asyncio.sleep(0)  # what is remembered waits for nothing: others have their turn

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._concurrent, number)):
                    group.create_task(work())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    def _is_current(self, plan: Plan, result: Object) -> bool:
        if plan.action is Action.SKIPPED:
            return True
        return kstatus.summarize(result, self._clock.now()).status is kstatus.Status.CURRENT

    def _remember(self, known: Remembered, plan: Plan, result: Object | None, owner: Owner) -> None:
        mark = plan.mark
        if result is not None:
            mark = Mark.of(result) if labelled(result, owner) else None
            if self._stamps is not None:
                self._stamps.wrote(result)
        if mark is not None and mark.ending:
            known.forget(plan.reference)  # it will be gone: to be looked at again
            return
        action = Action.SKIPPED if plan.action is Action.SKIPPED else Action.UNCHANGED
        known.put(plan.reference, Known(plan.digest, mark, action))

    # --- an object

    async def _write_again(self, judge: Judge, plan: Plan) -> tuple[Plan, Object | None]:
        """An object as it is after its write; what somebody else changes at the same time is judged again."""
        for left in range(ATTEMPTS - 1, -1, -1):
            try:
                return plan, await self._write(plan)
            except Conflict:
                if not left:
                    raise
            plan = await judge.judge(plan.desired)
            if not plan.writes:
                return plan, plan.live
        raise AssertionError("the last attempt returns or raises")

    async def _write(self, plan: Plan) -> Object:
        if plan.recreate and plan.live is not None:
            await self._delete(plan.reference, plan.live)
        elif plan.clean_up:
            await self._cluster.json_patch(plan.reference, plan.clean_up, manager=self._manager)
        return await self._cluster.apply(plan.payload, manager=self._manager, force=True)

    async def _delete(self, reference: Reference, live: Object) -> None:
        """Delete an object and wait until it is gone; raises TimedOut, naming what holds it."""
        uid = str(live["metadata"].get("uid") or "")
        await self._cluster.delete(reference, propagation=Propagation.BACKGROUND, uid=uid)
        end = self._clock.monotonic() + GONE_TIMEOUT
        while True:
            found = await self._cluster.find(reference)
            if found is None or found["metadata"].get("uid") != uid:
                return
            if self._clock.monotonic() >= end:
                raise TimedOut(
                    f"a field cannot be changed and it is not gone {GONE_TIMEOUT:.0f}s after its deletion{_held(found)}"
                )
            await self._clock.sleep(GONE_LOOK)


def _held(found: Object) -> str:
    finalizers = found["metadata"].get("finalizers") or []
    return f": it has finalizers {', '.join(map(str, finalizers))}" if finalizers else ""


def _defines(desired: Object) -> str:
    """The API group that a definition adds a kind to; empty for what is no definition."""
    spec = desired.get("spec") if group_kind(desired) == CRD else None
    return str(spec.get("group") or "") if isinstance(spec, dict) else ""
