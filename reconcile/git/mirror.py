"""A remote repository through a persistent bare mirror: list, resolve, fetch, read, commit, push. No work tree anywhere.

Every method is one job in the pool with the mirror's timeout: when it passes, or when the awaiting task is cancelled, the
processes are killed. Fetch, push and housekeeping exclude one another; reading goes on beside them. A mirror that turns out
to be damaged is built again from the remote, once per call, without the caller noticing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from reconcile.errors import Invalid
from reconcile.git import commit as commits
from reconcile.git import history
from reconcile.git.depot import Depot
from reconcile.git.errors import (
    Classifier,
    EmptyRepository,
    GitError,
    MirrorDamaged,
    ReferenceNotFound,
    RemoteUnreachable,
    UnsupportedRepository,
    bounded,
)
from reconcile.git.objects import TREE_LIMIT, parse_listing, parse_refs
from reconcile.git.process import Completed, Deadline, Job, submit
from reconcile.git.publish import PREFIX, push_arguments, push_error
from reconcile.git.remote import RemoteRunner
from reconcile.git.search import grep
from reconcile.git.session import TRACKING
from reconcile.git.types import (
    HEADS,
    TAGS,
    Author,
    Counters,
    Edit,
    Entry,
    Reference,
    RefUpdate,
    RemoteRefs,
    Resolved,
    SemverChooser,
    Signer,
    check_ref,
    is_oid,
    unique,
)

T = TypeVar("T")

BLOB_LIMIT = 5 * 1024 * 1024
"""Bytes of one file unless the caller says otherwise."""

TOTAL_LIMIT = 256 * 1024 * 1024
"""Bytes of all files of one `read`."""

_LISTING = ("refs/heads/", "refs/tags/")


class Mirror:
    """One remote with its credentials and timeout; cheap, made by `Mirrors.mirror`."""

    def __init__(self, depot: Depot, remote: RemoteRunner, timeout: float) -> None:
        """`timeout` is in seconds, for each call."""
        self._depot = depot
        self._remote = remote
        self._timeout = timeout

    @property
    def counters(self) -> Counters:
        """Processes started and objects written for this remote since the service started."""
        return self._depot.counters

    @property
    def url(self) -> str:
        """The remote's URL without credentials."""
        return self._remote.url

    # --- the remote -------------------------------------------------------------------------------------------------

    async def ls_remote(self, names: Sequence[str] = ()) -> RemoteRefs:
        """All branches and tags of the remote, with one process.

        `names` are further full names (`refs/pull/1/head`); asking for one makes the remote list all it has.
        """
        wanted = [name for name in names if not name.removesuffix("^{}").startswith(_LISTING)]

        def work(job: Job) -> RemoteRefs:
            argv = ["git", "ls-remote", "--quiet", *([] if wanted else ["--heads", "--tags"]), "origin"]
            done = self._remote.run(job, self._depot.folder, argv)
            if done.status != 0:
                raise self._clone_errors().error(done.stderr)
            refs = parse_refs(done.stdout)
            if not refs and not self._remote.speaks_git(job, self._depot.folder, argv):
                raise RemoteUnreachable(f"{self._clone_errors().prefix}the answer does not come from a Git server")
            if any(len(oid) != 40 for oid in refs.values()):
                raise UnsupportedRepository(
                    f"{self._clone_errors().prefix}the repository uses the sha256 object format, which is not supported"
                )
            return RemoteRefs(
                {name: oid for name, oid in refs.items() if name.startswith(_LISTING) or name.removesuffix("^{}") in wanted}
            )

        return await self._reading(None, work)

    async def resolve(self, reference: Reference, refs: RemoteRefs, choose: SemverChooser | None = None) -> Resolved:
        """Find `reference` among `refs`: commit, name, semver, tag, branch, in this order of precedence.

        `choose` answers for semver: the best of the tag names, several when their versions are equal; of these the newest by
        commit time is taken, which needs a fetch of each. A commit is taken at its word; `fetch` finds out whether it exists.
        Raises `ReferenceNotFound` or `EmptyRepository` with Flux's texts.
        """
        if reference.commit:
            if not is_oid(reference.commit):
                raise ReferenceNotFound(f"unable to resolve commit object for '{reference.commit}': object not found")
            return Resolved(reference.commit)
        if refs.empty:
            raise EmptyRepository(f"{self._clone_errors().prefix}remote repository is empty")
        if reference.name:
            name = reference.name.removesuffix("^{}")
            return self._found(name, refs, f"unable to resolve ref '{reference.name}' to a specific commit")
        if reference.semver:
            return await self._semver(reference.semver, refs, choose)
        if reference.tag:
            name = TAGS + reference.tag
            return self._found(name, refs, f'{self._clone_errors().prefix}couldn\'t find remote ref "{name}"')
        return self._found(HEADS + (reference.branch or "master"), refs, f"{self._clone_errors().prefix}reference not found")

    async def _semver(self, text: str, refs: RemoteRefs, choose: SemverChooser | None) -> Resolved:
        if choose is None:
            raise Invalid("a semver reference needs a chooser")
        best = [self._found(TAGS + tag, refs, "") for tag in choose(refs.tags())]
        if not best:
            raise ReferenceNotFound(f"no match found for semver: {text}")
        if len({found.commit for found in best}) > 1:
            times = {}
            for found in best:
                await self.fetch(found)
                times[found] = await self._commit_time(found.commit)
            return max(best, key=times.__getitem__)
        return best[0]

    @staticmethod
    def _found(name: str, refs: RemoteRefs, text: str) -> Resolved:
        commit = refs.commit(name)
        if commit is None:
            raise ReferenceNotFound(text)
        return Resolved(commit, name)

    async def fetch(self, what: Resolved | str, depth: int = 1) -> None:
        """Have `what` (resolved, or a commit id) in the mirror with all its files; nothing is done when it is there already.

        Only what is missing travels. `depth` counts commits, 0 is all history. Raises `ReferenceNotFound` when the remote
        does not have it.
        """
        wanted = Resolved(what) if isinstance(what, str) else what
        if not is_oid(wanted.commit):
            raise Invalid(f"not a commit id: {wanted.commit!r}")
        async with self._depot.writing:
            await self._submit(lambda job: self._healing(job, lambda: self._fetch(job, wanted, depth)))

    def _fetch(self, job: Job, wanted: Resolved, depth: int) -> None:
        depot = self._depot
        depot.open(job)
        if depth == 1 and depot.has(job, wanted.commit):
            return
        slot = TRACKING + (wanted.ref.removeprefix("refs/") if wanted.ref else f"oid/{wanted.commit[:2]}")
        done = self._run_fetch(job, f"+{wanted.commit}:{slot}", depth)
        if done.status != 0 and wanted.ref and "unadvertised object" in done.stderr:
            # An old server gives only what it lists; the reference may have moved, then the caller starts again.
            done = self._run_fetch(job, f"+{wanted.ref}:{slot}", depth)
        elif done.status != 0 and "unadvertised object" in done.stderr:
            done = self._run_fetch(job, f"+refs/heads/*:{TRACKING}heads/*", 0)
        if done.status != 0:
            error = self._clone_errors().error(done.stderr)
            if isinstance(error, ReferenceNotFound) and wanted.ref is None:
                raise ReferenceNotFound(f"unable to resolve commit object for '{wanted.commit}': object not found", error.detail)
            raise error
        depot.fetched(wanted.commit, slot)
        if not depot.is_commit(job, wanted.commit):
            raise ReferenceNotFound(f"unable to resolve commit object for '{wanted.commit}': object not found")
        depot.tidy(job)

    async def fetch_from(self, commit: str, branch: str) -> None:
        """Have `commit`, with all its files, out of the history of the remote's `branch`, which is fetched in full.

        Raises `ReferenceNotFound` when the branch or the commit in it does not exist.
        """
        check_ref(HEADS + branch)
        missing = f"unable to resolve commit object for '{commit}': object not found"
        if not is_oid(commit):
            raise ReferenceNotFound(missing)
        slot = f"{TRACKING}heads/{branch}"

        def work(job: Job) -> None:
            self._depot.open(job)
            done = self._run_fetch(job, f"+{HEADS}{branch}:{slot}", 0)
            if done.status != 0:
                raise self._clone_errors().error(done.stderr)
            argv = ["git", "merge-base", "--is-ancestor", commit, slot]
            # 128: there is no such object at all.
            if self._depot.local(job, argv, accept=(0, 1, 128)).status != 0:
                raise ReferenceNotFound(missing)
            self._depot.tidy(job)

        async with self._depot.writing:
            await self._submit(lambda job: self._healing(job, lambda: work(job)))

    def _run_fetch(self, job: Job, refspec: str, depth: int) -> Completed:
        argv = [
            "git",
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
        ]
        if depth:
            argv.append(f"--depth={depth}")
        elif (self._depot.folder.repository / "shallow").exists():
            argv.append("--unshallow")
        return self._remote.run(job, self._depot.folder, [*argv, "--refmap=", "origin", refspec])

    async def push(self, updates: Sequence[RefUpdate], options: Sequence[str] = ()) -> None:
        """Move references on the remote, each only if it still is where it was expected: all of them or none.

        Raises `LostRace` when one has moved, `PushRejected` when the server says no, `Invalid` for unusable
        arguments. A reference that already is at its commit counts as pushed.
        """
        argv = push_arguments(updates, options)

        def work(job: Job) -> None:
            self._depot.open(job)
            done = self._remote.run(job, self._depot.folder, argv)
            if done.status != 0:
                errors = self._remote.classifier(PREFIX, "git-receive-pack")
                error = push_error(done.stdout.decode("utf-8", "replace"), done.stderr, errors)
                if isinstance(error, MirrorDamaged):
                    # The commit exists nowhere else; it has to be made again.
                    self._depot.rebuild(job)
                raise error
            for update in updates:
                if update.src:
                    self._depot.pushed(update.src)
            self._depot.tidy(job)

        async with self._depot.writing:
            await self._submit(work, prefix=PREFIX)

    # --- reading ----------------------------------------------------------------------------------------------------

    async def entries(self, commit: str, path: str = "", *, sizes: bool = False) -> list[Entry]:
        """All files, links and submodules of `commit`, or of the folder `path` in it; empty when there is no such path.

        With `sizes` each file comes with its size, which costs a look at each.
        """
        return await self._reading(commit, lambda job: self._entries(job, commit, path, sizes=sizes))

    def _entries(self, job: Job, commit: str, path: str, *, sizes: bool = False) -> list[Entry]:
        argv = ["git", "ls-tree", "-r", *(["-l"] if sizes else []), "-z", "--full-tree", commit]
        return parse_listing(self._depot.local(job, [*argv, "--", path] if path else argv).stdout)

    async def grep(self, commit: str, needle: bytes, path: str = "") -> list[Entry]:
        """Regular files of `commit` under `path` whose bytes contain `needle`, in the order of the tree.

        What was found is remembered per needle and path, so that the next commit costs a look at the changed files only.
        """
        if not needle or b"\0" in needle or b"\n" in needle:
            raise Invalid("the text to search for must be one line")

        def work(job: Job) -> list[Entry]:
            return grep(self._depot, job, commit, needle, path, lambda: self._entries(job, commit, path))

        return await self._reading(commit, work)

    async def read(self, oids: Sequence[str], max_bytes: int = BLOB_LIMIT, max_total: int = TOTAL_LIMIT) -> dict[str, bytes]:
        """Contents of blobs by object id, with one process for all of them and all later calls.

        Raises `ObjectTooLarge`, naming the object, before anything larger than `max_bytes` is read.
        """
        if not all(is_oid(oid) for oid in oids):
            raise Invalid("not an object id")
        return await self._reading(
            None, lambda job: self._depot.reader.read(job, list(dict.fromkeys(oids)), max_bytes, max_total)
        )

    async def settings(self, text: bytes) -> list[tuple[str, str]]:
        """Names and values in a file of Git's configuration syntax, such as `.gitmodules`, in its order; it includes no other.

        Raises `Invalid` when it cannot be read.
        """

        def work(job: Job) -> list[tuple[str, str]]:
            argv = ["git", "config", "--file", "-", "--no-includes", "--null", "--list"]
            folder = self._depot.folder
            done = job.run(argv, folder.environment(), folder.path, text)
            if done.status != 0:
                raise Invalid(f"cannot read the settings: {bounded(done.stderr.strip())}")
            lines = done.stdout.decode("utf-8", "surrogateescape").split("\0")
            return [(name, value) for name, _, value in (line.partition("\n") for line in lines if line)]

        return await self._reading(None, work)

    async def changes_of(self, commit: str, path: str) -> list[history.Step]:
        """The last commits up to `commit` that changed a file, newest first, along first parents, as far as history is here.

        This and the next two raise `LimitExceeded` when git has too much to say.
        """
        return await self._reading(commit, lambda job: history.steps(self._depot, job, commit, path))

    async def described(self, commit: str) -> history.Step:
        """Author and subject of a commit."""
        return await self._reading(commit, lambda job: history.named(self._depot, job, commit))

    async def messages(self, commit: str, text: str) -> list[tuple[str, str]]:
        """Ids and messages of the last commits up to `commit` whose message holds `text`, newest first, as far as it is here."""
        return await self._reading(commit, lambda job: history.messages(self._depot, job, commit, text))

    async def _commit_time(self, commit: str) -> int:
        def work(job: Job) -> int:
            text = self._depot.reader.read(job, [commit], TREE_LIMIT, TREE_LIMIT)[commit]
            line = next(line for line in text.split(b"\n") if line.startswith(b"committer "))
            return int(line.split(b" ")[-2])

        return await self._reading(commit, work)

    # --- writing ----------------------------------------------------------------------------------------------------

    async def write_commit(
        self, base: str, edits: Sequence[Edit], message: str | bytes, author: Author, when: datetime, signer: Signer | None = None
    ) -> str:
        """Make a commit on `base` with `edits`; its id, or `base` itself when nothing differs from it.

        Writes one blob per changed file, the trees above them and the commit, whatever the size of the repository. The
        message is kept to the byte. Raises `PathNotFound` for a path that is not a regular file of `base`.
        """
        changes = unique(edits)
        text = message.encode("utf-8", "surrogateescape") if isinstance(message, str) else message
        return await self._reading(base, lambda job: self._write_commit(job, base, changes, text, author, when, signer))

    def _write_commit(
        self,
        job: Job,
        base: str,
        changes: Mapping[str, bytes],
        message: bytes,
        author: Author,
        when: datetime,
        signer: Signer | None,
    ) -> str:
        built = commits.build_tree(base, changes, lambda names: self._depot.reader.read(job, names, TREE_LIMIT, TOTAL_LIMIT))
        if not built.tree:
            return base
        headers, rest = commits.commit_payload(built.tree, base, author, when, message)
        signed = commits.signed_commit(headers, rest, signer.sign(headers + rest)) if signer else headers + rest
        oid = built.add("commit", signed)
        self._depot.store(job, built.objects)
        self._depot.pushed(oid)
        return oid

    # --- machinery --------------------------------------------------------------------------------------------------

    def _clone_errors(self) -> Classifier:
        return self._remote.classifier(f"unable to clone '{self.url}': ", "git-upload-pack")

    async def _submit(self, work: Callable[[Job], T], prefix: str | None = None) -> T:
        job = Job(self._timeout, self._depot.counters)
        self._depot.users += 1
        try:
            return await submit(self._depot.executor, job, work)
        except Deadline:
            errors = self._clone_errors() if prefix is None else self._remote.classifier(prefix, "git-receive-pack")
            raise errors.timeout() from None
        except OSError as error:
            raise GitError(f"{self._clone_errors().prefix}{error.strerror or type(error).__name__}") from error
        finally:
            self._depot.users -= 1

    async def _reading(self, commit: str | None, work: Callable[[Job], T]) -> T:
        """Run `work`; when the mirror is damaged, build it again, fetch what was there, and run it once more."""
        if commit is not None and not is_oid(commit):
            raise Invalid(f"not a commit id: {commit!r}")

        seen = 0

        def opened(job: Job) -> T:
            nonlocal seen
            self._depot.open(job)
            seen = self._depot.generation
            return work(job)

        try:
            return await self._submit(opened)
        except MirrorDamaged:
            async with self._depot.writing:
                if self._depot.generation == seen:
                    await self._submit(lambda job: self._restore(job, commit))
            return await self._submit(opened)

    def _restore(self, job: Job, commit: str | None) -> None:
        wanted = self._depot.rebuild(job)
        for oid, ref in wanted.items():
            if oid != commit:
                try:
                    self._fetch(job, Resolved(oid, ref), 1)
                except ReferenceNotFound:
                    continue
        if commit is not None:
            self._fetch(job, Resolved(commit, wanted.get(commit)), 1)

    def _healing(self, job: Job, work: Callable[[], T]) -> T:
        try:
            return work()
        except MirrorDamaged:
            self._depot.rebuild(job)
            return work()

    async def close(self) -> None:
        """End the reading process of this mirror; the next call starts it again."""
        await asyncio.get_running_loop().run_in_executor(self._depot.executor, self._depot.reader.close)
