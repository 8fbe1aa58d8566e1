"""What differs from run to run is replaced by a word, as it was when the facts were recorded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

RULES = (
    (re.compile(r"https?://127\.0\.0\.1:\d+|127\.0\.0\.1:\d+"), "HOST"),
    (re.compile(r"\b(finished in|failed after|passed in) (\d+h)?(\d+m)?\d+(\.\d+)?(ms|µs|s)\b"), r"\1 DURATION"),
    (re.compile(r"\bsha256:[0-9a-f]{64}\b"), "sha256:DIGEST"),
    (re.compile(r"\b[0-9a-f]{40}\b"), "HEX40"),
    (re.compile(r"\b20[2-9]\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| [+-]\d{4} [A-Z]+)"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UUID"),
)
"""Addresses, lengths of time, digests, commits that no story made, instants, ids."""


class Mask:
    """The words of one story.

    Args:
        suffix: What the namespaces of this run have at their ends, and those of the record have not.
    """

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._commits: dict[str, str] = {}

    def name_commit(self, repository: str, commit: str) -> None:
        """Call a commit `repository#n` from now on, n counting all commits of the story."""
        self._commits[commit] = f"{repository}#{len(self._commits) + 1}"

    def text(self, value: str) -> str:
        """A text, masked."""
        for commit, name in self._commits.items():
            value = value.replace(commit, name).replace(commit[:8], name)
        value = value.replace(self._suffix, "")
        for rule, word in RULES:
            value = rule.sub(word, value)
        return value

    def masked(self, value: Any) -> Any:
        """Plain data with all its texts and keys masked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            return [self.masked(each) for each in value]
        if isinstance(value, Mapping):
            return {self.text(key): self.masked(each) for key, each in value.items()}
        return value
