"""Cookies of session affinity: their text, what matches them, and how they go from run to run."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
import re2

from canary.api import SessionAffinity
from canary.routing.base import Affinity
from canary.routing.cookies import (
    advanced,
    cookie_of,
    deletes,
    deletion_header,
    fresh,
    kept,
    pattern,
    primary_header,
    session_header,
)

ALL = {"domain": "example.org", "httpOnly": True, "partitioned": True, "path": "/app", "sameSite": "None", "secure": True}
ATTRIBUTES = "Domain=example.org; HttpOnly; Partitioned; Path=/app; SameSite=None; Secure"


def wanted(**fields: Any) -> SessionAffinity:
    return SessionAffinity.model_validate({"cookieName": "sticky", **fields})


def letters() -> Any:
    numbers = count()
    return lambda bound: next(numbers) % bound


def test_value_is_ten_letters_of_the_random_source() -> None:
    bounds: list[int] = []

    def rand(bound: int) -> int:
        bounds.append(bound)
        return 51 if len(bounds) == 1 else 0

    assert fresh("sticky", rand) == "sticky=Zaaaaaaaaa"
    assert bounds == [52] * 10


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        ({}, "sticky=v; Max-Age=86400"),
        ({"maxAge": 0}, "sticky=v; Max-Age=86400"),
        ({"maxAge": 5, "secure": False, "httpOnly": False}, "sticky=v; Max-Age=5"),
        ({**ALL, "maxAge": 60}, f"sticky=v; Max-Age=60; {ATTRIBUTES}"),
        ({"path": "/", "sameSite": "Lax"}, "sticky=v; Max-Age=86400; Path=/; SameSite=Lax"),
    ],
)
def test_header_has_what_is_set_in_the_order_of_flagger(fields: dict[str, Any], header: str) -> None:
    assert session_header("sticky=v", wanted(**fields)) == header
    assert (cookie_of(header), deletes(header)) == ("sticky=v", False)


def test_cookie_of_the_primary_lasts_one_step() -> None:
    assert primary_header("base=v", wanted(maxAge=5, path="/"), 90.5) == "base=v; Max-Age=90; Path=/"


def test_cookie_is_deleted_where_it_was_set() -> None:
    assert deletion_header("sticky=v", wanted()) == "sticky=v; Max-Age=-1"
    header = deletion_header("sticky=v", wanted(**ALL, maxAge=60))
    assert header == f"sticky=v; Max-Age=-1; {ATTRIBUTES}"
    assert (cookie_of(header), deletes(header)) == ("sticky=v", True)


@pytest.mark.parametrize(
    ("cookie", "text", "found"),
    [
        ("sticky=abc", "a=b; sticky=abc; c=d", True),
        ("sticky=abc", "sticky=abd", False),
        ("a.b=x", "a.b=x", True),
        ("a.b=x", "a-b=x", False),
        ("a+b^c|d$*=x", "a+b^c|d$*=x", True),
    ],
)
def test_pattern_matches_headers_with_the_cookie(cookie: str, text: str, found: bool) -> None:
    assert (re2.fullmatch(pattern(cookie), text) is not None) == found


def test_pattern_of_a_plain_cookie_is_that_of_flagger() -> None:
    assert pattern("sticky=abcDEF") == ".*sticky.*abcDEF.*"


NONE = Affinity()


@pytest.mark.parametrize(
    ("live", "status", "canary", "after"),
    [
        pytest.param(NONE, NONE, 0, NONE, id="before the first run"),
        pytest.param(NONE, NONE, 10, Affinity("sticky=abcdefghij"), id="first weight"),
        pytest.param(Affinity("sticky=x"), Affinity("sticky=x"), 20, Affinity("sticky=x"), id="next weight"),
        pytest.param(Affinity("sticky=x"), NONE, 20, Affinity("sticky=x"), id="status was not written"),
        pytest.param(NONE, Affinity("sticky=x"), 20, Affinity("sticky=x"), id="route was lost"),
        pytest.param(Affinity("sticky=x"), Affinity("sticky=x"), 0, Affinity("", "sticky=x"), id="end"),
        pytest.param(NONE, Affinity("sticky=x"), 0, Affinity("", "sticky=x"), id="end, route was lost"),
        pytest.param(Affinity("", "sticky=x"), Affinity("sticky=x"), 0, Affinity("", "sticky=x"), id="end again"),
        pytest.param(Affinity("", "sticky=x"), NONE, 0, Affinity("", "sticky=x"), id="end, status was not written"),
        pytest.param(
            Affinity("", "sticky=x"), Affinity("", "sticky=x"), 10, Affinity("sticky=abcdefghij", "sticky=x"), id="second run"
        ),
        pytest.param(
            Affinity("", "sticky=x"),
            Affinity("sticky=x"),
            10,
            Affinity("sticky=abcdefghij", "sticky=x"),
            id="second run, status of the first was not written",
        ),
        pytest.param(Affinity("old=x"), Affinity("old=x"), 20, Affinity("sticky=abcdefghij"), id="renamed"),
    ],
)
def test_session_cookie_from_run_to_run(live: Affinity, status: Affinity, canary: int, after: Affinity) -> None:
    assert advanced(wanted(), live, status, canary, letters()) == after


def test_cookie_of_the_primary_is_made_once() -> None:
    both = wanted(primaryCookieName="base")
    first = advanced(both, NONE, NONE, 10, letters())
    assert first == Affinity("sticky=abcdefghij", "", "base=klmnopqrst")
    ended = advanced(both, first, first, 0, letters())
    assert ended == Affinity("", "sticky=abcdefghij", "base=klmnopqrst")
    assert advanced(both, NONE, ended, 10, lambda _: 0).primary == "base=klmnopqrst"
    assert advanced(both, NONE, Affinity(primary="=other"), 10, lambda _: 0).primary == "base=aaaaaaaaaa"
    assert advanced(wanted(), NONE, NONE, 10, letters()).primary == ""


def test_what_is_live_stays_and_what_it_lost_comes_from_the_status() -> None:
    assert kept(Affinity("a=1", "b=1", "c=1"), Affinity("a=2", "b=2", "c=2")) == Affinity("a=1", "b=1", "c=1")
    assert kept(NONE, Affinity("a=2", "b=2", "c=2")) == Affinity("a=2", "b=2", "c=2")
    assert kept(Affinity(previous="a=2"), Affinity("a=2")) == Affinity("", "a=2")
