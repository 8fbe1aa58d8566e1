"""Go's `text/template` with the Sprig functions that Flux allows. Pure.

Written here because PyPI has no implementation that knows Go's types, its error texts with line and column, and Sprig.

Differences from Go are limits only: see `Limits`. A template that needs more than those ends with an `ExecError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from reconcile.gotemplate.budget import DEFAULT, Limits
from reconcile.gotemplate.builtin_funcs import BUILTINS
from reconcile.gotemplate.execute import Program, execute
from reconcile.gotemplate.failures import CallError, ExecError, ParseError, TemplateError
from reconcile.gotemplate.functions import Function, signature
from reconcile.gotemplate.parser import parse
from reconcile.gotemplate.sprig import SPRIG

__all__ = ["DEFAULT", "SPRIG", "CallError", "ExecError", "Limits", "ParseError", "Template", "TemplateError"]


@lru_cache(maxsize=512)
def _signature(function: Callable[..., object]) -> Function:
    return signature(function)


class Template:
    """A parsed template. Immutable; may be executed any number of times, also from several threads."""

    __slots__ = ("_program",)

    def __init__(self, program: Program) -> None:
        self._program = program

    @staticmethod
    def parse(name: str, text: str, funcs: Mapping[str, Callable[..., object]] = SPRIG) -> Template:
        """The template that `text` describes.

        Args:
            name: Stands in error texts.
            text: The template.
            funcs: Functions besides the built-in ones, which they may hide; their parameters are annotated (see `signature`).

        Raises:
            ParseError: in Go's words, `template: <name>:<line>: <what>`.
        """
        functions = {known: _signature(function) for known, function in {**BUILTINS, **funcs}.items()}
        return Template(Program(name, text, parse(name, text, functions), functions))

    def execute(self, data: object, limits: Limits = DEFAULT) -> str:
        """The output for `data`: Go values of `reconcile.gotemplate.values`, or plain dicts, lists and scalars.

        Raises:
            ExecError: in Go's words, or because a limit was exceeded.
        """
        return execute(self._program, data, limits)
