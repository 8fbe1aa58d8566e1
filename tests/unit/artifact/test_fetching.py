"""Fetching artifacts: one download however many ask, nothing unverified, nothing left behind, a tree in use stays."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconcile.api.source import Artifact
from reconcile.artifact.archive import Limits
from reconcile.artifact.download import local_addresses
from reconcile.artifact.errors import ArtifactMissing, FetchError
from reconcile.artifact.fetch import Artifacts
from reconcile.artifact.storage import Storage
from reconcile.errors import NotFound
from tests.support.artifacts import FILES, KEY, Shop, entry, packed, stored, tarball, tree, zipped
from tests.support.clock import VirtualClock

ARCHIVE = packed()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Hasty(VirtualClock):
    """A clock whose sleeps end at once, and are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Hasty:
    return Hasty()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with Shop().open() as opened:
        yield opened


@pytest.fixture
async def artifacts(tmp_path: Path, clock: Hasty) -> AsyncIterator[Artifacts]:
    made = Artifacts(None, tmp_path / "work", clock, retries=2)
    yield made
    await made.aclose()
    assert list((tmp_path / "work").glob("*")) == []


def sell(shop: Shop, data: bytes = ARCHIVE, path: str = "gitrepository/ns/n/1.tar.gz") -> Artifact:
    shop.goods[path] = data
    return shop.artifact(path, digest(data))


def homes(folder: Path) -> list[Path]:
    return [path for path in folder.glob("run-*") if path.is_dir()]


def left(folder: Path) -> list[str]:
    return sorted(path.name for home in homes(folder) for path in home.iterdir())


async def test_an_artifact_is_unpacked_and_indexed(artifacts: Artifacts, shop: Shop) -> None:
    async with artifacts.opened(sell(shop)) as opened:
        assert tree(opened.root) == FILES
        assert sorted(opened.files) == sorted(FILES)
        assert opened.files["bin/run.sh"].endswith("x")


async def test_one_download_however_many_ask_and_how_often(artifacts: Artifacts, shop: Shop) -> None:
    artifact = sell(shop)
    roots = set()

    async def use() -> None:
        async with artifacts.opened(artifact) as opened:
            roots.add(opened.root)
            await asyncio.sleep(0)

    await asyncio.gather(*(use() for _ in range(50)))
    await use()
    assert shop.requests == [artifact.path]
    assert len(roots) == 1


async def test_the_same_content_under_another_address_is_not_fetched_again(artifacts: Artifacts, shop: Shop) -> None:
    async with artifacts.opened(sell(shop)) as first, artifacts.opened(sell(shop, path="bucket/ns/n/2.tar.gz")) as second:
        assert first.root == second.root
    assert len(shop.requests) == 1


async def test_an_address_that_hangs_holds_nobody_up_who_knows_a_better_one(
    artifacts: Artifacts, shop: Shop, tmp_path: Path
) -> None:
    release = asyncio.Event()

    async def hang(path: str) -> None:
        if "slow" in path:
            await release.wait()

    shop.before = hang
    slow = asyncio.create_task(_root(artifacts, sell(shop, path="slow.tar.gz")))
    while not shop.requests:
        await asyncio.sleep(0.001)
    quick = await _root(artifacts, sell(shop))
    release.set()
    assert await slow == quick
    await _settled(artifacts)
    assert len(left(tmp_path / "work")) == 1


async def test_many_addresses_that_hang_hold_up_only_those_who_ask_them(artifacts: Artifacts, shop: Shop) -> None:
    hanging, never = [f"slow/{number}.tar.gz" for number in range(20)], asyncio.Event()

    async def hang(path: str) -> None:
        if path in hanging:
            await never.wait()

    shop.before = hang
    other = packed({"other.yaml": b"a: 1\n"})
    waiting = [asyncio.create_task(_root(artifacts, shop.artifact(path, digest(path.encode())))) for path in hanging]
    async with asyncio.timeout(20):
        while len(shop.requests) < len(hanging):
            await asyncio.sleep(0.01)
        async with artifacts.opened(sell(shop, other, "quick.tar.gz")) as opened:
            assert tree(opened.root) == {"other.yaml": b"a: 1\n"}
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    never.set()
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*waiting, return_exceptions=True))


async def _root(artifacts: Artifacts, artifact: Artifact) -> Path:
    async with artifacts.opened(artifact) as opened:
        assert tree(opened.root) == FILES
        return opened.root


async def _settled(artifacts: Artifacts) -> None:
    while artifacts._works:
        await asyncio.gather(*artifacts._works, return_exceptions=True)


