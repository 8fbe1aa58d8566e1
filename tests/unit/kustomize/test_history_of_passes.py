"""The history of a Kustomization: told apart by digest and outcome, newest first, bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconcile.kustomize.history import MOST, Snapshot, with_snapshot


def snapshot(digest: str, outcome: str = "ReconciliationSucceeded", time: str = "2026-01-01T00:00:00Z") -> Snapshot:
    return Snapshot(digest, outcome, time, 1.5, {"revision": "main@sha1:1"})


def test_the_first_pass() -> None:
    (entry,) = with_snapshot(None, snapshot("a"))
    assert (entry.digest, entry.total_reconciliations, entry.last_reconciled_duration) == ("a", 1, "1.5s")
    assert entry.metadata == {"revision": "main@sha1:1"}


def test_the_same_outcome_counts_on_and_comes_first() -> None:
    history = with_snapshot(with_snapshot(None, snapshot("a")), snapshot("b"))
    history = with_snapshot(history, snapshot("a", time="2026-01-02T00:00:00Z"))
    assert [(h.digest, h.total_reconciliations) for h in history] == [("a", 2), ("b", 1)]
    assert (history[0].first_reconciled, history[0].last_reconciled) == ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")


def test_another_outcome_of_the_same_objects_is_another_entry() -> None:
    history = with_snapshot(with_snapshot(None, snapshot("a", "HealthCheckFailed")), snapshot("a"))
    assert [h.last_reconciled_status for h in history] == ["ReconciliationSucceeded", "HealthCheckFailed"]


@given(st.lists(st.sampled_from("abcdefgh"), max_size=40))
def test_bounded_and_without_doubles(digests: list[str]) -> None:
    history = None
    for one in digests:
        history = with_snapshot(history, snapshot(one))
    found = [h.digest for h in history or ()]
    assert len(found) <= MOST
    assert len(set(found)) == len(found)
    assert found == list(dict.fromkeys(reversed(digests)))[:MOST]
