"""What the transforming forms of `${…}` make of a value: case, length, part, prefix and suffix, replacement. Pure.

Values are text; bytes that are no UTF-8 (half a character, a binary Secret) are kept in them as Python's `surrogateescape` does.
Positions count bytes, as they do in Flux's substitution (a descendant of drone/envsubst).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_ESCAPED = re.compile("[\udc80-\udcff]")
_INTEGER = re.compile(r"[+-]?[0-9]+\Z", re.ASCII)
_REPLACEMENT = "\ufffd"
_LARGEST = 2**63
_LOOP = 4  # what a character costs in a loop of ours, compared with one that is only copied


def raw(text: str) -> bytes:
    """The bytes that `text` stands for."""
    return text.encode("utf-8", "surrogateescape")


def settled(text: str) -> str:
    """`text` with halves of characters that have met joined again."""
    return raw(text).decode("utf-8", "surrogateescape") if _ESCAPED.search(text) else text


def broken(text: str) -> bool:
    """Whether `text` has bytes that are no UTF-8."""
    return _ESCAPED.search(text) is not None


# --- case


def upper(text: str) -> str:
    """Each character's upper case, where that is one character."""
    return text.upper() if text.isascii() else "".join(map(_upper, text))


def lower(text: str) -> str:
    """Each character's lower case."""
    return text.lower() if text.isascii() else "".join(map(_lower, text))


def upper_first(text: str) -> str:
    """The first character's upper case, the rest as it is."""
    return upper(text[:1]) + text[1:]


def lower_first(text: str) -> str:
    """The first character's lower case, the rest as it is."""
    return lower(text[:1]) + text[1:]


def _upper(character: str) -> str:
    # Where the full mapping has several characters, the simple one (if there is any) is that of titles: U+1FB3 becomes U+1FBC.
    return next((other for other in (character.upper(), character.title()) if len(other) == 1), character)


def _lower(character: str) -> str:
    return "i" if character == "\u0130" else character.lower()


# --- parts


def length(text: str) -> str:
    """How many bytes, as text."""
    return str(len(text) if text.isascii() else len(raw(text)))


def part(text: str, position: str, size: str | None) -> str:
    """Bytes from `position`, `size` of them or all.

    A negative position counts from the end and stops at the start; a negative size leaves out so many at the end. What is no
    integer of 64 bits leaves the value as it is.
    """
    start = _integer(position)
    count = None if size is None else _integer(size)
    if start is None or (size is not None and count is None):
        return text
    data = raw(text)
    if start < 0:
        start = max(len(data) + start, 0)
    end = len(data) if count is None else start + count if count >= 0 else len(data) + count
    return data[start : max(end, 0)].decode("utf-8", "surrogateescape")


def _integer(text: str) -> int | None:
    if len(text) > 40 or not _INTEGER.match(text):
        return None
    number = int(text)
    return number if -_LARGEST <= number < _LARGEST else None


# --- patterns


@dataclass(frozen=True, slots=True)
class _Class:
    """`[…]`: inclusive ranges of characters."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool

    def matches(self, character: str) -> bool:
        return any(low <= character <= high for low, high in self.ranges) is not self.negated


_Element = str | _Class | None  # one character, a class, or any character


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed glob of `size` characters: elements that match one each, and behind how many of them a `*` stands (bits)."""

    elements: tuple[_Element, ...]
    stars: int
    size: int

    def mask(self, character: str, half: bool) -> int:
        """Bits of the elements that match; `half` is a byte of a character, which no literal matches."""
        known = _REPLACEMENT if half or broken(character) else character
        return _bits(
            (element == character and not half) if isinstance(element, str) else element is None or element.matches(known)
            for element in self.elements
        )


def _bits(flags: Iterable[bool]) -> int:
    """A number whose bits are `flags`, the lowest first; in linear time, as shifting each to its place would not be."""
    text = "".join("1" if flag else "0" for flag in flags)
    return int(text[::-1] or "0", 2)


