from __future__ import annotations

from decimal import Decimal

import pytest

from imagebot.policy.base import Alphabetical, InvalidFilter, InvalidPolicy, NoChoice, Numerical, Rule, SemVer, TagFilter
from imagebot.policy.by_number import parse_number
from imagebot.policy.choose import build_policy
from imagebot.policy.index import TagIndex

A = "2.4.0 2.4.11 2.5.0 v2.4.12 2.4.13-rc.1 2.4".split()  # noqa: SIM905
B = "2024.01.05 2024.11.30 2025.02.01-rc.1 v2024.11.30 24.1".split()  # noqa: SIM905
C = "1.0.0 1.0.0-alpha 1.0.0-alpha.1 1.0.0-beta.11 1.0.0-beta.2 1.0.0-rc.1".split()  # noqa: SIM905
D = "build-7-20240105 build-12-20231231 build-9 nightly-20250101".split()  # noqa: SIM905

CHOICES: list[tuple[Rule, TagFilter | None, list[str], str]] = [
    (SemVer("~2.4"), None, A, "v2.4.12"),
    (SemVer("2.4.x"), None, A, "v2.4.12"),
    (SemVer("~2.4-0"), None, A, "2.4.13-rc.1"),
    (SemVer(">=2.4.0 <2.5.0-0"), None, A, "2.4.13-rc.1"),
    (SemVer(">2.4"), None, A, "2.5.0"),
    (SemVer("*"), None, A, "2.5.0"),
    (SemVer(">=2024.1"), None, B, "v2024.11.30"),
    (SemVer("2024.x"), None, B, "v2024.11.30"),
    (SemVer(">=2024.1-0"), None, B, "2025.02.01-rc.1"),
    (SemVer("<2024.11.30"), None, B, "2024.01.05"),
    (SemVer("<1.0.0-rc.1"), None, C, "1.0.0-beta.11"),
    (SemVer("<1.0.0-beta.11"), None, C, "1.0.0-beta.2"),
    (Alphabetical(), None, A, "v2.4.12"),
    (Alphabetical("desc"), None, A, "2.4"),
    (Alphabetical(""), TagFilter(r"-(\d{8})$", "${1}"), D, "nightly-20250101"),
    (Alphabetical(), TagFilter(r"^build-(\d+)-(\d{8})$", "$2.$1"), D, "build-7-20240105"),
    (Alphabetical(), TagFilter(r"^build-(\d+)", "$1x"), D, "build-12-20231231"),
    (Alphabetical(filter="^build"), None, D, "build-9"),
    (Alphabetical(filter="^build"), TagFilter(r"-(\d{8})$", "${1}"), D, "build-7-20240105"),
    (Numerical("asc"), TagFilter(r"^build-(?P<n>\d+)", "$n"), D, "build-12-20231231"),
    (Numerical("desc"), TagFilter(r"^build-(?P<n>\d+)", "$n"), D, "build-7-20240105"),
    (Numerical("DESC"), None, ["1", "2"], "1"),
    # Ties: the greater tag of one version; the smaller tag of one value, and of one number.
    (SemVer("1.0.0"), None, ["1.0.0", "v1.0.0", "01.0.0"], "v1.0.0"),
    (SemVer("1.0.0"), TagFilter("^(.*)-", "$1"), ["1.0.0-b", "1.0.0-a"], "1.0.0-a"),
    (SemVer("1.0.0"), TagFilter("^x(.*)-", "$1"), ["x1.0.0-a", "x1.0.0-b", "xv1.0.0-a", "xv1.0.0-b"], "xv1.0.0-a"),
    (SemVer("*"), TagFilter("", "1.0.0"), ["b", "a", "c"], "a"),
    (Alphabetical(), TagFilter("^(.)", "$1"), ["b2", "b1", "a1"], "b1"),
    (Alphabetical("desc"), TagFilter("^(.)", "$1"), ["b2", "a2", "a1"], "a1"),
    (Numerical(), None, ["1", "01", "10", "1e1", "010"], "010"),
    (Numerical("desc"), None, ["1", "1.0", "2"], "1"),
    # Exact beyond 2**53, where doubles are equal and the smaller tag would win.
    (Numerical(), None, ["20240105123456788", "20240105123456789"], "20240105123456789"),
    (Numerical("desc"), None, ["9007199254740993", "9007199254740992.5", "9007199254740994"], "9007199254740992.5"),
    # What a double cannot tell from zero is zero.
    (Numerical(), None, ["1e-400", "0", "-0"], "-0"),
    # NaN forgets what was best before it in descending order.
    (Numerical(), None, ["NaN", "9", "1"], "9"),
    (Numerical(), TagFilter("^[a-z](.*)", "$1"), ["d9", "cNaN", "b3", "b4", "a4"], "a4"),
    (Numerical("desc"), TagFilter("^[a-z](.*)", "$1"), ["d1", "cNaN", "bNaN", "b3", "a4"], "b3"),
    (Numerical(), None, ["inf", "1e308", "-Infinity"], "inf"),
    (Numerical("desc"), None, ["inf", "1e308", "-Infinity"], "-Infinity"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "tag_filter", "tags", "expected"), CHOICES)
