"""OCIRepository: files of an image in a registry, as the Flux source-controller fetches them.

What an unchanged image costs: one HEAD for a tag, the tag list and a HEAD for a range, nothing for a digest. A layer is streamed
to a file without a name, so that nothing is left of it whatever happens to us, checked against its digest, and unpacked and
packed anew, or kept as it is.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

from reconcile.api import conditions as cond
from reconcile.api.resource import AnyResource
from reconcile.api.source import OCIRepositorySpec
from reconcile.artifact.archive import Index, members_of, pack, unpack
from reconcile.artifact.errors import ArchiveError
from reconcile.artifact.ignore import tree_ignore
from reconcile.errors import Failed, Invalid, ReconcileError, Stalled
from reconcile.ports.events import EventType
from reconcile.registry.access import RegistryAccess
from reconcile.registry.client import RegistryClient
from reconcile.registry.errors import CredentialError
from reconcile.registry.manifest import Descriptor, Manifest
from reconcile.registry.names import Repository
from reconcile.runtime.outcome import Success
from reconcile.sources.base import SourcePass, SourceReconciler, SourceTools
from reconcile.sources.oci_access import login
from reconcile.sources.oci_resolve import (
    InvalidUrl,
    LayerError,
    NoSuchTag,
    Target,
    choose_layer,
    fixed_target,
    image_for_platform,
    repository_of,
    stored_message,
)
from reconcile.sources.oci_tags import TagMemory
from reconcile.sources.oci_verify import Verifier
from reconcile.sources.summary import FETCH_FAILED, SOURCE_VERIFIED

AUTHENTICATION_FAILED = "AuthenticationFailed"
PULL_FAILED = "OCIArtifactPullFailed"
LAYER_FAILED = "OCIArtifactLayerOperationFailed"

MOST_BYTES = 2 * 1024**3
"""Bytes of a layer that are fetched."""
MAX_IGNORE_FILE = 1024 * 1024
SOURCE_IGNORE = ".sourceignore"


class OCIRepositoryReconciler(SourceReconciler):
    """Steps: log in, find the digest, check signatures, pull, store."""

    kind = "OCIRepository"
    link = "latest.tar.gz"

    def __init__(self, tools: SourceTools, access: RegistryAccess, scratch: Path, *, most_bytes: int = MOST_BYTES) -> None:
        """`scratch` is a folder of our own for what is being unpacked; what an earlier process left there is removed."""
        super().__init__(tools)
        self._access = access
        self._verifier = Verifier(tools.store)
        self._tags = TagMemory()
        self._scratch = scratch
        self._clean = False
        self._most_bytes = most_bytes

    async def produce(self, work: SourcePass) -> Success:
        """One pass; raises Stalled for a bad URL, Failed for everything that may pass."""
        spec: OCIRepositorySpec = work.spec
        pull = _Pull(work, asyncio.get_running_loop().time() + max(float(spec.timeout), 1.0))
        repository = self._repository(work)
        client = await login(work, self._access, repository, self.tools.gates)
        target = await self._resolve(pull, client, repository)
        revision = target.revision
        stored = work.artifact is not None and work.artifact.revision == revision
        if not stored:
            await work.outdated("NewRevision", f"new revision '{revision}' for '{target}'")
        await self._verify(pull, client, target, stored)
        if not stored or _content_changed(work):
            if stored:
                await work.announce("building artifact")
            await self._pull(pull, client, target)
        artifact = work.artifact
        return work.done(
            f"stored artifact for digest '{revision}'",
            told=stored_message(revision, spec.url, artifact.metadata if artifact is not None else None),
            trace=("ArtifactUpToDate", f"artifact up-to-date with remote revision: '{revision}'"),
        )

    async def removed(self, resource: AnyResource) -> None:
        """Forget the object and remove its artifacts."""
        self._tags.drop(resource.key)
        await super().removed(resource)

    # --- which image

    def _repository(self, work: SourcePass) -> Repository:
        try:
            return repository_of(work.spec.url)
        except InvalidUrl as error:
            text = f"URL validation failed for '{work.spec.url}': {error}"
            raise work.failed(FETCH_FAILED, Stalled("URLInvalid", text)) from error

    async def _resolve(self, pull: _Pull, client: RegistryClient, repository: Repository) -> Target:
        """The target with its digest."""
        spec: OCIRepositorySpec = pull.work.spec
        async with pull.step("ReadOperationFailed", f"failed to determine the artifact tag for '{spec.url}'"):
            target = fixed_target(repository, spec.ref)
            if target is None and spec.ref is not None:
                media_type = spec.layer_selector.media_type if spec.layer_selector is not None else None
                tag = await self._tags.newest(pull.work.key, client, repository, spec.ref, media_type)
                target = Target(repository, tag)
            if target is None:
                raise NoSuchTag("no reference")
        if target.digest is not None:
            return target
        async with pull.step(PULL_FAILED, "failed to determine artifact digest"):
            return Target(repository, target.tag, await client.digest(repository, target.tag or ""))

    # --- signatures

    async def _verify(self, pull: _Pull, client: RegistryClient, target: Target, stored: bool) -> None:
        work = pull.work
        wanted = work.spec.verify
        if wanted is None:
            work.drop(SOURCE_VERIFIED)
            return
        known = cond.get(work.run.conditions, SOURCE_VERIFIED)
        if stored and known is not None and known.status == "True" and known.observed_generation == work.resource.meta.generation:
            return
        how = "cosign keyless" if wanted.provider == "cosign" and wanted.secret_ref is None else wanted.provider
        try:
            async with asyncio.timeout_at(pull.deadline):
                await self._verifier.verify(client, target, wanted, work.key.namespace)
        except (ReconcileError, TimeoutError) as error:
            text = f"failed to verify the signature using provider '{how}': {_text(error)}"
            raise work.failed(SOURCE_VERIFIED, Failed("VerificationError", text)) from error
        message = f"verified signature of revision {target.revision}"
        work.put(SOURCE_VERIFIED, "True", cond.SUCCEEDED, message)
        work.run.tell(EventType.TRACE, cond.SUCCEEDED, message)

    # --- content

    async def _pull(self, pull: _Pull, client: RegistryClient, target: Target) -> None:
        """Fetch the layer and store it."""
        work, spec = pull.work, pull.work.spec
        selector = spec.layer_selector
        async with pull.step(PULL_FAILED, f"failed to pull artifact from '{spec.url}'"):
            image = await _image(client, target)
        async with pull.step(LAYER_FAILED, ""):
            layer = choose_layer(image.layers, selector)
        copied = selector is not None and selector.operation == "copy"
        scratch = await asyncio.to_thread(self._prepared)
        with tempfile.TemporaryFile(dir=scratch) as blob:
            async with pull.step(LAYER_FAILED, f"failed to fetch the layer of artifact '{target.pinned}'"):
                await self._fetch(client, target, layer, blob, float(spec.timeout))
            write = _copier(blob) if copied else _packer(blob, scratch, spec.ignore)
            try:
                filename = f"{target.digest}.tar.gz"
                await work.store(filename, target.revision, write, metadata=dict(image.annotations) or None)
            except Failed as error:
                raise (work.failed(FETCH_FAILED, error) if error.reason == LAYER_FAILED else error) from error
        work.run.set(observed_ignore=spec.ignore, observed_layer_selector=selector)

    async def _fetch(self, client: RegistryClient, target: Target, layer: Descriptor, blob: BinaryIO, timeout: float) -> None:
        if layer.size > self._most_bytes:
            raise LayerError(f"the layer {layer.digest} has {layer.size} bytes, more than the limit of {self._most_bytes}")
        await client.download(target.repository, layer.digest, blob, limit=self._most_bytes, timeout=max(timeout, 1.0))

    def _prepared(self) -> Path:
        """The scratch folder, emptied before its first use."""
        if not self._clean:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._clean = True
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._scratch


class _Pull:
    """A pass and the moment at which its dealings with the registry must be over."""

    def __init__(self, work: SourcePass, deadline: float) -> None:
        self.work = work
        self.deadline = deadline

    @asynccontextmanager
    async def step(self, reason: str, what: str) -> AsyncIterator[None]:
        """A step whose errors become Failed with `reason` and a text that begins with `what`, and the condition FetchFailed."""
        try:
            async with asyncio.timeout_at(self.deadline):
                yield
        except (ReconcileError, TimeoutError) as error:
            self._fail(reason, what, error)

    def _fail(self, reason: str, what: str, error: Exception) -> NoReturn:
        text = f"{what}: {_text(error)}" if what else _text(error)
        if isinstance(error, CredentialError) and self.work.spec.provider != "generic":
            reason, text = AUTHENTICATION_FAILED, f"failed to get credential from {self.work.spec.provider}: {error}"
        raise self.work.failed(FETCH_FAILED, Failed(reason, text)) from error


def _text(error: Exception) -> str:
    return str(error) or "context deadline exceeded"


def _content_changed(work: SourcePass) -> bool:
    """Whether the artifact was made in another way than is wanted now."""
    spec, status = work.spec, work.before
    return bool(spec.ignore != status.observed_ignore or spec.layer_selector != status.observed_layer_selector)


async def _image(client: RegistryClient, target: Target) -> Manifest:
    """The image behind the digest; of an index, the one for our platform."""
    manifest = await client.manifest(target.repository, target.digest or "")
    if not manifest.is_index:
        return manifest
    image = await client.manifest(target.repository, image_for_platform(manifest, target.pinned).digest)
    if image.is_index:
        raise LayerError(f"an index within an index is not supported: {target.pinned}")
    return image


def _copier(blob: BinaryIO) -> Callable[[BinaryIO], None]:
    def write(out: BinaryIO) -> None:
        blob.seek(0)
        shutil.copyfileobj(blob, out, 1024 * 1024)

    return write


def _packer(blob: BinaryIO, scratch: Path, ignore: str | None) -> Callable[[BinaryIO], None]:
    def write(out: BinaryIO) -> None:
        blob.seek(0)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            root = Path(folder, "layer")
            try:
                index = unpack(blob, root)
                rules = tree_ignore(_ignore_files(root, index), ignore)
            except (ArchiveError, Invalid) as error:
                raise Failed(LAYER_FAILED, f"failed to extract layer contents from artifact: {error}") from error
            pack(members_of(root, rules), out, ignore=rules)

    return write


def _ignore_files(root: Path, index: Index) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in index.files:
        if path.rpartition("/")[2] != SOURCE_IGNORE or ".git" in path.split("/"):
            continue
        with Path(root, path).open("rb") as file:
            text = file.read(MAX_IGNORE_FILE + 1)
        if len(text) > MAX_IGNORE_FILE:
            raise Invalid(f"'{path}' is larger than {MAX_IGNORE_FILE} bytes")
        found[path] = text.decode("utf-8", "replace")
    return found
