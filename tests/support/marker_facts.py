"""The recorded marker cases: files and policies in, changed files and `Changed` out."""

from __future__ import annotations

import base64
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagebot.markers.changes import Changed, FileChange
from imagebot.markers.files import is_candidate, under, update_root
from imagebot.markers.find import Problem, Unusable, find_markers
from imagebot.markers.rewrite import rewrite

FACTS = Path(__file__).parent.parent / "facts"


@functools.cache
def recorded() -> dict[str, Any]:
    return json.loads((FACTS / "markers.json").read_text(encoding="utf-8"))


def cases() -> list[dict[str, Any]]:
    return recorded()["cases"]


def content(entry: dict[str, str]) -> bytes:
    """The bytes of a recorded file."""
    return entry["text"].encode() if "text" in entry else base64.b64decode(entry["b64"])


def values_of(case: dict[str, Any]) -> dict[str, str | None]:
    """Setter → new text for the policies that the case's selector picks (the recorder labels each with `app: <name>`)."""
    selector = case.get("selector", {})
    if "matchExpressions" in selector:
        return {}
    wanted = selector.get("matchLabels", {}).get("app")
    values: dict[str, str | None] = {}
    for name, (image, tag, digest) in recorded()["policies"].items():
        if wanted in (None, name):
            setter = f"{case['id']}:{name}"
            values[setter] = f"{image}:{tag}@{digest}" if digest else f"{image}:{tag}"
            values |= {f"{setter}:tag": tag, f"{setter}:name": image, f"{setter}:digest": digest}
    return values


@dataclass
class Outcome:
    """What an update of a case did, as far as files are concerned."""

    files: dict[str, bytes] = field(default_factory=dict)  # all of them, after the update
    changes: dict[str, tuple[FileChange, ...]] = field(default_factory=dict)  # by path under the update root
    unusable: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, tuple[Problem, ...]] = field(default_factory=dict)

    @property
    def changed(self) -> Changed:
        return Changed(self.changes)


def run(case: dict[str, Any]) -> Outcome:
    """Apply the policies of a case to its files."""
    root, values, outcome = update_root(case.get("path")), values_of(case), Outcome()
    for path, entry in sorted(case["files"].items()):
        data = content(entry)
        outcome.files[path] = data
        relative = under(path, root)
        if relative is None or not is_candidate(path):
            continue
        try:
            done = rewrite(data, find_markers(data), values)
        except Unusable as error:
            outcome.unusable[path] = error.reason
            continue
        outcome.files[path] = done.data
        if done.changes:
            outcome.changes[relative] = done.changes
        if done.skipped:
            outcome.skipped[path] = done.skipped
    return outcome


def changed_of(case: dict[str, Any]) -> Changed:
    """The changes of a case, for whoever renders messages from them."""
    return run(case).changed
