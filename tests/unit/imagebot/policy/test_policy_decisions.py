"""The decision between a rule and its choice, case by case: holds, soaking, the interlock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from imagebot.policy.base import Alphabetical, NoChoice, Numerical, SemVer
from imagebot.policy.choose import build_policy
from imagebot.policy.decide import MAX_REJECTED, decide
from imagebot.policy.index import TagIndex
from imagebot.policy.situation import (
    DOWNGRADE_HELD,
    MAX_REMEMBERED,
    PINNED,
    REJECTED,
    SOAKING,
    Candidate,
    Chosen,
    Decision,
    Hold,
    Need,
    Situation,
    State,
)

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
DAY = 86400.0
ANY = build_policy(SemVer("*"))


def ask(tags: str, last: str | None = None, **more: Any) -> Decision | Need:
    policy = more.pop("policy", ANY)
    chosen = Chosen(last, more.pop("last_digest", None)) if last else None
    return decide(Situation(policy, TagIndex(tags.split()), NOW, chosen, **more))


def decided(tags: str, last: str | None = None, **more: Any) -> Decision:
    found = ask(tags, last, **more)
    assert isinstance(found, Decision)
    return found


def reject(*tags: str, digests: Sequence[str] = (), **more: Any) -> Hold:
    return Hold("bad", "Reject", frozenset(tags), frozenset(digests), **more)


def pin(*tags: str, digests: Sequence[str] = (), **more: Any) -> Hold:
    return Hold("keep", "Pin", frozenset(tags), frozenset(digests), **more)


def seen(tag: str, hours: float, digest: str = "") -> Candidate:
    return Candidate(tag, digest or f"sha256:{tag}", NOW - timedelta(hours=hours))


class Digests(dict[str, str | None]):
    """A digest for each tag, all looked up."""

    def __missing__(self, tag: str) -> str:
        return f"sha256:{tag}"

    def __contains__(self, tag: object) -> bool:
        return True


EVERY: Mapping[str, str | None] = Digests()


@pytest.mark.parametrize(
    ("tags", "last", "more", "tag", "reason"),
    [
        # Nothing stands in the way.
        ("1.0.0 1.1.0", None, {}, "1.1.0", None),
        ("1.0.0 1.1.0", "1.0.0", {}, "1.1.0", None),
        # The interlock.
        ("1.0.0", "1.1.0", {}, "1.1.0", DOWNGRADE_HELD),
        ("1.0.0 1.2.0", "1.1.0", {}, "1.2.0", None),
        ("1.0.0", "1.1.0", {"downgrades": True}, "1.0.0", None),
        ("1.0.0", "1.1.0", {"same_rule": False}, "1.0.0", None),
        ("1.0.0", "1.1.0", {"excluded": True}, "1.0.0", None),
        ("1.0.0", "1.1.0", {"allowed": "1.0.0"}, "1.0.0", None),
        ("1.0.0 0.9.0", "1.1.0", {"allowed": "0.9.0"}, "1.1.0", DOWNGRADE_HELD),
        ("1.0.0", "v1.0.0", {}, "v1.0.0", DOWNGRADE_HELD),  # as good, but the rule would not have changed to it
        ("7", "5", {"policy": build_policy(Numerical("desc"))}, "5", DOWNGRADE_HELD),
        ("3", "5", {"policy": build_policy(Numerical("desc"))}, "3", None),
        ("1.0.0 1.1.0", "2.0.0", {"policy": build_policy(SemVer("<2")), "same_rule": False}, "1.1.0", None),
        # Rejected.
        ("1.0.0 1.1.0", "1.0.0", {"holds": [reject("1.1.0")]}, "1.0.0", REJECTED),
        ("1.0.0 1.1.0", "1.1.0", {"holds": [reject("1.1.0")]}, "1.0.0", REJECTED),
        ("1.0.0 1.1.0 1.2.0", "1.1.0", {"holds": [reject("1.1.0")]}, "1.2.0", None),
        ("1.0.0", "1.1.0", {"holds": [reject("1.1.0")]}, "1.0.0", None),
        ("1.1.0", "1.1.0", {"holds": [reject("1.1.0")]}, None, REJECTED),
        ("1.0.0", "1.1.0", {"holds": [reject("1.0.0")]}, "1.1.0", DOWNGRADE_HELD),
        ("1.0.0 1.1.0", None, {"holds": [reject("1.1.0", expires=NOW)]}, "1.1.0", None),
        ("1.0.0 1.1.0", None, {"holds": [reject("1.1.0", expires=NOW + timedelta(seconds=1))]}, "1.0.0", REJECTED),
        ("1.0.0 1.1.0", None, {"holds": [reject(digests=["sha256:1.1.0"])], "digests": EVERY}, "1.0.0", REJECTED),
        ("1.0.0 1.1.0", "1.1.0", {"holds": [reject(digests=["sha256:1.1.0"])], "digests": EVERY}, "1.0.0", REJECTED),
        ("1.0.0", "1.1.0", {"holds": [reject(digests=["x"])], "last_digest": "x", "digests": EVERY}, "1.0.0", None),
        # Pinned.
        ("1.0.0 1.1.0", "1.0.0", {"holds": [pin()]}, "1.0.0", PINNED),
        ("1.0.0 1.1.0", "1.1.0", {"holds": [pin("1.0.0")]}, "1.0.0", PINNED),
        ("1.0.0 1.1.0 1.2.0", "1.0.0", {"holds": [pin("1.0.0", "1.1.0")]}, "1.1.0", PINNED),
        ("1.1.0", "1.1.0", {"holds": [pin("1.0.0")]}, "1.1.0", PINNED),
        ("1.0.0", "1.1.0", {"holds": [pin()]}, "1.1.0", PINNED),
        ("1.0.0 1.1.0", None, {"holds": [pin()]}, None, PINNED),
        ("1.0.0 1.1.0", "1.0.0", {"holds": [pin("1.0.0"), pin("1.1.0")]}, "1.0.0", PINNED),
        ("1.0.0 1.1.0", "1.0.0", {"holds": [pin("1.1.0"), reject("1.1.0")]}, "1.0.0", PINNED),
        ("1.0.0 1.1.0", "1.1.0", {"holds": [pin("1.1.0"), reject("1.1.0")]}, None, PINNED),
        ("1.0.0 1.1.0", "1.1.0", {"holds": [pin(digests=["sha256:1.0.0"])], "digests": EVERY}, "1.0.0", PINNED),
        ("1.0.0 1.1.0", "1.0.0", {"holds": [pin("1.1.0")], "minimum_age": DAY, "digests": EVERY}, "1.1.0", PINNED),
        # Soaking.
        ("1.0.0 1.1.0", "1.0.0", {"minimum_age": DAY, "digests": EVERY}, "1.0.0", SOAKING),
        ("1.0.0", None, {"minimum_age": DAY, "digests": EVERY}, None, SOAKING),
        ("1.0.0 1.1.0", "1.0.0", {"minimum_age": DAY, "digests": EVERY, "remembered": [seen("1.1.0", 23)]}, "1.0.0", SOAKING),
        ("1.0.0 1.1.0", "1.0.0", {"minimum_age": DAY, "digests": EVERY, "remembered": [seen("1.1.0", 24)]}, "1.1.0", None),
        (
            "1.0.0 1.1.0",
            "1.0.0",
            {"minimum_age": DAY, "digests": EVERY, "remembered": [seen("1.1.0", 25, "x")]},
            "1.0.0",
            SOAKING,
        ),
        ("1.0.0", "1.0.0", {"minimum_age": DAY, "digests": EVERY, "remembered": [seen("1.1.0", 25)]}, "1.0.0", None),
        ("1.0.0", "1.1.0", {"minimum_age": DAY, "digests": EVERY}, "1.1.0", DOWNGRADE_HELD),
        (
            "1.0.0 1.1.0 1.2.0",
            "1.0.0",
            {"minimum_age": DAY, "digests": EVERY, "remembered": [seen("1.1.0", 30)]},
            "1.1.0",
            SOAKING,
        ),
        # Back to what was chosen before at once, not to what is new to us.
        (
            "1.0.0 1.0.1 1.1.0",
            "1.1.0",
            {"minimum_age": DAY, "digests": EVERY, "previous": "1.0.0", "holds": [reject("1.1.0")]},
            "1.0.0",
            REJECTED,
        ),
    ],
)
def test_decision(tags: str, last: str | None, more: dict[str, Any], tag: str | None, reason: str | None) -> None:
    found = decided(tags, last, **more)
    assert (found.tag, found.held.reason if found.held else None) == (tag, reason)


def test_verdicts_name_what_was_kept_back() -> None:
    found = decided("1.0.0 1.1.0 1.2.0", "1.0.0", holds=[reject("1.2.0", reason="leaks")], minimum_age=DAY, digests=EVERY)
    assert {tag: (verdict.state, verdict.why) for tag, verdict in found.verdicts.items()} == {
        "1.2.0": (State.REJECTED, "by ImageHold bad (leaks)"),
        "1.1.0": (State.SOAKING, "old enough in 24h0m0s"),
    }
    refused = decided("1.0.0", "1.1.0")
    assert refused.verdicts["1.0.0"].state is State.REFUSED
    assert refused.held is not None
    assert "imagebot.dev/allow-downgrade: 1.0.0" in refused.held.message


def test_an_allowance_is_used_only_where_it_is_needed() -> None:
    assert decided("1.0.0", "1.1.0", allowed="1.0.0").used_allowance
    assert not decided("1.0.0 1.1.0", "1.0.0", allowed="1.1.0").used_allowance


def test_digests_are_asked_for_only_where_they_decide() -> None:
    assert decided("1.0.0 1.1.0").tag == "1.1.0"
    holds = [reject(digests=["sha256:1.1.0"])]
    assert ask("1.0.0 1.1.0", holds=holds) == Need(("1.1.0",), essential=True)
    assert ask("1.0.0 1.1.0", holds=holds, digests={"1.1.0": "sha256:1.1.0"}) == Need(("1.0.0",), essential=True)
    assert ask("1.0.0 1.1.0", "1.0.0", minimum_age=DAY) == Need(("1.1.0",), essential=False)
    ripe = [seen("1.1.0", 30)]
    assert ask("1.0.0 1.1.0", "1.0.0", minimum_age=DAY, remembered=ripe) == Need(("1.1.0",), essential=True)
    assert decided("1.0.0 1.1.0", "1.0.0", minimum_age=DAY, remembered=[seen("1.1.0", 3)]).tag == "1.0.0"
    pinned = [pin(digests=["sha256:1.1.0"])]
    assert ask("1.0.0 1.1.0 1.2.0", "1.1.0", holds=pinned) == Need(("1.1.0",), essential=True)


def test_what_is_looked_at_for_digests_is_bounded() -> None:
    tags = [f"1.{n}.0" for n in range(MAX_REJECTED + 10)]
    found = decided(" ".join(tags), "0.1.0", holds=[reject(digests=[f"sha256:{tag}" for tag in tags])], digests=EVERY)
    assert (found.tag, len(found.verdicts)) == ("0.1.0", MAX_REJECTED)


def test_first_sights_are_bounded_and_the_oldest_stay() -> None:
    tags = [f"1.{n}.0" for n in range(200)]
    first = decided(" ".join(tags), minimum_age=DAY, digests=EVERY)
    assert [entry.tag for entry in first.remembered] == [f"1.{n}.0" for n in range(199, 199 - MAX_REMEMBERED, -1)]
    more = [f"2.{n}.0" for n in range(200)]
    second = decided(" ".join(tags + more), minimum_age=DAY, digests=EVERY, remembered=first.remembered)
    assert second.remembered == first.remembered
    old = [Candidate(entry.tag, entry.digest, NOW - timedelta(days=1)) for entry in second.remembered]
    third = decided(" ".join(tags + more), minimum_age=DAY, digests=EVERY, remembered=old)
    assert third.tag == "1.199.0"
    assert third.remembered == ()
    fourth = decided(" ".join(tags + more), third.tag, minimum_age=DAY, digests=EVERY, remembered=third.remembered)
    assert {entry.tag for entry in fourth.remembered} == {f"2.{n}.0" for n in range(150, 200)}


def test_a_digest_that_cannot_be_had_is_not_seen_yet() -> None:
    found = decided("1.0.0 1.1.0 1.2.0", "1.0.0", minimum_age=DAY, digests={"1.1.0": "sha256:a", "1.2.0": None})
    assert [entry.tag for entry in found.remembered] == ["1.1.0"]
    assert found.tag == "1.0.0"


def test_a_clock_that_was_set_back_does_not_lengthen_the_wait() -> None:
    ahead = [Candidate("1.1.0", "sha256:1.1.0", NOW + timedelta(days=400))]
    found = decided("1.0.0 1.1.0", "1.0.0", minimum_age=DAY, remembered=ahead)
    assert (found.remembered[0].first_seen, found.after) == (NOW, DAY)


def test_time_that_changes_the_decision_is_named() -> None:
    assert decided("1.0.0").after is None
    until = [pin(expires=NOW + timedelta(seconds=90)), reject("3", expires=NOW + timedelta(seconds=60))]
    assert decided("1.0.0", "1.0.0", holds=until).after == 60.0
    soaking = [seen("1.1.0", 23)]
    assert decided("1.0.0 1.1.0", "1.0.0", minimum_age=DAY, remembered=soaking).after == 3600.0


def test_first_sights_are_taken_while_something_is_pinned() -> None:
    found = decided("1.0.0 1.1.0", "1.0.0", minimum_age=DAY, digests=EVERY, holds=[pin()])
    assert (found.tag, [entry.tag for entry in found.remembered]) == ("1.0.0", ["1.1.0"])


def test_a_rule_that_finds_nothing_says_so() -> None:
    with pytest.raises(NoChoice):
        ask("latest", "1.0.0", holds=[pin()])


def test_the_index_is_as_it_was() -> None:
    index = TagIndex(["1.0.0", "1.1.0", "1.2.0"])
    decide(Situation(ANY, index, NOW, holds=[reject("1.2.0")], minimum_age=DAY, digests=EVERY))
    assert list(index.tags) == ["1.2.0", "1.1.0", "1.0.0"]
    assert ANY.choose(index).tag == "1.2.0"


def reverted(tags: str, fallback: str, **more: Any) -> Hold:
    return Hold("web-reverted", "Reject", frozenset(tags.split()), fallback=fallback, reason="reverted by Ada", **more)


def test_a_revert_leaves_what_was_gone_back_to_until_something_newer_comes() -> None:
    back = [reverted("1.5.0", "1.4.0")]
    found = decided("1.3.0 1.4.0 1.4.5 1.5.0", "1.5.0", holds=back)
    assert found.tag == "1.4.0"
    assert found.held is not None
    assert (found.held.reason, found.held.message) == (
        REJECTED,
        "1.5.0 is rejected by ImageHold web-reverted (reverted by Ada)",
    )
    assert found.verdicts["1.4.5"].state is State.BEHIND
    assert decided("1.4.0 1.5.0 1.5.1", "1.4.0", holds=back).tag == "1.5.1"


def test_what_is_left_of_a_list_does_not_get_around_a_revert() -> None:
    back = [reverted("1.5.0", "1.4.0")]
    found = decided("1.3.0 1.4.0 1.4.5", "1.4.0", holds=back)
    assert found.tag == "1.4.0"
    assert found.held is not None
    assert found.held.message == "1.4.5 ranks behind what is rejected by ImageHold web-reverted (reverted by Ada)"
    assert decided("1.3.0 1.4.5", "1.4.0", holds=back).tag == "1.4.0"
    assert decided("1.3.0 1.4.5", "1.4.5", holds=back).tag is None


def test_a_revert_to_what_the_rule_cannot_choose_leaves_no_choice_until_something_newer_comes() -> None:
    back = [reverted("1.5.0", "hotfix")]
    found = decided("1.4.0 1.5.0 hotfix", "1.5.0", holds=back)
    assert (found.tag, found.held and found.held.reason) == (None, REJECTED)
    assert decided("1.4.0 1.5.0 hotfix", None, holds=[reverted("1.5.0", "")]).tag is None
    assert decided("1.4.0 1.5.0 1.6.0", None, holds=back).tag == "1.6.0"


def test_two_reverts_hold_what_both_went_back_to() -> None:
    both = [reverted("1.5.0", "1.4.0"), reverted("1.6.0", "1.5.5")]
    assert decided("1.4.0 1.5.0 1.5.5 1.6.0", "1.6.0", holds=both).tag == "1.5.5"
    assert decided("1.4.0 1.5.0 1.6.0", "1.6.0", holds=both).tag is None


def test_what_was_gone_back_to_needs_no_age_and_what_lies_between_takes_no_place() -> None:
    tags = [f"1.4.{n}" for n in range(200)]
    back = [reverted("1.5.0", "1.4.0")]
    found = decided(" ".join([*tags, "1.5.0"]), "1.5.0", minimum_age=DAY, digests=EVERY, holds=back)
    assert (found.tag, found.remembered) == ("1.4.0", ())
    newer = decided(" ".join([*tags, "1.5.0", "1.6.0"]), "1.4.0", minimum_age=DAY, digests=EVERY, holds=back)
    assert [entry.tag for entry in newer.remembered] == ["1.6.0"]


def test_a_pin_of_people_counts_more_than_a_revert() -> None:
    assert decided("1.4.0 1.4.5 1.5.0", "1.4.0", holds=[reverted("1.5.0", "1.4.0"), pin("1.4.5")]).tag == "1.4.5"


def test_a_digest_that_was_taken_back_is_not_exchanged_for_another_tag() -> None:
    back = [Hold("web-reverted", "Reject", digests=frozenset({"sha256:new"}), fallback="latest")]
    rule = build_policy(Alphabetical())
    assert (
        decided("latest kate", "latest", policy=rule, digests={"latest": "sha256:new", "kate": "sha256:k"}, holds=back).tag
        is None
    )
    assert decided("latest kate", None, policy=rule, digests={"latest": "sha256:newest"}, holds=back).tag == "latest"


def test_the_digest_of_what_stays_is_looked_at_too() -> None:
    rule = build_policy(Numerical())
    holds = [reject("1.0.0", digests=["sha256:a"])]
    assert ask("1.0.0 10 v1", "10", policy=rule, holds=holds) == Need(("10",), essential=True)
    assert decided("1.0.0 10 v1", "10", policy=rule, holds=holds, digests={"10": "sha256:b"}).tag == "10"
    assert decided("1.0.0 10 v1", "10", policy=rule, holds=holds, digests={"10": "sha256:a"}).tag is None
