"""Waiting for an object of a cluster, and what is said when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reconcile.api.duration import format_duration
from reconcile.api.meta import Key
from reconcile.api.scheme import KindInfo
from reconcile.cli.cluster import ClusterObjects
from reconcile.cli.columns import find
from reconcile.cli.place import Object
from reconcile.cli.target import words_of
from reconcile.cli.verdict import Verdict, condition, verdict
from reconcile.errors import TimedOut
from reconcile.kube.errors import Temporary, Unreachable

FIRST_LOOK, LONGEST_LOOK = 0.1, 2.0
"""Seconds between two looks at an object: short at first, then as Flux has it."""

Due = Callable[[Object], bool]
"""Whether what was asked for has been looked at, so that the verdict counts."""


async def until_done(cluster: ClusterObjects, info: KindInfo, key: Key, due: Due, seconds: float) -> tuple[Object, Verdict]:
    """Look at an object until it is current or has failed.

    Raises:
        TimedOut: It is neither after so many seconds; the text says what it waits for.
        NotFound: It was deleted meanwhile.
    """
    text = "the API server could not be reached"
    wait = FIRST_LOOK
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    found = await cluster.read(info, key)
                except (Temporary, Unreachable) as error:
                    text = str(error)
                else:
                    said = verdict(found)
                    if due(found) and said.state != "progressing":
                        return found, said
                    text = said.message if due(found) else "no controller has taken it up: does one run for this namespace?"
                await asyncio.sleep(wait)
                wait = min(wait * 1.5, LONGEST_LOOK)
    except TimeoutError:
        raise TimedOut(f"{info.kind} {key} was not done after {format_duration(seconds)}: {text}") from None


def outcome(found: Object) -> str:
    """What a reconciliation led to, in the words of the flux command; the Ready message where it has none."""
    for path, words in (
        (".status.lastScanResult.tagCount", "scan fetched {} tags"),
        (".status.latestRef", "selected ref {}"),
        (".status.artifact.revision", "fetched revision {}"),
        (".status.lastAppliedRevision", "applied revision {}"),
    ):
        values = find(path, found)
        if values:
            return words.format(_reference(values[0]))
    return str((condition(found, "Ready") or {}).get("message") or f"{words_of(found)} is ready")


def _reference(value: object) -> str:
    if not isinstance(value, dict):
        return str(value)
    digest = f"@{value['digest']}" if value.get("digest") else ""
    return f"{value.get('name')}:{value.get('tag')}{digest}"
