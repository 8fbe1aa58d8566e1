"""Dynatrace as a judge: `GET /api/v2/metrics/query` ("Metrics API - GET metric data points", docs.dynatrace.com)."""

from __future__ import annotations

from datetime import datetime

from canary.metrics.backend import WINDOW, Backend, rows, sample, seconds, secret
from canary.metrics.base import NoValues, ProviderConfig, Sample
from reconcile.errors import Invalid


class Dynatrace:
    """The environment at `address`, with the token `dynatrace_token` of the Secret. A `Provider`.

    As in Flagger one aggregated point is asked for (`resolution=Inf`), and the last tuple of the first metric counts.

    Raises:
        Invalid: The address or the Secret cannot be used.
    """

    def __init__(self, config: ProviderConfig) -> None:
        if not config.address:
            raise Invalid("dynatrace endpoint is not set")
        self._backend = Backend(config, config.address, {"Authorization": f"Api-Token {secret(config, 'dynatrace_token')}"})

    async def query(self, text: str, interval: str, now: datetime) -> Sample:
        """The value of a metric selector over the last ten intervals."""
        to = int(now.timestamp()) * 1000
        since = to - int(WINDOW * seconds(interval) * 1000)
        params = {"metricSelector": text, "resolution": "Inf", "from": str(since), "to": str(to)}
        result = rows(await self._backend.json("GET", "/api/v2/metrics/query", params=params), "result")
        data = rows(result[0], "data") if result else []
        if not data:
            raise NoValues
        return sample(rows(data[-1], "values"), 0)

    async def online(self) -> None:
        """Raises ReconcileError unless the token may read metrics."""
        await self._backend.ask("GET", "/api/v2/metrics", params={"pageSize": "1"})
