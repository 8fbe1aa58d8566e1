"""Google Cloud Storage by its JSON API (`storage/v1`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from reconcile.net.client import Client
from reconcile.net.guard import BODY_LIMIT
from reconcile.net.retry import RetryPolicy
from reconcile.ports.clock import Clock
from reconcile.sources.buckets import transfer
from reconcile.sources.buckets.client import BadAnswer, BucketError, BucketMissing, Entry, Fetched, ObjectMissing, Text

PAGE = 1000
"""Objects asked for in one request; the service gives no more."""

MAX_METADATA = 1024 * 1024
MAX_CHASES = 3
"""How often an object that is overwritten while it is fetched is looked up anew."""

_FIELDS = "name,etag,size,generation"

Token = Callable[[], Awaitable[str]]
"""Gives an OAuth access token; empty is anonymous."""


class GcsClient:
    """A `BucketClient` for one bucket. Content is asked for by generation, so that it is certain which etag belongs to it."""

    def __init__(self, http: Client, base: str, bucket: str, token: Token, clock: Clock, retry: RetryPolicy) -> None:
        self._http = http
        self._objects = f"{base}/storage/v1/b/{quote(bucket, safe='')}/o"
        self._token = token
        self._clock = clock
        self._retry = retry

    async def pages(self, prefix: str) -> AsyncIterator[Sequence[Entry]]:
        """Objects: list, with page tokens."""
        query = {"fields": f"nextPageToken,items({_FIELDS})", "maxResults": str(PAGE)} | ({"prefix": prefix} if prefix else {})
        while True:
            try:
                page = await self._document(self._objects, query, transfer.MAX_PAGE)
            except ObjectMissing as error:
                raise BucketMissing(str(error)) from error
            items = page.get("items") or []
            if not isinstance(items, list):
                raise BadAnswer("the list has no readable items")
            yield [_entry_of(item) for item in items]
            token = page.get("nextPageToken")
            if not token:
                return
            if not isinstance(token, str) or token == query.get("pageToken"):
                raise BadAnswer("the list goes round in a circle: the same page token came twice")
            query["pageToken"] = token

    async def fetch(self, entry: Entry, into: Path, most: int) -> Fetched:
        """Objects: get with `alt=media` of the listed generation; of the newest where that is gone."""

        async def attempt(wanted: Entry) -> int:
            response = await self._media(wanted, most)
            try:
                transfer.check_size(wanted, wanted.etag, transfer.announced(response))
            except BadAnswer:
                await response.aclose()
                raise
            return await transfer.save(response, into)

        found, size = await self._chase(entry, attempt)
        return Fetched(found.etag, size)

    async def read(self, key: str, most: int, unless: Text | None = None) -> Text:
        """Objects: get for the metadata, then with `alt=media` for the content unless its etag is known."""
        entry = await self._look(key)
        if unless is not None and entry.etag == unless.etag:
            return unless

        async def attempt(wanted: Entry) -> bytes:
            return await transfer.content(await self._media(wanted, most))

        found, content = await self._chase(entry, attempt)
        return Text(found.etag, content)

    async def _chase(self, entry: Entry, attempt: Callable[[Entry], Awaitable[transfer.T]]) -> tuple[Entry, transfer.T]:
        for _ in range(MAX_CHASES):
            try:
                return entry, await transfer.whole(partial(attempt, entry), self._clock, self._retry)
            except ObjectMissing:
                newest = await self._look(entry.key)
                if newest.generation == entry.generation:
                    raise
                entry = newest
        raise BucketError(f"the object was overwritten {MAX_CHASES} times while it was fetched")

    async def _look(self, key: str) -> Entry:
        return _entry_of(await self._document(self._url(key), {"fields": _FIELDS}, MAX_METADATA))

    async def _media(self, entry: Entry, most: int) -> httpx.Response:
        query = {"alt": "media"} | ({"generation": entry.generation} if entry.generation else {})
        return await self._send(self._url(entry.key), query, most)

    def _url(self, key: str) -> str:
        return f"{self._objects}/{quote(key, safe='')}"

    async def _document(self, url: str, query: Mapping[str, str], limit: int) -> dict[str, Any]:
        async def attempt() -> bytes:
            return await transfer.content(await self._send(url, query, limit))

        body = await transfer.whole(attempt, self._clock, self._retry)
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise BadAnswer("the answer is not JSON") from None
        if not isinstance(document, dict):
            raise BadAnswer("the answer is not a JSON object")
        return document

    async def _send(self, url: str, query: Mapping[str, str], limit: int) -> httpx.Response:
        """An open answer of status 200; the caller closes it."""
        token = await self._token()
        url += "?" + "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = self._http.build_request("GET", url, headers=headers, extensions={BODY_LIMIT: limit})
        response = await self._http.send(request, stream=True, follow_redirects=False)
        if response.status_code == 200:
            return response
        body = await transfer.error_body(response)
        text = _message_of(body) or transfer.status_text(response, body)
        raise ObjectMissing(text) if response.status_code == 404 else BucketError(text)


def _entry_of(item: Any) -> Entry:
    values = [item.get(name) if isinstance(item, dict) else None for name in ("name", "etag", "size", "generation")]
    key, etag, size, generation = (value if isinstance(value, str) else "" for value in values)
    if not (key and etag and generation and size.isascii() and size.isdigit()):
        raise BadAnswer("an object comes without name, etag, size or generation")
    return Entry(key, etag, int(size), generation)


def _message_of(body: bytes) -> str:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return ""
    return transfer.error_text(f"googleapi: Error {str(error.get('code'))[:10]}", error["message"])
