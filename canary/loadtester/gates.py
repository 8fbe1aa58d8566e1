"""Gates: which Canaries may go on, and which are to be rolled back, as somebody has said by a call.

A gate is closed until it is opened. Gates live in memory, as those of Flagger's load tester do, or also in a file, so that a
restart forgets none.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Final, Literal, get_args

import orjson

from canary.loadtester.payload import Refused
from reconcile.api.meta import Key
from reconcile.errors import Invalid

Space = Literal["gate", "rollback"]
"""`gate` lets a Canary go on, `rollback` calls for its way back; the two know nothing of each other."""
SPACES: Final[tuple[Space, ...]] = get_args(Space)

MAX_OPEN = 10_000
"""Gates that may be open at a time, in each space."""
MAX_FILE = 8 * 1024 * 1024
"""Bytes of the file of gates."""
FORMAT = 1


class Gates:
    """The gates of all Canaries; closed ones take no room."""

    def __init__(self, file: Path | None = None) -> None:
        """With a file the gates are those in it, if it is there; raises Invalid when it cannot be read."""
        self._file = file
        self._writing = asyncio.Lock()
        self._open: dict[Space, frozenset[Key]] = {space: frozenset() for space in SPACES}
        if file is not None:
            self._open = read_gates(file)

    def is_open(self, space: Space, key: Key) -> bool:
        """Whether the gate of a Canary is open."""
        return key in self._open[space]

    def count(self, space: Space) -> int:
        """How many gates are open."""
        return len(self._open[space])

    async def set(self, space: Space, key: Key, *, opened: bool) -> None:
        """Open or close the gate of a Canary.

        Raises:
            Refused: Too many gates are open, or the file cannot be written; then the gate is as it was.
        """
        async with self._writing:
            now = self._open[space]
            after = now | {key} if opened else now - {key}
            if after == now:
                return
            if len(after) > MAX_OPEN:
                raise Refused(429, f"{MAX_OPEN} gates are open: close some of them")
            changed = {**self._open, space: after}
            if self._file is not None:
                try:
                    await asyncio.to_thread(write_gates, self._file, changed)
                except OSError as error:
                    text = f"the gate is as it was, because {self._file.name} cannot be written: {error.strerror}"
                    raise Refused(500, text) from error
            self._open = changed


def read_gates(file: Path) -> dict[Space, frozenset[Key]]:
    """The open gates that a file keeps, none if there is no such file.

    Raises:
        Invalid: It cannot be read, or holds something else; a gate that somebody opened is not forgotten in silence.
    """
    try:
        with file.open("rb") as stream:
            body = stream.read(MAX_FILE + 1)
    except FileNotFoundError:
        return {space: frozenset() for space in SPACES}
    except OSError as error:
        raise Invalid(f"the gates in {file} cannot be read: {error.strerror}") from error
    try:
        data = orjson.loads(body)
        if data["format"] != FORMAT:
            raise ValueError("unknown format")
        return {space: frozenset(_key(text) for text in data[space]) for space in SPACES}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Invalid(f"{file} does not hold gates: remove it to begin with all of them closed") from error


def write_gates(file: Path, gates: dict[Space, frozenset[Key]]) -> None:
    """Keep the open gates in a file, all at once or not at all; raises OSError."""
    body: dict[str, object] = {"format": FORMAT}
    for space in SPACES:
        body[space] = sorted(str(key) for key in gates[space])
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(orjson.dumps(body, option=orjson.OPT_INDENT_2))
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _key(text: str) -> Key:
    namespace, slash, name = text.partition("/")
    if not slash:
        raise ValueError(text)
    return Key(namespace, name)
