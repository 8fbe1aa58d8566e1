"""Packs files into the archive of an artifact, and unpacks archives that others made.

The format is Flux source-controller's: a gzip-compressed tar with an entry for the root (`.`), folders 0750, files 0600 or 0700,
owner 0, all times zero, regular files only. What is packed is the same byte for byte each time; what is unpacked may come from
anybody, is bounded in every direction, and is never seen half done.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from reconcile.artifact.errors import ArchiveError, ArchiveTooLarge
from reconcile.artifact.ignore import Ignore
from reconcile.artifact.tarstream import BLOCK, PIECE, Entry, Inflater, Reader
from reconcile.errors import Invalid, ReconcileError

LEVEL = 5
"""Of gzip: on manifests a fifth faster than the usual 6 and 7 % larger; 4 is no faster and 9 % larger still."""

PARTIAL = ".unpacking-"
"""Beginning of the names of folders that are being unpacked into; what a killed process left has such a name."""

EXECUTABLE = "x"
"""Stands after the digest of an executable file in an index."""

LARGEST = 1024**3
"""Bytes of one file, unless a caller says otherwise."""

_LONGEST_NAME = 255
_SHORT_NAME = 100
_SHORT_SIZE = 8**11
_FILE, _PROGRAM, _FOLDER = 0o600, 0o700, 0o750


@dataclass(frozen=True, slots=True)
class Member:
    """One file to pack: path below the root with `/`, content, and whether it may be executed."""

    path: str
    data: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one archive when it is unpacked.

    Attributes:
        total: unpacked bytes, headers included.
        file: bytes of one file.
        entries: entries, and folders made for them.
        path: bytes of one path.
        depth: components of one path.
        ratio: unpacked bytes for each packed one …
        ratio_after: … once there are more unpacked bytes than this.
    """

    total: int = 4 * 1024**3
    file: int = LARGEST
    entries: int = 500_000
    path: int = 2048
    depth: int = 128
    ratio: int = 200
    ratio_after: int = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Index:
    """What an archive held.

    Attributes:
        files: digest of each regular file by its path: sha256 of the content in hex, followed by `x` when it is executable.
        size: bytes of all files.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    size: int = 0


def pack(members: Iterable[Member], out: BinaryIO, *, directories: Iterable[str] = (), ignore: Ignore | None = None) -> None:
    """Write the archive of `members` to `out`; the same members in the same order give the same bytes.

    Only one member's data is held at a time. A folder gets its entry before the first file in it.

    Args:
        members: files, each path once, in an order of the caller's that must not depend on chance.
        out: where to; only `write` is called.
        directories: folders that have an entry although they may be empty.
        ignore: folders that it leaves out get no entry, also when files in them are packed.

    Raises:
        Invalid: a path is absolute, leads out of the root, is there twice, or is a file and a folder.
    """
    packer = _Packer(out, ignore)
    packer.folder("")
    for path in directories:
        packer.folder(_clean(path))
    for member in members:
        packer.file(member)
    packer.close()


def members_of(root: Path, ignore: Ignore | None = None, *, largest: int = LARGEST) -> Iterator[Member]:
    """The regular files below `root` in the order of their paths, links and special files left out, as `pack` wants them.

    Args:
        root: a folder.
        ignore: what to leave out; a file in a folder that is left out is decided for itself.
        largest: bytes of one file.

    Raises:
        ArchiveTooLarge: a file is larger than `largest`.
        OSError: something cannot be read.
    """
    pending = [_Found(os.fspath(root), "", folder=True)]
    while pending:
        found = pending.pop()
        if found.folder:
            pending += reversed(_scan(found))
        elif ignore is None or not ignore.ignored(found.path):
            data, mode = _content(found.place, found.path, largest)
            yield Member(found.path, data, executable=bool(mode & 0o111))


def unpack(source: BinaryIO, into: Path, limits: Limits | None = None) -> Index:
    """Unpack an archive from anybody into the new folder `into`.

    Links, devices and pipes are left out, as Flux does. It is unpacked beside `into`, under a name that begins with `PARTIAL`,
    and moved there when all is well: after a failure there is nothing, and nothing is ever written elsewhere.

    Args:
        source: the gzip-compressed tar; read to its end.
        into: where to; must not exist, or be an empty folder.
        limits: bounds.

    Raises:
        ArchiveError: the archive is truncated, damaged, or has an entry that is absolute, leads out of the root, is there twice
            or is both file and folder; the text names it.
        ArchiveTooLarge: a limit was exceeded.
        OSError: the disk cannot be written.
    """
    partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=into.parent))
    try:
        index = _Unpacker(partial, limits or Limits()).run(source)
        partial.rename(into)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return index


class _Template:
    """The header of a file or folder with a short name, ready but for name, size and checksum."""

    def __init__(self, mode: int) -> None:
        info = tarfile.TarInfo()
        info.mode = mode
        info.type = tarfile.DIRTYPE if mode == _FOLDER else tarfile.REGTYPE
        empty = info.tobuf(tarfile.USTAR_FORMAT)
        self._before_size, self._before_sum, self._rest = empty[_SHORT_NAME:124], empty[136:148], empty[156:]
        self._sum = sum(self._before_size) + sum(self._before_sum) + 8 * ord(" ") + sum(self._rest)

    def header(self, name: bytes, size: int) -> bytes:
        digits = b"%011o\0" % size
        checksum = b"%06o\0 " % (self._sum + sum(name) + sum(digits))
        return b"".join((name.ljust(_SHORT_NAME, b"\0"), self._before_size, digits, self._before_sum, checksum, self._rest))


_PLAIN = {mode: _Template(mode) for mode in (_FILE, _PROGRAM, _FOLDER)}


class _Packer:
    """Headers by `tarfile`; those that differ in name and size alone, nearly all, are made from one of them."""

    def __init__(self, out: BinaryIO, ignore: Ignore | None) -> None:
        self._out = out
        self._gzip = zlib.compressobj(LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)  # its header has no name and no time
        self._ignore = ignore
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._seen: dict[str, bool] = {}  # whether each path is a folder

    def folder(self, path: str) -> None:
        for above in _unknown(path, self._seen):
            if not self._seen.setdefault(above, True):
                raise Invalid(f"{above!r} cannot be packed as a file and as a folder")
            if self._ignore is None or not self._ignore.ignored(above, is_dir=True):
                self._header(above or ".", tarfile.DIRTYPE, _FOLDER, 0)

    def file(self, member: Member) -> None:
        path = _clean(member.path)
        if path in self._seen:
            raise Invalid(f"{path!r} cannot be packed twice")
        self.folder(path.rpartition("/")[0])
        self._seen[path] = False
        size = len(member.data)
        self._header(path, tarfile.REGTYPE, _PROGRAM if member.executable else _FILE, size)
        self._write(member.data)
        self._write(bytes(-size % BLOCK))

    def close(self) -> None:
        self._write(bytes(2 * BLOCK))
        self._flush()
        self._out.write(self._gzip.flush())

    def _header(self, path: str, kind: bytes, mode: int, size: int) -> None:
        name = path.encode("utf-8", "surrogateescape") + (b"/" if kind == tarfile.DIRTYPE else b"")
        if len(name) <= _SHORT_NAME and name.isascii() and size < _SHORT_SIZE:
            self._write(_PLAIN[mode].header(name, size))
            return
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.size = kind, mode, size
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _write(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= PIECE:
            self._flush()

    def _flush(self) -> None:
        if packed := self._gzip.compress(b"".join(self._pending)):
            self._out.write(packed)
        self._pending.clear()
        self._pending_bytes = 0


def _unknown(path: str, folders: Mapping[str, bool]) -> list[str]:
    """`path` and the folders above it that are not known to be folders, from the top."""
    found = []
    while not folders.get(path, False):
        found.append(path)
        if not path:
            break
        path = path.rpartition("/")[0]
    return found[::-1]


def _clean(path: str) -> str:
    """A path as it stands in an archive; raises Invalid for one that leads out of the root."""
    try:
        return _relative(path)
    except ValueError as error:
        raise Invalid(f"{path!r} cannot be packed: {error}") from None


def _relative(path: str) -> str:
    """`path` without `.` and empty components; ValueError says why it is not one below the root."""
    if path.startswith("/"):
        raise ValueError("it is absolute")
    if "\\" in path:
        raise ValueError("it has a backslash")
    if "\0" in path:
        raise ValueError("it has a zero byte")
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ValueError("it leads out of the archive")
    return "/".join(parts)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file or folder on the disk and its path below the root."""

    place: str
    path: str
    folder: bool


