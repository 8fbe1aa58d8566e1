"""Pure halves of the clients: texts of refusals, waits, checks, titles, labels, messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconcile.errors import ReconcileError
from reconcile.forges import answers
from reconcile.forges.checks import GRACE, Checks, settled
from reconcile.forges.wishes import (
    MAX_BODY,
    MAX_TITLE,
    fitted,
    is_draft,
    missing_labels,
    ready_title,
    same_text,
    split_message,
    split_reviewers,
)
from reconcile.ports.forge import Request, RequestState, Wanted

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"message": "Not Found", "documentation_url": "https://docs"}, "Not Found"),
        (
            {"message": "Validation Failed", "errors": [{"code": "custom", "message": "No commits"}]},
            "Validation Failed; No commits",
        ),
        ({"message": "Validation Failed", "errors": [{"field": "head", "code": "invalid"}]}, "Validation Failed; head invalid"),
        ({"message": ["Another one exists: !12"]}, "Another one exists: !12"),
        ({"message": {"title": ["is too long", "is odd"]}}, "title is too long; title is odd"),
        ({"error": "insufficient_scope", "error_description": "more"}, "insufficient_scope; more"),
        ({"errors": ["a", "a", {"message": "b"}, 3, None]}, "a; b"),
        ({"message": "two\nlines \x1b[31m"}, "two lines [31m"),
        ([], ""),
        (None, ""),
        ({"message": {"a": {"b": {"c": 3}}}}, ""),
    ],
)
def test_what_forges_say(document: Any, said: str) -> None:
    assert answers.said(document) == said


def test_what_forges_say_is_bounded() -> None:
    assert len(answers.said({"message": "x" * 10_000})) == answers.MAX_TEXT


EPOCH = int(NOW.timestamp())


@pytest.mark.parametrize(
    ("status", "headers", "message", "wait"),
    [
        (200, {"x-ratelimit-remaining": "0"}, "", None),
        (403, {}, "Resource not accessible by integration", None),
        (403, {"x-ratelimit-remaining": "12", "x-ratelimit-reset": str(EPOCH + 9)}, "Forbidden", None),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(EPOCH + 90)}, "", 90.0),
        (403, {"retry-after": "30"}, "You have exceeded a secondary rate limit", 30.0),
        (403, {}, "You have exceeded a secondary rate limit.", 60.0),
        (429, {}, "", 60.0),
        (429, {"retry-after": "0"}, "", 1.0),
        (429, {"ratelimit-reset": str(EPOCH + 45)}, "", 45.0),
        (429, {"ratelimit-reset": str(EPOCH - 45)}, "", 1.0),
        (429, {"retry-after": "999999999999"}, "", 3600.0),
        (429, {"retry-after": "Fri, 01 May 2026 12:01:30 GMT"}, "", 90.0),
        (429, {"retry-after": "soon", "x-ratelimit-reset": "later"}, "", 60.0),
    ],
)
def test_how_long_to_wait(status: int, headers: dict[str, str], message: str, wait: float | None) -> None:
    assert answers.patience(status, headers, message, NOW) == wait


def test_fields_that_are_absent_are_named() -> None:
    with pytest.raises(ReconcileError, match=r"'head\.sha'"):
        answers.text({"head": {"sha": None}}, "head", "sha")
    with pytest.raises(ReconcileError, match="'number'"):
        answers.number({"number": True}, "number")
    with pytest.raises(ReconcileError, match="'number'"):
        answers.number(["number"], "number")


@pytest.mark.parametrize(
    ("states", "checks"),
    [
        ([], Checks.NONE),
        (["success", "neutral", "skipped"], Checks.PASSED),
        (["success", "pending"], Checks.OPEN),
        (["success", "failure"], Checks.OPEN),
        (["success", ""], Checks.OPEN),
        (["startup_failure"], Checks.OPEN),
        (["action_required", "success"], Checks.OPEN),
    ],
)
def test_all_checks_must_have_passed(states: list[str], checks: Checks) -> None:
    assert Checks.of(states) is checks


def test_the_absence_of_checks_counts_after_a_while() -> None:
    changed = NOW - timedelta(seconds=GRACE)
    assert settled(Checks.NONE, NOW, changed)
    assert not settled(Checks.NONE, NOW, changed + timedelta(seconds=1))
    assert not settled(Checks.NONE, None, changed)
    assert not settled(Checks.NONE, NOW, None)
    assert settled(Checks.PASSED, NOW, NOW)
    assert not settled(Checks.OPEN, NOW, changed)


def test_times_of_both_forms() -> None:
    assert answers.moment("2026-05-01T12:00:00Z") == NOW == answers.moment("Fri, 01 May 2026 12:00:00 GMT")
    assert answers.moment("2026-05-01T14:00:00+02:00") == NOW
    assert answers.moment("") is None
    assert answers.moment("yesterday") is None


@pytest.mark.parametrize(
    ("title", "ready"),
    [
        ("Draft: Update", "Update"),
        ("WIP: Update", "Update"),
        ("[WIP] Update", "Update"),
        ("(Draft) Update", "Update"),
        ("draft: wip: Update", "Update"),
        ("Update: Draft: text", "Update: Draft: text"),
        ("Drafts of a plan", "Drafts of a plan"),
        ("Draft:", "Draft:"),
    ],
)
def test_words_of_drafts(title: str, ready: str) -> None:
    assert ready_title(title) == ready
    assert is_draft(title) == (title != ready or title == "Draft:")


def test_labels_that_are_missing() -> None:
    request = Request(1, "", RequestState.OPEN, "b", "main", "0" * 40, "", "", labels=("Images", "other"))
    assert missing_labels(request, Wanted("", "", labels=("images", "new", "NEW"))) == ("NEW",)
    assert missing_labels(request, Wanted("", "", labels=("images",))) == ()


def test_people_and_teams() -> None:
    assert split_reviewers(("alice", "team:platform", "alice", "bob")) == (["alice", "bob"], ["platform"])


@pytest.mark.parametrize(
    ("message", "headline", "body"),
    [
        ("Update\n", "Update", ""),
        ("Update\n\nWhy\nand how\n\nTrailer: x\n", "Update", "Why\nand how\n\nTrailer: x"),
        ("Update\nmore\n\nWhy", "Update more", "Why"),
        ("\n\nUpdate\n\n\n\nWhy", "Update", "Why"),
    ],
)
def test_messages_are_split_as_git_does(message: str, headline: str, body: str) -> None:
    assert split_message(message) == (headline, body)


def test_texts_fit_into_what_forges_take() -> None:
    line = "| podinfo | 1.0.0 | 2.0.0 |\n"
    long = fitted(Wanted("word\n" * 200, line * 5000))
    assert len(long.title) == MAX_TITLE
    assert "\n" not in long.title
    assert len(long.body) < MAX_BODY + 100
    assert set(long.body.splitlines()[:-2]) == {line.strip()}
    assert fitted(long) == long
    assert fitted(Wanted("short", line)) == Wanted("short", line)


def test_white_space_that_forges_change_is_no_change() -> None:
    assert same_text("a  \r\nb\r\n", "a\nb")
    assert not same_text("a\n\nb", "a\nb")
    assert not same_text("  a\nb", "b")
