"""The SQLite file: migrations, damage, kills, two processes; and the store that stands on it."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconcile.api.meta import FINALIZER, Key
from reconcile.errors import Conflict, Invalid, NotFound, ReconcileError
from reconcile.local import database as storage
from reconcile.local.database import Database, EventRow, Row
from reconcile.local.files import Folder
from reconcile.local.lease import FileLease
from reconcile.local.store import POLL_INTERVAL, LocalStore
from reconcile.ports.clock import SystemClock
from reconcile.ports.events import Event, EventType
from tests.support.bench import KEY, KIND, Bench, all_kinds, bench, manifest

REPOSITORY = Path(__file__).parents[4]


def row(name: str = "a", **changes: Any) -> Row:
    values = {
        "kind": KIND,
        "key": Key("default", name),
        "uid": "u",
        "version": 0,
        "generation": 1,
        "created": "2026-01-01T00:00:00Z",
        "deleted": None,
        "finalizers": "[]",
        "source": "a.yaml",
        "spec_digest": "d",
        "manifest": b"{}",
        "status": b"{}",
    }
    return Row(**(values | changes))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


# --- the file


def test_a_new_file_is_made_private_and_with_the_newest_schema(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.db"
    Database(path).close()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(storage._MIGRATIONS)
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    db.close()


def test_an_empty_file_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    database = Database(path)
    assert database.objects() == []
    database.save(row(), None)
    database.close()
    again = Database(path)
    assert [r.key.name for r in again.objects()] == ["a"]
    again.close()


def test_a_migration_that_was_killed_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.db"
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_MIGRATIONS", (storage._MIGRATIONS[0] + "; SELECT * FROM nowhere;",))
        with pytest.raises(Invalid):
            Database(path)
    database = Database(path)
    assert database.objects() == []
    database.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Database(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for read_only in (False, True):
        with pytest.raises(Invalid) as caught:
            Database(path, read_only=read_only)
        assert str(caught.value) == (
            f"the state file {path} was written by a newer version of imagebot (schema 99); upgrade imagebot"
        )


def test_a_reader_does_not_migrate(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    with pytest.raises(Invalid, match="has an older schema; start `imagebot run` once"):
        Database(path, read_only=True)
    with pytest.raises(Invalid, match="cannot use the state file"):
        Database(tmp_path / "none.db", read_only=True)
    assert not (tmp_path / "none.db").exists()


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE objects (x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(Invalid, match="is a database of another program; give another --state"):
        Database(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(Invalid) as caught:
        Database(path)
    assert str(caught.value) == f"cannot use the state file {path}: file is not a database; move it away to start afresh"


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = Database(path)
    for n in range(200):
        database.save(row(f"n{n}", manifest=b"x" * 500), None)
    database.close()
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xaa" * 64
    path.write_bytes(content)
    with pytest.raises(Invalid, match=r"cannot use the state file .*it is damaged.*; move it away to start afresh"):
        Database(path)


@pytest.mark.parametrize("name", ["a?b#c%20d", "ü 😀", "mode=ro&x"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "state.db"
    Database(path).close()
    assert path.exists()
    reader = Database(path, read_only=True)
    assert reader.objects() == []
    reader.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Invalid, match=r"cannot use the state file .*File exists; give another --state"):
        Database(tmp_path / "file" / "state.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(Invalid, match="unable to open database file"):
        Database(tmp_path / "folder.db")


def test_a_reader_sees_what_a_running_writer_has_written(tmp_path: Path) -> None:
    writer = Database(tmp_path / "state.db")
    reader = Database(tmp_path / "state.db", read_only=True)
    writer.save(row(), None)
    assert [r.key.name for r in reader.objects()] == ["a"]
    with pytest.raises(ReconcileError, match="readonly"):
        reader.save(row("b"), None)
    reader.close()
    writer.close()


def test_compare_and_set(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    first = database.save(row(), None)
    with pytest.raises(Conflict):
        database.save(row(), None)
    second = database.save(first, first.version)
    assert second.version > first.version
    with pytest.raises(Conflict):
        database.save(first, first.version)
    database.delete(KIND, KEY)
    database.delete(KIND, KEY)
    with pytest.raises(NotFound):
        database.save(second, second.version)
    assert database.save(row(), None).version > second.version  # versions are never used again
    database.close()


def test_a_full_disk_is_an_error_of_ours_and_changes_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    first = database.save(row(), None)
    database._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(ReconcileError, match="full"):
        database.save(row(status=b"x" * 1_000_000), first.version)
    assert database.objects() == [first]
    database._db.execute("PRAGMA max_page_count = 100000")
    assert database.save(first, first.version).version > first.version
    database.close()


def test_the_oldest_events_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_EVENTS", 10)
    database = Database(tmp_path / "state.db")
    for n in range(25):
        database.add_event(EventRow("t", KIND, KEY, "Normal", "R", str(n)))
    assert [e.message for e in database.events()] == [str(n) for n in range(15, 25)]
    database.close()


# --- one process at a time


async def test_a_second_process_is_told_who_has_the_state(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from reconcile.local.lease import FileLease\n"
        "async def main():\n"
        "    async with FileLease(Path(sys.argv[1])).hold():\n"
        "        print('held', flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    path = tmp_path / "state" / "lock"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(Conflict) as caught:
            async with FileLease(path).hold():
                pytest.fail("both have it")
        assert str(caught.value) == (
            f"process {process.pid} already works with this state ({path.parent}); end it, or give another --state"
        )
        process.kill()
    async with FileLease(path).hold():
        assert path.read_text() == str(os.getpid())


async def test_a_lease_in_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Invalid, match=r"cannot keep state in .*File exists; give another --state"):
        async with FileLease(tmp_path / "file" / "lock").hold():
            pytest.fail("there is no such lease")


# --- kills


@pytest.mark.slow
def test_a_killed_process_loses_no_acknowledged_write(tmp_path: Path) -> None:
    folder, state = tmp_path / "manifests", tmp_path / "state.db"
    folder.mkdir()
    (folder / "a.yaml").write_text(yaml.safe_dump(manifest()))
    last = 0
    for turn in range(20):
        command = [sys.executable, "-m", "tests.support.store_writer", str(folder), str(state)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
            assert process.stdout is not None
            for _ in range(1 + turn * 7 % 23):
                last = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = [int(line) for line in process.stdout.read().split(b"\n")[:-1]]  # a last line may be cut
        last = rest[-1] if rest else last
        database = Database(state)
        (found,) = database.objects()
        database.close()
        kept = int(yaml.safe_load(found.status)["canonicalImageName"])
        assert kept in (last, last + 1)  # one more may have been written and not yet said
        last = kept


# --- the store on it


async def test_a_caller_who_is_cancelled_does_not_part_memory_and_database(world: Bench) -> None:
    await world.declare()
    resource = await world.get()
    for n in range(20):
        status = resource.status.model_copy(update={"canonical_image_name": str(n)})
        task = asyncio.create_task(world.store.write_status(resource, status))
        for _ in range(n % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while world.store._tasks:
            await asyncio.wait(world.store._tasks)
        resource = await world.get()
        (kept,) = world.store._database.objects()
        assert str(kept.version) == resource.meta.resource_version
    await world.store.write_status(resource, resource.status.model_copy(update={"canonical_image_name": "end"}))
    assert (await world.get()).status.canonical_image_name == "end"


async def test_what_could_not_be_taken_over_is_read_again(world: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Row:
        raise ReconcileError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(world.store._database, "save", full)
        with pytest.raises(ReconcileError, match="the disk is full"):
            await world.declare()
    await world.store.sync()
    assert (await world.get()).meta.generation == 1


async def test_a_row_that_cannot_be_read_is_left_out_and_said_again_by_the_file(tmp_path: Path) -> None:
    async with bench(tmp_path) as world:
        await world.declare(manifest("a"))
        await world.declare(manifest("b"))
    database = Database(tmp_path / "state" / "state.db")
    for found in database.objects():
        if found.key.name == "a":
            database.save(row(manifest=b'{"apiVersion": "v", "spec": {"image": 5}}', version=found.version), found.version)
    database.close()
    async with bench(tmp_path) as world:
        assert [r.key.name for r in await world.store.list(KIND)] == ["a", "b"]
        assert (await world.get()).status.observed_generation == -1


async def test_a_store_that_cannot_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    store = LocalStore(Folder(tmp_path / "none", all_kinds()), database, all_kinds(), SystemClock())
    with pytest.raises(Invalid, match="is not a folder"):
        await store.__aenter__()
    with pytest.raises(sqlite3.ProgrammingError):
        database._db.execute("SELECT 1")
    with pytest.raises(RuntimeError):
        await store._threads.run(lambda: None)


async def test_unchanged_files_cause_no_write(world: Bench) -> None:
    await world.declare()
    before = (await world.get()).meta.resource_version
    (world.folder / "a.yaml").touch()
    world.store._folder.forget()
    await world.store.sync()
    assert (await world.get()).meta.resource_version == before
    assert world.store._database._db.execute("SELECT version FROM counter").fetchone()[0] == int(before)


async def test_two_looks_at_once_agree(world: Bench) -> None:
    for n in range(5):
        (world.folder / "a.yaml").write_text(yaml.safe_dump(manifest(interval=f"{n + 1}m")))
        await asyncio.gather(*(world.store.sync() for _ in range(4)))
        assert (await world.get()).meta.generation == n + 1


async def test_events_are_kept_with_their_object(world: Bench) -> None:
    await world.declare()
    resource = await world.get()
    for kind in EventType:
        world.store.emit(Event(resource, kind, "Reason", f"text {kind}", "c"))
    while world.store._tasks:
        await asyncio.wait(world.store._tasks)
    assert [(e.type, e.reason, e.message, e.key) for e in world.store._database.events()] == [
        ("Normal", "Reason", "text Normal", KEY),
        ("Warning", "Reason", "text Warning", KEY),
        ("Normal", "Reason", "text Trace", KEY),
    ]


async def test_a_flood_of_events_is_bounded(world: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconcile.local.store.MAX_EVENTS_WAITING", 5)
    await world.declare()
    resource = await world.get()
    for n in range(50):
        world.store.emit(Event(resource, EventType.NORMAL, "Reason", str(n), "c"))
    assert len(world.store._tasks) == 5
    while world.store._tasks:
        await asyncio.wait(world.store._tasks)
    assert [e.message for e in world.store._database.events()] == ["0", "1", "2", "3", "4"]


# --- polling


@pytest.fixture
async def polled(world: Bench) -> AsyncIterator[Bench]:
    task = asyncio.create_task(world.store.poll())
    await asyncio.sleep(0)
    yield world
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def look(world: Bench) -> None:
    """Let the poll look once: jump, then let it finish and fall asleep again."""
    world.clock.advance(POLL_INTERVAL)
    while not world.clock._sleepers:
        await asyncio.sleep(0.001)


def test_two_looks_fit_into_two_seconds() -> None:
    assert 2 * POLL_INTERVAL < 2


async def test_poll_notices_an_added_and_a_changed_file_at_the_first_look(polled: Bench) -> None:
    for minutes in (1, 2):
        (polled.folder / "a.yaml").write_text(yaml.safe_dump(manifest(interval=f"{minutes}m")))
        await look(polled)
        assert (await polled.get()).meta.generation == minutes


async def test_poll_takes_an_object_for_deleted_at_the_second_look(polled: Bench) -> None:
    await polled.declare()
    (polled.folder / "a.yaml").unlink()
    await look(polled)
    assert (await polled.get()).meta.generation == 1
    await look(polled)
    with pytest.raises(NotFound):
        await polled.get()


@pytest.mark.parametrize("gap", ["removed", "emptied"])
async def test_a_file_that_is_written_anew_is_not_deleted_in_between(polled: Bench, gap: str) -> None:
    await polled.declare()
    first = await polled.store.write_finalizers(await polled.get(), [FINALIZER])
    path = polled.folder / "a.yaml"
    text = path.read_text()
    path.unlink() if gap == "removed" else path.write_text("")
    await look(polled)
    path.write_text(text)
    for _ in range(3):
        await look(polled)
    assert await polled.get() == first


async def test_poll_survives_a_folder_that_vanishes(polled: Bench) -> None:
    await polled.declare()
    away = polled.folder.rename(polled.folder.with_name("away"))
    for _ in range(3):
        await look(polled)
    assert [p.message for p in polled.store.problems] == [f"{polled.folder} is not a folder"]
    away.rename(polled.folder)
    await look(polled)
    assert polled.store.problems == ()
    assert (await polled.get()).meta.generation == 1


async def test_poll_survives_what_nobody_expected(polled: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("bug")

    with monkeypatch.context() as patch:
        patch.setattr(polled.store._folder, "scan", broken)
        await look(polled)
        assert [p.message for p in polled.store.problems] == ["internal error: KeyError: 'bug'"]
    (polled.folder / "a.yaml").write_text(yaml.safe_dump(manifest()))
    await look(polled)
    assert polled.store.problems == ()
    assert (await polled.get()).meta.generation == 1


async def test_an_idle_poll_reads_and_writes_nothing(polled: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await polled.declare()
    await look(polled)
    statements: list[str] = []
    reads: list[Path] = []
    polled.store._database._db.set_trace_callback(statements.append)
    monkeypatch.setattr("reconcile.local.files.read_regular", lambda path, limit: reads.append(path))
    for _ in range(5):
        await look(polled)
    assert (statements, reads) == ([], [])
