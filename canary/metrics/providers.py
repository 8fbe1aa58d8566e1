"""Which module speaks to which backend, and what all of them share."""

from __future__ import annotations

import asyncio
import importlib
import ssl
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from canary.api import MetricProvider
from canary.metrics.base import Provider, ProviderConfig, RawApi, Sample
from reconcile.errors import TimedOut
from reconcile.net.client import Client, Limits, make_client
from reconcile.net.errors import DEADLINE
from reconcile.net.proxy import ProxyEnvironment
from reconcile.net.retry import RetryPolicy
from reconcile.net.tls import DEFAULT
from reconcile.ports.clock import Clock, SystemClock
from reconcile.ports.objects import Objects

if TYPE_CHECKING:
    from canary.metrics.logins import Logins
    from canary.metrics.prometheus import Connections

PROMETHEUS: Final = "prometheus"
MODULES: Final[Mapping[str, tuple[str, str]]] = {
    "cloudwatch": ("canary.metrics.cloudwatch", "CloudWatch"),
    "datadog": ("canary.metrics.datadog", "Datadog"),
    "dynatrace": ("canary.metrics.dynatrace", "Dynatrace"),
    "externalmetrics": ("canary.metrics.externalmetrics", "ExternalMetrics"),
    "graphite": ("canary.metrics.graphite", "Graphite"),
    "influxdb": ("canary.metrics.influxdb", "InfluxDB"),
    "keptn": ("canary.metrics.keptn", "Keptn"),
    "newrelic": ("canary.metrics.newrelic", "NewRelic"),
    "splunk": ("canary.metrics.splunk", "Splunk"),
    "signalfx": ("canary.metrics.splunk", "Splunk"),
    "stackdriver": ("canary.metrics.stackdriver", "Stackdriver"),
}
"""Module and class by the type of a MetricTemplate's provider, loaded with the first template of the type.

Each class is made from a `ProviderConfig` alone, raises Invalid for one that cannot work, and is a `Provider`. Any other type is
a Prometheus, as in Flagger.
"""

QUERY: Final = 5.0
"""Seconds that one query may take, unless its caller allows less."""
QUERIES: Final[Mapping[str, float]] = {"influxdb": 15.0, "keptn": 10.0}
"""The same for providers that are slower, as in Flagger."""
LONGEST: Final = 30.0
"""Seconds after which no provider is waited for any more, whatever it does itself."""
_LIMITS: Final = Limits(body=4 * 1024 * 1024, redirects=0)


class Providers:
    """Makes providers, and keeps what they share: sessions, threads, HTTP clients. Make it in the loop, and close it."""

    def __init__(
        self,
        objects: Objects | None = None,
        clock: Clock | None = None,
        *,
        environment: ProxyEnvironment | None = None,
        api: RawApi | None = None,
        logins: Logins | None = None,
    ) -> None:
        self._objects = objects
        self._api = api
        self._logins = logins
        self._clock = clock or SystemClock()
        self._environment = environment
        self._connections: Connections | None = None
        self._clients: dict[bool, Client] = {}

    def config(
        self, provider: MetricProvider, secret: Mapping[str, bytes] | None = None, *, timeout: float = LONGEST
    ) -> ProviderConfig:
        """What a MetricTemplate says of its provider, with the content of its Secret (None when it names none).

        Args:
            provider: As the template has it.
            secret: Content of its Secret.
            timeout: Seconds that one query may take at most; most providers take less (`QUERY`).
        """
        insecure = bool(provider.insecure_skip_verify)
        return ProviderConfig(
            type=provider.type,
            address=provider.address or "",
            headers=tuple(sorted((name, tuple(values)) for name, values in (provider.headers or {}).items())),
            region=provider.region or "",
            insecure_skip_verify=insecure,
            credentials=None if secret is None else tuple(sorted(secret.items())),
            timeout=min(timeout, QUERIES.get(provider.type, QUERY)),
            client=lambda: self._client(insecure=insecure),
            objects=self._objects,
            api=self._api,
            logins=self._cloud_logins,
            clock=self._clock,
        )

    def make(self, config: ProviderConfig) -> Provider:
        """The provider of a configuration; raises Invalid when it cannot be used."""
        return _Ended(self._make(config))

    def _make(self, config: ProviderConfig) -> Provider:
        place = MODULES.get(config.type)
        if place is not None:
            made: Provider = getattr(importlib.import_module(place[0]), place[1])(config)
            return made
        from canary.metrics.prometheus import Connections, Prometheus

        if self._connections is None:
            self._connections = Connections(environment=self._environment)
        return Prometheus(config, self._connections)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._connections is not None:
            await self._connections.close()
        for client in self._clients.values():
            await client.aclose()
        if self._logins is not None:
            await self._logins.aclose()

    def _cloud_logins(self) -> Logins:
        if self._logins is None:
            from canary.metrics.logins import Logins

            self._logins = Logins(self._client(insecure=False), self._clock)
        return self._logins

    def _client(self, *, insecure: bool) -> Client:
        if insecure not in self._clients:
            tls: ssl.SSLContext = DEFAULT.context()
            if insecure:
                tls = ssl.create_default_context()
                tls.check_hostname = False
                tls.verify_mode = ssl.CERT_NONE
            client = make_client(
                tls=tls,
                timeout=5.0,
                limits=_LIMITS,
                retry=RetryPolicy(attempts=1),
                clock=self._clock,
                environment=self._environment,
            )
            client.follow_redirects = False  # keys in headers of their own would go along
            self._clients[insecure] = client
        return self._clients[insecure]


class _Ended:
    """A provider whose calls have an end."""

    def __init__(self, inner: Provider) -> None:
        self._inner = inner

    async def query(self, text: str, interval: str, now: datetime) -> Sample:
        try:
            async with asyncio.timeout(LONGEST):
                return await self._inner.query(text, interval, now)
        except TimeoutError:
            raise TimedOut(f"request failed: {DEADLINE}") from None

    async def online(self) -> None:
        try:
            async with asyncio.timeout(LONGEST):
                await self._inner.online()
        except TimeoutError:
            raise TimedOut(f"request failed: {DEADLINE}") from None
