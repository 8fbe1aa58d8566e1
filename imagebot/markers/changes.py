"""What an update changed, file by file and object by object: the data behind commit messages and events. Pure.

Same shape as Flux's `update.Result`, so that users' message templates mean the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True, slots=True)
class ObjectIdentity:
    """What names the YAML document of a change; each part may be empty. Sorts as Go sorts the struct: field by field."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One value that became another: the decoded old and new text and the setter (`ns:policy`, `ns:policy:tag`, …)."""

    old_value: str
    new_value: str
    setter: str


@dataclass(frozen=True, slots=True)
class FileChange:
    """One change with the object it happened in and the line (from 1) of the value in the old text."""

    identity: ObjectIdentity
    change: Change
    line: int


@dataclass(frozen=True, slots=True)
class Changed:
    """All changes of one update. `files` maps a path (slash separated, relative to the update root) to its changes in
    document order; only files with at least one change are present."""

    files: Mapping[str, tuple[FileChange, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.files.values())

    def file_changes(self) -> dict[str, dict[ObjectIdentity, list[Change]]]:
        """Path → object → changes, both in sorted key order, changes in document order."""
        return {path: _by_object(self.files[path]) for path in sorted(self.files) if self.files[path]}

    def objects(self) -> dict[ObjectIdentity, list[Change]]:
        """Object → changes, merged over all files in path order."""
        return _by_object(change for path in sorted(self.files) for change in self.files[path])

    def changes(self) -> list[Change]:
        """Each distinct change once, in path and document order."""
        return list(dict.fromkeys(entry.change for entry in self.entries()))

    def entries(self) -> Iterator[FileChange]:
        """Every change in path and document order."""
        for path in sorted(self.files):
            yield from self.files[path]


def _by_object(entries: Iterable[FileChange]) -> dict[ObjectIdentity, list[Change]]:
    found: dict[ObjectIdentity, list[Change]] = {}
    for entry in entries:
        found.setdefault(entry.identity, []).append(entry.change)
    return dict(sorted(found.items()))
