"""What every client for buckets keeps, on a strict double of each service."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconcile.errors import LimitExceeded, ReconcileError
from reconcile.net.errors import NetworkError
from reconcile.sources.buckets.client import BadAnswer, BucketError, BucketMissing, Entry, ObjectMissing, Text
from tests.support.bucket_servers import once, status
from tests.support.bucket_world import PROVIDERS, World, listed, world_of
from tests.support.registry import Exchange

MIB = 1024 * 1024
ODD = (
    "plain.yaml",
    "with space.yaml",
    "a+b&c=d.yaml",
    "ünï/çødé.yaml",
    "per%20cent%2F.yaml",
    "q?x#y.yaml",
    "(star)*!'~.yaml",
    "a;b,c@d:e$.yaml",
)


@pytest.fixture(params=PROVIDERS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with world_of(request.param) as made:
        yield made


async def entries(world: World, prefix: str = "") -> dict[str, Entry]:
    async with world.opened() as client:
        return {entry.key: entry async for page in client.pages(prefix) for entry in page}


async def test_a_list_names_every_object_under_the_prefix_once(world: World):
    for number in range(25):
        world.store.put(f"in/{number:02}.yaml", "x" * number)
        world.store.put(f"out/{number:02}.yaml", "y")
    world.store.page = 10
    async with world.opened() as client:
        assert await listed(client, "in/") == [f"in/{number:02}.yaml" for number in range(25)]
    assert world.store.counts["LIST"] == 3
    assert world.store.counts["GET"] == 0
    assert {key: entry.size for key, entry in (await entries(world, "in/0")).items()} == {
        f"in/0{number}.yaml": number for number in range(10)
    }


async def test_a_list_of_ten_thousand_keys_takes_the_fewest_requests(world: World):
    world.store.page = 5000
    for number in range(10_000):
        world.store.put(f"{number:05}", "")
    assert len(await entries(world)) == 10_000
    assert world.store.counts["LIST"] == (2 if world.provider == "azure" else 10)


async def test_an_empty_bucket_has_no_objects(world: World):
    assert await entries(world) == {}
    assert world.store.counts["LIST"] == 1


async def test_every_key_that_is_listed_can_be_fetched(world: World, tmp_path: Path):
    for key in ODD:
        world.store.put(key, f"content of {key}")
    found = await entries(world)
    assert sorted(found) == sorted(ODD)
    async with world.opened() as client:
        for number, key in enumerate(ODD):
            await client.fetch(found[key], tmp_path / str(number), MIB)
            assert (tmp_path / str(number)).read_text() == f"content of {key}"


async def test_keys_that_xml_cannot_hold_arrive_whole(world: World):
    world.store.put("bell\x07.yaml", "x")
    assert list(await entries(world)) == ["bell\x07.yaml"]


async def test_the_etag_of_the_list_is_that_of_the_download(world: World, tmp_path: Path):
    world.store.put("a", "one")
    found = (await entries(world))["a"]
    async with world.opened() as client:
        fetched = await client.fetch(found, tmp_path / "a", MIB)
    assert (fetched.etag, fetched.size) == (found.etag, 3)


async def test_an_object_that_was_overwritten_comes_with_the_etag_of_what_came(world: World, tmp_path: Path):
    world.store.put("a", "one")
    old = (await entries(world))["a"]
    world.store.put("a", "three")
    new = (await entries(world))["a"]
    async with world.opened() as client:
        fetched = await client.fetch(old, tmp_path / "a", MIB)
    assert (tmp_path / "a").read_text() == "three"
    assert fetched.etag == new.etag != old.etag


async def test_an_object_that_is_gone_is_missing_and_leaves_no_file(world: World, tmp_path: Path):
    world.store.put("a", "one")
    found = (await entries(world))["a"]
    world.store.delete("a")
    async with world.opened() as client:
        with pytest.raises(ObjectMissing):
            await client.fetch(found, tmp_path / "a", MIB)
        with pytest.raises(ObjectMissing):
            await client.read("a", MIB)
    assert not (tmp_path / "a").exists()


async def test_an_empty_object_is_an_empty_file(world: World, tmp_path: Path):
    world.store.put("empty", "")
    found = (await entries(world))["empty"]
    async with world.opened() as client:
        assert (await client.fetch(found, tmp_path / "empty", MIB)).size == 0
    assert (tmp_path / "empty").read_bytes() == b""


async def test_a_large_object_is_written_piece_by_piece(world: World, tmp_path: Path):
    content = bytes(range(256)) * 8192  # 2 MiB: several pieces
    world.store.put("large", content)
    found = (await entries(world))["large"]
    async with world.opened() as client:
        assert (await client.fetch(found, tmp_path / "large", 3 * MIB)).size == len(content)
    assert (tmp_path / "large").read_bytes() == content


async def test_an_object_over_its_limit_is_refused(world: World, tmp_path: Path):
    world.store.put("large", b"x" * 1001)
    found = (await entries(world))["large"]
    async with world.opened() as client:
        with pytest.raises(LimitExceeded, match="1000 bytes"):
            await client.fetch(found, tmp_path / "large", 1000)
        with pytest.raises(LimitExceeded, match="1000 bytes"):
            await client.read("large", 1000)


async def test_a_text_that_is_known_is_not_sent_again(world: World):
    world.store.put("text", "one")
    async with world.opened() as client:
        first = await client.read("text", MIB)
        assert first.content == b"one"
        again = await client.read("text", MIB, first)
        assert again is first
        world.store.put("text", "two")
        assert (await client.read("text", MIB, first)).content == b"two"
    found = (await entries(world))["text"]
    assert found.etag != first.etag


async def test_a_text_has_the_etag_of_the_list(world: World):
    world.store.put("text", "one")
    async with world.opened() as client:
        assert await client.read("text", MIB, Text("other", b"")) == Text((await entries(world))["text"].etag, b"one")


async def test_what_is_packed_comes_as_upstreams_clients_give_it(world: World, tmp_path: Path):
    packed = gzip.compress(b"plain")
    world.store.put("packed", packed, encoding="gzip")
    found = (await entries(world))["packed"]
    async with world.opened() as client:
        await client.fetch(found, tmp_path / "packed", MIB)
    assert (tmp_path / "packed").read_bytes() == (packed if world.provider == "generic" else b"plain")


async def test_a_bucket_that_is_not_there_is_missing(world: World):
    async with world.opened(bucketName="other") as client:
        with pytest.raises(BucketMissing):
            await listed(client)


async def test_nobody_without_the_right_login_reads_anything(world: World):
    account = world.secrets.values["login"].get("serviceaccount", b"").replace(b"key-1", b"key-2")
    world.secrets.put(
        "wrong", accesskey="AKIAIOSFODNN7EXAMPLE", secretkey="mistaken", accountKey="d3Jvbmc=", serviceaccount=account
    )
    async with world.opened(secretRef={"name": "wrong"}) as client:
        with pytest.raises(ReconcileError, match=r"signature|authenticate|JWT") as caught:
            await listed(client)
    assert "mistaken" not in str(caught.value)
    assert world.store.counts["LIST"] == 0


@pytest.mark.parametrize("line", ["429 Too Many Requests", "503 Service Unavailable", "500 Internal Server Error"])
async def test_a_busy_service_is_asked_again(world: World, tmp_path: Path, line: str):
    world.store.put("a", "one")
    world.store.faults.append(once(status(line), part="files", times=2))
    found = (await entries(world))["a"]
    assert len(world.clock.slept) == 2
    world.store.faults.append(once(status(line, Retry_After="7"), part="/a", times=1))
    async with world.opened() as client:
        await client.fetch(found, tmp_path / "a", MIB)
    assert world.clock.slept[-1] == 7.0


async def test_a_service_that_stays_busy_fails_with_its_words(world: World):
    world.store.faults.append(once(status("503 Service Unavailable"), part="files", times=99))
    async with world.opened() as client:
        with pytest.raises(BucketError, match="503 Service Unavailable"):
            await listed(client)


async def test_forbidden_is_not_asked_again(world: World):
    world.store.faults.append(once(status("403 Forbidden"), part="files", times=99))
    async with world.opened() as client:
        with pytest.raises(BucketError, match="403 Forbidden"):
            await listed(client)
    assert world.clock.slept == []


async def test_a_body_that_ends_early_is_fetched_again(world: World, tmp_path: Path):
    world.store.put("a", "0123456789")
    found = (await entries(world))["a"]

    async def half(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
        exchange.writer.close()

    world.store.faults.append(once(half, part="/a", times=2))
    async with world.opened() as client:
        fetched = await client.fetch(found, tmp_path / "a", MIB)
    assert (tmp_path / "a").read_text() == "0123456789"
    assert (fetched.etag, fetched.size) == (found.etag, 10)
    world.store.faults.append(once(half, part="/a", times=99))
    async with world.opened() as client:
        with pytest.raises(NetworkError, match="EOF"):
            await client.fetch(found, tmp_path / "b", MIB)


async def test_one_version_has_one_size(world: World, tmp_path: Path):
    world.store.put("a", "0123456789")
    found = (await entries(world))["a"]
    lie = Entry(found.key, found.etag, 9, found.generation)
    async with world.opened() as client:
        with pytest.raises(BadAnswer, match="10 bytes, and the list says 9"):
            await client.fetch(lie, tmp_path / "a", MIB)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"[]", b"<a/>", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'])
async def test_an_answer_that_is_no_list_is_an_error(world: World, body: bytes):
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body=body)

    world.store.faults.append(once(answer, part="files"))
    async with world.opened() as client:
        with pytest.raises(BadAnswer):
            await listed(client)
