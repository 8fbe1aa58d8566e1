"""Values that try a schema out: for each of its fields what should be taken and what should be refused.

The cases say nothing of what is right: two schemas are asked the same, and their answers are compared.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

RULES = "x-kubernetes-validations"

Object = dict[str, Any]
Path = tuple[str | int, ...]

SAMPLES = {
    r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$": "5m",
    r"^([0-9]+(\.[0-9]+)?(ms|s|m))+$": "5m",
    "^(http|https|ssh)://.*$": "https://example.com/a",
    "^(http|https|oci)://.*$": "https://example.com/a",
    "^(http|https)://.*$": "https://example.com/a",
    "^oci://.*$": "oci://example.com/a",
    "^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$": "sha256:abc",
    r"^[0-9]+(m|s)": "5m",
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": "apps",
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$": "apps",
    r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$": "apps",
    "date-time": "2024-01-02T03:04:05Z",
}
"""A good text for each pattern and format; a name such as `Ready` is good for all others."""
PLAIN = "5m"
"""A text without a pattern: good as a duration too, because v1beta1 had no pattern for some."""

OF_EACH_TYPE: tuple[Any, ...] = (7, 1.5, "text", True, ["text"], {"key": "text"}, [], {}, "")
TEXTS = (
    " ", "5", "5d", "-5m", "1h30m", "1.5h", "300ms", "5m ", "5m\n", "5M", "x5m", ".5m", "5.m", "1h 5m", "0s",
    "http://", "ssh://git@host/a", "git@host:a", "file:///a", "HTTPS://host/a", " https://host/a", "git://host/a", "https:/host",
    "oci://", "oci://host/a", "OCI://host/a", "oci:/host",
    "sha256:", "SHA256:abc", "sha256:a b", ":abc", "sha256+b64u:a=-_", "Ready", "a.b/C", "a/b/C",
    "-a", "a-", "a b", "ä", "A:b,c_", "A:",
    "1m30s", "5mm", "m5", "s", "apps", "a.b", "a..b", "a.b.", "a_b", "a1-b", "1a",
)  # fmt: skip
"""Tried where a text has a pattern: some pass, some do not, whichever pattern it is."""
TIMES = ("yesterday", "2024-01-02", "2024-01-02T03:04:05+02:00", "2024-01-02T03:04:05.123456Z", "2024-13-02T03:04:05Z", "")
NUMBERS = (-(2**63), -1, 0, 2**31, 2**63 - 1, 2**63, 1.0)


@dataclass(frozen=True)
class Case:
    """One value for `spec` or `status`, named for what is special about it."""

    name: str
    value: Any


def cases(schema: Object, *fixed: Object) -> list[Case]:
    """All cases of an object's schema.

    Args:
        schema: The schema of `spec` or `status`.
        fixed: For each full example what fields at its top are, where a rule forbids the first choice of each; None is left out.
    """
    fulls = [example_of(schema, changes, choice) for changes in fixed or ({},) for choice in range(_most_choices(schema))]
    seen: set[Path] = set()
    nested = [(path, node) for path, node in _nodes(schema, ()) if RULES in node]
    found = {case.name: case for case in (*_whole(schema, fulls[0]), *_by_rule(schema), *_by_inner_rule(nested, fulls))}
    found |= {f"full {n}": Case(f"full {n}", example) for n, example in enumerate(fulls[1:], 2)}
    for example in fulls:
        # What an earlier example has was tried there.
        nodes = [(path, node) for path, node in _nodes(schema, ()) if path not in seen and _has(example, path)]
        seen.update(path for path, _ in nodes)
        found |= {case.name: case for case in (*_by_field(nodes, example), *_by_choice(nodes, example))}
    found |= {case.name: case for case in _by_choice([((), schema)], fulls[0])}
    return list(found.values())


def example_of(schema: Object, changes: Object, choice: int = 0) -> Object:
    """A value with every field set except those that `changes` has None for, which says what others are."""
    return {name: value for name, value in {**sample(schema, choice), **changes}.items() if value is not None}


def sample(schema: Object, choice: int = 0) -> Any:
    """A value with every field set that may be set together, good if CEL rules do not forbid it.

    Args:
        schema: Of the value.
        choice: Which of its alternatives (`oneOf`), where it has some.
    """
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("x-kubernetes-int-or-string") or ("type" not in schema and schema.get("x-kubernetes-preserve-unknown-fields")):
        return PLAIN
    match schema.get("type"):
        case "object":
            if "additionalProperties" in schema:
                return {"key": sample(schema["additionalProperties"], choice)}
            left_out = _not_chosen(schema, choice)
            return {name: sample(part, choice) for name, part in _parts(schema).items() if name not in left_out}
        case "array":
            return [sample(schema["items"], choice)]
        case "string":
            known = schema.get("pattern") or schema.get("format")
            return SAMPLES.get(known, "Ready") if known else PLAIN
        case "integer" | "number":
            return max(1, schema.get("minimum", 1))
        case "boolean":
            return True
    raise ValueError(f"no sample for {schema}")


def least(schema: Object) -> Any:
    """A value with only what is required."""
    if schema.get("type") != "object":
        return sample(schema)
    names = [*schema.get("required", ()), *(_alternatives(schema) or [()])[0]]
    return {name: least(part) for name, part in _parts(schema).items() if name in names}


def _alternatives(schema: Object) -> list[tuple[str, ...]]:
    """What each alternative of a `oneOf` asks for; one that asks for nothing is left out."""
    return [tuple(rule["required"]) for rule in schema.get("oneOf", ()) if "required" in rule]


def _not_chosen(schema: Object, choice: int) -> set[str]:
    """The fields that only other alternatives than this one ask for."""
    alternatives = _alternatives(schema)
    chosen = alternatives[choice % len(alternatives)] if alternatives else ()
    return {name for names in alternatives for name in names} - set(chosen)


def _parts(schema: Object) -> Object:
    """The fields of an object, each with what the alternatives say of its inside."""
    said = {name: part for rule in schema.get("oneOf", ()) for name, part in rule.get("properties", {}).items()}
    return {name: said.get(name, {}) | part for name, part in schema.get("properties", {}).items()}


def _most_choices(schema: Object) -> int:
    return max([1, *(len(_alternatives(node)) for node in (schema, *(part for _, part in _nodes(schema, ()))))])


def _whole(schema: Object, full: Object) -> Iterator[Case]:
    yield Case("full", full)
    yield Case("least", least(schema))
    yield from (Case(f"all of it is {value!r}", value) for value in (None, *OF_EACH_TYPE))


def _by_field(nodes: list[tuple[Path, Object]], full: Object) -> Iterator[Case]:
    yield _changed(full, (), _with_unknown, "with an unknown field")
    for path, node in nodes:
        yield _removed(full, path)
        for value in (None, *OF_EACH_TYPE, *_special(node)):
            text = repr(value) if len(repr(value)) < 60 else f"{repr(value)[:30]}... of {len(value)}"
            yield _changed(full, path, value, f"is {text}")
        if "properties" in node:
            yield _changed(full, path, _with_unknown, "with an unknown field")
            yield _changed(full, path, least(node), "with the least")
        if node.get("type") == "array":
            yield _changed(full, path, _doubled, "twice the same")
            yield _changed(full, path, _with_null, "with a null")


def _special(node: Object) -> Iterator[Any]:
    """Values at and beyond the bounds of a field."""
    yield from node.get("enum", ())
    if "enum" in node:
        yield from ("wrong", node["enum"][0].swapcase(), f"{node['enum'][0]} ")
    if "pattern" in node:
        yield from TEXTS
    if node.get("format") == "date-time":
        yield from TIMES
    if node.get("type") in {"integer", "number"}:
        yield from NUMBERS
    if limit := node.get("maxLength"):
        yield from ("a" * limit, "a" * (limit + 1), "ä" * limit)
    if limit := node.get("maxItems"):
        yield from ([sample(node["items"])] * limit, [sample(node["items"])] * (limit + 1))


def _by_rule(schema: Object) -> Iterator[Case]:
    """Every combination of the fields that the rules of the schema name."""
    for given in _combinations(schema):
        yield Case(f"rules with {given}", least(schema) | given)


def _by_inner_rule(nodes: list[tuple[Path, Object]], fulls: list[Object]) -> Iterator[Case]:
    """The same for the rules of parts, each in the first example that has the part."""
    for path, node in nodes:
        example = next(example for example in fulls if _has(example, path))
        for given in _combinations(node):
            yield _changed(example, path, least(node) | given, f"rules with {given}")


def _combinations(node: Object) -> Iterator[Object]:
    names = sorted(set(re.findall(r"self\.(\w+)", " ".join(rule["rule"] for rule in node.get(RULES, ())))))
    choices = [(None, *_choices(node["properties"][name])) for name in names]
    for values in itertools.product(*choices) if names else ():
        yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _choices(node: Object) -> list[Any]:
    """Values of a field that a rule names: each of an enumeration, also of those inside, with all fields and with the least."""
    if "enum" in node:
        return list(node["enum"])
    inner = {name: part["enum"] for name, part in node.get("properties", {}).items() if "enum" in part}
    if not inner:
        return [sample(node)]
    chosen = [dict(zip(inner, values, strict=True)) for values in itertools.product(*inner.values())]
    return [whole | values for whole in (sample(node), least(node)) for values in chosen]


def _by_choice(nodes: list[tuple[Path, Object]], full: Object) -> Iterator[Case]:
    """Every combination of the fields that the alternatives of an object name."""
    for path, node in nodes:
        names = sorted({name for names in _alternatives(node) for name in names})
        rest = {name: part for name, part in _at(full, path).items() if name not in names} if names else {}
        for count in range(len(names) + 1) if names else ():
            for chosen in itertools.combinations(names, count):
                value = rest | {name: sample(node["properties"][name]) for name in chosen}
                yield _changed(full, path, value, f"with {', '.join(chosen) or 'nothing'} of {', '.join(names)}")


def _has(value: Any, path: Path) -> bool:
    try:
        _at(value, path)
    except (KeyError, IndexError):
        return False
    return True


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _nodes(schema: Object, path: Path) -> Iterator[tuple[Path, Object]]:
    for name, part in _parts(schema).items():
        yield (*path, name), part
        yield from _nodes(part, (*path, name))
    for key, step in (("items", 0), ("additionalProperties", "key")):
        if key in schema:
            yield (*path, step), schema[key]
            yield from _nodes(schema[key], (*path, step))


def _with_unknown(found: Object) -> Object:
    return {**found, "unknownField": 1}


def _doubled(found: list[Any]) -> list[Any]:
    return [*found, *found]


def _with_null(found: list[Any]) -> list[Any]:
    return [*found, None]


def _changed(full: Object, path: Path, change: Any, what: str) -> Case:
    """`full` with what is at `path` replaced by `change`, or by what that makes of it."""
    top: Any = {"top": deepcopy(full)}
    at, last = top, "top"
    step: Any
    for step in path:
        at, last = at[last], step
    at[last] = change(at[last]) if callable(change) else change
    return Case(f"{'.'.join(map(str, path))} {what}".strip(), top["top"])


def _removed(full: Object, path: Path) -> Case:
    value = deepcopy(full)
    at: Any = value
    for step in path[:-1]:
        at = at[step]
    del at[path[-1]]
    return Case(f"{'.'.join(map(str, path))} is missing", value)
