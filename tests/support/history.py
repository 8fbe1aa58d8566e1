"""What happened in a cluster, in order: every version of every object of some kinds, by watch.

The versions are sorted by `resourceVersion`, which is one sequence for all kinds of an API server with one etcd. So one can say
not only what became of an object but what was so at the same moment of others.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import httpx

from tests.support.kubeapi import ApiError, KubeApi, Object

T = TypeVar("T")

WINDOW = 10
"""Seconds of one watch; the next goes on where it ended."""


@dataclass(frozen=True)
class Version:
    """One version of an object; `gone` for its last."""

    revision: int
    kind: str
    name: str
    body: Object
    gone: bool = False


class Chronicle:
    """What happened in one namespace."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._versions: list[Version] = []
        self._known: set[tuple[str, str, int]] = set()

    def add(self, version: Version) -> None:
        """Note a version; one that is known already is left out."""
        known = (version.kind, version.name, version.revision)
        with self.changed:
            if known not in self._known:
                self._known.add(known)
                self._versions.append(version)
                self.changed.notify_all()

    def of(self, kind: str = "", name: str = "") -> list[Version]:
        """All versions of objects, in order."""
        with self.changed:
            found = [v for v in self._versions if (not kind or v.kind == kind) and (not name or v.name == name)]
        return sorted(found, key=lambda version: version.revision)

    def until(self, probe: Callable[[], T | None], what: str, seconds: float) -> T:
        """The first true value of `probe`, which is asked after each change; fails after `seconds`."""
        end = time.monotonic() + seconds
        with self.changed:
            while True:
                if value := probe():
                    return value
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"waited {seconds:g} s in vain for {what}")
                self.changed.wait(min(left, 1.0))


class History:
    """Watches kinds in all namespaces; a context manager.

    Args:
        api: Asked from several threads.
        kinds: (apiVersion, kind). One that is not served yet is tried again and again.
    """

    def __init__(self, api: KubeApi, *kinds: tuple[str, str]) -> None:
        self._api = api
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._chronicles: dict[str, Chronicle] = {}
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._follow, args=which, name=f"watch {which[1]}", daemon=True) for which in kinds
        ]

    def namespace(self, name: str) -> Chronicle:
        """What happens in a namespace."""
        with self._lock:
            return self._chronicles.setdefault(name, Chronicle())

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(WINDOW + 10)

    def _follow(self, api_version: str, kind: str) -> None:
        since: str | None = None
        while not self._stopped.is_set():
            try:
                for event, body in self._api.watch(api_version, kind, seconds=WINDOW, since=since):
                    if event == "ERROR":
                        since = None  # too old: begin with what is there
                        break
                    since = body["metadata"]["resourceVersion"]
                    self._note(kind, body, gone=event == "DELETED")
                    if self._stopped.is_set():
                        break
            except LookupError:
                self._stopped.wait(0.2)
            except (ApiError, httpx.TransportError) as error:
                since = None
                if "storage is (re)initializing" not in repr(error):  # the server serves a definition that was just changed anew
                    self.failures.append(f"{kind}: {error!r}")
                self._stopped.wait(0.2)

    def _note(self, kind: str, body: Object, *, gone: bool) -> None:
        meta = body["metadata"]
        version = Version(int(meta["resourceVersion"]), kind, meta["name"], body, gone)
        self.namespace(meta.get("namespace", "")).add(version)


def states(versions: list[Version]) -> Iterator[tuple[Version, dict[tuple[str, str], Any]]]:
    """After each version: it, and the objects that there are then, by (kind, name). The mapping is one and the same."""
    now: dict[tuple[str, str], Any] = {}
    for version in versions:
        if version.gone:
            with contextlib.suppress(KeyError):
                del now[version.kind, version.name]
        else:
            now[version.kind, version.name] = version.body
        yield version, now


def changes(values: list[T]) -> list[T]:
    """Each value that differs from the one before."""
    return [value for index, value in enumerate(values) if index == 0 or values[index - 1] != value]
