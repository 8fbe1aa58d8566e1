"""What a rewrite must leave alone: the bytes of a file outside the marked scalars."""

from __future__ import annotations

from imagebot.markers.find import FileMarkers, find_markers


def outside(data: bytes, found: FileMarkers | None = None) -> list[bytes]:
    """The pieces of `data` between its marked scalars, in order."""
    parts, done = [], 0
    for marker in (found or find_markers(data)).markers:
        parts.append(data[done : marker.start])
        done = marker.end
    return [*parts, data[done:]]
