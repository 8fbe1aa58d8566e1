"""Datadog as a judge: `GET /api/v1/query` of the Datadog API ("Query timeseries points", docs.datadoghq.com)."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from canary.metrics.backend import WINDOW, Backend, rows, sample, seconds, secret
from canary.metrics.base import NoValues, ProviderConfig, Sample
from reconcile.errors import ReconcileError

ADDRESS: Final = "https://api.datadoghq.com"


class Datadog:
    """Datadog's API at `address`, or that of its first site. A `Provider`.

    The Secret has `datadog_api_key` and `datadog_application_key`. As in Flagger the value that counts is the oldest point of the
    first series over the last ten intervals, since the newest bucket is hardly ever complete. Points without a value do not
    count.

    Raises:
        Invalid: The address or the Secret cannot be used.
    """

    def __init__(self, config: ProviderConfig) -> None:
        keys = {
            "DD-API-KEY": secret(config, "datadog_api_key"),
            "DD-APPLICATION-KEY": secret(config, "datadog_application_key"),
        }
        self._backend = Backend(config, config.address or ADDRESS, keys)

    async def query(self, text: str, interval: str, now: datetime) -> Sample:
        """The oldest point of the first series."""
        to = int(now.timestamp())
        since = to - int(WINDOW * seconds(interval))
        params = {"query": text, "from": str(since), "to": str(to)}
        found = await self._backend.json("GET", "/api/v1/query", params=params)
        if isinstance(found, dict) and found.get("status") == "error":
            raise ReconcileError(self._backend.clean(f"error response: {str(found.get('error'))[:512]}"))
        series = rows(found, "series")
        if not series:
            raise NoValues
        points = rows(series[0], "pointlist")
        if not all(isinstance(point, list) and len(point) > 1 for point in points):
            raise ReconcileError("error unmarshaling result: a point is not a pair of time and value")
        return sample([point[1] for point in points], 0)

    async def online(self) -> None:
        """Raises ReconcileError unless Datadog takes the API key."""
        await self._backend.ask("GET", "/api/v1/validate")
