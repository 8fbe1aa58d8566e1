"""ImageRepository: list the tags of an image on schedule, and say when they changed.

Behaves like Flux's ImageRepository; what is better is that an unchanged scan costs one request per page and no write, that two
objects of one image scan once, and that a failed scan stays visible until a scan succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from imagebot.api import ImageRepository, ScanResult
from imagebot.hints.desk import Desk
from imagebot.scan import tags as kept
from imagebot.scan.access import Access, check_identity_gate, repository_of
from imagebot.scan.cache import KeptTags, Scanned, TagStore
from reconcile.api import conditions as cond
from reconcile.api.duration import format_duration
from reconcile.api.resource import AnyResource
from reconcile.errors import Failed, ReconcileError
from reconcile.ports.clock import Clock, parse_timestamp, timestamp
from reconcile.registry.client import RegistryClient
from reconcile.registry.names import Repository
from reconcile.registry.tags import TagPages
from reconcile.runtime.outcome import Success
from reconcile.runtime.run import Reconciler, Run

HEARTBEAT = timedelta(minutes=10)
"""How old `scanTime` may get in the status while nothing else changes."""

MIN_TIMEOUT = 1.0
NOT_DUE = ""
ORDINARY = ("triggered by interval", "no tags in database", "told of a push")
"""Reasons that no person gave: time has passed, we were started again (tags are kept in memory only), a registry gave a hint."""


class ImageRepositoryReconciler(Reconciler):
    """Steps: check the spec, find credentials, decide whether a scan is due, scan, keep, report."""

    kind = "ImageRepository"
    announces_requests = True
    acknowledges_suspended = True

    def __init__(self, access: Access, tags: TagStore, clock: Clock, gates: Mapping[str, bool], desk: Desk) -> None:
        self.desk = desk
        self._access = access
        self._tags = tags
        self._clock = clock
        self._gates = gates
        self.lists = SharedLists()

    @property
    def tags(self) -> TagStore:
        """What the scans have found."""
        return self._tags

    async def reconcile(self, run: Run) -> Success:
        """One pass; raises Stalled for a bad name, Failed for everything that may pass."""
        resource: ImageRepository = run.resource
        spec, key = resource.spec, resource.key
        check_identity_gate(resource, self._gates)
        repository = repository_of(resource)
        await self._open(run)
        limit = max(spec.timeout if spec.timeout is not None else spec.interval, MIN_TIMEOUT)
        try:
            async with asyncio.timeout(limit):
                client = await self._access.client(resource, repository)
                last = self._tags.get(key)
                reason, wait = self._due(run, repository, last)
                if reason is NOT_DUE and last is not None:
                    return self._report(run, last, wait, "no change in repository configuration since last scan")
                self.desk.scanning(key)
                # Not worth a write: watchers see such a pass only when it brings news.
                await run.progress(f"scanning: {reason}", write=reason not in ORDINARY)
                scanned = await self._scan(resource, repository, client, last)
        except TimeoutError as error:
            raise Failed("ReadOperationFailed", "scan failed: context deadline exceeded") from error
        same = last is not None and last.revision == scanned.revision
        self._tags.put(key, scanned)
        return self._report(run, scanned, spec.interval, "tags did not change" if same else "successful scan")

    async def removed(self, resource: AnyResource) -> None:
        """Drop the tags of the object, and take no more hints for it."""
        self._tags.drop(resource.key)
        self.desk.close(resource.key)

    async def _open(self, run: Run) -> None:
        """Take hints for the object, where it asks for it; that this cannot be done is no reason not to scan."""
        with suppress(ReconcileError):  # the Secret could not be read this time: what is said of hints stays
            path, problem = await self.desk.open(run.resource)
            run.set(hint_path=path, hint_problem=problem)

    # --- when

    def _due(self, run: Run, repository: Repository, last: Scanned | None) -> tuple[str, float]:
        """Reason for a scan, or NOT_DUE and the seconds until one is due."""
        resource: ImageRepository = run.resource
        status, spec = resource.status, resource.spec
        ready = cond.get(status.conditions, cond.READY)
        if status.last_scan_result is None:
            return "first scan", 0.0
        if run.requested:
            return "reconcile requested", 0.0
        if repository.canonical != status.canonical_image_name:
            return "new image name", 0.0
        if set(spec.exclusions) != set(status.observed_exclusion_list or ()):
            return "updated exclusion list", 0.0
        if last is None:
            return "no tags in database", 0.0
        if self.desk.due(resource.key):
            return "told of a push", 0.0
        if ready is not None and ready.status == "False":
            return "retry after a failure", 0.0
        since = (self._clock.now() - last.at).total_seconds()
        wait = spec.interval - since
        # A clock that was set back says nothing of how long ago the last scan was.
        return ("triggered by interval", 0.0) if wait < 1.0 or since < 0.0 else (NOT_DUE, wait)

    # --- what

    async def _scan(
        self, resource: ImageRepository, repository: Repository, client: RegistryClient, last: Scanned | None
    ) -> Scanned:
        exclusions = tuple(resource.spec.exclusions)
        known = last if last and last.canonical == repository.canonical and set(last.exclusions) == set(exclusions) else None
        try:
            pages = await self.lists.list(client, repository, known.digest if known else None)
            now = self._clock.now()
            if known is not None and pages.digest == known.digest:
                return replace(known, at=now)
            found = kept.Exclusion(exclusions).keep(pages.tags)
        except ReconcileError as error:
            raise Failed("ReadOperationFailed", f"scan failed: {error}") from error
        tags = KeptTags(found, known.tags if known else None)
        return Scanned(repository.canonical, exclusions, pages.digest, tags, kept.revision(found), now)

    # --- telling

    def _report(self, run: Run, scanned: Scanned, wait: float, trace: str) -> Success:
        old: ScanResult | None = run.resource.status.last_scan_result
        count = scanned.tags.count
        latest = list(scanned.tags.latest) or None
        result = ScanResult(revision=scanned.revision, tag_count=count, scan_time=timestamp(scanned.at), latest_tags=latest)
        unchanged = old is not None and (old.revision, old.tag_count, old.latest_tags) == (scanned.revision, count, latest)
        if unchanged and old is not None and old.scan_time is not None:
            overdue = scanned.at - parse_timestamp(old.scan_time) >= HEARTBEAT
            run.stamp(lambda status: status.model_copy(update={"last_scan_result": result}), due=overdue)
        else:
            run.set(last_scan_result=result)
        run.set(canonical_image_name=scanned.canonical, observed_exclusion_list=list(scanned.exclusions))
        return Success(
            f"successful scan: found {count} tags with checksum {scanned.revision}",
            after=max(wait, 0.0),
            trace=f"{trace}, next scan in {format_duration(round(max(wait, 0.0)))}",
        )


class SharedLists:
    """One listing for all who ask for the same image with the same client at the same time."""

    def __init__(self) -> None:
        self._running: dict[tuple[RegistryClient, str], _Listing] = {}

    async def list(self, client: RegistryClient, repository: Repository, known: str | None) -> TagPages:
        """The tag pages; joins a listing that is under way, which ends when nobody waits for it any more.

        `known` is the digest of the pages that the caller has already; pages with that digest come without tags.
        """
        name = (client, repository.canonical)
        listing = self._running.get(name)
        if listing is None or listing.known not in (None, known):  # theirs may come without the tags that we need
            previous = TagPages(known, (), 0, 0) if known else None
            task = asyncio.create_task(client.list_tags(repository, previous), name=f"list {repository.canonical}")
            listing = self._running[name] = _Listing(task, known)
            task.add_done_callback(lambda _: self._running.pop(name, None))
        listing.waiting += 1
        try:
            return await asyncio.shield(listing.task)
        finally:
            listing.waiting -= 1
            if not listing.waiting and not listing.task.done():
                listing.task.cancel()


@dataclass(slots=True)
class _Listing:
    task: asyncio.Task[TagPages]
    known: str | None
    waiting: int = 0
