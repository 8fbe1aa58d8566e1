"""Numbers and quoted strings as text, the way Go reads and writes them (`strconv`)."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

from reconcile.gotemplate.values import to_bytes, to_text

_ESCAPES: Final = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}
_UNESCAPES: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34}
_HEX_DIGITS: Final = {"x": 2, "u": 4, "U": 8}
_PREFIXED: Final = {"0x": 16, "0o": 8, "0b": 2}
_UNDERSCORES = re.compile(r"[+-]?(?:0[xXoObB](?:_?[0-9a-fA-F])+|[0-9](?:_?[0-9])*)")
_DECIMAL_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEX_FLOAT = re.compile(r"[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+")
_FLOAT_UNDERSCORES = re.compile(r"[+-]?0[xX](?:_?[0-9a-fA-F])*\.?(?:[0-9a-fA-F](?:_?[0-9a-fA-F])*)?[pP][+-]?[0-9](?:_?[0-9])*")
_INFINITE = re.compile(r"[+-]?(?:inf|infinity)", re.IGNORECASE)


class NumberSyntaxError(ValueError):
    """A text is no number, or the number is out of range."""


def escape_rune(char: str, quote: str, *, ascii_only: bool = False) -> str:
    """One character as it stands inside a Go literal with the given quote."""
    if char == quote:
        return "\\" + char
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80 or not ascii_only:
        if char.isprintable():
            return char
        if code < 0x20 or code == 0x7F:
            return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote(text: str, *, ascii_only: bool = False) -> str:
    """A text as a Go string literal in double quotes."""
    return '"' + "".join(escape_rune(char, '"', ascii_only=ascii_only) for char in text) + '"'


def quote_rune(char: str, *, ascii_only: bool = False) -> str:
    """A character as a Go literal in single quotes."""
    return "'" + escape_rune(char, "'", ascii_only=ascii_only) + "'"


def unquote(literal: str) -> str:
    """The text of a Go string literal in double or back quotes; raises `ValueError("invalid syntax")`."""
    if literal[0] == "`":
        return literal[1:-1].replace("\r", "")
    body, out, at = literal[1:-1], bytearray(), 0
    while at < len(body):
        if body[at] == '"':
            raise ValueError("invalid syntax")
        char, is_byte, at = unquote_char(body, at, '"')
        out += bytes([char]) if is_byte else _encode_rune(char)
    return to_text(bytes(out))


def _encode_rune(code: int) -> bytes:
    return to_bytes(chr(code))


def unquote_char(text: str, at: int, quote_char: str) -> tuple[int, bool, int]:
    r"""The character at `at` of a literal's body: its code, whether it is a byte (`\x`, `\ooo`), where the next one is."""
    char = text[at]
    if char != "\\":
        return ord(char), False, at + 1
    at += 1
    if at >= len(text):
        raise ValueError("invalid syntax")
    char, at = text[at], at + 1
    if char in _HEX_DIGITS:
        digits = text[at : at + _HEX_DIGITS[char]]
        if not re.fullmatch(rf"[0-9a-fA-F]{{{_HEX_DIGITS[char]}}}", digits):
            raise ValueError("invalid syntax")
        code = int(digits, 16)
        if char != "x" and (code > 0x10FFFF or 0xD800 <= code < 0xE000):
            raise ValueError("invalid syntax")
        return code, char == "x", at + len(digits)
    if char in "01234567":
        digits = text[at - 1 : at + 2]
        if not re.fullmatch(r"[0-7]{3}", digits) or int(digits, 8) > 255:
            raise ValueError("invalid syntax")
        return int(digits, 8), True, at + 2
    if char not in _UNESCAPES or (char in "'\"" and char != quote_char):
        raise ValueError("invalid syntax")
    return _UNESCAPES[char], False, at


def parse_int(text: str, *, low: int = -(1 << 63), high: int = (1 << 63) - 1, signed: bool = True) -> int:
    """An integer literal in any base, as `strconv.ParseInt(text, 0, 64)`; raises `NumberSyntaxError`."""
    body = text[1:] if signed and text[:1] in {"+", "-"} else text
    base = _PREFIXED.get(body[:2].lower(), 8 if body[:1] == "0" and len(body) > 1 else 10)
    digits = body[2:] if body[:2].lower() in _PREFIXED else body[1:] if base == 8 else body
    if "_" in text and not _UNDERSCORES.fullmatch(text):
        raise NumberSyntaxError(text)
    digits = digits.replace("_", "")
    if not digits.isascii() or not digits.isalnum():
        raise NumberSyntaxError(text)
    try:
        number = int(digits, base)
    except ValueError:
        raise NumberSyntaxError(text) from None
    number = -number if text[0] == "-" else number
    if not low <= number <= high:
        raise NumberSyntaxError(text)
    return number


