"""Splunk Observability Cloud (SignalFx) as a judge: a SignalFlow computation over `POST /v2/signalflow/execute`.

The answer is a stream of Server-Sent Events (dev.splunk.com, "SignalFlow API", "Stream messages reference"). The same computation
may be run over a WebSocket, which only pays where many computations share one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

import httpx

from canary.metrics.backend import SHOWN, WINDOW, Backend, number, rows, seconds, secret
from canary.metrics.base import NoValues, ProviderConfig, Sample
from reconcile.errors import Invalid, ReconcileError

_SCHEMES: Final = {"ws": "http", "wss": "https"}


class Splunk:
    """The realm at `address`, with the token `sf_token_key` of the Secret. A `Provider`.

    The address is that of the API or of the stream (`https://api.<realm>.signalfx.com`, `wss://stream.<realm>.signalfx.com`); one
    is made from the other. As in Flagger the computation runs over the last ten intervals, it must publish one time series, and
    that one's last value counts.

    Raises:
        Invalid: The address or the Secret cannot be used.
    """

    def __init__(self, config: ProviderConfig) -> None:
        if not config.address:
            raise Invalid(f"{config.type} endpoint is not set")
        keys = {"X-SF-Token": secret(config, "sf_token_key")}
        self._stream = Backend(config, _place(config.address, "api", "stream"), keys)
        self._api = Backend(config, _place(config.address, "stream", "api"), keys)

    async def query(self, text: str, interval: str, now: datetime) -> Sample:
        """The last value of the one time series that a program publishes."""
        stop = int(now.timestamp() * 1000)
        start = stop - int(WINDOW * seconds(interval) * 1000)
        params = {"start": str(start), "stop": str(stop), "immediate": "true"}
        headers = {"Content-Type": "text/plain", "Accept": "text/event-stream"}
        program = text.encode()
        values: list[float] = []
        series: set[str] = set()
        try:
            async with self._stream.stream(
                "POST", "/v2/signalflow/execute", params=params, headers=headers, content=program
            ) as response:
                async for event in self._events(response):
                    for point in rows(event, "data"):
                        found = number(point.get("value")) if isinstance(point, dict) else None
                        if found is not None:
                            values.append(found)
                            series.add(str(point.get("tsId")))
        except ReconcileError as error:
            raise ReconcileError(f"error executing query: {error}") from error
        if not values:
            raise NoValues
        if len(series) > 1:
            raise ReconcileError("invalid response: query returned multiple values")
        return Sample(values[-1], len(values))

    async def online(self) -> None:
        """Raises ReconcileError unless the API takes the token."""
        await self._api.ask("GET", "/v2/metric", params={"limit": "1"})

    async def _events(self, response: httpx.Response) -> AsyncIterator[Any]:
        """The data messages of a computation, until it has ended; raises ReconcileError when that is not well."""
        async for kind, text in _messages(response):
            if kind not in {"data", "control-message", "error"}:
                continue
            found = self._stream.read(text.encode())
            if kind == "data":
                yield found
                continue
            event = found.get("event") if isinstance(found, dict) else None
            if event == "END_OF_CHANNEL":
                return
            if kind == "error" or event == "CHANNEL_ABORT":
                raise ReconcileError(f"the computation failed: {self._stream.clean(' '.join(text.split()))[:SHOWN]}")
        raise ReconcileError("request failed: the stream ended before the computation: unexpected EOF")


async def _messages(response: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """Kind and data of Server-Sent Events (WHATWG HTML, "Parsing an event stream")."""
    kind = ""
    data: list[str] = []
    async for line in response.aiter_lines():
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield kind, "\n".join(data)
            kind, data = "", []
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)


def _place(address: str, other: str, wanted: str) -> str:
    """The address over HTTP, with `wanted` where its host begins with the label `other`."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return address
    first, dot, rest = url.host.partition(".")
    host = f"{wanted}{dot}{rest}" if first == other and dot else url.host
    return str(url.copy_with(scheme=_SCHEMES.get(url.scheme, url.scheme), host=host))