def test_choice(rule: Rule, tag_filter: TagFilter | None, tags: list[str], expected: str) -> None:
    policy = build_policy(rule, tag_filter)
    assert policy.choose(TagIndex(tags)).tag == expected
    assert policy.choose(TagIndex(reversed(tags))).tag == expected


def test_choice_explains_itself() -> None:
    index = TagIndex(A)
    choice = build_policy(SemVer(">=2.4.0 <2.5.0")).choose(index)
    assert (choice.tag, choice.value, choice.candidates) == ("v2.4.12", "v2.4.12", 5)
    assert choice.reason == "highest of 3 versions in >=2.4.0 <2.5.0"
    assert build_policy(SemVer("2.5")).choose(index).reason == "the only version in 2.5"
    assert build_policy(Alphabetical()).choose(index).reason == "last of 6 tags in alphabetical order"
    choice = build_policy(Numerical("desc"), TagFilter(r"^build-(\d+)", "$1")).choose(TagIndex(D))
    assert (choice.tag, choice.value, choice.candidates) == ("build-7-20240105", "7", 3)
    assert choice.reason == r"lowest of 3 numbers, of the tags that match ^build-(\d+)"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (None, "given ImagePolicyChoice object is invalid"),
        (SemVer(""), 'improper constraint: ""'),
        (SemVer("1x"), "constraint parser error"),
        (Alphabetical("up"), "invalid order argument provided: 'UP', must be one of: ASC, DESC"),
        (Numerical("Down"), "invalid order argument provided: 'DOWN', must be one of: ASC, DESC"),
    ],
)
def test_invalid_policy(rule: Rule | None, message: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        build_policy(rule, None)
    assert str(caught.value) == message


BAD = "invalid regular expression pattern '[a-': error parsing regexp: missing closing ]: `[a-`"


@pytest.mark.parametrize(
    ("rule", "tag_filter"),
    [(SemVer("*"), TagFilter("[a-")), (Alphabetical(filter="[a-"), TagFilter()), (Numerical(), TagFilter("[a-", "$1"))],
)
def test_invalid_filter_is_found_when_choosing(rule: Rule, tag_filter: TagFilter) -> None:
    policy, index = build_policy(rule, tag_filter), TagIndex(A)
    for _ in range(2):
        with pytest.raises(InvalidFilter) as caught:
            policy.choose(index)
        assert str(caught.value) == BAD
    assert index.view_sizes == []


EMPTY = "version list argument cannot be empty"
OUT_OF_RANGE = "unable to determine latest version from provided list"


@pytest.mark.parametrize(
    ("rule", "tag_filter", "tags", "message"),
    [
        (SemVer("*"), None, [], EMPTY),
        (SemVer("*"), TagFilter("^rel-"), D, EMPTY),
        (Alphabetical(), TagFilter("^rel-"), D, EMPTY),
        (Numerical(), TagFilter("^rel-"), D, EMPTY),
        (Alphabetical(filter="^rel-"), None, D, EMPTY),
        (SemVer("9.x"), None, A, OUT_OF_RANGE),
        (SemVer("*"), None, ["1.2", "1", "latest", "V1.2.3", "1.2.3.4"], OUT_OF_RANGE),
        (Numerical(), None, A, "failed to parse invalid numeric value 'v2.4.12'"),
        (Numerical(), None, ["1e400", "0x10", "1"], "failed to parse invalid numeric value '1e400'"),
        # Of values that are no numbers, that of the greatest tag which stands for a value.
        (Numerical(), TagFilter("^.(.*)", "$1"), ["ax", "bx", "ay", "zx", "c1"], "failed to parse invalid numeric value 'y'"),
    ],
)
def test_no_choice(rule: Rule, tag_filter: TagFilter | None, tags: list[str], message: str) -> None:
    with pytest.raises(NoChoice) as caught:
        build_policy(rule, tag_filter).choose(TagIndex(tags))
    assert str(caught.value) == message


def test_warnings_come_from_the_constraint() -> None:
    assert build_policy(SemVer("1.1||2.0 - 3.0")).warnings != ()
    assert build_policy(SemVer("1.x || 2.x")).warnings == ()
    assert build_policy(Numerical()).warnings == ()


@pytest.mark.parametrize(
    ("text", "number"),
    [("1_000", 1000), ("0x_1p0", 1), ("0X1P4", 16), (".5", Decimal("0.5")), ("5.", 5), ("+7", 7), ("1E3", 1000),
     ("0.10", Decimal("0.1")),
     ("0x.8p0", Decimal("0.5")), ("9007199254740993", 9007199254740993), ("0" * 5000 + "1", 1), ("1e-400", 0),
     ("0x1p-2000", 0)],
)  # fmt: skip
def test_numbers_are_exact(text: str, number: int | Decimal) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1__0",
        "_1",
        "1_",
        "0x10",
        "0o17",
        "0b1",
        "1e",
        "1,5",
        "1.2.3",
        "v5",
        "1e400",
        "0x1p2000",
        "+nan",
        " 1",
        "1\n",
        "١",
        "i",
    ],
)
def test_what_is_no_number(text: str) -> None:
    assert parse_number(text) is None
