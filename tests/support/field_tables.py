"""Tables of the fields of a kind for the documentation, made from its definition: name, what is written there, meaning."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

TABLE = re.compile(r"(?P<head><!-- fields of (?P<kind>\w+) at (?P<path>[\w.]+) -->\n).*?(?=<!-- end of fields -->)", re.DOTALL)
"""Where a page has a table: the kind, and the path of the object whose fields it has."""

MATCH = {"exact", "prefix", "suffix", "regex"}
"""The fields of a match of a text."""
MANY = {"text": "texts", "number": "numbers", "object": "objects", "match of a text": "matches of texts"}
"""What lists and maps are of."""

Object = dict[str, Any]


def table(schema: Object, path: str, elsewhere: Collection[str]) -> str:
    """The table of the fields below a path; those below the paths in `elsewhere` have tables of their own.

    Args:
        schema: The schema of whole objects.
        path: Such as `spec.analysis.metrics`: an object, or a list or map of objects.
        elsewhere: Paths of other tables.
    """
    rows = [f"| `{name}` | {_written(node)} | {_meaning(node)} |\n" for name, node in _fields(_at(schema, path), path, elsewhere)]
    return "\n| field | written as | meaning |\n|---|---|---|\n" + "".join(rows) + "\n"


def paths(schema: Object, top: str) -> set[str]:
    """The paths of all fields below a top-level field; those of entries of lists and maps follow the path of the list or map."""
    return {f"{top}.{name}" for name, _ in _fields(schema["properties"][top], top, ())}


def used(value: Any, path: str, schema: Object) -> Iterator[str]:
    """The paths of the fields that a value sets."""
    inner = _entries(schema)
    if inner is not None:
        for part in value.values() if isinstance(value, dict) else value:
            yield from used(part, path, inner)
    elif isinstance(value, dict) and "properties" in schema:
        for name, part in value.items():
            yield f"{path}.{name}"
            yield from used(part, f"{path}.{name}", schema["properties"][name])


def _at(schema: Object, path: str) -> Object:
    for name in path.split("."):
        schema = _inside(schema)["properties"][name]
    return schema


def _entries(node: Object) -> Object | None:
    """The schema of the entries of a list or a map, None for anything else."""
    found = node.get("items") or node.get("additionalProperties")
    return found if isinstance(found, dict) else None


def _inside(node: Object) -> Object:
    while (entries := _entries(node)) is not None:
        node = entries
    return node


def _fields(node: Object, path: str, elsewhere: Collection[str], prefix: str = "") -> Iterator[tuple[str, Object]]:
    fields = {} if _is_match(node) else _inside(node).get("properties", {})
    for name, part in fields.items():
        yield prefix + name, part
        if f"{path}.{name}" not in elsewhere:
            yield from _fields(part, f"{path}.{name}", elsewhere, f"{prefix}{name}.")


def _is_match(node: Object) -> bool:
    """Whether a node, or each of its entries, is a match of a text: pages say once what that may be."""
    names = _inside(node).get("properties", {}).keys()
    return bool(names) and names <= MATCH


def _written(node: Object) -> str:
    if "enum" in node:
        return ", ".join(f"`{word}`" if word else "empty" for word in node["enum"]) + _default(node)
    if "x-kubernetes-int-or-string" in node:
        return "number or text"
    if "type" not in node:
        return "anything"
    if (entries := _entries(node)) is not None:
        return f"{'list' if node['type'] == 'array' else 'map'} of {MANY.get(_written(entries), _written(entries))}{_most(node)}"
    if node["type"] == "string":
        return ("time" if node.get("format") == "date-time" else "text") + _default(node)
    if _is_match(node):
        return "match of a text"
    return {"object": "object", "boolean": "true or false"}.get(node["type"], "number") + _default(node)


def _default(node: Object) -> str:
    return f"; `{node['default']}` when unset" if node.get("default") else ""


def _most(node: Object) -> str:
    return f", at most {node['maxItems']}" if "maxItems" in node else ""


def _meaning(node: Object) -> str:
    text = str(node["description"]).removesuffix(".").replace("|", "\\|")
    return f"*extension*: {text.removeprefix('Extension:').strip()}" if text.startswith("Extension:") else text
