"""What an explanation says of changes that wait, and of pull requests."""

from __future__ import annotations

from typing import Any

import pytest

from imagebot.api import ImageUpdateAutomation
from imagebot.explain.sections import requests_section, waiting_section
from reconcile.app import load_packages
from tests.support.lab import automation

SCHEME = load_packages().scheme


def seen(**status: Any) -> ImageUpdateAutomation:
    body = automation("fleet", "fleet", "30m", commit={"quietPeriod": "1m"})
    info = SCHEME.find(body["apiVersion"], body["kind"])
    assert info is not None
    return SCHEME.decode(info, {**body, "status": status})


@pytest.mark.parametrize(
    ("status", "note"),
    [
        ({}, "A policy that chooses another image; otherwise it looks at the branch every 30m."),
        (
            {"pendingSince": "2024-06-01T12:00:00Z", "pendingUntil": "2024-06-01T12:01:00Z"},
            (
                "More changes for the same commit: the first has been due since 2024-06-01T12:00:00Z, "
                "at 2024-06-01T12:01:00Z it is made."
            ),
        ),
        ({"pendingUntil": "2024-06-01T12:01:00Z"}, "More changes for the same commit: at 2024-06-01T12:01:00Z it is made."),
    ],
)
def test_a_quiet_period_is_something_to_wait_for(status: dict[str, str], note: str) -> None:
    assert waiting_section(seen(**status), []).notes == (note,)


def test_requests_are_listed_with_what_they_bring() -> None:
    assert requests_section(seen()) is None
    both = [
        {"group": "web", "branch": "bot/web", "base": "main", "number": 7, "state": "Open", "images": ["web: web:1.1.0"]},
        {"group": "", "branch": "bot", "base": "main", "state": "Waiting", "message": "no room"},
    ]
    section = requests_section(seen(pullRequests=both))
    assert section is not None
    assert section.table is not None
    assert section.table.rows == (
        ("7", "Open", "bot/web", "web", "web: web:1.1.0", ""),
        ("-", "Waiting", "bot", "all", "", "no room"),
    )
