"""CEL expressions over objects of Kubernetes, as Flux evaluates them: bounded, with its words for what is wrong. Pure.

The engine is Google's own in C++, with the grammar and the type checker of the one that Flux uses, optional types, and the
extension libraries `strings`, `sets` and `encoders`. The only importer of `cel_expr_python`.

Bounds: the length of an expression, 32 levels of nesting, and 10,000 turns of comprehensions in one evaluation.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reconcile.errors import Invalid, LimitExceeded, ReconcileError

MAX_EXPRESSION = 10_000
"""Characters of an expression."""


class CelError(Invalid):
    """An expression does not compile; nothing helps until somebody edits it."""


class EvaluationFailed(ReconcileError):
    """An expression has no value for these objects, as a field is missing or of another type."""


class Expression:
    """A compiled expression. Evaluation blocks for some microseconds: its cost is bounded."""

    __slots__ = ("_compiled", "text")

    def __init__(self, text: str, compiled: Any) -> None:
        self.text = text
        self._compiled = compiled

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Its value for these variables, given as plain data.

        Raises:
            EvaluationFailed: It has none, or one that is no boolean; Flux's words.
        """
        from cel_expr_python import cel  # type: ignore[import-untyped]

        try:
            found = self._compiled.eval(data=values)
            kind = found.type()
            if kind == cel.Type.BOOL:
                return bool(found.value())
            why = _evaluation_words(str(found.value())) if kind == cel.Type.ERROR else ""
        except (RuntimeError, TypeError, ValueError) as error:
            why = _evaluation_words(str(error))
        if why:
            raise EvaluationFailed(f"failed to evaluate the CEL expression '{self.text}': {why}")
        raise EvaluationFailed(f"failed to evaluate CEL expression as boolean: '{self.text}'")


def compile_bool(text: str, variables: Sequence[str]) -> Expression:
    """An expression over these variables that is checked, and whose value is a boolean.

    Raises:
        CelError: It does not parse, names something else, or its value is of another type.
        LimitExceeded: It is too long.
    """
    names = tuple(variables)
    try:
        compiled = _compiled(text, names, checked=True)
    except CelError as error:
        # Numbers of different types may be compared; the checker knows no way to be told so.
        if not _ONLY_NUMBERS.fullmatch(str(error)):
            raise CelError(f"failed to parse the CEL expression '{text}': {error}") from None
        return Expression(text, _compiled(text, names, checked=False))
    kind = compiled.return_type().name().lower()
    if kind != "bool":
        raise CelError(f"CEL expression output type mismatch: expected bool, got {kind}")
    return Expression(text, compiled)


def parse(text: str) -> Expression:
    """An expression over any variables that is parsed and not checked.

    Raises:
        CelError: It does not parse.
        LimitExceeded: It is too long.
    """
    try:
        return Expression(text, _compiled(text, (), checked=False))
    except CelError as error:
        raise CelError(f"failed to parse the CEL expression '{text}': {error}") from None


_NUMBER = r"(?:int|uint|double)"
_ONLY_NUMBERS = re.compile(
    rf"(?:ERROR: <input>:\d+:\d+: found no matching overload for '_(?:<|<=|>|>=)_' applied to '\({_NUMBER}, {_NUMBER}\)'"
    r"(?:\n \| [^\n]*)*\n?)+"
)


def _compiled(text: str, variables: tuple[str, ...], *, checked: bool) -> Any:
    if len(text) > MAX_EXPRESSION:
        raise LimitExceeded(f"a CEL expression has {len(text)} characters, more than {MAX_EXPRESSION}")
    try:
        return _environment(variables).compile(text, disable_check=not checked)
    except RuntimeError as error:
        raise CelError(_compile_words(str(error))) from None


@functools.lru_cache(maxsize=8)
def _environment(variables: tuple[str, ...]) -> Any:
    """An environment with these variables; the engine is loaded with the first of them."""
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_encoders, ext_optional, ext_strings  # type: ignore[import-untyped]

    lists = [cel.Type.List(cel.Type.DYN)] * 2
    functions = [
        cel.FunctionDecl(name, [cel.Overload(overload, return_type=cel.Type.BOOL, parameters=lists, impl=implementation)])
        for name, overload, implementation in (
            ("sets.contains", "list_sets_contains_list", _contains),
            ("sets.equivalent", "list_sets_equivalent_list", _equivalent),
            ("sets.intersects", "list_sets_intersects_list", _intersects),
        )
    ]
    return cel.NewEnv(
        variables=dict.fromkeys(variables, cel.Type.DYN),
        extensions=[ext_encoders.ExtEncoders(), ext_optional.ExtOptional(), ext_strings.ExtStrings()],
        functions=functions,
    )


# --- sets


def _contains(one: list[Any], other: list[Any]) -> bool:
    return all(_has(one, value) for value in other)


def _equivalent(one: list[Any], other: list[Any]) -> bool:
    return _contains(one, other) and _contains(other, one)


def _intersects(one: list[Any], other: list[Any]) -> bool:
    return any(_has(one, value) for value in other)


def _has(values: list[Any], value: Any) -> bool:
    """Whether a value is among others; to CEL true is no number, to Python it is 1."""
    return any(isinstance(each, bool) == isinstance(value, bool) and each == value for each in values)


# --- words

_CODE = re.compile(r"^[A-Z_]+: ")
_MISSING_KEY = re.compile(r'^Key not found in map : "(.*)"$', re.DOTALL)
_MISSING_NAME = re.compile(r'^No value with name "(.*)" found in Activation$', re.DOTALL)


def _compile_words(text: str) -> str:
    return re.sub(r" \[[A-Z_]+\]$", "", _CODE.sub("", text))


def _evaluation_words(text: str) -> str:
    said = _compile_words(text)
    key, name = _MISSING_KEY.match(said), _MISSING_NAME.match(said)
    if key is not None:
        return f"no such key: {key[1]}"
    return f"no such attribute(s): {name[1]}" if name is not None else said
