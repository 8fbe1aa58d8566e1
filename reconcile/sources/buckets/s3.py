"""S3: Amazon's, MinIO and everything else that speaks its REST interface (Amazon S3 API reference, version 2006-03-01)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote_plus

import httpx

from reconcile.net.client import Client
from reconcile.net.guard import BODY_LIMIT
from reconcile.net.retry import RetryPolicy
from reconcile.ports.clock import Clock
from reconcile.registry.sigv4 import AwsKeys, sign
from reconcile.sources.buckets import transfer
from reconcile.sources.buckets.client import BadAnswer, BucketError, BucketMissing, Entry, Fetched, ObjectMissing, Text
from reconcile.sources.buckets.s3_endpoint import Place
from reconcile.sources.buckets.xmldata import Record, parse

PAGE = 1000
"""Objects asked for in one request; the service gives no more."""

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

Keys = Callable[[str], Awaitable[AwsKeys | None]]
"""Gives the keys for a region; None is anonymous."""


class S3Client:
    """A `BucketClient` for one bucket; its region is learnt from the service when it is another than assumed."""

    def __init__(self, http: Client, place: Place, keys: Keys, clock: Clock, retry: RetryPolicy) -> None:
        self._http = http
        self._place = place
        self._keys = keys
        self._clock = clock
        self._retry = retry

    async def pages(self, prefix: str) -> AsyncIterator[Sequence[Entry]]:
        """ListObjectsV2 with continuation tokens; keys come URL-encoded, since XML cannot hold every key."""
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(PAGE)} | ({"prefix": prefix} if prefix else {})
        while True:
            page = await self._page(query)
            yield page.entries
            if not page.token:
                return
            if page.token == query.get("continuation-token"):
                raise BadAnswer("the list goes round in a circle: the same continuation token came twice")
            query["continuation-token"] = page.token

    async def fetch(self, entry: Entry, into: Path, most: int) -> Fetched:
        """GetObject, streamed."""

        async def attempt() -> Fetched:
            response = await self._object(entry.key, most)
            etag = _etag(response.headers.get("etag", ""))
            try:
                transfer.check_size(entry, etag, transfer.announced(response))
            except BadAnswer:
                await response.aclose()
                raise
            size = await transfer.save(response, into)
            transfer.check_size(entry, etag, size)
            return Fetched(etag, size)

        return await transfer.whole(attempt, self._clock, self._retry)

    async def read(self, key: str, most: int, unless: Text | None = None) -> Text:
        """GetObject, with `If-None-Match`."""

        async def attempt() -> Text:
            headers = {"If-None-Match": f'"{unless.etag}"'} if unless is not None else {}
            response = await self._object(key, most, headers)
            if response.status_code == 304 and unless is not None:
                await response.aclose()
                return unless
            return Text(_etag(response.headers.get("etag", "")), await transfer.content(response))

        return await transfer.whole(attempt, self._clock, self._retry)

    async def _page(self, query: Mapping[str, str]) -> _Page:
        async def attempt() -> bytes:
            return await transfer.content(await self._send("/", query, limit=transfer.MAX_PAGE))

        return _page_of(await transfer.whole(attempt, self._clock, self._retry))

    async def _object(self, key: str, most: int, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return await self._send("/" + quote(key, safe="/-_.~"), {}, limit=most, headers=headers, stored=True)

    async def _send(
        self,
        path: str,
        query: Mapping[str, str],
        *,
        limit: int,
        headers: Mapping[str, str] | None = None,
        stored: bool = False,
    ) -> httpx.Response:
        """An open answer of status 200 or 304; the caller closes it."""
        for last in (False, True):
            request = await self._request(path, query, dict(headers or {}), limit, stored)
            response = await self._http.send(request, stream=True, follow_redirects=False)
            if response.status_code == 200 or (response.status_code == 304 and headers):
                return response
            body = await transfer.error_body(response)
            error = _error_of(body)
            region = response.headers.get("x-amz-bucket-region") or error.get("Region", "")
            if last or response.status_code not in {301, 307, 400} or not region or region == self._place.region:
                raise _failure(response, body, error, listing=path == "/")
            self._place = self._place.moved(region)
        raise AssertionError("the loop above returns or raises")

    async def _request(
        self, path: str, query: Mapping[str, str], headers: dict[str, str], limit: int, stored: bool
    ) -> httpx.Request:
        place = self._place
        url = place.url + path
        if query:
            url += "?" + "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
        keys = await self._keys(place.region)
        if keys is not None:
            signed = {"x-amz-content-sha256": EMPTY_SHA256}
            headers |= sign(
                keys,
                method="GET",
                url=url,
                headers=signed,
                body=b"",
                region=place.region,
                service="s3",
                moment=self._clock.now(),
            )
        if stored:
            headers["Accept-Encoding"] = "identity"
        extensions = {BODY_LIMIT: limit, transfer.AS_STORED: stored}
        return self._http.build_request("GET", url, headers=headers, extensions=extensions)


class _Page:
    def __init__(self, entries: Sequence[Entry], token: str) -> None:
        self.entries = entries
        self.token = token


def _page_of(body: bytes) -> _Page:
    document = parse(body, "Contents")
    if document.root != "ListBucketResult":
        raise BadAnswer(f"the answer is no list of objects, but '{document.root[:100]}'")
    encoded = document.head.get("EncodingType") == "url"
    entries = [_entry_of(row, encoded) for row in document.rows]
    truncated = document.head.get("IsTruncated", "").strip() == "true"
    token = document.head.get("NextContinuationToken", "")
    if truncated and not token:
        raise BadAnswer("the list is not complete, and names no continuation token")
    return _Page(entries, token if truncated else "")


def _entry_of(row: Record, encoded: bool) -> Entry:
    key, etag, size = row.get("Key", ""), row.get("ETag", ""), row.get("Size", "").strip()
    if not key or not etag or not (size.isascii() and size.isdigit()):
        raise BadAnswer("the list has an object without key, etag or size")
    return Entry(unquote_plus(key, errors="surrogateescape") if encoded else key, _etag(etag), int(size))


def _etag(text: str) -> str:
    return text.strip().strip('"')


def _error_of(body: bytes) -> Record:
    try:
        document = parse(body)
    except BadAnswer:
        return {}
    return document.head if document.root == "Error" else {}


def _failure(response: httpx.Response, body: bytes, error: Record, *, listing: bool) -> BucketError:
    code, message = error.get("Code", ""), error.get("Message", "")
    text = transfer.error_text(code, message) if code else transfer.status_text(response, body)
    if code == "NoSuchBucket" or (response.status_code == 404 and listing):
        return BucketMissing(text)
    return ObjectMissing(text) if response.status_code == 404 else BucketError(text)
