"""Mirrors on disk: damage, what killed processes leave, locks between processes, bounds, cancelled work."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagebot.demo.gitserver import GitServer
from reconcile.errors import Invalid
from reconcile.git.errors import GitTimeout, ObjectTooLarge, PathNotFound
from reconcile.git.mirror import Mirror
from reconcile.git.mirrors import Mirrors
from reconcile.git.types import Author, Edit, RefUpdate, Resolved
from tests.support.gitrepo import BareRepository, Blob, manifests, processes_with

AUTHOR = Author("Bot", "bot@example.com")
WHEN = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def repository(tmp_path: Path) -> BareRepository:
    return BareRepository.create(tmp_path / "srv" / "app.git")


@pytest.fixture
async def mirrors(tmp_path: Path) -> AsyncIterator[Mirrors]:
    made = Mirrors(tmp_path / "state", allow_file=True)
    yield made
    await made.close()


def url(repository: BareRepository) -> str:
    return f"file://{repository.path}"


def bare(root: Path) -> Path:
    """The one repository under a root."""
    return next(root.glob("*.0/repo.git"))


async def change(mirror: Mirror, repository: BareRepository, data: bytes, path: str = "a") -> str:
    base = repository.head()
    assert base is not None
    await mirror.fetch(Resolved(base, "refs/heads/main"))
    made = await mirror.write_commit(base, [Edit(path, data)], "m", AUTHOR, WHEN)
    await mirror.push([RefUpdate(made, "refs/heads/main", base)])
    return made


# --- commits ----------------------------------------------------------------------------------------------------------


async def test_a_commit_is_to_the_byte_what_was_asked_for(mirrors: Mirrors, repository: BareRepository) -> None:
    base = repository.commit({"a": b"1", "d/b": b"2"})
    mirror = mirrors.mirror(url(repository))
    await mirror.fetch(base)
    message = "subject\r\n\n# kept\n\n\n  trailing  \n\n"
    made = await mirror.write_commit(base, [Edit("d/b", b"3")], message, Author("", "bot@x"), WHEN)
    await mirror.push([RefUpdate(made, "refs/heads/main", base)])
    tree = repository.git("rev-parse", f"{made}^{{tree}}")
    person = " <bot@x> 1767312000 +0000"
    wanted = f"tree {tree}\nparent {base}\nauthor {person}\ncommitter {person}\n\n{message}"
    assert repository.raw("cat-file", "commit", made) == wanted.encode()
    again = await mirror.write_commit(base, [Edit("d/b", b"3")], message, Author("", "bot@x"), WHEN)
    assert again == made
    repository.check()


async def test_a_name_cannot_forge_headers(mirrors: Mirrors, repository: BareRepository) -> None:
    base = repository.commit({"a": b"1"})
    mirror = mirrors.mirror(url(repository))
    await mirror.fetch(base)
    evil = Author("A <x@y> 1 +0000\ncommitter B", "e>\nmail@x")
    made = await mirror.write_commit(base, [Edit("a", b"2")], "m", evil, WHEN)
    await mirror.push([RefUpdate(made, "refs/heads/main", base)])
    assert repository.git("log", "-1", "--format=%an|%ae|%cn") == "A x@y 1 +0000committer B|email@x|A x@y 1 +0000committer B"


async def test_nothing_to_change_writes_nothing(mirrors: Mirrors, repository: BareRepository) -> None:
    base = repository.commit({"a": b"1", "d/b": b"2"})
    mirror = mirrors.mirror(url(repository))
    await mirror.fetch(base)
    assert await mirror.write_commit(base, [Edit("a", b"1"), Edit("d/b", b"2")], "m", AUTHOR, WHEN) == base
    assert await mirror.write_commit(base, [], "m", AUTHOR, WHEN) == base
    assert not mirror.counters.objects
    made = await mirror.write_commit(base, [Edit("a", b"1"), Edit("d/b", b"1")], "m", AUTHOR, WHEN)
    await mirror.push([RefUpdate(made, "refs/heads/main", base)])
    assert dict(mirror.counters.objects) == {"tree": 2, "commit": 1}
    repository.check()


async def test_edits_that_cannot_be_made(mirrors: Mirrors, repository: BareRepository) -> None:
    base = repository.commit({"a": b"1", "d/b": b"2", "l": Blob(b"a", "120000"), "s": Blob(b"1" * 40, "160000")})
    mirror = mirrors.mirror(url(repository))
    await mirror.fetch(base)
    cases = {
        "none": "'none' does not exist",
        "d/none": "'d/none' does not exist",
        "none/x": f"'none' is not a folder of commit {base[:7]}",
        "a/x": f"'a' is not a folder of commit {base[:7]}",
        "l": "'l' is not a regular file",
        "l/x": f"'l' is not a folder of commit {base[:7]}",
        "s": "'s' is not a regular file",
        "d": "'d' is not a regular file",
    }
    for path, text in cases.items():
        with pytest.raises(PathNotFound) as error:
            await mirror.write_commit(base, [Edit("a", b"9"), Edit(path, b"x")], "m", AUTHOR, WHEN)
        assert str(error.value) == text
    for paths in (["../a"], ["/a"], ["a", "a"], [".git/config"], [""], ["d//b"], ["d/\0"]):
        with pytest.raises(Invalid):
            await mirror.write_commit(base, [Edit(path, b"") for path in paths], "m", AUTHOR, WHEN)
    with pytest.raises(Invalid, match="NUL"):
        await mirror.write_commit(base, [Edit("a", b"9")], "m\0", AUTHOR, WHEN)
    with pytest.raises(Invalid, match="time zone"):
        await mirror.write_commit(base, [Edit("a", b"9")], "m", AUTHOR, datetime(2026, 1, 1))
    assert not mirror.counters.objects


async def test_many_edits_are_one_pack(mirrors: Mirrors, repository: BareRepository) -> None:
    files = manifests(1000)
    base = repository.commit(files)
    mirror = mirrors.mirror(url(repository))
    await mirror.fetch(base)
    made = await mirror.write_commit(base, [Edit(path, data + b"#\n") for path, data in files.items()], "m", AUTHOR, WHEN)
    await mirror.push([RefUpdate(made, "refs/heads/main", base)])
    # 1,000 files in 100 folders of 10 teams, and two above.
    assert dict(mirror.counters.objects) == {"blob": 1000, "tree": 112, "commit": 1}
    assert mirror.counters.processes["index-pack"] == 1
    assert all(repository.file(path) == files[path] + b"#\n" for path in list(files)[::97])
    repository.check()


async def test_a_large_file_is_refused_by_name_and_the_next_call_works(mirrors: Mirrors, repository: BareRepository) -> None:
    big = b"image: needle\n" + b"x" * 300_000
    base = repository.commit({"big": big, "small": b"needle"})
    mirror = mirrors.mirror(url(repository))
    await mirror.fetch(base)
    oids = {entry.path: entry.oid for entry in await mirror.grep(base, b"needle")}
    assert set(oids) == {"big", "small"}
    with pytest.raises(ObjectTooLarge, match=oids["big"]):
        await mirror.read([oids["big"]], max_bytes=1000)
    with pytest.raises(ObjectTooLarge):
        await mirror.read(list(oids.values()), max_total=100_000)
    assert await mirror.read([oids["small"]], max_bytes=6) == {oids["small"]: b"needle"}
    # Files larger than one piece are searched to their end, also across pieces.
    edge = b"y" * ((1 << 20) - 3) + b"needle"
    later = repository.commit({"big": edge, "small": b"x"})
    await mirror.fetch(later)
    assert [entry.path for entry in await mirror.grep(later, b"needle")] == ["big"]


# --- damage -----------------------------------------------------------------------------------------------------------


def damages() -> dict[str, object]:
    def each(pattern: str, act: object) -> object:
        def damage(git: Path) -> None:
            found = [path for path in git.glob(pattern) if path.is_file()]
            assert found
            for path in found:
                path.chmod(0o644)
                act(path)

        return damage

    def truncate(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def empty(path: Path) -> None:
        path.write_bytes(b"")

    return {
        "truncated objects": each("objects/??/*", truncate),
        "empty objects": each("objects/??/*", empty),
        "lost objects": each("objects/??/*", Path.unlink),
        "truncated packs": each("objects/pack/*.pack", truncate),
        "lost packs": each("objects/pack/*", Path.unlink),
        "broken config": each("config", lambda path: path.write_bytes(b"[[[")),
        "lost head": each("HEAD", Path.unlink),
        "empty references": each("refs/mirror/*/*", empty),
        "broken shallow": each("shallow", lambda path: path.write_bytes(b"zzz\n")),
    }


@pytest.mark.parametrize("kind", damages())
@pytest.mark.parametrize("restarted", [True, False])
async def test_a_damaged_mirror_is_built_again(
    mirrors: Mirrors, repository: BareRepository, tmp_path: Path, kind: str, restarted: bool
) -> None:
    # 300 files make a pack; fewer objects are kept one by one.
    base = repository.commit(manifests(300) if "pack" in kind else {"a": b"needle 1", "b": b"2"})
    path = min(repository.tree(base))
    mirror = mirrors.mirror(url(repository))
    await mirror.fetch(base)
    await mirror.entries(base)
    if restarted:
        await mirrors.close()
    else:
        await mirror.close()
    damages()[kind](bare(tmp_path / "state"))  # type: ignore[operator]
    fresh = Mirrors(tmp_path / "state", allow_file=True)
    try:
        mirror = fresh.mirror(url(repository)) if restarted else mirror
        await mirror.ls_remote()
        await mirror.fetch(base)
        assert len(await mirror.entries(base)) == len(repository.tree(base))
        await mirror.grep(base, b"needle")
        oid = repository.tree(base)[path][1]
        assert await mirror.read([oid]) == {oid: repository.raw("cat-file", "blob", oid)}
        made = await change(mirror, repository, b"new", path)
        assert repository.log() == [made, base]
        repository.check()
    finally:
        await fresh.close()


async def test_what_a_killed_process_leaves_is_removed(repository: BareRepository, tmp_path: Path) -> None:
    base = repository.commit({"a": b"1"})
    first = Mirrors(tmp_path / "state", allow_file=True)
    await first.mirror(url(repository)).fetch(base)
    await first.close()
    git = bare(tmp_path / "state")
    left = [
        git / "shallow.lock",
        git / "config.lock",
        git / "packed-refs.lock",
        git / "refs/mirror/heads/main.lock",
        git / "objects/pack/tmp_pack_1",
        git / "objects/ab/tmp_obj_1",
        git / "gc.pid",
        git.parent / "tmp/session-x/password",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left")
    second = Mirrors(tmp_path / "state", allow_file=True)
    assert [path for path in left if path.exists()] == []
    await change(second.mirror(url(repository)), repository, b"2")
    await second.close()


# --- several processes, several mirrors ---------------------------------------------------------------------------------


async def test_two_services_do_not_share_a_mirror(repository: BareRepository, tmp_path: Path) -> None:
    base = repository.commit({"a": b"1", "b": b"1"})
    one, two = (Mirrors(tmp_path / "state", allow_file=True) for _ in range(2))
    await one.mirror(url(repository)).fetch(base)
    await two.mirror(url(repository)).fetch(base)
    assert sorted(path.name.rpartition(".")[2] for path in (tmp_path / "state").iterdir()) == ["0", "1"]
    await change(one.mirror(url(repository)), repository, b"2", "a")
    await change(two.mirror(url(repository)), repository, b"2", "b")
    assert len(repository.log()) == 3
    await one.close()
    await two.close()
    three = Mirrors(tmp_path / "state", allow_file=True)
    await three.mirror(url(repository)).ls_remote()
    assert len(list((tmp_path / "state").iterdir())) == 2
    await three.close()


def readers() -> int:
    """Number of our long-lived reading processes."""
    mine = Path(f"/proc/{os.getpid()}/task")
    pids = [pid for task in mine.iterdir() for pid in (task / "children").read_text().split()]
    return sum(1 for pid in pids if b"cat-file\0--batch" in Path(f"/proc/{pid}/cmdline").read_bytes())


async def test_credentials_do_not_share_a_mirror_and_their_number_is_bounded(repository: BareRepository, tmp_path: Path) -> None:
    repository.commit({"a": b"1"})
    mirrors = Mirrors(tmp_path / "state", max_mirrors=3, max_readers=2)
    with GitServer(tmp_path / "srv") as server:
        for number in range(6):
            mirror = mirrors.mirror(server.url("app.git", f"user{number}:x"))
            refs = await mirror.ls_remote()
            await mirror.fetch(refs.refs["refs/heads/main"])
            assert await mirror.entries(refs.refs["refs/heads/main"])
        mirrors.mirror(server.url("app.git", "user5:x"))
        assert readers() == 2
    folders = list((tmp_path / "state").iterdir())
    assert len(folders) == 3
    locked = 0
    for folder in folders:
        with (folder / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locked += 1
    assert locked == 3
    await mirrors.close()
    assert len(list((tmp_path / "state").iterdir())) == 3


async def test_a_mirror_that_was_given_up_works_again(repository: BareRepository, tmp_path: Path) -> None:
    base = repository.commit({"a": b"1"})
    mirrors = Mirrors(tmp_path / "state", max_mirrors=1, max_readers=1, allow_file=True)
    old = mirrors.mirror(url(repository))
    await old.fetch(base)
    other = BareRepository.create(tmp_path / "srv" / "other.git")
    head = other.commit({"a": b"1"})
    await mirrors.mirror(url(other)).fetch(head)
    mirrors.mirror(url(other))
    assert [entry.path for entry in await old.entries(base)] == ["a"]
    await mirrors.close()


@pytest.mark.slow
async def test_growth_is_bounded(repository: BareRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconcile.git.depot.KEEP_UNREACHABLE", "now")
    repository.commit(manifests(50))
    path = min(repository.tree())
    mirrors = Mirrors(tmp_path / "state", tidy_after=20, allow_file=True)
    mirror = mirrors.mirror(url(repository))
    for number in range(60):
        # Every second commit is somebody else's and has to be fetched.
        await change(mirror, repository, b"%d" % number, path)
        repository.commit({path: b"human %d" % number})
        head = repository.head()
        assert head is not None
        await mirror.fetch(Resolved(head, "refs/heads/main"))
    assert mirror.counters.processes["gc"] == 120 // 20
    git = bare(tmp_path / "state")
    assert len((git / "shallow").read_text().splitlines()) < 30
    assert len(list(git.glob("objects/??/*"))) < 200
    assert len(list(git.glob("objects/pack/*.pack"))) < 5
    assert len(await mirror.entries(head)) == 50
    repository.check()
    await mirrors.close()


# --- deadlines and cancelled work ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deadline", "cancel"])
async def test_a_push_that_hangs_ends_and_leaves_nothing_behind(
    mirrors: Mirrors, repository: BareRepository, tmp_path: Path, how: str
) -> None:
    repository.commit({"a": b"1"})
    repository.hook("pre-receive", f"touch {tmp_path}/reached\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.05; done\nexit 1\n")
    with GitServer(tmp_path / "srv") as server:
        await hanging(mirrors.mirror(server.url("app.git"), timeout=1.5), repository, tmp_path, how)
    assert not list((tmp_path / "state").rglob("tmp/*"))


async def hanging(mirror: Mirror, repository: BareRepository, tmp_path: Path, how: str) -> None:
    base = repository.head()
    assert base is not None
    await mirror.fetch(base)
    made = await mirror.write_commit(base, [Edit("a", b"2")], "m", AUTHOR, WHEN)
    push = asyncio.create_task(mirror.push([RefUpdate(made, "refs/heads/main", base)]))
    if how == "deadline":
        with pytest.raises(GitTimeout, match=r"^failed to push to remote: context deadline exceeded$"):
            await push
    else:
        while not (tmp_path / "reached").exists():
            await asyncio.sleep(0.01)
        push.cancel()
        with pytest.raises(asyncio.CancelledError):
            await push
    assert (tmp_path / "reached").exists()
    for _ in range(100):
        # A killed helper is nobody's child any more and is gone a moment later.
        left = [line for line in processes_with(str(tmp_path / "state")) if "cat-file" not in line]
        if not left:
            break
        await asyncio.sleep(0.02)
    assert left == []
    (tmp_path / "go").touch()
    assert repository.head() == base
    (repository.path / "hooks/pre-receive").unlink()
    await mirror.push([RefUpdate(made, "refs/heads/main", base)])
    assert repository.head() == made


KILLED = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from reconcile.git.mirrors import Mirrors
from reconcile.git.types import Author, Edit, Reference, RefUpdate

async def main(root, url):
    mirrors = Mirrors(Path(root))
    mirror = mirrors.mirror(url)
    found = await mirror.resolve(Reference(branch="main"), await mirror.ls_remote())
    await mirror.fetch(found)
    print("fetched", flush=True)
    entries = await mirror.grep(found.commit, b"old")
    if entries:
        texts = await mirror.read([entry.oid for entry in entries])
        edits = [Edit(entry.path, texts[entry.oid].replace(b"old", b"new")) for entry in entries]
        made = await mirror.write_commit(found.commit, edits, "bot", Author("b", "b@x"), datetime(2026, 1, 1, tzinfo=UTC))
        await mirror.push([RefUpdate(made, "refs/heads/main", found.commit)])
    await mirrors.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
async def test_killed_at_any_moment_there_is_one_commit_or_none(repository: BareRepository, tmp_path: Path) -> None:
    chance = random.Random(20260102)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    outcomes = set()
    with GitServer(tmp_path / "srv") as server:
        argv = [sys.executable, "-c", KILLED, str(tmp_path / "state"), server.url("app.git")]
        for round_ in range(20):
            base = repository.commit({f"d/{n}": b"old %d %d" % (n, round_) for n in range(200)})
            for attempt in range(4):
                with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, start_new_session=True) as process:
                    assert process.stdout is not None
                    process.stdout.readline()
                    if attempt < 3:
                        time.sleep(chance.random() * 0.12)
                        process.send_signal(signal.SIGKILL)
                    else:
                        assert process.wait(30) == 0
                if attempt < 3:
                    log = repository.log()
                    outcomes.add("pushed" if log[0] != base else "not pushed")
            log = repository.log()
            assert log[1] == base, "exactly one commit"
            assert all(repository.file(f"d/{n}") == b"new %d %d" % (n, round_) for n in (0, 100, 199))
    repository.check()
    assert outcomes == {"pushed", "not pushed"}
    assert not list((tmp_path / "state").rglob("tmp/*"))
