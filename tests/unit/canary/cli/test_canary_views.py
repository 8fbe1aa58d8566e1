"""How Canaries are told in one line."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from canary.cli.listing import row
from canary.cli.view import bar, countdown, ladder, progress, rungs, share, short, strategy_words, why
from canary.cli.watching import change, screen, signature
from canary.phases import Phase
from tests.support.canary_views import GATES, METRICS, NOW, at, view


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (5, "5s"), (60, "1m"), (600, "10m"), (3600, "1h"), (5400, "1h30m"), (3661, "1h1m1s"), (7230, "2h0m30s")],
)
def test_durations_end_without_zeros(seconds: float, text: str) -> None:
    assert short(seconds) == text


@pytest.mark.parametrize(
    ("analysis", "weights"),
    [
        ({"stepWeight": 20, "maxWeight": 50}, (20, 40, 60)),
        ({"stepWeight": 70}, (70, 100)),
        ({"stepWeights": [1, 5, 20]}, (1, 5, 20)),
        ({"stepWeights": [25, 150]}, (25, 100)),
        ({"iterations": 3}, ()),
    ],
)
def test_the_ladder_is_that_of_the_machine(analysis: dict[str, Any], weights: tuple[int, ...]) -> None:
    assert rungs(view("Progressing", **analysis).plan) == weights


def test_the_present_step_is_marked() -> None:
    assert ladder(view("Progressing", {"canaryWeight": 20})) == "[20] → 40 → promotion"
    assert ladder(view("Progressing", {"canaryWeight": 30})) == "20 → 40 → promotion"
    assert ladder(view("WaitingPromotion", {"iterations": -1})) == "20 → 40 → [promotion]"
    assert ladder(view("Succeeded")) == "20 → 40 → promotion"
    assert ladder(view("Progressing", mirror=True)) == "mirror → 20 → 40 → promotion"
    assert ladder(view("Progressing", iterations=4)) == "4 iterations → promotion"


def test_a_long_ladder_is_cut_around_the_present_step() -> None:
    text = ladder(view("Progressing", {"canaryWeight": 40}, stepWeight=2, maxWeight=100))
    assert text == "2 → 4 → … → 36 → 38 → [40] → 42 → 44 → … → 100 → promotion"


@pytest.mark.parametrize(
    ("phase", "status", "analysis", "shown"),
    [
        ("Progressing", {"canaryWeight": 20}, {}, "20%"),
        ("Progressing", {}, {}, "0%"),
        ("Progressing", {"iterations": 3}, {"iterations": 10}, "3/10"),
        ("Progressing", {"iterations": 11}, {"iterations": 10}, "10/10"),
        ("WaitingPromotion", {"canaryWeight": 0, "iterations": -1}, {}, "40%"),
        ("WaitingPromotion", {"iterations": 9}, {"iterations": 10}, "10/10"),
        ("Succeeded", {}, {}, "-"),
        ("Failed", {"canaryWeight": 100}, {}, "100%"),
    ],
)
def test_progress(phase: str, status: dict[str, Any], analysis: dict[str, Any], shown: str) -> None:
    assert progress(view(phase, status, **analysis)) == shown


def test_bars_are_full_only_at_the_end() -> None:
    assert (bar(0, 4), bar(1, 4), bar(50, 4), bar(100, 4)) == ("────", "━───", "━━──", "━━━━")
    assert share(view("Progressing", {"iterations": 5}, iterations=10)) == 50
    assert share(view("Succeeded", {"iterations": 5}, iterations=10)) == 0


def test_the_next_step_is_counted_down() -> None:
    assert countdown(view("Progressing", {"nextStepTime": at(12)}), NOW) == "12s"
    assert countdown(view("Progressing", {"nextStepTime": at(-1)}), NOW) == "due"
    assert countdown(view("Progressing"), NOW) == "-"
    assert countdown(view("Succeeded", {"nextStepTime": at(12)}), NOW) == "-"
    assert countdown(view("Progressing", {"nextStepTime": at(12)}, spec={"suspend": True}), NOW) == "-"
    assert countdown(view("Progressing", {"nextStepTime": "soon"}), NOW) == "-"


@pytest.mark.parametrize(
    ("phase", "more", "text"),
    [
        ("", {}, "no controller has looked at it yet"),
        ("Initializing", {}, "is being set up"),
        ("Initializing", {"status": {"notReadySince": at(-120)}}, "the first primary is not ready for 2m"),
        ("Waiting", {"webhooks": GATES}, "gate: approve"),
        ("Progressing", {}, ""),
        ("Progressing", {"status": {"holdSince": at(-180)}}, "no data for 3m"),
        ("Progressing", {"status": {"gateSince": at(-180)}, "webhooks": GATES}, "gate: more"),
        ("Progressing", {"annotations": {"imagebot.dev/pause": "lunch"}}, "paused: lunch"),
        ("Progressing", {"annotations": {"imagebot.dev/action": "promote 1"}}, "asked to promote"),
        ("Progressing", {"status": {"notReadySince": at(-180)}}, "a workload is not ready for 3m"),
        ("WaitingPromotion", {"webhooks": GATES}, "gate: qa"),
        ("Failed", {"status": {"failure": "errors 7 > 5"}}, "errors 7 > 5"),
        ("Succeeded", {"spec": {"suspend": True}}, "suspended"),
        ("Succeeded", {"annotations": {"imagebot.dev/pause": "lunch"}}, "paused: lunch"),
        ("Succeeded", {"deleted": True}, "is being deleted"),
    ],
)
def test_why(phase: str, more: dict[str, object], text: str) -> None:
    found = {**more}
    assert why(view(phase, found.pop("status", None), **found), NOW) == text  # type: ignore[arg-type]


def test_a_request_that_was_handled_is_no_request() -> None:
    done = view("Promoting", {"lastHandledAction": "promote 1"}, annotations={"imagebot.dev/action": "promote 1"})
    assert done.asked == ""


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "canary: by 20 up to 40 percent of the traffic, every 30s"),
        ({"stepWeights": [5, 40]}, "canary: 5, 40 up to 40 percent of the traffic, every 30s"),
        ({"match": [{"headers": {"a": {"exact": "b"}}}]}, "canary: by 20 up to 40 percent of the requests that match, every 30s"),
        ({"iterations": 3}, "blue/green: 3 checks, then all traffic at once"),
        ({"iterations": 3, "mirror": True}, "blue/green: 3 checks, with mirrored traffic, then all traffic at once"),
        ({"spec": {"provider": "kubernetes"}}, "blue/green: 10 checks of the canary beside the live traffic, then the promotion"),
        ({"spec": {"skipAnalysis": True}}, "none: the analysis is skipped (skipAnalysis)"),
    ],
)
def test_strategies_in_words(more: dict[str, object], words: str) -> None:
    assert strategy_words(view("Progressing", **more)) == words  # type: ignore[arg-type]


def test_a_row_of_the_list() -> None:
    running = view("Progressing", {"canaryWeight": 20, "failedChecks": 1, "nextStepTime": at(9)})
    assert row(running.canary, NOW) == ["web", "Progressing", "20%", "1/2", "9s", "5m", "", "Deployment/web", ""]


# --- watching


CHECK = {"metric": "errors", "value": "7", "threshold": "<= 5", "verdict": "Fail", "time": at(-5)}


def test_time_alone_makes_no_new_line() -> None:
    first = view("Progressing", {"canaryWeight": 20, "holdSince": at(-60), "nextStepTime": at(9), "checks": [CHECK]})
    later = view(
        "Progressing", {"canaryWeight": 20, "holdSince": at(-90), "nextStepTime": at(1), "checks": [{**CHECK, "value": "8"}]}
    )
    assert signature(first) == signature(later)
    moved = [
        view("Progressing", {"canaryWeight": 40, "holdSince": at(-60), "checks": [CHECK]}),
        view("Progressing", {"canaryWeight": 20, "checks": [CHECK]}),
        view("Progressing", {"canaryWeight": 20, "holdSince": at(-60), "failedChecks": 1, "checks": [CHECK]}),
        view("Progressing", {"canaryWeight": 20, "holdSince": at(-60), "checks": [{**CHECK, "verdict": "Pass"}]}),
        view("WaitingPromotion", {"canaryWeight": 20, "holdSince": at(-60), "checks": [CHECK]}),
    ]
    assert len({signature(first), *map(signature, moved)}) == 6


def test_a_line_names_the_checks_that_did_not_pass() -> None:
    running = view(
        "Progressing", {"canaryWeight": 20, "failedChecks": 1, "checks": [CHECK, {**CHECK, "verdict": "Pass", "metric": "x"}]}
    )
    assert change(running, NOW) == "Progressing         20%  failed 1/2  errors 7 (wanted <= 5)"
    assert change(view("Succeeded"), NOW).split() == ["Succeeded", "-"]


def test_the_live_table_has_what_cannot_be_read_too() -> None:
    found = {"metadata": {"name": "odd", "namespace": "apps"}}
    running = view("Progressing", {"checks": [CHECK]}, metrics=METRICS)
    whole = {"metadata": {"name": "web", "namespace": "apps"}}
    parts = screen([(found, "spec.analysis is missing"), (whole, running.canary)], NOW, namespaces=True, one=False)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(parts[0])
    head, odd, web = capture.get().splitlines()
    assert head.split() == ["NAMESPACE", "NAME", "PHASE", "PROGRESS", "FAILED", "NEXT", "WHY"]
    assert odd.split(maxsplit=7)[:2] == ["apps", "odd"]
    assert odd.rstrip().endswith("not valid: spec.analysis is missing")
    assert web.split()[:3] == ["apps", "web", "Progressing"]
    assert len(parts) == 1
    assert len(screen([(whole, running.canary)], NOW, namespaces=False, one=True)) == 4


def test_every_phase_can_be_shown() -> None:
    for phase in Phase:
        shown = view(phase.value)
        assert row(shown.canary, NOW)[1] == (phase.value or "-")
        assert change(shown, NOW)