# --- what can go wrong


async def test_what_is_not_there(artifacts: Artifacts, shop: Shop) -> None:
    with pytest.raises(ArtifactMissing, match=r"artifact not found: http://.*/nowhere") as caught:
        await _root(artifacts, shop.artifact("nowhere", digest(b"")))
    assert isinstance(caught.value, NotFound)
    assert len(shop.requests) == 1


async def test_a_server_that_fails_now_and_then(artifacts: Artifacts, shop: Shop, clock: Hasty) -> None:
    shop.failures = [500, 503]
    await _root(artifacts, sell(shop))
    assert len(shop.requests) == 3
    assert [round(seconds) for seconds in clock.slept] == pytest.approx([5, 10], abs=1.1)


async def test_retries_end(artifacts: Artifacts, shop: Shop) -> None:
    shop.failures = [502] * 10
    with pytest.raises(FetchError, match=r"failed to download artifact from .*: status 502 Bad Gateway") as caught:
        await _root(artifacts, sell(shop))
    assert caught.value.temporary
    assert len(shop.requests) == 3


async def test_a_refusal_is_not_repeated(artifacts: Artifacts, shop: Shop) -> None:
    shop.failures = [403]
    with pytest.raises(FetchError, match="status 403 Forbidden") as caught:
        await _root(artifacts, sell(shop))
    assert not caught.value.temporary
    assert len(shop.requests) == 1


async def test_a_server_that_is_not_up_yet_is_waited_for(artifacts: Artifacts, clock: Hasty) -> None:
    gone = Shop()
    async with gone.open():
        artifact = sell(gone)
    with pytest.raises(FetchError, match="connection refused") as caught:
        await _root(artifacts, artifact)
    assert caught.value.temporary
    assert len(clock.slept) == 2


async def test_a_wrong_digest(artifacts: Artifacts, shop: Shop, tmp_path: Path) -> None:
    shop.goods["a"] = ARCHIVE
    with pytest.raises(FetchError, match=r"computed digest sha256:[0-9a-f]{64} does not match sha256:0000"):
        await _root(artifacts, shop.artifact("a", "sha256:" + "0" * 64))
    assert left(tmp_path / "work") == []


@pytest.mark.parametrize("text", ["md5:" + "0" * 32, "sha256:abc", "sha256:"])
async def test_a_digest_that_cannot_be_checked_is_not_fetched(artifacts: Artifacts, shop: Shop, text: str) -> None:
    with pytest.raises(FetchError, match="cannot be verified"):
        await _root(artifacts, shop.artifact("a", digest(b"")).model_copy(update={"digest": text}))
    assert shop.requests == []


@pytest.mark.parametrize("form", ["bare", "BARE", "sha512", "blake3"])
async def test_digests_of_other_kinds(artifacts: Artifacts, shop: Shop, form: str) -> None:
    shop.goods["a"] = ARCHIVE
    if form == "blake3":
        from blake3 import blake3

        text = f"blake3:{blake3(ARCHIVE).hexdigest()}"
    elif form == "sha512":
        text = f"sha512:{hashlib.sha512(ARCHIVE).hexdigest()}"
    else:
        text = hashlib.sha256(ARCHIVE).hexdigest()  # without an algorithm it is sha256
        text = text.upper() if form == "BARE" else text
    await _root(artifacts, shop.artifact("a", digest(ARCHIVE)).model_copy(update={"digest": text}))


