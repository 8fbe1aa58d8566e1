"""What load is put on what: one description, whichever words it was asked for in, with its limits. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import httpx

from canary.loadtester.payload import Refused
from reconcile.api.duration import format_duration, parse_duration
from reconcile.redact import redact_url
from reconcile.regexp import Regexp, RegexpError

MAX_CONCURRENCY = 200
"""Requests that one load may have under way at a time."""
MAX_RATE = 5_000.0
"""Requests a second of one load."""
MAX_REQUESTS = 10_000_000
MAX_HEADERS, MAX_HEADER_BYTES = 64, 16 * 1024
REQUEST_TIMEOUT = 20.0
"""Seconds for one request where nothing else is said, as hey has it."""
DEFAULT_DURATION, DEFAULT_RATE = 60.0, 10.0
"""Of a task of type `http` that does not say."""

Headers = tuple[tuple[str, str], ...]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})


@dataclass(frozen=True, slots=True)
class Budget:
    """How many requests may go wrong: a number, or a share of all of them."""

    count: int = 0
    share: float = 0.0

    def allows(self, errors: int, requests: int) -> bool:
        """Whether so many of so many are few enough."""
        return errors <= max(self.count, self.share * requests)


NONE, ANY = Budget(), Budget(share=1.0)


@dataclass(frozen=True, slots=True)
class Load:
    """Requests to be made.

    Attributes:
        url: Whole, http or https.
        headers: As they are sent; `Host` is also the name that TLS asks for.
        concurrency: Requests under way at a time, at most.
        rate: Requests a second in total; 0 for as fast as answers come.
        requests: How many; 0 for as many as fit into `seconds`.
        seconds: For how long; 0 for until `requests` are done.
        timeout: Seconds for one request; 0 for no limit but that of the task.
        keep_alive: Whether connections are used again.
        check_tls: Whether certificates are checked.
        expect: Statuses that are right, a regular expression for the whole of one; all others are errors, as is no answer.
        budget: Errors that the load may have and still succeed.
        shows_body: Whether the output is what the server answered (curl), not a summary.
    """

    url: str
    method: str = "GET"
    headers: Headers = ()
    body: bytes = field(default=b"", repr=False)
    concurrency: int = 1
    rate: float = 0.0
    requests: int = 0
    seconds: float = 0.0
    timeout: float = REQUEST_TIMEOUT
    keep_alive: bool = True
    check_tls: bool = True
    expect: str = "[123].."
    budget: Budget = ANY
    shows_body: bool = False

    def within(self, longest: float) -> Load:
        """The same load, ended after `longest` seconds at the latest.

        Raises:
            Refused: The load is above a limit or cannot be sent at all; the text says what and why.
        """
        if self.concurrency > MAX_CONCURRENCY:
            raise Refused(400, f"{self.concurrency} requests at a time are above the limit of {MAX_CONCURRENCY}")
        if self.rate > MAX_RATE:
            raise Refused(400, f"{self.rate:g} requests a second in total are above the limit of {MAX_RATE:g}")
        if self.requests > MAX_REQUESTS:
            raise Refused(400, f"{self.requests} requests are above the limit of {MAX_REQUESTS}")
        _check_url(self.url)
        _check_headers(self.headers)
        if not _TOKEN.fullmatch(self.method):
            raise Refused(400, f"{self.method[:40]!r} is not an HTTP method")
        try:
            Regexp(self.expect)
        except RegexpError as error:
            raise Refused(400, f"expect: {error}") from error
        return replace(
            self,
            seconds=min(self.seconds or longest, longest),
            timeout=min(self.timeout or longest, longest),
        )


def http_load(metadata: Mapping[str, str]) -> Load:
    """The load that the metadata of a task of type `http` describes; raises Refused naming the key that cannot be read.

    Keys: `url`, `method`, `header.NAME`, `body`, `rate`, `concurrency`, `duration`, `requests`, `timeout`, `insecure`, `expect`,
    `errorBudget`.
    """
    if not metadata.get("url"):
        raise Refused(400, "url not found in metadata")
    headers = tuple((key.removeprefix("header."), value) for key, value in metadata.items() if key.startswith("header."))
    requests = whole(metadata.get("requests", "0"), "requests", least=0)
    return Load(
        url=metadata["url"],
        method=metadata.get("method", "GET").upper(),
        headers=headers,
        body=metadata.get("body", "").encode("utf-8", "replace"),
        concurrency=whole(metadata.get("concurrency", "1"), "concurrency"),
        rate=number(metadata.get("rate", f"{DEFAULT_RATE}"), "rate"),
        requests=requests,
        seconds=duration(metadata["duration"], "duration") if "duration" in metadata else 0.0 if requests else DEFAULT_DURATION,
        timeout=duration(metadata.get("timeout", "20s"), "timeout"),
        check_tls=metadata.get("insecure") != "true",
        expect=metadata.get("expect", "[123].."),
        budget=_budget(metadata.get("errorBudget", "0")),
    )


def whole(text: str, what: str, *, least: int = 1) -> int:
    """A whole number; raises Refused."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 12 and int(text) >= least):
        raise Refused(400, f"{what}: {text[:40]!r} is not a whole number from {least}")
    return int(text)


def number(text: str, what: str) -> float:
    """A number from 0; raises Refused."""
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{0,9})?", text):
        raise Refused(400, f"{what}: {text[:40]!r} is not a number from 0")
    return float(text)


def duration(text: str, what: str) -> float:
    """Seconds in a Go duration above 0; raises Refused."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise Refused(400, f"{what}: {error}") from error
    if seconds <= 0:
        raise Refused(400, f"{what}: {format_duration(seconds)} is not above 0")
    return seconds


def _budget(text: str) -> Budget:
    if text.endswith("%"):
        share = number(text.removesuffix("%"), "errorBudget") / 100
        return Budget(share=min(share, 1.0))
    return Budget(count=whole(text, "errorBudget", least=0))


def _check_url(text: str) -> None:
    try:
        url = httpx.URL(text)
        port = url.port
    except (httpx.InvalidURL, ValueError) as error:
        raise Refused(400, f"{redact_url(text)[:200]!r} is not a URL: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host or not (port is None or 0 < port < 65536):
        raise Refused(400, f"{redact_url(text)[:200]!r} is not a URL such as http://my-app.example.com/")


def _check_headers(headers: Headers) -> None:
    if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        raise Refused(400, f"more than {MAX_HEADERS} headers, or more than {MAX_HEADER_BYTES} characters of them")
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or any(c in value for c in "\r\n\0"):
            raise Refused(400, f"the header {name[:40]!r} cannot be sent")
        if name.lower() in _FRAMING:
            raise Refused(400, f"the header {name} is not yours to set: it says where a request ends")
