"""Post-build variable substitution: the grammar of `${…}` and what becomes of an object. Pure.

Follows Flux's kustomize-controller (its fork of drone/envsubst), errors included. A text is parsed as a whole before anything
is evaluated, into a flat list of instructions, so neither nesting nor length is limited by a stack, and both take linear time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reconcile.errors import ReconcileError
from reconcile.kustomize import forms, goyaml
from reconcile.kustomize.goyaml_load import load
from reconcile.ports.cluster import Object

MOST_CHARACTERS: Final = 32 * 1024 * 1024
"""Of any text in the making; an object of Kubernetes has 3 MB at most."""

MOST_STEPS: Final = 128 * 1024 * 1024
"""Characters looked at in one text, all forms together."""

_CLOSING = "missing closing brace"
_NAME = "unable to parse variable name"
_BAD = "bad substitution"
_FUNCTION = "unable to parse substitution within function"

_PLAIN = "${}"
_LENGTH = "${#}"
_DEFAULTS = frozenset(("=", ":=", ":-", ":?", ":+"))
_REMOVALS = frozenset(("#", "##", "%", "%%"))
_REPLACEMENTS = frozenset(("/", "//", "/#", "/%"))

_ASCII_NAME = re.compile(r"[A-Za-z0-9_]*")
_TEXT_END = re.compile(r"\}|\$\{|\Z")
_POSITION_END = re.compile(r"[:}]|\$\{|\Z")
_OLD_PIECE = re.compile(r"(?P<escape>\$(?=\$)|\\(?=[/\\]))|/|\$\{|\Z")
_NEW_PIECE = re.compile(r"(?P<escape>\$(?=\$)|\\(?=[/\\]))|\}|\$\{|\Z")
_ACTIVE = re.compile(r"\$[{$]")


class SubstitutionError(ReconcileError):
    """A text, a variable or the result does not do; the message has Flux's words."""


@dataclass(frozen=True, slots=True)
class _Call:
    """Take `operands` buffers, put the form's result into the one below."""

    form: str
    name: str
    operands: int


_OPEN: Final = None  # begin a buffer
_Instruction = str | _Call | None


@dataclass(slots=True)
class _Frame:
    """A form whose operands are being read: `operands` begun so far, `piece` read in the present one."""

    form: str
    name: str
    operands: int = 0
    piece: bool = False


