"""Bucket: objects of a store become an artifact.

As Flux source-controller does it, except that what is known already is not downloaded again: the objects whose version has not
changed are taken out of the artifact that is there.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.source import BucketSpec
from reconcile.artifact.archive import Member, pack, unpack
from reconcile.errors import Failed, ReconcileError, Stalled
from reconcile.net.errors import DEADLINE
from reconcile.registry.errors import CredentialError
from reconcile.runtime.outcome import Success
from reconcile.sources.base import SourcePass, SourceReconciler, SourceTools
from reconcile.sources.buckets.access import AUTHENTICATION_FAILED, BucketAccess
from reconcile.sources.buckets.client import BucketClient, Text
from reconcile.sources.buckets.download import File, download
from reconcile.sources.buckets.keys import IGNORE_FILE, paths_of, revision, same_revision
from reconcile.sources.buckets.known import Known, Memory
from reconcile.sources.buckets.listing import BucketLimits, Listing, look
from reconcile.sources.buckets.transfer import to_end
from reconcile.sources.summary import FETCH_FAILED, STORAGE_OPERATION_FAILED

BUCKET_OPERATION_FAILED = "BucketOperationFailed"
IDENTITY_GATE = "ObjectLevelWorkloadIdentity"

MAX_REMEMBERED = 64 * 1024
"""Bytes of a `.sourceignore` that is kept in memory between passes; a larger one is read each time."""

_WORK = "work-"
_KNOWN = "known"


@dataclass(frozen=True, slots=True)
class BucketOptions:
    """Settings of the controller.

    Attributes:
        folder: folder of its own, on the disk of the artifacts: for downloads, and for what is known of artifacts.
        limits: bounds of one Bucket.
        concurrent: objects of one Bucket fetched at once.
        algorithm: of revisions, one of those that artifacts have.
    """

    folder: Path
    limits: BucketLimits = field(default_factory=BucketLimits)
    concurrent: int = 32
    algorithm: str = "sha256"


class BucketReconciler(SourceReconciler):
    """The controller of Buckets."""

    kind = "Bucket"
    link = "latest.tar.gz"

    def __init__(self, tools: SourceTools, access: BucketAccess, options: BucketOptions) -> None:
        super().__init__(tools)
        self._access = access
        self._options = options
        self._memory = Memory(options.folder / _KNOWN)
        self._ignores: dict[Key, tuple[str, Text]] = {}
        self._swept = False

    async def produce(self, work: SourcePass) -> Success:
        """List; if that is news, fetch what is not known, pack, store."""
        spec: BucketSpec = work.spec
        if spec.service_account_name and spec.provider != "generic":
            raise work.failed(FETCH_FAILED, _no_identity(bool(self.tools.gates.get(IDENTITY_GATE))))
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(self._access.opened(work.key.namespace, spec))
            except (Failed, Stalled) as error:
                raise work.failed(FETCH_FAILED, error) from error.__cause__
            return await self._produce(work, client, spec)

    async def removed(self, resource: AnyResource) -> None:
        """As for every source; what was known of its objects goes too."""
        await super().removed(resource)
        self._ignores.pop(resource.key, None)
        await asyncio.to_thread(self._memory.forget, resource.key)

    async def _produce(self, work: SourcePass, client: BucketClient, spec: BucketSpec) -> Success:
        place = _identity(spec)
        async with _phase(work, ""):
            listing = await self._look(work.key, client, spec, place)
        found = listing.etags
        stored = work.artifact
        if stored is not None and same_revision(found, stored.revision):
            return self._done(work, spec, found)
        async with _phase(work, f"fetch from bucket '{spec.bucket_name}' failed: "):
            paths = paths_of([*listing.entries, *([IGNORE_FILE] if listing.ignore is not None else [])])
        await work.outdated("NewRevision", f"new upstream revision '{self._revision(found)}'")
        async with self._folder(work) as folder:
            async with _phase(work, f"fetch from bucket '{spec.bucket_name}' failed: "):
                files = await self._fetch(work, client, listing, folder, place)
            etags = {key: file.etag for key, file in files.items()}
            if etags != found:
                await work.outdated("NewRevision", f"new upstream revision '{self._revision(etags)}'")
            if stored is None or not same_revision(etags, stored.revision):
                await self._store(work, lambda out: pack(_members(paths, files, listing.ignore), out), etags, place)
        return self._done(work, spec, etags)

    async def _look(self, key: Key, client: BucketClient, spec: BucketSpec, place: str) -> Listing:
        before = self._ignores.get(key)
        known = before[1] if before is not None and before[0] == place else None
        limits = self._options.limits
        listing = await look(client, spec.bucket_name, spec.prefix or "", spec.ignore, known=known, limits=limits)
        if listing.ignore is not None and len(listing.ignore.content) <= MAX_REMEMBERED:
            self._ignores[key] = place, listing.ignore
        else:
            self._ignores.pop(key, None)
        return listing

    async def _fetch(
        self, work: SourcePass, client: BucketClient, listing: Listing, folder: Path, place: str
    ) -> Mapping[str, File]:
        kept = await to_end(partial(self._unpacked, work, listing, folder / "kept", place))
        wanted = [entry for key, entry in listing.entries.items() if key not in kept]
        options = self._options
        into = folder / "new"
        await asyncio.to_thread(into.mkdir)
        return {**kept, **await download(client, wanted, into, limits=options.limits, concurrent=options.concurrent)}

    def _unpacked(self, work: SourcePass, listing: Listing, folder: Path, place: str) -> dict[str, File]:
        """The objects that the present artifact has in the version that the bucket has now."""
        artifact = work.artifact
        if artifact is None:
            return {}
        known = self._memory.load(work.key, artifact.digest, place)
        same = [key for key, entry in listing.entries.items() if known.etags.get(key) == entry.etag]
        if not same:
            return {}
        try:
            with self.tools.storage.path_of(artifact).open("rb") as packed:
                unpack(packed, folder)
        except (OSError, ReconcileError):
            return {}  # whatever is wrong with it, the bucket has it all
        found = {key: File(known.etags[key], folder / path) for key, path in paths_of(same).items()}
        return {key: file for key, file in found.items() if file.place.is_file()}

    async def _store(self, work: SourcePass, write: Callable[[BinaryIO], None], etags: Mapping[str, str], place: str) -> None:
        name = self._revision(etags)
        artifact = await work.store(f"{name.partition(':')[2]}.tar.gz", name, write)
        work.run.set(observed_ignore=work.spec.ignore)
        with suppress(OSError):  # without it the next change costs a full download, and nothing else
            await asyncio.to_thread(self._memory.save, work.key, Known(artifact.digest, place, etags))

    def _done(self, work: SourcePass, spec: BucketSpec, etags: Mapping[str, str]) -> Success:
        name = self._revision(etags)
        return work.done(
            f"stored artifact: revision '{name}'",
            told=f"stored artifact with {len(etags)} fetched files from '{spec.bucket_name}' bucket",
            trace=("ArtifactUpToDate", f"artifact up-to-date with remote revision: '{name}'"),
        )

    def _revision(self, etags: Mapping[str, str]) -> str:
        return revision(etags, self._options.algorithm)

    @asynccontextmanager
    async def _folder(self, work: SourcePass) -> AsyncIterator[Path]:
        """A folder for one pass; those that a killed process left are removed before the first."""
        try:
            if not self._swept:
                await asyncio.to_thread(_sweep, self._options.folder)
                self._swept = True
            folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=_WORK, dir=self._options.folder))
        except OSError as error:
            text = f"failed to create temporary working directory: {error.strerror}"
            raise work.failed(STORAGE_OPERATION_FAILED, Failed("DirCreationFailed", text)) from error
        try:
            yield folder
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


@asynccontextmanager
async def _phase(work: SourcePass, what: str) -> AsyncIterator[None]:
    """One phase of fetching, within the Bucket's timeout; `what` goes before the texts of errors."""
    try:
        async with asyncio.timeout(float(work.spec.timeout)):
            yield
    except CredentialError as error:
        raise work.failed(FETCH_FAILED, Failed(AUTHENTICATION_FAILED, str(error))) from error
    except ReconcileError as error:
        raise work.failed(FETCH_FAILED, Failed(BUCKET_OPERATION_FAILED, f"{what}{error}")) from error
    except TimeoutError:
        text = f"{what or f'indexation of objects from bucket {work.spec.bucket_name!r} failed: '}{DEADLINE}"
        raise work.failed(FETCH_FAILED, Failed(BUCKET_OPERATION_FAILED, text)) from None


def _members(paths: Mapping[str, str], files: Mapping[str, File], ignore: Text | None) -> Iterator[Member]:
    """The files of the artifact, read one at a time."""
    for key, path in paths.items():
        if key == IGNORE_FILE and ignore is not None:
            yield Member(path, ignore.content)
        elif key in files:
            yield Member(path, files[key].place.read_bytes())


def _identity(spec: BucketSpec) -> str:
    return f"{spec.provider} {spec.endpoint} {spec.bucket_name}"


def _no_identity(enabled: bool) -> Stalled:
    if enabled:
        return Stalled(AUTHENTICATION_FAILED, "a ServiceAccount's identity at a cloud cannot be used for buckets; name a Secret")
    return Stalled(
        "FeatureGateDisabled",
        f"to use spec.serviceAccountName for provider authentication please enable the {IDENTITY_GATE} feature gate in the "
        "controller",
    )


def _sweep(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.glob(f"{_WORK}*"):
        shutil.rmtree(left, ignore_errors=True)