def parse_float(text: str) -> float:
    """A float as `strconv.ParseFloat(text, 64)`; raises `NumberSyntaxError`, also when it is too large."""
    if _INFINITE.fullmatch(text) or text.lower() == "nan":
        return float(text)
    if _DECIMAL_FLOAT.fullmatch(text):
        number = float(text)
    elif "_" in text and _FLOAT_UNDERSCORES.fullmatch(text):
        number = _hex(text.replace("_", ""))
    elif _HEX_FLOAT.fullmatch(text):
        number = _hex(text)
    else:
        raise NumberSyntaxError(text)
    if math.isinf(number):
        raise NumberSyntaxError(text)
    return number


def _hex(text: str) -> float:
    try:
        return float.fromhex(text)
    except (OverflowError, ValueError):
        raise NumberSyntaxError(text) from None


def format_float(number: float, verb: str = "g", precision: int = -1) -> str:
    """A float as `strconv.FormatFloat(number, verb, precision, 64)` for e, E, f, F, g, G, x, X; precision -1 is shortest."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    if verb in "xX":
        return _format_hex(number, verb, precision)
    shortest = precision < 0
    lower = verb.lower()
    if lower == "e":
        digits, point = _digits(number, precision + 1)
        text = _exponent(digits, point, precision if not shortest else len(digits) - 1)
    elif lower == "f":
        text = f"{abs(Decimal(repr(number)) if shortest else number):.{_decimals(number) if shortest else precision}f}"
    else:
        digits, point = _digits(number, 0 if shortest else max(precision, 1))
        text = _general(digits, point, shortest=shortest, precision=max(precision, 1))
    sign = "-" if math.copysign(1, number) < 0 else ""
    return sign + (text.upper() if verb.isupper() else text)


def _digits(number: float, count: int) -> tuple[str, int]:
    """Significant digits without trailing zeros where the shortest are asked for (count 0), and the decimal point's place."""
    if number == 0:
        return ("0" * max(count, 1), 1)
    if count > 0:
        mantissa, exponent = f"{abs(number):.{count - 1}e}".split("e")
        return mantissa.replace(".", ""), int(exponent) + 1
    parts = Decimal(repr(abs(number))).as_tuple()
    digits = "".join(map(str, parts.digits))
    stripped = digits.rstrip("0") or "0"
    return stripped, len(digits) + int(parts.exponent)


def _decimals(number: float) -> int:
    digits, point = _digits(number, 0)
    return 0 if number == 0 else max(len(digits) - point, 0)


def _exponent(digits: str, point: int, precision: int) -> str:
    exponent = 0 if set(digits) == {"0"} else point - 1
    body = digits[0] + ("." + digits[1 : precision + 1].ljust(precision, "0") if precision > 0 else "")
    return f"{body}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _general(digits: str, point: int, *, shortest: bool, precision: int) -> str:
    digits = digits.rstrip("0") or "0"
    limit = 6 if shortest else precision
    if not shortest and limit > len(digits) >= point:
        limit = len(digits)
    if point - 1 < -4 or point - 1 >= limit:
        return _exponent(digits, point, len(digits) - 1)
    if point <= 0:
        return "0." + "0" * -point + digits if digits != "0" else "0"
    if len(digits) <= point:
        return digits.ljust(point, "0")
    return f"{digits[:point]}.{digits[point:]}"


def _format_hex(number: float, verb: str, precision: int) -> str:
    fraction, power = math.frexp(abs(number))
    power = power - 1 if number else 0
    mantissa = int(fraction * (1 << 53))  # one digit before the point and thirteen behind it
    if 0 <= precision < 13:
        unit = 1 << (4 * (13 - precision))
        mantissa = round(Fraction(mantissa, unit)) * unit
        if mantissa >> 53:
            mantissa, power = mantissa >> 1, power + 1
    digits = f"{mantissa % (1 << 52):013x}"
    digits = digits.rstrip("0") if precision < 0 else digits[:precision].ljust(precision, "0")
    text = f"0x{mantissa >> 52}{'.' if digits else ''}{digits}p{'-' if power < 0 else '+'}{abs(power):02d}"
    sign = "-" if math.copysign(1, number) < 0 else ""
    return sign + (text.upper() if verb == "X" else text)
