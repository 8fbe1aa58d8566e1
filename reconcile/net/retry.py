"""A transport around a transport: tries a request again when that is safe and may help."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from reconcile.net.errors import NetworkError
from reconcile.ports.clock import Clock, SystemClock

TEMPORARY_STATUSES = frozenset({408, 429, 499, 500, 502, 503, 504, 522})
"""Answers after which the same request is tried again (499 and 522 are what proxies answer for their own time-outs)."""

IDEMPOTENT = "imagebot.idempotent"
"""Request extension: true says that a POST may be repeated, as a token request may."""

DEADLINE = "imagebot.deadline"
"""Request extension: `Clock.monotonic()` after which nobody waits for the answer; no retry sleeps beyond it."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently.

    Attributes:
        attempts: requests in all, at least 1.
        waits: seconds before the second, third, … attempt; the last one repeats.
        jitter: share of the wait added at random, so that many clients do not come back together.
        longest_wait: seconds; a server that asks for more by `Retry-After` gets no further attempt now.
    """

    attempts: int = 3
    waits: tuple[float, ...] = (1.0, 3.0)
    jitter: float = 0.1
    longest_wait: float = 30.0

    def wait(self, attempt: int, luck: float) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1); `luck` is in 0..1."""
        base = self.waits[min(attempt, len(self.waits)) - 1] if self.waits else 0.0
        return base * (1.0 + self.jitter * luck)


class RetryTransport(httpx.AsyncBaseTransport):
    """Repeats GET, HEAD and requests marked `IDEMPOTENT` on temporary statuses and temporary network errors.

    The last answer or error is handed on as it came. `Retry-After` replaces the policy's wait.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        policy: RetryPolicy | None = None,
        clock: Clock | None = None,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._inner = inner
        self._policy = policy or RetryPolicy()
        self._clock = clock or SystemClock()
        self._luck = luck

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`, again where that may help."""
        repeatable = request.method in {"GET", "HEAD"} or bool(request.extensions.get(IDEMPOTENT))
        attempt = 1
        while True:
            last = attempt >= self._policy.attempts or not repeatable
            wait = self._policy.wait(attempt, self._luck())
            try:
                response = await self._inner.handle_async_request(request)
            except NetworkError as error:
                if last or not error.temporary or not self._in_time(request, wait):
                    raise
            else:
                if last or response.status_code not in TEMPORARY_STATUSES:
                    return response
                asked = retry_after(response.headers, self._clock.now())
                if asked is not None:
                    wait = asked
                if wait > self._policy.longest_wait or not self._in_time(request, wait):
                    return response
                await response.aclose()
            await self._clock.sleep(wait)
            attempt += 1

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    def _in_time(self, request: httpx.Request, wait: float) -> bool:
        deadline = request.extensions.get(DEADLINE)
        return deadline is None or self._clock.monotonic() + wait < float(deadline)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a `Retry-After` header asks to wait (RFC 9110 §10.2.3: seconds or a date), or None without a readable one."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])  # nine digits are 31 years; more would only overflow somebody's arithmetic
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
