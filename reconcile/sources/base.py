"""What the controllers of sources share: the order of a pass, its conditions and events, storing, cleaning up.

A pass of Flux's source-controller: old artifacts are collected; the present one is checked and forgotten when it is missing or
damaged; then the kind does its work and, where there is news, stores a new artifact. A failure leaves the artifact as it is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, TypeVar

from reconcile.api import conditions as cond
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.source import GROUP, Artifact
from reconcile.artifact.storage import Storage
from reconcile.errors import Failed, ReasonedError, ReconcileError
from reconcile.ports.events import EventType
from reconcile.ports.store import Store
from reconcile.redact import redact
from reconcile.runtime.backoff import jittered
from reconcile.runtime.bus import Bus
from reconcile.runtime.outcome import Success
from reconcile.runtime.run import Reconciler, Run
from reconcile.runtime.telling import Teller
from reconcile.sources.summary import (
    ARTIFACT_IN_STORAGE,
    ARTIFACT_OUTDATED,
    NEGATIVE,
    SOURCE_VERIFIED,
    STORAGE_OPERATION_FAILED,
    failed,
    summarize,
    without_failures,
)

REVISION, DIGEST = f"{GROUP}/revision", f"{GROUP}/digest"
"""Metadata of events about an artifact."""

ErrorT = TypeVar("ErrorT", bound=ReasonedError)


@dataclass(frozen=True, slots=True)
class SourceTools:
    """What every controller of a source is given. Times are in seconds."""

    store: Store
    storage: Storage
    teller: Teller
    """Tells people what happens outside passes."""
    gates: Mapping[str, bool] = field(default_factory=dict)
    jitter: float = 0.05
    """Share of an interval by which a return may come earlier or later, so that many objects do not come at once."""
    bus: Bus = field(default_factory=Bus)
    """Knows which images our own commits brought."""
    requeue_dependency: float = 30.0
    """How long to wait for an object that is not ready."""


class SourcePass:
    """One pass over one source: the run, what the object said before it, and the steps that all kinds have in common."""

    def __init__(self, run: Run, tools: SourceTools, link: str) -> None:
        """`link` is the name under which the newest artifact is always found, empty where the kind has none."""
        self.run = run
        self.before = run.resource.status
        """The status as it was when the pass began."""
        self._tools = tools
        self._link = link

    @property
    def resource(self) -> AnyResource:
        """The object."""
        return self.run.resource

    @property
    def key(self) -> Key:
        """Its namespace and name."""
        return self.run.resource.key

    @property
    def spec(self) -> Any:
        """What is wanted."""
        return self.run.resource.spec

    @property
    def status(self) -> Any:
        """The status as far as this pass has got; `run.set` changes it."""
        return self.run.status

    @property
    def artifact(self) -> Artifact | None:
        """The artifact that is stored, checked at the start of the pass."""
        found: Artifact | None = self.run.status.artifact
        return found

    # --- conditions

    def put(self, kind: str, status: Any, reason: str, message: str) -> None:
        """Set a condition."""
        generation = self.run.resource.meta.generation
        self.run.conditions = cond.put(
            self.run.conditions, kind, status, reason, message, generation=generation, now=self.run.timestamp
        )

    def drop(self, *kinds: str) -> None:
        """Remove conditions."""
        self.run.conditions = cond.drop(self.run.conditions, *kinds)

    def failed(self, kind: str, error: ErrorT) -> ErrorT:
        """Say by a condition of type `kind` that a step failed; gives `error` back for `raise`.

        What earlier steps or passes said of their own failures goes: Ready tells of one failure, the one that just happened.
        """
        self.run.conditions = without_failures(self.run.conditions, kind)
        self.put(kind, "True" if kind in NEGATIVE else "False", error.reason, redact(error.message))
        return error

    async def announce(self, message: str, *, write: bool = True) -> None:
        """There is work: say so in Reconciling and Ready, with `write` at once."""
        self.put(cond.READY, "Unknown", cond.PROGRESSING, message)
        await self.run.progress(message, write=write)

    async def outdated(self, reason: str, message: str) -> None:
        """The artifact, if there is one, is not what it should be because of `message`; a new one is being made."""
        if self.artifact is not None:
            self.put(ARTIFACT_OUTDATED, "True", reason, message)
        await self.announce(f"building artifact: {message}")

    # --- the artifact

    async def check(self) -> None:
        """Collect what is old; forget the artifact if it is not there as it was stored; keep its address up to date.

        Raises Failed: StatOperationFailed, with the condition StorageOperationFailed.
        """
        storage, kind = self._tools.storage, self.resource.kind
        try:
            collected = await storage.collect(kind, self.key, self.artifact)
        except (ReconcileError, OSError) as error:
            self.run.tell(EventType.WARNING, "GarbageCollectionFailed", f"garbage collection of artifacts failed: {error}")
        else:
            if collected:
                text = f"garbage collected {len(collected)} artifacts"
                self.run.tell(EventType.TRACE, "GarbageCollectionSucceeded", text)
        artifact = self.artifact
        if artifact is None:
            await self.announce("building artifact", write=not self.run.new_generation)
            return
        try:
            state = await storage.inspect(artifact)
        except (ReconcileError, OSError) as error:
            failure = Failed("StatOperationFailed", f"failed to look at the artifact in storage: {error}")
            raise self.failed(STORAGE_OPERATION_FAILED, failure) from error
        if state != "intact":
            if state == "damaged":
                text = f"artifact '{artifact.path}' did not have its digest '{artifact.digest}' any more and was removed"
                self.run.tell(EventType.WARNING, "ArtifactVerificationFailed", text)
            self.run.set(artifact=None)
            self.drop(ARTIFACT_IN_STORAGE)
            await self.announce("building artifact: disappeared from storage")
            return
        self._show(artifact.model_copy(update={"url": storage.url_of(artifact.path)}))

    async def store(
        self,
        filename: str,
        revision: str,
        write: Callable[[BinaryIO], None],
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Artifact:
        """Store what `write` writes (in a thread) and note it in the status.

        Raises:
            ReasonedError: `write` raised it.
            Failed: ArchiveOperationFailed, with the condition StorageOperationFailed.
        """
        try:
            made = await self._tools.storage.put(
                self.resource.kind, self.key, filename, revision, write, metadata=metadata, link=self._link
            )
        except ReasonedError:
            raise
        except (ReconcileError, OSError) as error:
            raise self.failed(
                STORAGE_OPERATION_FAILED,
                Failed("ArchiveOperationFailed", f"unable to archive artifact to storage: {error}"),
            ) from error
        old: Artifact | None = self.artifact
        if old is not None and made.model_copy(update={"last_update_time": old.last_update_time}) == old:
            made = old  # nobody who follows it has anything to do
        self._show(made)
        return made

    def _show(self, artifact: Artifact) -> None:
        if artifact != self.artifact:
            self.run.set(artifact=artifact)
        if self._link:
            url = self._tools.storage.link_url(self.resource.kind, self.key, self._link)
            if self.run.status.url != url:
                self.run.set(url=url)

    # --- the end

    def done(self, message: str, *, told: str, trace: tuple[str, str] | None = None, interval: float | None = None) -> Success:
        """The artifact is what it should be.

        Args:
            message: for ArtifactInStorage and Ready, such as `stored artifact for revision 'main@sha1:…'`.
            told: text of the event NewArtifact, or Succeeded after a failure, such as `stored artifact for commit '…'`.
            trace: reason and text of what is told when nothing changed and somebody had asked for the pass.
            interval: seconds until the next look, where `spec.interval` may be missing.

        Raises:
            Failed: a condition still says that something is wrong.
        """
        artifact = self.artifact
        if artifact is None:
            raise Failed("ArchiveOperationFailed", "no artifact was stored")
        self.run.conditions = without_failures(cond.drop(self.run.conditions, ARTIFACT_OUTDATED))
        self.put(ARTIFACT_IN_STORAGE, "True", cond.SUCCEEDED, message)
        verdict = summarize(cond.drop(self.run.conditions, cond.RECONCILING, cond.STALLED))
        if verdict is None or verdict.status != "True":
            raise Failed(verdict.reason if verdict else cond.FAILED, verdict.message if verdict else message)
        new = self.before.artifact is None or self.before.artifact.digest != artifact.digest
        recovered = failed(self.before.conditions) or _ready_was(self.before.conditions, "False")
        if trace is not None and self.run.requested and not (new or recovered):
            self.run.tell(EventType.TRACE, *trace)
        return Success(
            verdict.message,
            after=jittered(float(self.spec.interval if interval is None else interval), self._tools.jitter),
            reason=verdict.reason,
            event=told if new or recovered else None,
            event_reason="NewArtifact" if new else cond.SUCCEEDED,
            quiet=True,
            metadata={REVISION: artifact.revision, DIGEST: artifact.digest},
        )


def _ready_was(conditions: Any, status: str) -> bool:
    ready = cond.get(conditions, cond.READY)
    return ready is not None and ready.status == status


class SourceReconciler(Reconciler):
    """A controller of one kind of source. A kind says in `produce` how it gets and stores its artifact."""

    announces_requests = True
    acknowledges_suspended = True
    link = ""
    """Name under which the newest artifact is always found, such as `latest.tar.gz`; empty: the kind has none."""

    def __init__(self, tools: SourceTools) -> None:
        self.tools = tools

    async def reconcile(self, run: Run) -> Success:
        """One pass; raises as `produce`."""
        work = SourcePass(run, self.tools, self.link)
        verified = cond.get(run.conditions, SOURCE_VERIFIED)
        if verified is not None and verified.status == "False":
            work.drop(SOURCE_VERIFIED)
        await work.check()
        done = await self.produce(work)
        if done.event is None or work.artifact is None:
            return done
        return replace(done, metadata={**done.metadata, **await self.tools.bus.metadata(work.artifact.revision)})

    @abstractmethod
    async def produce(self, work: SourcePass) -> Success:
        """Find out what the artifact should be and store it if it is not so; ends with `work.done`.

        Raises what a reconciler may raise; by `raise work.failed(condition, Failed(…))` for the failure of a step.
        """

    def observes_suspended(self, resource: AnyResource) -> bool:
        """A suspended source that has been looked at before still notes its generation."""
        return bool(resource.status.conditions)

    async def removed(self, resource: AnyResource) -> None:
        """Remove every artifact of an object that is gone; raises what the storage raises, so that it is tried again."""
        tools = self.tools
        try:
            count = await tools.storage.remove(resource.kind, resource.key)
        except (ReconcileError, OSError) as error:
            text = f"garbage collection for deleted resource failed: {error}"
            tools.teller.tell(resource, EventType.WARNING, "GarbageCollectionFailed", text)
            raise
        if count:
            text = "garbage collected artifacts for deleted resource"
            tools.teller.tell(resource, EventType.TRACE, "GarbageCollectionSucceeded", text)
