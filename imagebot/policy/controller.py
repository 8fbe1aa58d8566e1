"""ImagePolicy: choose one tag out of what the last scan found, look up its digest if asked, and say why.

Behaves like Flux's ImagePolicy; what is better: a policy made together with its repository becomes ready when the scan ends,
without a warning in between, ties are settled the same way each time, and `insecure` counts for digests too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from imagebot.api import (
    ALWAYS_WITHOUT_INTERVAL,
    ImagePolicy,
    ImagePolicySpec,
    ImageRef,
    ImageRepository,
)
from imagebot.policy.base import InvalidFilter, InvalidPolicy, NoChoice
from imagebot.policy.choose import Policy
from imagebot.policy.rules import policy_of
from imagebot.scan.access import Access, check_identity_gate, repository_of
from imagebot.scan.cache import Scanned, TagStore
from reconcile.api import conditions as cond
from reconcile.api.duration import format_duration
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.errors import Failed, NotFound, ReconcileError, Stalled, Waiting
from reconcile.ports.store import Change, ChangeType, Store
from reconcile.runtime.bus import trace_of
from reconcile.runtime.index import Dependants
from reconcile.runtime.logs import get_logger
from reconcile.runtime.outcome import Pending, Success
from reconcile.runtime.run import Reconciler, Run

log = get_logger("policy")

REQUEUE_DEPENDENCY = 30.0
"""Seconds after which a policy looks again for tags that were not there."""


class ImagePolicyReconciler(Reconciler):
    """Steps: find the repository, build the policy, read the tags, choose, look up the digest, report."""

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
        scanned = self._tags.get(repository.key)
        if scanned is None or not scanned.tags.count:
            return self._without_tags(resource, repository, scanned)
        tag = _choose(policy, scanned)
        digest = await self._digest(resource, repository, tag)
        ref = (
            ImageRef(name=repository.spec.image, tag=tag, digest=digest)
            if digest
            else ImageRef(name=repository.spec.image, tag=tag)
        )
        return self._report(run, ref)

    async def removed(self, resource: AnyResource) -> None:
        """Nothing is kept for a policy."""

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

    async def _digest(self, resource: ImagePolicy, repository: ImageRepository, tag: str) -> str | None:
        wanted, latest = resource.spec.digest_reflection_policy, resource.status.latest_ref
        if wanted == "Never":
            return None
        known = latest is not None and (latest.name, latest.tag) == (repository.spec.image, tag) and latest.digest
        if wanted == "IfNotPresent" and known:
            return str(known)
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

    def _report(self, run: Run, ref: ImageRef) -> Success:
        resource: ImagePolicy = run.resource
        previous = resource.status.observed_previous_ref
        latest = resource.status.latest_ref
        if latest is not None and latest != ref:
            previous = latest
            run.set(observed_previous_ref=previous)
        if latest != ref:
            run.set(latest_ref=ref)
            log.info("chose tag", image=ref.name, tag=ref.tag, trace=[trace_of(ref.name, ref.tag)])
        message = f"Latest image tag for {ref.name} resolved to {ref.tag}"
        if ref.digest:
            message += f" with digest {ref.digest}"
        if previous is not None and previous != ref:
            message += f" (previously {previous})"
        always = resource.spec.digest_reflection_policy == "Always"
        return Success(message, after=resource.spec.interval if always else None, trace=message)


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


def _choose(policy: Policy, scanned: Scanned) -> str:
    try:
        return policy.choose(scanned.tags.index()).tag
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
