"""The table of kinds: what is read as what. Filled by each package at start.

Turning a manifest into a `Resource` follows an API server: nulls are dropped, defaults are filled in, types and patterns are
checked, and unknown fields are named. Local mode refuses unknown fields as `kubectl apply` does; a cluster has pruned them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from reconcile.api.meta import CommonSpec, CommonStatus, ObjectMeta, drop_nulls
from reconcile.api.resource import AnyResource, Resource
from reconcile.errors import Invalid
from reconcile.redact import redact

MAX_PROBLEMS = 10
"""Wrong fields that one message names; it says how many more there are."""
MAX_SHOWN = 80
"""Characters of a wrong name or value that a message shows."""


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """One column of `kubectl get` and of our own tables."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0


@dataclass(frozen=True, slots=True)
class KindInfo:
    """All that is known of one kind. `versions` has the storage version first."""

    group: str
    kind: str
    plural: str
    versions: tuple[str, ...]
    spec: type[CommonSpec]
    status: type[CommonStatus]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    columns: tuple[PrinterColumn, ...] = ()
    controller: str = ""
    """Name of the upstream controller that this kind belongs to: the source of its events."""
    field_manager: str = ""
    """Under which name our writes to these objects are recorded, where that is not the controller's."""

    @property
    def api_version(self) -> str:
        """`group/version` of the storage version."""
        return f"{self.group}/{self.versions[0]}"

    @property
    def singular(self) -> str:
        """The kind in lower case."""
        return self.kind.lower()

    @property
    def observes(self) -> bool:
        """Whether the status says which generation was handled; without, readers of kstatus go by the conditions alone."""
        return "observed_generation" in self.status.model_fields

    def matches(self, word: str) -> bool:
        """Whether `word` names this kind on a command line: kind, plural or short name, any case, group allowed behind a dot."""
        name, _, group = word.lower().partition(".")
        return name in {self.singular, self.plural, *self.short_names} and (not group or self.group.startswith(group))


@dataclass
class Scheme:
    """The registered kinds, by name of the kind (which is unique among ours)."""

    kinds: dict[str, KindInfo] = field(default_factory=dict)

    def register(self, info: KindInfo) -> None:
        """Add a kind; raises ValueError when the name is taken."""
        if info.kind in self.kinds:
            raise ValueError(f"kind {info.kind} is registered twice")
        self.kinds[info.kind] = info

    def groups(self) -> set[str]:
        """The API groups of which at least one kind is ours."""
        return {info.group for info in self.kinds.values()}

    def find(self, api_version: str, kind: str) -> KindInfo | None:
        """The kind of a manifest, None when its group is not ours; raises Invalid when group or version is ours but not known."""
        group, _, version = api_version.rpartition("/")
        if group not in self.groups():
            return None
        info = self.kinds.get(kind)
        if info is None or info.group != group:
            known = sorted(i.kind for i in self.kinds.values() if i.group == group)
            raise Invalid(f'no kind "{_cut(kind)}" in group "{group}"{_did_you_mean(kind, known)}')
        if version not in info.versions:
            raise Invalid(f'no version "{_cut(version)}" of {kind}: use one of {", ".join(info.versions)}')
        return info

    def by_word(self, word: str) -> KindInfo:
        """The kind that a command line word names; raises Invalid when there is none."""
        for info in self.kinds.values():
            if info.matches(word):
                return info
        known = sorted(info.singular for info in self.kinds.values())
        raise Invalid(f'no kind "{_cut(word)}"{_did_you_mean(word.lower(), known)}: known are {", ".join(known)}')

    def decode(self, info: KindInfo, body: Mapping[str, Any], *, strict: bool = True) -> AnyResource:
        """A typed Resource of a manifest of this kind; raises Invalid naming every wrong field.

        With `strict` an unknown field in `spec` is an error too.
        """
        metadata, spec, given = (_mapping(body, name) for name in ("metadata", "spec", "status"))
        problems = [f"unknown field spec.{path}" for path in unknown_fields(info.spec, spec)] if strict else []
        meta = _validated(ObjectMeta, metadata, "metadata", problems)
        typed = _validated(info.spec, spec, "spec", problems)
        status = _validated(info.status, given, "status", problems)
        if problems or meta is None or typed is None or status is None:
            raise Invalid(join_problems(problems))
        return Resource(str(body["apiVersion"]), info.kind, meta, typed, status)

    def __iter__(self) -> Iterator[KindInfo]:
        return iter(self.kinds.values())


