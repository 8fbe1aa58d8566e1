"""Choose by number, as Flux's numerical policy does, but comparing decimals exactly. Pure."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, insort
from collections.abc import Iterable
from decimal import Decimal

from imagebot.policy.base import Choice, NoChoice
from imagebot.policy.extract import Values
from imagebot.policy.ranking import Ranking

Number = int | Decimal | float

_DIGITS = r"[0-9](?:_?[0-9])*"
_HEX_DIGITS = r"[0-9a-fA-F](?:_?[0-9a-fA-F])*"
_DECIMAL = re.compile(rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?")
_HEX = re.compile(rf"[+-]?0[xX](?:_?{_HEX_DIGITS}(?:\.(?:{_HEX_DIGITS})?)?|\.{_HEX_DIGITS})[pP][+-]?{_DIGITS}")
_INFINITY = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE | re.ASCII)
_LONGEST_INT = 300  # digits: below Python's limit for int(), close to the largest double


def parse_number(text: str) -> Number | None:
    """A number in the grammar of Go's `strconv.ParseFloat`, or None where that reports an error.

    What is accepted is what fits a double; the value itself is exact: an int or a Decimal, and a float only for what has no
    decimal value (infinity, NaN).
    """
    plain = text.replace("_", "")
    if _DECIMAL.fullmatch(text):
        rounded = float(plain)
    elif _HEX.fullmatch(text):
        try:
            rounded = float.fromhex(plain)
        except OverflowError:
            return None
        return int(rounded) if rounded.is_integer() else Decimal(rounded)
    elif _INFINITY.fullmatch(text):
        return float(text)
    else:
        return math.nan if text.lower() == "nan" else None
    if math.isinf(rounded):
        return None
    if rounded == 0:
        # Also what is too small for a double: no need to tell such numbers apart, and exponents stay bounded.
        return 0
    return int(plain) if len(plain) <= _LONGEST_INT and plain.lstrip("+-").isdigit() else Decimal(plain)


class NumberView:
    """Tags by the number that their value is; those with NaN and those with no number apart."""

    __slots__ = ("_nans", "_ranking", "_unreadable", "_values")

    def __init__(self, values: Values) -> None:
        self._values = values
        self._ranking: Ranking[Number] = Ranking()
        self._nans: list[str] = []
        self._unreadable: list[str] = []

    @property
    def matched(self) -> int:
        """See `View`."""
        return len(self)

    def __len__(self) -> int:
        return len(self._ranking) + len(self._nans) + len(self._unreadable)

    def build(self, tags: Iterable[str]) -> None:
        """See `View`."""
        numbers, kept = [], []
        for tag in tags:
            value = self._values.of(tag)
            if value is None:
                continue
            number = parse_number(value)
            if number is None:
                self._unreadable.append(tag)
            elif number != number:
                self._nans.append(tag)
            else:
                numbers.append(number)
                kept.append(tag)
        self._ranking.fill(numbers, kept)

    def add(self, tag: str) -> None:
        """See `View`."""
        value = self._values.of(tag)
        if value is None:
            return
        number = parse_number(value)
        if number is None:
            insort(self._unreadable, tag)
        elif number != number:
            insort(self._nans, tag)
        else:
            self._ranking.add(number, tag)

    def remove(self, tag: str) -> None:
        """See `View`."""
        value = self._values.of(tag)
        if value is None:
            return
        number = parse_number(value)
        if number is None:
            del self._unreadable[bisect_left(self._unreadable, tag)]
        elif number != number:
            del self._nans[bisect_left(self._nans, tag)]
        else:
            self._ranking.remove(number, tag)

    def choose(self, *, descending: bool) -> Choice:
        """The highest number, or the lowest when descending; of equal ones the byte-wise smallest tag.

        Raises:
            NoChoice: there are no tags, or one of them is no number.
        """
        if self._unreadable:
            value = self._values.of(self._values.leader(self._unreadable))
            raise NoChoice(f"failed to parse invalid numeric value '{value}'")
        if not len(self):
            raise NoChoice("version list argument cannot be empty")
        tag = self._after_nan(descending) if self._nans else self._best(descending)
        how = "the only number" if len(self) == 1 else f"{'lowest' if descending else 'highest'} of {len(self)} numbers"
        return Choice(tag, self._values.of(tag) or "", len(self), how)

    def _best(self, descending: bool) -> str:
        keys, tags = self._ranking.keys, self._ranking.tags
        return tags[0] if descending else tags[bisect_left(keys, keys[-1])]

    def _after_nan(self, descending: bool) -> str:
        """The choice when some value is NaN.

        The list is walked from the byte-wise greatest tag; a NaN takes the place of whatever was best and gives it up to whatever
        follows. So only what follows the last NaN counts.
        """
        numbers = dict(zip(self._ranking.tags, self._ranking.keys, strict=True))
        last_nan = self._values.representatives(self._nans)[0]
        following = self._values.representatives(sorted(numbers))
        best = last_nan
        for tag in reversed(following[: bisect_left(following, last_nan)]):
            held = numbers.get(best)
            if held is None or (numbers[tag] <= held if descending else numbers[tag] >= held):
                best = tag
        return best
