"""What happens in one part of the service and matters to another at once, without either knowing of the other."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from reconcile.runtime.logs import get_logger

log = get_logger("bus")

MAX_COMMITS = 4096
"""Commits whose traces are remembered."""


TRACE = "imagebot.dev/trace"
"""Key of an event's metadata with the trace ids of the images that a revision brought, separated by commas."""
MOST_TRACES = 100
"""Trace ids that one event or line of the log names."""


def trace_of(image: str, tag: str) -> str:
    """The trace id of an image's way from its tag to the cluster: 16 hexadecimal digits, the same wherever it is asked for."""
    return hashlib.sha256(f"{image}:{tag}".encode()).hexdigest()[:16]


def traced(metadata: Mapping[str, str]) -> dict[str, list[str]]:
    """The field of a log line about an event with this metadata: `trace`, where it has traces."""
    return {"trace": metadata[TRACE].split(",")} if metadata.get(TRACE) else {}


@dataclass(frozen=True, slots=True)
class Pushed:
    """We have moved a branch of a Git repository."""

    url: str
    """The repository, without credentials."""
    branch: str
    commit: str
    traces: tuple[str, ...] = ()
    """Trace ids of the images that the commit brings."""
    head: str = ""
    """The commit that the branch ended up at, where it is another: several commits were pushed at once."""


class Bus:
    """Tells those who subscribed; subscribers must return at once."""

    def __init__(self) -> None:
        self._pushed: list[Callable[[Pushed], None]] = []
        self._traces: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self.lookup: Callable[[str], Awaitable[tuple[str, ...]]] = _unknown
        """Finds the traces of a commit that was pushed before this process began."""

    def on_push(self, notice: Callable[[Pushed], None]) -> None:
        """Have `notice` called for each push of ours."""
        self._pushed.append(notice)

    def pushed(self, what: Pushed) -> None:
        """Tell of a push."""
        for commit in {what.commit, what.head or what.commit}:
            self._traces[commit] = tuple(dict.fromkeys((*self._traces.pop(commit, ()), *what.traces)))
        while len(self._traces) > MAX_COMMITS:
            self._traces.popitem(last=False)
        for notice in self._pushed:
            try:
                notice(what)
            except Exception:
                # Whoever pushed has done its work; who is told only comes later by its interval.
                log.exception("could not tell of a push")

    async def traces(self, commit: str) -> tuple[str, ...]:
        """Trace ids of the images that a commit of ours brought; none when it is not ours, or nobody knows any more."""
        known = self._traces.get(commit)
        return await self.lookup(commit) if known is None else known

    async def metadata(self, *revisions: str | None) -> dict[str, str]:
        """What an event about a revision says of traces; `revisions` are names of it, such as `main@sha1:…`, the best first."""
        for revision in revisions:
            traces = await self.traces(revision.rpartition(":")[2]) if revision else ()
            if traces:
                return {TRACE: ",".join(traces[:MOST_TRACES])}
        return {}


async def _unknown(_: str) -> tuple[str, ...]:
    return ()