def _validated(model: type[Any], data: Any, where: str, problems: list[str]) -> Any:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems.extend(f"{_path(where, e['loc'])}: {_message(e)}" for e in error.errors(include_url=False, include_context=True))
        return None


def _mapping(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"{name} must be a mapping, not {_short(value)}")
    found: dict[str, Any] = drop_nulls(value)
    return found


def join_problems(problems: Sequence[str]) -> str:
    """One message of bounded length that names the first of `problems` and counts the rest."""
    more = len(problems) - MAX_PROBLEMS
    return "; ".join(problems[:MAX_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _path(where: str, loc: tuple[int | str, ...]) -> str:
    text = where
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{_cut(part)}"
    return text


def _message(error: Any) -> str:
    if error["type"] == "missing":
        return "is required"
    text: str = error["msg"].removeprefix("Value error, ")
    if error["type"] in {"value_error", "assertion_error"}:
        return text
    quotes = " (put it in quotes)" if error["type"] == "string_type" and isinstance(error["input"], int | float) else ""
    return f"{text}, not {_short(error['input'])}{quotes}"


def _short(value: Any) -> str:
    """What a message shows of a wrong value: bounded before it is made into text, and without credentials."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(_cut(redact(value[: 10 * MAX_SHOWN]))) if isinstance(value, str) else _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1) if len(word) <= MAX_SHOWN else []
    return f' (did you mean "{close[0]}"?)' if close else ""


def unknown_fields(model: type[BaseModel], data: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Paths in `data` that `model` has no field for, each with a suggestion where one is close; at most a bounded number."""
    found: list[str] = []
    shape = _fields(model)
    for name, value in data.items():
        if len(found) > MAX_PROBLEMS:
            break
        path = f"{prefix}{_cut(name)}"
        if name not in shape:
            found.append(path + _did_you_mean(name, list(shape)))
            continue
        child = shape[name]
        if child is not None:
            for at, part in _parts(value, path, of_map=child.of_map):
                if len(found) > MAX_PROBLEMS:
                    break
                found += unknown_fields(child.model, part, f"{at}.")
    return found


@dataclass(frozen=True, slots=True)
class _Inside:
    """What a field holds: objects of a model, one or a list of them, or by name in a map."""

    model: type[BaseModel]
    of_map: bool = False


def _parts(value: Any, path: str, *, of_map: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects in the value of a field, with their paths; what has another type is left to the check of types."""
    items: Iterator[tuple[str, Any]] = iter(())
    if isinstance(value, dict):
        items = ((f"{path}.{_cut(str(name))}", part) for name, part in value.items()) if of_map else iter([(path, value)])
    elif isinstance(value, list):
        items = ((f"{path}[{i}]", part) for i, part in enumerate(value))
    return ((at, part) for at, part in items if isinstance(part, dict))


@lru_cache(maxsize=256)
def _fields(model: type[BaseModel]) -> dict[str, _Inside | None]:
    """Field name outside → what is inside it (also inside a list or an optional), None for plain values and open maps."""
    return {info.alias or name: _inner(info.annotation) for name, info in model.model_fields.items()}


def _inner(annotation: Any) -> _Inside | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _Inside(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        return None
    if origin is dict:
        value = _inner(arguments[1])
        return None if value is None else _Inside(value.model, of_map=True)
    for part in arguments if origin is not Union else annotation.__args__:
        found = _inner(part)
        if found is not None:
            return found
    return None
