"""The session through which prometheus-api-client reaches a server: what `requests` leaves open is bounded here.

Thread side only. One `Attempt` stands for one query: it carries the deadline, and another thread may end it at any moment, even
while a server lets an answer's head come byte by byte. Bodies have a limit; cookies, `.netrc` and retries do not exist; a
redirect to another origin takes neither credentials nor headers along.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final, Self

import certifi
import httpx
import requests
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, disable_warnings
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import InsecureRequestWarning
from urllib3.util import Retry

from reconcile.errors import LimitExceeded
from reconcile.net.client import USER_AGENT
from reconcile.net.errors import DEADLINE, AnswerTooLarge, NetworkError, NetworkTimedOut, RedirectRefused, from_httpx
from reconcile.net.guard import check_redirect
from reconcile.net.proxy import ProxyEnvironment

MAX_BODY: Final = 1024 * 1024
MAX_REDIRECTS: Final = 5
_PIECE: Final = 64 * 1024

_running = threading.local()


class Attempt:
    """One query on its way. `end` may be called from another thread; the query then fails soon.

    Args:
        seconds: For all of it.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._ended = False
        self.fresh = False
        """Whether a connection was opened for it, and not only an old one used."""

    def __enter__(self) -> Self:
        _running.attempt = self
        return self

    def __exit__(self, *exception: object) -> None:
        _running.attempt = None
        with self._lock:
            self._socket = None

    def left(self) -> float:
        """Seconds until the deadline; raises TimeoutError when it has passed."""
        left = self._until - time.monotonic()
        if left <= 0 or self._ended:
            raise TimeoutError(DEADLINE)
        return left

    def uses(self, connected: socket.socket | None) -> None:
        """Note what to shut when this ends; raises TimeoutError when it already has."""
        with self._lock:
            self._socket = connected
        self.left()

    def end(self) -> None:
        """Shut the connection, so that the thread that waits for it goes on."""
        with self._lock:
            self._ended = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # the server was faster
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # below TLS, whose state is the other thread's


class _Noted(HTTPConnection):
    """Tells the running attempt which socket it waits for."""

    def connect(self) -> None:
        _running.attempt.fresh = True
        super().connect()
        _running.attempt.uses(self.sock)

    def request(self, *args: Any, **options: Any) -> None:
        _running.attempt.uses(self.sock)
        super().request(*args, **options)  # connects when there is no connection


class _NotedTls(_Noted, HTTPSConnection):
    """The same with TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Noted


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _NotedTls


_POOLS: Final = {"http": _Pool, "https": _TlsPool}


class _Adapter(HTTPAdapter):
    """Connections that an `Attempt` can end, and no retries."""

    def __init__(self, connections: int) -> None:
        super().__init__(pool_connections=4, pool_maxsize=connections, max_retries=Retry(0, read=False))

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class Session(requests.Session):
    """What PrometheusConnect is given as its session; it calls `request`, within an `Attempt`.

    Args:
        insecure: Whether any certificate will do.
        connections: Sockets kept open between queries.
        environment: Proxy variables; those of the process at the time of each request if not given.
    """

    def __init__(self, *, insecure: bool, connections: int, environment: ProxyEnvironment | None = None) -> None:
        super().__init__()
        self.trust_env = False
        self.verify = False if insecure else _authorities()
        self.cookies = RequestsCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
        self.headers.clear()
        self.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"})
        self._environment = environment
        self._adapter = _Adapter(connections)
        if insecure:
            disable_warnings(InsecureRequestWarning)  # somebody asked for it in a manifest; a warning per query helps nobody

    def get_adapter(self, url: str) -> HTTPAdapter:  # noqa: ARG002 - PrometheusConnect mounts one that retries
        """The only adapter."""
        return self._adapter

    def close(self) -> None:
        """Close all connections that are not in use."""
        super().close()
        self._adapter.close()

    def request(self, method: Any, url: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        """The complete answer to a request, whatever its status; redirects are followed.

        Raises:
            NetworkError: No complete answer came, or it was refused; `requests`' errors never come out.
        """
        place = str(url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._one(method, place, options)
            try:
                target = self._leads_to(method, answer)
                if target is None:
                    return _complete(method, answer)
            finally:
                answer.close()
            if _origin(target) != _origin(answer.url):
                options = {name: value for name, value in options.items() if name not in {"headers", "auth"}}
            options.pop("params", None)
            place = target
        raise RedirectRefused(method, place, f"stopped after {MAX_REDIRECTS} redirects")

    def _one(self, method: str, url: str, options: dict[str, Any]) -> requests.Response:
        attempt: Attempt = _running.attempt
        shown = url
        try:
            shown = requests.Request(method, url, params=options.get("params")).prepare().url or url
            own = {"stream": True, "allow_redirects": False, "timeout": attempt.left(), "proxies": self._proxies(url)}
            return super().request(method, url, **{**options, **own})
        except (requests.RequestException, OSError, ValueError) as error:
            raise _network_error(error, method, shown) from error

    def _proxies(self, url: str) -> dict[str, str]:
        place = httpx.URL(url)
        port = place.port or (443 if place.scheme == "https" else 80)
        proxy = (self._environment or ProxyEnvironment.read()).choose(place.scheme, place.host, port)
        return {place.scheme: proxy} if proxy is not None else {}

    def _leads_to(self, method: str, answer: requests.Response) -> str | None:
        if not answer.is_redirect:
            return None
        location = self.get_redirect_target(answer) or ""
        check_redirect(httpx.Request(method, answer.url), location)
        return str(httpx.URL(answer.url).join(location))


def _complete(method: str, answer: requests.Response) -> requests.Response:
    attempt: Attempt = _running.attempt
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := answer.raw.read1(_PIECE, decode_content=False):
            attempt.left()
            size += len(piece)
            if size > MAX_BODY:
                raise AnswerTooLarge(method, answer.url, f"the answer is larger than the limit of {MAX_BODY} bytes")
            pieces.append(piece)
    except LimitExceeded:
        raise
    except Exception as error:
        raise _network_error(error, method, answer.url) from error
    answer._content = b"".join(pieces)  # noqa: SLF001 - what its own reading would set
    answer._content_consumed = True  # noqa: SLF001
    return answer


def _network_error(error: Exception, method: str, url: str) -> NetworkError:
    """Errors of requests and urllib3 in the words that all our clients use."""
    text = str(error)
    request = httpx.Request(method, "http://invalid")
    with contextlib.suppress(httpx.InvalidURL):
        request = httpx.Request(method, url)
    same: httpx.HTTPError
    if isinstance(error, requests.Timeout | TimeoutError) or "timed out" in text:
        return NetworkTimedOut(method, url, DEADLINE, temporary=True)
    if isinstance(error, requests.exceptions.ProxyError):
        same = httpx.ProxyError(text)
    elif "RemoteDisconnected" in text or "without response" in text:
        same = httpx.RemoteProtocolError("Server disconnected")
    elif "IncompleteRead" in text or "InvalidChunkLength" in text:
        same = httpx.RemoteProtocolError("peer closed")
    elif isinstance(error, requests.ConnectionError):
        same = httpx.ConnectError(text)
    else:
        return NetworkError(method, url, text or type(error).__name__)
    same.__cause__ = error
    return from_httpx(same, request)


def _origin(url: str) -> tuple[str, str, int | None]:
    place = httpx.URL(url)
    return place.scheme, place.host, place.port


def _authorities() -> str:
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return paths.cafile
    if paths.capath and any(Path(paths.capath).iterdir()):
        return paths.capath
    return certifi.where()  # a slim image without the ca-certificates package
