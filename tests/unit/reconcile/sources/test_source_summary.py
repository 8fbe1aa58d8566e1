"""What the conditions of a source come to."""

from __future__ import annotations

import itertools

import pytest

from reconcile.api.conditions import Conditions, put
from reconcile.runtime.backoff import Chance, jittered
from reconcile.sources.summary import DECLARED, NEGATIVE, failed, summarize, without_failures

NOW = "2026-01-01T00:00:00Z"


def conditions(*states: str) -> Conditions:
    """Conditions written as `Type=Status`; the reason is the type's, the message both."""
    found: Conditions = ()
    for state in states:
        kind, _, status = state.partition("=")
        found = put(found, kind, status, kind + "Reason", state, generation=1, now=NOW)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("states", "status", "decisive"),
    [
        (["ArtifactInStorage=True"], "True", "ArtifactInStorage=True"),
        (["ArtifactInStorage=True", "SourceVerified=True"], "True", "ArtifactInStorage=True"),
        (["SourceVerified=True"], "True", "SourceVerified=True"),
        (["ArtifactInStorage=True", "SourceVerified=False"], "False", "SourceVerified=False"),
        (["ArtifactInStorage=True", "FetchFailed=True"], "False", "FetchFailed=True"),
        (["FetchFailed=True", "StorageOperationFailed=True"], "False", "StorageOperationFailed=True"),
        (["ArtifactOutdated=True", "IncludeUnavailable=True"], "False", "IncludeUnavailable=True"),
        (["ArtifactOutdated=True", "ArtifactInStorage=True"], "False", "ArtifactOutdated=True"),
        (["BuildFailed=True", "ArtifactOutdated=True"], "False", "BuildFailed=True"),
        (["SourceVerified=False", "Reconciling=True"], "False", "Reconciling=True"),
        (["FetchFailed=False"], "True", "FetchFailed=False"),
        (["FetchFailed=False", "ArtifactInStorage=True"], "True", "ArtifactInStorage=True"),
        (["ArtifactInStorage=Unknown"], "Unknown", "ArtifactInStorage=Unknown"),
        (["ArtifactInStorage=Unknown", "FetchFailed=False"], "True", "FetchFailed=False"),
        (["Stalled=True"], "False", "Stalled=True"),
    ],
)
def test_the_first_group_that_has_any_decides(states: list[str], status: str, decisive: str) -> None:
    for order in itertools.permutations(states):
        found = summarize(conditions(*order))
        assert found is not None
        assert (found.status, found.reason, found.message) == (status, decisive.partition("=")[0] + "Reason", decisive)


def test_ready_itself_and_what_others_set_do_not_count() -> None:
    assert summarize(()) is None
    assert summarize(conditions("Ready=False", "Healthy=False")) is None


def test_no_bad_news_is_outvoted() -> None:
    for kind in sorted(NEGATIVE):
        others = [f"{other}=True" for other in DECLARED if other not in NEGATIVE]
        found = summarize(conditions(*others, f"{kind}=True"))
        assert found is not None
        assert (found.status, found.message) == ("False", f"{kind}=True")


def test_failures_are_forgotten_but_for_one() -> None:
    had = conditions("FetchFailed=True", "IncludeUnavailable=True", "ArtifactOutdated=True", "Ready=False")
    assert {c.type for c in without_failures(had)} == {"ArtifactOutdated", "Ready"}
    assert {c.type for c in without_failures(had, "FetchFailed")} == {"ArtifactOutdated", "Ready", "FetchFailed"}
    assert failed(had)
    assert not failed(without_failures(had))
    assert not failed(None)


@pytest.mark.parametrize(("share", "chance", "wanted"), [(0.05, min, 570.0), (0.05, max, 630.0), (0.0, max, 600.0)])
def test_returns_are_spread_over_a_share_of_the_interval(share: float, chance: Chance, wanted: float) -> None:
    assert jittered(600.0, share, chance) == wanted


def test_returns_are_not_all_the_same() -> None:
    found = {jittered(600.0, 0.05) for _ in range(50)}
    assert len(found) > 1
    assert all(570 <= seconds <= 630 for seconds in found)
