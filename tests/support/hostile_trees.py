"""Repositories that no honest client makes: trees written byte by byte."""

from __future__ import annotations

from tests.support.gitrepo import BareRepository

TreeEntry = tuple[bytes, bytes, str]
"""Mode, name, object id."""


def raw_tree(bare: BareRepository, *entries: TreeEntry) -> str:
    """A tree object with these entries as they are, whatever git thinks of them; its id."""
    data = b"".join(mode + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
    return bare.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=data)


def raw_blob(bare: BareRepository, data: bytes) -> str:
    """A blob; its id."""
    return bare.git("hash-object", "-w", "--stdin", stdin=data)


def point_at(bare: BareRepository, tree: str, branch: str = "main") -> str:
    """Let `branch` be a commit of `tree` without parents; its id."""
    commit = bare.git("commit-tree", tree, "-m", "hostile")
    bare.git("update-ref", f"refs/heads/{branch}", commit)
    return commit


def holding(bare: BareRepository, name: bytes, inner: bytes, data: bytes, beside: dict[bytes, bytes]) -> str:
    """A commit on main with a folder `name` that holds the file `inner`, and files beside it; its id."""
    folder = raw_tree(bare, (b"100644", inner, raw_blob(bare, data)))
    files = [(b"100644", path, raw_blob(bare, text)) for path, text in beside.items()]
    return point_at(bare, raw_tree(bare, (b"40000", name, folder), *files))
