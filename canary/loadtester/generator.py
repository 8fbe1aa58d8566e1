"""The load generator: requests over HTTP/1.1 at a fixed rate, whatever the answers are like.

The loop is open: request number k is due k/rate seconds after the start, not some time after the last answer, so a server that
slows down does not lower its own load. When all workers are busy a request begins late, and that is counted and shown. Never
repeated: a failed request is a measurement. Redirects are not followed: a redirect is an answer. Proxies of the environment are
for others: load goes straight to where it is meant for.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import ssl
import sys
from collections.abc import Iterator

import httpx

from canary.loadtester.load import MAX_RATE, Load
from canary.loadtester.measures import LoadMeasures
from canary.loadtester.summary import Summary
from reconcile.net.client import Client, Limits, make_client
from reconcile.net.errors import NetworkError
from reconcile.net.guard import BODY_LIMIT
from reconcile.net.proxy import ProxyEnvironment
from reconcile.net.retry import RetryPolicy
from reconcile.ports.clock import Clock
from reconcile.regexp import Regexp

MAX_ANSWER = 1024 * 1024
"""Bytes that are read of one answer; the connection of a longer one is closed."""
SAMPLE = 64 * 1024
"""Bytes that are kept of the last answer of a load that shows it."""
LATE = 0.05
"""Seconds behind its time from which a request counts as late: what a busy event loop costs is not worth a word."""


class _Straight(httpx.AsyncBaseTransport):
    """Takes from answers where they would lead to: nobody follows, so nobody need judge."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`."""
        response = await self._inner.handle_async_request(request)
        response.headers.pop("location", None)
        return response

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()


async def generate(load: Load, measures: LoadMeasures, clock: Clock) -> Summary:
    """Put a load on its server.

    Args:
        load: As `Load.within` gives it.
        measures: Where every request is counted at once.
        clock: Time for the rate.

    Returns:
        What came of it. No failure of a request is an error here.
    """
    return await _Run(load, measures, clock).go()


def succeeded(load: Load, summary: Summary) -> bool:
    """Whether so many requests went right as the load asks for, and at least one was made."""
    return summary.requests > 0 and load.budget.allows(summary.errors, summary.requests)


def planned(load: Load) -> int | None:
    """How many requests a load with a rate or a number has; None for as many as are possible."""
    if not load.rate:
        return load.requests or None
    in_time = math.ceil(load.rate * load.seconds)
    return min(load.requests, in_time) if load.requests else in_time


class _Run:
    """One load while it is put on."""

    def __init__(self, load: Load, measures: LoadMeasures, clock: Clock) -> None:
        self._load, self._measures, self._clock = load, measures, clock
        self._pace = load.rate or MAX_RATE
        self._planned = planned(load)
        self._tickets: Iterator[int] = itertools.count() if self._planned is None else iter(range(self._planned))
        self._right = Regexp(f"^(?:{load.expect})$")
        self._tls = _tls(load)
        self._began = clock.monotonic()
        self.summary = Summary()

    async def go(self) -> Summary:
        workers = self._load.concurrency
        if self._planned is not None:
            workers = min(workers, max(1, self._planned))
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._work(), name=f"load worker {number}")
        summary = self.summary
        summary.seconds = self._clock.monotonic() - self._began
        if self._planned is not None:
            summary.missed = self._planned - summary.requests
        return summary

    async def _work(self) -> None:
        # One connection each: a pool that all share costs time that grows with the square of its size.
        async with _client(self._load, self._tls, self._clock) as client:
            await self._take(client, _request(self._load, client))

    async def _take(self, client: Client, request: httpx.Request) -> None:
        """Take tickets until there are none, or the time is over."""
        for ticket in self._tickets:
            due = self._began + ticket / self._pace
            behind = self._clock.monotonic() - due
            if behind < 0:
                if due - self._began >= self._load.seconds:
                    return
                await self._clock.sleep(-behind)
            elif due + behind - self._began >= self._load.seconds:
                return
            elif behind >= LATE and self._load.rate:
                self.summary.late += 1
                self.summary.late_seconds += behind
                self._measures.began_late(behind)
            await self._one(client, request)

    async def _one(self, client: Client, request: httpx.Request) -> None:
        summary, began = self.summary, self._clock.monotonic()
        summary.requests += 1
        try:
            async with asyncio.timeout(self._load.timeout):
                status = await self._exchange(client, request)
        except TimeoutError:
            self._without_answer(f"no answer within {self._load.timeout:g}s")
        except NetworkError as error:
            self._without_answer(error.detail)
        else:
            seconds = self._clock.monotonic() - began
            summary.statuses[status] += 1
            summary.errors += not self._right.matches(str(status))
            summary.latencies.add(seconds)
            self._measures.answered(status, seconds)

    def _without_answer(self, text: str) -> None:
        self.summary.failed(text)
        self._measures.unanswered()

    async def _exchange(self, client: Client, request: httpx.Request) -> int:
        """Send the request once and read the answer; gives its status."""
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            size, sample = 0, bytearray()
            async for piece in response.aiter_raw():
                size += len(piece)
                if self._load.shows_body and len(sample) < SAMPLE:
                    sample += piece[: SAMPLE - len(sample)]
                if size >= MAX_ANSWER:
                    break
        finally:
            await response.aclose()
        self.summary.received += size
        if self._load.shows_body:
            self.summary.sample = bytes(sample)
        return response.status_code


def _tls(load: Load) -> ssl.SSLContext:
    checks = load.check_tls and load.url.lower().startswith("https:")
    # Authorities take tens of milliseconds to load: only for those whose certificates are checked.
    tls = ssl.create_default_context() if checks else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not load.check_tls:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls


def _client(load: Load, tls: ssl.SSLContext, clock: Clock) -> Client:
    """A client with one connection."""
    return make_client(
        tls=tls,
        limits=Limits(connections=1, idle_connections=1 if load.keep_alive else 0),
        retry=RetryPolicy(attempts=1),
        clock=clock,
        around=_Straight,
        environment=ProxyEnvironment(),
    )


def _request(load: Load, client: Client) -> httpx.Request:
    """The request of a load; a worker sends the same one again and again."""
    headers = [(name.encode("ascii"), value.encode("utf-8", "replace")) for name, value in load.headers]
    if not load.keep_alive:
        headers.append((b"Connection", b"close"))
    extensions: dict[str, object] = {BODY_LIMIT: sys.maxsize}  # what is too long is left, where the client would refuse it
    host = next((value for name, value in load.headers if name.lower() == "host"), "")
    if host:
        extensions["sni_hostname"] = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    content = load.body or None
    return client.build_request(load.method, load.url, headers=headers, content=content, timeout=None, extensions=extensions)
