"""Google Cloud Monitoring as a judge: MQL by `projects.timeSeries.query` (cloud.google.com, Cloud Monitoring API v3)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import orjson

from canary.metrics.backend import Backend, Refused, deadline, rows, sample, secret
from canary.metrics.base import NoValues, ProviderConfig, Sample
from reconcile.errors import ReconcileError

ENDPOINT: Final = "https://monitoring.googleapis.com"


class Stackdriver:
    """Google Cloud Monitoring. A `Provider`.

    The Secret has `project` and may have `serviceAccountKey`, else the identity of this process asks: what it is shown to is
    Google's endpoint, never an address of a template. The first value of the first point counts, of the first time series.

    Args:
        config: Of the provider.
        endpoint: Where Google is.

    Raises:
        Invalid: The Secret cannot be used.
    """

    def __init__(self, config: ProviderConfig, endpoint: str = ENDPOINT) -> None:
        project = secret(config, "project", "a project id")
        self._path = f"/v3/projects/{quote(project, safe='')}/timeSeries:query"
        self._key = config.secret.get("serviceAccountKey")
        self._config = config
        self._endpoint = endpoint

    async def query(self, text: str, interval: str = "", now: datetime | None = None) -> Sample:  # noqa: ARG002
        """The newest value of MQL: points come newest first."""
        try:
            found = await self._ask(text)
        except ReconcileError as error:
            raise ReconcileError(f"error requesting stackdriver: {error}") from error
        series = rows(found, "timeSeriesData")
        points = rows(series[0], "pointData") if series else []
        values = rows(points[0], "values") if points else []
        if not values:
            raise NoValues
        return Sample(sample([_value(values[0])], 0).value, len(points))

    async def online(self) -> None:
        """Raises ReconcileError unless Google finds fault with an empty query, and only with that."""
        try:
            await self._ask("")
        except Refused as error:
            if not _is_invalid_argument(error.body):
                raise ReconcileError(f"unexpected status code: {error}") from error
        except ReconcileError as error:
            raise ReconcileError(f"unexpected error: {error}") from error

    async def _ask(self, query: str) -> Any:
        async with deadline(self._config.timeout, f'Post "{self._endpoint}{self._path}"'):
            token = await self._config.clouds().google_token(self._key)
            backend = Backend(self._config, self._endpoint, {"Authorization": f"Bearer {token}"})
            headers = {"Content-Type": "application/json"}
            return await backend.json("POST", self._path, headers=headers, content=orjson.dumps({"query": query}))


def _value(found: Any) -> Any:
    """A TypedValue's number; distributions, texts and truths are none."""
    if isinstance(found, dict):
        for kind in ("doubleValue", "int64Value"):
            if kind in found:
                return found[kind]
    raise ReconcileError("error unmarshaling result: the first value is neither a double nor an integer")


def _is_invalid_argument(body: bytes) -> bool:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    error = found.get("error") if isinstance(found, dict) else None
    return isinstance(error, dict) and error.get("status") == "INVALID_ARGUMENT"
