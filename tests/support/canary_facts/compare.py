"""Comparing records of Canaries' stories, aspect by aspect.

A record that differs in an aspect differs by certain lines; those that are accepted stand in a file, with the reason.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]

LOOSE = (
    (re.compile(r"error unmarshaling result: .*"), "error unmarshaling result"),
    (re.compile(r"(request failed|query failed): (Get|Post) .*"), r"\1"),
    (re.compile(r"waiting for rollout to finish: .*"), "waiting for rollout to finish"),
    (re.compile(r"giving up after (\d+) attempt\(s\).*"), r"giving up after \1 attempt(s)"),
)
"""Texts that depend on the language of the program, or on how far pods were when it looked."""
WAITING = re.compile(r"^web-primary\.\S+ not ready: waiting for rollout to finish")
ABOUT_WEIGHTS = re.compile(r"weight|backends|canary-by|spec/traffic|/mirror|split|requestMirror", re.IGNORECASE)
NO_ROUTES = ("Deployment.", "DaemonSet.", "ConfigMap.", "Secret.", "Service.v1", "HorizontalPodAutoscaler.")


def _without_instants(entries: list[Record]) -> Iterator[dict[str, Any]]:
    return ({key: value for key, value in entry.items() if key != "at"} for entry in entries)


def _loose(text: str | None) -> str:
    for pattern, plain in LOOSE:
        text = pattern.sub(plain, text or "")
    return text or ""


def _distinct(lines: list[str]) -> list[str]:
    return [line for index, line in enumerate(lines) if index == 0 or lines[index - 1] != line]


def _plain(*entries: Any) -> list[str]:
    return [json.dumps(entry, sort_keys=True) for entry in entries]


def _leaves(value: Any, path: str) -> Iterator[str]:
    if value and isinstance(value, dict | list):
        pairs = sorted(value.items()) if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from _leaves(inner, f"{path}/{str(key).removeprefix('/')}")
    else:
        yield f"{path}: {json.dumps(value)}"


def _told(events: list[Record]) -> list[Record]:
    """Events that do not depend on the pace of pods.

    A first primary may be ready before anybody looks; before it is, each change of it is a reason to look, and to say so again.
    """
    kept: list[Record] = []
    before: set[str] = set()
    for event in events:
        if event.get("phase") in ("", "Initializing"):
            if event["message"] in before or WAITING.search(event["message"]):
                continue
            before.add(event["message"])
        kept.append(event)
    return kept


def _events(record: Record) -> list[str]:
    return _distinct(_plain(*([e["type"], _loose(e["message"])] for e in _told(record["events"]))))


def _phases(record: Record) -> list[str]:
    return _distinct(_plain(*([e["phase"], _loose(e["message"]), e.get("metadata")] for e in _told(record["events"]))))


def _kube_events(record: Record) -> list[str]:
    # After ten of a kind Flagger's client stores one that stands for several.
    kept = [
        e
        for e in record["kubeEvents"]
        if not WAITING.search(e["message"]) and not e["message"].startswith("(combined from similar events)")
    ]
    return sorted(set(_plain(*([e["type"], e["reason"], _loose(e["message"]), e["source"]] for e in kept))))


def _objects(record: Record) -> list[str]:
    return [
        line
        for key, versions in sorted(record["objects"].items())
        for number, version in enumerate(versions)
        for line in _leaves(version, f"{key} #{number} ")
    ]


def _weights(record: Record) -> list[str]:
    lines = []
    for key, versions in sorted(record["objects"].items()):
        for version in versions[1:] if not key.startswith(NO_ROUTES) else ():
            kept = {path: v for path, v in version.items() if ABOUT_WEIGHTS.search(path) or ABOUT_WEIGHTS.search(json.dumps(v))}
            lines += [key, *_leaves(kept, "")] if kept else []
    return lines


def _hooks(record: Record) -> list[str]:
    return _plain(*_without_instants(record["hooks"]))


def _alerts(record: Record) -> list[str]:
    # Chats are told side by side: what counts is the order in each.
    return _plain(*sorted(record["alerts"], key=lambda alert: str(alert["provider"])))


def _queries(record: Record) -> list[str]:
    def headers(query: Record) -> dict[str, str]:
        return {name.lower(): value for name, value in (query.get("headers") or {}).items()}

    # Sorted, because those of one step are asked side by side.
    return sorted(_plain(*([q["path"], re.sub(r"\s+", " ", q["query"]).strip(), headers(q)] for q in record["queries"])))


ASPECTS: Mapping[str, Callable[[Record], list[str]]] = {
    "status": lambda record: _distinct(_plain(*_without_instants(record["status"]))),
    "conditions": lambda record: _distinct(_plain(*_without_instants(record["conditions"]))),
    "events": _events,
    "phases": _phases,
    "kubeEvents": _kube_events,
    "objects": _objects,
    "weights": _weights,
    "hooks": _hooks,
    "alerts": _alerts,
    "queries": _queries,
    "metrics": lambda record: _plain(*record["metrics"]),
}
"""How to look at a record: each gives lines."""


def differences(want: Record, got: Record) -> dict[str, list[str]]:
    """By aspect: lines that are missing (`-`) and that nobody asked for (`+`). Aspects that agree are left out.

    Aspects that are not stable in the facts themselves are not compared. Of stored Events there may be more than recorded.
    """
    found = {aspect: _difference(look(want), look(got)) for aspect, look in ASPECTS.items() if aspect not in want["unstable"]}
    if "kubeEvents" in found:
        found["kubeEvents"] = [line for line in found["kubeEvents"] if line.startswith("-")]
    return {aspect: lines for aspect, lines in found.items() if lines}


def _difference(want: list[str], got: list[str]) -> list[str]:
    lines: list[str] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, want, got, autojunk=False).get_opcodes():
        if kind != "equal":
            lines += [f"-{line}" for line in want[a:b]] + [f"+{line}" for line in got[c:d]]
    return lines
