"""Number and character literals of templates."""

from __future__ import annotations

import re
from typing import Final

from reconcile.gotemplate.lexer import Token
from reconcile.gotemplate.nodes import Number
from reconcile.gotemplate.strconv import NumberSyntaxError, parse_float, parse_int, quote, unquote_char

_MAX_UINT: Final = (1 << 64) - 1
_MIN_INT: Final = -(1 << 63)
_MAX_INT: Final = (1 << 63) - 1
_COMPLEX: Final = re.compile(r"(?P<real>[+-]?[^+-]*(?:[eEpP][+-]?[0-9_]+)?)(?P<imaginary>[+-].+)i")


class NumberError(ValueError):
    """A literal is no number; the text is Go's."""


def parse_number(token: Token) -> Number:
    """What a literal can be read as: an integer, an unsigned one, a float, a complex number.

    Raises:
        NumberError: it is none of them.
    """
    if token.kind == "char constant":
        return _char(token)
    if token.kind == "complex":
        return _complex(token)
    text = token.text
    if text.endswith("i"):
        try:
            return _simplified(token, complex(0, parse_float(text[:-1])))
        except NumberSyntaxError:
            pass
    number = _integer(token)
    if number.integer is not None or number.unsigned is not None:
        number.floating = float(number.integer if number.integer is not None else number.unsigned or 0)
        return number
    try:
        number.floating = parse_float(text)
    except NumberSyntaxError:
        raise NumberError(f"illegal number syntax: {quote(text)}") from None
    if not any(char in ".eEpP" for char in text):
        raise NumberError(f"integer overflow: {quote(text)}")
    _add_integers(number, number.floating)
    return number


def _char(token: Token) -> Number:
    try:
        code, _, after = unquote_char(token.text, 1, "'")
    except (ValueError, IndexError):
        raise NumberError("invalid syntax") from None
    if token.text[1] == "'":
        raise NumberError("invalid syntax")
    if token.text[after:] != "'":
        raise NumberError(f"malformed character constant: {token.text}")
    return Number(token.at, token.text, code, code, float(code))


def _complex(token: Token) -> Number:
    found = _COMPLEX.fullmatch(token.text)
    try:
        if found is None:
            raise NumberSyntaxError
        value = complex(parse_float(found["real"]), parse_float(found["imaginary"]))
    except NumberSyntaxError:
        raise NumberError("syntax error scanning complex number") from None
    return _simplified(token, value)


def _simplified(token: Token, value: complex) -> Number:
    number = Number(token.at, token.text, imaginary=value)
    if value.imag == 0:
        number.floating = value.real
        _add_integers(number, value.real)
    return number


def _integer(token: Token) -> Number:
    number = Number(token.at, token.text)
    try:
        number.unsigned = parse_int(token.text, low=0, high=_MAX_UINT, signed=False)
    except NumberSyntaxError:
        number.unsigned = None
    try:
        number.integer = parse_int(token.text)
    except NumberSyntaxError:
        return number
    if number.integer == 0:
        number.unsigned = 0
    return number


def _add_integers(number: Number, value: float) -> None:
    if value != value or value in {float("inf"), float("-inf")} or value != int(value):
        return
    if _MIN_INT <= int(value) <= _MAX_INT:
        number.integer = int(value)
    if 0 <= int(value) <= _MAX_UINT:
        number.unsigned = int(value)