class _Parser:
    """Reads a text into instructions; nested forms are kept on a stack of its own."""

    def __init__(self, text: str) -> None:
        # The scanner takes a NUL for the end of its input.
        self._text = text.partition("\0")[0]
        self._at = 0
        self._frames: list[_Frame] = []
        self._code: list[_Instruction] = []

    def parse(self) -> list[_Instruction]:
        while self._plain():
            self._form()
            while self._frames:
                self._operand(self._frames[-1])
        return self._code

    def _plain(self) -> bool:
        """Text up to the next form; False at the end."""
        text, code = self._text, self._code
        while True:
            dollar = text.find("$", self._at)
            if dollar < 0:
                code.append(text[self._at :])
                return False
            follower = text[dollar + 1 : dollar + 2]
            code.append(text[self._at : dollar + (follower != "{")])
            self._at = dollar + 1 + (follower in ("$", "{"))
            if follower == "{":
                return True

    def _peek(self, offset: int = 0) -> str:
        return self._text[self._at + offset : self._at + offset + 1]

    def _close(self, error: str = _BAD) -> None:
        if self._peek() != "}":
            raise SubstitutionError(error)
        self._at += 1

    def _name(self) -> str:
        start = self._at
        text = self._text
        while True:
            end = _ASCII_NAME.match(text, self._at).end()  # type: ignore[union-attr]  # it matches the empty text
            follower = text[end : end + 1]
            if follower < "\x80" or not (follower.isalpha() or follower.isdecimal()):
                self._at = end
                return text[start:end]
            self._at = end + 1

    def _form(self) -> None:
        """Behind `${`: name and form; a form with operands becomes a frame."""
        if self._peek() == "#":
            self._at += 1
            name = self._name()
            if not name:
                raise SubstitutionError(_BAD)
            self._close()
            self._code.append(_Call(_LENGTH, name, 0))
            return
        name = self._name()
        if not name:
            raise SubstitutionError(_NAME)
        first = self._peek()
        if first in ("", "}") or first not in ":=,^/#%":
            self._close(_CLOSING)
            self._code.append(_Call(_PLAIN, name, 0))
            return
        form = self._operator(first)
        self._at += len(form)
        if first in ",^":
            self._close()
            self._code.append(_Call(form, name, 0))
            return
        self._frames.append(_Frame(form, name))
        if form in _DEFAULTS:
            self._begin(self._frames[-1])

    def _operator(self, first: str) -> str:
        second = self._peek(1)
        if first == ":" and not "" < second < "\x80":
            # Flux's scanner loses its place behind a colon at the end and before a character of several bytes.
            raise SubstitutionError(_BAD)
        seconds = {":": "=-?+", "=": "", ",": ",^", "^": ",^", "/": "/#%", "#": "#", "%": "%"}[first]
        return first + second if second and second in seconds else first

    def _begin(self, frame: _Frame) -> None:
        frame.operands += 1
        frame.piece = False
        self._code.append(_OPEN)

    def _end(self, frame: _Frame) -> None:
        self._close()
        self._frames.pop()
        self._code.append(_Call(frame.form, frame.name, frame.operands))

    def _nested(self, frame: _Frame) -> bool:
        if not self._text.startswith("${", self._at):
            return False
        frame.piece = True
        self._at += 2
        self._form()
        return True

    def _operand(self, frame: _Frame) -> None:
        """One step: begin an operand, read a piece of it, or end the form."""
        if frame.form in _DEFAULTS:
            if self._peek() == "}":
                self._end(frame)
            elif not self._nested(frame):
                self._piece(_TEXT_END)
        elif frame.form == ":":
            self._position(frame)
        elif frame.form in _REPLACEMENTS:
            self._replacement(frame)
        elif frame.piece:
            self._end(frame)
        else:
            self._single(frame, _TEXT_END)

    def _single(self, frame: _Frame, end: re.Pattern[str]) -> None:
        """An operand of one piece: a nested form or text."""
        self._begin(frame)
        if not self._nested(frame):
            self._piece(end)
            frame.piece = True

    def _piece(self, end: re.Pattern[str]) -> None:
        """Text up to `end`, not empty."""
        match = end.search(self._text, self._at)
        assert match is not None  # noqa: S101 - each ends in \Z
        if match.start() == self._at:
            raise SubstitutionError(_FUNCTION)
        self._code.append(self._text[self._at : match.start()])
        self._at = match.start()

    def _position(self, frame: _Frame) -> None:
        if not frame.piece:
            self._single(frame, _POSITION_END)
        elif frame.operands == 1 and self._peek() == ":":
            while self._peek() == ":":
                self._at += 1
            self._single(frame, _TEXT_END)
        else:
            self._end(frame)

    def _replacement(self, frame: _Frame) -> None:
        if frame.operands == 0:
            self._escaped(frame, _OLD_PIECE)
        elif frame.operands == 1:
            if self._peek() != "/":
                raise SubstitutionError(_BAD)
            while self._peek() == "/":
                self._at += 1
            if self._peek() == "}":
                self._end(frame)
            else:
                self._escaped(frame, _NEW_PIECE)
        else:
            self._end(frame)

    def _escaped(self, frame: _Frame, end: re.Pattern[str]) -> None:
        """An operand in which `$$`, `\\/` and `\\\\` stand for their second character."""
        self._begin(frame)
        if self._nested(frame):
            return
        start = at = self._at
        while True:
            match = end.search(self._text, at)
            assert match is not None  # noqa: S101 - each ends in \Z
            self._code.append(self._text[self._at : match.start()])
            if match["escape"] is None:
                break
            self._at, at = match.end(), match.end() + 1
        self._at = match.start()
        if self._at == start:
            raise SubstitutionError(_FUNCTION)


