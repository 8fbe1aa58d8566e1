"""What a template can call: a Python function with the Go signature read from its annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from reconcile.gotemplate.values import ANY, BOOL, DICT, FLOAT64, INT, REFLECT, STRING, UINT32, Type

_TYPES: Final[Mapping[str, Type]] = {
    "str": STRING,
    "int": INT,
    "float": FLOAT64,
    "bool": BOOL,
    "object": ANY,
    "Map": DICT,
    "Value": REFLECT,
    "Uint32": UINT32,
}

_F = TypeVar("_F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Function:
    """A callable with its Go parameter types; the last one repeats when `variadic`."""

    call: Callable[..., object]
    params: tuple[Type, ...]
    variadic: bool = False


def signature(function: Callable[..., object], *, skip: int = 0) -> Function:
    """A `Function` of a Python function whose parameters are annotated with str, int, float, bool, object (`interface {}`),
    `Map` (`map[string]interface {}`) or `Value`; `skip` leading parameters are left out (a method's receiver).

    Raises:
        TypeError: a parameter has another annotation.
    """
    params: list[Type] = []
    variadic = False
    for name, parameter in list(inspect.signature(function).parameters.items())[skip:]:
        annotation = (
            parameter.annotation if isinstance(parameter.annotation, str) else getattr(parameter.annotation, "__name__", "")
        )
        if annotation not in _TYPES:
            raise TypeError(f"parameter {name} of a template function has no Go type: {annotation!r}")
        params.append(_TYPES[annotation])
        variadic = parameter.kind is inspect.Parameter.VAR_POSITIONAL
    return Function(function, tuple(params), variadic)


class Family(dict[str, Callable[..., object]]):
    """Functions of one kind by their Go names."""

    def add(self, *names: str) -> Callable[[_F], _F]:
        """Decorator: the function is called by these names in templates."""

        def register(function: _F) -> _F:
            for name in names:
                self[name] = function
            return function

        return register
