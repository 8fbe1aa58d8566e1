"""Makes HTTP clients: the only place where an `httpx.AsyncClient` comes from, so that no limit can be forgotten.

From the outside in, a request passes: redirects and auth (httpx) → size limits (`guard`) → retries (`retry`) → what the caller
puts round the network (a request budget, for instance) → choice of proxy → the network, where errors become ours (`errors`).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from reconcile import __version__
from reconcile.net.errors import from_httpx
from reconcile.net.guard import GuardTransport
from reconcile.net.proxy import Proxy, ProxyEnvironment, make_proxy
from reconcile.net.retry import RetryPolicy, RetryTransport
from reconcile.net.tls import DEFAULT, Tls
from reconcile.ports.clock import Clock

USER_AGENT = f"imagebot/{__version__}"

Around = Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport]
"""Puts one more transport round the network, below the retries."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one client.

    Attributes:
        body: bytes of one unpacked answer, unless the request brings its own limit.
        redirects: hops followed for one request.
        connections: open sockets.
        idle_connections: sockets kept open between requests.
        idle: seconds after which an unused socket is closed.
    """

    body: int = 16 * 1024 * 1024
    redirects: int = 5
    connections: int = 32
    idle_connections: int = 16
    idle: float = 90.0


class Client(httpx.AsyncClient):
    """An `httpx.AsyncClient` that raises `NetworkError` instead of httpx's errors."""

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send `request`; raises `NetworkError` and its kinds."""
        try:
            return await super().send(request, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise from_httpx(error, request) from error


def make_client(
    *,
    tls: Tls | ssl.SSLContext = DEFAULT,
    proxy: Proxy | None = None,
    timeout: float = 30.0,
    limits: Limits | None = None,
    retry: RetryPolicy | None = None,
    clock: Clock | None = None,
    around: Around | None = None,
    environment: ProxyEnvironment | None = None,
) -> Client:
    """A client with every bound in place; close it with `aclose()`.

    Args:
        tls: trust and client certificate.
        proxy: proxy for all requests; None takes the environment's choice.
        timeout: seconds for each of connect, each read and each write; the caller bounds the whole.
        limits: sizes and counts.
        retry: when to try again.
        clock: time for the retries.
        around: puts a transport round the network, below the retries.
        environment: proxy variables, default those of the process at this moment.

    Raises:
        Invalid: the TLS material or a proxy of the environment cannot be used.
    """
    limits = limits or Limits()
    context = tls if isinstance(tls, ssl.SSLContext) else tls.context()
    network: httpx.AsyncBaseTransport = _Network(context, limits, proxy, environment or ProxyEnvironment.read())
    if around is not None:
        network = around(network)
    guarded = GuardTransport(RetryTransport(network, retry, clock), limits.body)
    return Client(
        transport=guarded,
        timeout=httpx.Timeout(timeout),
        follow_redirects=True,
        max_redirects=limits.redirects,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip"},
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),  # a server's cookies are nobody's business
        trust_env=False,  # .netrc must not add credentials; proxies of the environment are chosen in _Network
    )


class _Network(httpx.AsyncBaseTransport):
    """Direct or through a proxy, chosen per request; httpx's errors become ours here."""

    def __init__(self, context: ssl.SSLContext, limits: Limits, proxy: Proxy | None, environment: ProxyEnvironment) -> None:
        self._context = context
        self._limits = httpx.Limits(
            max_connections=limits.connections,
            max_keepalive_connections=limits.idle_connections,
            keepalive_expiry=limits.idle,
        )
        self._proxy = proxy
        self._environment = environment
        self._transports: dict[Proxy | None, httpx.AsyncHTTPTransport] = {}  # direct, and at most one per proxy variable

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; raises `NetworkError` and its kinds."""
        transport = self._transport(self._choose(request.url))
        try:
            return await transport.handle_async_request(request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise from_httpx(error, request) from error

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            await transport.aclose()

    def _choose(self, url: httpx.URL) -> Proxy | None:
        if self._proxy is not None:
            return self._proxy
        port = url.port or (443 if url.scheme == "https" else 80)
        address = self._environment.choose(url.scheme, url.host, port)
        return make_proxy(address) if address is not None else None

    def _transport(self, proxy: Proxy | None) -> httpx.AsyncHTTPTransport:
        transport = self._transports.get(proxy)
        if transport is None:
            transport = httpx.AsyncHTTPTransport(
                verify=self._context,
                trust_env=False,
                limits=self._limits,
                proxy=proxy.to_httpx() if proxy is not None else None,
            )
            self._transports[proxy] = transport
        return transport
