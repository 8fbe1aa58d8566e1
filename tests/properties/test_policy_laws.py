"""Laws of choosing: a straightforward walk over the list, written from Flux's description, must agree with the indexed engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from imagebot.policy.base import Alphabetical, InvalidPolicy, NoChoice, Numerical, Rule, SemVer, TagFilter
from imagebot.policy.by_number import parse_number
from imagebot.policy.choose import build_policy
from imagebot.policy.index import TagIndex
from reconcile.regexp import Regexp
from reconcile.versions import InvalidVersion, Version, parse_constraint, parse_version

small = st.sampled_from(["0", "1", "2", "3", "10", "01"])
prereleases = st.sampled_from(["", "", "", "-rc.1", "-rc.2", "-0", "-alpha", "-rc"])
versions = st.builds(
    lambda prefix, parts, tail, end: prefix + ".".join(parts) + tail + end,
    st.sampled_from(["", "", "v"]),
    st.lists(small, min_size=2, max_size=4),
    prereleases,
    st.sampled_from(["", "", "+b", "+c"]),
)
numbers = st.one_of(
    st.integers(-20, 20).map(str),
    st.sampled_from(
        ["NaN", "nan", "inf", "-inf", "1e1", "10.0", "010", "0x1p1", "9007199254740993", "9007199254740992", "1_0", "-0"]
    ),
    st.decimals(-3, 3, places=2).map(str),
)
words = st.text("abAB19.-_é", min_size=1, max_size=4)
filters = st.sampled_from(
    [TagFilter(), TagFilter("^[^-]*$"), TagFilter(r"^[a-z]?(.*)$", "$1"), TagFilter(r"^(\d+)", "$1.0.0"),
     TagFilter("^v?(.*?)(-|$)", "$1"),
     TagFilter("", "1.0.0"), TagFilter(r"^.*$", "$0+x"), TagFilter("^([^.]*)", "$1")]
)  # fmt: skip
operators = st.sampled_from(["", "=", "!=", ">", "<", ">=", "<=", "~", "^"])
operands = st.builds(
    lambda parts, tail: ".".join(parts) + tail,
    st.lists(st.sampled_from([*"0123", "x", "*"]), min_size=1, max_size=3),
    prereleases,
)
terms = st.builds(str.__add__, operators, operands)
ranges = st.lists(st.lists(terms, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=2).map(" || ".join)
rules = st.one_of(
    st.builds(SemVer, ranges),
    st.builds(Alphabetical, st.sampled_from(["asc", "desc"])),
    st.builds(Numerical, st.sampled_from(["asc", "desc"])),
)
tag_lists = st.one_of(st.lists(kind, max_size=12) for kind in (versions, numbers, words, st.one_of(versions, numbers, words)))


def outcome(rule: Rule, tag_filter: TagFilter, index: TagIndex) -> str:
    try:
        return build_policy(rule, tag_filter).choose(index).tag
    except (NoChoice, InvalidPolicy) as error:
        return f"{type(error).__name__}: {error}"


def walk(rule: Rule, tag_filter: TagFilter, tags: Iterable[str]) -> str:
    """The rule as prose has it: fill the map of values in descending order, then look at each value once."""
    expand: Callable[[str], str | None] = str
    if tag_filter.pattern or tag_filter.extract:
        expand = Regexp(tag_filter.pattern).expander(tag_filter.extract or "$0$")
        if not tag_filter.extract:
            matches = Regexp(tag_filter.pattern).matches
            expand = lambda tag: tag if matches(tag) else None  # noqa: E731
    chosen_from: dict[str, str] = {}
    for tag in sorted(set(tags), reverse=True):
        value = expand(tag)
        if value is not None:
            chosen_from[value] = tag
    if not chosen_from:
        return "NoChoice: version list argument cannot be empty"
    values = sorted(chosen_from, key=chosen_from.__getitem__, reverse=True)
    if isinstance(rule, Alphabetical):
        return chosen_from[min(values) if rule.order == "desc" else max(values)]
    return walk_versions(rule, values, chosen_from) if isinstance(rule, SemVer) else walk_numbers(rule, values, chosen_from)


def version_of(value: str) -> Version | None:
    try:
        return parse_version(value) if value.count(".") >= 2 else None
    except InvalidVersion:
        return None


def walk_versions(rule: SemVer, values: list[str], chosen_from: dict[str, str]) -> str:
    constraint = parse_constraint(rule.range)
    best: tuple[Version, str] | None = None
    for value in values:
        version = version_of(value)
        if version is not None and constraint.check(version) and (best is None or version > best[0]):
            best = version, value
    return chosen_from[best[1]] if best else "NoChoice: unable to determine latest version from provided list"


def walk_numbers(rule: Numerical, values: list[str], chosen_from: dict[str, str]) -> str:
    best: tuple[int | float | Decimal, str] | None = None
    for value in values:
        number = parse_number(value)
        if number is None:
            return f"NoChoice: failed to parse invalid numeric value '{value}'"
        nan = math.isnan(number) or (best is not None and math.isnan(best[0]))
        worse = best is not None and not nan and (number > best[0] if rule.order == "desc" else number < best[0])
        if not worse:
            best = number, value
    assert best is not None
    return chosen_from[best[1]]


@settings(max_examples=1500, deadline=None)
@given(rules, filters, tag_lists)
def test_engine_agrees_with_a_walk_over_the_list(rule: Rule, tag_filter: TagFilter, tags: list[str]) -> None:
    assert outcome(rule, tag_filter, TagIndex(tags)) == walk(rule, tag_filter, tags)


@settings(deadline=None)
@given(rules, filters, tag_lists.flatmap(lambda tags: st.tuples(st.just(tags), st.permutations(tags))))
def test_order_of_the_input_does_not_matter(rule: Rule, tag_filter: TagFilter, lists: tuple[list[str], list[str]]) -> None:
    assert outcome(rule, tag_filter, TagIndex(lists[0])) == outcome(rule, tag_filter, TagIndex(lists[1]))


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(rules, filters), min_size=1, max_size=4), st.lists(tag_lists, min_size=2, max_size=5))
def test_differences_lead_to_the_same_choices_as_a_fresh_start(
    policies: list[tuple[Rule, TagFilter]], scans: list[list[str]]
) -> None:
    index, before = TagIndex(), set[str]()
    for tags in scans:
        delta = index.replace(tags)
        assert (set(delta.added), set(delta.removed)) == (set(tags) - before, before - set(tags))
        assert list(index.tags) == sorted(set(tags), reverse=True)
        before = set(tags)
        for rule, tag_filter in policies:
            assert outcome(rule, tag_filter, index) == outcome(rule, tag_filter, TagIndex(tags))


@settings(max_examples=500, deadline=None)
@given(ranges, st.lists(versions, max_size=15))
def test_a_chosen_version_is_in_range_and_none_is_better(text: str, tags: list[str]) -> None:
    try:
        policy = build_policy(SemVer(text))
    except InvalidPolicy:
        return
    constraint = parse_constraint(text)
    taken = [v for tag in tags if (v := version_of(tag)) is not None and constraint.check(v)]
    try:
        choice = policy.choose(TagIndex(tags))
    except NoChoice:
        assert taken == []
        return
    chosen = version_of(choice.tag)
    assert chosen is not None
    assert constraint.check(chosen)
    assert not any(version > chosen for version in taken)
    expected = len({version.original for version in taken})
    assert choice.reason.startswith("the only version" if expected == 1 else f"highest of {expected} versions")
