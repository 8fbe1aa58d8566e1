"""Bounds on what one execution may cost.

Templates come from users, and a few functions of theirs (`repeat`, `untilStep`, `printf`, nested lists) turn a short template
into gigabytes. Everything that makes output or walks data spends from one budget instead of having limits of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from reconcile.gotemplate.failures import CallError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one execution may use.

    Attributes:
        output: Characters of the result.
        work: Executed nodes, list items made or visited, and characters made by functions, together.
        depth: Templates that call one another, nested.
    """

    output: int = 1 << 20
    work: int = 2_000_000
    depth: int = 50


DEFAULT = Limits()


class LimitError(CallError):
    """The budget is used up. Not an error of the function that noticed it."""


class Budget:
    """What is left of `Limits.work`."""

    __slots__ = ("left", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.left = total

    def spend(self, amount: int) -> None:
        """Take `amount` units of work; raises `LimitError` when there are not that many left."""
        self.left -= amount
        if self.left < 0:
            raise LimitError(f"the template needs more than the allowed {self.total} units of work")


_current: ContextVar[Budget | None] = ContextVar("gotemplate_budget", default=None)


def spend(amount: int) -> None:
    """Take `amount` units from the running execution's budget, *before* making something that large."""
    budget = _current.get()
    if budget is not None:
        budget.spend(amount)


@contextmanager
def spending(budget: Budget) -> Iterator[None]:
    """Make `budget` the one that `spend` takes from."""
    token = _current.set(budget)
    try:
        yield
    finally:
        _current.reset(token)