async def test_a_hostile_archive_is_refused_and_leaves_nothing(artifacts: Artifacts, shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(
        FetchError, match=r"cannot unpack artifact 'gitrepository/ns/n/1.tar.gz': .*'\.\./up': it leads out"
    ) as caught:
        await _root(artifacts, sell(shop, zipped(tarball(entry("good", b"1"), entry("../up", b"2")))))
    assert not caught.value.temporary
    assert left(tmp_path / "work") == []


async def test_too_large_an_answer(tmp_path: Path, shop: Shop, clock: Hasty) -> None:
    small = Artifacts(None, tmp_path / "work", clock, most_bytes=len(ARCHIVE) - 1)
    with pytest.raises(FetchError, match=f"larger than the limit of {len(ARCHIVE) - 1} bytes"):
        await _root(small, sell(shop))
    assert left(tmp_path / "work") == []
    await small.aclose()


async def test_too_large_when_unpacked(tmp_path: Path, shop: Shop, clock: Hasty) -> None:
    small = Artifacts(None, tmp_path / "work", clock, limits=Limits(total=1000))
    with pytest.raises(FetchError, match="unpacks to more than the limit of 1000 bytes"):
        await _root(small, sell(shop))
    await small.aclose()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/a", "", "gopher://x"])
async def test_addresses_that_are_not_http(artifacts: Artifacts, url: str) -> None:
    artifact = Artifact(path="a", url=url, revision="r", digest=digest(b""), last_update_time="2026-01-01T00:00:00Z")
    with pytest.raises(FetchError, match="no http or https address"):
        await _root(artifacts, artifact)


async def test_a_failure_is_not_remembered(artifacts: Artifacts, shop: Shop) -> None:
    artifact = shop.artifact("gitrepository/ns/n/1.tar.gz", digest(ARCHIVE))
    results = await asyncio.gather(*(_root(artifacts, artifact) for _ in range(5)), return_exceptions=True)
    assert {type(result) for result in results} == {ArtifactMissing}
    assert len(shop.requests) == 1
    await _root(artifacts, sell(shop))
    assert len(shop.requests) == 2


# --- sharing and keeping


async def test_one_who_gives_up_does_not_end_it_for_the_others(artifacts: Artifacts, shop: Shop) -> None:
    release = asyncio.Event()

    async def hold(_: str) -> None:
        await release.wait()

    shop.before = hold
    artifact = sell(shop)
    tasks = [asyncio.create_task(_root(artifacts, artifact)) for _ in range(3)]
    while not shop.requests:
        await asyncio.sleep(0.001)
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    release.set()
    assert len({await task for task in tasks[1:]}) == 1
    assert tasks[0].cancelled()
    assert len(shop.requests) == 1


async def test_the_last_who_gives_up_ends_it(artifacts: Artifacts, shop: Shop, tmp_path: Path) -> None:
    release = asyncio.Event()

    async def hold(_: str) -> None:
        await release.wait()

    shop.before = hold
    artifact = sell(shop)
    tasks = [asyncio.create_task(_root(artifacts, artifact)) for _ in range(3)]
    while not shop.requests:
        await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(0)
    assert artifacts._flights == {}
    release.set()
    await _root(artifacts, artifact)
    assert len(shop.requests) == 2
    await _settled(artifacts)
    assert len(left(tmp_path / "work")) == 1


async def test_giving_up_at_any_moment_leaves_nothing_open(tmp_path: Path, shop: Shop, clock: Hasty) -> None:
    artifacts = Artifacts(None, tmp_path / "work", clock, most_kept=0)
    artifact = sell(shop)
    for steps in range(0, 120, 3):
        task = asyncio.create_task(_root(artifacts, artifact))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    for _ in range(5):
        await asyncio.sleep(0)
        await _settled(artifacts)
    assert artifacts._flights == {}
    assert left(tmp_path / "work") == []
    await _root(artifacts, artifact)
    await artifacts.aclose()


async def test_trees_are_kept_within_a_number_those_used_last_the_longest(tmp_path: Path, shop: Shop, clock: Hasty) -> None:
    artifacts = Artifacts(None, tmp_path / "work", clock, most_kept=2)
    sold = [sell(shop, packed({"f": str(n).encode()}), f"{n}.tar.gz") for n in range(4)]

    async def use(number: int) -> None:
        async with artifacts.opened(sold[number]) as opened:
            assert tree(opened.root) == {"f": str(number).encode()}

    for number in (0, 1, 0, 2, 0, 3, 0, 1):
        await use(number)
    await _settled(artifacts)
    assert shop.requests == ["0.tar.gz", "1.tar.gz", "2.tar.gz", "3.tar.gz", "1.tar.gz"]
    assert len(left(tmp_path / "work")) == 2
    await artifacts.aclose()


async def test_trees_are_kept_within_a_number_of_bytes(tmp_path: Path, shop: Shop, clock: Hasty) -> None:
    artifacts = Artifacts(None, tmp_path / "work", clock, most_kept_bytes=2500)
    for number in range(4):
        async with artifacts.opened(sell(shop, packed({"f": bytes([number]) * 1000}), f"{number}.tar.gz")):
            pass
    await _settled(artifacts)
    assert len(left(tmp_path / "work")) == 2
    await artifacts.aclose()


async def test_a_tree_that_is_open_is_never_removed(tmp_path: Path, shop: Shop, clock: Hasty) -> None:
    artifacts = Artifacts(None, tmp_path / "work", clock, most_kept=0)
    async with artifacts.opened(sell(shop)) as held:
        for number in range(3):
            async with artifacts.opened(sell(shop, packed({"f": str(number).encode()}), f"{number}.tar.gz")):
                pass
        await _settled(artifacts)
        assert tree(held.root) == FILES
        assert len(left(tmp_path / "work")) == 1
    await _settled(artifacts)
    assert left(tmp_path / "work") == []
    await artifacts.aclose()


async def test_what_dead_processes_left_is_removed_and_what_living_ones_have_is_not(
    tmp_path: Path, shop: Shop, clock: Hasty
) -> None:
    folder = tmp_path / "work"
    for name in ("run-dead", "run-dead/1", "run-dead/.unpacking-x"):
        (folder / name).mkdir(parents=True)
    (folder / "run-dead/1/file").write_text("old")
    (folder / "run-dead.lock").touch()
    (folder / "mine").write_text("not ours to remove")
    living, fresh = Artifacts(None, folder, clock), Artifacts(None, folder, clock)
    async with living.opened(sell(shop)) as opened:
        await _root(fresh, sell(shop))
        assert tree(opened.root) == FILES
        assert len(homes(folder)) == 2
        assert not (folder / "run-dead").exists()
        assert not (folder / "run-dead.lock").exists()
    await living.aclose()
    await fresh.aclose()
    assert [path.name for path in folder.iterdir()] == ["mine"]


# --- our own storage


async def test_what_our_own_storage_holds_is_read_from_the_disk(tmp_path: Path, clock: Hasty) -> None:
    storage = Storage(tmp_path / "data", clock, host="nobody.invalid")
    artifacts = Artifacts(storage, tmp_path / "work", clock)
    made = await stored(storage)
    await _root(artifacts, made)
    for forged in ("0" * 64, hashlib.sha256(b"").hexdigest()):
        with pytest.raises(ArtifactMissing, match="has digest"):
            await _root(artifacts, made.model_copy(update={"digest": f"sha256:{forged}"}))
    await storage.remove("GitRepository", KEY)
    await _root(artifacts, made)  # it is still unpacked
    other = made.model_copy(update={"digest": "sha256:" + "1" * 64})
    with pytest.raises(ArtifactMissing, match="not in storage"):
        await _root(artifacts, other)
    await artifacts.aclose()
    storage.close()


async def test_our_own_artifact_under_an_address_of_before_is_read_from_the_disk(
    tmp_path: Path, shop: Shop, clock: Hasty
) -> None:
    storage = Storage(tmp_path / "data", clock, host="new.invalid")
    artifacts = Artifacts(storage, tmp_path / "work", clock)
    made = (await stored(storage)).model_copy(update={"url": "http://old.invalid/gone.tar.gz"})
    await _root(artifacts, made)
    assert clock.slept == []
    foreign = sell(shop, packed({"other": b"1"}), path=made.path)  # only the digest says what is the same
    async with artifacts.opened(foreign) as opened:
        assert list(opened.files) == ["other"]
    assert shop.requests == [made.path]
    await artifacts.aclose()
    storage.close()


async def test_a_file_of_our_storage_that_was_changed_is_noticed(tmp_path: Path, clock: Hasty) -> None:
    storage = Storage(tmp_path / "data", clock, host="nobody.invalid")
    artifacts = Artifacts(storage, tmp_path / "work", clock)
    made = await stored(storage)
    storage.path_of(made).write_bytes(packed({"evil": b""}))
    with pytest.raises(ArtifactMissing, match="has digest"):
        await _root(artifacts, made)
    await artifacts.aclose()
    storage.close()


def test_local_addresses_replace_hosts() -> None:
    rewrite = local_addresses({"SOURCE_CONTROLLER_LOCALHOST": "localhost:8080", "SOURCE_WATCHER_LOCALHOST": "localhost:8081"})
    assert rewrite("http://source-controller.flux-system.svc./a/b") == "http://localhost:8080/a/b"
    assert rewrite("http://source-watcher.flux-system.svc./a/b") == "http://localhost:8081/a/b"
    assert local_addresses({})("http://h/a") == "http://h/a"


async def test_rewritten_addresses_are_used(tmp_path: Path, shop: Shop, clock: Hasty) -> None:
    host = shop.url.removeprefix("http://")
    artifacts = Artifacts(None, tmp_path / "work", clock, rewrite=local_addresses({"SOURCE_CONTROLLER_LOCALHOST": host}))
    artifact = sell(shop).model_copy(update={"url": "http://source-controller.invalid/gitrepository/ns/n/1.tar.gz"})
    await _root(artifacts, artifact)
    assert shop.requests == [artifact.path]
    await artifacts.aclose()
