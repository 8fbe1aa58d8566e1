"""Who is asked and told in the stories: a scripted Prometheus, and how servers run beside a test that waits."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from tests.support.prometheus import FakePrometheus, Reply


class GoldenSignals(FakePrometheus):
    """Answers by the namespace that a query is about and by what it asks for: `success`, `duration` (in ms) or `custom`."""

    USUAL: Mapping[str, Reply] = {"success": 100.0, "duration": 50.0, "custom": 1.0, "online": 1.0}

    def __init__(self, namespaces: list[str]) -> None:
        super().__init__()
        self._namespaces = namespaces
        self.bases = ("", *(f"/{name}" for name in namespaces))
        self.rules: dict[tuple[str, str], Reply] = {}

    def about(self, *texts: str) -> str:
        """The namespace that is named in the first of these texts which names one; some routers write it with underscores."""
        for text in texts:
            names = [n for n in self._namespaces if re.search(rf"({n}|{n.replace('-', '_')})(?![a-z0-9])", text)]
            if names:
                return max(names, key=len)
        return ""

    def _reply(self, query: str) -> Reply:
        kind = "custom"
        if query.strip() == "vector(1)":
            kind = "online"
        elif "histogram_quantile" in query or "duration_seconds_sum" in query:
            kind = "duration"
        elif query.rstrip().endswith("* 100"):
            kind = "success"
        reply = self.rules.get((self.about(query), kind), self.USUAL[kind])
        seconds = kind == "duration" and "http_request_duration_seconds" in query
        return reply / 1000 if seconds and isinstance(reply, float | int) else reply


@contextmanager
def in_thread(*servers: Any) -> Iterator[None]:
    """Asynchronous context managers, entered on an event loop in a thread of its own."""
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever, name="servers", daemon=True)
    thread.start()

    def call(work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(20)

    try:
        for server in servers:
            call(stack.enter_async_context(server))
        yield
    finally:
        try:
            call(stack.aclose())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(20)
            loop.close()
