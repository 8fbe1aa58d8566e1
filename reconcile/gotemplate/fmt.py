"""Go's `fmt`: how values print, and the verbs of printf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from reconcile.gotemplate.budget import spend
from reconcile.gotemplate.strconv import format_float, quote, quote_rune
from reconcile.gotemplate.values import (
    INT_KINDS,
    MISSING,
    UINT_KINDS,
    Map,
    Slice,
    Struct,
    is_number,
    kind_of,
    sorted_entries,
    to_bytes,
    to_text,
    type_of,
)

_TOO_LARGE: Final = 1_000_000
_NIL: Final = "<nil>"
_BASES: Final = {"v": ("d", 10), "d": ("d", 10), "b": ("b", 2), "o": ("o", 8), "O": ("o", 8), "x": ("x", 16), "X": ("X", 16)}
_FLOAT_VERBS: Final = {"v": ("g", -1), "g": ("g", -1), "G": ("G", -1), "e": ("e", 6), "E": ("E", 6), "f": ("f", 6), "F": ("f", 6)}
_FLOAT_HEX: Final = {"x": ("x", -1), "X": ("X", -1)}


@dataclass(slots=True)
class Flags:
    """What stands between the percent sign and the verb."""

    sharp: bool = False
    zero: bool = False
    plus: bool = False
    minus: bool = False
    space: bool = False
    plus_v: bool = False
    sharp_v: bool = False
    width: int | None = None
    precision: int | None = None

    def pad(self, text: str, *, zero: bool | None = None) -> str:
        """`text` brought to the width, which counts characters."""
        spend(len(text))
        missing = (self.width or 0) - len(text)
        if missing <= 0:
            return text
        spend(missing)
        if self.minus:
            return text + " " * missing
        return ("0" if (self.zero if zero is None else zero) else " ") * missing + text

    def cut(self, text: str) -> str:
        """`text` shortened to the precision."""
        return text if self.precision is None else text[: self.precision]


PLAIN: Final = Flags()


def sprint(values: Sequence[object]) -> str:
    """`fmt.Sprint`: a blank between two operands when neither is a string."""
    parts: list[str] = []
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            parts.append(" ")
        parts.append(format_value(value, "v", PLAIN))
    return "".join(parts)


def sprintln(values: Sequence[object]) -> str:
    """`fmt.Sprintln`: blanks between all operands and a newline."""
    return " ".join(format_value(value, "v", PLAIN) for value in values) + "\n"


def to_string(value: object) -> str:
    """A value as `%v` prints it."""
    return value if isinstance(value, str) else format_value(value, "v", PLAIN)


def to_string_verb(value: object) -> str:
    """A value as `%s` prints it."""
    return format_value(value, "s", PLAIN)


def type_name(value: object) -> str:
    """A value's type as `%T` prints it."""
    return _NIL if value is None or value is MISSING else type_of(value).name


def format_value(value: object, verb: str, flags: Flags) -> str:
    """One operand with one verb, as `fmt` prints it."""
    spend(1)
    if value is None or value is MISSING:
        return flags.pad(_NIL) if verb in "Tv" else _bad_verb(value, verb, flags)
    if verb == "T":
        return flags.pad(flags.cut(type_of(value).name))
    if verb == "p":
        return _bad_verb(value, verb, flags)
    return _format(value, verb, flags, 0)


def _bad_verb(value: object, verb: str, flags: Flags) -> str:
    if value is None or value is MISSING:
        return f"%!{verb}({_NIL})"
    return f"%!{verb}({type_of(value).name}={_format(value, 'v', flags, 0, plain=True)})"


