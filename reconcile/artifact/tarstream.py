"""Reads a gzip-compressed tar archive from a stranger, front to back, in bounded memory.

The formats are POSIX ustar and pax (IEEE Std 1003.1, `pax`) and the long names of GNU tar. Python's `tarfile` is not used here:
it takes a damaged header for the end of the archive, reads extended headers of any size into memory, and accepts negative sizes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from reconcile.artifact.errors import ArchiveError, ArchiveTooLarge

BLOCK = 512
PIECE = 256 * 1024
"""Bytes read, unpacked or written at once."""

_PACKED_PIECE = 64 * 1024
_EXTENDED_LIMIT = 1024 * 1024
"""Bytes of one extended header: a path and a few times need some hundred."""
_GZIP = zlib.MAX_WBITS | 16
_GZIP_MAGIC = b"\x1f\x8b"
_ZEROS = bytes(BLOCK)

REGULAR = frozenset("07\0")
DIRECTORY = "5"
_BODILESS = frozenset("123456")
"""Links, devices, folders and pipes: whatever their size says, no data follows."""


@dataclass(slots=True)
class Entry:
    """One entry of an archive.

    Attributes:
        name: as written, bytes that are not UTF-8 as surrogates.
        type: one character, `0` for a regular file, `5` for a folder, others as POSIX and GNU have them.
        size: bytes of data that follow.
        mode: permission bits.
        sparse: whether the data is GNU's description of a file with holes.
    """

    name: str
    type: str
    size: int
    mode: int
    sparse: bool = False

    @property
    def regular(self) -> bool:
        """Whether it is an ordinary file."""
        return self.type in REGULAR

    @property
    def directory(self) -> bool:
        """Whether it is a folder."""
        return self.type == DIRECTORY


class Inflater:
    """The plain bytes of a gzip stream, with an end to how many there may be.

    Args:
        source: the packed stream, read to its end and no byte twice.
        most: plain bytes in all.
        ratio: plain bytes for each packed one, once there are more than `ratio_after` plain bytes.
        ratio_after: plain bytes that may be as well packed as they like.
    """

    def __init__(self, source: BinaryIO, most: int, ratio: int, ratio_after: int) -> None:
        self._source = source
        self._most = most
        self._ratio = ratio
        self._ratio_after = ratio_after
        self._unpacker = zlib.decompressobj(_GZIP)
        self._packed = b""
        self._packed_count = 0
        self._plain = b""
        self._at = 0
        self._members = 0
        self.count = 0
        """Plain bytes so far."""

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end of the stream; raises ArchiveError."""
        end = self._at + size
        if end <= len(self._plain):
            found = self._plain[self._at : end]
            self._at = end
            return found
        found = self._plain[self._at :]
        while len(found) < size:
            self._plain, self._at = self._more(), 0
            if not self._plain:
                break
            self._at = min(size - len(found), len(self._plain))
            found += self._plain[: self._at]
        return found

    def _more(self) -> bytes:
        """Some more plain bytes, none at the end."""
        while True:
            if not self._packed:
                self._packed = self._source.read(_PACKED_PIECE)
                self._packed_count += len(self._packed)
                if not self._packed:
                    return self._end()
            if self._unpacker.eof and not self._next_member():
                return b""
            try:
                plain = self._unpacker.decompress(self._packed, PIECE)
            except zlib.error as error:
                raise ArchiveError(self._wrong(error)) from error
            self._packed = self._unpacker.unconsumed_tail or self._unpacker.unused_data
            if plain:
                self._charge(len(plain))
                return plain

    def _wrong(self, error: zlib.error) -> str:
        if not self._members and not self.count and "incorrect header" in str(error):
            return "the archive is not compressed with gzip"
        return f"the archive is damaged: gzip: {str(error).rpartition(': ')[2]}"

    def _next_member(self) -> bool:
        """Begin the next gzip member; False when nothing but padding is left."""
        if self._packed.startswith(_GZIP_MAGIC[: len(self._packed)]):
            self._unpacker = zlib.decompressobj(_GZIP)
            self._members += 1
            return True
        while self._packed:
            if self._packed.strip(b"\0"):
                raise ArchiveError("the archive is followed by something that is not gzip")
            self._packed = self._source.read(_PACKED_PIECE)
        return False

    def _end(self) -> bytes:
        if not self._unpacker.eof:
            what = "the archive is truncated" if self._packed_count else "the archive is empty"
            raise ArchiveError(f"{what}: unexpected end of the gzip stream after {self._packed_count} bytes")
        return b""

    def _charge(self, count: int) -> None:
        self.count += count
        if self.count > self._most:
            raise ArchiveTooLarge(f"the archive unpacks to more than the limit of {self._most} bytes")
        if self.count > self._ratio_after and self.count > self._ratio * self._packed_count:
            raise ArchiveTooLarge(f"the archive unpacks to more than {self._ratio} times its size")


