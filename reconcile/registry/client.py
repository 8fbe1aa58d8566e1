"""Talks to one registry as one somebody: tags in pages, digests, manifests, blobs (OCI distribution specification v1.1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import BinaryIO
from urllib.parse import quote

import httpx

from reconcile.net.client import Client
from reconcile.net.errors import DEADLINE as DEADLINE_TEXT
from reconcile.net.errors import ConnectFailed, NetworkError, NetworkTimedOut, TlsFailed
from reconcile.net.guard import BODY_LIMIT
from reconcile.net.retry import DEADLINE, RetryPolicy, retry_after
from reconcile.ports.clock import Clock, SystemClock
from reconcile.redact import redact, redact_url
from reconcile.registry.auth import CredentialSource, RegistryAuth
from reconcile.registry.download import write_checked
from reconcile.registry.errors import BadAnswer, DeadlinePassed, RegistryError, StatusError, Unreachable
from reconcile.registry.keychain import Credential
from reconcile.registry.manifest import ACCEPT, OCI_INDEX, Descriptor, Manifest, check_digest, parse_manifest
from reconcile.registry.memory import Memory
from reconcile.registry.names import Repository, is_digest
from reconcile.registry.tags import TagLimits, TagPages, digest_of_pages, next_page, parse_page

HEAD_START = 0.3
"""Seconds that https gets before http is tried beside it, where http is permitted."""

MANIFEST_LIMIT = 4 * 1024 * 1024
"""Bytes of a manifest; the specification asks registries to take at least this much and no client needs more."""

_PERMANENT = frozenset({"NAME_INVALID", "NAME_UNKNOWN", "DENIED", "UNAUTHORIZED"})


@dataclass
class _Progress:
    """The request under way, for the text of a passed deadline."""

    method: str = "GET"
    url: str = ""
    deadline: float = 0.0


class RegistryClient:
    """One registry host, asked with one credential, one trust and one proxy; keeps connections and tokens.

    Every method raises `RegistryError` and its kinds, and `ReconcileError` of the credential source.

    Args:
        make_http: makes the HTTP client; called when the first request is made and again after `retire`.
        source: gives the credential, or None for anonymous access.
        insecure: permits plain HTTP for any host.
        memory: tokens and facts, shared among clients.
        limits: bounds of tag lists.
        timeout: seconds for one whole operation when the caller names none.
        clock: time.
    """

    def __init__(
        self,
        make_http: Callable[[], Client],
        source: CredentialSource,
        *,
        insecure: bool = False,
        memory: Memory | None = None,
        limits: TagLimits | None = None,
        timeout: float = 300.0,
        clock: Clock | None = None,
    ) -> None:
        self._make_http = make_http
        self._give = source
        self._secrets: tuple[str, ...] = ()
        self._insecure = insecure
        self._memory = memory or Memory()
        self._limits = limits or TagLimits()
        self._timeout = timeout
        self._clock = clock or SystemClock()
        self._http: Client | None = None
        self._active = 0
        self._retired = False
        self._discovering = asyncio.Lock()

    async def list_tags(
        self, repository: Repository, previous: TagPages | None = None, *, timeout: float | None = None
    ) -> TagPages:
        """All tags of `repository`, page after page to the end.

        When the bytes of all pages equal those behind `previous`, nothing is parsed and `previous` comes back marked `unchanged`.
        A page size that the registry refuses with a 400 is halved, and remembered for the host.

        Args:
            repository: what to list.
            previous: the list read before, if any. Only its digest is looked at, so it may be kept without its tags.
            timeout: seconds for the whole.
        """
        async with self._operation(timeout) as progress:
            pages, types, urls = await self._pages(repository, progress)
            digest = digest_of_pages(pages)
            if previous is not None and previous.digest == digest:
                return replace(previous, unchanged=True)
            tags: list[str] = []
            dropped = 0
            count, size = len(pages), sum(map(len, pages))
            for index in range(count):
                found, bad = parse_page(pages[index], f"GET {urls[index]}", types[index])
                pages[index] = b""  # the bytes are not needed beside their tags
                if tags:
                    tags += found
                else:
                    tags = found
                dropped += bad
                if len(tags) > self._limits.tags:
                    raise BadAnswer(f"GET {urls[0]}: the tag list is longer than the limit of {self._limits.tags} tags")
                await asyncio.sleep(0)  # let others run between pages
            return TagPages(digest, tuple(tags), count, size, dropped)

    async def digest(self, repository: Repository, tag: str, *, timeout: float | None = None) -> str:
        """The digest that `tag` points to now; for a multi-platform image that of its index.

        Asked by HEAD. A registry that does not answer HEAD, or without the digest header, is asked by GET and the body is hashed.
        """
        async with self._operation(timeout) as progress:
            response = await self._manifest(repository, tag, "HEAD", progress)
            if response.status_code == 200:
                announced = response.headers.get("docker-content-digest", "")
                if is_digest(announced):
                    return str(announced)
            elif response.status_code not in {405, 501}:
                raise _status_error(response)
            manifest = await self._read_manifest(repository, tag, progress)
            return manifest.digest

    async def manifest(self, repository: Repository, reference: str, *, timeout: float | None = None) -> Manifest:
        """The manifest or index at `reference` (a tag or a digest), its bytes checked against the digest.

        Raises:
            DigestMismatch: the bytes are not those of the digest asked for, or of the one the registry announced.
        """
        async with self._operation(timeout) as progress:
            return await self._read_manifest(repository, reference, progress)

    async def blob(self, repository: Repository, digest: str, *, limit: int, timeout: float | None = None) -> bytes:
        """The content of a small blob, at most `limit` bytes, checked against its digest."""
        async with self._operation(timeout) as progress:
            path = f"/v2/{repository.path}/blobs/{quote(digest, safe=':')}"
            response = await self._get(repository, path, progress, extensions={BODY_LIMIT: limit})
            if response.status_code != 200:
                raise _status_error(response)
            check_digest(response.content, digest, f"GET {_shown(response.request.url)}")
            return response.content

    async def download(
        self, repository: Repository, digest: str, out: BinaryIO, *, limit: int, timeout: float | None = None
    ) -> int:
        """Write the content of a blob to `out`, piece by piece, and check it against its digest at the end; its bytes.

        On an error `out` holds a part that nobody may use. Memory does not grow with the blob.

        Args:
            repository: where the blob is.
            digest: which blob.
            out: a file; written to in a thread.
            limit: bytes that the blob may have.
            timeout: seconds for the whole.

        Raises:
            DigestMismatch: the bytes are not those of the digest.
        """
        async with self._operation(timeout) as progress:
            path = f"/v2/{repository.path}/blobs/{quote(digest, safe=':')}"
            headers = {"Accept-Encoding": "identity"}  # the digest is of the bytes as stored; most blobs are packed already
            response = await self._get(repository, path, progress, headers=headers, extensions={BODY_LIMIT: limit}, stream=True)
            try:
                if response.status_code != 200:
                    await response.aread()
                    raise _status_error(response)
                return await write_checked(response.aiter_raw(), out, digest, f"GET {_shown(response.request.url)}")
            finally:
                await response.aclose()

    async def referrers(self, repository: Repository, digest: str, *, timeout: float | None = None) -> tuple[Descriptor, ...]:
        """The manifests that say they are about `digest` (OCI distribution specification 1.1, listing referrers).

        A registry without that endpoint is asked for the tag that the specification puts in its place; none means no referrers.
        Pages after the first are not followed: the first one already holds thousands.
        """
        async with self._operation(timeout) as progress:
            path = f"/v2/{repository.path}/referrers/{quote(digest, safe=':')}"
            extensions = {BODY_LIMIT: MANIFEST_LIMIT}
            response = await self._get(repository, path, progress, headers={"Accept": OCI_INDEX}, extensions=extensions)
            if response.status_code == 200:
                return parse_manifest(response.content, OCI_INDEX, f"GET {_shown(response.request.url)}").images
            if response.status_code not in {400, 404, 405, 501}:
                raise _status_error(response)
            try:
                return (await self._read_manifest(repository, digest.replace(":", "-"), progress)).images
            except StatusError as error:
                if error.status != 404:
                    raise
                return ()

    async def retire(self) -> None:
        """Close the connections as soon as no operation is under way; later operations open them anew and close them again."""
        self._retired = True
        await self._close_when_idle()

    async def _source(self) -> Credential | None:
        found = await self._give()
        self._secrets = (found.password, found.identity_token, found.registry_token) if found is not None else ()
        return found

    async def _close_when_idle(self) -> None:
        if self._retired and not self._active and self._http is not None:
            http, self._http = self._http, None
            await http.aclose()

    @asynccontextmanager
    async def _operation(self, timeout: float | None) -> AsyncIterator[_Progress]:
        seconds = self._timeout if timeout is None else timeout
        progress = _Progress(deadline=self._clock.monotonic() + seconds)
        self._active += 1
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                yield progress
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlinePassed([NetworkTimedOut(progress.method, progress.url, DEADLINE_TEXT, temporary=True)]) from error
        except NetworkError as error:
            raise Unreachable([error]) from error
        except RegistryError as error:
            # Some servers repeat in their complaint what they were shown.
            error.args = tuple(redact(text, self._secrets) if isinstance(text, str) else text for text in error.args)
            raise
        finally:
            self._active -= 1
            await self._close_when_idle()

    async def _pages(self, repository: Repository, progress: _Progress) -> tuple[list[bytes], list[str], list[str]]:
        pages: list[bytes] = []
        types: list[str] = []
        urls: list[str] = []
        seen: set[str] = set()
        total = 0
        response = await self._first_page(repository, progress)
        while True:
            where = _shown(response.request.url)
            pages.append(response.content)
            types.append(response.headers.get("content-type", ""))
            urls.append(where)
            total += len(response.content)
            asked = httpx.URL(progress.url)
            seen.add(str(asked))
            following = next_page(response.headers.get_list("link"), asked, f"GET {where}")
            if following is None:
                return pages, types, urls
            if str(following) in seen:
                raise BadAnswer(f"GET {where}: the link to the next page leads back to {_shown(following)}")
            if len(pages) >= self._limits.pages or total > self._limits.total_bytes:
                raise BadAnswer(f"GET {where}: the tag list is larger than its limit ({len(pages)} pages, {total} bytes so far)")
            response = await self._send(repository, "GET", str(following), progress, {BODY_LIMIT: self._limits.page_bytes})
            if response.status_code != 200:
                raise _status_error(response)

    async def _first_page(self, repository: Repository, progress: _Progress) -> httpx.Response:
        hosts = self._memory.hosts
        size = hosts.page_size(repository.registry, self._limits.page_size)
        refusal: StatusError | None = None
        while True:
            path = f"/v2/{repository.path}/tags/list?n={size}"
            response = await self._get(repository, path, progress, extensions={BODY_LIMIT: self._limits.page_bytes})
            if response.status_code == 200:
                if refusal is not None:
                    hosts.learn_page_size(repository.registry, size)
                return response
            error = _status_error(response)
            refusal = refusal or error
            if error.status != 400 or size // 2 < self._limits.smallest_page or not _PERMANENT.isdisjoint(error.codes):
                raise refusal if error.status == 400 else error
            size //= 2

    async def _manifest(self, repository: Repository, reference: str, method: str, progress: _Progress) -> httpx.Response:
        path = f"/v2/{repository.path}/manifests/{quote(reference, safe=':')}"
        extensions = {BODY_LIMIT: MANIFEST_LIMIT}
        return await self._get(repository, path, progress, method=method, headers={"Accept": ACCEPT}, extensions=extensions)

    async def _read_manifest(self, repository: Repository, reference: str, progress: _Progress) -> Manifest:
        response = await self._manifest(repository, reference, "GET", progress)
        if response.status_code != 200:
            raise _status_error(response)
        where = f"GET {_shown(response.request.url)}"
        announced = response.headers.get("docker-content-digest", "")
        wanted = [digest for digest in (reference, announced) if is_digest(digest)]
        for digest in wanted:
            check_digest(response.content, digest, where)
        manifest = parse_manifest(response.content, response.headers.get("content-type", ""), where)
        return replace(manifest, digest=wanted[0]) if wanted else manifest

    async def _get(
        self,
        repository: Repository,
        path: str,
        progress: _Progress,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        extensions: Mapping[str, object] | None = None,
        stream: bool = False,
    ) -> httpx.Response:
        """Ask for a path at the right scheme; a remembered scheme that fails to connect is looked for again, once.

        With `stream` the body is left for the caller to read and close.
        """
        send = partial(self._send, repository, method, progress=progress, extensions=extensions, headers=headers, stream=stream)
        registry = repository.registry
        schemes = repository.schemes(self._insecure)
        if len(schemes) == 1:
            return await send(f"{schemes[0]}://{registry}{path}")
        known = self._memory.hosts.scheme(registry, self._clock.monotonic())
        scheme = known or await self._discover(repository, schemes, progress)
        try:
            return await send(f"{scheme}://{registry}{path}")
        except (ConnectFailed, TlsFailed):
            self._memory.hosts.learn_scheme(registry, None, self._clock.monotonic())
            if known is None:
                raise
        scheme = await self._discover(repository, schemes, progress)
        return await send(f"{scheme}://{registry}{path}")

    async def _send(
        self,
        repository: Repository,
        method: str,
        url: str,
        progress: _Progress,
        extensions: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
    ) -> httpx.Response:
        http = self._http
        if http is None:
            http = self._http = self._make_http()
        try:
            request = http.build_request(
                method, url, headers=dict(headers or {}), extensions={DEADLINE: progress.deadline, **(extensions or {})}
            )
        except httpx.InvalidURL as error:
            raise BadAnswer(f"{method} {redact_url(url)}: not a URL") from error
        progress.method, progress.url = method, str(request.url)
        auth = RegistryAuth(repository.scope, self._source, self._memory.tokens, self._memory.challenges)
        return await http.send(request, auth=auth, stream=stream)

    async def _discover(self, repository: Repository, schemes: tuple[str, ...], progress: _Progress) -> str:
        """The scheme that answers `/v2/`: https first, http beside it after `HEAD_START` or when https fails."""
        registry, hosts = repository.registry, self._memory.hosts
        async with self._discovering:
            known = hosts.scheme(registry, self._clock.monotonic())
            if known is not None:
                return known
            scheme = await self._race(repository, schemes, progress)
            hosts.learn_scheme(registry, scheme, self._clock.monotonic())
            return scheme

    async def _race(self, repository: Repository, schemes: tuple[str, ...], progress: _Progress) -> str:
        tasks: list[asyncio.Task[None]] = []
        failures: dict[int, RegistryError] = {}
        try:
            for index, scheme in enumerate(schemes):
                tasks.append(asyncio.create_task(self._ping(repository, scheme, progress), name=f"ping {scheme}"))
                pending = {task for task in tasks if not task.done()}
                last = index == len(schemes) - 1
                while pending:
                    done, pending = await asyncio.wait(
                        pending, timeout=None if last else HEAD_START, return_when=asyncio.FIRST_COMPLETED
                    )
                    if not done:
                        break
                    for task in done:
                        position = tasks.index(task)
                        failure = _failure(task)
                        if failure is None:
                            return schemes[position]
                        failures[position] = failure
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise Unreachable([failures[position] for position in sorted(failures)])

    async def _ping(self, repository: Repository, scheme: str, progress: _Progress) -> None:
        url = f"{scheme}://{repository.registry}/v2/"
        http = self._http
        if http is None:
            http = self._http = self._make_http()
        request = http.build_request("GET", url, extensions={DEADLINE: progress.deadline, BODY_LIMIT: 1024 * 1024})
        progress.method, progress.url = "GET", url
        response = await http.send(request, follow_redirects=False)
        if response.status_code not in {200, 401}:
            raise _status_error(response)


def _failure(task: asyncio.Task[None]) -> RegistryError | None:
    error = task.exception()
    if error is None or isinstance(error, RegistryError):
        return error
    if isinstance(error, NetworkError):
        return Unreachable([error])
    raise error


def _status_error(response: httpx.Response) -> StatusError:
    body = b""
    with suppress(httpx.ResponseNotRead):
        body = response.content
    return StatusError(
        response.request.method,
        str(response.request.url),
        response.status_code,
        body,
        response.headers.get("content-type", ""),
        _pause_note(response),
    )


def _pause_note(response: httpx.Response) -> str:
    """What to add to an error after which nobody waited as long as the registry asked."""
    seconds = retry_after(response.headers, datetime.now(UTC))
    if response.status_code not in {429, 503} or seconds is None or seconds <= RetryPolicy.longest_wait:
        return ""
    return f" (the registry asks to wait {seconds:.0f}s)"


def _shown(url: httpx.URL) -> str:
    return redact_url(str(url))