def _format(value: object, verb: str, flags: Flags, depth: int, *, plain: bool = False) -> str:
    spend(1)
    if value is None:
        return "interface {}(nil)" if flags.sharp_v else _NIL
    if isinstance(value, Struct):
        text = None if plain or flags.sharp_v or verb not in "vsxXq" else _stringer(value)
        return _format_struct(value, verb, flags, depth) if text is None else _format_string(text, verb, flags)
    if isinstance(value, str):
        return _format_string(value, verb, flags)
    if isinstance(value, bool):
        return flags.pad("true" if value else "false") if verb in "tv" else _bad_verb(value, verb, flags)
    if isinstance(value, int):
        return _format_integer(value, verb, flags)
    if isinstance(value, float):
        return _format_float(value, verb, flags)
    if isinstance(value, complex):
        return _format_complex(value, verb, flags)
    if isinstance(value, Slice):
        return _format_slice(value, verb, flags, depth)
    return _format_map(value, verb, flags, depth) if isinstance(value, Map) else _NIL


def _stringer(value: Struct) -> str | None:
    method = value.type.methods.get("String")
    return None if method is None else str(method(value))


def _format_struct(value: Struct, verb: str, flags: Flags, depth: int) -> str:
    parts = []
    for each, item in zip(value.type.fields, value.values, strict=True):
        name = f"{each.name}:" if flags.plus_v or flags.sharp_v else ""
        parts.append(name + _format(item, verb, flags, depth + 1))
    if flags.sharp_v:
        return f"{value.type}{{{', '.join(parts)}}}"
    pointer = "&" if value.type.kind == "ptr" else ""
    return f"{pointer}{{{' '.join(parts)}}}"


def _format_slice(value: Slice, verb: str, flags: Flags, depth: int) -> str:
    if flags.sharp_v:
        if value.nil:
            return f"{value.type}(nil)"
        return f"{value.type}{{{', '.join(_format(item, verb, flags, depth + 1) for item in value.items)}}}"
    return f"[{' '.join(_format(item, verb, flags, depth + 1) for item in value.items)}]"


def _format_map(value: Map, verb: str, flags: Flags, depth: int) -> str:
    if flags.sharp_v and value.nil:
        return f"{value.type}(nil)"
    parts = [
        f"{_format(key, verb, flags, depth + 1)}:{_format(item, verb, flags, depth + 1)}" for key, item in sorted_entries(value)
    ]
    return f"{value.type}{{{', '.join(parts)}}}" if flags.sharp_v else f"map[{' '.join(parts)}]"


def _format_string(text: str, verb: str, flags: Flags) -> str:
    if verb == "q" or (verb == "v" and flags.sharp_v):
        text = flags.cut(text)
        if flags.sharp and "`" not in text and all(char == "\t" or char.isprintable() for char in text):
            return flags.pad(f"`{text}`")
        return flags.pad(quote(text, ascii_only=flags.plus))
    if verb in "sv":
        return flags.pad(flags.cut(text))
    return _hex_string(to_bytes(text), verb, flags) if verb in "xX" else _bad_verb(text, verb, flags)


def _hex_string(data: bytes, verb: str, flags: Flags) -> str:
    prefix = f"0{verb}" if flags.sharp else ""
    data = data[: flags.precision] if flags.precision is not None else data
    if not data:
        return flags.pad("")
    digits = data.hex().upper() if verb == "X" else data.hex()
    if flags.space:
        return flags.pad(" ".join(prefix + digits[at : at + 2] for at in range(0, len(digits), 2)))
    return flags.pad(prefix + digits)


def _format_integer(value: int, verb: str, flags: Flags) -> str:
    if verb == "v" and flags.sharp_v and kind_of(value) in UINT_KINDS:
        return flags.pad(f"0x{value:x}")
    if verb in _BASES:
        return _in_base(value, verb, flags)
    if verb in "cqU":
        code = value % (1 << 64)
        char = chr(code) if code <= 0x10FFFF and not 0xD800 <= code < 0xE000 else "�"
        if verb == "c":
            return flags.pad(char)
        if verb == "q":
            return flags.pad(quote_rune(char, ascii_only=flags.plus))
        precision = max(flags.precision or 0, 4)
        spend(precision)
        shown = f" '{char}'" if flags.sharp and char.isprintable() and code <= 0x10FFFF else ""
        return flags.pad(f"U+{code:0{precision}X}{shown}", zero=False)
    return _bad_verb(value, verb, flags)


