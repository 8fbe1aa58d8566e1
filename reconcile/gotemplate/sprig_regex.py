"""Sprig's regular expressions: Go's rules for empty matches and replacements, on RE2."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

from reconcile.gotemplate.budget import spend
from reconcile.gotemplate.failures import CallError
from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.strconv import quote
from reconcile.gotemplate.values import STRINGS, Slice, new_strings, to_bytes, to_text
from reconcile.regexp import Regexp, RegexpError
from reconcile.regexp.template import split_template

REGEX: Final = Family()

_META: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")
_COMPILE_COST: Final = 2000


class Searcher(Regexp):
    """A pattern that gives all its matches in a text, as Go's `FindAll` and `ReplaceAll` see them."""

    __slots__ = ()

    def _search(self, data: bytes, at: int) -> Any:
        spend(1)
        return self._compiled.search(data, at)

    def first(self, data: bytes) -> bytes:
        """The first match; empty when there is none."""
        found = self._search(data, 0)
        return found.group(0) if found else b""

    def spans(self, data: bytes, limit: int) -> Iterator[tuple[int, int]]:
        """Start and end of at most `limit` matches (negative: all); an empty match right behind another one does not count."""
        at, ended, count = 0, -1, 0
        while at <= len(data) and (limit < 0 or count < limit):
            found = self._search(data, at)
            if not found:
                return
            start, end = found.span()
            if end > at:
                accepted, at = True, end
            else:
                accepted, at = start != ended, at + _width(data, at)
            if start == end == ended:
                accepted = False
            ended = end
            if accepted:
                count += 1
                yield start, end

    def replaced(self, data: bytes, replacement: Callable[[Any], bytes]) -> bytes:
        """`data` with every match replaced."""
        out: list[bytes] = []
        at = ended = 0
        while at <= len(data):
            found = self._search(data, at)
            if not found:
                break
            start, end = found.span()
            out.append(data[ended:start])
            if end > ended or start == 0:
                piece = replacement(found)
                spend(len(piece))
                out.append(piece)
            ended = end
            at = max(at + _width(data, at), end)
        return b"".join([*out, data[ended:]])


def _width(data: bytes, at: int) -> int:
    """Bytes of the character at `at`; at least one, so that a search always moves on."""
    lead = data[at] if at < len(data) else 0
    size = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    try:
        data[at : at + size].decode()
    except UnicodeDecodeError:
        return 1
    return size


@lru_cache(maxsize=16)
def _compiled(pattern: str) -> Searcher:
    return Searcher(pattern)


def _compile(pattern: str, text: str) -> tuple[Searcher, bytes]:
    """The pattern and the text to search; for a wrong pattern Go's error."""
    data = to_bytes(text)
    spend(_COMPILE_COST + 10 * len(pattern) + len(data))
    try:
        return _compiled(pattern), data
    except RegexpError as error:
        raise CallError(str(error)) from None


def _sure(pattern: str, text: str) -> tuple[Searcher, bytes]:
    """As `_compile`, but complaining like Go's `MustCompile`."""
    data = to_bytes(text)
    spend(_COMPILE_COST + 10 * len(pattern) + len(data))
    try:
        return _compiled(pattern), data
    except RegexpError as error:
        shown = quote(pattern) if "`" in pattern or not pattern.isprintable() else f"`{pattern}`"
        raise CallError(f"regexp: Compile({shown}): {error}") from None


def _found(search: tuple[Searcher, bytes], limit: int) -> Slice:
    pattern, data = search
    parts = [to_text(data[start:end]) for start, end in pattern.spans(data, limit)]
    return new_strings(parts) if parts else Slice(STRINGS, (), nil=True)


def _replaced(search: tuple[Searcher, bytes], template: str) -> str:
    pattern, data = search
    pieces = split_template(template, pattern.names)

    def expand(found: Any) -> bytes:
        return b"".join(to_bytes(piece) if isinstance(piece, str) else _group(found, piece) for piece in pieces)

    return to_text(pattern.replaced(data, expand))


def _group(found: Any, groups: tuple[int, ...]) -> bytes:
    for group in groups:
        value: bytes | None = found.group(group)
        if value is not None:
            return value
    return b""


def _replaced_literally(search: tuple[Searcher, bytes], replacement: str) -> str:
    pattern, data = search
    literal = to_bytes(replacement)
    return to_text(pattern.replaced(data, lambda _: literal))


def _split(pattern: str, search: tuple[Searcher, bytes], limit: int) -> Slice:
    searcher, data = search
    if limit == 0:
        return Slice(STRINGS, (), nil=True)
    if pattern and not data:
        return new_strings([""])
    parts: list[str] = []
    begin = end = 0
    for start, stop in searcher.spans(data, limit):
        if limit > 0 and len(parts) == limit - 1:
            break
        end = start
        if stop != 0:
            parts.append(to_text(data[begin:end]))
        begin = stop
    if end != len(data):
        parts.append(to_text(data[begin:]))
    return new_strings(parts)


@REGEX.add("regexMatch")
def _regex_match(pattern: str, text: str) -> bool:
    data = to_bytes(text)
    spend(_COMPILE_COST + len(data))
    try:
        return bool(_compiled(pattern).first(data)) or next(_compiled(pattern).spans(data, 1), None) is not None
    except RegexpError:
        return False


@REGEX.add("mustRegexMatch")
def _must_regex_match(pattern: str, text: str) -> bool:
    searcher, data = _compile(pattern, text)
    return next(searcher.spans(data, 1), None) is not None


@REGEX.add("regexFind")
def _regex_find(pattern: str, text: str) -> str:
    searcher, data = _sure(pattern, text)
    return to_text(searcher.first(data))


@REGEX.add("mustRegexFind")
def _must_regex_find(pattern: str, text: str) -> str:
    searcher, data = _compile(pattern, text)
    return to_text(searcher.first(data))


@REGEX.add("regexFindAll")
def _regex_find_all(pattern: str, text: str, limit: int) -> Slice:
    return _found(_sure(pattern, text), limit)


@REGEX.add("mustRegexFindAll")
def _must_regex_find_all(pattern: str, text: str, limit: int) -> Slice:
    return _found(_compile(pattern, text), limit)


@REGEX.add("regexReplaceAll")
def _regex_replace_all(pattern: str, text: str, template: str) -> str:
    return _replaced(_sure(pattern, text), template)


@REGEX.add("mustRegexReplaceAll")
def _must_regex_replace_all(pattern: str, text: str, template: str) -> str:
    return _replaced(_compile(pattern, text), template)


@REGEX.add("regexReplaceAllLiteral")
def _regex_replace_all_literal(pattern: str, text: str, replacement: str) -> str:
    return _replaced_literally(_sure(pattern, text), replacement)


@REGEX.add("mustRegexReplaceAllLiteral")
def _must_regex_replace_all_literal(pattern: str, text: str, replacement: str) -> str:
    return _replaced_literally(_compile(pattern, text), replacement)


@REGEX.add("regexSplit")
def _regex_split(pattern: str, text: str, limit: int) -> Slice:
    return _split(pattern, _sure(pattern, text), limit)


@REGEX.add("mustRegexSplit")
def _must_regex_split(pattern: str, text: str, limit: int) -> Slice:
    return _split(pattern, _compile(pattern, text), limit)


@REGEX.add("regexQuoteMeta")
def _regex_quote_meta(text: str) -> str:
    return _META.sub(r"\\\g<0>", text)