def parse_pattern(text: str) -> Pattern | None:
    """A glob as Go's `path.Match` reads it, except that `*` and `?` also match a slash. None when it is malformed."""
    elements: list[_Element] = []
    stars: set[int] = set()
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == "*":
            stars.add(len(elements))
        elif character == "?":
            elements.append(None)
        elif character == "[":
            found = _class(text, at)
            if found is None:
                return None
            element, at = found
            elements.append(element)
        elif character == "\\":
            if at == len(text):
                return None
            elements.append(text[at])
            at += 1
        else:
            elements.append(character)
    return Pattern(tuple(elements), _bits(place in stars for place in range(len(elements) + 1)), len(text))


def _class(text: str, at: int) -> tuple[_Class, int] | None:
    negated = text.startswith("^", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while True:
        if ranges and text.startswith("]", at):
            return _Class(tuple(ranges), negated), at + 1
        low = _bound(text, at)
        if low is None:
            return None
        high = _bound(text, low[1] + 1) if text.startswith("-", low[1]) else low
        if high is None:
            return None
        ranges.append((low[0], high[0]))
        at = high[1]


def _bound(text: str, at: int) -> tuple[str, int] | None:
    """A character of a class and the place behind it; there must be more text."""
    if at >= len(text) or text[at] in "-]":
        return None
    at += text[at] == "\\"
    if at >= len(text) - 1 or broken(text[at]):
        return None
    return text[at], at + 1


def cut_prefix(text: str, pattern: str, longest: bool, spend: Callable[[int], None]) -> str:
    """`text` without its shortest or longest matching prefix that is not empty; unchanged when there is none.

    `spend` is told the number of steps before they are made.
    """
    parsed = parse_pattern(pattern)
    if parsed is None:
        return text
    spend(_LOOP * len(text) * (1 + len(parsed.elements) // 256))
    end = _prefix(text, parsed, longest, spend)
    return raw(text)[end:].decode("utf-8", "surrogateescape") if end else text


def cut_suffix(text: str, pattern: str, longest: bool, spend: Callable[[int], None]) -> str:
    """The same at the end: value and pattern are both read backwards, character by character."""
    return _backwards(cut_prefix(_backwards(text), _backwards(pattern), longest, spend))


def _backwards(text: str) -> str:
    return _ESCAPED.sub(_REPLACEMENT, text)[::-1]


def _prefix(text: str, pattern: Pattern, longest: bool, spend: Callable[[int], None]) -> int:
    """How many bytes match, 0 for none.

    All places in the pattern are followed at once, a bit each (Baeza-Yates and Gonnet's Shift-And), so time grows with the
    text alone. Prefixes end at any byte: the beginning of a character counts as so many unknown characters.
    """
    whole: dict[str, int] = {}
    half = pattern.mask(_REPLACEMENT, half=True)
    final = 1 << len(pattern.elements)
    stars = pattern.stars
    state, offset, found = 1, 0, 0
    for character in text:
        width = 1 if character < "\x80" or broken(character) else len(character.encode())
        beginning = state
        for size in range(1, width):
            beginning = (beginning & half) << 1 | (beginning & stars)
            if beginning & final:
                found = offset + size
                if not longest:
                    return found
        mask = whole.get(character)
        if mask is None:
            spend(2 * _LOOP * pattern.size)
            mask = whole[character] = pattern.mask(character, half=False)
        skipped = state & stars
        for _ in range(1, width):
            skipped = (skipped & half) << 1 | (skipped & stars)
        state = (state & mask) << 1 | skipped
        offset += width
        if state & final:
            found = offset
            if not longest:
                return found
        if not state:
            break
    return found


# --- replacement


def replaced_size(text: str, old: str, new: str, count: int) -> int:
    """Characters that `replace` gives, at most."""
    times = text.count(old) if count < 0 else 1
    return len(text) + times * len(new)


def replace(text: str, form: str, old: str, new: str | None) -> str:
    """`/` the first, `//` all, `/#` at the start, `/%` at the end.

    Without a replacement the first two delete, and the others change nothing.
    """
    if form in ("/", "//"):
        return text.replace(old, new or "", 1 if form == "/" else -1)
    if new is None:
        return text
    if form == "/#":
        return new + text[len(old) :] if text.startswith(old) else text
    return text[: len(text) - len(old)] + new if text.endswith(old) else text
