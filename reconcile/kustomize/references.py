"""What a kustomization file refers to. Pure.

Two views of one file: every text in it, for `reach`, which must not miss a file that kustomize would read; and the fields that
kustomize takes for paths, for `boundary`, which must not refuse a text that is no path.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

from reconcile.kustomize.documents import load_all
from reconcile.kustomize.schema import fitted, text_of
from reconcile.yamlio import (
    NodeEvent,
    ScalarEvent,
    YamlError,
    parse_events,
    resolve,
    start_of,
)

MOST_BYTES: Final = 4 * 1024 * 1024
"""Size of a kustomization file that is looked into; of a larger one we believe that it reads everything."""

PLUGIN_FIELDS: Final = ("generators", "transformers", "validators")
HELM_FIELDS: Final = ("helmCharts", "helmChartInflationGenerator", "helmGlobals")
_KEPT: Final = 4096
_LONGEST_KEPT: Final = 10_000
_CONTEXT: Final = re.compile(r"while (?:parsing|scanning) [a-z -]+, ")
_DEPTH: Final = 200
_TEXT_TAGS: Final = (None, "!", "tag:yaml.org,2002:str")
_PLUGIN_PATHS: Final = frozenset(
    ("argsFromFile", "additionalValuesFiles", "chartHome", "configHome", "env", "envs", "file", "files", "helmHome", "path")
) | {"paths", "targetFilePath", "valuesFile"}
_NO_PATHS_BELOW: Final = frozenset(
    ("fieldSpecs", "fields", "jsonOp", "literals", "patch", "select", "source", "target", "targets")
)


@dataclass(frozen=True, slots=True)
class Path:
    """A text that kustomize takes for a path or an address. `keyed`: may have the form `key=path`."""

    field: str
    text: str
    line: int
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class References:
    """What one kustomization file refers to.

    Attributes:
        texts: every text in it that may name a file or folder.
        paths: the fields that are taken for paths.
        plugins: entries of generators, transformers and validators: paths or documents.
        whole: it may read files that none of the texts names.
        problem: why the file cannot be understood, in kustomize's words as far as they go.
    """

    texts: frozenset[str]
    paths: tuple[Path, ...] = ()
    plugins: tuple[Path, ...] = ()
    whole: bool = False
    problem: str = ""


def read_references(content: bytes | None) -> References:
    """What the kustomization file with this content refers to: everything, with a problem, when that cannot be known."""
    try:
        text = decoded(content)
        lines, unusual = _texts(text)
        document = fitted(next(iter(load_all(text)), None) or {})
    except YamlError as error:
        return References(frozenset(), whole=True, problem=in_words_of_go(error))
    if not isinstance(document, dict):
        return References(frozenset(lines), whole=True, problem="a kustomization file must be a mapping")
    paths = tuple(Path(field, one, lines.get(one, 1), keyed) for field, one, keyed in _paths(document))
    plugins = tuple(Path(field, one, lines.get(one, 1)) for field in PLUGIN_FIELDS for one in _texts_of(document.get(field)))
    whole = unusual or any(document.get(field) for field in (*PLUGIN_FIELDS, *HELM_FIELDS))
    return References(frozenset(lines), paths, plugins, whole)


def decoded(content: bytes | None) -> str:
    """The text of a kustomization file, without byte order mark.

    Raises:
        YamlError: no file, too large, or no text that YAML allows.
    """
    if content is None or len(content) > MOST_BYTES:
        raise YamlError(f"no regular file of at most {MOST_BYTES} bytes")
    coding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(coding)
    except UnicodeDecodeError as error:
        raise YamlError("invalid Unicode character", content.count(b"\n", 0, error.start) + 1) from None


def in_words_of_go(error: YamlError) -> str:
    """An error of the parser as the one of kustomize writes it."""
    problem = _CONTEXT.sub("", error.problem)
    return f"yaml: line {error.line}: {problem}" if error.line else f"yaml: {problem}"


def plugin_paths(text: str) -> list[Path]:
    """The paths in a plugin's configuration (several documents); none when it is no YAML, which kustomize then says."""
    try:
        lines, _ = _texts(text)
        documents = load_all(text)
    except YamlError:
        return []
    found: list[Path] = []
    pending: list[Any] = [(document, "") for document in documents]
    while pending:
        value, field = pending.pop()
        if isinstance(value, dict):
            pending.extend((one, key) for key, one in value.items() if key not in _NO_PATHS_BELOW)
        elif isinstance(value, list):
            pending.extend((one, field) for one in value)
        elif isinstance(value, str) and field in _PLUGIN_PATHS:
            found.append(Path(field, value, lines.get(value, 1), keyed=field == "files"))
    return found


def _texts(text: str) -> tuple[dict[str, int], bool]:
    """Every scalar of a text with the line of its first appearance, and whether a tag makes one of them something else."""
    lines: dict[str, int] = {}
    unusual = False
    for event in parse_events(text, _DEPTH):
        if not isinstance(event, ScalarEvent):
            if isinstance(event, NodeEvent) and getattr(event, "tag", None) is not None:
                unusual = True
            continue
        value, line = event.value, start_of(event).line + 1
        lines.setdefault(value, line)
        if event.tag not in _TEXT_TAGS:
            unusual = True
        elif not event.style and (other := text_of(resolve(value))) != value and isinstance(other, str):
            lines.setdefault(other, line)  # 1.10 names the file 1.1 where a text is wanted
    return lines, unusual


def _texts_of(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]


def _dicts_of(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _paths(document: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Field, text and whether it may be `key=path`."""
    for field in ("resources", "bases", "components", "crds", "configurations"):
        yield from ((field, one, False) for one in _texts_of(document.get(field)))
    for field in ("patches", "patchesJson6902", "replacements"):
        yield from ((field, path, False) for one in _dicts_of(document.get(field)) for path in _texts_of(one.get("path")))
    for one in _texts_of(document.get("patchesStrategicMerge")):
        if "\n" not in one and ":" not in one.replace("://", ""):  # else it is the patch itself
            yield "patchesStrategicMerge", one, False
    for field in ("configMapGenerator", "secretGenerator"):
        for generator in _dicts_of(document.get(field)):
            yield from ((field, one, True) for one in _texts_of(generator.get("files")))
            yield from ((field, one, False) for key in ("envs", "env") for one in _texts_of(generator.get(key)))
    openapi = document.get("openapi")
    if isinstance(openapi, dict):
        yield from (("openapi", one, False) for one in _texts_of(openapi.get("path")))
    for chart in _dicts_of(document.get("helmCharts")):
        for key in ("valuesFile", "additionalValuesFiles"):
            yield from (("helmCharts", one, False) for one in _texts_of(chart.get(key)))


class Remembered:
    """References by the digest of the file: a file that many artifacts have is read once. For several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, References] = OrderedDict()
        self._lock = Lock()

    def get(self, digest: str) -> References | None:
        """What is known of the file with this digest."""
        with self._lock:
            known = self._known.get(digest)
            if known is not None:
                self._known.move_to_end(digest)
            return known

    def put(self, digest: str, references: References) -> None:
        """Remember; what is large or long unused is let go."""
        if sum(map(len, references.texts)) > _LONGEST_KEPT:
            return
        with self._lock:
            self._known[digest] = references
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