def _in_base(value: int, verb: str, flags: Flags) -> str:
    code, base = _BASES[verb]
    negative, number = value < 0, abs(value)
    precision = flags.precision or 0
    if flags.precision is not None:
        if precision == 0 and number == 0:
            return flags.pad("", zero=False)
    elif flags.zero and not flags.minus and flags.width is not None:
        precision = flags.width - (1 if negative or flags.plus or flags.space else 0)
    spend(precision)
    digits = format(number, code).rjust(precision, "0")
    if flags.sharp and not flags.sharp_v:
        if base == 2:
            digits = "0b" + digits
        elif base == 8 and not digits.startswith("0"):
            digits = "0" + digits
        elif base == 16:
            digits = f"0{verb}{digits}"
    if verb == "O":
        digits = "0o" + digits
    sign = "-" if negative else "+" if flags.plus else " " if flags.space else ""
    return flags.pad(sign + digits, zero=False)


def _format_float(value: float, verb: str, flags: Flags) -> str:
    chosen = _FLOAT_VERBS.get(verb) or _FLOAT_HEX.get(verb)
    if chosen is None:
        return _bad_verb(value, verb, flags)
    code, default = chosen
    precision = default if flags.precision is None else flags.precision
    spend(max(precision, 0) + 400)
    text = format_float(value, code, precision)
    if text[0] not in "+-":
        text = "+" + text
    if flags.space and text[0] == "+" and not flags.plus:
        text = " " + text[1:]
    if text[1] in "IN":
        if text[1] == "N" and not flags.space and not flags.plus:
            text = text[1:]
        return flags.pad(text, zero=False)
    if flags.sharp and verb not in "xX":
        text = _keep_point(text, verb, precision)
    if flags.plus or text[0] != "+":
        if flags.zero and not flags.minus and flags.width is not None and flags.width > len(text):
            spend(flags.width)
            return text[0] + text[1:].rjust(flags.width - 1, "0")
        return flags.pad(text)
    return flags.pad(text[1:])


def _keep_point(text: str, verb: str, precision: int) -> str:
    """The `#` flag: a decimal point always, and for %g its trailing zeros."""
    mark = next((char for char in "eE" if char in text), "")
    number, tail = (text.split(mark)[0], mark + text.split(mark)[1]) if mark else (text, "")
    digits = number[1:].replace(".", "")
    wanted = 0
    if verb in "vgG":
        significant = digits.lstrip("0")
        wanted = (6 if precision == -1 else precision) - len(significant)
        if "." not in number and number[1:] == "0":
            wanted -= 1
    if "." not in number:
        number += "."
    return number + "0" * max(wanted, 0) + tail


def _format_complex(value: complex, verb: str, flags: Flags) -> str:
    if verb not in _FLOAT_VERBS and verb not in _FLOAT_HEX:
        return _bad_verb(value, verb, flags)
    signed = Flags(flags.sharp, flags.zero, True, flags.minus, flags.space, width=flags.width, precision=flags.precision)
    return f"({_format_float(value.real, verb, flags)}{_format_float(value.imag, verb, signed)}i)"


