"""What becomes of each tag: dropped by the repository, filtered by the policy, not comparable, out of range, or ranked. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from imagebot.policy.base import Alphabetical, Choice, InvalidFilter, NoChoice, Numerical, SemVer, TagFilter
from imagebot.policy.by_number import parse_number
from imagebot.policy.choose import Policy
from imagebot.policy.extract import values_of
from imagebot.policy.index import TagIndex
from imagebot.policy.rules import policy_of
from imagebot.scan.tags import DEFAULT_EXCLUSION, InvalidExclusion
from reconcile.regexp import Regexp, RegexpError
from reconcile.versions import is_prerelease, version_key


class State(StrEnum):
    """What became of a tag."""

    CHOSEN = "chosen"
    CANDIDATE = "candidate"
    OUTSIDE = "outside the range"
    UNREADABLE = "not comparable"
    FILTERED = "filtered out"
    EXCLUDED = "excluded"
    KEPT = "kept"
    """By the repository; no policy was asked."""


_ORDER = {state: place for place, state in enumerate((State.CHOSEN, State.CANDIDATE, State.KEPT, *State))}


@dataclass(frozen=True, slots=True)
class TagVerdict:
    """What became of one tag.

    Attributes:
        tag: the tag.
        state: what became of it.
        why: the reason, in words.
        value: what was compared; empty where it was not.
        rank: place among the tags that could be chosen, from 1.
    """

    tag: str
    state: State
    why: str = ""
    value: str = ""
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """All tags with their verdicts, those that rank first in front.

    Attributes:
        verdicts: one for each tag.
        choice: what the policy chooses from these tags; None without one.
        problem: why there is no choice, if there is none.
    """

    verdicts: tuple[TagVerdict, ...]
    choice: Choice | None = None
    problem: str | None = None

    def count(self, *states: State) -> int:
        """How many tags are in one of these states."""
        return sum(verdict.state in states for verdict in self.verdicts)


def judge(tags: Iterable[str], exclusions: Sequence[str], policy: Policy | None) -> Judgement:
    """Say what becomes of each tag.

    Args:
        tags: what the registry has.
        exclusions: exclusion list of the repository; empty means the default.
        policy: who chooses; None for the repository's part alone.

    Raises:
        InvalidExclusion: A pattern of the exclusion list does not compile.
        InvalidFilter: A pattern of the policy does not compile.
    """
    excluded_by = _excluder(tuple(exclusions) or DEFAULT_EXCLUSION)
    left_out: list[TagVerdict] = []
    kept: list[str] = []
    for tag in sorted(set(tags), reverse=True):
        pattern = excluded_by(tag)
        if pattern is None:
            kept.append(tag)
        else:
            left_out.append(TagVerdict(tag, State.EXCLUDED, f"excluded by {pattern}"))
    if policy is None:
        return Judgement((*(TagVerdict(tag, State.KEPT) for tag in kept), *left_out))
    choice, problem = _choose(policy, kept)
    ranked: list[tuple[Any, str, str]] = []
    read = _reader(policy)
    for tag in kept:
        found = read(tag)
        if isinstance(found, TagVerdict):
            left_out.append(found)
        else:
            ranked.append((*found, tag))
    left_out.sort(key=lambda verdict: _ORDER[verdict.state])
    return Judgement((*_ranked(policy, ranked, choice), *left_out), choice, problem)


def _choose(policy: Policy, kept: Sequence[str]) -> tuple[Choice | None, str | None]:
    if not kept:
        return None, "there are no tags to choose from"
    try:
        return policy.choose(TagIndex(kept)), None
    except NoChoice as error:
        return None, str(error)


def _ranked(policy: Policy, found: list[tuple[Any, str, str]], choice: Choice | None) -> list[TagVerdict]:
    """Best first; among equal ones the policy's own choice, then byte order."""
    found.sort(key=lambda entry: entry[2])
    highest_first = not policy.descending
    numbers = [entry for entry in found if entry[0] == entry[0]]  # not a number equals nothing, not even itself
    numbers.sort(key=lambda entry: entry[0], reverse=highest_first)
    entries = numbers + [entry for entry in found if entry[0] != entry[0]]
    if choice is not None:
        entries.sort(key=lambda entry: entry[2] != choice.tag)  # stable: only the choice moves
    verdicts = []
    for place, (_, value, tag) in enumerate(entries, 1):
        chosen = choice is not None and tag == choice.tag
        why = choice.reason if chosen and choice else ""
        verdicts.append(TagVerdict(tag, State.CHOSEN if chosen else State.CANDIDATE, why, value, place))
    return verdicts


Read = Callable[[str], TagVerdict | tuple[Any, str]]
"""The key that a tag is ranked by and the text it was made of, or why it has none."""


def _reader(policy: Policy) -> Read:
    rule, tag_filter = policy.rule, policy.tag_filter
    values = values_of(tag_filter).of
    only = values_of(TagFilter(rule.filter)).of if isinstance(rule, Alphabetical) and rule.filter else str
    key = {SemVer: _version, Numerical: _number, Alphabetical: _letters}[type(rule)]

    def read(tag: str) -> TagVerdict | tuple[Any, str]:
        value = values(tag)
        if value is None:
            return TagVerdict(tag, State.FILTERED, f"does not match the pattern {tag_filter.pattern}")
        if only(tag) is None:
            return TagVerdict(tag, State.FILTERED, f"does not match the policy's filter {getattr(rule, 'filter', '')}")
        found = key(policy, value)
        return found(tag) if callable(found) else (found, value)

    return read


def _letters(_: Policy, value: str) -> Any:
    return value


def _number(_: Policy, value: str) -> Any:
    number = parse_number(value)
    if number is None:
        return lambda tag: TagVerdict(tag, State.UNREADABLE, "not a number: nothing is chosen while it takes part", value)
    return number


def _version(policy: Policy, value: str) -> Any:
    key = version_key(value) if value.count(".") >= 2 else None
    if key is None:
        return lambda tag: TagVerdict(tag, State.UNREADABLE, "not a version: that has three parts, like 1.2.3", value)
    constraint = policy.constraint
    assert constraint is not None  # noqa: S101 - build_policy made it
    if constraint.accepts(key):
        return key
    why = f"not in {constraint}"
    if is_prerelease(key):
        why = f"a pre-release that is not in {constraint}: only a range that names one, like >=1.0.0-0, has any"
    return lambda tag: TagVerdict(tag, State.OUTSIDE, why, value)


def _excluder(patterns: Sequence[str]) -> Callable[[str], str | None]:
    rules = []
    for pattern in patterns:
        try:
            rules.append((pattern, Regexp(pattern)))
        except RegexpError as error:
            raise InvalidExclusion(f"failed to compile regex {pattern}: {error}") from error
    return lambda tag: next((pattern for pattern, rule in rules if rule.matches(tag)), None)


def rule_in_words(policy: Policy) -> str:
    """What the rule asks for, in a sentence."""
    match policy.rule:
        case SemVer(range=wanted):
            return f"the highest version in {wanted}"
        case Alphabetical():
            return f"the {'first' if policy.descending else 'last'} in alphabetical order"
        case _:
            return f"the {'lowest' if policy.descending else 'highest'} number"


__all__ = ["InvalidFilter", "Judgement", "State", "TagVerdict", "judge", "policy_of", "rule_in_words"]
