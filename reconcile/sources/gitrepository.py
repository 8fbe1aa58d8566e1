"""The controller of GitRepository: from a reference of a remote repository to an artifact with the files of its commit.

The bare mirrors are shared with everybody else in the process who uses the same remotes; there is no work tree. When the remote
has not moved, a pass is one `git ls-remote`, and nothing at all when the reference is a commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from reconcile.api import conditions as cond
from reconcile.api.meta import Key
from reconcile.api.source import Artifact, GitInclude
from reconcile.errors import Failed, Invalid, ReasonedError, ReconcileError, Waiting
from reconcile.git.auth import GitCredentials
from reconcile.git.errors import EmptyRepository, InvalidCredentials
from reconcile.git.mirror import Mirror
from reconcile.git.mirrors import Mirrors
from reconcile.git.objects import TREE_LIMIT
from reconcile.git.signatures import subject
from reconcile.git.types import Resolved
from reconcile.git.verify import TrustedKeys
from reconcile.ports.events import EventType
from reconcile.ports.store import Change
from reconcile.runtime.outcome import Success
from reconcile.runtime.threads import Threads
from reconcile.sources.base import SourcePass, SourceReconciler, SourceTools
from reconcile.sources.git_access import AUTHENTICATION_FAILED, CloudLogin, GitAccess, for_module
from reconcile.sources.git_archive import Writer, plan
from reconcile.sources.git_includes import Archive, Grafted, Repositories, differ, find_includes, graft
from reconcile.sources.git_reference import Target, find_target, named_commit
from reconcile.sources.git_tree import Limits, Tree, check_sparse, read_ignore, read_tree, sparse_folders
from reconcile.sources.git_verification import Verifier, check_mode, unsatisfied
from reconcile.sources.summary import (
    FETCH_FAILED,
    INCLUDE_UNAVAILABLE,
    SOURCE_VERIFIED,
    STORAGE_OPERATION_FAILED,
)

KIND = "GitRepository"
THREADS = 4


@dataclass(slots=True)
class _Checkout:
    """What a pass has found out so far."""

    mirror: Mirror
    credentials: GitCredentials
    included: list[Artifact]
    target: Target = field(default_factory=lambda: Target("", ""))
    tree: Tree = field(default_factory=Tree)


class GitRepositoryReconciler(SourceReconciler):
    """Reconciles GitRepository."""

    kind = KIND

    def __init__(
        self,
        tools: SourceTools,
        mirrors: Mirrors,
        *,
        logins: Mapping[str, CloudLogin] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`logins` are the providers other than `generic`, by name; `limits` bound one artifact."""
        super().__init__(tools)
        self.repositories = Repositories(tools.store)
        """Who includes whom, who follows which URL; its `note` is to be told of every change of a GitRepository."""
        self._mirrors = mirrors
        self._access = GitAccess(tools.store, tools.gates, logins)
        self._limits = limits or Limits()
        self._threads = Threads("git-source", THREADS)
        self._verifier = Verifier(self._threads)

    def close(self) -> None:
        """End the threads; no pass may be running."""
        self._threads.close()

    # --- what wakes a repository

    async def on_repository(self, change: Change) -> Iterable[Key]:
        """The repositories that include one whose artifact has changed."""
        old = change.old.status.artifact if change.old is not None else None
        new = change.new.status.artifact
        if _identity(old) == _identity(new):
            return ()
        return self.repositories.including(change.new.key)

    async def pushed(self, url: str, ref: str) -> list[Key]:
        """The repositories that are to be looked at since `ref` (a full name) of the repository at `url` was moved by us."""
        return await self.repositories.following(url, ref)

    # --- a pass

    async def produce(self, work: SourcePass) -> Success:
        """One pass; raises with the reasons of Flux's GitRepository."""
        if work.spec.verify is None:
            work.drop(SOURCE_VERIFIED)
            work.run.set(source_verification_mode=None)
        try:
            credentials = await self._access.credentials(work.resource)
        except ReasonedError as error:
            raise work.failed(FETCH_FAILED, error) from error
        included = await self._find_includes(work)
        checkout = await self._find_target(work, credentials, included)
        target = checkout.target
        revision = work.artifact.revision if work.artifact is not None else ""
        outdated = differ(included, work.status.included_artifacts) or _settings_changed(work.spec, work.status)
        if revision == target.revision and not outdated and not _unverified(work):
            return self._done(work, revision, trace=True)
        await self._check_out(work, checkout)
        await self._verify(work, checkout)
        if revision != target.revision:
            await work.outdated("NewRevision", f"new upstream revision '{target.revision}'")
        if revision != target.revision or outdated:
            await self._store(work, checkout)
        self._record(work, included)
        return self._done(work, await self._subject(checkout))

    async def _find_includes(self, work: SourcePass) -> list[Artifact]:
        try:
            found = await find_includes(self.tools.store, work.key.namespace, work.spec.include, self.tools.requeue_dependency)
        except Waiting as error:
            raise work.failed(INCLUDE_UNAVAILABLE, error) from error
        work.drop(INCLUDE_UNAVAILABLE)
        if differ(found, work.status.included_artifacts):
            await work.outdated("IncludeChange", "included artifacts differ from last observed includes")
        return found

    async def _find_target(self, work: SourcePass, credentials: GitCredentials, included: list[Artifact]) -> _Checkout:
        spec = work.spec
        with _fetching(work):
            mirror = self._mirrors.mirror(spec.url, credentials, float(spec.timeout))
            return _Checkout(mirror, credentials, included, named_commit(spec.ref) or await find_target(mirror, spec.ref))

    async def _check_out(self, work: SourcePass, checkout: _Checkout) -> None:
        spec, mirror, target = work.spec, checkout.mirror, checkout.target

        def open_module(url: str) -> Mirror:
            return self._mirrors.mirror(url, for_module(spec.url, checkout.credentials, url), float(spec.timeout))

        with _fetching(work):
            if target.branch:
                await mirror.fetch_from(target.commit, target.branch)
            else:
                await mirror.fetch(Resolved(target.commit, target.ref))
            modules: Callable[[str], Mirror] | None = open_module if spec.recurse_submodules else None
            folders = sparse_folders(spec.sparse_checkout) if target.sparse else []
            checkout.tree = await read_tree(mirror, target.commit, spec.url, modules, folders)
        try:
            check_sparse(checkout.tree, spec.sparse_checkout)
        except Failed as error:
            raise work.failed(FETCH_FAILED, error) from error
        work.drop(FETCH_FAILED)

    async def _verify(self, work: SourcePass, checkout: _Checkout) -> None:
        wanted = work.spec.verify
        if wanted is None:
            return
        try:
            secret = await self.tools.store.secret(Key(work.key.namespace, wanted.secret_ref.name))
        except ReconcileError as error:
            text = f"public keys secret error: {error}"
            raise work.failed(SOURCE_VERIFIED, Failed("VerificationError", text)) from error
        try:
            check_mode(wanted, checkout.target)
            message = await self._verifier.verify(checkout.mirror, wanted, checkout.target, TrustedKeys.of(secret.data))
        except ReasonedError as error:
            raise work.failed(SOURCE_VERIFIED, error) from error
        except ReconcileError as error:
            text = f"failed to verify the signature: {error}"
            raise work.failed(SOURCE_VERIFIED, Failed("VerificationError", text)) from error
        work.put(SOURCE_VERIFIED, "True", cond.SUCCEEDED, message)
        work.run.tell(EventType.TRACE, cond.SUCCEEDED, message)

    async def _store(self, work: SourcePass, checkout: _Checkout) -> None:
        tree, target = checkout.tree, checkout.target
        grafted: list[Grafted] = []
        texts: dict[str, str] = {}
        try:
            for include, artifact in zip(work.spec.include or (), checkout.included, strict=True):
                files, more = await self._threads.run(_grafting(tree, include, self._opener(artifact)))
                grafted += files
                texts |= more
            with _fetching(work):
                ignore = await read_ignore(texts, tree, work.spec.ignore)
            made = plan(tree, grafted, ignore, self._limits)
            write = Writer(made, self._limits)
            try:
                await work.store(f"{target.commit}.tar.gz", target.revision, write)
            finally:
                write.cancel()
        except Failed as error:
            kind = FETCH_FAILED if error.reason in _FETCHING else STORAGE_OPERATION_FAILED
            raise work.failed(kind, error) from error

    def _opener(self, artifact: Artifact) -> Archive:
        return lambda: self.tools.storage.open_verified(artifact.path, artifact.digest)

    @staticmethod
    def _record(work: SourcePass, included: list[Artifact]) -> None:
        spec = work.spec
        work.run.set(
            included_artifacts=included or None,
            observed_ignore=spec.ignore,
            observed_include=spec.include or None,
            observed_recurse_submodules=spec.recurse_submodules or None,
            observed_sparse_checkout=spec.sparse_checkout or None,
            source_verification_mode=_mode(spec),
        )

    @staticmethod
    async def _subject(checkout: _Checkout) -> str:
        commit = checkout.target.commit
        return subject((await checkout.mirror.read([commit], TREE_LIMIT))[commit])

    @staticmethod
    def _done(work: SourcePass, told: str, *, trace: bool = False) -> Success:
        artifact = work.artifact
        revision = artifact.revision if artifact is not None else ""
        said = ("GitOperationSucceeded", f"no changes since last reconciliation: observed revision '{revision}'")
        return work.done(
            f"stored artifact for revision '{revision}'",
            told=f"stored artifact for commit '{told}'",
            trace=said if trace else None,
        )


