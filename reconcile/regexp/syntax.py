"""Reader of Go's regular expression syntax: finds what Go finds wrong, in Go's words, and writes it anew for C++ RE2. Pure.

Both engines are RE2 and mean the same by a construct that both know. They differ at the edge: Go allows a group name twice, a
name that begins with a digit, more group names in `\\p{…}`, and words its errors differently. So the pattern is read here by Go's
rules, names are kept aside, and what the engine gets is in a plain form (literals escaped, groups numbered).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reconcile.errors import Invalid
from reconcile.regexp.unicode_groups import POSIX, class_item

MAX_REPEAT = 1000
MAX_HEIGHT = 1000
MAX_SIZE = (128 << 20) // 40
"""Instructions of a compiled program, as Go bounds them."""
_MAX_RUNE = 0x10FFFF
_ESCAPES = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_PERL_CLASSES = frozenset("dDsSwW")
_ASSERTIONS = frozenset("AbBz")


class RegexpError(Invalid):
    """The pattern is not a Go regular expression; the message is Go's: `error parsing regexp: <kind>: ` and a piece of it."""

    def __init__(self, kind: str, piece: str) -> None:
        super().__init__(f"error parsing regexp: {kind}: `{piece}`")
        self.kind = kind
        self.piece = piece


@dataclass(frozen=True, slots=True)
class Syntax:
    """A pattern that Go accepts: its text for the C++ engine and the names of its groups ("" for none), group 0 first."""

    translated: str
    names: tuple[str, ...]


def parse(pattern: str) -> Syntax:
    """Read a pattern.

    Raises:
        RegexpError: Go does not accept it either.
    """
    return _Reader(pattern).read()


@dataclass(slots=True)
class _Level:
    """What is known of an open group (or of the whole): the last item, which a repetition would apply to, and the sums."""

    captures: bool
    last_weight: int = 0  # 0: nothing to repeat
    last_size: int = 0
    last_height: int = 0
    weight: int = 1  # largest product of nested repeat counts
    size: int = 0
    height: int = 1

    def add(self, weight: int, size: int, height: int) -> None:
        self.close_item()
        self.last_weight, self.last_size, self.last_height = weight, size, height

    def close_item(self) -> None:
        self.weight = max(self.weight, self.last_weight)
        self.size += self.last_size
        self.height = max(self.height, self.last_height)
        self.last_weight = self.last_size = self.last_height = 0


