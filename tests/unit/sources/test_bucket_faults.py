"""Stores that hang, close half-way, lie about sizes, send bombs or show the wrong certificate."""

from __future__ import annotations

import gzip
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from reconcile.net.errors import NetworkError, TlsFailed
from reconcile.sources.buckets.client import BadAnswer
from reconcile.sources.buckets.listing import BucketLimits
from tests.support.bucket_controller import BucketWorld, bucket_world, conditions
from tests.support.bucket_servers import S3Keys, S3Server, once
from tests.support.bucket_world import PROVIDERS, listed, world_of
from tests.support.pki import Authority
from tests.support.registry import Exchange

MIB = 1024 * 1024


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[BucketWorld]:
    async with bucket_world(tmp_path, limits=BucketLimits(object=10_000)) as made:
        made.objects.put("a", "0123456789")
        yield made


async def message(lab: BucketWorld, kind: str = "FetchFailed") -> str:
    """What the pass says by this condition."""
    resource = await lab.step()
    (found,) = [text for text in conditions(resource) if text.startswith(f"{kind}=True")]
    assert resource.status.artifact is None
    assert list(lab.work.glob("work-*")) == []
    return found.partition(": ")[2]


def raw(*pieces: bytes, close: bool = True) -> Callable[[Exchange], object]:
    """Sends these bytes, and then nothing more; with `close` it hangs up."""

    async def answer(exchange: Exchange) -> None:
        for piece in pieces:
            await exchange.send(piece)
        if close:
            exchange.writer.close()

    return answer


async def test_a_list_that_does_not_come_ends_with_the_timeout(lab: BucketWorld):
    lab.objects.faults.append(once(raw(close=False), part="list-type"))
    await lab.declare(timeout="200ms")
    assert await message(lab) == "indexation of objects from bucket 'files' failed: context deadline exceeded"


async def test_a_body_that_stops_half_way_ends_with_the_timeout(lab: BucketWorld):
    lab.objects.faults.append(once(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234", close=False), part="/files/a"))
    await lab.declare(timeout="200ms")
    assert await message(lab) == "fetch from bucket 'files' failed: context deadline exceeded"


async def test_a_server_that_hangs_up_is_asked_three_times(lab: BucketWorld):
    lab.objects.faults.append(once(raw(), part="/files/a", times=99))
    await lab.declare()
    text = await message(lab)
    assert text.startswith("fetch from bucket 'files' failed: failed to get 'a' object: Get \"http://")
    assert text.endswith('/files/a": EOF')
    assert sum(exchange.target == "/files/a" for exchange in lab.world.server.exchanges) == 3


async def test_a_body_shorter_than_announced_is_never_taken(lab: BucketWorld):
    lab.objects.faults.append(once(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123"), part="/files/a", times=99))
    await lab.declare()
    assert (await message(lab)).endswith('/files/a": unexpected EOF')
    assert sum(exchange.target == "/files/a" for exchange in lab.world.server.exchanges) == 3


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("content", [b"012", b"0123456789abc"])
async def test_a_size_other_than_that_of_the_list_is_no_answer(tmp_path: Path, provider: str, content: bytes):
    async with world_of(provider) as world:
        world.store.put("a", "0123456789")
        etag = world.store.objects["a"].etag
        head = f'HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nETag: "{etag}"\r\n\r\n'.encode()
        async with world.opened() as client:
            (entry,) = [entry async for page in client.pages("") for entry in page]
            world.store.faults.append(once(raw(head + content), part="/a"))
            with pytest.raises(BadAnswer, match=f"{len(content)} bytes, and the list says 10"):
                await client.fetch(entry, tmp_path / "a", MIB)


async def test_a_body_without_a_length_is_measured(lab: BucketWorld):
    etag = lab.objects.objects["a"].etag
    head = f'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: "{etag}"\r\n\r\n'.encode()
    lab.objects.faults.append(once(raw(head + b"3\r\n012\r\n0\r\n\r\n"), part="/files/a"))
    await lab.declare()
    assert "3 bytes, and the list says 10" in await message(lab)


async def test_a_body_without_end_stops_at_the_limit(lab: BucketWorld):
    sent = 0

    async def endless(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await exchange.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
            sent += 1024

    lab.objects.faults.append(once(endless, part="/files/a"))
    await lab.declare()
    assert "larger than the limit of 10000 bytes" in await message(lab)
    assert sent < 16 * MIB


async def test_a_list_that_unpacks_to_too_much_is_refused(lab: BucketWorld):
    bomb = gzip.compress(b"<ListBucketResult>" + b" " * (17 * MIB))

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body=bomb, Content_Encoding="gzip")

    lab.objects.faults.append(once(answer, part="list-type"))
    await lab.declare()
    assert "larger than the limit of 16777216 bytes" in await message(lab)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("<Key>a</Key><ETag>x</ETag><Size>-1</Size>", "without key, etag or size"),
        ("<Key>a</Key><ETag>x</ETag><Size>1e9</Size>", "without key, etag or size"),
        ("<Key>a</Key><Size>1</Size>", "without key, etag or size"),
        ("<Key></Key><ETag>x</ETag><Size>1</Size>", "without key, etag or size"),
        ("<Key>a</Key><ETag>x</ETag><Size>99999999999999999999</Size>", "the limit is 10000"),
        ("<a>" * 100 + "</a>" * 100, "nested deeper"),
        ("<Key>a</Wrong>", "not XML"),
    ],
)
async def test_rows_that_say_nothing_sensible(lab: BucketWorld, row: str, said: str):
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body=f"<ListBucketResult><Contents>{row}</Contents></ListBucketResult>".encode())

    lab.objects.faults.append(once(answer, part="list-type"))
    await lab.declare()
    assert said in await message(lab)


async def test_an_object_that_is_listed_twice_is_one(lab: BucketWorld):
    row = f"<Contents><Key>a</Key><ETag>{lab.objects.objects['a'].etag}</ETag><Size>10</Size></Contents>"

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body=f"<ListBucketResult>{row * 2}</ListBucketResult>".encode())

    lab.objects.faults.append(once(answer, part="list-type"))
    await lab.declare()
    assert lab.files(await lab.step()) == {"a": b"0123456789"}
    assert lab.objects.asked == ["a"]


