"""The External Metrics API of Kubernetes as a judge (`external.metrics.k8s.io/v1beta1`, kubernetes/metrics).

Metrics that adapters serve for autoscalers, KEDA's among them: from the cluster itself, or straight from an adapter at `address`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode

from canary.metrics.backend import Backend, deadline, rows, secret
from canary.metrics.base import NoValues, ProviderConfig, Sample
from canary.metrics.quantity import parse_quantity
from reconcile.errors import Invalid, ReconcileError

API: Final = "/apis/external.metrics.k8s.io/v1beta1"
FORM: Final = "[<namespace>/]<metricName>[?labelSelector=<urlencoded label selectors>]"


class ExternalMetrics:
    """The cluster, or what is at `address`, which is shown the `token` of the Secret. A `Provider`.

    Our own token is for the cluster alone: it never goes to an address that a template names. Of several items the first counts.

    Raises:
        Invalid: The address or the Secret cannot be used, or there is no cluster.
    """

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        self._backend: Backend | None = None
        if config.address:
            headers = {"Authorization": f"Bearer {secret(config, 'token')}"} if "token" in config.secret else {}
            self._backend = Backend(config, config.address, headers)
        elif "token" in config.secret:
            raise Invalid("externalmetrics has a token, but no address to show it to")
        elif config.api is None:
            raise Invalid("Not in a kubernetes cluster: externalmetrics needs an address")

    async def query(self, text: str, interval: str = "", now: datetime | None = None) -> Sample:  # noqa: ARG002
        """The value of the first item of `[namespace/]metric[?labelSelector=…]`."""
        path = _path(text)
        try:
            found = await self._get(path)
        except ReconcileError as error:
            raise ReconcileError(f"error querying external metrics API: {error}") from error
        items = rows(found, "items")
        if not items:
            raise NoValues
        value = items[0].get("value") if isinstance(items[0], dict) else None
        try:
            return Sample(parse_quantity(value if isinstance(value, str) else str(value)), len(items))
        except ValueError as error:
            raise ReconcileError(f"error unmarshaling result: {error}") from None

    async def online(self) -> None:
        """Raises ReconcileError unless the API is served."""
        try:
            await self._get(API)
        except ReconcileError as error:
            raise ReconcileError(f"external metrics service unavailable: {error}") from error

    async def _get(self, path: str) -> Any:
        if self._backend is not None:
            return await self._backend.json("GET", path)
        assert self._config.api is not None  # noqa: S101 - the constructor looked
        async with deadline(self._config.timeout, f'Get "{path}"'):
            return await self._config.api(path)


def _path(query: str) -> str:
    """The path of a query, with its parameters; raises Invalid, in Flagger's words."""
    place, _, parameters = query.strip().partition("?")
    namespace, slash, metric = place.rpartition("/")
    if "/" in namespace:
        raise Invalid(f"error parsing metric query: malformed query string, too many slashes, expected {FORM}")
    if not metric:
        raise Invalid("error parsing metric query: metric name cannot be empty")
    path = f"{API}/namespaces/{quote(namespace if slash and namespace else 'default', safe='')}/{quote(metric, safe='')}"
    try:
        selector = parse_qs(parameters, max_num_fields=10).get("labelSelector", [""])[0]
    except ValueError:
        raise Invalid(f"error parsing metric query: malformed query string, expected {FORM}") from None
    return f"{path}?{urlencode({'labelSelector': selector})}" if selector else path
