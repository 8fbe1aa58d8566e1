"""What would become of each marker that names a policy. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from imagebot.explain.sections import Section, Table
from imagebot.markers.files import under
from imagebot.markers.find import FileMarkers, Marker, Unusable
from imagebot.markers.rewrite import rewrite
from reconcile.api.meta import Key

CHANGED, UNCHANGED, SKIPPED = "would change", "unchanged", "skipped"


@dataclass(frozen=True, slots=True)
class Writer:
    """An automation of the repository that is looked at.

    Attributes:
        key: which one.
        root: the folder or file that it looks at, empty for the whole repository.
        selects: whether its selector takes the policy.
        suspended: whether it rests.
    """

    key: Key
    root: str
    selects: bool
    suspended: bool


@dataclass(frozen=True, slots=True)
class MarkerRow:
    """One marker: where it is, its text, the value that it marks, the one it would get, and what becomes of it and why."""

    repository: str
    path: str
    line: int
    marker: str
    old: str
    new: str
    verdict: str
    why: str


def marker_rows(
    repository: str,
    path: str,
    data: bytes,
    found: FileMarkers | Unusable,
    policy: Key,
    values: Mapping[str, str | None],
    writers: Sequence[Writer],
) -> Iterator[MarkerRow]:
    """The markers of one file that name a policy.

    Args:
        repository: name of the repository, for the rows.
        path: of the file in the repository.
        data: its bytes.
        found: what was found in it.
        policy: which one.
        values: setters of the policy with their texts; empty when it has chosen nothing.
        writers: the automations of this repository and branch.
    """
    name = f"{policy.namespace}:{policy.name}"
    if isinstance(found, Unusable):
        if f'"{name}'.encode() in data:
            yield MarkerRow(repository, path, found.line, name, "", "", SKIPPED, f"the file is not read: {found.reason}")
        return
    good = {(marker.line, marker.setter) for marker in found.markers}
    for problem in found.problems:
        if problem.setter and _names(problem.setter, name) and (problem.line, problem.setter) not in good:
            yield MarkerRow(repository, path, problem.line, problem.setter, "", "", SKIPPED, problem.text)
    for marker in found.markers:
        if _names(marker.setter, name):
            verdict, why = _verdict(path, data, marker, policy, values, writers)
            new = values.get(marker.setter) or ""
            yield MarkerRow(repository, path, marker.line, marker.setter, marker.value, new, verdict, why)


def _names(setter: str, name: str) -> bool:
    return setter == name or setter.startswith(f"{name}:")


def _verdict(
    path: str, data: bytes, marker: Marker, policy: Key, values: Mapping[str, str | None], writers: Sequence[Writer]
) -> tuple[str, str]:
    if not values:
        return SKIPPED, "the policy has chosen nothing yet"
    result = rewrite(data, FileMarkers((marker,)), values)
    if result.skipped:
        return SKIPPED, result.skipped[0].text
    near = [writer for writer in writers if writer.key.namespace == policy.namespace]
    if not near:
        spaces = ", ".join(sorted({writer.key.namespace for writer in writers}))
        return SKIPPED, f"the automations of this repository are in {spaces} and take no policies of {policy.namespace}"
    covering = [writer for writer in near if under(path, writer.root) is not None]
    if not covering:
        return SKIPPED, f"automations look only below {', '.join(sorted({writer.root for writer in near}))}"
    selecting = [writer for writer in covering if writer.selects]
    if not selecting:
        return SKIPPED, f"policySelector of {_list(covering)} does not select the policy"
    if not result.changes:
        return UNCHANGED, "has the value already"
    awake = [writer for writer in selecting if not writer.suspended]
    return (CHANGED, f"by {_list(awake)}") if awake else (SKIPPED, f"{_list(selecting)} is suspended")


def _list(writers: Sequence[Writer]) -> str:
    return ", ".join(writer.key.name for writer in writers)


def markers_section(rows: Sequence[MarkerRow], problems: Sequence[str], looked_at: Sequence[str]) -> Section:
    """The markers of a policy in all repositories.

    Args:
        rows: in order.
        problems: why a repository could not be looked at.
        looked_at: the repositories, with URL, branch and commit.
    """
    notes = [f"{problem}." for problem in problems]
    if not rows and looked_at:
        notes.append("No marker names the policy there.")
    elif not rows and not problems:
        notes.append("There is no ImageUpdateAutomation, so nobody looks for markers.")
    head = ("REPOSITORY", "FILE", "LINE", "MARKER", "OLD", "NEW", "VERDICT", "WHY")
    table = tuple((r.repository, r.path, str(r.line or ""), r.marker, r.old, r.new, r.verdict, r.why) for r in rows)
    facts = tuple(("looked at", text) for text in looked_at)
    return Section("Markers", facts, Table(head, table) if rows else None, tuple(notes))
