"""From edits to a commit object: the blobs, the trees above them, the commit, handed to git as one pack.

No index and no work tree: only the trees on the way to an edited file are read and written, so the cost grows with the edits and
not with the repository. Pure, but for reading trees and `store`.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from reconcile.errors import Invalid
from reconcile.git.errors import PathNotFound
from reconcile.git.objects import format_tree, parse_tree
from reconcile.git.types import REGULAR_MODES, Author, timestamp

UNPACK_LIMIT = 100
"""Up to here objects are written one by one, above as a pack (git's own `transfer.unpackLimit`)."""

TreeReader = Callable[[Sequence[str]], Mapping[str, bytes]]
"""From names of trees (`<oid>` or `<commit>^{tree}`) to their raw bytes."""

_KINDS = {"commit": 1, "tree": 2, "blob": 3}


@dataclass(slots=True)
class Built:
    """New objects in the order they were made, and the root tree; no objects when nothing differs."""

    objects: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tree: str = ""

    def add(self, kind: str, data: bytes) -> str:
        """Note an object once; its id."""
        oid = hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)) + data, usedforsecurity=False).hexdigest()
        self.objects.setdefault(oid, (kind, data))
        return oid


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def build_tree(base: str, edits: Mapping[str, bytes], read: TreeReader) -> Built:
    """Blobs and trees of `base` (a commit) with `edits` applied; modes stay, all else stays.

    Trees are read level by level, each level with one call. Raises `PathNotFound` when a path is not there or is not a
    regular file.
    """
    folders = {""}
    for path in edits:
        folder = _split(path)[0]
        while folder:
            folders.add(folder)
            folder = _split(folder)[0]
    trees = _read_trees(base, folders, read)
    built = Built()
    changes: dict[str, dict[str, bytes]] = defaultdict(dict)
    for path, data in edits.items():
        folder, name = _split(path)
        changes[folder][name] = bytes.fromhex(built.add("blob", data))
    for folder in sorted(folders, key=lambda f: f.count("/") + bool(f), reverse=True):
        oid = _replace(built, trees[folder], changes[folder], folder)
        if folder and oid is not None:
            parent, name = _split(folder)
            changes[parent][name] = bytes.fromhex(oid)
        elif oid is not None:
            built.tree = oid
    if not built.tree:
        built.objects.clear()
    return built


def _read_trees(base: str, folders: set[str], read: TreeReader) -> dict[str, bytes]:
    trees: dict[str, bytes] = {}
    below: dict[str, list[str]] = defaultdict(list)
    for folder in folders - {""}:
        below[_split(folder)[0]].append(folder)
    level = {"": f"{base}^{{tree}}"}
    while level:
        contents = read(list(dict.fromkeys(level.values())))
        trees |= {folder: contents[name] for folder, name in level.items()}
        parents, level = level, {}
        for parent in parents.keys() & below.keys():
            found = {name: oid for mode, name, oid in parse_tree(trees[parent]) if mode == b"40000"}
            for folder in below[parent]:
                oid = found.get(_bytes(_split(folder)[1]))
                if oid is None:
                    raise PathNotFound(f"'{folder}' is not a folder of commit {base[:7]}")
                level[folder] = oid.hex()
    return trees


def _replace(built: Built, tree: bytes, changes: Mapping[str, bytes], folder: str) -> str | None:
    """The new tree's id, None when nothing in it differs."""
    wanted = {_bytes(name): oid for name, oid in changes.items()}
    entries = parse_tree(tree)
    differs = False
    for index, (mode, name, old) in enumerate(entries):
        new = wanted.pop(name, None)
        if new is None:
            continue
        if mode != b"40000" and mode.decode() not in REGULAR_MODES:
            raise PathNotFound(f"'{_join(folder, name)}' is not a regular file")
        if mode == b"40000" and new.hex() in built.objects and built.objects[new.hex()][0] == "blob":
            raise PathNotFound(f"'{_join(folder, name)}' is not a regular file")
        if new == old:
            built.objects.pop(new.hex(), None)
        else:
            entries[index] = (mode, name, new)
            differs = True
    if wanted:
        raise PathNotFound(f"'{_join(folder, next(iter(wanted)))}' does not exist")
    return built.add("tree", format_tree(entries)) if differs else None


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _join(folder: str, name: bytes) -> str:
    text = name.decode("utf-8", "surrogateescape")
    return f"{folder}/{text}" if folder else text


def commit_payload(tree: str, parent: str, author: Author, when: datetime, message: bytes) -> tuple[bytes, bytes]:
    """Headers and the rest of an unsigned commit object; what is signed is one after the other.

    The message is kept to the byte: nothing stripped, nothing added, as Flux's library does. Raises `Invalid` for a NUL byte,
    which no commit can hold.
    """
    if b"\0" in message:
        raise Invalid("a commit message cannot contain a NUL byte")
    person = _person(author) + b" " + timestamp(when).encode()
    headers = b"tree %s\nparent %s\nauthor %s\ncommitter %s\n" % (tree.encode(), parent.encode(), person, person)
    return headers, b"\n" + message


def signed_commit(headers: bytes, rest: bytes, signature: str) -> bytes:
    """The commit object with `signature` in its `gpgsig` header."""
    lines = signature.rstrip("\n").replace("\n", "\n ")
    return headers + b"gpgsig " + lines.encode() + b"\n" + rest


def _person(author: Author) -> bytes:
    # These three would end the field early and let a name forge other headers.
    name, email = ("".join(c for c in part if c not in "<>\n\0") for part in (author.name, author.email))
    return f"{name} <{email}>".encode("utf-8", "surrogateescape")


def pack(objects: Mapping[str, tuple[str, bytes]]) -> bytes:
    """A version 2 pack of `objects` without deltas (gitformat-pack)."""
    parts = [struct.pack(">4sII", b"PACK", 2, len(objects))]
    for kind, data in objects.values():
        size = len(data)
        byte = _KINDS[kind] << 4 | size & 15
        size >>= 4
        head = bytearray()
        while size:
            head.append(byte | 128)
            byte = size & 127
            size >>= 7
        head.append(byte)
        parts += [bytes(head), zlib.compress(data, 1)]
    body = b"".join(parts)
    return body + hashlib.sha1(body, usedforsecurity=False).digest()
