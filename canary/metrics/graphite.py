"""Graphite as a judge: the render API (`GET /render`, graphite.readthedocs.io, "The Render URL API")."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl

from canary.metrics.backend import Backend, basic, rows, sample, user_and_password
from canary.metrics.base import NoValues, ProviderConfig, Sample
from reconcile.errors import Invalid, ReconcileError

FIELDS: Final = 100
"""Fields of one query."""

_SPACE: Final = re.compile(r"\s+")
_PROBE: Final = "target=test"


class Graphite:
    """A Graphite at `address`, with `username` and `password` when there is a Secret. A `Provider`.

    The query is what follows the question mark: `target=…&from=-5min`. Of all targets the last point that is not null counts.

    Raises:
        Invalid: The address or the Secret cannot be used.
    """

    def __init__(self, config: ProviderConfig) -> None:
        if config.credentials is None:
            self._backend = Backend(config, config.address)
            return
        user, password = user_and_password(config)
        self._backend = Backend(config, config.address, {"Authorization": basic(user, password)}, (password,))

    async def query(self, text: str, interval: str = "", now: datetime | None = None) -> Sample:  # noqa: ARG002
        """The last point of the last target that has one."""
        try:
            pairs = parse_qsl(_SPACE.sub(" ", text).strip(), keep_blank_values=True, max_num_fields=FIELDS)
        except ValueError:
            raise Invalid(f"the query has more than {FIELDS} fields") from None
        params = [(name, value) for name, value in pairs if name != "format"]
        values = []
        for target in rows(await self._backend.json("GET", "/render", params=[*params, ("format", "json")])):
            for point in rows(target, "datapoints"):
                if not isinstance(point, list) or len(point) != 2:
                    raise ReconcileError("error unmarshaling result: a data point is not a pair of value and time")
                values.append(point[0])
        return sample(values, -1)

    async def online(self) -> None:
        """Raises ReconcileError unless Graphite answers a query, be it with nothing."""
        try:
            await self.query(_PROBE)
        except NoValues:
            return
        except ReconcileError as error:
            raise ReconcileError(f"running query failed: {error}") from error
