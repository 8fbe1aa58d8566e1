"""New Relic as a judge: the Insights query API (`GET /v1/accounts/<id>/query`, docs.newrelic.com, "Insights query API")."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from urllib.parse import quote

from canary.metrics.backend import Backend, rows, sample, seconds, secret
from canary.metrics.base import NoValues, ProviderConfig, Sample
from reconcile.errors import ReconcileError

ADDRESS: Final = "https://insights-api.newrelic.com"
_PROBE: Final = "SELECT * FROM Metric LIMIT 1"
_PROBED: Final = 60
"""Seconds that the probe looks back."""


class NewRelic:
    """The Insights API at `address`, or that of the US region. A `Provider`.

    The Secret has `newrelic_account_id` and `newrelic_query_key`. The query is NRQL without SINCE, which is added: one interval
    of the metric. It must give one number, under the name `result`.

    Raises:
        Invalid: The address or the Secret cannot be used.
    """

    def __init__(self, config: ProviderConfig) -> None:
        account = secret(config, "newrelic_account_id")
        self._path = f"/v1/accounts/{quote(account, safe='')}/query"
        self._backend = Backend(config, config.address or ADDRESS, {"X-Query-Key": secret(config, "newrelic_query_key")})

    async def query(self, text: str, interval: str, now: datetime) -> Sample:  # noqa: ARG002 - New Relic's time counts
        """The one result of NRQL over the last interval."""
        params = {"nrql": f"{text} SINCE {int(seconds(interval))} seconds ago"}
        results = rows(await self._backend.json("GET", self._path, params=params), "results")
        if not results:
            raise NoValues
        if len(results) > 1:
            raise ReconcileError("query returned multiple values")
        if not isinstance(results[0], dict) or "result" not in results[0]:
            raise ReconcileError("error unmarshaling result: the query gives no value with the name result")
        return sample([results[0]["result"]], 0)

    async def online(self) -> None:
        """Raises ReconcileError unless the key may query the account."""
        await self._backend.ask("GET", self._path, params={"nrql": f"{_PROBE} SINCE {_PROBED} seconds ago"})
