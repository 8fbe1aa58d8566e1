from __future__ import annotations

import itertools

import pytest

from reconcile.versions import (
    MAX_VERSION_BYTES,
    InvalidConstraint,
    InvalidVersion,
    is_prerelease,
    parse_constraint,
    parse_version,
    version_key,
)

ASCENDING = [
    "0.0.0-0", "0.0.0", "0.0.1", "0.1.0-alpha", "1.0.0-0", "1.0.0-9", "1.0.0-10", "1.0.0-18446744073709551615", "1.0.0--",
    "1.0.0-99999999999999999999", "1.0.0-RC", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-alpha1", "1.0.0-beta.2",
    "1.0.0-beta.11", "1.0.0-rc.1", "v1.0.0", "1.0.255", "1.0.256", "1.2.0", "1.10.0", "2024.01.05", "4096.0.0", "65536.0.0",
    "18446744073709551615.0.0",
]  # fmt: skip


def test_precedence() -> None:
    versions = [parse_version(text) for text in ASCENDING]
    for low, high in itertools.combinations(versions, 2):
        assert low < high
        assert high > low
        assert low != high


@pytest.mark.parametrize("other", ["v1.2.0", "1.2", "01.02.00", "1.2.0+build.7"])
def test_spelling_and_metadata_do_not_count(other: str) -> None:
    assert parse_version("1.2.0") == parse_version(other)
    assert len({parse_version("1.2.0"), parse_version(other)}) == 1


def test_parts() -> None:
    version = parse_version("v1.02-rc.1+a.b")
    assert (version.major, version.minor, version.patch, version.prerelease, version.metadata) == (1, 2, 0, "rc.1", "a.b")
    assert str(version) == "v1.02-rc.1+a.b"
    assert is_prerelease(version.key)


@pytest.mark.parametrize(
    "text",
    ["", "V1.0.0", "1.2.3.4", "1.0.0-01", "1.0.0-", "1.0.0-a..b", "1.0.0+", "18446744073709551616.0.0", "1.0.0\n", "١.0.0",
     "latest", " 1.0.0", "1..0", "1.0.0-é", "1.0.0+" + "1" * MAX_VERSION_BYTES],
)  # fmt: skip
def test_what_is_no_version(text: str) -> None:
    assert version_key(text) is None
    with pytest.raises(InvalidVersion):
        parse_version(text)


# From the reference's table of operators; what is behind the bar must not be taken.
TAKES = {
    "1.2.3": "1.2.3 1.2.3+x v1.2.3 | 1.2.4 1.2.3-rc",
    "=1.2": "1.2.0 1.2.9 | 1.3.0 1.2.0-rc",
    "~1.2.3": "1.2.3 1.2.9 | 1.2.2 1.3.0",
    "~>1": "1.0.0 1.9.9 | 2.0.0 0.9.0",
    "^1.2.3": "1.2.3 1.9.0 | 1.2.2 2.0.0",
    "^0.2.3": "0.2.3 0.2.9 | 0.3.0 0.2.2",
    "^0.0.3": "0.0.3 | 0.0.4 0.0.2",
    "^0.0": "0.0.9 | 0.1.0",
    "^0": "0.9.0 | 1.0.0",
    "^*": "0.0.0 | 0.0.1 1.0.0",
    "!=1.2": "1.3.0 1.1.9 | 1.2.0 1.2.7",
    "!=1": "2.0.0 0.1.0 | 1.0.0 1.5.0",
    "!=*": "0.0.1 | 0.0.0",
    ">11.1": "11.2.0 12.0.0 | 11.1.9",
    ">11": "12.0.0 | 11.9.9",
    ">*": "0.0.1 | 0.0.0",
    ">=2.1": "2.1.0 3.0.0 | 2.0.9",
    "<2.1": "2.0.9 | 2.1.0",
    "<*": "| 0.0.0 1.0.0",
    "<=2.1": "2.1.9 | 2.2.0",
    "<=2": "2.9.9 | 3.0.0",
    "<=*": "0.0.0 0.0.9 | 0.1.0 1.0.0",
    "~0.0.0": "0.0.0 5.0.0 |",
    "~0.0": "0.0.9 | 0.1.0",
    "*": "0.0.0 9.9.9 | 1.0.0-rc",
    "*-0": "1.0.0-rc 1.0.0 |",
    "1.x.7": "1.0.0 1.9.9 | 2.0.0",
    "1.2 - 2.3": "1.2.0 2.3.9 | 2.4.0 1.1.9",
    ">=1.0-0": "1.1.0-rc.1 1.0.0-alpha | 0.9.0",
    ">=1.0": "1.1.0 | 1.1.0-rc.1",
    ">=1.0.0 <2.0.0-0": "1.5.0-rc | 2.0.0-alpha 2.0.0",
    "~1.2.3-beta.2": "1.2.4-beta.1 1.2.3-beta.2 | 1.2.3-beta.1 1.3.0-beta.3",
    "^1.2.3-beta": "1.9.0-alpha | 2.0.0-alpha",
    "!=1.2-rc": "1.2.0 1.2.7-beta 1.3.0-rc | 1.2.0-rc 1.2.7-rc",
    ">=1.0.0-0 <1.1.0 || 2.x": "1.0.0-rc 2.1.0 | 2.1.0-rc 1.1.0",
    "1.x||3.x": "1.1.0 3.1.0 | 2.1.0",
    ">=1.2.3, <2 , !=1.5.0": "1.2.3 | 1.5.0 2.0.0",
}


