"""InfluxDB as a judge: Flux by `POST /api/v2/query` (docs.influxdata.com, "InfluxDB v2 API" and "Annotated CSV")."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import orjson

from canary.metrics.backend import Backend, number, secret
from canary.metrics.base import NoValues, ProviderConfig, Sample
from reconcile.errors import ReconcileError

_PROBE: Final = "buckets() |> limit(n: 1)"
_DIALECT: Final = {"annotations": ["datatype", "default"], "delimiter": ",", "header": True}


class InfluxDB:
    """An InfluxDB 2 or later, or 1.8 with Flux, at `address`; `token` and `org` when there is a Secret. A `Provider`.

    As in Flagger the first record counts, it must be a float, and no record at all is the value 0.

    Raises:
        Invalid: The address or the Secret cannot be used.
    """

    def __init__(self, config: ProviderConfig) -> None:
        headers, self._params = {}, {}
        if config.credentials is not None:
            headers["Authorization"] = f"Token {secret(config, 'token', 'an authentication token')}"
            self._params["org"] = secret(config, "org", "an organisation")
        self._backend = Backend(config, config.address, headers)

    async def query(self, text: str, interval: str = "", now: datetime | None = None) -> Sample:  # noqa: ARG002
        """The value of the first record; 0, taken from nothing, without one."""
        try:
            found = await self._run(text)
        except NoValues:
            raise
        except ReconcileError as error:
            raise ReconcileError(f"error accessing influxdb query api: {error}") from error
        return Sample(0.0, 0) if found is None else Sample(found)

    async def online(self) -> None:
        """Raises ReconcileError unless InfluxDB runs a query of this organisation."""
        try:
            for _ in _records(await self._ask(_PROBE)):
                break
        except ReconcileError as error:
            raise ReconcileError(f"error accessing influxdb query api: {error}") from error

    async def _run(self, text: str) -> float | None:
        for types, names, row in _records(await self._ask(text)):
            if "_value" not in names[: len(row)]:
                raise ReconcileError("invalid response: the first record has no column _value")
            at = names.index("_value")
            if types[at : at + 1] != ["double"]:
                kind = types[at] if at < len(types) else "value of unknown type"
                raise ReconcileError(f"invalid response: the value is a {kind[:40]}, not a double: use toFloat()")
            found = number(row[at] or None)
            if found is None:
                raise NoValues
            return found
        return None

    async def _ask(self, text: str) -> str:
        headers = {"Accept": "application/csv", "Content-Type": "application/json"}
        content = orjson.dumps({"query": text, "type": "flux", "dialect": _DIALECT})
        body = await self._backend.ask("POST", "/api/v2/query", params=self._params, headers=headers, content=content)
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise ReconcileError("invalid response: not UTF-8 text") from None


def _records(text: str) -> Iterator[tuple[list[str], list[str], Sequence[str]]]:
    """The records of annotated CSV with the types and names of their columns; empty cells have their defaults.

    Raises:
        ReconcileError: It is something else, or tells of an error.
    """
    types: list[str] = []
    defaults: list[str] = []
    names: list[str] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), strict=True):
            if not any(row):
                types, defaults, names = [], [], []
            elif row[0].startswith("#"):
                names = []
                if row[0] == "#datatype":
                    types = row
                elif row[0] == "#default":
                    defaults = row
            elif not names:
                names = row
            elif "error" in names[:2]:
                raise ReconcileError(f"query error: {' '.join(filter(None, row))[:512]}")
            else:
                yield types, names, [cell or default for cell, default in zip(row, [*defaults, *[""] * len(row)], strict=False)]
    except csv.Error as error:
        raise ReconcileError(f"invalid response: {error}") from None
    if names and not types and "error" not in names[:2]:
        raise ReconcileError("invalid response: not annotated CSV")
