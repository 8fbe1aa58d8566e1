"""Names and places in artifact storage: which names there are, and how folders, links and unfinished files come and go."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from reconcile.api.meta import Key
from reconcile.artifact.rooted import LOCK_SUFFIX, try_lock
from reconcile.errors import Invalid

PARTIAL_SUFFIX = ".part"
"""End of the name of a file that is being written; it begins with a dot."""

_LONGEST_NAME = 200
"""Leaves room for what is put round a name while it is written or locked."""


def split_path(path: str) -> tuple[str, ...]:
    """Kind, namespace, name and file of the path of an artifact; raises Invalid for any other path."""
    parts = tuple(path.split("/"))
    if len(parts) != 4 or not all(_fit(part) for part in parts):
        raise Invalid(f"{path[:200]!r} is not the path of an artifact")
    return parts


def _fit(name: str) -> bool:
    return (
        bool(name) and name[0] != "." and len(name.encode("utf-8", "replace")) <= 255 and name.isprintable() and "\\" not in name
    )


def is_artifact(name: str) -> bool:
    """Whether a file of this name is an artifact: neither hidden nor a lock."""
    return not name.startswith(".") and not name.endswith(LOCK_SUFFIX)


def folder_path(kind: str, key: Key) -> str:
    """Path of the folder of an object below the root; raises Invalid for what cannot be the name of a folder."""
    parts = (kind.lower(), key.namespace, key.name)
    for part in parts:
        if not _fit(part) or "/" in part:
            raise Invalid(f"{part[:200]!r} cannot be the name of a folder of artifacts")
    return "/".join(parts)


def file_path(kind: str, key: Key, filename: str) -> str:
    """Path of a file of an object below the root; raises Invalid for what cannot be the name of an artifact."""
    if not _fit(filename) or "/" in filename or not is_artifact(filename) or len(filename.encode()) > _LONGEST_NAME:
        raise Invalid(f"{filename[:200]!r} cannot be the name of an artifact")
    return f"{folder_path(kind, key)}/{filename}"


def make_folders(root: Path, folder: Path) -> None:
    """Make `root` and all folders below it down to `folder`, for nobody else to read."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    here = root
    for part in folder.relative_to(root).parts:
        here /= part
        here.mkdir(mode=0o700, exist_ok=True)


def point(link: Path, target: str) -> None:
    """Let `link` lead to `target`, at no moment to nothing; the lock of `target` is held."""
    if link.is_symlink() and os.fspath(link.readlink()) == target:
        return
    fresh = link.with_name(f".{target}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        fresh.symlink_to(target)
        fresh.replace(link)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def is_partial(name: str) -> bool:
    """Whether a file of this name is one that is being written."""
    return name.startswith(".") and name.endswith(PARTIAL_SUFFIX)


def drop_partial(partial: Path) -> int:
    """Remove a file or link that is being written by nobody; the number of files removed."""
    name = partial.name.removeprefix(".").removesuffix(PARTIAL_SUFFIX).rpartition(".")[0]
    lock = partial.with_name(name + LOCK_SUFFIX)
    holder = try_lock(lock)
    if holder is None:
        return 0
    try:
        partial.unlink(missing_ok=True)
        if not partial.with_name(name).exists():
            lock.unlink(missing_ok=True)
    finally:
        os.close(holder)
    return 1