_FETCHING = frozenset(("GitOperationFailed", "EmptyGitRepository", AUTHENTICATION_FAILED))
"""Reasons that go with FetchFailed."""


@contextmanager
def _fetching(work: SourcePass) -> Iterator[None]:
    """Whatever goes wrong with Git inside becomes FetchFailed with its reason."""
    try:
        yield
    except ReasonedError:
        raise
    except ReconcileError as error:
        failure = Failed("GitOperationFailed", f"failed to checkout and determine revision: {error}")
        if isinstance(error, EmptyRepository):
            failure = Failed("EmptyGitRepository", str(error))
        elif isinstance(error, InvalidCredentials) or (isinstance(error, Invalid) and str(error).startswith("invalid 'ssh'")):
            reference = work.spec.secret_ref
            where = f"secret '{work.key.namespace}/{reference.name}': " if reference is not None else ""
            failure = Failed(AUTHENTICATION_FAILED, f"failed to configure authentication options: {where}{error}")
        raise work.failed(FETCH_FAILED, failure) from error


def _grafting(tree: Tree, include: GitInclude, archive: Archive) -> Callable[[], tuple[list[Grafted], dict[str, str]]]:
    return lambda: graft(tree, include, archive)


def _identity(artifact: Artifact | None) -> tuple[str, str] | None:
    return (artifact.revision, artifact.digest) if artifact is not None else None


def _mode(spec: Any) -> str | None:
    return str(spec.verify.mode) if spec.verify is not None else None


def _settings_changed(spec: Any, status: Any) -> bool:
    """Whether the artifact was made with other settings than those of the spec."""
    return (
        spec.ignore != status.observed_ignore
        or (spec.include or []) != (status.observed_include or [])
        or bool(spec.recurse_submodules) != bool(status.observed_recurse_submodules)
        or (spec.sparse_checkout or []) != (status.observed_sparse_checkout or [])
    )


def _unverified(work: SourcePass) -> bool:
    """Whether signatures are to be checked although the revision is the same."""
    return unsatisfied(work.spec.verify, work.status.source_verification_mode) or (
        work.spec.verify is not None and not cond.is_true(work.run.conditions, SOURCE_VERIFIED)
    )
