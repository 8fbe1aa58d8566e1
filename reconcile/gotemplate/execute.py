"""Running a parsed template, as Go's `text/template` does, with bounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from reconcile.gotemplate.budget import Budget, Limits, spending
from reconcile.gotemplate.evaluate import Evaluator, Frame, boxed
from reconcile.gotemplate.failures import CallError, ExecError
from reconcile.gotemplate.fmt import sprint, to_string
from reconcile.gotemplate.functions import Function
from reconcile.gotemplate.nodes import Action, Branch, Include, Jump, ListNode, Node, Text
from reconcile.gotemplate.parser import Tree
from reconcile.gotemplate.strconv import quote
from reconcile.gotemplate.values import (
    INT_KINDS,
    MISSING,
    UINT_KINDS,
    Map,
    Sized,
    Slice,
    from_python,
    kind_of,
    sorted_entries,
    to_bytes,
    to_text,
    truth,
)

_NOTHING: Final = "<no value>"


@dataclass(frozen=True, slots=True)
class Program:
    """A template ready to run: its name and text, the templates it defines, and the functions it may call."""

    name: str
    text: str
    trees: Mapping[str, Tree]
    functions: Mapping[str, Function]


def execute(program: Program, data: object, limits: Limits) -> str:
    """The output of a template for `data`.

    Raises:
        ExecError: in Go's words, or because a limit was exceeded.
    """
    return _Executor(program, limits).run(from_python(data))


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Executor:
    def __init__(self, program: Program, limits: Limits) -> None:
        self.program = program
        self.limits = limits
        self.budget = Budget(limits.work)
        self.out: list[str] = []
        self.length = 0
        self.evaluator = Evaluator(program.text, program.name, program.functions)

    def run(self, data: object) -> str:
        tree = self.program.trees[self.program.name]
        frame = Frame(tree.name, [("$", data)], 0)
        with spending(self.budget):
            try:
                self._walk(frame, data, tree.root)
            except CallError as error:
                raise self.evaluator.error(self.evaluator.frame or frame, str(error)) from None
            except RecursionError:
                raise self.evaluator.error(self.evaluator.frame or frame, "values or templates are nested too deeply") from None
        return to_text(to_bytes("".join(self.out)))

    def _write(self, text: str) -> None:
        self.budget.spend(len(text))
        self.length += len(text)
        if self.length > self.limits.output:
            raise CallError(f"the output is longer than the allowed {self.limits.output} characters")
        self.out.append(text)

    def _walk(self, frame: Frame, dot: object, node: Node) -> None:
        self.budget.spend(1)
        self.evaluator.at(frame, node)
        if isinstance(node, Text):
            self._write(node.text)
        elif isinstance(node, Action):
            value = self.evaluator.pipeline(frame, dot, node.pipe)
            if not node.pipe.declared:
                self.evaluator.at(frame, node)
                self._write(_NOTHING if value is MISSING else value if isinstance(value, str) else sprint([value]))
        elif isinstance(node, ListNode):
            for each in node.nodes:
                self._walk(frame, dot, each)
        elif isinstance(node, Branch):
            mark = len(frame.variables)
            try:
                if node.word == "range":
                    self._range(frame, dot, node)
                else:
                    self._if_or_with(frame, dot, node)
            finally:
                del frame.variables[mark:]
        elif isinstance(node, Include):
            self._include(frame, dot, node)
        elif isinstance(node, Jump):
            raise _Break if node.word == "break" else _Continue

    def _if_or_with(self, frame: Frame, dot: object, node: Branch) -> None:
        value = self.evaluator.pipeline(frame, dot, node.pipe)
        if truth(value):
            self._walk(frame, value if node.word == "with" else dot, node.body)
        elif node.otherwise is not None:
            self._walk(frame, dot, node.otherwise)

    def _include(self, frame: Frame, dot: object, node: Include) -> None:
        tree = self.program.trees.get(node.name)
        if tree is None:
            raise self.evaluator.error(frame, f"template {quote(node.name)} not defined")
        if frame.depth >= self.limits.depth:
            raise self.evaluator.error(frame, f"exceeded maximum template depth ({self.limits.depth})")
        dot = MISSING if node.pipe is None else self.evaluator.pipeline(frame, dot, node.pipe)
        self._walk(replace(frame, template=tree.name, variables=[("$", dot)], depth=frame.depth + 1), dot, tree.root)

    def _range(self, frame: Frame, dot: object, node: Branch) -> None:
        value = self.evaluator.pipeline(frame, dot, node.pipe)
        items = self._items(frame, node, value)
        ran = False
        mark = len(frame.variables)
        try:
            for index, item in items:
                ran = True
                self._bind(frame, node, index, item)
                try:
                    self._walk(frame, item, node.body)
                except _Continue:
                    pass
                finally:
                    del frame.variables[mark:]
        except _Break:
            return
        if not ran and node.otherwise is not None:
            self._walk(frame, dot, node.otherwise)

    def _items(self, frame: Frame, node: Branch, value: object) -> Iterable[tuple[object, object]]:
        if value is MISSING or value is None:
            return ()
        if isinstance(value, Slice):
            return ((index, boxed(value, item)) for index, item in enumerate(value.items))
        if isinstance(value, Map):
            return ((key, boxed(value, item)) for key, item in sorted_entries(value))
        if isinstance(value, int) and kind_of(value) in INT_KINDS | UINT_KINDS:
            if len(node.pipe.declared) > 1:
                raise self.evaluator.error(frame, f"can't use {value} to iterate over more than one variable")
            kind = type(value) if isinstance(value, Sized) else int
            return ((MISSING, kind(each)) for each in range(value))
        raise self.evaluator.error(frame, f"range can't iterate over {to_string(value)}")

    def _bind(self, frame: Frame, node: Branch, index: object, item: object) -> None:
        """Give the loop's variables their values: one is the element, two are the index and the element."""
        names = [variable.names[0] for variable in node.pipe.declared]
        values = [index, item] if len(names) > 1 else [item]
        for place, (name, value) in enumerate(zip(names, values, strict=False)):
            if node.pipe.assigns:
                self.evaluator.assign(frame, name, value)
            else:
                frame.variables[place - len(names)] = (name, value)


__all__ = ["ExecError", "Program", "execute"]
