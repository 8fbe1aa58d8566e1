"""A small Git server over smart HTTP: every bare repository below a folder, through `git http-backend`.

For the demonstration and for tests: loopback only, a free port, one thread per connection. It counts requests and bytes, can ask
for a user and password or a bearer token, and runs the hooks of the repositories.
"""

from __future__ import annotations

import base64
import hmac
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader, BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from reconcile.errors import MissingProgram

BODY_LIMIT = 1 << 30
REQUEST_SECONDS = 120
_PIECE = 1 << 16


@dataclass(slots=True)
class Traffic:
    """What the server has seen: requests as `METHOD path?query`, bytes of bodies in and out."""

    requests: list[str] = field(default_factory=list)
    received: int = 0
    sent: int = 0
    refused: int = 0

    def clear(self) -> None:
        """Start counting again."""
        self.requests.clear()
        self.received = self.sent = self.refused = 0


class GitServer:
    """Serves the bare repositories below `root`: `with GitServer(root) as server: server.url("team/app.git")`."""

    def __init__(
        self,
        root: Path,
        *,
        username: str = "",
        password: str = "",
        token: str = "",
        tls: ssl.SSLContext | None = None,
        intercept: Callable[[BaseHTTPRequestHandler], bool] | None = None,
    ) -> None:
        """Without `username` and `token` everybody may read and write.

        `intercept` sees each request first; True means that it has answered.
        """
        self.root = root.resolve()
        self.traffic = Traffic()
        self.intercept = intercept
        self.tls = tls
        self.expected = [f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"] if username else []
        self.expected += [f"Bearer {token}"] if token else []
        self.refusal = b""
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen; returns when connections are accepted."""
        if shutil.which("git") is None:
            raise MissingProgram("'git' is not installed: install the package that provides it and put it on PATH")
        handler = cast(type[BaseHTTPRequestHandler], type("Handler", (_Handler,), {"owner": self}))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            # The handshake is left to the connection's thread, so that a silent client holds up nobody else.
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="git-http", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and wait for the requests that are being answered."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None:
            raise RuntimeError("the server is not running")
        return int(self._server.server_address[1])

    def url(self, repository: str, userinfo: str = "") -> str:
        """URL of a repository below the root."""
        return f"{'https' if self.tls else 'http'}://{userinfo + '@' if userinfo else ''}127.0.0.1:{self.port}/{repository}"


class _Handler(BaseHTTPRequestHandler):
    """One request: check, run the backend, stream both ways."""

    owner: GitServer
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_SECONDS
    # Headers and small bodies in one segment; without it each answer waits for an acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: the traffic is counted instead."""

    def do_GET(self) -> None:
        """Listing of references."""
        self._answer()

    def do_POST(self) -> None:
        """Fetch and push."""
        self._answer()

    def _answer(self) -> None:
        self.owner.traffic.requests.append(f"{self.command} {self.path}")
        if self.owner.intercept is not None and self.owner.intercept(self):
            return
        if self.owner.expected and not any(
            hmac.compare_digest(self.headers.get("Authorization", ""), e) for e in self.owner.expected
        ):
            self.owner.traffic.refused += 1
            self._plain(401, self.owner.refusal, {"WWW-Authenticate": 'Basic realm="git"'})
            return
        path, _, query = self.path.partition("?")
        folder = (self.owner.root / path.lstrip("/")).resolve()
        if self.owner.root not in folder.parents:
            self._plain(404, b"")
            return
        self._backend(path, query)

    def _plain(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        # The body of a refused request is still on the wire, so the connection cannot be used again.
        self.close_connection = self.close_connection or self.command == "POST"
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _environment(self, path: str, query: str) -> dict[str, str]:
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.owner.root),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_PROJECT_ROOT": str(self.owner.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "REMOTE_ADDR": self.client_address[0],
            "REMOTE_USER": "demo",
            "GIT_CONFIG_COUNT": "3",
            "GIT_CONFIG_KEY_0": "http.receivepack",
            "GIT_CONFIG_VALUE_0": "true",
            "GIT_CONFIG_KEY_1": "receive.advertisePushOptions",
            "GIT_CONFIG_VALUE_1": "true",
            "GIT_CONFIG_KEY_2": "safe.directory",
            "GIT_CONFIG_VALUE_2": "*",
        }
        for header, name in (("Git-Protocol", "GIT_PROTOCOL"), ("Content-Encoding", "HTTP_CONTENT_ENCODING")):
            if self.headers.get(header):
                env[name] = self.headers[header]
        return env

    def _backend(self, path: str, query: str) -> None:
        with subprocess.Popen(
            ["git", "http-backend"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment(path, query),
            cwd=self.owner.root,
            start_new_session=True,
        ) as process:
            try:
                self._feed(cast(BufferedWriter, process.stdin))
                self._relay(cast(BufferedReader, process.stdout))
            except (OSError, ValueError):
                self.close_connection = True
                process.kill()

    def _feed(self, pipe: BufferedWriter) -> None:
        """Pass the request's body on; chunked bodies are unwrapped."""
        try:
            for piece in self._body():
                self.owner.traffic.received += len(piece)
                pipe.write(piece)
            pipe.close()
        except BrokenPipeError:
            # The backend has said all it will say; the rest of the body is of no use to anybody.
            self.close_connection = True

    def _body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self.rfile.readline(128).split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline(8)
            self.rfile.readline(8)
            return
        left = min(int(self.headers.get("Content-Length") or 0), BODY_LIMIT)
        while left:
            piece = self.rfile.read(min(left, _PIECE))
            if not piece:
                raise OSError("the client closed the connection")
            left -= len(piece)
            yield piece

    def _relay(self, pipe: BufferedReader) -> None:
        """Turn the backend's CGI answer into an HTTP one."""
        headers: list[tuple[str, str]] = []
        status = 200
        while (line := pipe.readline(_PIECE).rstrip(b"\r\n")) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                headers.append((name, value.strip()))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := pipe.read1(_PIECE):
            self.owner.traffic.sent += len(piece)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")
