"""Azure Blob Storage by its REST API (version 2021-08-06).

Etags are used as the `ETag` header has them, with their quotes. Flux's source-controller reads them in two forms, one of the list
and one of the header; the revisions that it stored are made of the second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

import httpx

from reconcile.net.client import Client
from reconcile.net.guard import BODY_LIMIT
from reconcile.net.retry import RetryPolicy
from reconcile.ports.clock import Clock
from reconcile.sources.buckets import transfer
from reconcile.sources.buckets.client import BadAnswer, BucketError, BucketMissing, Entry, Fetched, ObjectMissing, Text
from reconcile.sources.buckets.xmldata import Record, parse

VERSION = "2021-08-06"
PAGE = 5000
"""Blobs asked for in one request; the service gives no more."""

_CALLER = (
    "the specified bucket name may be incorrect, nonexistent, or the caller might lack sufficient permissions to access it: "
)


class Login(Protocol):
    """How requests show who sends them."""

    async def sign(self, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """URL and headers of a GET request with what the login adds; raises ReconcileError."""
        ...


class AzureClient:
    """A `BucketClient` for one container."""

    def __init__(self, http: Client, base: str, container: str, login: Login, clock: Clock, retry: RetryPolicy) -> None:
        """`base` is the account's URL without query and without a slash at the end."""
        self._http = http
        self._container = f"{base}/{quote(container, safe='$')}"
        self._login = login
        self._clock = clock
        self._retry = retry

    async def pages(self, prefix: str) -> AsyncIterator[Sequence[Entry]]:
        """List Blobs, with markers; folders of accounts with a hierarchical namespace are left out."""
        query = {"restype": "container", "comp": "list", "maxresults": str(PAGE)} | ({"prefix": prefix} if prefix else {})
        while True:
            entries, marker = _page_of(await self._list(query))
            yield entries
            if not marker:
                return
            if marker == query.get("marker"):
                raise BadAnswer("the list goes round in a circle: the same marker came twice")
            query["marker"] = marker

    async def fetch(self, entry: Entry, into: Path, most: int) -> Fetched:
        """Get Blob, streamed."""

        async def attempt() -> Fetched:
            response = await self._send(self._blob(entry.key), {}, most)
            etag = _etag(response.headers.get("etag", ""))
            try:
                transfer.check_size(entry, etag, transfer.announced(response))
            except BadAnswer:
                await response.aclose()
                raise
            return Fetched(etag, await transfer.save(response, into))

        return await transfer.whole(attempt, self._clock, self._retry)

    async def read(self, key: str, most: int, unless: Text | None = None) -> Text:
        """Get Blob, with `If-None-Match`."""

        async def attempt() -> Text:
            response = await self._send(self._blob(key), {}, most, {"If-None-Match": unless.etag} if unless is not None else {})
            if response.status_code == 304 and unless is not None:
                await response.aclose()
                return unless
            return Text(_etag(response.headers.get("etag", "")), await transfer.content(response))

        return await transfer.whole(attempt, self._clock, self._retry)

    def _blob(self, key: str) -> str:
        return f"{self._container}/{quote(key, safe='/-_.~')}"

    async def _list(self, query: Mapping[str, str]) -> bytes:
        async def attempt() -> bytes:
            return await transfer.content(await self._send(self._container, query, transfer.MAX_PAGE))

        return await transfer.whole(attempt, self._clock, self._retry)

    async def _send(
        self, url: str, query: Mapping[str, str], limit: int, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """An open answer of status 200 or 304; the caller closes it."""
        if query:
            url += "?" + "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
        signed_url, signed = await self._login.sign(url, {"x-ms-version": VERSION, **(headers or {})})
        request = self._http.build_request("GET", signed_url, headers=signed, extensions={BODY_LIMIT: limit})
        response = await self._http.send(request, stream=True, follow_redirects=False)
        if response.status_code == 200 or (response.status_code == 304 and headers):
            return response
        raise _failure(response, await transfer.error_body(response), listing=bool(query))


def _page_of(body: bytes) -> tuple[Sequence[Entry], str]:
    document = parse(body, "Blob")
    if document.root != "EnumerationResults":
        raise BadAnswer(f"the answer is no list of blobs, but '{document.root[:100]}'")
    entries = [_entry_of(row) for row in document.rows if row.get("ResourceType") != "directory"]
    return entries, document.head.get("NextMarker", "")


def _entry_of(row: Record) -> Entry:
    key, etag, size = row.get("Name", ""), row.get("Etag", ""), row.get("Content-Length", "").strip()
    if not key or not etag or not (size.isascii() and size.isdigit()):
        raise BadAnswer("the list has a blob without name, etag or size")
    if row.get("Name@Encoded") == "true":
        key = unquote(key, errors="surrogateescape")
    return Entry(key, _etag(etag), int(size))


def _etag(text: str) -> str:
    bare = text.strip().strip('"')
    return f'"{bare}"' if bare else ""


def _failure(response: httpx.Response, body: bytes, *, listing: bool) -> BucketError:
    code, message = response.headers.get("x-ms-error-code", ""), ""
    try:
        document = parse(body)
    except BadAnswer:
        document = None
    if document is not None and document.root == "Error":
        code = code or document.head.get("Code", "")
        message = document.head.get("Message", "").partition("\n")[0]  # the rest are numbers of the request
    text = transfer.error_text(code, message) if code else transfer.status_text(response, body)
    if code == "ContainerNotFound" or (response.status_code == 404 and listing):
        return BucketMissing(text)
    if response.status_code == 404:
        return ObjectMissing(text)
    return BucketError(_CALLER + text if code == "AuthenticationFailed" and listing else text)
