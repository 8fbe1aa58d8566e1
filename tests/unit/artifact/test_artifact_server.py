"""The artifact server on a real socket: what Go's file server answers, and no way out of its root."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from reconcile.api.source import Artifact
from reconcile.artifact.server import CHUNK, content_type
from reconcile.artifact.storage import Storage
from tests.support.artifacts import KEY, served, stored
from tests.support.clock import VirtualClock

FOLDER = "/gitrepository/flux-system/podinfo/"


@dataclass
class Site:
    storage: Storage
    client: httpx.AsyncClient
    url: str

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers={name.replace("_", "-"): text for name, text in headers.items()})

    async def raw(self, path: str) -> tuple[int, bytes]:
        """Status and answer for a path that goes out as it is, not as a client would clean it."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return int(answer.split(b" ", 2)[1]), answer


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    storage = Storage(tmp_path / "data", VirtualClock(), host="h")
    async with served(storage) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield Site(storage, client, url)
    storage.close()


async def put(site: Site, name: str, data: bytes, link: str = "") -> Artifact:
    return await site.storage.put("GitRepository", KEY, name, "r", lambda out: out.write(data) and None, link=link)


async def test_an_artifact_as_it_is(site: Site) -> None:
    made = await stored(site.storage)
    answer = await site.get(f"/{made.path}")
    assert answer.status_code == 200
    assert f"sha256:{hashlib.sha256(answer.content).hexdigest()}" == made.digest
    assert answer.headers["content-length"] == str(made.size)
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.headers["last-modified"] == "Thu, 01 Jan 2026 00:00:00 GMT"
    assert answer.headers["accept-ranges"] == "bytes"
    assert "content-encoding" not in answer.headers


async def test_head_says_the_same_without_the_body(site: Site) -> None:
    made = await stored(site.storage)
    got, head = await site.get(f"/{made.path}"), await site.client.head(f"/{made.path}")
    assert head.status_code == 200
    assert head.content == b""
    assert {k: v for k, v in head.headers.items() if k != "date"} == {k: v for k, v in got.headers.items() if k != "date"}


async def test_other_methods_are_refused(site: Site) -> None:
    made = await stored(site.storage)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await site.client.request(method, f"/{made.path}")).status_code == 405
    assert await site.storage.intact(made)


RANGES = [
    ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
    ("bytes=5-", 206, b"56789", "bytes 5-9/10"),
    ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
    ("bytes=-40", 206, b"0123456789", "bytes 0-9/10"),
    ("bytes=0-99", 206, b"0123456789", "bytes 0-9/10"),
    ("bytes=9-9", 206, b"9", "bytes 9-9/10"),
    ("bytes=10-", 416, b"invalid range: failed to overlap\n", "bytes */10"),
    ("bytes=100-200", 416, b"invalid range: failed to overlap\n", "bytes */10"),
    ("bytes=x", 416, b"invalid range\n", None),
    ("bytes=-", 416, b"invalid range\n", None),
    ("bytes=3-1", 416, b"invalid range\n", None),
    ("lines=1-2", 416, b"invalid range\n", None),
    ("bytes=0-1,3-4", 200, b"0123456789", None),
]


async def test_ranges(site: Site) -> None:
    made = await put(site, "digits.txt", b"0123456789")
    for asked, *expected in RANGES:
        answer = await site.get(f"/{made.path}", range=asked)
        assert [answer.status_code, answer.content, answer.headers.get("content-range")] == expected, asked


async def test_a_range_of_a_file_that_has_changed_is_the_whole_file(site: Site) -> None:
    made = await put(site, "digits.txt", b"0123456789")
    etag = (await site.get(f"/{made.path}")).headers["etag"]
    assert (await site.get(f"/{made.path}", range="bytes=2-", if_range=etag)).status_code == 206
    assert (await site.get(f"/{made.path}", range="bytes=2-", if_range="Thu, 01 Jan 2026 00:00:00 GMT")).status_code == 206
    assert (await site.get(f"/{made.path}", range="bytes=2-", if_range='"other"')).status_code == 200
    assert (await site.get(f"/{made.path}", range="bytes=2-", if_range="Thu, 01 Jan 2025 00:00:00 GMT")).status_code == 200


async def test_a_range_of_nothing(site: Site) -> None:
    made = await put(site, "empty.txt", b"")
    answer = await site.get(f"/{made.path}", range="bytes=0-5")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_what_the_client_has_is_not_sent_again(site: Site) -> None:
    made = await stored(site.storage)
    answer = await site.get(f"/{made.path}")
    for headers in (
        {"if_none_match": answer.headers["etag"]},
        {"if_none_match": f'"a", W/{answer.headers["etag"]}'},
        {"if_none_match": "*"},
        {"if_modified_since": answer.headers["last-modified"]},
        {"if_modified_since": "Fri, 02 Jan 2026 00:00:00 GMT"},
    ):
        again = await site.get(f"/{made.path}", **headers)
        assert (again.status_code, again.content) == (304, b"")
    for headers in (
        {"if_none_match": '"other"'},
        {"if_none_match": '"other"', "if_modified_since": answer.headers["last-modified"]},
        {"if_modified_since": "Wed, 31 Dec 2025 00:00:00 GMT"},
        {"if_modified_since": "nonsense"},
    ):
        assert (await site.get(f"/{made.path}", **headers)).status_code == 200


TYPES = [
    ("a.tar.gz", b"\x1f\x8b\x08", "application/gzip"),
    ("a.tgz", b"\x1f\x8b\x08", "application/x-gzip"),
    ("index-1.yaml", b"apiVersion: v1\n", "text/plain; charset=utf-8"),
    ("empty", b"", "text/plain; charset=utf-8"),
    ("odd", b"\x00\x01", "application/octet-stream"),
]


