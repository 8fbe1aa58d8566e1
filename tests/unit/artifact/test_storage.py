"""Artifact storage: layout, names, atomic writes, integrity, retention, faults."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import pytest

from reconcile.api.meta import Key
from reconcile.api.source import Artifact
from reconcile.artifact.errors import ArtifactMissing, StorageError
from reconcile.artifact.rooted import try_lock
from reconcile.artifact.storage import MOST_LOOKED_AT, Storage
from reconcile.errors import Invalid, LimitExceeded
from reconcile.runtime.metrics import Metrics
from tests.support.artifacts import FILES, KEY, stored
from tests.support.clock import VirtualClock

KIND = "GitRepository"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def storage(tmp_path: Path, clock: VirtualClock, metrics: Metrics) -> AsyncIterator[Storage]:
    made = Storage(tmp_path / "data", clock, host="source-controller.flux-system.svc.cluster.local.", metrics=metrics)
    yield made
    made.close()


def write(data: bytes):  # type: ignore[no-untyped-def]
    return lambda out: out.write(data)


def names(storage: Storage, artifacts_only: bool = True) -> list[str]:
    folder = storage.root / "gitrepository/flux-system/podinfo"
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in found if not artifacts_only or not name.endswith(".lock")]


def value(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(name) or 0.0


async def test_an_artifact_as_upstream_describes_it(storage: Storage) -> None:
    made = await storage.put(
        KIND, KEY, "abc.tar.gz", "main@sha1:abc", write(b"content"), metadata={"k": "v"}, link="latest.tar.gz"
    )
    path = "gitrepository/flux-system/podinfo/abc.tar.gz"
    assert made == Artifact(
        path=path,
        url=f"http://source-controller.flux-system.svc.cluster.local./{path}",
        revision="main@sha1:abc",
        digest="sha256:" + hashlib.sha256(b"content").hexdigest(),
        last_update_time="2026-01-01T00:00:00Z",
        size=7,
        metadata={"k": "v"},
    )
    file = storage.path_of(made)
    assert file.read_bytes() == b"content"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for folder in [storage.root, *list(file.relative_to(storage.root).parents)[:-1]]:
        assert stat.S_IMODE((storage.root / folder).stat().st_mode) == 0o700
    assert os.readlink(file.with_name("latest.tar.gz")) == "abc.tar.gz"
    assert storage.link_url(KIND, KEY, "latest.tar.gz") == made.url.replace("abc", "latest")
    assert names(storage, artifacts_only=False) == ["abc.tar.gz", "abc.tar.gz.lock", "latest.tar.gz"]


@pytest.mark.parametrize(
    ("host", "base"), [("h", "http://h"), ("h:9090", "http://h:9090"), ("https://h/", "https://h"), ("http://h:1", "http://h:1")]
)
async def test_addresses(tmp_path: Path, clock: VirtualClock, host: str, base: str) -> None:
    storage = Storage(tmp_path, clock, host=host)
    made = await stored(storage)
    assert made.url == f"{base}/gitrepository/flux-system/podinfo/1.tar.gz"
    assert storage.own_path(made.url) == made.path
    assert storage.own_path("http://other/" + made.path) is None
    assert storage.own_path(f"{base}/../../etc/passwd") is None
    moved = Storage(tmp_path, clock, host="new")
    assert moved.addressed(made).url == f"http://new/{made.path}"
    assert storage.addressed(made) is made
    storage.close()
    moved.close()


@pytest.mark.parametrize(
    ("algorithm", "digits"), [("sha256", 64), ("sha384", 96), ("sha512", 128), ("sha1", 40), pytest.param("blake3", 64)]
)
async def test_digest_algorithms(tmp_path: Path, clock: VirtualClock, algorithm: str, digits: int) -> None:
    storage = Storage(tmp_path, clock, host="h", algorithm=algorithm)
    made = await storage.put(KIND, KEY, "a", "r", write(b""))
    name, _, digest = made.digest.partition(":")
    assert (name, len(digest)) == (algorithm, digits)
    if algorithm == "blake3":
        assert digest == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert await storage.intact(made)
    storage.path_of(made).write_bytes(b"other")
    assert not await storage.intact(made)
    storage.close()


def test_an_unknown_algorithm_is_refused_at_once(tmp_path: Path, clock: VirtualClock) -> None:
    with pytest.raises(Invalid, match=r"md5.*use one of sha256, sha384, sha512, sha1, blake3"):
        Storage(tmp_path, clock, host="h", algorithm="md5")


def test_blake3_without_its_package_says_what_to_install(
    tmp_path: Path, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "blake3", None)
    with pytest.raises(Invalid, match="needs the Python package blake3: install it or use sha256"):
        Storage(tmp_path, clock, host="h", algorithm="blake3")


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../x", ".hidden", "x.lock", "a\\b", "a\nb", "n" * 201, "a\0"])
async def test_names_that_cannot_be(storage: Storage, bad: str) -> None:
    with pytest.raises(Invalid):
        await storage.put(KIND, KEY, bad, "r", write(b""))
    with pytest.raises(Invalid):
        await storage.put(KIND, KEY, "a", "r", write(b""), link=bad or "/")
    if bad not in {"x.lock", "n" * 201}:
        for key in (Key(bad, "n"), Key("ns", bad)):
            with pytest.raises(Invalid):
                await storage.put(KIND, key, "a", "r", write(b""))
            with pytest.raises(Invalid):
                await storage.remove(KIND, key)
    assert not storage.root.exists()


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/b/c", "a/b/c/d/e", "a/../c/d", "a/b/c/.x", "", "a//b/c"])
async def test_paths_of_a_forged_status(storage: Storage, path: str) -> None:
    made = await stored(storage)
    forged = made.model_copy(update={"path": path})
    with pytest.raises(Invalid):
        storage.path_of(forged)
    assert await storage.inspect(forged) == "missing"


async def test_the_same_content_again_touches_nothing(storage: Storage, clock: VirtualClock) -> None:
    made = await stored(storage)
    before = storage.path_of(made).stat()
    clock.advance(30)
    assert await stored(storage) == made
    assert storage.path_of(made).stat() == before


async def test_other_content_under_the_same_name_replaces_it(storage: Storage, clock: VirtualClock) -> None:
    first = await stored(storage)
    clock.advance(30)
    second = await stored(storage, {"other": b""})
    assert second.path == first.path
    assert second.last_update_time == "2026-01-01T00:00:30Z"
    assert await storage.intact(second)
    assert names(storage) == ["1.tar.gz"]


async def test_a_link_moves_with_the_artifact(storage: Storage) -> None:
    for name in ("1.tar.gz", "2.tar.gz", "2.tar.gz"):
        made = await stored(storage, name=name, link="latest.tar.gz")
        assert (storage.path_of(made).parent / "latest.tar.gz").resolve() == storage.path_of(made)


async def test_integrity(storage: Storage) -> None:
    made = await stored(storage)
    assert await storage.inspect(made) == "intact"
    storage.path_of(made).write_bytes(b"bad")
    assert await storage.inspect(made) == "damaged"
    assert names(storage) == []
    assert await storage.inspect(made) == "missing"


@pytest.mark.parametrize("digest", ["sha256:abc", "md5:" + "0" * 32, "sha256:" + "x" * 64])
async def test_a_digest_that_is_none_says_nothing_about_the_file(storage: Storage, digest: str) -> None:
    made = await stored(storage)
    assert not await storage.intact(made.model_copy(update={"digest": digest}))
    assert await storage.intact(made)


async def test_a_file_is_hashed_once(storage: Storage, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    import reconcile.artifact.storage as module

    reads: list[str] = []
    real = module.file_digest
    monkeypatch.setattr(module, "file_digest", lambda file, algorithm: reads.append(algorithm) or real(file, algorithm))
    made = await stored(storage)
    for _ in range(5):
        assert await storage.intact(made)
    assert reads == []  # what was just written is known
    fresh = Storage(storage.root, clock, host="h")
    for _ in range(5):
        assert await fresh.intact(made)
    assert reads == ["sha256"]
    os.utime(fresh.path_of(made), (1, 1))
    assert await fresh.intact(made)
    assert reads == ["sha256"] * 2
    fresh.close()


async def test_a_folder_in_the_place_of_a_file_is_no_artifact(storage: Storage) -> None:
    made = await stored(storage)
    storage.path_of(made).unlink()
    storage.path_of(made).mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ArtifactMissing):
            storage.open_verified(made.path, made.digest)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_file_that_cannot_be_read_is_not_taken_for_damaged(
    storage: Storage, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import reconcile.artifact.storage as module

    def broken(file: BinaryIO, algorithm: str) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    made = await stored(storage)
    fresh = Storage(storage.root, clock, host="h")
    with monkeypatch.context() as patch:
        patch.setattr(module, "file_digest", broken)
        with pytest.raises(StorageError, match=r"cannot read artifact .*: Input/output error"):
            await fresh.intact(made)
    assert await fresh.intact(made)
    fresh.close()


async def test_a_link_in_the_place_of_a_file_or_folder_is_not_followed(storage: Storage, tmp_path: Path) -> None:
    made = await stored(storage)
    outside = tmp_path / "outside"
    storage.path_of(made).rename(outside)
    storage.path_of(made).symlink_to(outside)
    assert await storage.inspect(made) == "damaged"
    folder = storage.path_of(made).parent
    made = await stored(storage)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactMissing):
        storage.open_verified(made.path, made.digest)
    assert await storage.remove(KIND, KEY) == 0
    assert (tmp_path / "elsewhere/1.tar.gz").exists()


# --- retention


async def test_a_superseded_artifact_lives_as_long_as_the_ttl(storage: Storage, clock: VirtualClock) -> None:
    old = await stored(storage, name="1.tar.gz")
    clock.advance(10)
    new = await stored(storage, name="2.tar.gz")
    clock.advance(50)
    assert await storage.collect(KIND, KEY, new) == []
    clock.advance(1)
    assert await storage.collect(KIND, KEY, new) == [old.path]
    clock.advance(1000)
    assert await storage.collect(KIND, KEY, new) == []
    assert names(storage, artifacts_only=False) == ["2.tar.gz", "2.tar.gz.lock"]


async def test_no_more_than_the_records_stay(storage: Storage, clock: VirtualClock) -> None:
    for number in range(5):
        made = await stored(storage, name=f"{number}.tar.gz")
        clock.advance(1)
    removed = await storage.collect(KIND, KEY, made)
    assert [path.rpartition("/")[2] for path in removed] == ["0.tar.gz", "1.tar.gz", "2.tar.gz"]
    assert names(storage) == ["3.tar.gz", "4.tar.gz"]


async def test_the_present_artifact_stays_however_old(storage: Storage, clock: VirtualClock) -> None:
    old = await stored(storage, name="1.tar.gz", link="latest.tar.gz")
    for number in (2, 3, 4):
        clock.advance(1)
        await stored(storage, name=f"{number}.tar.gz")
    await storage.collect(KIND, KEY, old)
    assert names(storage) == ["1.tar.gz", "4.tar.gz", "latest.tar.gz"]
    clock.advance(100)
    await storage.collect(KIND, KEY, old)
    assert names(storage) == ["1.tar.gz", "latest.tar.gz"]


async def test_without_a_present_artifact_nothing_is_collected(storage: Storage, clock: VirtualClock) -> None:
    await stored(storage)
    clock.advance(1000)
    assert await storage.collect(KIND, KEY, None) == []
    assert names(storage) == ["1.tar.gz"]


async def test_one_collection_looks_at_a_bounded_number_of_files(storage: Storage, clock: VirtualClock) -> None:
    made = await stored(storage, name="present.tar.gz")
    folder = storage.path_of(made).parent
    for number in range(MOST_LOOKED_AT + 200):
        (folder / f"{number}.tar.gz").touch()
        os.utime(folder / f"{number}.tar.gz", (1, 1))
    first = await storage.collect(KIND, KEY, made)
    assert MOST_LOOKED_AT - 1 <= len(first) <= MOST_LOOKED_AT
    await storage.collect(KIND, KEY, made)
    assert names(storage) == ["present.tar.gz"]


async def test_collecting_what_is_not_there(storage: Storage) -> None:
    made = await stored(storage)
    assert await storage.collect(KIND, Key("no", "body"), made) == []


async def test_an_object_goes_with_all_it_has(storage: Storage, metrics: Metrics) -> None:
    for name in ("1.tar.gz", "2.tar.gz"):
        await stored(storage, name=name, link="latest.tar.gz")
    other = await storage.put(KIND, Key("flux-system", "other"), "a", "r", write(b"x"))
    assert await storage.remove(KIND, KEY) == 2
    assert not (storage.root / "gitrepository/flux-system/podinfo").exists()
    assert await storage.intact(other)
    assert await storage.remove(KIND, KEY) == 0
    assert value(metrics, "imagebot_artifacts_collected_total") == 2


async def test_metrics_follow_what_is_held(storage: Storage, clock: VirtualClock, metrics: Metrics) -> None:
    def held() -> tuple[float, float]:
        return value(metrics, "imagebot_artifact_storage_files"), value(metrics, "imagebot_artifact_storage_bytes")

    await storage.put(KIND, KEY, "a", "r", write(b"12345"))
    await storage.put(KIND, KEY, "a", "r", write(b"123"))
    clock.advance(100)
    made = await storage.put(KIND, KEY, "b", "r", write(b"1"))
    assert held() == (2, 4)
    await storage.collect(KIND, KEY, made)
    assert held() == (1, 1)
    assert value(metrics, "imagebot_artifacts_collected_total") == 1
    storage.path_of(made).write_bytes(b"bad")
    await storage.intact(made)
    assert held() == (0, 0)


# --- faults


class Broken(Exception):
    pass


@pytest.mark.parametrize("error", [Broken("no"), OSError(errno.EIO, "of the source")])
async def test_a_writer_that_fails_changes_nothing(storage: Storage, error: BaseException) -> None:
    made = await stored(storage, link="latest.tar.gz")

    def fail(out: BinaryIO) -> None:
        out.write(b"half")
        raise error

    with pytest.raises(type(error)) as caught:
        await storage.put(KIND, KEY, "1.tar.gz", "r", fail)
    assert caught.value is error
    assert await storage.intact(made)
    assert names(storage) == ["1.tar.gz", "latest.tar.gz"]


async def test_a_full_disk_is_told_and_does_no_damage(storage: Storage) -> None:
    made = await stored(storage)

    def full(out: BinaryIO) -> None:
        # The very descriptor that the artifact is written to becomes one of a device that is always full.
        file = out._file  # type: ignore[attr-defined]
        device = os.open("/dev/full", os.O_WRONLY)
        os.dup2(device, file.fileno())
        os.close(device)
        out.writelines(b"x" * 65536 for _ in range(100))

    with pytest.raises(StorageError, match=r"cannot write 'gitrepository/flux-system/podinfo/1.tar.gz'.*No space left on device"):
        await storage.put(KIND, KEY, "1.tar.gz", "r", full)
    assert await storage.intact(made)
    assert names(storage) == ["1.tar.gz"]


async def test_too_large_an_artifact_is_refused(tmp_path: Path, clock: VirtualClock) -> None:
    storage = Storage(tmp_path, clock, host="h", most_bytes=10)
    await storage.put(KIND, KEY, "a", "r", write(b"1234567890"))
    with pytest.raises(LimitExceeded, match="larger than the limit of 10 bytes"):
        await storage.put(KIND, KEY, "b", "r", write(b"12345678901"))
    assert sorted(p.name for p in (tmp_path / "gitrepository/flux-system/podinfo").iterdir() if not p.name.endswith(".lock")) == [
        "a"
    ]
    storage.close()


async def test_a_folder_that_cannot_be_made_is_told(storage: Storage) -> None:
    storage.root.write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        await stored(storage)


async def test_many_at_once_on_one_object(storage: Storage) -> None:
    made = await asyncio.gather(*(stored(storage, {"f": str(n % 3).encode()}, name=f"{n % 3}.tar.gz") for n in range(12)))
    assert len({artifact.digest for artifact in made}) == 3
    assert all(await asyncio.gather(*(storage.intact(artifact) for artifact in made)))
    assert names(storage) == ["0.tar.gz", "1.tar.gz", "2.tar.gz"]


async def test_looking_does_not_wait_for_slow_writers(storage: Storage) -> None:
    made = await stored(storage)
    release = threading.Event()
    slow = [asyncio.create_task(storage.put(KIND, Key("ns", f"{n}"), "a", "r", lambda out: release.wait(30))) for n in range(8)]
    await asyncio.sleep(0)
    try:
        assert await storage.intact(made)
        assert not any(task.done() for task in slow)
    finally:
        release.set()
    assert len({artifact.digest for artifact in await asyncio.gather(*slow)}) == 1


async def test_only_what_nobody_writes_is_taken_away(storage: Storage, clock: VirtualClock, metrics: Metrics) -> None:
    made = await stored(storage)
    folder = storage.path_of(made).parent
    for name in (".1.tar.gz.aaaa.part", ".2.tar.gz.bbbb.part", ".3.tar.gz.cccc.part"):
        (folder / name).write_text("half")
    (folder / ".1.tar.gz.dddd.part").symlink_to("1.tar.gz")
    holder = try_lock(folder / "3.tar.gz.lock")
    assert holder is not None
    fresh = Storage(storage.root, clock, host="h", metrics=Metrics())
    assert await fresh.recover() == 3
    assert names(storage) == [".3.tar.gz.cccc.part", "1.tar.gz"]
    os.close(holder)
    await fresh.collect(KIND, KEY, made)
    assert names(storage, artifacts_only=False) == ["1.tar.gz", "1.tar.gz.lock"]
    fresh.close()


async def test_recovery_counts_what_is_there(storage: Storage, clock: VirtualClock) -> None:
    made = await stored(storage)
    metrics = Metrics()
    fresh = Storage(storage.root, clock, host="h", metrics=metrics)
    await fresh.recover()
    assert value(metrics, "imagebot_artifact_storage_files") == 1
    assert value(metrics, "imagebot_artifact_storage_bytes") == made.size
    fresh.close()


async def test_opening_verified(storage: Storage) -> None:
    made = await stored(storage, FILES)
    with storage.open_verified(made.path, made.digest.removeprefix("sha256:")) as file:
        assert len(file.read()) == made.size
    with pytest.raises(ArtifactMissing, match=r"has digest sha256:.*, not sha256:00"):
        storage.open_verified(made.path, "sha256:" + "0" * 64)
    assert await storage.intact(made)
    with pytest.raises(ArtifactMissing, match="not in storage"):
        storage.open_verified(made.path + "x", made.digest)
