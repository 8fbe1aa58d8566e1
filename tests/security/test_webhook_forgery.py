"""Threat: whoever reaches the address of the hints forges, repeats, floods or stalls them, or learns from the answers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from imagebot.hints import gate, server
from imagebot.hints.doors import DOORS, path_of, refusal, token_of
from imagebot.hints.payloads import SENDERS
from reconcile.api.meta import Key
from reconcile.errors import Invalid
from tests.support.hints import TOKEN, Sender, hinted, path, signed
from tests.support.lab import Lab, eventually, lab, secret

BODY = b'{"events": []}'
RAW = TOKEN.encode()


def digest(algorithm: str, token: bytes = RAW, body: bytes = BODY) -> str:
    return hmac.new(token, body, algorithm).hexdigest()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        made.registry.push_image("web", "1.0.0")
        yield made


# --- doors


def test_every_sender_has_a_door_and_those_without_a_proof_are_these() -> None:
    assert DOORS.keys() == SENDERS.keys()
    assert {kind for kind in DOORS if refusal(kind, RAW, {}, BODY) is None} == {"cdevents", "dockerhub", "quay"}
    assert {refusal(kind, RAW, {}, BODY) for kind in DOORS} == {None, "unsigned"}


@pytest.mark.parametrize(("kind", "header"), [("generic-hmac", "x-signature"), ("github", "x-hub-signature-256")])
def test_signatures(kind: str, header: str) -> None:
    for algorithm in ("sha1", "sha256", "sha512"):
        good = digest(algorithm)
        assert refusal(kind, RAW, {header: f"{algorithm}={good}"}, BODY) is None
        assert refusal(kind, RAW, {header: f"{algorithm}={good.upper()}"}, BODY) is None  # the same bytes
        for bad in (
            good,
            f"{algorithm}={good[:-2]}",
            f"{algorithm}={good[:-1]}",
            f"{algorithm}={good}00",
            f"{algorithm}= {good}",
            f"{algorithm}={good[0:2]} {good[2:]}",
            f"{algorithm}={good[:-1]}\N{FULLWIDTH DIGIT ZERO}",
            f"{algorithm.upper()}={good}",
            f"md5={hashlib.md5(RAW + BODY).hexdigest()}",
            f"{algorithm}=",
            "=",
            "",
            f"{algorithm}={digest(algorithm, token=b'another token of this length!!!!')}",
            f"{algorithm}={digest(algorithm, body=BODY + b' ')}",
            f"{algorithm}={digest(algorithm, token=b'')}",
            f"{algorithm}={good}, {algorithm}={good}",
        ):
            assert refusal(kind, RAW, {header: bad}, BODY) == "forged", bad


def test_a_wrong_strong_signature_is_not_made_good_by_a_weak_one() -> None:
    headers = {"x-hub-signature-256": "sha256=" + "0" * 64, "x-hub-signature": f"sha1={digest('sha1')}"}
    assert refusal("github", RAW, headers, BODY) == "forged"
    assert refusal("github", RAW, {"x-hub-signature": headers["x-hub-signature"]}, BODY) is None


def test_the_signature_of_nexus_is_sha1_without_its_name() -> None:
    header = "x-nexus-webhook-signature"
    assert refusal("nexus", RAW, {header: digest("sha1")}, BODY) is None
    for bad in (digest("sha256"), f"sha1={digest('sha1')}", digest("sha1")[:-2], ""):
        assert refusal("nexus", RAW, {header: bad}, BODY) == "forged"
    # Flux's test vector: key `secret`, body `{}`.
    assert refusal("nexus", b"secret", {header: "5d61605c3feea9799210ddcb71307d4ba264225f"}, b"{}") is None


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("harbor", "authorization"), ("acr", "authorization"), ("distribution", "authorization"), ("ecr", "authorization"),
        ("ecr", "x-api-key"), ("gitlab", "x-gitlab-token"), ("gitlab", "authorization"),
    ],
)  # fmt: skip
def test_tokens(kind: str, header: str) -> None:
    for good in (TOKEN, f"Bearer {TOKEN}"):
        assert refusal(kind, RAW, {header: good}, BODY) is None
    wrong = TOKEN.upper(), TOKEN[:-1], TOKEN + "0", f" {TOKEN}", f"{TOKEN}, {TOKEN}"
    for bad in (*wrong, "", f"bearer {TOKEN}", f"Basic {TOKEN}", "\xe9" * 32):
        assert refusal(kind, RAW, {header: bad}, BODY) == "forged", bad


def test_comparisons_take_the_whole_of_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is given, it is compared by the function that takes the same time for every wrong value of one length."""
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    for kind in DOORS.keys() - {"cdevents", "dockerhub", "quay"}:
        for given in (TOKEN, TOKEN[:3], "sha256=" + "0" * 64, "x"):
            names = ("authorization", "x-signature", "x-hub-signature-256", "x-nexus-webhook-signature", "x-gitlab-token")
            compared.clear()
            refusal(kind, RAW, dict.fromkeys(names, given), BODY)
            if DOORS[kind].__qualname__.startswith("_shown"):
                assert compared == [(32, 32), (32, 32)], kind
            else:
                assert len(compared) == ("=" in given or kind == "nexus"), (kind, given)


