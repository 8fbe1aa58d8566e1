"""All SQL of local mode: schema, migrations, compare-and-set. SQLite in WAL mode; a killed process loses no finished write.

Secrets never come here. One connection in one thread; reads by other processes are not disturbed (WAL).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from reconcile.api.meta import Key
from reconcile.errors import Conflict, Invalid, NotFound, ReconcileError

BUSY_TIMEOUT = 5.0
LEAST_ROOM = 256 * 1024
"""Bytes that must be free for SQLite to open a file at all."""
MAX_EVENTS = 2000
"""Events kept, over all objects; the oldest go first."""

_MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE objects (
        kind TEXT NOT NULL,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        uid TEXT NOT NULL,
        version INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        created TEXT NOT NULL,
        deleted TEXT,
        finalizers TEXT NOT NULL,
        source TEXT NOT NULL,
        spec_digest TEXT NOT NULL,
        manifest BLOB NOT NULL,
        status BLOB NOT NULL,
        PRIMARY KEY (kind, namespace, name)
    ) WITHOUT ROWID;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time TEXT NOT NULL,
        kind TEXT NOT NULL,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL
    );
    CREATE TABLE counter (only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER NOT NULL);
    INSERT INTO counter VALUES (1, 0);
    """,
)


MADE = ""
"""Source of an object that the service made itself."""


@dataclass(frozen=True, slots=True)
class Row:
    """One stored object. `manifest` (metadata and spec of the last good version) and `status` are JSON; `source` is the file
    that declares it, `MADE` if none does."""

    kind: str
    key: Key
    uid: str
    version: int
    generation: int
    created: str
    deleted: str | None
    finalizers: str
    source: str
    spec_digest: str
    manifest: bytes
    status: bytes


@dataclass(frozen=True, slots=True)
class EventRow:
    """One stored event."""

    time: str
    kind: str
    key: Key
    type: str
    reason: str
    message: str


_COLUMNS = "kind, namespace, name, uid, version, generation, created, deleted, finalizers, source, spec_digest, manifest, status"


def _row(values: Sequence[object]) -> Row:
    kind, namespace, name, *rest = values
    return Row(str(kind), Key(str(namespace), str(name)), *rest)  # type: ignore[arg-type]