@dataclass(slots=True)
class _Reader:
    text: str
    at: int = 0
    out: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=lambda: [""])
    levels: list[_Level] = field(default_factory=lambda: [_Level(captures=False)])
    repeated_from: int = -1  # where the repetition that ends here began

    def read(self) -> Syntax:
        while self.at < len(self.text):
            repeated_from, self.repeated_from = self.repeated_from, -1
            char = self.text[self.at]
            if char in "*+?":
                self._repeat(repeated_from, self.at + 1, 0, -1, simple=True)
            elif char == "{":
                self._braces(repeated_from)
            elif char == "(":
                self._open()
            elif char == ")":
                self._close()
            elif char == "|":
                self.levels[-1].close_item()
                self.levels[-1].size += 1
                self._emit("|", self.at + 1)
            elif char == "[":
                self._item(*self._bracket())
            elif char == "\\":
                self._backslash()
            elif char in "^$.":
                self._item(char, self.at + 1)
            else:
                self._item(_literal(ord(char)), self.at + 1)
        if len(self.levels) > 1:
            raise RegexpError("missing closing )", self.text)
        return Syntax("".join(self.out), tuple(self.names))

    def _emit(self, text: str, until: int) -> None:
        self.out.append(text)
        self.at = until

    def _item(self, text: str, until: int, weight: int = 1, size: int = 1, height: int = 1) -> None:
        self.levels[-1].add(weight, size, height)
        self._check_limits()
        self._emit(text, until)

    def _check_limits(self) -> None:
        level = self.levels[-1]
        if level.last_height > MAX_HEIGHT:
            raise RegexpError("expression nests too deeply", self.text)
        if level.last_size + level.size > MAX_SIZE:
            raise RegexpError("expression too large", self.text)

    # --- groups

    def _open(self) -> None:
        if self.text.startswith("(?", self.at):
            self._perl_group()
            return
        self.names.append("")
        self.levels.append(_Level(captures=True))
        self._emit("(", self.at + 1)

    def _perl_group(self) -> None:
        rest = self.text[self.at :]
        if (rest.startswith("(?P<") and len(rest) > 4) or (rest.startswith("(?<") and len(rest) > 3):
            start = rest.index("<") + 1
            end = rest.find(">")
            name = rest[start:end]
            if end < 0 or not name or not all(c == "_" or (c.isascii() and c.isalnum()) for c in name):
                raise RegexpError("invalid named capture", rest if end < 0 else rest[: end + 1])
            self.names.append(name)
            self.levels.append(_Level(captures=True))
            self._emit("(", self.at + end + 1)
            return
        negated = saw_flag = False
        for offset in range(2, len(rest)):
            char = rest[offset]
            if char in "imsU":
                saw_flag = True
            elif char == "-" and not negated:
                negated, saw_flag = True, False
            elif char in ":)" and (saw_flag or not negated):
                if char == ":":
                    self.levels.append(_Level(captures=False))
                self._emit("" if rest[: offset + 1] == "(?)" else rest[: offset + 1], self.at + offset + 1)
                return
            else:
                raise RegexpError("invalid or unsupported Perl syntax", rest[: offset + 1])
        # Go looks at the rest of the flags only where there is one.
        raise (
            RegexpError("invalid or unsupported Perl syntax", rest)
            if len(rest) == 2
            else RegexpError("missing closing )", self.text)
        )

    def _close(self) -> None:
        if len(self.levels) == 1:
            raise RegexpError("unexpected )", self.text)
        level = self.levels.pop()
        level.close_item()
        self._item(")", self.at + 1, level.weight, level.size + 2 * level.captures, level.height + level.captures)

    # --- repetitions

    def _braces(self, repeated_from: int) -> None:
        counts = _repeat_counts(self.text, self.at)
        if counts is None:
            self._item(_literal(ord("{")), self.at + 1)
            return
        low, high, end = counts
        if not 0 <= low <= MAX_REPEAT or high > MAX_REPEAT or 0 <= high < low:
            raise RegexpError("invalid repeat count", self.text[self.at : end])
        self._repeat(repeated_from, end, low, high, simple=False)

    def _repeat(self, repeated_from: int, end: int, low: int, high: int, *, simple: bool) -> None:
        start = self.at
        if self.text.startswith("?", end):
            end += 1
        if repeated_from >= 0:
            raise RegexpError("invalid nested repetition operator", self.text[repeated_from:end])
        level = self.levels[-1]
        if level.last_weight == 0:
            raise RegexpError("missing argument to repetition operator", self.text[start:end])
        if simple:
            level.last_size += 2
        else:
            level.last_size = _repeated_size(level.last_size, low, high)
            count = low if high < 0 else high
            level.last_weight = 1 if high == 0 else max(count, 1) * level.last_weight
            if (low >= 2 or high >= 2) and level.last_weight > MAX_REPEAT:
                raise RegexpError("invalid repeat count", self.text[start:end])
        level.last_height += 1
        self._check_limits()
        self.repeated_from = start
        self._emit(self.text[start:end], end)

    # --- escapes and classes

    def _backslash(self) -> None:
        following = self.text[self.at + 1 : self.at + 2]
        if following in _ASSERTIONS and following:
            self._item("\\" + following, self.at + 2)
        elif following == "C":
            raise RegexpError("invalid escape sequence", "\\C")
        elif following == "Q":
            end = self.text.find("\\E", self.at + 2)
            for char in self.text[self.at + 2 : end if end >= 0 else None]:
                self._item(_literal(ord(char)), self.at)
            self.at = len(self.text) if end < 0 else end + 2
        elif following in ("p", "P"):
            item, end = self._unicode_group(self.at)
            self._item(f"[{item}]", end)
        elif following in _PERL_CLASSES and following:
            self._item("\\" + following, self.at + 2)
        else:
            code, end = self._escape(self.at)
            self._item(_literal(code), end)

    def _escape(self, start: int) -> tuple[int, int]:
        """The code point of the escape at `start` and where it ends."""
        text, at = self.text, start + 2
        char = text[start + 1 : at]
        if not char:
            raise RegexpError("trailing backslash at end of expression", "")
        if char in "01234567" and (char == "0" or text[at : at + 1] in tuple("01234567")):
            end = at
            while end < start + 4 and text[end : end + 1] in tuple("01234567"):
                end += 1
            return int(text[start + 1 : end], 8), end
        if char == "x":
            return self._hex_escape(start)
        if char in _ESCAPES:
            return _ESCAPES[char], at
        if char.isascii() and not char.isalnum():
            return ord(char), at
        raise RegexpError("invalid escape sequence", text[start:at])

    def _hex_escape(self, start: int) -> tuple[int, int]:
        text, at = self.text, start + 2
        if text[at : at + 1] != "{":
            digits = text[at : at + 2]
            if len(digits) == 2 and all(map(_is_hex, digits)):
                return int(digits, 16), at + 2
            # Go has read both characters, if they are there, before it looks at them.
            raise RegexpError("invalid escape sequence", text[start : at + 2])
        code, end = 0, at + 1
        while end < len(text) and _is_hex(text[end]) and code <= _MAX_RUNE:
            code = code * 16 + int(text[end], 16)
            end += 1
        if code > _MAX_RUNE:
            raise RegexpError("invalid escape sequence", text[start:end])
        if end == at + 1 or text[end : end + 1] != "}":
            raise RegexpError("invalid escape sequence", text[start : end + 1])
        return code, end + 1

    def _unicode_group(self, start: int) -> tuple[str, int]:
        """The class item for the `\\p` or `\\P` at `start` and where it ends."""
        text, negated = self.text, self.text[start + 1] == "P"
        end = start + 3
        name = text[start + 2 : end]
        if name == "{":
            closing = text.find("}", end)
            if closing < 0:
                raise RegexpError("invalid character class range", text[start:])
            name, end = text[end:closing], closing + 1
        if name.startswith("^"):
            name, negated = name[1:], not negated
        item = class_item(name, negated)
        if item is None:
            raise RegexpError("invalid character class range", text[start:end])
        return item, end

    def _bracket(self) -> tuple[str, int]:
        """The bracket expression at the present place, written for the engine, and where it ends."""
        text, start = self.text, self.at
        at = start + 1
        items = ["["]
        if text.startswith("^", at):
            items.append("^")
            at += 1
        first = True
        while first or not text.startswith("]", at):
            first = False
            item, at = self._class_item(start, at)
            items.append(item)
        return "".join(items) + "]", at + 1

    def _class_item(self, start: int, at: int) -> tuple[str, int]:
        text = self.text
        if text.startswith("[:", at) and (closing := text.find(":]", at + 2)) >= 0:
            if text[at + 2 : closing].removeprefix("^") not in POSIX:
                raise RegexpError("invalid character class range", text[at : closing + 2])
            return text[at : closing + 2], closing + 2
        if text.startswith("\\", at):
            if text[at + 1 : at + 2] in ("p", "P"):
                return self._unicode_group(at)
            if text[at + 1 : at + 2] in tuple(_PERL_CLASSES):
                return text[at : at + 2], at + 2
        low, end = self._class_char(start, at)
        if not text.startswith("-", end) or text[end + 1 : end + 2] in ("]", ""):
            return f"\\x{{{low:X}}}", end
        high, end = self._class_char(start, end + 1)
        if high < low:
            raise RegexpError("invalid character class range", text[at:end])
        return f"\\x{{{low:X}}}-\\x{{{high:X}}}", end

    def _class_char(self, start: int, at: int) -> tuple[int, int]:
        if at >= len(self.text):
            raise RegexpError("missing closing ]", self.text[start:])
        return self._escape(at) if self.text[at] == "\\" else (ord(self.text[at]), at + 1)