@pytest.mark.parametrize("text", TAKES)
def test_constraint_takes(text: str) -> None:
    constraint = parse_constraint(text)
    yes, no = (side.split() for side in TAKES[text].split("|"))
    assert [v for v in yes if not constraint.check(parse_version(v))] == []
    assert [v for v in no if constraint.check(parse_version(v))] == []
    assert constraint.warnings == ()
    for prereleases in (False, True):
        keys = sorted(key for v in yes + no if is_prerelease(key := parse_version(v).key) == prereleases)
        taken = [i for i, key in enumerate(keys) if constraint.accepts(key)]
        assert constraint.newest(keys, prereleases=prereleases) == max(taken, default=-1)
        assert constraint.count(keys, prereleases=prereleases) == len(taken)


ERRORS = {
    "": 'improper constraint: ""',
    "1.2.3.4": 'improper constraint: "1.2.3.4"',
    "==1.0": 'improper constraint: "==1.0"',
    ">1<2": 'improper constraint: ">1<2"',
    "V1": 'improper constraint: "V1"',
    "-1": 'improper constraint: "-1"',
    ">=1 ||": 'improper constraint: ""',
    "1,,2": 'improper constraint: "1,,2"',
    "1,": 'improper constraint: "1,"',
    ",1": 'improper constraint: ",1"',
    "1x": "constraint parser error",
    "1|2": "constraint parser error",
    ">=1 |||": "constraint parser error",
    ">=18446744073709551616": "constraint parser error",
    "1.0.0-01": "constraint parser error",
    "1x || bad": "constraint parser error",
    "bad || 1x": 'improper constraint: "bad "',
    "1.2.3.4 - 2": 'improper constraint: "1.>= 2.3.4, <= 2 "',
    "^1.1||2.0 - 3.0": 'improper constraint: "^>= 1.1"',
    'a"b\\\t\n\v\x7f\u200b\U000e0001é': 'improper constraint: "a\\"b\\\\\\t\\n\\v\\x7f\\u200b\\U000e0001é"',
    "1" * 513: "constraint string is too long (max 512 bytes)",
    "é" * 257: "constraint string is too long (max 512 bytes)",
    " || ".join(["1"] * 33): "too many constraint groups (max 32)",
    "=" + "0" * 257: "constraint parser error",
}


@pytest.mark.parametrize("text", ERRORS)
def test_constraint_errors(text: str) -> None:
    with pytest.raises(InvalidConstraint) as caught:
        parse_constraint(text)
    assert str(caught.value) == ERRORS[text]


def test_swallowed_alternative_works_as_upstream_and_warns() -> None:
    with pytest.raises(InvalidConstraint):
        parse_constraint("1.1||2.0 - 3.0 - 1")
    constraint = parse_constraint("1.x || 1.1||2.0 - 3.0")
    (warning,) = constraint.warnings
    assert "'1.1||2.0 - 3.0'" in warning
    assert constraint.check(parse_version("9.0.0"))


def test_long_runs_of_blanks_cost_nothing() -> None:
    # A backtracking expression needs 2^n steps for this.
    with pytest.raises(InvalidConstraint):
        parse_constraint(">=1  " * 60 + "!")
