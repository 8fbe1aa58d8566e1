"""Replacement templates of Go's `Regexp.Expand`: `$name`, `${name}`, `$1`, `${1}`, `$$`. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_INDEX = 100_000_000


def split_template(template: str, names: Sequence[str]) -> tuple[str | tuple[int, ...], ...]:
    """A template as literals and group references.

    A reference is the numbers of the groups that may stand for it: the first of them that took part is used, none gives the empty
    text. An unbraced name is the longest run of letters, digits and `_`. A `$` without a name is a literal.

    Args:
        template: the text with references.
        names: the names of the pattern's groups, group 0 first, "" for a group without a name.
    """
    pieces: list[str | tuple[int, ...]] = []
    literal: list[str] = []
    at = 0
    while (dollar := template.find("$", at)) >= 0:
        literal.append(template[at:dollar])
        at = dollar + 1
        if template.startswith("$", at):
            literal.append("$")
            at += 1
            continue
        name, end = _name(template, at)
        if not name:
            literal.append("$")
            continue
        at = end
        groups = _groups(name, names)
        if groups:
            pieces += ["".join(literal), groups]
            literal = []
    pieces.append("".join([*literal, template[at:]]))
    return tuple(piece for piece in pieces if piece)


def _name(template: str, at: int) -> tuple[str, int]:
    braced = template.startswith("{", at)
    start = end = at + 1 if braced else at
    while end < len(template) and (template[end] == "_" or template[end].isalpha() or template[end].isdecimal()):
        end += 1
    name = template[start:end]
    if not braced:
        return name, end
    return (name, end + 1) if template.startswith("}", end) else ("", end)


def _groups(name: str, names: Sequence[str]) -> tuple[int, ...]:
    if name.isascii() and name.isdigit() and (name[0] != "0" or name == "0") and len(name) < 10 and int(name) < _MAX_INDEX:
        return (int(name),) if int(name) < len(names) else ()
    return tuple(index for index, known in enumerate(names) if known == name)
