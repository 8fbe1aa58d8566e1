"""The value of a pipeline: fields, methods, variables, functions and their arguments, with Go's error texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from reconcile.gotemplate.budget import LimitError, spend
from reconcile.gotemplate.failures import CallError, ExecError
from reconcile.gotemplate.functions import Function, signature
from reconcile.gotemplate.nodes import (
    Bool,
    Chain,
    Command,
    Dot,
    FieldNode,
    Identifier,
    Nil,
    Node,
    Number,
    Pipe,
    String,
    Variable,
)
from reconcile.gotemplate.strconv import quote
from reconcile.gotemplate.values import (
    ANY,
    MISSING,
    NILABLE,
    REFLECT,
    STRING,
    UINT32,
    Map,
    Struct,
    Type,
    Uint32,
    assignable,
    find_field,
    joined_halves,
    truth,
    type_of,
    zero,
)


@dataclass(frozen=True, slots=True)
class Boxed:
    """A value that was taken out of an `interface {}`: the same, but errors about its fields name that type."""

    value: object


def boxed(container: object, value: object) -> object:
    """An item of a container, boxed when the container holds `interface {}`."""
    return Boxed(value) if type_of(container).elem is ANY and value is not MISSING else value


def _open(value: object) -> object:
    return value.value if isinstance(value, Boxed) else value


class _Absent:
    """No value comes from the stage before in the pipeline."""


_ABSENT: Final = _Absent()


@dataclass(slots=True)
class Frame:
    """One running template: its name, its variables (innermost last) and how many templates called one another to get here."""

    template: str
    variables: list[tuple[str, object]]
    depth: int

    def assign(self, name: str, value: object) -> None:
        """Set the innermost variable of that name; raises `KeyError` when there is none."""
        self.variables[self._place(name)] = (name, value)

    def value(self, name: str) -> object:
        """The innermost variable of that name; raises `KeyError` when there is none."""
        return self.variables[self._place(name)][1]

    def _place(self, name: str) -> int:
        for place in range(len(self.variables) - 1, -1, -1):
            if self.variables[place][0] == name:
                return place
        raise KeyError(name)


class Evaluator:
    """Evaluates nodes and knows, for error texts, which one it is at."""

    def __init__(self, text: str, name: str, functions: Mapping[str, Function]) -> None:
        self.text = text
        self.name = name
        self.functions = functions
        self.node: Node | None = None
        self.frame: Frame | None = None

    def at(self, frame: Frame, node: Node) -> None:
        """From here on, errors point to `node`."""
        self.frame, self.node = frame, node

    def error(self, frame: Frame, text: str) -> ExecError:
        """An error at the current node, located by line and byte column as Go does."""
        if self.node is None:
            return ExecError(f"template: {self.name}: {text}")
        before = self.text[: self.node.at]
        line = before.count("\n") + 1
        column = len(before[before.rfind("\n") + 1 :].encode("utf-8", "surrogateescape"))
        place = f"template: {self.name}:{line}:{column}: executing {quote(frame.template)} at <{self.node}>"
        return ExecError(f"{place}: {text}")

    # Pipelines and their stages.

    def pipeline(self, frame: Frame, dot: object, pipe: Pipe) -> object:
        """The value of a pipeline; sets the variables that it declares."""
        self.at(frame, pipe)
        value: object = _ABSENT
        for command in pipe.commands:
            value = self._command(frame, dot, command, value)
            if value is None:
                value = MISSING
        for variable in pipe.declared:
            if pipe.assigns:
                self.assign(frame, variable.names[0], value)
            else:
                frame.variables.append((variable.names[0], value))
        return value

    def _command(self, frame: Frame, dot: object, command: Command, final: object) -> object:
        spend(1)
        first = command.args[0]
        if isinstance(first, FieldNode):
            self.at(frame, first)
            return self._fields(frame, dot, dot, first, first.names, command.args, final)
        if isinstance(first, Chain):
            return self._chain(frame, dot, first, command.args, final)
        if isinstance(first, Identifier):
            return self._function(frame, dot, first, command, command.args, final)
        if isinstance(first, Pipe):
            self._no_arguments(frame, command.args, final)
            return self.pipeline(frame, dot, first)
        if isinstance(first, Variable):
            return self._variable(frame, dot, first, command.args, final)
        self.at(frame, first)
        self._no_arguments(frame, command.args, final)
        if isinstance(first, Nil):
            raise self.error(frame, "nil is not a command")
        return self._literal(frame, dot, first)

    def _no_arguments(self, frame: Frame, args: Sequence[Node], final: object) -> None:
        if len(args) > 1 or final is not _ABSENT:
            raise self.error(frame, f"can't give argument to non-function {args[0]}")

    def _literal(self, frame: Frame, dot: object, node: Node) -> object:
        if isinstance(node, Bool):
            return node.value
        if isinstance(node, Dot):
            return _open(dot)
        if isinstance(node, String):
            return node.text
        if isinstance(node, Number):
            return self._constant(frame, node)
        raise self.error(frame, f"can't evaluate command {quote(str(node))}")

    def _constant(self, frame: Frame, node: Number) -> object:
        self.at(frame, node)
        if node.imaginary is not None:
            return node.imaginary
        if node.floating is not None and _looks_floating(node.text):
            return node.floating
        if node.integer is not None:
            return node.integer
        if node.unsigned is not None:
            raise self.error(frame, f"{node.text} overflows int")
        return MISSING

    # Names.

    def assign(self, frame: Frame, name: str, value: object) -> None:
        """Give a variable a new value; an error when it was never declared."""
        try:
            frame.assign(name, value)
        except KeyError:
            raise self.error(frame, f"undefined variable: {name}") from None

    def _variable(self, frame: Frame, dot: object, node: Variable, args: Sequence[Node], final: object) -> object:
        self.at(frame, node)
        try:
            value = frame.value(node.names[0])
        except KeyError:
            raise self.error(frame, f"undefined variable: {node.names[0]}") from None
        if len(node.names) == 1:
            self._no_arguments(frame, args, final)
            return _open(value)
        return self._fields(frame, dot, value, node, node.names[1:], args, final)

    def _chain(self, frame: Frame, dot: object, node: Chain, args: Sequence[Node], final: object) -> object:
        self.at(frame, node)
        if isinstance(node.node, Nil):
            raise self.error(frame, f"indirection through explicit nil in {node}")
        value = self._argument(frame, dot, None, node.node)
        return self._fields(frame, dot, value, node, node.names, args, final)

    def _fields(
        self, frame: Frame, dot: object, receiver: object, node: Node, names: Sequence[str], args: Sequence[Node], final: object
    ) -> object:
        for name in names[:-1]:
            found = self._field(frame, dot, name, node, (), _ABSENT, receiver)
            receiver = boxed(_open(receiver), found) if isinstance(_open(receiver), Map) else found
        return self._field(frame, dot, names[-1], node, args, final, receiver)

    def _field(
        self, frame: Frame, dot: object, name: str, node: Node, args: Sequence[Node], final: object, receiver: object
    ) -> object:
        shown = ANY if isinstance(receiver, Boxed) else None
        receiver = _open(receiver)
        if receiver is MISSING:
            return MISSING
        if receiver is None:
            raise self.error(frame, f"nil pointer evaluating interface {{}}.{name}")
        kind = type_of(receiver)
        method = kind.methods.get(name) if isinstance(receiver, Struct) else None
        if method is not None:
            found = signature(method, skip=1)
            bound = Function(lambda *rest: method(receiver, *rest), found.params, found.variadic)
            return self._call(frame, dot, bound, node, name, args[1:], final)
        has_arguments = len(args) > 1 or final is not _ABSENT
        if isinstance(receiver, Struct):
            known, value = find_field(receiver, name)
            if known:
                if has_arguments:
                    raise self.error(frame, f"{name} has arguments but cannot be invoked as function")
                return value
        elif isinstance(receiver, Map) and kind.key is STRING:
            if has_arguments:
                raise self.error(frame, f"{name} is not a method but has arguments")
            return receiver.entries.get(name, MISSING)
        raise self.error(frame, f"can't evaluate field {name} in type {shown or kind}")

    # Calls.

    def _function(
        self, frame: Frame, dot: object, node: Identifier, context: Node, args: Sequence[Node], final: object
    ) -> object:
        self.at(frame, node)
        function = self.functions[node.name]
        if node.name in {"and", "or"} and function.params == (REFLECT, REFLECT):
            return self._and_or(frame, dot, node.name, args[1:], final)
        if node.name == "call":
            return self._call_builtin(frame, dot, function, context, args[1:], final)
        return self._call(frame, dot, function, context, node.name, args[1:], final)

    def _count(self, frame: Frame, function: Function, name: str, args: Sequence[Node], final: object) -> None:
        given = len(args) + (final is not _ABSENT)
        wanted = len(function.params)
        if function.variadic:
            if given < wanted - 1:
                raise self.error(frame, f"wrong number of args for {name}: want at least {wanted - 1} got {len(args)}")
        elif given != wanted:
            raise self.error(frame, f"wrong number of args for {name}: want {wanted} got {given}")

    def _and_or(self, frame: Frame, dot: object, name: str, args: Sequence[Node], final: object) -> object:
        """The two built-ins that stop at the first operand that decides."""
        if not args and final is _ABSENT:
            raise self.error(frame, f"wrong number of args for {name}: want at least 1 got 0")
        value: object = MISSING
        for arg in args:
            value = self._argument(frame, dot, REFLECT, arg)
            if truth(value) == (name == "or"):
                return value
        return value if final is _ABSENT else final

    def _call_builtin(
        self, frame: Frame, dot: object, function: Function, context: Node, args: Sequence[Node], final: object
    ) -> object:
        named = str(args[0]) if args else final if isinstance(final, str) else f"<{type_of(final)} Value>"
        bound = Function(lambda *rest: function.call(named, *rest), function.params[1:], variadic=True)
        return self._call(frame, dot, bound, context, "call", args, final)

    def _call(
        self, frame: Frame, dot: object, function: Function, context: Node, name: str, args: Sequence[Node], final: object
    ) -> object:
        self._count(frame, function, name, args, final)
        params, last = function.params, len(function.params) - 1
        values = [self._argument(frame, dot, params[min(place, last)], arg) for place, arg in enumerate(args)]
        if final is not _ABSENT:
            values.append(self._checked(frame, final, params[min(len(args), last)]))
        try:
            result = function.call(*values)
        except LimitError:
            raise
        except CallError as error:
            self.at(frame, context)
            raise self.error(frame, f"error calling {name}: {error}") from None
        if isinstance(result, str):
            spend(len(result))
            return joined_halves(result)
        return result

    # Arguments.

    def _checked(self, frame: Frame, value: object, wanted: Type | None) -> object:
        """`value` as an argument of the wanted type (None: of any)."""
        if value is MISSING:
            if wanted is None or wanted is REFLECT:
                return MISSING
            if wanted.kind in NILABLE:
                return zero(wanted)
            raise self.error(frame, f"invalid value; expected {wanted}")
        if wanted is None or wanted is REFLECT or assignable(type_of(value), wanted):
            return value
        raise self.error(frame, f"wrong type for value; expected {wanted}; got {type_of(value)}")

    def _argument(self, frame: Frame, dot: object, wanted: Type | None, node: Node) -> object:
        self.at(frame, node)
        if isinstance(node, Dot):
            return self._checked(frame, _open(dot), wanted)
        if isinstance(node, Nil):
            if wanted is not None and (wanted.kind in NILABLE or wanted is REFLECT):
                return MISSING if wanted is REFLECT else zero(wanted)
            raise self.error(frame, f"cannot assign nil to {wanted}")
        if isinstance(node, FieldNode):
            return self._checked(frame, self._fields(frame, dot, dot, node, node.names, (), _ABSENT), wanted)
        if isinstance(node, Variable):
            return self._checked(frame, self._variable(frame, dot, node, (), _ABSENT), wanted)
        if isinstance(node, Pipe):
            return self._checked(frame, self.pipeline(frame, dot, node), wanted)
        if isinstance(node, Identifier):
            return self._checked(frame, self._function(frame, dot, node, node, (), _ABSENT), wanted)
        if isinstance(node, Chain):
            return self._checked(frame, self._chain(frame, dot, node, (), _ABSENT), wanted)
        if wanted is None or wanted is REFLECT or wanted is ANY:
            return self._literal(frame, dot, node)
        return self._typed_literal(frame, wanted, node)

    def _typed_literal(self, frame: Frame, wanted: Type, node: Node) -> object:
        match wanted.kind:
            case "string" if isinstance(node, String):
                return node.text
            case "bool" if isinstance(node, Bool):
                return node.value
            case "int" if isinstance(node, Number) and node.integer is not None:
                return node.integer
            case "uint32" if isinstance(node, Number) and node.unsigned is not None:
                return Uint32(node.unsigned % (1 << 32))
            case "float64" if isinstance(node, Number) and node.floating is not None:
                return node.floating
        names = {"int": "integer", UINT32.kind: "unsigned integer", "float64": "float", "string": "string", "bool": "bool"}
        if wanted.kind in names:
            raise self.error(frame, f"expected {names[wanted.kind]}; found {node}")
        raise self.error(frame, f"can't handle {node} for arg of type {wanted}")


def _looks_floating(text: str) -> bool:
    hexadecimal = len(text) > 2 and text[0] == "0" and text[1] in "xX" and not any(char in "pP" for char in text)
    return not hexadecimal and not text.startswith("'") and any(char in ".eEpP" for char in text)
