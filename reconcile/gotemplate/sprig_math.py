"""Sprig's numbers: integers of 64 bits that wrap, floats, decimal arithmetic."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from reconcile.gotemplate.budget import spend
from reconcile.gotemplate.convert import to_float, to_int
from reconcile.gotemplate.failures import CallError
from reconcile.gotemplate.fmt import to_string
from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.strconv import format_float
from reconcile.gotemplate.values import INTS, Slice, int64, wrap

MATH: Final = Family()

_DIVISION_DIGITS: Final = 16


@MATH.add("atoi")
def _atoi(text: str) -> int:
    body = text[1:] if text[:1] in {"+", "-"} else text
    if not body.isascii() or not body.isdigit() or len(body) > 400:
        return 0
    return max(-(1 << 63), min((1 << 63) - 1, int(text)))


@MATH.add("int64")
def _int64(value: object) -> object:
    return int64(to_int(value))


@MATH.add("int")
def _int(value: object) -> int:
    return to_int(value)


@MATH.add("float64")
def _float64(value: object) -> float:
    return to_float(value)


@MATH.add("toDecimal")
def _to_decimal(value: object) -> object:
    text = to_string(value)
    body = text[1:] if text[:1] in {"+", "-"} else text
    if not body or len(body) > 30 or any(char not in "01234567" for char in body):
        return int64(0)
    number = int(text, 8)
    return int64(number if -(1 << 63) <= number < 1 << 63 else 0)


@MATH.add("add1")
def _add1(value: object) -> object:
    return int64(to_int(value) + 1)


@MATH.add("add")
def _add(*values: object) -> object:
    return int64(sum(map(to_int, values)))


@MATH.add("sub")
def _sub(left: object, right: object) -> object:
    return int64(to_int(left) - to_int(right))


@MATH.add("mul")
def _mul(first: object, *others: object) -> object:
    product = to_int(first)
    for other in others:
        product = wrap(product * to_int(other))
    return int64(product)


def _divided(left: object, right: object) -> tuple[int, int]:
    """Quotient and remainder, cut towards zero."""
    dividend, divisor = to_int(left), to_int(right)
    if divisor == 0:
        raise CallError("runtime error: integer divide by zero")
    quotient = abs(dividend) // abs(divisor)
    quotient = quotient if (dividend < 0) == (divisor < 0) else -quotient
    return quotient, dividend - quotient * divisor


@MATH.add("div")
def _div(left: object, right: object) -> object:
    return int64(_divided(left, right)[0])


@MATH.add("mod")
def _mod(left: object, right: object) -> object:
    return int64(_divided(left, right)[1])


@MATH.add("max", "biggest")
def _max(first: object, *others: object) -> object:
    return int64(max(to_int(first), *map(to_int, others)) if others else to_int(first))


@MATH.add("min")
def _min(first: object, *others: object) -> object:
    return int64(min(to_int(first), *map(to_int, others)) if others else to_int(first))


def _extreme(values: list[float], choose: Callable[[float, float], float]) -> float:
    best = values[0]
    for value in values[1:]:
        best = math.nan if math.isnan(best) or math.isnan(value) else choose(best, value)
    return best


@MATH.add("maxf")
def _maxf(first: object, *others: object) -> float:
    return _extreme([to_float(first), *map(to_float, others)], max)


@MATH.add("minf")
def _minf(first: object, *others: object) -> float:
    return _extreme([to_float(first), *map(to_float, others)], min)


def _whole(value: float, cut: Callable[[float], int]) -> float:
    return value if not math.isfinite(value) else math.copysign(float(cut(value)), value)


@MATH.add("floor")
def _floor(value: object) -> float:
    return _whole(to_float(value), math.floor)


@MATH.add("ceil")
def _ceil(value: object) -> float:
    return _whole(to_float(value), math.ceil)


@MATH.add("round")
def _round(value: object, places: int, *threshold: float) -> float:
    number, up_from = to_float(value), threshold[0] if threshold else 0.5
    power = math.pow(10, places) if -400 < places <= 308 else (math.inf if places > 0 else 0.0)
    digit = power * number
    if not math.isfinite(digit):
        return _quotient(digit, power)
    rounded = _whole(digit, math.ceil if math.modf(digit)[0] >= up_from else math.floor)
    return _quotient(rounded, power)


def _quotient(left: float, right: float) -> float:
    """IEEE division, which Python refuses for zero."""
    if right != 0:
        return left / right
    return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1, right)


def int_range(start: int, stop: int, step: int) -> range:
    """The numbers that Sprig's `untilStep` gives; none when the step leads away from `stop`."""
    if (stop < start and step >= 0) or (stop >= start and step <= 0):
        return range(0)
    numbers = range(start, stop, step)
    spend((abs(stop - start) // abs(step) + 1) * 2)
    return numbers


@MATH.add("untilStep")
def _until_step(start: int, stop: int, step: int) -> Slice:
    return Slice(INTS, tuple(int_range(start, stop, step)))


@MATH.add("until")
def _until(count: int) -> Slice:
    return _until_step(0, count, -1 if count < 0 else 1)


@MATH.add("seq")
def _seq(*params: int) -> str:
    if len(params) not in {1, 2, 3}:
        return ""
    start, end = (1, params[0]) if len(params) == 1 else (params[0], params[-1])
    increment = -1 if end < start else 1
    step = params[1] if len(params) == 3 else increment
    if end < start and step > 0:
        return ""
    numbers = int_range(start, end + increment, step)
    spend(20 * len(numbers))
    return " ".join(map(str, numbers))


@MATH.add("randInt")
def _rand_int(low: int, high: int) -> int:
    if high - low <= 0:
        raise CallError("invalid argument to Intn")
    return random.randrange(low, high)  # noqa: S311  # not for secrets, as upstream


def _exact(value: object) -> Fraction:
    number = to_float(value)
    if not math.isfinite(number):
        raise CallError(f"Cannot create a Decimal from {format_float(number)}")
    return Fraction(repr(number))


def _folded(values: tuple[object, ...], start: Fraction, step: Callable[[Fraction, Fraction], Fraction]) -> float:
    total = start
    for value in values:
        spend(total.numerator.bit_length() // 8 + total.denominator.bit_length() // 8)
        total = step(total, _exact(value))
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def _quotient_rounded(left: Fraction, right: Fraction) -> Fraction:
    """Division to 16 decimals, halves away from zero."""
    if right == 0:
        raise CallError("decimal division by 0")
    scaled = left / right * 10**_DIVISION_DIGITS
    rounded = math.floor(abs(scaled) + Fraction(1, 2))
    return Fraction(rounded if scaled >= 0 else -rounded, 10**_DIVISION_DIGITS)


@MATH.add("add1f")
def _add1f(value: object) -> float:
    return _folded((1,), _exact(value), lambda left, right: left + right)


@MATH.add("addf")
def _addf(*values: object) -> float:
    return _folded(values, Fraction(0), lambda left, right: left + right)


@MATH.add("subf")
def _subf(first: object, *others: object) -> float:
    return _folded(others, _exact(first), lambda left, right: left - right)


@MATH.add("mulf")
def _mulf(first: object, *others: object) -> float:
    return _folded(others, _exact(first), lambda left, right: left * right)


@MATH.add("divf")
def _divf(first: object, *others: object) -> float:
    return _folded(others, _exact(first), _quotient_rounded)
