"""Which requests a rule takes: the matches of `spec.service` joined with those of an A/B test. Pure.

As with Flagger, the joined list is the product of both, those of the test outermost, and what an entry of the test says replaces
what the service's entry says under the same key as a whole. Unlike there that goes for query parameters too, and an entry of the
test that leaves every request to the canary is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from canary.api import Analysis, CanaryService, plain
from canary.errors import Problem

Match = Mapping[str, Any]
"""One match as plain data, in the form of Istio's HTTPMatchRequest."""

AUDIENCE = ("headers", "queryParams", "sourceLabels")
"""What says whom an A/B test is for."""


def service_matches(service: CanaryService) -> list[dict[str, Any]]:
    """What `service.match` says, without what it leaves empty."""
    return [_filled(plain(each)) for each in service.match or ()]


def audience(analysis: Analysis) -> list[dict[str, Any]]:
    """What `analysis.match` says; empty when there is no A/B test.

    Raises:
        Problem: An entry has none of headers, query parameters and source labels.
    """
    matches = [_filled(plain(each)) for each in analysis.match or ()]
    for place, each in enumerate(matches):
        if not any(each.get(name) for name in AUDIENCE):
            raise Problem(f"analysis.match[{place}] matches every request: it needs one of {', '.join(AUDIENCE)}")
    return matches


def joined(service: Sequence[Match], test: Sequence[Match]) -> list[dict[str, Any]]:
    """The matches of the rule for the audience of a test."""
    return [{**given, **each} for each in test for given in service or ({},)]


def _filled(match: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in match.items() if value not in ({}, [], None)}