class Evaluator:
    """Runs instructions with variables.

    Attributes:
        steps: Characters looked at so far.
    """

    def __init__(self, variables: Mapping[str, str], *, strict: bool) -> None:
        """Strict: an unset variable is an error unless its form has a default; else it is empty."""
        self._variables = variables
        self._strict = strict
        self.steps = 0

    def spend(self, steps: int) -> None:
        """Count `steps`; raises `SubstitutionError` when there have been too many."""
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise SubstitutionError("substitution takes too many steps")

    def text(self, text: str) -> str:
        """`text` with all its forms replaced. Raises `SubstitutionError`."""
        buffers: list[list[str]] = [[]]
        size = 0
        for instruction in _Parser(text).parse():
            if instruction is _OPEN:
                buffers.append([])
                continue
            if isinstance(instruction, str):
                piece = instruction
            else:
                count = instruction.operands
                operands = [forms.settled("".join(buffer)) for buffer in buffers[len(buffers) - count :]] if count else []
                del buffers[len(buffers) - count :]
                piece = self._call(instruction, operands)
            self.spend(1 + len(piece))
            size += len(piece)
            self._bounded(size)
            buffers[-1].append(piece)
        return forms.settled("".join(buffers[0]))

    def _bounded(self, size: int) -> None:
        if size > MOST_CHARACTERS:
            raise SubstitutionError(f"the text would have more than {MOST_CHARACTERS} characters")

    def _call(self, call: _Call, operands: list[str]) -> str:
        form = call.form
        value = self._variables.get(call.name)
        if value is None:
            if self._strict and form not in _DEFAULTS:
                raise SubstitutionError(f'variable not set (strict mode): "{call.name}"')
            value = ""
        if form == _PLAIN:
            return value
        if form in _DEFAULTS:
            return value or operands[0]
        self.spend(len(value) + sum(map(len, operands)))
        if form == _LENGTH:
            return forms.length(value)
        if form == ":":
            return forms.part(value, operands[0], operands[1] if len(operands) > 1 else None)
        if form in _REMOVALS:
            cut = forms.cut_prefix if form[0] == "#" else forms.cut_suffix
            return cut(value, operands[0], len(form) == 2, self.spend)
        if form in _REPLACEMENTS:
            new = operands[1] if len(operands) > 1 else None
            self._bounded(forms.replaced_size(value, operands[0], new or "", -1 if form == "//" else 1))
            return forms.replace(value, form, operands[0], new)
        return _cased(form, value)


def _cased(form: str, value: str) -> str:
    if form == "^":
        return forms.upper_first(value)
    if form == "^^":
        return forms.upper(value)
    if form == ",":
        return forms.lower_first(value)
    return forms.lower(value) if form == ",," else value


def substitute(text: str, variables: Mapping[str, str], *, strict: bool) -> str:
    """`text` with every `${…}` replaced by what `variables` make of it, and `$$` by `$`.

    Args:
        text: Any text. A NUL ends it.
        variables: Values by name; they are not looked at for variables again.
        strict: An unset variable is an error unless its form has a default; else it counts as empty.

    Returns:
        The text; half a character, which a byte offset can leave, stays in it as `surrogateescape` has it.

    Raises:
        SubstitutionError: The grammar is broken or a variable is not set; Flux's words.
    """
    return Evaluator(variables, strict=strict).text(text)


def substitute_object(obj: Object, variables: Mapping[str, str], *, strict: bool) -> Object:
    """`obj` as it is once its YAML text has been substituted and read again.

    Keys are substituted too, and types are decided anew: a scalar that is only `${v}` becomes a number, a boolean, null or a
    mapping if the value reads so. Text without `$$` and `${` makes the same round trip without being written and read.

    Args:
        obj: Plain data; it is not changed, and parts of it may be in the result.
        variables: Values by name.
        strict: As for `substitute`.

    Raises:
        SubstitutionError: `variable substitution failed: …`, or `YAMLToJSON: …` when the result is no YAML.
    """
    try:
        if not _active(obj):
            return dict(_as_read(obj))
        text = goyaml.dump(obj)
        try:
            text = substitute(text, variables, strict=strict)
        except SubstitutionError as error:
            raise SubstitutionError(f"variable substitution failed: {error}") from None
        read = load(text)
    except goyaml.GoYamlError as error:
        raise SubstitutionError(f"YAMLToJSON: {error}") from None
    if not isinstance(read, dict):
        raise SubstitutionError("UnmarshalJSON: the text is no object after substitution")
    return read


def _active(value: Any) -> bool:
    """Whether substitution would change a text in `value`."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if "$" in item and _ACTIVE.search(item):
                return True
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False


def _as_read(value: Any, depth: int = 0) -> Any:
    """`value` with its numbers as they come back from YAML: whole ones are integers."""
    if isinstance(value, (dict, list)) and depth >= goyaml.MAX_DEPTH:
        raise goyaml.GoYamlError(goyaml.TOO_DEEP)
    if isinstance(value, dict):
        return {key: _as_read(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list):
        return [_as_read(part, depth + 1) for part in value]
    return goyaml.number(value) if isinstance(value, (int, float)) else value