def _scan(folder: _Found) -> list[_Found]:
    with os.scandir(folder.place) as entries:
        inside = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    found = []
    for entry in inside:
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder or entry.is_file(follow_symlinks=False):
            path = f"{folder.path}/{entry.name}" if folder.path else entry.name
            found.append(_Found(entry.path, path, is_folder))
    return found


def _content(name: str, shown: str, largest: int) -> tuple[bytes, int]:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        data = file.read(largest + 1) if stat.S_ISREG(status.st_mode) else b""
    if len(data) > largest:
        raise ArchiveTooLarge(f"{shown!r} is larger than the limit of {largest} bytes")
    return data, status.st_mode


class _Unpacker:
    """One run of `unpack`. The folder is private and new, so no path in it can be a link: none is ever made."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = os.fspath(folder)
        self._limits = limits
        self._made: dict[str, bool] = {"": True}
        self._files: dict[str, str] = {}
        self._entries = 0
        self._size = 0

    def run(self, source: BinaryIO) -> Index:
        limits = self._limits
        reader = Reader(Inflater(source, limits.total, limits.ratio, limits.ratio_after))
        for entry in reader:
            self._count()
            path = self._path(entry)
            if entry.directory:
                self._directory(path, entry.name)
            elif entry.regular or entry.sparse:
                self._file(path, entry, reader.data)
        return Index(self._files, self._size)

    def _path(self, entry: Entry) -> str:
        try:
            path = _relative(entry.name)
        except ValueError as error:
            raise ArchiveError(f"the archive has the invalid entry {_shown(entry.name)}: {error}") from None
        parts = path.split("/")
        if len(parts) > self._limits.depth:
            raise self._over(entry.name, f"it is more than {self._limits.depth} folders deep")
        if len(os.fsencode(path)) > self._limits.path or any(len(os.fsencode(part)) > _LONGEST_NAME for part in parts):
            raise self._over(
                entry.name, f"its path is longer than {self._limits.path} bytes or a name in it than {_LONGEST_NAME}"
            )
        if not path and not entry.directory:
            raise ArchiveError(f"the archive has the invalid entry {_shown(entry.name)}: it has no name")
        return path

    def _directory(self, path: str, name: str) -> None:
        if path in self._made:
            return
        for above in _unknown(path, self._made):
            if above in self._files:
                raise ArchiveError(f"the archive has the invalid entry {_shown(name)}: {_shown(above)} is a file in it as well")
            self._count()
            os.mkdir(f"{self._folder}/{above}", 0o700)  # noqa: PTH102 - a Path for each of many thousand entries costs
            self._made[above] = True

    def _file(self, path: str, entry: Entry, data: Callable[[], Iterator[bytes]]) -> None:
        if entry.sparse:
            raise ArchiveError(f"the archive has the invalid entry {_shown(entry.name)}: files with holes are not supported")
        if path in self._files:
            raise ArchiveError(f"the archive has the invalid entry {_shown(entry.name)}: it is there twice")
        if path in self._made:
            raise ArchiveError(f"the archive has the invalid entry {_shown(entry.name)}: it is a folder in it as well")
        if entry.size > self._limits.file:
            raise self._over(entry.name, f"it is larger than the limit of {self._limits.file} bytes")
        self._directory(path.rpartition("/")[0], entry.name)
        executable = bool(entry.mode & 0o111)
        digest = hashlib.sha256()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(f"{self._folder}/{path}", flags, 0o500 if executable else 0o400)
        try:
            for piece in data():
                digest.update(piece)
                _write_all(descriptor, piece)
        finally:
            os.close(descriptor)
        self._size += entry.size
        self._files[path] = digest.hexdigest() + (EXECUTABLE if executable else "")

    def _count(self) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise ArchiveTooLarge(f"the archive has more than the limit of {self._limits.entries} entries")

    def _over(self, name: str, what: str) -> ReconcileError:
        return ArchiveTooLarge(f"the archive has the invalid entry {_shown(name)}: {what}")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _shown(name: str) -> str:
    """A name for a message: quoted, and no longer than people read."""
    text = repr(name)
    return text if len(text) <= 200 else f"{text[:200]}…"