def _literal(code: int) -> str:
    return chr(code) if code < 0x80 and chr(code).isalnum() else f"\\x{{{code:X}}}"


def _is_hex(char: str) -> bool:
    return char in "0123456789abcdefABCDEF"


def _repeated_size(size: int, low: int, high: int) -> int:
    if high < 0:
        return size + 2 if low == 0 else low * size + 1
    return max(1, high * size + high - low)


def _repeat_counts(text: str, at: int) -> tuple[int, int, int] | None:
    """Lowest and highest count (-1: no limit) and the end of the `{…}` at `at`; None if it has not that form.

    A number of nine digits or more is given as MAX_REPEAT + 1, which is refused like any other that is too large.
    """
    low = _count(text, at + 1)
    if low is None:
        return None
    high, end = low
    if text.startswith(",", end):
        if text.startswith("}", end + 1):
            return low[0], -1, end + 2
        upper = _count(text, end + 1)
        if upper is None:
            return None
        high, end = upper
    return (low[0], high, end + 1) if text.startswith("}", end) else None


def _count(text: str, at: int) -> tuple[int, int] | None:
    end = at
    while end < len(text) and text[end] in "0123456789":
        end += 1
    digits = text[at:end]
    if not digits or (digits[0] == "0" and len(digits) > 1):
        return None
    return (int(digits) if len(digits) < 9 else MAX_REPEAT + 1), end
