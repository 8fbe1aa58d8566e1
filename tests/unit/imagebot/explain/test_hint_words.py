"""What an explanation says of hints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from imagebot.explain.sections import Scan, Section, repository_section
from reconcile.app import load_packages
from tests.support.lab import image_repository

SCHEME = load_packages().scheme


def told(status: dict[str, Any], **spec: Any) -> Section:
    body = image_repository("web", "ghcr.io/acme/web", **spec)
    info = SCHEME.find(body["apiVersion"], body["kind"])
    assert info is not None
    return repository_section(SCHEME.decode(info, {**body, "status": status}), Scan((), fresh=False), None, datetime.now(UTC))


def test_the_path_of_hints_and_why_there_is_none() -> None:
    hint = {"type": "quay", "secretRef": {"name": "hint"}}
    assert "hints" not in dict(told({}).facts)
    assert dict(told({"hintPath": "/hints/ab"}, hint=hint).facts)["hints"] == "of quay at /hints/ab"
    without = told({"hintProblem": "nobody listens"}, hint=hint)
    assert dict(without.facts)["hints"] == "of quay at (no path yet)"
    assert "Hints are not taken: nobody listens." in without.notes
