"""What can go wrong on the way to a server, mapped once from httpx to the core's tree.

::

    NetworkError                 no complete answer came; has method, URL (without secrets), whether a retry may help
    ├── ConnectFailed            nobody listens, no route, or the name does not resolve
    ├── TlsFailed                the handshake failed or the certificate is not trusted
    ├── NetworkTimedOut          a connect, read, write or total deadline passed; also a TimedOut
    ├── AnswerTooLarge           the answer is over its limit, raw or unpacked; also a LimitExceeded
    └── RedirectRefused          the redirect was not followed: too many, another scheme, or a forbidden target

Texts are worded as Go's `net/http` words them (``Get "https://host/v2/": dial tcp host:443: connect: connection refused``),
because dashboards and people's searches know those words.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator

import httpx

from reconcile.errors import LimitExceeded, ReconcileError, TimedOut
from reconcile.redact import redact, redact_url

DEADLINE = "context deadline exceeded"

_CONNECT_CALL = re.compile(r"Connect call failed \('(?P<host>[^']+)', (?P<port>\d+)")
_ERRNO_TEXT = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network is unreachable",
    errno.ETIMEDOUT: "connection timed out",
    errno.ECONNRESET: "connection reset by peer",
    errno.EADDRNOTAVAIL: "cannot assign requested address",
}
_X509_TEXT = {
    9: "x509: certificate has expired or is not yet valid",
    10: "x509: certificate has expired or is not yet valid",
    18: "x509: certificate signed by unknown authority",
    19: "x509: certificate signed by unknown authority",
    20: "x509: certificate signed by unknown authority",
    21: "x509: certificate signed by unknown authority",
    62: "x509: certificate is not valid for this host name",
    64: "x509: certificate is not valid for this IP address",
}


class NetworkError(ReconcileError):
    """No complete answer came back.

    Attributes:
        method: the request's method, upper case.
        url: the request's URL without user, password and secret query values.
        detail: what happened, without the method and URL.
        temporary: whether the same request may succeed shortly.
    """

    def __init__(self, method: str, url: str, detail: str, *, temporary: bool = False) -> None:
        self.method = method
        self.url = redact_url(url)
        self.detail = redact(detail)
        self.temporary = temporary
        super().__init__(f'{method.capitalize()} "{self.url}": {self.detail}')


class ConnectFailed(NetworkError):
    """Nobody listens there, there is no route, or the name does not resolve."""


class TlsFailed(NetworkError):
    """The TLS handshake failed or the certificate is not trusted."""


class NetworkTimedOut(NetworkError, TimedOut):
    """A connect, read, write or total deadline passed."""


class AnswerTooLarge(NetworkError, LimitExceeded):
    """The answer is larger than its limit, as sent or unpacked; it was refused, not cut."""


class RedirectRefused(NetworkError):
    """A redirect was not followed because it leads too far or to a forbidden place."""


def from_httpx(error: httpx.HTTPError | httpx.InvalidURL, request: httpx.Request) -> NetworkError:
    """The most specific of our errors for an httpx `error` on `request`."""
    method, url = request.method, str(request.url)
    address = _address(request.url)
    match error:
        case httpx.ConnectTimeout():
            return NetworkTimedOut(method, url, f"dial tcp {address}: i/o timeout", temporary=True)
        case httpx.PoolTimeout():
            return NetworkTimedOut(method, url, "timeout waiting for a free connection", temporary=True)
        case httpx.TimeoutException():
            return NetworkTimedOut(method, url, f"{DEADLINE} (Client.Timeout exceeded while awaiting the answer)", temporary=True)
        case httpx.ProxyError():
            return ConnectFailed(method, url, f"proxyconnect tcp: {error}", temporary=False)
        case httpx.ConnectError():
            return _connect_error(error, method, url, address)
        case httpx.RemoteProtocolError() if "disconnected" in str(error):
            return NetworkError(method, url, "EOF", temporary=True)
        case httpx.RemoteProtocolError() if "peer closed" in str(error):
            return NetworkError(method, url, "unexpected EOF", temporary=True)
        case httpx.RemoteProtocolError():
            return NetworkError(method, url, f"net/http: malformed HTTP response: {error}")
        case httpx.TooManyRedirects():
            return RedirectRefused(method, url, "stopped after too many redirects")
        case httpx.DecodingError():
            return NetworkError(method, url, f"the answer cannot be unpacked: {error}")
        case httpx.NetworkError():
            return NetworkError(method, url, _io_text(error, address), temporary=True)
        case _:
            return NetworkError(method, url, str(error) or type(error).__name__)


def _connect_error(error: httpx.ConnectError, method: str, url: str, address: str) -> NetworkError:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return TlsFailed(method, url, _tls_text(cause))
        if isinstance(cause, socket.gaierror):
            temporary = cause.errno == socket.EAI_AGAIN
            what = "server misbehaving" if temporary else "no such host"
            return ConnectFailed(method, url, f"dial tcp: lookup {address.rpartition(':')[0]}: {what}", temporary=temporary)
        if isinstance(cause, OSError) and cause.errno in _ERRNO_TEXT:
            found = _CONNECT_CALL.search(str(cause))
            target = f"{_bracket(found['host'])}:{found['port']}" if found else address
            reset = cause.errno == errno.ECONNRESET
            where = f"read tcp {target}: read" if reset else f"dial tcp {target}: connect"
            return ConnectFailed(method, url, f"{where}: {_ERRNO_TEXT[cause.errno]}", temporary=reset)
    if url.startswith("https:"):
        return TlsFailed(method, url, str(error) or "EOF")
    return ConnectFailed(method, url, f"dial tcp {address}: {str(error) or 'connect failed'}")


def _tls_text(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _X509_TEXT.get(error.verify_code)
        return f"tls: failed to verify certificate: {known or 'x509: ' + str(error.verify_message)}"
    reason = error.reason or ""
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}:
        return "http: server gave HTTP response to HTTPS client"
    if "CERTIFICATE_REQUIRED" in reason:
        return "remote error: tls: certificate required"
    return f"tls: {reason.replace('_', ' ').lower() or 'handshake failure'}"


def _io_text(error: httpx.NetworkError, address: str) -> str:
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _ERRNO_TEXT:
            return f"read tcp {address}: read: {_ERRNO_TEXT[cause.errno]}"
    return str(error) or "unexpected EOF"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    pending: list[BaseException] = [error]
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            pending.extend(reversed(current.exceptions))
        pending.extend(cause for cause in (current.__context__, current.__cause__) if cause is not None)


def _address(url: httpx.URL) -> str:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
    return f"{_bracket(url.host)}:{port}"


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host
