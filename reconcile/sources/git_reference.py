"""Which commit a GitRepository means: from `spec.ref` to a commit, and the revision by which others know it.

Precedence and texts are those of Flux's source-controller: commit, name, tag, semver, branch, `master`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconcile.api.source import GitReference
from reconcile.git.errors import EmptyRepository, ReferenceNotFound
from reconcile.git.mirror import Mirror
from reconcile.git.tags import choose_version
from reconcile.git.types import HEADS, TAGS, Reference, RemoteRefs, is_oid

DEFAULT_BRANCH = "master"
_PEELED = "^{}"


@dataclass(frozen=True, slots=True)
class Target:
    """What a reference came to.

    Attributes:
        commit: the commit.
        revision: how others know it: `main@sha1:…`, `v1.0.0@sha1:…`, `refs/heads/main@sha1:…`, `sha1:…`.
        ref: full name of the reference it was found by; None for a commit that was named itself.
        branch: the branch in whose history a named commit must be; empty when it may be anywhere.
        tag_object: id of the annotated tag; empty for one without an object of its own, and for what is no tag.
        sparse: whether a sparse checkout limits it: only what is a branch or a tag by its own name.
    """

    commit: str
    revision: str
    ref: str | None = None
    branch: str = ""
    tag_object: str = ""
    sparse: bool = False

    @property
    def tag(self) -> str:
        """Short name of the tag; empty when this is none."""
        return self.ref.removeprefix(TAGS) if self.ref is not None and self.ref.startswith(TAGS) else ""


def named_commit(reference: GitReference | None) -> Target | None:
    """The target when the reference is a commit, which needs no look at the remote; else None.

    Raises `ReferenceNotFound` for what is no full commit id.
    """
    if reference is None or not reference.commit:
        return None
    if not is_oid(reference.commit):
        raise ReferenceNotFound(f"unable to resolve commit object for '{reference.commit}': object not found")
    branch = reference.branch or ""
    revision = f"{branch}@sha1:{reference.commit}" if branch else f"sha1:{reference.commit}"
    return Target(reference.commit, revision, branch=branch)


async def find_target(mirror: Mirror, reference: GitReference | None) -> Target:
    """Ask the remote, with one process, what the reference stands for; a commit is taken at its word.

    Raises `EmptyRepository`, `ReferenceNotFound`, `Invalid` for a bad range, or another `GitError`.
    """
    commit = named_commit(reference)
    if commit is not None:
        return commit
    wanted = reference or GitReference()
    name = (wanted.name or "").removesuffix(_PEELED)
    refs = await mirror.ls_remote([name] if name else [])
    if refs.empty:
        raise EmptyRepository("git repository is empty")
    if name:
        return _found(refs, name, name, f"unable to resolve ref '{wanted.name}' to a specific commit")
    if wanted.tag:
        return _by_short_name(mirror, refs, TAGS, wanted.tag)
    if wanted.semver:
        best = await mirror.resolve(Reference(semver=wanted.semver), refs, choose_version(wanted.semver))
        return replace(_found(refs, best.ref or "", best.short or "", ""), sparse=False)
    return _by_short_name(mirror, refs, HEADS, wanted.branch or DEFAULT_BRANCH)


def _by_short_name(mirror: Mirror, refs: RemoteRefs, prefix: str, name: str) -> Target:
    missing = f"unable to clone '{mirror.url}': couldn't find remote ref \"{prefix}{name}\""
    return _found(refs, prefix + name, name, missing)


def _found(refs: RemoteRefs, ref: str, shown: str, missing: str) -> Target:
    commit = refs.commit(ref)
    if commit is None:
        raise ReferenceNotFound(missing)
    own = refs.refs.get(ref, "")
    sparse = ref.startswith((HEADS, TAGS))
    return Target(commit, f"{shown}@sha1:{commit}", ref, tag_object=own if own != commit else "", sparse=sparse)
