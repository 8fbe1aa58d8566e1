"""Walks a folder of manifests: which files there are, what they look like from outside, and what could not be looked at."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from reconcile.errors import Invalid

MAX_FILES = 20_000
MAX_DEPTH = 32
SUFFIXES = (".yaml", ".yml", ".json")

Signature = tuple[int, int, int, int]
"""Times of content and of inode, size, inode: what changes when a file does."""
UNKNOWN: Signature = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file; `line` counts from 1."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}" if self.line else f"{self.path}: {self.message}"


def walk(root: Path, problems: list[Problem], unreadable: set[str]) -> Iterator[tuple[str, Signature]]:
    """Path (from `root`) and signature of every file with manifests.

    Adds to `problems` what could not be looked at, and to `unreadable` where that was: a file, or a folder with a slash at its
    end (a slash alone: anything may be missing).
    """
    real_root = os.path.realpath(root)
    pending, count = [("", 0)], 0
    while pending:
        relative, depth = pending.pop()
        try:
            with os.scandir(root / relative) as entries:
                listing = sorted(entries, key=lambda e: e.name)
        except OSError as error:
            problems.append(Problem(relative or ".", None, f"cannot be read: {error.strerror}"))
            unreadable.add(f"{relative}/")
            continue
        for entry in listing:
            if entry.name.startswith("."):
                continue
            path = f"{relative}/{entry.name}" if relative else entry.name
            try:
                kind, signature = _look(entry, path, depth, real_root)
            except (OSError, Invalid) as error:
                text = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
                problems.append(Problem(_shown(path), None, text))
                unreadable.add(_shown(path))
                continue
            if kind == "folder":
                pending.append((path, depth + 1))
            elif kind == "file":
                count += 1
                if count > MAX_FILES:
                    problems.append(Problem(path, None, f"more than {MAX_FILES} manifest files: the rest is left out"))
                    unreadable.add("/")
                    return
                yield path, signature


def _look(entry: os.DirEntry[str], path: str, depth: int, real_root: str) -> tuple[str, Signature]:
    """Whether an entry is a folder, a file with manifests, or of no interest; raises Invalid for what is not followed."""
    is_link = entry.is_symlink()
    if not is_link and entry.is_dir(follow_symlinks=False):
        if depth >= MAX_DEPTH:
            raise Invalid(f"is more than {MAX_DEPTH} folders deep: left out")
        _check_text(path)
        return "folder", UNKNOWN
    named = entry.name.endswith(SUFFIXES)
    if is_link and (named or entry.is_dir()) and not _inside(os.path.realpath(entry.path), real_root):
        raise Invalid("is a link that leads out of the folder: not followed")
    if not named:
        return "", UNKNOWN
    _check_text(path)
    info = entry.stat()
    signature = (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino)
    return ("file" if stat.S_ISREG(info.st_mode) else ""), signature


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip(os.sep)}{os.sep}")


def _check_text(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise Invalid("has a name that is not UTF-8: left out") from None


def _shown(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def within(path: str, broken: Collection[str]) -> bool:
    """Whether a path is one of `broken` or below a folder in it."""
    if not broken:
        return False
    parts = path.split("/")
    return path in broken or any("/".join(parts[:n]) + "/" in broken for n in range(len(parts)))
