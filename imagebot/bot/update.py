"""The edits that an automation makes on top of one commit: which files hold markers, and what becomes of them.

Marker positions are remembered per blob, so that a run looks only at files it has not seen; files without a change are not even
read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imagebot.api import ImageRef, SkippedMarker
from imagebot.markers.changes import Changed, FileChange
from imagebot.markers.files import is_candidate, under, update_root
from imagebot.markers.find import TOKEN, FileMarkers, Unusable, find_markers
from imagebot.markers.rewrite import Rewritten, rewrite
from reconcile.errors import Failed, ReconcileError
from reconcile.git.errors import GitError, ObjectTooLarge
from reconcile.git.mirror import Mirror
from reconcile.git.types import Edit, Entry
from reconcile.registry.names import InvalidImage, parse_reference

MAX_FILE = 8 * 1024 * 1024
LINK_MODE = "120000"
MAX_SKIPPED = 50
MAX_REMEMBERED = 20_000
PREFIX = "failed to apply policies: "


@dataclass(frozen=True, slots=True)
class Update:
    """What is to be written on top of a commit, and what could not be used."""

    edits: tuple[Edit, ...]
    changed: Changed
    skipped: tuple[SkippedMarker, ...]


def as_text(path: str) -> str:
    """A path as a status may have it: Git keeps any bytes, a status keeps characters."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class MarkerMemory:
    """Markers by blob id; the least recently used go first."""

    def __init__(self, bound: int = MAX_REMEMBERED) -> None:
        self._found: OrderedDict[str, FileMarkers | Unusable] = OrderedDict()
        self._bound = bound

    def get(self, oid: str) -> FileMarkers | Unusable | None:
        """What is known of this blob."""
        found = self._found.get(oid)
        if found is not None:
            self._found.move_to_end(oid)
        return found

    def learn(self, oid: str, data: bytes) -> FileMarkers | Unusable:
        """Look at a blob and remember."""
        try:
            found: FileMarkers | Unusable = find_markers(data)
        except Unusable as error:
            found = error
        self._keep(oid, found)
        return found

    def refuse(self, oid: str, reason: str) -> Unusable:
        """Remember that a blob cannot be looked at."""
        found = Unusable(0, reason)
        self._keep(oid, found)
        return found

    def _keep(self, oid: str, found: FileMarkers | Unusable) -> None:
        self._found[oid] = found
        while len(self._found) > self._bound:
            self._found.popitem(last=False)


def setter_values(namespace: str, refs: Mapping[str, ImageRef]) -> dict[str, str | None]:
    """Every setter that the policies of a namespace offer, with the text it sets (None: there is no digest to set).

    Raises Failed `UpdateFailed` when the reference of any policy is not an image reference.
    """
    values: dict[str, str | None] = {}
    for name, ref in refs.items():
        try:
            parse_reference(str(ref))
        except InvalidImage as error:
            raise Failed("UpdateFailed", f'{PREFIX}encountered invalid image ref "{ref}": {error}') from error
        base = f"{namespace}:{name}"
        values |= {base: str(ref), f"{base}:tag": ref.tag, f"{base}:name": ref.name, f"{base}:digest": ref.digest}
    return values


async def plan(mirror: Mirror, commit: str, path: str | None, values: Mapping[str, str | None], memory: MarkerMemory) -> Update:
    """The update of the files of `commit` below `path`; raises Failed `UpdateFailed`, and GitError for Git itself."""
    root = update_root(path)
    entries = await _marked(mirror, commit, root)
    if not values:  # no policy has chosen yet: nothing to set, and nothing worth a complaint
        return Update((), Changed(), ())
    found = await _markers(mirror, entries, memory)
    skipped: list[SkippedMarker] = []
    due: list[tuple[Entry, FileMarkers]] = []
    for entry in entries:
        markers, shown = found[entry.oid], under(entry.path, root) or entry.path
        if isinstance(markers, Unusable):
            skipped.append(SkippedMarker(path=as_text(shown), line=markers.line or None, message=markers.reason))
        elif any(values.get(m.setter, m.value) != m.value for m in markers.markers):
            due.append((entry, markers))
        else:
            skipped += _problems(shown, markers, rewrite(b"", markers, values))  # nothing is due: no byte is read
    edits, files = await _edit(mirror, due, values, root, skipped)
    return Update(edits, Changed(files), tuple(skipped[:MAX_SKIPPED]))