def _full(path: Path, error: sqlite3.Error) -> bool:
    """Whether the disk is at fault and not the file. SQLite speaks of an I/O error where the index of the log finds no room."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return True
    free = os.statvfs(path.parent)
    return isinstance(error, sqlite3.OperationalError) and free.f_bavail * free.f_frsize < LEAST_ROOM


class Database:
    """The state file. Methods block for a moment; call them in one thread only."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open or make the file; raises Invalid when it is not ours, newer than this program, or damaged."""
        self.path = path
        self._data_version: int | None = None
        try:
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # As a URI, since only that says "read only"; quoted, since a path may hold ?, # and %.
            uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
            self._db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, check_same_thread=False, isolation_level=None)
        except (sqlite3.Error, OSError) as error:
            cause = error.strerror if isinstance(error, OSError) else error
            raise Invalid(f"cannot use the state file {path}: {cause}; give another --state") from error
        try:
            self._prepare(read_only)
        except sqlite3.Error as error:
            self._db.close()
            advice = "make room on its disk and start again" if _full(path, error) else "move it away to start afresh"
            raise Invalid(f"cannot use the state file {path}: {error}; {advice}") from error
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, read_only: bool) -> None:
        if not read_only:
            self._check()
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self.path.chmod(0o600)
        self._migrate(read_only)

    def _check(self) -> None:
        """Look through the file for damage now, since later every write could meet it."""
        found = str(self._db.execute("PRAGMA quick_check(1)").fetchone()[0])
        if found != "ok":
            raise sqlite3.DatabaseError(f"it is damaged ({' '.join(found.split())})")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if not version and self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise Invalid(f"the file {self.path} is a database of another program; give another --state")

    def _migrate(self, read_only: bool) -> None:
        found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if found > len(_MIGRATIONS):
            raise Invalid(
                f"the state file {self.path} was written by a newer version of imagebot (schema {found}); upgrade imagebot"
            )
        if read_only:
            if found < len(_MIGRATIONS):
                raise Invalid(f"the state file {self.path} has an older schema; start `imagebot run` once to bring it up to date")
            return
        for number in range(found, len(_MIGRATIONS)):
            # One transaction per step: a process killed in the middle finds the old schema again.
            self._db.executescript(f"BEGIN; {_MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turns what SQLite raises into an error of ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise ReconcileError(f"the state file {self.path} cannot be used: {error}") from error

    def objects(self) -> list[Row]:
        """Every object; this and what follows raises ReconcileError when the file cannot be used (full disk, damage)."""
        with self._readable():
            return self._objects()

    def _objects(self) -> list[Row]:
        return [_row(r) for r in self._db.execute(f"SELECT {_COLUMNS} FROM objects ORDER BY kind, namespace, name")]  # noqa: S608

    def save(self, row: Row, expected: int | None) -> Row:
        """Insert (expected None) or replace the object whose version is `expected`; returns it with its new version.

        Raises Conflict when it exists already or has another version, NotFound when it is gone.
        """
        with self._readable():
            return self._save(row, expected)

    def _save(self, row: Row, expected: int | None) -> Row:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            found = self._db.execute(
                "SELECT version FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
                (row.kind, row.key.namespace, row.key.name),
            ).fetchone()
            if expected is not None and found is None:
                raise NotFound(f"{row.kind} {row.key} is gone")
            if (found[0] if found else None) != expected:
                raise Conflict(f"{row.kind} {row.key} has changed since it was read")
            self._db.execute("UPDATE counter SET version = version + 1")
            version = int(self._db.execute("SELECT version FROM counter").fetchone()[0])
            new = replace(row, version=version)
            self._db.execute(
                f"INSERT OR REPLACE INTO objects ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608
                (
                    new.kind,
                    new.key.namespace,
                    new.key.name,
                    new.uid,
                    new.version,
                    new.generation,
                    new.created,
                    new.deleted,
                    new.finalizers,
                    new.source,
                    new.spec_digest,
                    new.manifest,
                    new.status,
                ),
            )
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # on a full disk SQLite has rolled back by itself
                self._db.execute("ROLLBACK")
            raise
        return new

    def delete(self, kind: str, key: Key) -> None:
        """Remove an object; nothing happens when it is gone."""
        with self._readable():
            self._db.execute("DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?", (kind, key.namespace, key.name))

    def find(self, kind: str, key: Key) -> Row | None:
        """One object, if it is there."""
        with self._readable():
            where = "kind = ? AND namespace = ? AND name = ?"
            found = self._db.execute(
                f"SELECT {_COLUMNS} FROM objects WHERE {where}",  # noqa: S608
                (kind, key.namespace, key.name),
            ).fetchone()
            return _row(found) if found else None

    def written_elsewhere(self) -> bool:
        """Whether another process has written to the file since this was asked last."""
        with self._readable():
            seen = int(self._db.execute("PRAGMA data_version").fetchone()[0])
            before, self._data_version = self._data_version, seen
            return before not in (None, seen)

    def add_event(self, event: EventRow) -> None:
        """Keep an event; the oldest beyond the bound go."""
        with self._readable():
            cursor = self._db.execute(
                "INSERT INTO events (time, kind, namespace, name, type, reason, message) VALUES (?,?,?,?,?,?,?)",
                (event.time, event.kind, event.key.namespace, event.key.name, event.type, event.reason, event.message),
            )
            self._db.execute("DELETE FROM events WHERE id <= ?", ((cursor.lastrowid or 0) - MAX_EVENTS,))

    def events(self) -> list[EventRow]:
        """All events kept, oldest first."""
        with self._readable():
            rows = self._db.execute(
                "SELECT time, kind, namespace, name, type, reason, message FROM events ORDER BY id"
            ).fetchall()
        return [EventRow(time, kind, Key(ns, name), kind_, reason, text) for time, kind, ns, name, kind_, reason, text in rows]
