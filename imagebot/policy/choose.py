"""From an ImagePolicy's rule and filter to the tag that it chooses. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from imagebot.policy.base import (
    Alphabetical,
    Choice,
    InvalidPolicy,
    NoChoice,
    Numerical,
    Rule,
    SemVer,
    TagFilter,
    View,
    parse_order,
)
from imagebot.policy.by_alphabet import AlphabetView
from imagebot.policy.by_number import NumberView
from imagebot.policy.by_version import VersionView
from imagebot.policy.extract import values_of
from imagebot.policy.index import TagIndex
from reconcile.versions import Constraint, InvalidConstraint, parse_constraint


@dataclass(frozen=True, slots=True)
class Policy:
    """A rule that can be followed, with its filter. Made by `build_policy`."""

    rule: Rule
    tag_filter: TagFilter
    constraint: Constraint | None = None
    descending: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about places where the rule surely means something else than was intended."""
        return self.constraint.warnings if self.constraint else ()

    def choose(self, index: TagIndex) -> Choice:
        """Choose a tag.

        Args:
            index: the tags of the repository; keeps what was parsed for the next time.

        Raises:
            InvalidFilter: a regular expression does not compile. Found only here: Flux reports it only when there are tags.
            NoChoice: no tag passes the filter, none is in the range, or one is no number.
        """
        choice = self._choose(index)
        if self.tag_filter.pattern:
            choice = replace(choice, reason=f"{choice.reason}, of the tags that match {self.tag_filter.pattern}")
        return choice

    def _choose(self, index: TagIndex) -> Choice:
        rule, tag_filter = self.rule, self.tag_filter
        match rule:
            case SemVer():
                assert self.constraint is not None  # noqa: S101 - build_policy made it
                versions = index.view((VersionView, tag_filter), lambda: VersionView(values_of(tag_filter)))
                _refuse_empty(versions)
                return versions.choose(self.constraint)
            case Alphabetical():
                only = rule.filter
                letters = index.view((AlphabetView, tag_filter, only), lambda: AlphabetView(values_of(tag_filter, only)))
                _refuse_empty(letters)
                return letters.choose(descending=self.descending)
            case Numerical():
                numbers = index.view((NumberView, tag_filter), lambda: NumberView(values_of(tag_filter)))
                _refuse_empty(numbers)
                return numbers.choose(descending=self.descending)
            case _:
                assert_never(rule)


def build_policy(rule: Rule | None, tag_filter: TagFilter | None = None) -> Policy:
    """Read a rule. The filter's expressions are compiled when there are tags to choose from.

    Raises:
        InvalidPolicy: no rule is given, a range does not parse, or an order is neither asc nor desc.
    """
    if rule is None:
        raise InvalidPolicy("given ImagePolicyChoice object is invalid")
    tag_filter = tag_filter or TagFilter()
    if isinstance(rule, SemVer):
        try:
            return Policy(rule, tag_filter, parse_constraint(rule.range))
        except InvalidConstraint as error:
            raise InvalidPolicy(str(error)) from error
    return Policy(rule, tag_filter, descending=parse_order(rule.order))


def _refuse_empty(view: View) -> None:
    if view.matched == 0:
        raise NoChoice("version list argument cannot be empty")
