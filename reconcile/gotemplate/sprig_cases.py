"""Sprig's snakecase, kebabcase and camelcase."""

from __future__ import annotations

import unicodedata
from itertools import groupby
from typing import Final

from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.sprig_strings import is_space, lower_char, upper_char

CASES: Final = Family()

_CJK: Final = ((0x4E00, 0x9FCC), (0x3400, 0x4D85), (0x20000, 0x2B81D))


def _is_connector(char: str) -> bool:
    return char in "-_" or is_space(char)


def _is_upper(char: str) -> bool:
    return unicodedata.category(char) == "Lu"


def _is_letter(char: str) -> bool:
    """A letter that is not Han."""
    return char.isalpha() and not any(low <= ord(char) <= high for low, high in _CJK)


def _class(char: str) -> str:
    if _is_connector(char):
        return "connector"
    category = unicodedata.category(char)
    if category.startswith("P"):
        return "punct"
    if category == "Lu":
        return "upper"
    if _is_letter(char):
        return "letter"
    return "number" if category.startswith("N") else "other"


def _words(text: str) -> list[tuple[str, str]]:
    """The runs of characters of one class; an upper case letter goes with the lower case letters behind it."""
    runs = [(kind, "".join(chars)) for kind, chars in groupby(text, _class)]
    words: list[tuple[str, str]] = []
    for kind, run in runs:
        if kind == "letter" and words and words[-1][0] == "upper":
            upper = words.pop()[1]
            if len(upper) > 1:
                words.append(("upper", upper[:-1]))
            words.append(("upper", upper[-1] + run))
        else:
            words.append((kind, run))
    return words


def _lowered(kind: str, word: str, connector: str) -> str:
    if kind not in {"upper", "connector"}:
        return word
    return "".join(connector if _is_connector(char) else lower_char(char) if _is_upper(char) else char for char in word)


class _Separated:
    """Words joined by a connector; numbers stick to the letters around them."""

    def __init__(self, text: str, connector: str) -> None:
        self.words = iter(_words(text))
        self.connector = connector
        self.out: list[str] = []
        self.kind, self.word = "", ""

    def run(self) -> str:
        words = list(self.words)
        self.words = iter(words)
        left = len(words)
        self._advance()
        left -= 1
        while left > 0:
            if self.kind != "connector":
                self._write()
            previous, last = self.kind, self.word
            self._advance()
            left -= 1
            if previous == "connector":
                self.out.append(_lowered(previous, last, self.connector))
            elif previous == "number":
                left -= self._stick(left)
                self._separate()
            elif previous != "punct":
                left -= self._after_word(left)
        self._write()
        return "".join(self.out)

    def _advance(self) -> None:
        self.kind, self.word = next(self.words, ("", ""))

    def _write(self) -> None:
        self.out.append(_lowered(self.kind, self.word, self.connector))

    def _separate(self) -> None:
        if self.kind not in {"", "connector", "punct"}:
            self.out.append(self.connector)

    def _stick(self, left: int) -> int:
        """Write the letters and numbers that come next; how many of the words that are left were used."""
        used = 0
        while self.kind in {"letter", "number"}:
            self._write()
            self._advance()
            used += used < left
        return used

    def _after_word(self, left: int) -> int:
        if self.kind != "number":
            self._separate()
            return 0
        if left == 0:
            return 0
        number = self.word
        self._advance()
        if self.kind != "letter":
            self.out.append(number)
            self._separate()
            return 1
        self.out += [self.connector, number]
        used = 1 + self._stick(left - 1)
        self._separate()
        return used


@CASES.add("snakecase")
def _snakecase(text: str) -> str:
    return _Separated(text, "_").run()


@CASES.add("kebabcase")
def _kebabcase(text: str) -> str:
    return _Separated(text, "-").run()


@CASES.add("camelcase")
def _camelcase(text: str) -> str:
    body = text.lstrip("".join(char for char in set(text) if _is_connector(char)))
    out = [text[: len(text) - len(body)]]
    if not body:
        return text + text[-1:]  # upstream's slip: the last of nothing but connectors is written twice
    pending, shouting = upper_char(body[0]), _is_upper(body[0])
    for char in body[1:]:
        before, pending = pending, char
        if _is_connector(before):
            if _is_connector(char):
                out.append(before)
                continue
            shouting = _is_upper(char)
            pending = upper_char(char)
            continue
        if shouting:
            if _is_upper(char):
                pending = lower_char(char)
            else:
                shouting = False
        out.append(before)
    return "".join([*out, pending])
