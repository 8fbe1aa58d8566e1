"""What was asked of the API server, read from its audit log: so that tests can count requests."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
"""The verbs that change something."""

MARKER = "/version?marker="
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # The control plane's talk with itself is not what tests count, and would be most of the log.
        {"level": "None", "users": ["kube-controller-manager", "kube-scheduler", "kwok", "system:apiserver"]},
        {"level": "Metadata"},
    ],
}
"""The audit policy that the API server is to have."""


@dataclass(frozen=True)
class Request:
    """One request; a watch appears when it has begun."""

    verb: str
    resource: str
    """Plural name, with the subresource after a slash where there is one; empty for paths such as `/readyz`."""
    namespace: str
    name: str
    user: str
    user_agent: str
    code: int
    uri: str


class Audit:
    """Reads the audit log.

    Args:
        path: The log: one JSON object a line.
        ask: Sends a GET for a path and waits for the answer.
    """

    def __init__(self, path: Path, ask: Callable[[str], object]) -> None:
        self.path = path
        self._ask = ask

    def mark(self) -> int:
        """This moment, for `since` and `count`: every request answered before it is before it."""
        self._settle()
        return self.path.stat().st_size

    def since(self, mark: int = 0) -> list[Request]:
        """All requests after a mark, each once, in the order in which they ended (watches: began)."""
        self._settle()
        with self.path.open("rb") as file:
            file.seek(mark)
            lines = file.read().split(b"\n")
        requests: dict[str, Request] = {}
        for line in lines[:-1]:
            event = json.loads(line)
            if not event["requestURI"].startswith(MARKER):
                # A watch is reported when it begins and when it ends, under one id.
                requests.setdefault(event["auditID"], _request(event))
        return list(requests.values())

    def select(
        self,
        mark: int = 0,
        *,
        user_agent: str | None = None,
        user: str | None = None,
        verb: str | Collection[str] | None = None,
        resource: str | None = None,
        namespace: str | None = None,
    ) -> list[Request]:
        """The requests after a mark that match all that is given; `user_agent` is the beginning of one, such as `imagebot/`."""
        verbs = {verb} if isinstance(verb, str) else verb
        return [
            request
            for request in self.since(mark)
            if (user_agent is None or request.user_agent.startswith(user_agent))
            and (user is None or request.user == user)
            and (verbs is None or request.verb in verbs)
            and (resource is None or request.resource == resource)
            and (namespace is None or request.namespace == namespace)
        ]

    def count(self, mark: int = 0, **which: Any) -> int:
        """How many requests match; `which` as for `select`."""
        return len(self.select(mark, **which))

    def tally(self, mark: int = 0, **which: Any) -> Counter[str]:
        """Requests by `verb resource`; `which` as for `select`."""
        return Counter(f"{request.verb} {request.resource}" for request in self.select(mark, **which))

    def _settle(self) -> None:
        # The server writes the line as a request ends, perhaps just after its answer; a request of our own, once seen, is later.
        marker = f"{MARKER}{uuid.uuid4().hex}"
        start = self.path.stat().st_size if self.path.exists() else 0
        self._ask(marker)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with self.path.open("rb") as file:
                file.seek(start)
                if marker.encode() in file.read():
                    return
            time.sleep(0.01)
        raise TimeoutError(f"the API server does not write its audit log {self.path}")


def _request(event: dict[str, Any]) -> Request:
    target = event.get("objectRef", {})
    resource = "/".join(part for part in (target.get("resource"), target.get("subresource")) if part)
    return Request(
        event["verb"], resource, target.get("namespace", ""), target.get("name", ""), event["user"].get("username", ""),
        event.get("userAgent", ""), event.get("responseStatus", {}).get("code", 0), event["requestURI"],
    )  # fmt: skip
