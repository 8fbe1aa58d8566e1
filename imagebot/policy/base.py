"""Words of the policy engine: rules, filters, choices and what can be wrong with them. Pure.

::

    ReconcileError
    ├── InvalidPolicy    the rule itself: nobody can follow it until it is edited
    ├── InvalidFilter    a regular expression of the policy: nobody can follow it until it is edited
    └── NoChoice         the rule is fine, these tags offer nothing: another scan may
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from reconcile.errors import ReconcileError


class InvalidPolicy(ReconcileError):
    """The rule cannot be built. The text is what Flux writes behind `invalid policy: `."""


class InvalidFilter(ReconcileError):
    """A regular expression of the policy does not compile. The text is what Flux writes behind `failed to filter tags: `."""


class NoChoice(ReconcileError):
    """No tag could be chosen from those that are there. The text is Flux's whole message."""


@dataclass(frozen=True, slots=True)
class SemVer:
    """Choose the highest version in a range (Masterminds/semver grammar)."""

    range: str


@dataclass(frozen=True, slots=True)
class Alphabetical:
    """Choose by byte order: `asc` the last, `desc` the first.

    `filter` is an extension: a regular expression that a tag must match to take part, beside the policy's `filterTags`.
    """

    order: str = "asc"
    filter: str = ""


@dataclass(frozen=True, slots=True)
class Numerical:
    """Choose by number: `asc` the highest, `desc` the lowest."""

    order: str = "asc"


Rule = SemVer | Alphabetical | Numerical


@dataclass(frozen=True, slots=True)
class TagFilter:
    """`filterTags`: tags that match the pattern take part; `extract`, if not empty, is what is compared instead of the tag."""

    pattern: str = ""
    extract: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy chose: the tag, the text that was compared, how many tags could be compared, and why in a sentence."""

    tag: str
    value: str
    candidates: int
    reason: str


class View(Protocol):
    """Tags as one kind of policy with one filter needs them: parsed, sorted, kept up to date tag by tag."""

    @property
    def matched(self) -> int:
        """Tags that passed the filter."""

    def build(self, tags: Iterable[str]) -> None:
        """Take all tags at once, in ascending byte order; called once, first."""

    def add(self, tag: str) -> None:
        """Take one more tag, which is not there yet."""

    def remove(self, tag: str) -> None:
        """Forget a tag that is there."""

    def __len__(self) -> int:
        """Entries held, for bounding memory."""


def parse_order(order: str) -> bool:
    """Whether the order is descending; "" is ascending.

    Raises:
        InvalidPolicy: another word than asc or desc.
    """
    word = order.upper() or "ASC"
    if word not in {"ASC", "DESC"}:
        raise InvalidPolicy(f"invalid order argument provided: '{word}', must be one of: ASC, DESC")
    return word == "DESC"