class _Printf:
    """One run over a format string."""

    def __init__(self, pattern: str, values: Sequence[object]) -> None:
        self.pattern = pattern
        self.values = values
        self.at = 0
        self.used = 0
        self.reordered = False
        self.good = True
        self.after_index = False
        self.out: list[str] = []

    def run(self) -> str:
        end = len(self.pattern)
        while self.at < end:
            percent = self.pattern.find("%", self.at)
            percent = end if percent < 0 else percent
            self.out.append(self.pattern[self.at : percent])
            spend(percent - self.at + 1)
            self.at = percent + 1
            if percent < end and not self._verb():
                break
        if not self.reordered and self.used < len(self.values):
            extra = [_extra(value) for value in self.values[self.used :]]
            self.out.append(f"%!(EXTRA {', '.join(extra)})")
        return "".join(self.out)

    def _verb(self) -> bool:
        self.good, self.after_index = True, False
        flags = self._flags()
        self._argument_number()
        self._width(flags)
        self._precision(flags)
        if not self.after_index:
            self._argument_number()
        if self.at >= len(self.pattern):
            self.out.append("%!(NOVERB)")
            return False
        verb = self.pattern[self.at]
        self.at += 1
        if verb == "%":
            self.out.append("%")
        elif not self.good:
            self.out.append(f"%!{verb}(BADINDEX)")
        elif self.used >= len(self.values):
            self.out.append(f"%!{verb}(MISSING)")
        else:
            if verb == "v":
                flags.sharp_v, flags.sharp, flags.plus_v, flags.plus = flags.sharp, False, flags.plus, False
            value = self.values[self.used]
            self.out.append(_bad_verb(value, "w", flags) if verb == "w" else format_value(value, verb, flags))
            self.used += 1
        return True

    def _flags(self) -> Flags:
        flags = Flags()
        names = {"#": "sharp", "0": "zero", "+": "plus", "-": "minus", " ": "space"}
        while self.at < len(self.pattern) and self.pattern[self.at] in names:
            setattr(flags, names[self.pattern[self.at]], True)
            self.at += 1
        return flags

    def _argument_number(self) -> None:
        if self.pattern[self.at : self.at + 1] != "[":
            self.after_index = False
            return
        self.reordered = True
        close = self.pattern.find("]", self.at)
        body = self.pattern[self.at + 1 : close] if close >= 0 else ""
        valid = body.isascii() and body.isdigit() and int(body[:8]) <= _TOO_LARGE and len(body) < 8
        self.at = close + 1 if close >= 0 and len(self.pattern) - self.at >= 3 else self.at + 1
        self.after_index = valid
        if valid and 1 <= int(body) <= len(self.values):
            self.used = int(body) - 1
        else:
            self.good = False

    def _width(self, flags: Flags) -> None:
        if self.pattern[self.at : self.at + 1] != "*":
            flags.width = self._number()
            if self.after_index and flags.width is not None:
                self.good = False
            return
        self.at += 1
        flags.width = self._integer_argument()
        if flags.width is None:
            self.out.append("%!(BADWIDTH)")
        elif flags.width < 0:
            flags.width, flags.minus, flags.zero = -flags.width, True, False
        self.after_index = False

    def _precision(self, flags: Flags) -> None:
        if self.pattern[self.at : self.at + 1] != "." or self.at + 1 >= len(self.pattern):
            return
        self.at += 1
        if self.after_index:
            self.good = False
        self._argument_number()
        if self.pattern[self.at : self.at + 1] != "*":
            flags.precision = self._number() or 0
            return
        self.at += 1
        precision = self._integer_argument()
        flags.precision = None if precision is None or precision < 0 else precision
        if flags.precision is None:
            self.out.append("%!(BADPREC)")
        self.after_index = False

    def _number(self) -> int | None:
        start = self.at
        while self.at < len(self.pattern) and self.pattern[self.at] in "0123456789":
            if self.at > start and int(self.pattern[start : self.at]) > _TOO_LARGE:
                self.at = len(self.pattern)
                return None
            self.at += 1
        return int(self.pattern[start : self.at]) if self.at > start else None

    def _integer_argument(self) -> int | None:
        if self.used >= len(self.values):
            return None
        value = self.values[self.used]
        self.used += 1
        if isinstance(value, int) and is_number(value) and abs(value) <= _TOO_LARGE and kind_of(value) in INT_KINDS | UINT_KINDS:
            return int(value)
        return None


def _extra(value: object) -> str:
    return _NIL if value is None or value is MISSING else f"{type_of(value).name}={format_value(value, 'v', PLAIN)}"


def sprintf(pattern: str, values: Sequence[object]) -> str:
    """`fmt.Sprintf`, its complaints about wrong verbs and operands included."""
    return to_text(to_bytes(_Printf(pattern, values).run()))
