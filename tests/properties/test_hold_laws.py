"""Laws of decisions over whole histories: lists come and go, holds are made and expire, digests move, time passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from imagebot.policy.base import Alphabetical, NoChoice, Numerical, SemVer
from imagebot.policy.choose import Policy, build_policy
from imagebot.policy.decide import decide
from imagebot.policy.floor import ranks_before
from imagebot.policy.index import TagIndex
from imagebot.policy.situation import (
    MAX_REMEMBERED,
    Candidate,
    Chosen,
    Decision,
    Hold,
    Need,
    Situation,
    prefers,
    rejection,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
AGE = 3600.0
TAGS = ["1.0.0", "v1.0.0", "1.1.0", "1.2.0", "2.0.0", "3", "10", "0"]
POLICIES = [
    build_policy(rule)
    for rule in (SemVer("*"), SemVer("<2"), Alphabetical(), Alphabetical("desc"), Numerical(), Numerical("desc"))
]
subsets = st.frozensets(st.sampled_from(TAGS), max_size=3)
digests = st.frozensets(st.sampled_from(["a", "b", "c"]), max_size=2)
moments = st.one_of(st.none(), st.integers(0, 20000).map(lambda seconds: START + timedelta(seconds=seconds)))
names = st.sampled_from(["one", "two"])
reverts = st.builds(
    Hold, names, st.just("Reject"), subsets, digests, expires=moments, fallback=st.sampled_from([*TAGS, "", "1.1.0-hotfix"])
)
holds = st.one_of(st.builds(Hold, names, st.sampled_from(["Reject", "Pin"]), subsets, digests, expires=moments), reverts)
steps = st.lists(
    st.tuples(
        st.lists(st.sampled_from(TAGS), max_size=8, unique=True),
        st.lists(holds, max_size=2),
        st.dictionaries(st.sampled_from(TAGS), st.sampled_from(["a", "b", "c"])),
        st.integers(0, 5000),
    ),
    min_size=1,
    max_size=8,
)


def lets(policy: Policy, active: list[Hold], tag: str, now: datetime) -> bool:
    """Whether a tag is what every revert went back to, or ranks before all that they reject."""
    left = [hold for hold in active if hold.fallback is not None and hold.in_force(now) and hold.fallback != tag]
    return all(ranks_before(policy, tag, other) for hold in left for other in (*hold.tags, hold.fallback) if other)


def settled(situation: Situation, known: dict[str, str]) -> Decision | None:
    """The decision with all digests that it asks for; None where the rule finds nothing."""
    found: dict[str, str | None] = {}
    for _ in range(200):
        try:
            decision = decide(replace(situation, digests=dict(found)))
        except NoChoice:
            return None
        if isinstance(decision, Decision):
            return decision
        assert isinstance(decision, Need)
        assert not set(decision.tags) & set(found), "asked twice"
        found |= {tag: known.get(tag, f"own {tag}") for tag in decision.tags}
    raise AssertionError("no end of questions")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(POLICIES), st.sampled_from([0.0, AGE]), steps)
def test_histories_keep_the_laws(policy, age, history) -> None:  # type: ignore[no-untyped-def]
    last: Chosen | None = None
    previous: str | None = None
    remembered: tuple[Candidate, ...] = ()
    seen: dict[tuple[str, str], datetime] = {}
    chosen_before: set[str] = set()
    now = START
    for tags, active, known, seconds in history:
        now += timedelta(seconds=seconds)
        for tag in tags:
            seen.setdefault((tag, known.get(tag, f"own {tag}")), now)
        index = TagIndex(tags)
        situation = Situation(policy, index, now, last, previous, holds=active, minimum_age=age, remembered=remembered)
        decision = settled(situation, known)
        assert list(index.tags) == sorted(tags, reverse=True)
        if decision is None:
            continue
        pins = [hold for hold in active if hold.mode == "Pin" and hold.in_force(now)]
        tag = decision.tag
        if tag is not None:
            # A hold is never overridden.
            digest = known.get(tag, f"own {tag}") if tag in tags else None
            assert rejection(active, tag, digest, now) is None or (tag not in tags and rejection(active, tag, None, now) is None)
            assert all(tag in pin.tags for pin in pins if pin.tags) or (last is not None and tag == last.tag)
            # A list never moves a policy backwards.
            if last is not None and tag != last.tag and not pins and last.tag not in tags:
                rejected = rejection(active, last.tag, last.digest, now) is not None or not lets(policy, active, last.tag, now)
                assert rejected or not prefers(policy, last.tag, tag)
            # Between what a revert rejects and what it went back to nothing is chosen.
            assert pins or lets(policy, active, tag, now)
            # Nothing young is chosen, but what was chosen before, or what somebody went back to.
            fallbacks = {hold.fallback for hold in active}
            if age and not pins and tag not in chosen_before | fallbacks:
                first = min(at for (name, _), at in seen.items() if name == tag)
                assert (now - first).total_seconds() >= age
        # What is remembered is bounded, each tag once, and nothing of it is from the future.
        assert len(decision.remembered) <= MAX_REMEMBERED
        entries = [entry.tag for entry in decision.remembered]
        assert len(entries) == len(set(entries))
        assert all(entry.first_seen <= now for entry in decision.remembered)
        # The same again changes nothing.
        if tag is not None:
            after = Chosen(tag) if last is None or last.tag != tag else last
            before = last.tag if last is not None and last.tag != tag else previous
            again = settled(replace(situation, last=after, previous=before, remembered=decision.remembered), known)
            assert again is not None
            assert again.tag == tag
            if last is not None and last.tag == tag:  # else what ranks before the new choice is noticed now
                assert again.remembered == decision.remembered
            previous, last = before, after
            chosen_before.add(tag)
        remembered = decision.remembered


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(POLICIES),
    st.lists(st.sampled_from(TAGS), min_size=1, max_size=8, unique=True),
    st.lists(reverts.map(lambda hold: replace(hold, digests=frozenset())), min_size=1, max_size=3),
    st.one_of(st.none(), st.sampled_from(TAGS)),
)
def test_what_ranks_before_all_that_is_rejected_always_wins(policy, tags, active, last) -> None:  # type: ignore[no-untyped-def]
    decision = settled(
        Situation(policy, TagIndex(tags), START, Chosen(last) if last else None, holds=active, downgrades=True), {}
    )
    left = [tag for tag in tags if rejection(active, tag, None, START) is None]
    try:
        best = policy.choose(TagIndex(left)).tag if left else None
    except NoChoice:
        best = None
    if decision is not None and best is not None and lets(policy, active, best, START):
        assert decision.tag == best
    if decision is not None and decision.tag not in (None, last):
        assert decision.tag in left


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(POLICIES), st.lists(st.sampled_from(TAGS), min_size=1, max_size=8, unique=True), st.data())
def test_without_extensions_and_with_a_complete_list_the_rule_decides_alone(policy, tags, data) -> None:  # type: ignore[no-untyped-def]
    index = TagIndex(tags)
    try:
        wanted = policy.choose(index).tag
    except NoChoice:
        return
    last = data.draw(st.one_of(st.none(), st.sampled_from(tags)))
    decision = decide(Situation(policy, index, START, Chosen(last) if last else None))
    assert decision == Decision(wanted)
