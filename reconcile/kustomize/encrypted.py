"""Which files of a build sops may have encrypted: those that Flux's kustomize-controller decrypts before it builds.

Starting at a folder, local `resources` and `components` that have a kustomization file are followed. Blocking.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reconcile.kustomize.documents import load_all
from reconcile.kustomize.failure import BuildFailed
from reconcile.kustomize.sops import Format, format_for, is_encrypted
from reconcile.kustomize.tree import FILE_NAMES, clamped, joined
from reconcile.yamlio import YamlError

MOST_BYTES: Final = 5 * 1024 * 1024
"""Of a file."""


@dataclass(frozen=True, slots=True)
class Encrypted:
    """An encrypted file: its path from the root, its format and its content."""

    path: str
    form: Format
    data: bytes


def encrypted_files(root: Path, path: str) -> Iterator[Encrypted]:
    """The encrypted files that the kustomization in the folder `path` of `root` refers to, each once.

    Links are never followed, and nothing outside `root` is looked at.

    Raises:
        BuildFailed: A folder has no kustomization file, or several; a file is no regular one or too large.
    """
    root = Path(os.path.realpath(root))
    start = clamped(path)
    waiting, folders, seen = [start], {start}, set[str]()
    while waiting:
        folder = waiting.pop()
        document = _kustomization(root, folder)
        for name, form in _mentioned(document):
            file = _local(folder, name)
            if file is None or file in seen:
                continue
            seen.add(file)
            data = _content(root, file)
            if data is not None and is_encrypted(data, form):
                yield Encrypted(file, form, data)
        for name in reversed([*_texts(document, "resources"), *_texts(document, "components")]):
            other = _local(folder, name)
            if other is not None and other not in folders and _kustomization_files(root, other):
                folders.add(other)
                waiting.append(other)


def replace(root: Path, path: str, data: bytes) -> None:
    """Put a new file in the place of one that `encrypted_files` has named; what is linked to the old one stays as it is."""
    target = Path(os.path.realpath(root)) / path
    mode = stat.S_IMODE(target.lstat().st_mode)
    target.unlink()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode & 0o700 | 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _mentioned(document: dict[str, Any]) -> Iterator[tuple[str, Format]]:
    """Files that may be encrypted, and in which format."""
    for generator in _mappings(document, "secretGenerator"):
        for text in _texts(generator, "files"):
            key, equals, name = text.partition("=")
            yield name if equals else key, format_for(key)
        for name in _texts(generator, "envs"):
            form = format_for(name)
            yield name, Format.DOTENV if form is Format.BINARY else form
    for patch in _mappings(document, "patches"):
        path = patch.get("path")
        if isinstance(path, str) and path:
            yield path, format_for(path)


def _local(folder: str, name: str) -> str | None:
    return None if "\0" in name else joined(folder, name)


def _mappings(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _texts(document: dict[str, Any], key: str) -> list[str]:
    found = document.get(key)
    return [one for one in found if isinstance(one, str) and one] if isinstance(found, list) else []


def _kustomization_files(root: Path, folder: str) -> list[str]:
    if not stat.S_ISDIR(_mode(root / folder)) or not _inside(root, folder):
        return []
    return [name for name in FILE_NAMES if stat.S_ISREG(_mode(root / folder / name))]


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def _inside(root: Path, path: str) -> bool:
    """Whether no link is on the way to `path`."""
    return os.path.realpath(root / path) == os.path.normpath(root / path)


def _kustomization(root: Path, folder: str) -> dict[str, Any]:
    """The kustomization file of a folder; what is wrong with its text is kustomize's to say."""
    names = _kustomization_files(root, folder)
    if not names:
        raise BuildFailed("error decrypting sources: no kustomization file found")
    if len(names) > 1:
        raise BuildFailed(f"error decrypting sources: found multiple kustomization files: {', '.join(names)}")
    data = _content(root, f"{folder}/{names[0]}" if folder else names[0])
    try:
        document = next(iter(load_all((data or b"").decode())), None)
    except (YamlError, UnicodeDecodeError):
        return {}
    return document if isinstance(document, dict) else {}


def _content(root: Path, path: str) -> bytes | None:
    """A file's content; None where there is nothing, which kustomize will complain about."""
    if not _inside(root, path):
        return None
    try:
        descriptor = os.open(root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BuildFailed(f"error decrypting sources: cannot decrypt irregular file '{path}'")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            data = file.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MOST_BYTES:
        text = f"cannot decrypt file '{path}' with size ({status.st_size} bytes) exceeding limit ({MOST_BYTES})"
        raise BuildFailed(f"error decrypting sources: {text}")
    return data
