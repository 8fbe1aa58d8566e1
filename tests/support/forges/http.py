"""The HTTP half of the fake forges: a strict API in front of a real Git server, with a log and faults on demand."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from imagebot.demo.gitserver import GitServer

HANG_SECONDS = 60


@dataclass(frozen=True)
class Call:
    """One request to the API. `path` is that below the API's root, still quoted; `body` is parsed JSON or None."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Reply:
    """An answer; without `body` there is none."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """Ends a call with an answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@dataclass
class Fault:
    """What happens instead of an answer, to the next `times` calls whose `METHOD path` matches `match`.

    `kind`: a status; `hang`: nothing comes; `cut`: the connection is closed half-way through the answer; `lost`: the call is
    done, and then the connection is closed without an answer; `slow`: the answer comes byte by byte.
    """

    kind: str | int
    times: int
    match: re.Pattern[str]
    headers: Mapping[str, str]
    body: Any


Route = Callable[..., Reply]


class ForgeHttp(GitServer):
    """Serves an API below `root`, and Git for all else. `handle` answers calls to the API."""

    def __init__(self, folder: Path, prefixes: tuple[str, ...], handle: Callable[[Call], Reply], *, git: bool) -> None:
        super().__init__(folder, intercept=self._intercepted)
        self.prefixes = prefixes
        self.handle = handle
        self.git = git
        self.lock = threading.RLock()
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()
        self.after_push: Callable[[], None] = lambda: None
        self.hooks: list[tuple[re.Pattern[str], Callable[[], object]]] = []
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._over = threading.Event()

    def start(self) -> None:
        """Listen, for all methods that an API has."""
        super().start()
        assert self._server is not None
        handler: Any = self._server.RequestHandlerClass
        answer = handler._answer

        def answered(this: Any) -> None:
            answer(this)
            if this.path.partition("?")[0].endswith("/git-receive-pack"):
                self.after_push()

        handler._answer = answered
        for method in ("PUT", "PATCH", "DELETE"):
            setattr(handler, f"do_{method}", answered)

    def stop(self) -> None:
        """Let hanging calls go and stop."""
        self._over.set()
        super().stop()

    def fail(self, kind: str | int, times: int, match: str, headers: Mapping[str, str], body: Any) -> None:
        """Spoil calls to come."""
        with self.lock:
            self.faults.append(Fault(kind, times, re.compile(match), headers, body))

    # --- one call

    def _intercepted(self, handler: BaseHTTPRequestHandler) -> bool:
        path, _, query = handler.path.partition("?")
        prefix = next((prefix for prefix in self.prefixes if path == prefix or path.startswith(f"{prefix}/")), None)
        if prefix is None:
            if self.git:
                return False
            self._send(handler, Reply(404, {"message": "Not Found"}))
            return True
        length = int(handler.headers.get("Content-Length") or 0)
        raw = handler.rfile.read(length)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self._answered(handler, prefix, path, query, raw, headers)
        return True

    def _answered(
        self, handler: BaseHTTPRequestHandler, prefix: str, path: str, query: str, raw: bytes, headers: dict[str, str]
    ) -> None:
        pairs = parse_qsl(query, keep_blank_values=True)
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = raw
        call = Call(handler.command, path.removeprefix(prefix) or "/", dict(pairs), headers, body)
        with self.lock:
            self.log.append(f"{call.method} {unquote(call.path)}")
            self.counts[call.method] += 1
            fault = self._fault(f"{call.method} {prefix}{call.path}")
        if fault is not None and fault.kind == "hang":
            self._over.wait(HANG_SECONDS)
            _close(handler)
            return
        if fault is not None and isinstance(fault.kind, int):
            self._send(handler, Reply(fault.kind, fault.body, fault.headers))
            return
        with self.lock:
            for hook in [hook for hook in self.hooks if hook[0].search(f"{call.method} {prefix}{call.path}")]:
                self.hooks.remove(hook)
                hook[1]()
            try:
                reply = self.handle(call)
            except Refused as refused:
                reply = refused.reply
        if fault is not None and fault.kind == "lost":
            _close(handler)
        else:
            self._send(handler, reply, str(fault.kind) if fault is not None else "")

    def _fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.match.search(line):
                fault.times -= 1
                return fault
        return None

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply, fault: str = "") -> None:
        try:
            self._write(handler, reply, fault)
        except OSError:
            handler.close_connection = True  # the client has gone

    def _write(self, handler: BaseHTTPRequestHandler, reply: Reply, fault: str) -> None:
        content = b"" if reply.body is None else reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        with self.lock:
            self.statuses[reply.status] += 1
        handler.send_response_only(reply.status)
        handler.send_header("Date", format_datetime(self.now(), usegmt=True))
        headers = {"Content-Length": str(len(content))} if reply.status not in (204, 304) else {}
        if content:
            headers["Content-Type"] = "application/json; charset=utf-8"
        for name, value in {**headers, **reply.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if fault == "cut":
            handler.wfile.write(content[: len(content) // 2])
            _close(handler)
        elif fault == "slow":
            for at in range(len(content)):
                handler.wfile.write(content[at : at + 1])
        elif reply.status not in (204, 304):
            handler.wfile.write(content)


def _close(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    try:
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
