"""Replaying recorded facts on the whole service: masking of what differs from run to run, and comparison level by level.

A level is a way to look at an outcome, from what clusters depend on to exact wording; each comparison says for every level
whether the two agree.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from reconcile.api import conditions as cond
from reconcile.api.resource import AnyResource
from reconcile.local.database import Database, EventRow
from tests.support.lab import Lab

FACTS = Path(__file__).parent.parent / "facts"
Levels = dict[str, bool]


def facts(name: str) -> Any:
    """A recorded file, or a list of accepted differences."""
    return json.loads((FACTS / name).read_text(encoding="utf-8"))


def masked(lab: Lab, text: str) -> str:
    """`text` without addresses, hashes, durations, and the name under which a missing path is looked up."""
    server = lab.git.url("").rstrip("/")
    text = text.replace(lab.registry.host, "REGISTRY").replace(server, "GITSERVER").replace(server.split("//")[1], "GITHOST")
    text = re.sub(r"\b[0-9a-f]{40}\b", "<commit>", text)
    text = re.sub(r"commit '[0-9a-f]{7}'", "commit '<short>'", text)
    text = re.sub(r"\b(\d+h)?(\d+m)?\d+(\.\d+)?(ms|s)\b", "<duration>", text)
    text = re.sub(r"127\.0\.0\.1:\d+->127\.0\.0\.1:\d+", "<conn>", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "<addr>", text)
    return re.sub(r"(?<=lstat )[^\s:]+|" + re.escape(str(lab.root)) + r"/[^\s'\":]+", "<path>", text)


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Nested data with `change` applied to every text, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [each_text(v, change) for v in value]
    return {change(k): each_text(v, change) for k, v in value.items()} if isinstance(value, Mapping) else value


def state_of(resource: AnyResource) -> list[str]:
    """The three conditions as short texts, in fixed order."""
    found = (cond.get(resource.status.conditions, kind) for kind in (cond.STALLED, cond.RECONCILING, cond.READY))
    return [f"{c.type}={c.status} {c.reason}: {c.message}" for c in found if c is not None]


def is_settled(resource: AnyResource) -> bool:
    """True once a pass over the present generation has ended."""
    ready, reconciling = (cond.get(resource.status.conditions, kind) for kind in (cond.READY, cond.RECONCILING))
    current = ready is not None and ready.observed_generation == resource.meta.generation
    return current and ready.status != "Unknown" and (reconciling is None or reconciling.reason != cond.PROGRESSING)


def told(state: Path) -> list[EventRow]:
    """All events of a service that has ended, in order."""
    database = Database(state / "state.db", read_only=True)
    try:
        return database.events()
    finally:
        database.close()


def event_texts(lab: Lab, rows: Sequence[EventRow]) -> list[list[str]]:
    """Events as recorded, in order of first appearance, each text once."""
    texts = dict.fromkeys((f"{r.kind}/{r.key.name}", r.type, r.reason, masked(lab, r.message)) for r in rows)
    return [list(text) for text in texts]


# --- markers


def content(entry: Mapping[str, str]) -> bytes:
    """The bytes of a recorded file."""
    return entry["text"].encode() if "text" in entry else base64.b64decode(entry["b64"])


def data_of(raw: bytes) -> Any:
    """What a reader of a file sees: parsed documents without empty ones, or the bytes where that fails."""
    try:
        return [d for d in yaml.load_all(raw.decode("utf-8-sig"), yaml.CBaseLoader) if d not in (None, "")]
    except (yaml.YAMLError, UnicodeDecodeError):
        return raw


def compare_marker(case: Mapping[str, Any], got: Mapping[str, Any]) -> Levels:
    """Levels of a marker case; `got["files"]` are all files afterwards."""
    want = case["outcome"]
    files = {path: content(entry) for path, entry in case["files"].items()}
    files |= {path: content(entry) for path, entry in want["changed"].items()}
    files = {path: data for path, data in files.items() if path not in want["deleted"]}
    messages = [outcome.get("message", "") for outcome in (want, got)]
    told = [sorted(outcome["events"]) for outcome in (want, got)]
    if case.get("unordered"):  # the record has one of many possible orders
        messages = ["".join(sorted(text.splitlines(keepends=True))) for text in messages]
        told = [[event[:3] for event in events] for events in told]
    commits = [(outcome["commits"], outcome.get("author")) for outcome in (want, got)]
    return {
        "files": set(files) == set(got["files"]),
        "data": {p: data_of(d) for p, d in files.items()} == {p: data_of(d) for p, d in got["files"].items()},
        "bytes": files == got["files"],
        "commit": (commits[0], messages[0]) == (commits[1], messages[1]),
        "reason": want["ready"][:2] + want["ready"][3:] == got["ready"][:2] + got["ready"][3:],
        "message": want["ready"][2] == got["ready"][2],
        "events": told[0] == told[1],
    }


# --- stories


def compare_story(case: Mapping[str, Any], got: Mapping[str, Any]) -> Levels:
    """Levels of a story; where the record has two outcomes either will do."""
    levels = _compare_story(case["outcome"], got)
    if "second" in case:
        levels = {name: levels[name] or other for name, other in _compare_story(case["second"], got).items()}
    return levels


def _compare_story(want: Mapping[str, Any], got: Mapping[str, Any]) -> Levels:
    def lasts(outcome: Mapping[str, Any], *, cut: bool) -> Any:
        return [
            {name: [text.split(":")[0] if cut else text for text in seen["last"]] for name, seen in step.items()}
            for step in outcome["steps"]
        ]

    def events(outcome: Mapping[str, Any], *, cut: bool) -> Any:
        return {tuple(event[:3] if cut else event) for event in outcome["events"]}

    return {
        "conditions": lasts(want, cut=True) == lasts(got, cut=True),
        "messages": lasts(want, cut=False) == lasts(got, cut=False),
        "status": want["final"] == got["final"],
        "git": (want["branches"], want.get("outside")) == (got["branches"], got.get("outside")),
        "event-reasons": events(want, cut=True) == events(got, cut=True),
        "events": events(want, cut=False) == events(got, cut=False),
        "sequence": want["steps"] == got["steps"],
    }
