"""The constraint grammar of Masterminds/semver v3.5, quirks and messages included. Pure.

A constraint is turned into intervals of version keys (see `version`); checking, searching and counting are comparisons of bytes.
Limits are upstream's: 512 bytes and 32 alternatives.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from unicodedata import category

from reconcile.errors import Invalid
from reconcile.versions.version import (
    DOTTED,
    END,
    MAX_VERSION_BYTES,
    RELEASE,
    Version,
    encode,
    encode_number,
    encode_prerelease,
    is_prerelease,
)

MAX_CONSTRAINT_BYTES = 512
MAX_ALTERNATIVES = 32

# `|` in the class is upstream's: a bar counts as a digit when ranges are looked for, and fails later as a number.
_BLANK = r"[\t\n\f\r ]"
_PART = r"[0-9|xX*]+"
_OPERAND = rf"v?{_PART}(?:\.{_PART})?(?:\.{_PART})?(?:-{DOTTED})?(?:\+{DOTTED})?"
_HYPHEN_RANGE = re.compile(rf"{_BLANK}*({_OPERAND}){_BLANK}+-{_BLANK}+({_OPERAND}){_BLANK}*")
_TERM = re.compile(
    rf"(?P<operator>=>|=<|>=|<=|!=|~>|[=<>~^]|){_BLANK}*"
    rf"(?P<operand>v?(?P<major>{_PART})(?:\.(?P<minor>{_PART}))?(?:\.(?P<patch>{_PART}))?"
    rf"(?:-(?P<prerelease>{DOTTED}))?(?:\+{DOTTED})?)"
)
_BLANKS = re.compile(rf"{_BLANK}*")
_SEPARATOR = re.compile(rf"{_BLANK}*,{_BLANK}*|{_BLANK}+")
_WILD = frozenset({"x", "X", "*"})
_NO_VALUE = "constraint parser error"


class InvalidConstraint(Invalid):
    """The text is not a version constraint; the message is Masterminds/semver's."""


Span = tuple[bytes, bytes]
"""Keys from the first (inclusive) to the second (exclusive)."""

_EVERYTHING: Span = (b"", END)


@dataclass(frozen=True, slots=True)
class _Term:
    """One operand as upstream reads it. `partial`: a part is missing or a wildcard; which one says `open_part`
    ("major", "minor", "patch" or "")."""

    operator: str
    major: int
    minor: int
    patch: int
    prerelease: str | None
    open_part: str
    key: bytes

    @property
    def partial(self) -> bool:
        return self.open_part != ""


@dataclass(frozen=True, slots=True)
class _Hole:
    """Versions inside a span that share one pre-release text: what `!=1.2-rc` leaves out of every 1.2.x."""

    span: Span
    prerelease: bytes

    def holds(self, key: bytes) -> bool:
        if not self.span[0] <= key < self.span[1]:
            return False
        start = len(self.span[0])
        return key[start + 1 + key[start] :] == self.prerelease


@dataclass(frozen=True, slots=True)
class _Group:
    """The conjunction between two `||`: disjoint spans in ascending order, with holes."""

    spans: tuple[Span, ...]
    holes: tuple[_Hole, ...]
    prereleases: bool

    def accepts(self, key: bytes) -> bool:
        return any(low <= key < high for low, high in self.spans) and not any(hole.holds(key) for hole in self.holes)

    def newest(self, keys: Sequence[bytes]) -> int:
        for low, high in reversed(self.spans):
            start = bisect_left(keys, low)
            for index in range(bisect_left(keys, high) - 1, start - 1, -1):
                if not any(hole.holds(keys[index]) for hole in self.holes):
                    return index
        return -1