class Reader:
    """The entries of an archive, one after the other; data of an entry is read before the next one or skipped."""

    def __init__(self, stream: Inflater) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0
        self._last = ""

    def __iter__(self) -> Iterator[Entry]:
        """All entries; raises ArchiveError."""
        while (entry := self._next()) is not None:
            self._last = entry.name
            yield entry
        self._rest()

    def data(self) -> Iterator[bytes]:
        """The data of the present entry, in pieces."""
        while self._left:
            piece = self._take(min(self._left, PIECE))
            self._left -= len(piece)
            yield piece

    def _next(self) -> Entry | None:
        name, size, sparse = None, None, False
        while True:
            self._skip()
            header = self._stream.read(BLOCK)
            if not header or header == _ZEROS:
                if name is not None or size is not None:
                    raise ArchiveError(f"the archive ends after an extended header{self._after()}")
                return None
            entry = self._parse(header)
            if entry.type == "x":
                records = _pax(self._extended(entry), self._after())
                sparse = any(key.startswith(b"GNU.sparse.") for key in records)
                if b"path" in records:
                    name = records[b"path"].decode("utf-8", "surrogateescape")
                if b"size" in records:
                    size = _decimal(records[b"size"], self._after())
            elif entry.type == "L":
                name = self._extended(entry).rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif entry.type in "Kg":
                self._expect(entry.size)
            else:
                return self._complete(entry, name, size, sparse=sparse)

    def _complete(self, entry: Entry, name: str | None, size: int | None, *, sparse: bool) -> Entry:
        if name is not None:
            entry.name = name
        if size is not None:
            entry.size = size
        entry.sparse = sparse or entry.type == "S"
        if entry.type in "0\0" and entry.name.endswith("/"):
            entry.type = DIRECTORY  # how tar wrote folders before there was a type for them
        if entry.type in _BODILESS:
            entry.size = 0
        self._expect(entry.size)
        return entry

    def _parse(self, header: bytes) -> Entry:
        if len(header) < BLOCK:
            raise ArchiveError(f"the archive is truncated{self._after()}")
        stated = _number(header[148:156])
        if stated is None or stated != sum(header[:148]) + 256 + sum(header[156:]):
            raise ArchiveError(f"the archive is damaged: wrong checksum of the header{self._after()}")
        name = header[:100].partition(b"\0")[0]
        if header[257:263] == b"ustar\0" and header[345]:
            name = header[345:500].partition(b"\0")[0] + b"/" + name
        size, mode = _number(header[124:136]), _number(header[100:108])
        shown = name.decode("utf-8", "surrogateescape")
        if size is None or size < 0:
            raise ArchiveError(f"the archive is damaged: entry {shown!r} has no valid size")
        return Entry(shown, chr(header[156]), size, (mode or 0) & 0o7777)

    def _extended(self, entry: Entry) -> bytes:
        if entry.size > _EXTENDED_LIMIT:
            raise ArchiveTooLarge(
                f"an extended header of {entry.size} bytes is over the limit of {_EXTENDED_LIMIT}{self._after()}"
            )
        self._expect(entry.size)
        return b"".join(self.data())

    def _expect(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK

    def _skip(self) -> None:
        for _ in self.data():
            pass
        if self._padding:
            self._take(self._padding)
            self._padding = 0

    def _take(self, size: int) -> bytes:
        found = self._stream.read(size)
        if len(found) < size:
            raise ArchiveError(f"the archive is truncated{self._after()}")
        return found

    def _rest(self) -> None:
        """Read what follows the end mark, so that the checksum of gzip is verified; only zeros are allowed."""
        while rest := self._stream.read(PIECE):
            if rest.strip(b"\0"):
                raise ArchiveError(f"the archive goes on after its end mark{self._after()}")

    def _after(self) -> str:
        return f" (after entry {self._last!r})" if self._last else " (at its first entry)"


def _number(field: bytes) -> int | None:
    """A number of a header: octal digits, or two's complement of the bytes when the first bit is set; None when it is neither."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
    digits = field.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else None


def _decimal(text: bytes, where: str) -> int:
    if not text.isdigit() or len(text) > 18:
        raise ArchiveError(f"the archive is damaged: {text[:40]!r} is no valid size{where}")
    return int(text)


def _pax(data: bytes, where: str) -> dict[bytes, bytes]:
    """The records `length key=value` of an extended header."""
    records: dict[bytes, bytes] = {}
    while data:
        length, space, _ = data[:20].partition(b" ")
        end = int(length) if space and length.isdigit() else 0
        key, equals, value = data[len(length) + 1 : end].partition(b"=")
        if not equals or not key or end > len(data) or not value.endswith(b"\n") or b"\0" in value:
            raise ArchiveError(f"the archive is damaged: invalid extended header{where}")
        records[key] = value[:-1]
        data = data[end:]
    return records
