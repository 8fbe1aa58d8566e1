"""What becomes of the digest of a choice, case by case."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from imagebot.policy.mutation import Before, settle
from imagebot.policy.situation import SOAKING, TAG_MUTATED, Candidate, Chosen

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
DAY = 86400.0


def before(reflection: Any, on_mutation: Any = "Follow", digest: str | None = None, **more: Any) -> Before:
    return Before(reflection, on_mutation, NOW, Chosen("1.0.0", digest), **more)


@pytest.mark.parametrize(
    ("given", "tag", "asks"),
    [
        (before("Never"), "1.0.0", False),
        (before("Never"), "1.1.0", False),
        (before("IfNotPresent", digest="a"), "1.0.0", False),
        (before("IfNotPresent"), "1.0.0", True),
        (before("IfNotPresent", digest="a"), "1.1.0", True),
        (before("Always", digest="a"), "1.0.0", True),
        (before("Never", "Alarm"), "1.0.0", True),
        (before("IfNotPresent", "Hold", digest="a"), "1.0.0", True),
    ],
)
def test_digests_are_looked_up_where_they_matter(given: Before, tag: str, asks: bool) -> None:
    assert given.asks(tag) is asks


@pytest.mark.parametrize(
    ("given", "tag", "current", "digest", "reason", "alarm"),
    [
        # As Flux does it.
        (before("Never", digest="a"), "1.0.0", None, None, None, False),
        (before("IfNotPresent"), "1.0.0", "a", "a", None, False),
        (before("IfNotPresent", digest="a"), "1.0.0", None, "a", None, False),
        (before("IfNotPresent", digest="a"), "1.0.0", "b", "a", None, False),
        (before("Always", digest="a"), "1.0.0", "b", "b", None, False),
        (before("Always", digest="a"), "1.1.0", "c", "c", None, False),
        # A choice that is not in the list any more has the digest that it had.
        (before("Always", digest="a"), "1.0.0", None, "a", None, False),
        # Hold.
        (before("Always", "Hold", digest="a"), "1.0.0", "b", "a", TAG_MUTATED, False),
        (before("Always", "Hold", digest="a"), "1.1.0", "b", "b", None, False),
        (before("Always", "Hold", digest="a", allowed="b"), "1.0.0", "b", "b", None, False),
        (before("Always", "Hold", digest="a", allowed="c"), "1.0.0", "b", "a", TAG_MUTATED, False),
        (before("IfNotPresent", "Hold", digest="a"), "1.0.0", "b", "a", TAG_MUTATED, False),
        (before("IfNotPresent", "Hold", digest="a", allowed="b"), "1.0.0", "b", "b", None, False),
        (before("Never", "Hold", observed="a"), "1.0.0", "b", None, TAG_MUTATED, False),
        (before("Always", "Hold", observed="a"), "1.0.0", "b", "a", TAG_MUTATED, False),
        # Alarm.
        (before("Always", "Alarm", digest="a"), "1.0.0", "b", "b", None, True),
        (before("Always", "Alarm", digest="a"), "1.0.0", "a", "a", None, False),
        (before("IfNotPresent", "Alarm", digest="a"), "1.0.0", "b", "a", None, True),
        (before("IfNotPresent", "Alarm", digest="a", observed="b"), "1.0.0", "b", "a", None, False),
        (before("Always", "Alarm", digest="a", observed="b"), "1.0.0", "b", "b", None, False),
        (before("Never", "Alarm", observed="a"), "1.0.0", "b", None, None, True),
        (before("Never", "Alarm", observed="b"), "1.0.0", "b", None, None, False),
        # What is new under an old tag must be known for as long as a new tag.
        (before("Always", digest="a", minimum_age=DAY), "1.0.0", "b", "a", SOAKING, False),
        (before("Always", "Alarm", digest="a", minimum_age=DAY), "1.0.0", "b", "a", SOAKING, True),
    ],
)
def test_digest(given: Before, tag: str, current: str | None, digest: str | None, reason: str | None, alarm: bool) -> None:
    found = settle(given, tag, current)
    held = found.held.reason if found.held else None
    assert (found.digest, held, found.alarm is not None) == (digest, reason, alarm)


@pytest.mark.parametrize(
    ("hours", "digest", "current"), [(23, "a", "b"), (24, "b", "b"), (24, "a", "c")], ids=["young", "old", "moved again"]
)
def test_a_moved_tag_is_followed_when_its_digest_is_old_enough(hours: int, digest: str, current: str) -> None:
    sights = (Candidate("1.0.0", "b", NOW - timedelta(hours=hours)), Candidate("2.0.0", "x", NOW))
    found = settle(before("Always", digest="a", minimum_age=DAY, remembered=sights), "1.0.0", current)
    assert found.digest == digest
    left = [(entry.tag, entry.digest) for entry in found.remembered]
    assert left == ([("2.0.0", "x")] if digest == current else [("2.0.0", "x"), ("1.0.0", current)])


def test_an_alarm_about_a_young_digest_is_told_once() -> None:
    first = settle(before("Always", "Alarm", digest="a", minimum_age=DAY), "1.0.0", "b")
    again = settle(
        before("Always", "Alarm", digest="a", observed="a", minimum_age=DAY, remembered=first.remembered), "1.0.0", "b"
    )
    assert (first.alarm is not None, again.alarm, again.after) == (True, None, DAY)


def test_what_is_observed_is_remembered_only_where_it_is_watched() -> None:
    assert settle(before("Always", digest="a"), "1.0.0", "a").observed is None
    assert settle(before("Never", "Hold"), "1.0.0", "a").observed == "a"
    assert settle(before("Never", "Hold", observed="a"), "1.0.0", "b").observed == "a"
    assert settle(before("Never", "Alarm", observed="a"), "1.0.0", "b").observed == "b"