@dataclass(frozen=True, slots=True)
class Constraint:
    """A parsed range. `warnings` has a sentence for each place where upstream's grammar surely reads something else than was
    meant; the constraint works as upstream's all the same."""

    text: str
    warnings: tuple[str, ...]
    _groups: tuple[_Group, ...] = field(repr=False)

    def __str__(self) -> str:
        return self.text

    def check(self, version: Version) -> bool:
        """Whether the version satisfies the constraint; a pre-release does so only by an alternative that names one."""
        return self.accepts(version.key)

    def accepts(self, key: bytes) -> bool:
        """`check` for a version's key."""
        return any(group.accepts(key) for group in self._of(is_prerelease(key)))

    def newest(self, keys: Sequence[bytes], *, prereleases: bool) -> int:
        """The index of the last key in an ascending list that satisfies the constraint, or -1.

        The list holds the keys of pre-releases only or of releases only, as `prereleases` says.
        """
        return max((group.newest(keys) for group in self._of(prereleases)), default=-1)

    def count(self, keys: Sequence[bytes], *, prereleases: bool) -> int:
        """How many keys of an ascending list (see `newest`) satisfy the constraint."""
        groups = self._of(prereleases)
        bounds = [(bisect_left(keys, low), bisect_left(keys, high)) for low, high in _union(s for g in groups for s in g.spans)]
        if any(group.holes for group in groups):
            return sum(any(g.accepts(keys[i]) for g in groups) for start, end in bounds for i in range(start, end))
        return sum(end - start for start, end in bounds)

    def _of(self, prereleases: bool) -> Sequence[_Group]:
        return [group for group in self._groups if group.prereleases] if prereleases else self._groups


def parse_constraint(text: str) -> Constraint:
    """Read a constraint as `semver.NewConstraint` does, quirks included.

    Raises:
        InvalidConstraint: with upstream's message, `improper constraint: "<segment>"`, `constraint parser error` or one about
            a limit.
    """
    if len(text.encode("utf-8", "replace")) > MAX_CONSTRAINT_BYTES:
        raise InvalidConstraint(f"constraint string is too long (max {MAX_CONSTRAINT_BYTES} bytes)")
    rewritten, warnings = _rewrite_hyphen_ranges(text)
    segments = rewritten.split("||")
    if len(segments) > MAX_ALTERNATIVES:
        raise InvalidConstraint(f"too many constraint groups (max {MAX_ALTERNATIVES})")
    return Constraint(text, tuple(warnings), tuple(_group(_terms(segment)) for segment in segments))


def _rewrite_hyphen_ranges(text: str) -> tuple[str, list[str]]:
    rewritten, warnings = text, []
    for found in _HYPHEN_RANGE.finditer(text):
        low, high = found.groups()
        # The first occurrence, not this one: upstream replaces by text.
        rewritten = rewritten.replace(found[0], f">= {low}, <= {high} ", 1)
        if "||" in low + high:
            warnings.append(
                f"in {found[0].strip()!r} the '||' became part of a version, because no blanks are round it: "
                "write ' || ' to separate alternatives"
            )
    return rewritten, warnings


def _terms(segment: str) -> list[_Term]:
    found = []
    position = _BLANKS.match(segment).end()  # type: ignore[union-attr]  # matches the empty text
    while True:
        term = _TERM.match(segment, position)
        if term is None:
            raise InvalidConstraint(f"improper constraint: {_go_quote(segment)}")
        found.append(term)
        separator = _SEPARATOR.match(segment, term.end())
        position = separator.end() if separator else term.end()
        if position == len(segment) and (separator is None or "," not in separator[0]):
            return [_term(term) for term in found]
        if separator is None:
            raise InvalidConstraint(f"improper constraint: {_go_quote(segment)}")