async def test_types(site: Site) -> None:
    for name, head, expected in TYPES:
        made = await put(site, name, head)
        assert (await site.get(f"/{made.path}")).headers["content-type"] == expected == content_type(name, head)


async def test_the_root_answers_before_and_after_the_first_artifact(site: Site) -> None:
    empty = await site.get("/")
    assert (empty.status_code, empty.headers["content-type"]) == (200, "text/html; charset=utf-8")
    await stored(site.storage)
    answer = await site.get("/")
    assert answer.text == (
        '<!doctype html>\n<meta name="viewport" content="width=device-width">\n'
        '<pre>\n<a href="gitrepository/">gitrepository/</a>\n</pre>\n'
    )


async def test_a_listing_shows_artifacts_alone(site: Site) -> None:
    made = await put(site, "a<b>&.tar.gz", b"1", link="latest.tar.gz")
    await put(site, "sha256:ab.tar.gz", b"2")
    (site.storage.path_of(made).parent / ".half.part").write_text("half")
    answer = await site.get(FOLDER)
    assert answer.text.splitlines()[3:-1] == [
        '<a href="./a%3Cb%3E%26.tar.gz">a&lt;b&gt;&amp;.tar.gz</a>',
        '<a href="latest.tar.gz">latest.tar.gz</a>',
        '<a href="./sha256%3Aab.tar.gz">sha256:ab.tar.gz</a>',
    ]
    assert (await site.client.head(FOLDER)).status_code == 200


async def test_slashes_at_the_end(site: Site) -> None:
    made = await stored(site.storage)
    folder = await site.get(FOLDER.rstrip("/"))
    assert (folder.status_code, folder.headers["location"]) == (301, "podinfo/")
    file = await site.get(f"/{made.path}/")
    assert (file.status_code, file.headers["location"]) == (301, "../1.tar.gz")
    followed = await site.client.get(f"/{made.path}/", follow_redirects=True)
    assert followed.status_code == 200


async def test_a_link_beside_its_artifact_is_followed(site: Site) -> None:
    made = await stored(site.storage, link="latest.tar.gz")
    answer = await site.get(FOLDER + "latest.tar.gz")
    assert f"sha256:{hashlib.sha256(answer.content).hexdigest()}" == made.digest


WAYS_OUT = [
    "/../secret",
    "/gitrepository/../../secret",
    "/%2e%2e/secret",
    "/..%2fsecret",
    "/%2e%2e%2fsecret",
    "/gitrepository/..%2f..%2fsecret",
    "//../secret",
    "/..\\secret",
    "/gitrepository/flux-system/podinfo/out",
    "/gitrepository/flux-system/podinfo/up/secret",
    "/gitrepository/flux-system/podinfo/up2",
    "/gitrepository/flux-system/podinfo/self",
    "/gitrepository/flux-system/podinfo/gone",
    "/linked/secret",
    "/gitrepository/flux-system/podinfo/pipe",
    "/gitrepository/flux-system/podinfo/1.tar.gz.lock",
    "/gitrepository/flux-system/podinfo/.1.tar.gz.aa.part",
    "/gitrepository/flux-system/podinfo/%00",
    "/gitrepository/flux-system/podinfo/1.tar.gz%00",
    "/gitrepository/flux-system/podinfo/1.tar.gz/x",
    "/" + "n" * 300,
    "/" + "a/" * 3000,
]


async def test_no_way_out(site: Site, tmp_path: Path) -> None:
    made = await stored(site.storage)
    (tmp_path / "secret").write_text("TOP SECRET")
    folder = site.storage.path_of(made).parent
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to("../../../..")
    (folder / "up2").symlink_to("..")
    (folder / "self").symlink_to("self")
    (folder / "gone").symlink_to("nothing")
    (site.storage.root / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    (folder / ".1.tar.gz.aa.part").write_text("TOP SECRET")
    for path in WAYS_OUT:
        status, answer = await site.raw(path)
        assert status in {301, 404}, path
        assert b"secret" not in answer.lower(), path


async def test_a_large_file_comes_in_pieces_and_is_finished_although_it_is_removed_meanwhile(site: Site) -> None:
    data = os.urandom(CHUNK * 12 + 17)
    made = await put(site, "large.tar.gz", data)
    received = b""
    async with site.client.stream("GET", f"/{made.path}") as answer:
        async for piece in answer.aiter_raw():
            if not received:
                site.storage.path_of(made).unlink()
            received += piece
    assert received == data


async def test_a_client_that_goes_away_leaves_no_open_file(site: Site) -> None:
    made = await put(site, "large.tar.gz", os.urandom(CHUNK * 64))
    host, _, port = site.url.removeprefix("http://").partition(":")

    def opened() -> int:
        target = str(site.storage.path_of(made))
        return sum(os.path.realpath(f"/proc/self/fd/{number}") == target for number in os.listdir("/proc/self/fd"))

    for _ in range(3):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(f"GET /{made.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    for _ in range(200):
        await site.get("/")
        if not opened():
            break
    assert opened() == 0


async def test_content_is_sent_as_it_is_although_the_client_takes_gzip(site: Site) -> None:
    made = await put(site, "index-1.yaml", b"apiVersion: v1\n")
    answer = await site.get(f"/{made.path}", accept_encoding="gzip")
    assert answer.content == b"apiVersion: v1\n"
    packed = await put(site, "a.tar.gz", gzip.compress(b"x"))
    assert (await site.get(f"/{packed.path}")).content == gzip.compress(b"x")
