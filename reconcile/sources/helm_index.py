"""The index of a chart repository: read strictly, cleaned, sorted, written as JSON. Pure, and a program of its own.

As Flux's source-controller (by Helm's library) does it: JSON is taken as JSON, everything else is YAML in which no key may be set
twice; `apiVersion` must be there; entries that are empty, nameless or without a valid version are dropped; versions go from the
highest to the lowest.

YAML of the usual size takes a quarter of a second for each megabyte and tens of megabytes of memory, which are better had by a
process that ends than by ours: `python -m reconcile.sources.helm_index` reads an index from its standard input and writes the
JSON to its standard output; an index that cannot be read gives exit status 2 and the reason on standard error.
"""

from __future__ import annotations

import posixpath
import resource
import sys
from dataclasses import dataclass
from typing import Any

import orjson

from reconcile.errors import Invalid, ReconcileError
from reconcile.versions import version_key
from reconcile.yamlio import Limits, YamlError, load_documents

MAX_SIZE = 50 * 1024 * 1024
"""Bytes of an index that are read by default; Helm's own bound is 10 MiB, Flux's 50."""

CHART_API = "v1"
CHART_TYPES = frozenset({"", "application", "library"})
UNREADABLE = 2
"""Exit status for an index that cannot be read."""
MAX_ALIASES = 64
"""Aliases in an index: each may stand for a text as long as the whole, and JSON has no aliases."""


class InvalidIndex(Invalid):
    """The text is no index of a chart repository."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """An index as it is stored.

    Attributes:
        json: the text.
        charts: names in it.
        versions: versions in it.
        dropped: versions left out because they are not valid.
    """

    json: bytes
    charts: int
    versions: int
    dropped: int


def clean(raw: bytes) -> Cleaned:
    """The index in `raw` as it is to be stored; equal bytes give equal bytes. Raises InvalidIndex."""
    document = _load(raw)
    if not document.get("apiVersion"):
        raise InvalidIndex("no API version specified")
    entries = document.get("entries")
    if entries is not None and not isinstance(entries, dict):
        raise InvalidIndex("entries is not a mapping of chart names to versions")
    charts: dict[str, list[dict[str, Any]]] = {}
    before = after = 0
    for name in sorted(entries or ()):
        versions = entries[name] if entries else None
        if versions is not None and not isinstance(versions, list):
            raise InvalidIndex(f"entries.{name} is not a list of versions")
        kept = [version for version in map(_valid, versions or ()) if version is not None]
        before, after = before + len(versions or ()), after + len(kept)
        charts[name] = sorted(kept, key=_rank, reverse=True)
    document["entries"] = charts
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return Cleaned(text, len(charts), after, before - after)


def _load(raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        raise InvalidIndex("empty index.yaml file")
    document: Any
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        document = _load_yaml(raw)
    if not isinstance(document, dict):
        raise InvalidIndex("the index is not a mapping")
    return document


def _load_yaml(raw: bytes) -> Any:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidIndex(f"the index is not UTF-8 text: byte {error.start}") from error
    try:
        # The size was bounded when the index was fetched; the other bounds grow with it.
        documents = load_documents(text, "index.yaml", Limits(size=len(text), depth=64, nodes=len(text), aliases=MAX_ALIASES))
    except YamlError as error:
        raise InvalidIndex(str(error)) from error
    if len(documents) != 1:
        raise InvalidIndex(f"the index is {len(documents)} YAML documents, not one")
    return documents[0][0]


def _valid(version: Any) -> dict[str, Any] | None:
    """A version as it is stored, None where Helm's validation refuses it."""
    if not isinstance(version, dict):
        return None
    name, number, kind = version.get("name"), version.get("version"), version.get("type") or ""
    if not (isinstance(name, str) and name and name == posixpath.basename(name) and name not in {".", ".."}):
        return None
    if not (isinstance(number, str) and version_key(number) is not None) or kind not in CHART_TYPES:
        return None
    if any(not isinstance(entry, dict) for field in ("dependencies", "maintainers") for entry in version.get(field) or ()):
        return None
    return version if version.get("apiVersion") else {**version, "apiVersion": CHART_API}


def _rank(version: dict[str, Any]) -> bytes:
    return version_key(version["version"]) or b""


def human_size(size: int) -> str:
    """`size` in bytes with four significant digits and a decimal unit, such as `10.51MB`."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000.0 and len(units) > 1:
        value, units = value / 1000.0, units[1:]
    return f"{value:.4g}{units[0]}"


def main() -> int:
    """Clean the index on standard input."""
    try:
        raw = sys.stdin.buffer.read()
        most = (1 << 30) + 24 * len(raw)  # what an index takes in memory is about ten times its size
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        cleaned = clean(raw)
    except ReconcileError as error:
        sys.stderr.write(str(error))
        return UNREADABLE
    except MemoryError:
        sys.stderr.write("the index needs much more memory than an index of its size should")
        return UNREADABLE
    sys.stdout.buffer.write(cleaned.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