def test_paths_are_apart() -> None:
    """Flux joins token, name and namespace, so that these pairs meet in one path."""
    assert path_of(RAW, Key("b", "a")) != path_of(RAW, Key("", "ab"))
    assert path_of(RAW, Key("c", "ab")) != path_of(RAW, Key("bc", "a"))
    assert path_of(RAW, Key("apps", "web")) == "/hints/" + hmac.new(RAW, b"apps/web", "sha256").hexdigest()


def test_a_token_that_can_be_guessed_is_none() -> None:
    assert token_of("a/b", {"token": RAW + b"\r\n"}) == RAW
    for data in ({}, {"token": b""}, {"token": b"\n"}, {"token": b"x" * 15}, {"token": b"x" * 15 + b"\n"}):
        with pytest.raises(Invalid, match="secret 'a/b': key 'token' is"):
            token_of("a/b", data)


# --- the service


async def test_forged_hints_cost_the_registry_nothing_and_teach_nothing(world: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    hinted(world, "generic-hmac")
    document = {"image": world.image("web"), "tag": "9.9.9"}
    body = orjson.dumps(document)
    async with world.start() as running, Sender(running) as sender:
        await sender.queue.drained()
        world.registry.requests.clear()
        for wrong in (
            path(token="f" * 32),
            path(name="other"),
            path()[:-1],
            path() + "0",
            path().upper(),
            "/hints/",
            "/hints",
            "/",
        ):
            assert await sender.send(document, to=wrong) == 404, wrong
        answers = set()
        for wrong in (path(token="f" * 32), "/hints/x", "/nothing", f"{path()}/"):
            response = await sender.client.post(wrong, content=body, headers=signed(body))
            answers.add((response.status_code, response.content, *sorted(set(response.headers) - {"date"})))
        assert len(answers) == 1
        for forged in ({}, {"x-signature": "sha256=" + "0" * 64}, signed(body, token="f" * 32), signed(body + b" ")):
            assert await sender.send(document, headers=forged) == 401
        assert (sender.count("generic-hmac", "unsigned"), sender.count("generic-hmac", "forged")) == (1, 3)
        assert sender.count("unknown", "path") >= 6
        twice = [("x-signature", signed(body)["x-signature"])] * 2
        assert (await sender.client.post(path(), content=body, headers=twice)).status_code == 401
        for bad in (b"", b"{", b"[]", b"[" * 2000, b'{"image": 1}'):
            assert await sender.send(bad) == 400
        assert (await sender.client.get(path())).status_code == 405
        await sender.queue.drained()
        assert sum(world.registry.requests.values()) == 0
    said = "".join(capsys.readouterr())
    assert "9.9.9" not in said
    assert TOKEN not in said
    assert path()[7:] not in said


async def test_large_slow_and_broken_bodies(world: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 60.0)
    hinted(world, "generic-hmac")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1024

    async with world.start() as running, Sender(running) as sender:
        assert await sender.send(b" " * (server.MAX_BODY + 1)) == 413
        assert await sender.send(b"{" + b" " * (server.MAX_BODY - 2) + b"}") == 202
        assert (await sender.client.post(path(), content=pieces())).status_code == 413
        assert sender.count("generic-hmac", "large") == 2
        where = urlsplit(str(sender.desk.url))

        async def stall(length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            writer.write(f"POST {path()} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{".encode())
            await writer.drain()
            return reader, writer

        monkeypatch.setattr(server, "PATIENCE", 0.3)
        reader, writer = await stall(100)
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        monkeypatch.setattr(server, "PATIENCE", 60.0)
        stalled = [await stall(100) for _ in range(server.AT_ONCE_EACH)]

        async def busy() -> bool:
            return await sender.send({"tag": "1.0.0"}) == 503

        await eventually(busy, "the bound on deliveries that are read at once")
        for _, writer in stalled:
            writer.close()

        async def free() -> bool:
            return await sender.send({"tag": "1.0.0"}) == 202

        await eventually(free, "room again")
        await eventually(lambda: sender.count("generic-hmac", "broken") == server.AT_ONCE_EACH, "the end of those that stalled")


async def test_repetitions_and_floods_cost_a_bounded_number_of_scans(world: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SPACING", 3600.0)
    hinted(world, "harbor")
    authorized = {"authorization": TOKEN}

    def push(tag: str, number: int) -> dict[str, object]:
        name = f"{world.image('web')}:{tag}"
        resource = {"tag": tag, "digest": f"sha256:{number:064x}", "resource_url": name}
        data = {"resources": [resource], "repository": {"repo_full_name": "web"}}
        return {"type": "PUSH_ARTIFACT", "occur_at": number, "event_data": data}

    async with world.start() as running, Sender(running) as sender:
        await sender.queue.drained()
        world.registry.requests.clear()
        world.registry.push_image("web", "1.1.0")
        assert await sender.send(push("1.1.0", 1), headers=authorized) == 202

        async def scanned() -> bool:
            found = await running.get("ImageRepository", "web")
            return bool(found.status.last_scan_result.latest_tags[0] == "1.1.0")

        await eventually(scanned, "the scan")
        assert world.registry.requests["tags"] == 1
        for _ in range(50):  # the same delivery
            assert await sender.send(push("1.1.0", 1), headers=authorized) == 202
        assert sender.count("harbor", "repeated") == 50
        for number in range(50):  # deliveries of their own that tell nothing new
            assert await sender.send({**push("1.1.0", 1), "occur_at": 100 + number}, headers=authorized) == 202
        assert sender.count("harbor", "known") == 50
        await asyncio.gather(*(sender.send(push(f"2.0.{n}", n), headers=authorized) for n in range(100)))
        await sender.queue.drained()
        # All of the flood waits for one scan, after the time that lies between two.
        assert sum(world.registry.requests.values()) == 1
        assert sender.desk.due(Key("apps", "web"))


async def test_the_last_hint_of_a_flood_is_not_lost(world: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SPACING", 0.5)
    hinted(world, "generic-hmac")
    async with world.start() as running, Sender(running) as sender:
        assert await sender.send({"tag": "1.1.0"}) == 202
        for number in range(30):
            await sender.send({"tag": f"3.0.{number}"})
        world.registry.push_image("web", "4.0.0")
        assert await sender.send({"tag": "4.0.0"}) == 202

        async def scanned() -> bool:
            found = await running.get("ImageRepository", "web")
            return bool(found.status.last_scan_result.latest_tags[0] == "4.0.0")

        await eventually(scanned, "the tag that was pushed last", 40)


async def test_a_tag_that_is_listed_later_than_told_is_looked_for_again(world: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SPACING", 0.05)
    monkeypatch.setattr("imagebot.hints.desk.SPACING", 0.05)
    monkeypatch.setattr(gate, "LOOKS", (0.3, 0.3, 0.3))
    hinted(world, "generic-hmac")
    async with world.start() as running, Sender(running) as sender:
        await sender.queue.drained()
        world.registry.requests.clear()
        assert await sender.send({"tag": "1.1.0"}) == 202
        await eventually(lambda: world.registry.requests["tags"] >= 2, "the second look")
        world.registry.push_image("web", "1.1.0")

        async def scanned() -> bool:
            found = await running.get("ImageRepository", "web")
            return bool(found.status.last_scan_result.latest_tags[0] == "1.1.0")

        await eventually(scanned, "the tag", 40)
    assert world.registry.requests["tags"] <= 4


async def test_a_new_token_closes_the_old_path(world: Lab) -> None:
    hinted(world, "dockerhub")
    async with world.start() as running, Sender(running) as sender:
        world.declare(secret("hint", {"token": "f" * 32}))

        def opened() -> bool:
            running.request("ImageRepository", "web")
            return sender.desk.find(path(token="f" * 32)) is not None

        await eventually(opened, "the new path")
        assert await sender.send({}, headers={}) == 404
        assert await sender.send({}, headers={}, to=path(token="f" * 32)) == 202
        world.withdraw({"kind": "ImageRepository", "metadata": {"name": "web", "namespace": "apps"}})
        await eventually(lambda: sender.desk.find(path(token="f" * 32)) is None, "the path closed")
        assert await sender.send({}, headers={}, to=path(token="f" * 32)) == 404
