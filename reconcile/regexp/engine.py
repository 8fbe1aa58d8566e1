"""Go regular expressions on C++ RE2: linear time whatever the pattern. The only importer of `re2`. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import re2

from reconcile.regexp.syntax import RegexpError, parse
from reconcile.regexp.template import split_template

MAX_MEMORY = 64 << 20
"""Bytes that one compiled pattern may use; at the limit RE2 matches more slowly, it does not fail."""


class Regexp:
    """A compiled pattern. Searches are unanchored and leftmost-first, as Go's."""

    __slots__ = ("_compiled", "names", "pattern")

    def __init__(self, pattern: str) -> None:
        """Compile a pattern.

        Args:
            pattern: Go syntax.

        Raises:
            RegexpError: with Go's words.
        """
        syntax = parse(pattern)
        options = re2.Options()
        options.log_errors = False
        options.max_mem = MAX_MEMORY
        self.pattern = pattern
        self.names = syntax.names
        try:
            # Bytes in and out: offsets then need no conversion for each search.
            self._compiled: Any = re2.compile(syntax.translated.encode("utf-8"), options)
        except re2.error as error:
            kind = "expression nests too deeply" if b"depth" in error.args[0] else "expression too large"
            raise RegexpError(kind, pattern) from error

    def __repr__(self) -> str:
        return f"Regexp({self.pattern!r})"

    def matches(self, text: str) -> bool:
        """Whether the pattern is found anywhere in the text."""
        return self._compiled.search(_encoded(text)) is not None

    def expander(self, template: str) -> Callable[[str], str | None]:
        """A function that gives a text's first match as the template says, or None where nothing matches.

        Args:
            template: a replacement in the form of Go's `Regexp.Expand`, not empty.
        """
        pieces = split_template(template, self.names)
        search = self._compiled.search
        if len(pieces) == 1 and isinstance(pieces[0], tuple) and len(pieces[0]) == 1:
            group = pieces[0][0]

            def one_group(text: str) -> str | None:
                found = search(_encoded(text))
                return None if found is None else (found.group(group) or b"").decode("utf-8", "replace")

            return one_group

        def expand(text: str) -> str | None:
            found = search(_encoded(text))
            if found is None:
                return None
            return "".join(piece if isinstance(piece, str) else _first(found, piece) for piece in pieces)

        return expand


def _first(found: Any, groups: tuple[int, ...]) -> str:
    for group in groups:
        value = found.group(group)
        if value is not None:
            return str(value, "utf-8", "replace")
    return ""


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