@pytest.mark.parametrize(
    "body", [b"\xff" * 100, b"x" * MIB, b'<!DOCTYPE e [<!ENTITY a "b">]><Error><Code>&a;</Code></Error>', b"<Error>"]
)
async def test_errors_with_bodies_that_nobody_can_read(lab: BucketWorld, body: bytes):
    async def answer(exchange: Exchange) -> None:
        await exchange.answer("403 Forbidden", body)

    lab.objects.faults.append(once(answer, part="list-type"))
    await lab.declare()
    text = await message(lab)
    assert text.startswith("failed to confirm existence of 'files' bucket: unexpected status code 403 Forbidden")
    assert len(text) < 1000
    assert text.isprintable()


async def test_a_long_message_of_a_service_is_cut_and_has_no_secret(lab: BucketWorld):
    async def answer(exchange: Exchange) -> None:
        shown = exchange.headers["authorization"]
        await exchange.answer("403 Forbidden", f"<Error><Code>No</Code><Message>{shown} {'x' * 5000}</Message></Error>".encode())

    lab.objects.faults.append(once(answer, part="list-type"))
    await lab.declare()
    text = await message(lab)
    assert len(text) < 1000
    assert "No: AWS4-HMAC" in text


# --- TLS


def context(authority: Authority, clients: Authority | None = None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = authority.server(["127.0.0.1"])
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + key)
        file.flush()
        made.load_cert_chain(file.name)
    if clients is not None:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(cadata=clients.certificate.decode())
    return made


async def test_a_certificate_is_trusted_by_the_secret_that_is_named(tmp_path: Path):
    authority, clients = Authority(), Authority()
    certificate, key = clients.client("reader")
    async with world_of("generic", tls=context(authority, clients)) as world:
        world.store.put("a", "1")
        world.secrets.put("trust", **{"ca.crt": authority.certificate, "tls.crt": certificate, "tls.key": key})
        async with world.opened(insecure=False, certSecretRef={"name": "trust"}) as client:
            assert await listed(client) == ["a"]
        world.secrets.put("trust", **{"ca.crt": authority.certificate})
        async with world.opened(insecure=False, certSecretRef={"name": "trust"}) as client:
            with pytest.raises(NetworkError):
                await listed(client)
        async with world.opened(insecure=False) as client:
            with pytest.raises(TlsFailed, match="unknown authority"):
                await listed(client)
        assert world.store.counts["LIST"] == 1


async def test_the_token_service_has_a_certificate_of_its_own(tmp_path: Path):
    authority = Authority()
    async with world_of("generic", tls=context(authority)) as tokens, world_of("generic") as world:
        keys = S3Keys("temporary", "made-for-ldap", "session-token")
        for server in (tokens.server, world.server):
            assert isinstance(server, S3Server)
            server.keys = keys
            server.ldap["jane"] = "pass"
        world.store.put("a", "1")
        world.secrets.put("ldap", username="jane", password="pass")
        world.secrets.put("trust", **{"ca.crt": authority.certificate})
        sts = {"provider": "ldap", "endpoint": f"https://{tokens.server.host}/sts", "secretRef": {"name": "ldap"}}
        async with world.opened(secretRef=None, sts={**sts, "certSecretRef": {"name": "trust"}}) as client:
            assert await listed(client) == ["a"]
        async with world.opened(secretRef=None, sts=sts) as client:
            with pytest.raises(Exception, match="unknown authority"):
                await listed(client)
