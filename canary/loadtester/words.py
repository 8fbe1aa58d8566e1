"""A command line as words, without a shell: what only a shell could do is found and named. Pure.

The rules are those of the POSIX shell's quoting (chapter 2.2 of the Shell Command Language).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from canary.loadtester.payload import Refused

MAX_COMMAND = 64 * 1024
"""Characters of one command."""

_OPERATORS = {
    "|": "a pipe",
    "&": "another command behind it",
    ";": "another command behind it",
    "\n": "another command behind it",
    "<": "redirected input",
    ">": "redirected output",
    "(": "a sub-shell",
    ")": "a sub-shell",
    "$": "a variable",
    "`": "the output of another command",
}
_INSIDE_QUOTES = {"$", "`"}


def split(command: str) -> list[str]:
    """The words of a simple command.

    Raises:
        Refused: The command is empty or too long, its quotes do not match, or only a shell could run it.
    """
    text = command.strip().replace("\\\n", " ")
    if not text:
        raise Refused(400, "cmd not found in metadata")
    if len(text) > MAX_COMMAND or "\0" in text:
        raise Refused(400, f"the command cannot be run: it is longer than {MAX_COMMAND} characters or has a NUL in it")
    for character in _unquoted(text):
        raise Refused(400, f"the command has {_OPERATORS[character]} ({character!r}), which only a shell understands")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise Refused(400, f"the command cannot be read: {str(error).lower()}") from error


def _unquoted(text: str) -> Iterator[str]:
    """The characters that a shell would act on, in order."""
    quote, escaped = "", False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            if character == quote:
                quote = ""
            elif quote == '"' and character in _INSIDE_QUOTES:
                yield character
        elif character in "'\"":
            quote = character
        elif character in _OPERATORS:
            yield character


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a command in order, under their main names, and the other words; a switch has the value ""."""

    given: Sequence[tuple[str, str]]
    rest: Sequence[str]

    def last(self, name: str, default: str = "") -> str:
        """The value that counts when an option is given more than once."""
        return next((value for key, value in reversed(self.given) if key == name), default)

    def all(self, name: str) -> list[str]:
        """The values of an option that may come more than once."""
        return [value for key, value in self.given if key == name]

    def has(self, name: str) -> bool:
        """Whether an option or switch is given."""
        return any(key == name for key, _ in self.given)


@dataclass(frozen=True, slots=True)
class Grammar:
    """Which options a program has.

    Attributes:
        program: Its name, for messages.
        values: Options with a value: each spelling without dashes, and the main name.
        switches: Options without.
    """

    program: str
    values: Mapping[str, str]
    switches: Mapping[str, str]

    def read_go(self, words: Sequence[str]) -> Options:
        """Options as Go's `flag` package reads them: one dash or two, and no option behind the first word that is none."""
        given: list[tuple[str, str]] = []
        left = list(words)
        while left and left[0].startswith("-") and left[0] != "-":
            word = left.pop(0)
            if word == "--":
                break
            name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
            if name in self.values:
                given.append((self.values[name], value if equals else self._value(word, left)))
            elif name in self.switches and value.lower() in {"", "1", "t", "true"}:
                given.append((self.switches[name], ""))
            elif name not in self.switches:
                raise self._unknown(word)
        return Options(given, left)

    def read_posix(self, words: Sequence[str]) -> Options:
        """Options as `getopt_long` reads them: short ones together, values attached or behind, options anywhere."""
        given: list[tuple[str, str]] = []
        rest: list[str] = []
        left = list(words)
        while left:
            word = left.pop(0)
            if word == "--":
                rest += left
                break
            if word.startswith("--"):
                name, equals, value = word[2:].partition("=")
                if name in self.values and len(name) > 1:
                    given.append((self.values[name], value if equals else self._value(word, left)))
                elif name in self.switches and len(name) > 1 and not equals:
                    given.append((self.switches[name], ""))
                else:
                    raise self._unknown(word)
            elif word.startswith("-") and word != "-":
                given += self._short(word, left)
            else:
                rest.append(word)
        return Options(given, rest)

    def _short(self, word: str, left: list[str]) -> Iterator[tuple[str, str]]:
        for at, letter in enumerate(word[1:], start=2):
            if letter in self.values:
                yield self.values[letter], word[at:] or self._value(f"-{letter}", left)
                return
            if letter not in self.switches:
                raise self._unknown(f"-{letter}")
            yield self.switches[letter], ""

    def _value(self, word: str, left: list[str]) -> str:
        if not left:
            raise Refused(400, f"{self.program}: {word} needs a value")
        return left.pop(0)

    def _unknown(self, word: str) -> Refused:
        return Refused(400, f"{self.program}: the built-in load generator does not know {word.partition('=')[0][:40]}")