def _term(found: re.Match[str]) -> _Term:
    given, open_part = [], ""
    for name in ("major", "minor", "patch"):
        if found[name] is None or found[name] in _WILD:
            open_part = name
            break
        given.append(found[name])
    prerelease: str | None = found["prerelease"]
    parts = given + ["0"] * (3 - len(given))
    # The limit of a version's length holds for what upstream parses: the operand, or a partial one completed with zeros.
    parsed = ".".join(parts) + (f"-{prerelease}" if prerelease else "") if open_part else found["operand"]
    if len(parsed) > MAX_VERSION_BYTES or not all(part.isdigit() for part in parts):
        raise InvalidConstraint(_NO_VALUE)
    major, minor, patch = (int(part) for part in parts)
    key = encode(major, minor, patch, prerelease)
    if key is None:
        raise InvalidConstraint(_NO_VALUE)
    return _Term(found["operator"], major, minor, patch, prerelease, open_part, key)


def _group(terms: Sequence[_Term]) -> _Group:
    spans: list[Span] = [_EVERYTHING]
    holes = []
    for term in terms:
        if term.operator == "!=" and term.open_part == "patch":
            # Upstream compares only the pre-release here, so a version of M.m passes when its pre-release differs.
            tail = encode_prerelease(term.prerelease) if term.prerelease else None
            holes.append(_Hole(_same(term.major, term.minor), tail or RELEASE))
        else:
            spans = _intersection(spans, _spans(term))
    return _Group(tuple(spans), tuple(holes), any(term.prerelease is not None for term in terms))


def _same(*numbers: int) -> Span:
    """All versions whose first parts are these numbers, pre-releases included."""
    head = b"".join(encode_number(n) for n in numbers[:-1])
    return head + encode_number(numbers[-1]), head + encode_number(numbers[-1] + 1)


def _spans(term: _Term) -> list[Span]:
    match term.operator:
        case "" | "=":
            return _tilde(term) if term.partial else [(term.key, term.key + b"\x00")]
        case "!=":
            left_out = _same(term.major) if term.open_part == "minor" else (term.key, term.key + b"\x00")
            return [(b"", left_out[0]), (left_out[1], END)]
        case ">":
            return [(_above(term), END)]
        case "<":
            return [(b"", term.key)]
        case ">=" | "=>":
            return [(term.key, END)]
        case "<=" | "=<":
            return [(b"", _up_to(term))]
        case "^":
            return _caret(term)
        case _:
            return _tilde(term)


def _above(term: _Term) -> bytes:
    if term.open_part == "minor":
        return _same(term.major)[1]
    if term.open_part == "patch":
        return _same(term.major, term.minor)[1]
    return term.key + b"\x00"


def _up_to(term: _Term) -> bytes:
    if not term.partial:
        return term.key + b"\x00"
    # A lone wildcard counts as 0.0.x here: upstream marks only a missing minor as open.
    return _same(term.major)[1] if term.open_part == "minor" else _same(term.major, term.minor)[1]


def _tilde(term: _Term) -> list[Span]:
    from_here: list[Span] = [(term.key, END)]
    if term.open_part == "minor":
        return _intersection(from_here, [_same(term.major)])
    if (term.major, term.minor, term.patch) == (0, 0, 0) and term.open_part != "patch":
        return from_here
    return _intersection(from_here, [_same(term.major, term.minor)])


def _caret(term: _Term) -> list[Span]:
    if term.major > 0 or term.open_part == "minor":
        family = _same(term.major)
    elif term.minor > 0 or term.open_part == "patch":
        family = _same(0, term.minor)
    else:
        family = _same(0, 0, term.patch)
    return _intersection([(term.key, END)], [family])


def _intersection(left: Iterable[Span], right: Iterable[Span]) -> list[Span]:
    others = list(right)
    pairs = ((max(a[0], b[0]), min(a[1], b[1])) for a in left for b in others)
    return [(low, high) for low, high in pairs if low < high]


def _union(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", '"': '\\"', "\\": "\\\\"}


def _go_quote(text: str) -> str:
    """The text in double quotes, escaped as Go's %q does."""
    return f'"{"".join(_ESCAPES.get(c) or _quoted(c) for c in text)}"'


def _quoted(char: str) -> str:
    if char == " " or category(char)[0] in "LMNPS":
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
