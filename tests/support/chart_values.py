"""What is made from the chart's values.yaml: values.schema.json, and the table of values in the chart's README.

`python -m tests.support.chart_values` writes both; a test compares. A value's default gives the type and the comment above it the
description; lines of that comment which begin with `@schema` are merged, as YAML, into its schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from .controlplane_build import REPOSITORY

CHART = REPOSITORY / "helm"
VALUES, SCHEMA, README = CHART / "values.yaml", CHART / "values.schema.json", CHART / "README.md"
BEGIN, END = "<!-- values: made from values.yaml -->\n", "<!-- end of values -->\n"

TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
GENERATED = "Made from values.yaml by `python -m tests.support.chart_values`; change that instead."


class Undocumented(Exception):
    """A value has no comment."""


@dataclass(frozen=True)
class Setting:
    """One value of the chart.

    Attributes:
        path: Names from the root, such as `("image", "tag")`.
        default: Its value in values.yaml.
        description: Its comment, in one line; empty for an object that only groups others.
        more: What its `@schema` lines say.
        children: The settings in it.
    """

    path: tuple[str, ...]
    default: Any
    description: str
    more: dict[str, Any]
    children: tuple[Setting, ...]

    def walk(self) -> Iterator[Setting]:
        """This setting and all in it, in the order of the file."""
        yield self
        for child in self.children:
            yield from child.walk()


def read(text: str) -> tuple[Setting, ...]:
    """The settings of a values.yaml.

    Raises:
        Undocumented: A value has no comment.
    """
    return _settings(yaml.compose(text), text.splitlines(), ())


def schema(settings: tuple[Setting, ...]) -> dict[str, Any]:
    """The JSON schema (draft 7, which Helm knows) of all values."""
    properties = {setting.path[-1]: _schema(setting) for setting in settings}
    # Helm gives this to every chart that is part of another.
    properties["global"] = {"type": "object", "description": "Values of the parent chart; not used."}
    root = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the imagebot chart", "$comment": GENERATED}
    return {**root, "type": "object", "additionalProperties": False, "properties": properties}


def table(settings: tuple[Setting, ...]) -> str:
    """The table of values, in Markdown."""
    lines = ["| value | default | meaning |\n", "|---|---|---|\n"]
    for top in settings:
        for setting in top.walk():
            if setting.description:
                default = json.dumps(setting.default, ensure_ascii=False)
                shown = "" if setting.children else f"`{default}`"
                lines.append(f"| `{'.'.join(setting.path)}` | {shown} | {setting.description} |\n")
    return "".join(lines)


def schema_text(text: str) -> str:
    """The content of values.schema.json that belongs to a values.yaml."""
    return json.dumps(schema(read(text)), indent=2, ensure_ascii=False) + "\n"


def readme_text(readme: str, text: str) -> str:
    """A README with the table that belongs to a values.yaml in its place."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table(read(text))}{END}{after}"


def _settings(node: yaml.Node | None, lines: list[str], path: tuple[str, ...]) -> tuple[Setting, ...]:
    if not isinstance(node, yaml.MappingNode):
        return ()
    return tuple(_setting(key, value, lines, path) for key, value in node.value)


def _setting(key: yaml.Node, value: yaml.Node, lines: list[str], above: tuple[str, ...]) -> Setting:
    comment = _comment(lines, key.start_mark.line, key.start_mark.column)
    path = (*above, str(key.value))
    more: dict[str, Any] = {}
    for line in comment:
        if line.startswith("@schema "):
            more |= yaml.safe_load(line.removeprefix("@schema "))
    description = " ".join(line for line in comment if not line.startswith("@schema "))
    default = yaml.safe_load(yaml.serialize(value))
    # In an object whose names anybody may choose only what has a comment is a setting of its own.
    children = () if _is_bare(value, lines) and "additionalProperties" in more else _settings(value, lines, path)
    if not description and not children:
        raise Undocumented(".".join(path))
    return Setting(path, default, description, more, children)


def _is_bare(node: yaml.Node, lines: list[str]) -> bool:
    """Whether nothing in a mapping has a comment."""
    keys = [key.start_mark for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    return not any(_comment(lines, mark.line, mark.column) for mark in keys)


def _comment(lines: list[str], line: int, column: int) -> list[str]:
    """The lines of comment directly above a key, indented like it, without their marks."""
    first = line
    while first and lines[first - 1].startswith(f"{' ' * column}#"):
        first -= 1
    return [re.sub(r"^ *# ?", "", text).strip() for text in lines[first:line]]


def _schema(setting: Setting) -> dict[str, Any]:
    found: dict[str, Any] = {"type": TYPES[type(setting.default)]}
    if setting.description:
        found["description"] = setting.description
    if not isinstance(setting.default, dict):
        found["default"] = setting.default
    elif setting.children:
        found |= {"additionalProperties": False, "properties": {child.path[-1]: _schema(child) for child in setting.children}}
    return found | setting.more


def main() -> None:
    """Write both files."""
    text = VALUES.read_text(encoding="utf-8")
    SCHEMA.write_text(schema_text(text), encoding="utf-8")
    README.write_text(readme_text(README.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main()
