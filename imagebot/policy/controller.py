"""ImagePolicy: choose one tag out of what the last scan found, look up its digest if asked, and say why.

Behaves like Flux's ImagePolicy; what is better: a policy made together with its repository becomes ready when the scan ends,
without a warning in between, ties are settled the same way each time, and `insecure` counts for digests too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from imagebot.api import (
    ALWAYS_WITHOUT_INTERVAL,
    ImagePolicy,
    ImagePolicySpec,
    ImageRef,
    ImageRepository,
)
from imagebot.policy.base import InvalidFilter, InvalidPolicy, NoChoice
from imagebot.policy.choose import Policy
from imagebot.policy.decide import decide
from imagebot.policy.holding import (
    ANNOTATIONS,
    concerns,
    holds_for,
    rule_of,
    sights,
    situation_of,
)
from imagebot.policy.mutation import ALLOW_MUTATION, Before, Settled, settle
from imagebot.policy.rules import policy_of
from imagebot.policy.situation import (
    ALLOW_DOWNGRADE,
    DOWNGRADE_HELD,
    REJECTED,
    SOAKING,
    TAG_MUTATED,
    Decision,
    Held,
    Hold,
    Need,
    Situation,
    rejection,
)
from imagebot.scan.access import Access, check_identity_gate, repository_of
from imagebot.scan.cache import Scanned, TagStore
from reconcile.api import conditions as cond
from reconcile.api.duration import format_duration
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.errors import Failed, NotFound, ReconcileError, Stalled, Waiting
from reconcile.ports.events import EventType
from reconcile.ports.store import Change, ChangeType, Store
from reconcile.runtime.bus import trace_of
from reconcile.runtime.controller import Controller
from reconcile.runtime.index import Dependants
from reconcile.runtime.logs import get_logger
from reconcile.runtime.outcome import Pending, Success
from reconcile.runtime.run import Reconciler, Run

log = get_logger("policy")

REQUEUE_DEPENDENCY = 30.0
"""Seconds after which a policy looks again for tags that were not there."""


HELD = "Held"
"""The condition that says why the choice is not what the rule prefers."""
LOOKUPS = 8
"""Digests that are looked up at once for one policy."""


class ImagePolicyController(Controller):
    """Also looks at a policy when somebody allows it something by annotation."""

    def _wakes(self, change: Change) -> bool:
        if change.old is None or super()._wakes(change):
            return True
        old, new = change.old.meta.annotations, change.new.meta.annotations
        return any(old.get(name) != new.get(name) for name in ANNOTATIONS)


class ImagePolicyReconciler(Reconciler):
    """Steps: find the repository, build the policy, read holds and tags, decide, settle the digest, report."""

    kind = "ImagePolicy"
    announces_requests = False
    acknowledges_suspended = True

    def __init__(
        self,
        store: Store,
        access: Access,
        tags: TagStore,
        gates: Mapping[str, bool],
        *,
        no_cross_namespace_refs: bool = False,
        requeue_dependency: float = REQUEUE_DEPENDENCY,
    ) -> None:
        self._store = store
        self._access = access
        self._tags = tags
        self._gates = gates
        self._no_cross_namespace_refs = no_cross_namespace_refs
        self._requeue_dependency = requeue_dependency
        self.dependants: Dependants[Key] = Dependants(referred)
        """Policies by their ImageRepository."""

    async def reconcile(self, run: Run) -> Success | Pending:
        """One pass; raises Stalled for what only an edit mends, Failed and Waiting for the rest."""
        resource: ImagePolicy = run.resource
        if resource.spec.digest_reflection_policy == "Always" and resource.spec.interval is None:
            raise Stalled("IntervalNotConfigured", ALWAYS_WITHOUT_INTERVAL)
        repository = await self._repository(resource)
        repository_of(repository)
        check_identity_gate(repository, self._gates, "spec.serviceAccountName in the ImageRepository")
        policy = _build(resource.spec)
        for warning in policy.warnings:  # such a range works as in Flux, but hardly as it was meant
            log.warning("doubtful semver range", problem=warning)
        holds = holds_for(await self._store.list("ImageHold", resource.key.namespace), resource, repository.spec.image)
        self._give_up_rejected(run, holds)
        scanned = self._tags.get(repository.key)
        if scanned is None or not scanned.tags.count:
            return self._without_tags(resource, repository, scanned)
        return await self._choose(run, repository, policy, scanned, holds)

    async def removed(self, resource: AnyResource) -> None:
        """Nothing is kept for a policy."""

    async def on_hold(self, change: Change) -> Iterable[Key]:
        """The policies that an ImageHold concerns, or did until now."""
        versions = [hold for hold in (change.old, change.new) if hold is not None]
        found = []
        for policy in await self._store.list(self.kind, change.new.key.namespace):
            last = policy.status.latest_ref
            if any(concerns(hold, policy, last.name if last is not None else None) for hold in versions):
                found.append(policy.key)
        return found

    async def on_repository(self, change: Change) -> Iterable[Key]:
        """The policies that a change of an ImageRepository concerns: a new set of tags, or a verdict where none was before."""
        if change.type is ChangeType.MODIFIED and change.old is not None:
            old, new = change.old.status, change.new.status
            if _revision(old) == _revision(new) and _has_verdict(old) == _has_verdict(new):
                return []
        return self.dependants.of(change.new.key)

    # --- steps

    async def _repository(self, resource: ImagePolicy) -> ImageRepository:
        key = referred(resource)
        prefix = "failed to get the referred ImageRepository: "
        if key.namespace != resource.key.namespace and self._no_cross_namespace_refs:
            raise Failed(
                "AccessDenied",
                f"{prefix}cannot access 'ImageRepository/{key}', cross-namespace references have been blocked",
            )
        try:
            repository: ImageRepository = await self._store.get("ImageRepository", key)
        except NotFound:
            raise Failed(
                "DependencyNotReady",
                f"{prefix}referenced ImageRepository does not exist: "
                f'ImageRepository.image.toolkit.fluxcd.io "{key.name}" not found',
            ) from None
        if key.namespace != resource.key.namespace:
            denied = access_denied(repository, resource.key.namespace, await self._store.namespace_labels(resource.key.namespace))
            if denied:
                raise Failed("AccessDenied", f"{prefix}access denied: {denied}")
        return repository

    def _without_tags(self, resource: ImagePolicy, repository: ImageRepository, scanned: Scanned | None) -> Pending:
        """No tags: quietly wait for a scan that is to come, also after a restart; else say so and look again."""
        ready = cond.get(repository.status.conditions, cond.READY)
        if scanned is None and not repository.spec.suspend and (ready is None or ready.status != "False"):
            self._tags.wait(repository.key, resource.key)
            return Pending("waiting for the first scan of the ImageRepository", after=self._requeue_dependency)
        delay = format_duration(self._requeue_dependency)
        raise Waiting("DependencyNotReady", f"retrying in {delay} error: no tags in database", self._requeue_dependency)

    def _give_up_rejected(self, run: Run, holds: Sequence[Hold]) -> None:
        """What is rejected is not written anywhere any more, whatever becomes of the rest of the pass."""
        latest = run.resource.status.latest_ref
        if latest is not None and rejection(holds, latest.tag, latest.digest, run.now) is not None:
            run.set(latest_ref=None, observed_previous_ref=latest)

    async def _choose(
        self, run: Run, repository: ImageRepository, policy: Policy, scanned: Scanned, holds: Sequence[Hold]
    ) -> Success:
        resource: ImagePolicy = run.resource
        situation = situation_of(resource, repository, policy, scanned.tags.index(), scanned.exclusions, holds, run.now)
        digests: dict[str, str | None] = {}
        while isinstance(decision := _decide(replace(situation, digests=digests)), Need):
            digests |= await self._looked_up(repository, decision)
        before = Before(
            resource.spec.digest_reflection_policy,
            resource.spec.on_mutation,
            run.now,
            situation.last,
            resource.status.observed_digest,
            resource.meta.annotations.get(ALLOW_MUTATION),
            resource.spec.minimum_age or 0.0,
            decision.remembered,
        )
        if decision.tag is None:
            run.set(first_seen=sights(decision.remembered))
            self._give_up(run, repository, decision)
        tag = decision.tag
        if before.asks(tag) and tag in situation.index and digests.get(tag) is None:
            digests[tag] = await self._digest(repository, tag)
        settled = settle(before, tag, digests.get(tag))
        self._remember(run, decision, settled)
        name = repository.spec.image
        ref = ImageRef(name=name, tag=tag, digest=settled.digest) if settled.digest else ImageRef(name=name, tag=tag)
        waits = [after for after in (decision.after, settled.after) if after is not None]
        if resource.spec.digest_reflection_policy == "Always" and resource.spec.interval is not None:
            waits.append(resource.spec.interval)
        elif before.watching or any(hold.digests for hold in holds):
            waits.append(max(repository.spec.interval, 1.0))  # nobody else notices that a tag was moved
        return self._report(run, ref, min(waits) if waits else None)

    def _give_up(self, run: Run, repository: ImageRepository, decision: Decision) -> NoReturn:
        """Nothing may be chosen: say so, and leave what is in Git alone."""
        latest = run.resource.status.latest_ref
        if latest is not None:
            run.set(latest_ref=None, observed_previous_ref=latest)
        held = decision.held or Held(REJECTED, "nothing may be chosen")
        self._show(run, held)
        after = decision.after if decision.after is not None else max(repository.spec.interval, self._requeue_dependency)
        raise Waiting(held.reason, held.message, after, told="Normal" if held.reason == SOAKING else "Warning")

    def _remember(self, run: Run, decision: Decision, settled: Settled) -> None:
        """What the next decision needs, and what people should know of this one."""
        resource: ImagePolicy = run.resource
        run.set(first_seen=sights(settled.remembered), observed_digest=settled.observed)
        allowed = resource.meta.annotations.get(ALLOW_DOWNGRADE)
        if decision.used_allowance:
            run.set(allowed_downgrade=allowed)
        elif resource.status.allowed_downgrade not in (None, allowed):
            run.set(allowed_downgrade=None)
        rule, latest = rule_of(resource), resource.status.latest_ref
        if resource.status.observed_rule is None and latest is not None and latest.tag == decision.tag:
            run.stamp(lambda status: status.model_copy(update={"observed_rule": rule}), due=False)
        else:
            run.set(observed_rule=rule)
        self._show(run, decision.held or settled.held)
        if settled.alarm is not None:
            run.tell(EventType.WARNING, TAG_MUTATED, settled.alarm)

    def _show(self, run: Run, held: Held | None) -> None:
        before = cond.get(run.resource.status.conditions, HELD)
        if held is None:
            run.conditions = cond.drop(run.conditions, HELD)
            return
        generation = run.resource.meta.generation
        run.conditions = cond.put(
            run.conditions, HELD, "True", held.reason, held.message, generation=generation, now=run.timestamp
        )
        told = before is not None and before.reason == held.reason
        if held.reason == TAG_MUTATED:
            told = told and before is not None and before.message == cond.cut(held.message)
        if held.reason in (DOWNGRADE_HELD, TAG_MUTATED) and not told:
            run.tell(EventType.WARNING, held.reason, held.message)

    async def _looked_up(self, repository: ImageRepository, need: Need) -> dict[str, str | None]:
        """The digests that a decision needs; of those that it can do without, some may be missing."""
        limit = asyncio.Semaphore(LOOKUPS)
        problems: list[Failed] = []

        async def one(tag: str) -> str | None:
            async with limit:
                try:
                    return await self._digest(repository, tag)
                except Failed as error:
                    problems.append(error)
                    return None

        found = dict(zip(need.tags, await asyncio.gather(*map(one, need.tags)), strict=True))
        if problems and (need.essential or len(problems) == len(need.tags)):
            raise problems[0]
        return found

    async def _digest(self, repository: ImageRepository, tag: str) -> str:
        spec = repository.spec
        limit = max(spec.timeout if spec.timeout is not None else spec.interval, 1.0)
        subject = f"{repository.spec.image}:{tag}"
        prefix = f"failed fetching digest of {subject}: "
        try:
            async with asyncio.timeout(limit):
                client = await self._access.client(repository, repository_of(repository))
                return await client.digest(repository_of(repository), tag)
        except TimeoutError:
            raise Failed(cond.FAILED, f'{prefix}failed fetching descriptor for "{subject}": context deadline exceeded') from None
        except Failed as error:
            raise Failed(cond.FAILED, f"{prefix}{error.message}") from error
        except ReconcileError as error:
            raise Failed(cond.FAILED, f'{prefix}failed fetching descriptor for "{subject}": {error}') from error

    def _report(self, run: Run, ref: ImageRef, after: float | None) -> Success:
        resource: ImagePolicy = run.resource
        previous = resource.status.observed_previous_ref
        latest = resource.status.latest_ref
        if latest is not None and latest != ref:
            previous = latest
            run.set(observed_previous_ref=previous)
        run.set(latest_ref=ref)
        if latest != ref:
            log.info("chose tag", image=ref.name, tag=ref.tag, trace=[trace_of(ref.name, ref.tag)])
        message = f"Latest image tag for {ref.name} resolved to {ref.tag}"
        if ref.digest:
            message += f" with digest {ref.digest}"
        if previous is not None and previous != ref:
            message += f" (previously {previous})"
        return Success(message, after=after, trace=message)


def referred(policy: ImagePolicy) -> Key:
    """Key of the ImageRepository that a policy names."""
    reference = policy.spec.image_repository_ref
    return Key(reference.namespace or policy.key.namespace, reference.name)


def access_denied(repository: ImageRepository, namespace: str, labels: Mapping[str, str]) -> str | None:
    """Why a policy in `namespace` (with these labels) may not use the repository, None if it may (`spec.accessFrom`)."""
    allowed = repository.spec.access_from
    if allowed is None:
        return f"'{repository.key}' can't be accessed due to missing ACL labels on 'accessFrom'"
    for selector in allowed.namespace_selectors:
        if all(labels.get(k) == v for k, v in (selector.match_labels or {}).items()):
            return None
    return f"'{repository.key}' can't be accessed due to ACL labels mismatch on namespace '{namespace}'"


def _build(spec: ImagePolicySpec) -> Policy:
    try:
        return policy_of(spec)
    except InvalidPolicy as error:
        raise Stalled("InvalidPolicy", f"invalid policy: {error}") from error


def _decide(situation: Situation) -> Decision | Need:
    try:
        return decide(situation)
    except InvalidFilter as error:
        raise Stalled("InvalidPolicy", f"failed to filter tags: {error}") from error
    except NoChoice as error:
        raise Failed("Failure", str(error)) from error


def _revision(status: object) -> str | None:
    result = getattr(status, "last_scan_result", None)
    return result.revision if result is not None else None


def _has_verdict(status: object) -> bool:
    ready = cond.get(getattr(status, "conditions", None), cond.READY)
    return ready is not None and ready.status != "Unknown"