async def marked_files(mirror: Mirror, commit: str, memory: MarkerMemory) -> list[tuple[Entry, FileMarkers | Unusable]]:
    """Every file of a commit that holds markers, wherever it is, in the order of the paths; raises as `plan`."""
    return await markers_below(mirror, commit, None, memory)


async def markers_below(
    mirror: Mirror, commit: str, path: str | None, memory: MarkerMemory
) -> list[tuple[Entry, FileMarkers | Unusable]]:
    """The files of a commit below `path` that hold markers, none where there is no such path; raises as `plan`."""
    entries = await _marked_entries(mirror, commit, update_root(path))
    found = await _markers(mirror, entries, memory)
    return [(entry, found[entry.oid]) for entry in entries]


async def _marked(mirror: Mirror, commit: str, root: str) -> list[Entry]:
    found = await _marked_entries(mirror, commit, root)
    if root and not found:
        await _check_root(mirror, commit, root)
    return found


async def _marked_entries(mirror: Mirror, commit: str, root: str) -> list[Entry]:
    found = await mirror.grep(commit, TOKEN, root)
    return sorted((e for e in found if is_candidate(e.path) and under(e.path, root) is not None), key=lambda e: e.path)


async def _check_root(mirror: Mirror, commit: str, root: str) -> None:
    """Tell a path that holds no markers from one that is not there, or is a link; raises Failed `UpdateFailed`."""
    entries = await mirror.entries(commit, root)
    if not entries:
        raise Failed("UpdateFailed", f"{PREFIX}walking path for files: lstat {root}: no such file or directory")
    if entries[0].path == root and entries[0].mode == LINK_MODE:
        raise Failed(
            "UpdateFailed", f"{PREFIX}'{root}' is a symbolic link, which is not followed: name the path that it leads to"
        )


async def _markers(mirror: Mirror, entries: Sequence[Entry], memory: MarkerMemory) -> dict[str, FileMarkers | Unusable]:
    found: dict[str, FileMarkers | Unusable] = {}
    unknown: list[str] = []
    for entry in entries:
        known = memory.get(entry.oid)
        if known is None:
            unknown.append(entry.oid)
        else:
            found[entry.oid] = known
    unknown = list(dict.fromkeys(unknown))
    try:
        blobs = await _read(mirror, unknown)
    except ObjectTooLarge:
        return found | await _markers_one_by_one(mirror, unknown, memory)
    return found | {oid: memory.learn(oid, data) for oid, data in blobs.items()}


async def _markers_one_by_one(mirror: Mirror, oids: Sequence[str], memory: MarkerMemory) -> dict[str, FileMarkers | Unusable]:
    """As `_markers`, where a file is too large or all are too large together: that file is unusable, the others are not."""
    found: dict[str, FileMarkers | Unusable] = {}
    for oid in oids:
        try:
            found[oid] = memory.learn(oid, (await _read(mirror, [oid]))[oid])
        except ObjectTooLarge:
            found[oid] = memory.refuse(oid, f"larger than {MAX_FILE} bytes")
    return found


async def _read(mirror: Mirror, oids: Sequence[str]) -> Mapping[str, bytes]:
    if not oids:
        return {}
    try:
        return await mirror.read(oids, MAX_FILE)
    except GitError:
        raise
    except ReconcileError as error:
        raise Failed("UpdateFailed", f"{PREFIX}{error}") from error


async def _edit(
    mirror: Mirror,
    due: Sequence[tuple[Entry, FileMarkers]],
    values: Mapping[str, str | None],
    root: str,
    skipped: list[SkippedMarker],
) -> tuple[tuple[Edit, ...], dict[str, tuple[FileChange, ...]]]:
    blobs = await _read(mirror, list(dict.fromkeys(entry.oid for entry, _ in due)))
    edits: list[Edit] = []
    files: dict[str, tuple[FileChange, ...]] = {}
    for entry, markers in due:
        result, shown = rewrite(blobs[entry.oid], markers, values), under(entry.path, root) or entry.path
        skipped += _problems(shown, markers, result)
        if result.changes and result.data != blobs[entry.oid]:
            edits.append(Edit(entry.path, result.data))
            files[shown] = result.changes
    return tuple(edits), files


def _problems(path: str, found: FileMarkers, result: Rewritten) -> list[SkippedMarker]:
    return [
        SkippedMarker(path=as_text(path), line=p.line, marker=p.setter, message=p.text)
        for p in sorted((*found.problems, *result.skipped), key=lambda p: p.line)
    ]
