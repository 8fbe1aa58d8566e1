"""What providers over HTTP share: an address, credentials in headers, one deadline for each query, and errors without secrets.

The shared client does the rest: bounded bodies, no retries, no redirects (a key in a header of its own would go along).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import httpx
import orjson

from canary.metrics.base import NoValues, ProviderConfig, Sample
from reconcile.api.duration import parse_duration
from reconcile.errors import Invalid, ReconcileError, TimedOut
from reconcile.gotemplate.strconv import parse_float
from reconcile.net.errors import DEADLINE, NetworkError
from reconcile.redact import redact, redact_url

WINDOW: Final = 10
"""Intervals of the metric that a query of most providers looks back."""
SHOWN: Final = 512
"""Characters of an answer that an error text shows."""


class Refused(ReconcileError):
    """The backend answered with an error.

    Attributes:
        status: HTTP status.
        body: What it said; may not be shown as it is.
    """

    def __init__(self, status: int, text: str, body: bytes) -> None:
        super().__init__(text)
        self.status = status
        self.body = body


class Backend:
    """The HTTP API of one backend.

    Args:
        config: Of the provider: the client and the time limit.
        address: Base URL; user and password in it are sent as Basic.
        headers: Sent with each request; their values are secrets.
        hidden: More that no error text may show.

    Raises:
        Invalid: The address is no HTTP URL; in Flagger's words.
    """

    def __init__(
        self, config: ProviderConfig, address: str, headers: Mapping[str, str] | None = None, hidden: Sequence[str] = ()
    ) -> None:
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in {"http", "https"} or not url.host:
            raise Invalid(f"{config.type} address {redact_url(address)} is not a valid URL")
        self._headers = dict(headers or {})
        if url.userinfo and "Authorization" not in self._headers:
            self._headers["Authorization"] = basic(url.username, url.password)
        values = self._headers.values()
        self._hidden = (*hidden, url.password, *values, *(value.partition(" ")[2] for value in values))
        self._base = str(url.copy_with(username=None, password=None, query=None, fragment=None)).rstrip("/")
        self._config = config

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> bytes:
        """The body of a good answer.

        Raises:
            Refused: The answer is not 200.
            ReconcileError: There is no complete answer.
        """
        async with self.stream(method, path, params=params, headers=headers, content=content) as response:
            return await response.aread()

    async def json(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of a good answer; raises ReconcileError when there is none."""
        return self.read(await self.ask(method, path, **options))

    def read(self, body: bytes) -> Any:
        """JSON as data; raises ReconcileError."""
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ReconcileError(f"error unmarshaling result: {error}, '{self.shown(body)}'") from None

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """A good answer whose body has not been read; the deadline holds for that too. Raises what `ask` raises."""
        try:
            request = self._config.http().build_request(
                method,
                self._base + path,
                params=list(params.items() if isinstance(params, Mapping) else params) or None,  # an empty list empties the URL's
                headers={"Accept": "application/json", **self._headers, **(headers or {})},
                content=content,
                timeout=self._config.timeout,
            )
        except httpx.InvalidURL as error:  # a long query, above all
            raise Invalid(self.clean(f"the request cannot be sent: {error}")) from None
        shown = redact_url(str(request.url))
        try:
            async with deadline(self._config.timeout, f'{method.capitalize()} "{shown}"'):
                response = await self._config.http().send(request, stream=True, follow_redirects=False)
                try:
                    if response.status_code != HTTPStatus.OK:
                        raise self._refused(response, await response.aread())
                    yield response
                finally:
                    await response.aclose()
        except (NetworkError, TimedOut) as error:
            raise ReconcileError(self.clean(f"request failed: {error}")) from None

    def shown(self, body: bytes) -> str:
        """The beginning of a body for an error text."""
        return self.clean(body[: 8 * SHOWN].decode(errors="replace"))[:SHOWN]

    def clean(self, text: str) -> str:
        """A text without the credentials."""
        return redact(text, self._hidden)

    def _refused(self, response: httpx.Response, body: bytes) -> Refused:
        status = f"{response.status_code} {response.reason_phrase}".strip()
        said = self.shown(body)
        if response.is_redirect:
            said = f"redirects are not followed, this one leads to {self.clean(response.headers.get('location', ''))[:SHOWN]}"
        return Refused(response.status_code, f"error response: Status {status}: {said}", body)


@contextlib.asynccontextmanager
async def deadline(seconds: float, what: str) -> AsyncIterator[None]:
    """Everything in the block together may take this long; raises TimedOut, which names `what`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimedOut(f"{what}: {DEADLINE}") from None


def secret(config: ProviderConfig, key: str, what: str = "") -> str:
    """A value of the Secret, without the space around it, fit for a header.

    Raises:
        Invalid: There is none, in Flagger's words: `datadog credentials does not contain datadog_api_key`.
    """
    found = config.secret.get(key)
    if found is None:
        raise Invalid(f"{config.type} credentials does not contain {what or key}")
    try:
        text = found.decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise Invalid(f"{config.type} credentials have a {key} that is empty or not printable ASCII text")
    return text


def user_and_password(config: ProviderConfig) -> tuple[str, str]:
    """`username` and `password` of the Secret; raises Invalid, in Flagger's words."""
    found = []
    for key in ("username", "password"):
        if key not in config.secret:
            raise Invalid(f"{config.type} credentials does not contain a {key}")
        try:
            found.append(config.secret[key].decode())
        except UnicodeDecodeError:
            raise Invalid(f"{config.type} credentials have a {key} that is not UTF-8 text") from None
    return found[0], found[1]


def basic(username: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def seconds(interval: str) -> float:
    """The interval of a metric; raises Invalid, in Flagger's words, for an empty one too."""
    try:
        found = parse_duration(interval)
    except ValueError as error:
        raise Invalid(f"error parsing metric interval: {error}") from None
    if found <= 0:
        raise Invalid(f'error parsing metric interval: "{interval}" is not longer than 0')
    return found


def number(value: Any) -> float | None:
    """A value as JSON has it, a number or the words that stand for NaN and infinity; None for null and NaN.

    Raises:
        ReconcileError: It is something else.
    """
    if value is None:
        return None
    found = math.nan
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        found = parse_float(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        raise ReconcileError(f"error unmarshaling result: {str(value)[:40]!r} is not a number") from None
    return None if math.isnan(found) else found


def sample(values: Sequence[Any], which: int) -> Sample:
    """The first (0) or last (-1) of one series' values that is a number; raises NoValues when none is."""
    known = [found for found in map(number, values) if found is not None]
    if not known:
        raise NoValues
    return Sample(known[which], len(known))


def rows(found: Any, *path: str) -> list[Any]:
    """The list at the end of a path of names; empty where the path ends early, as Go's decoder leaves it.

    Raises:
        ReconcileError: Something else than an object or a list is there.
    """
    for name in path:
        if found is None:
            return []
        if not isinstance(found, dict):
            raise ReconcileError(f"error unmarshaling result: no object with '{name}'")
        found = found.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise ReconcileError(f"error unmarshaling result: {'.'.join(path) or 'the answer'} is not a list")
    return found
