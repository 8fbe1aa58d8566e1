"""What a policy may choose: between what its rule prefers and what is chosen stand holds, soaking and the interlock. Pure.

The rule alone says which tag it prefers (`Policy.choose`). From that follow, in this order:

holds       a rejected tag or digest is out; pins leave only what they name, or what is chosen already; of a hold with a
            fallback, that tag is chosen until one ranks before all that is rejected
soaking     with a minimum age, a tag counts from when *we* have known its digest for that long
interlock   if the last choice is in the list no more, a tag that the rule would not prefer to it is not taken

A list that is shorter than before can therefore keep a policy where it is, but never move it backwards.

What is remembered between two decisions (`Candidate`) is in the status of the policy and never more than `MAX_REMEMBERED`
entries, all of tags that the rule prefers to the choice. When they are full the oldest stay: one of them ripens, is chosen, and
makes room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from imagebot.policy.base import NoChoice
from imagebot.policy.floor import Floor
from imagebot.policy.index import TagIndex
from imagebot.policy.situation import (
    ALLOW_DOWNGRADE,
    DOWNGRADE_HELD,
    MAX_REMEMBERED,
    PINNED,
    REJECTED,
    SOAKING,
    Candidate,
    Decision,
    Held,
    Hold,
    Need,
    Situation,
    State,
    Verdict,
    prefers,
    rejection,
)
from reconcile.api.duration import format_duration

MAX_REJECTED = 20
"""Tags in a row that are looked at for a digest that is not rejected, or that a pin names."""


def decide(situation: Situation) -> Decision | Need:
    """Decide, or say which digests are missing for it.

    Raises:
        InvalidFilter: a regular expression of the policy does not compile.
        NoChoice: the rule finds nothing in these tags, whatever the holds say.
    """
    return _Decider(situation).decide()


class _Decider:
    """One decision."""

    def __init__(self, situation: Situation) -> None:
        self.s = situation
        self.holds = [hold for hold in situation.holds if hold.in_force(situation.now)]
        self.rejecting = any(hold.mode == "Reject" and hold.digests for hold in self.holds)
        self.pins = [hold for hold in self.holds if hold.mode == "Pin"]
        self.floor = Floor(situation.policy, () if self.pins else self.holds)
        self.verdicts: dict[str, Verdict] = {}
        self.remembered: list[Candidate] = []
        last = situation.last
        self.last_rejected = last is not None and (
            self._rejected(last.tag, last.digest) is not None or self.floor.against(last.tag) is not None
        )

    def decide(self) -> Decision | Need:
        s = self.s
        named = {tag for hold in self.holds if hold.mode == "Reject" for tag in hold.tags if tag in s.index}
        for tag in named:
            self._rejected(tag, None)
        natural = self._natural()
        with s.index.hiding() as hide:
            for tag in named:
                hide(tag)
            found: str | Need | None = self._notice() if s.minimum_age > 0 else None
            if found is None and self.pins:
                found = self._pinned()
            elif found is None:
                found = self._above(self._ripe() if s.minimum_age > 0 else self._best(s.index, hide))
        if found is None:
            found = self._look_at_last()
        return found if isinstance(found, Need) else self._conclude(natural, found)

    # --- what the rule says

    def _natural(self) -> str | None:
        """The preferred tag; raises NoChoice where holds have no part in it."""
        try:
            return self.s.policy.choose(self.s.index).tag
        except NoChoice:
            if any(tag in self.s.index for hold in self.holds for tag in hold.tags):
                return None
            raise

    def _of(self, index: TagIndex) -> str | None:
        try:
            return self.s.policy.choose(index).tag if len(index) else None
        except NoChoice:
            return None

    # --- what holds say

    def _rejected(self, tag: str, digest: str | None) -> Hold | None:
        hold = rejection(self.holds, tag, digest, self.s.now)
        if hold is not None:
            self.verdicts[tag] = Verdict(State.REJECTED, f"by {hold}")
        return hold

    def _best(self, index: TagIndex, hide: Callable[[str], None]) -> str | Need | None:
        """The best tag that is not rejected; what is looked at and is rejected gets hidden."""
        for _ in range(MAX_REJECTED):
            tag = self._of(index)
            if tag is None or not self.rejecting:
                return tag
            if tag not in self.s.digests:
                return Need((tag,), essential=True)
            if self._rejected(tag, self.s.digests[tag]) is None:
                return tag
            self.last_rejected = self.last_rejected or (self.s.last is not None and tag == self.s.last.tag)
            hide(tag)
        return None

    def _look_at_last(self) -> Need | None:
        """With nothing else to choose the last choice stays, unless its digest is a rejected one by now."""
        last = self.s.last
        if last is None or self.last_rejected or not self.rejecting or last.tag not in self.s.index:
            return None
        if last.tag not in self.s.digests:
            return Need((last.tag,), essential=True)
        self.last_rejected = self._rejected(last.tag, self.s.digests[last.tag]) is not None
        return None

    def _above(self, found: str | Need | None) -> str | Need | None:
        """What was found if no hold with a fallback is against it, else the tag that was gone back to; None without one."""
        if isinstance(found, Need) or not self.floor:
            return found
        if found is not None:
            hold = self.floor.against(found)
            if hold is None:
                return found
            self.verdicts.setdefault(found, Verdict(State.BEHIND, f"by {hold}"))
        for tag in self.floor.fallbacks(self.s.index):
            if tag in self.verdicts and self.verdicts[tag].state is State.REJECTED:
                continue
            alone = TagIndex((tag,))
            with alone.hiding() as hide:
                back = self._best(alone, hide)
            if back is not None:
                return back
        return None

    def _pinned(self) -> str | Need | None:
        """The best tag that every pin names, None where there is none: what is chosen stays."""
        s = self.s
        last = s.last.tag if s.last is not None else None
        left: set[str] | None = None
        by_digest: list[Hold] = []
        for pin in self.pins:
            if pin.digests and not pin.tags:
                by_digest.append(pin)
                continue
            tags = pin.tags or frozenset({last} if last is not None else ())
            left = set(tags) if left is None else left & tags
        if left is None:
            left = set(s.index.tags)
        here = TagIndex(tag for tag in left if tag in s.index and tag not in self.verdicts)
        with here.hiding() as hide:
            if by_digest and last is not None and last in here:  # most often it is what is there already
                first = self._names(by_digest, last)
                if first is not False:
                    return last if first is True else first
                hide(last)
            for _ in range(MAX_REJECTED):
                tag = self._best(here, hide)
                if tag is None or isinstance(tag, Need) or not by_digest:
                    return tag
                named = self._names(by_digest, tag)
                if named is not False:
                    return tag if named is True else named
                hide(tag)
        return None

    def _names(self, pins: Sequence[Hold], tag: str) -> bool | Need:
        if tag not in self.s.digests:
            return Need((tag,), essential=True)
        digest = self.s.digests[tag]
        return all(digest in pin.digests for pin in pins) and self._rejected(tag, digest) is None

    # --- what is old enough

    def _notice(self) -> Need | None:
        """Remember the first sight of what the rule prefers to the choice."""
        s = self.s
        base = self._base()
        kept = [entry for entry in s.remembered if self._worth(entry, base)][:MAX_REMEMBERED]
        known = {entry.tag for entry in kept}
        fresh = [tag for tag in self._ahead(base) if tag not in known][: MAX_REMEMBERED - len(kept)]
        missing = tuple(tag for tag in fresh if tag not in s.digests)
        if missing:
            return Need(missing, essential=False)
        kept += [Candidate(tag, digest, s.now) for tag in fresh if (digest := s.digests[tag]) is not None]
        # A first sight in the future is one of a clock that has been set back since.
        self.remembered = [replace(entry, first_seen=min(entry.first_seen, s.now)) for entry in kept]
        return None

    def _base(self) -> str | None:
        """What a tag must rank before to be waited for: what was chosen before, or what is rejected by somebody who went back."""
        s = self.s
        base = None
        if s.last is not None and not self.last_rejected:
            base = s.last.tag
        elif s.previous is not None and rejection(self.holds, s.previous, None, s.now) is None:
            base = s.previous
        return self.floor.base(base)

    def _ahead(self, base: str | None) -> list[str]:
        """The tags that the rule prefers to `base`, best first, as many as could be remembered."""
        found: list[str] = []
        with self.s.index.hiding() as hide:
            while len(found) < MAX_REMEMBERED:
                tag = self._of(self.s.index)
                if tag is None or (base is not None and not prefers(self.s.policy, tag, base)):
                    break
                found.append(tag)
                hide(tag)
        return found

    def _worth(self, entry: Candidate, base: str | None) -> bool:
        """Whether an entry is still worth its place. That its tag is not in the list is no reason: it may come back."""
        s = self.s
        if rejection(self.holds, entry.tag, entry.digest, s.now) is not None:
            return False
        if s.last is not None and entry.tag == s.last.tag:
            return True  # another digest of the chosen tag
        return base is None or prefers(s.policy, entry.tag, base)

    def _ripe(self) -> str | Need | None:
        """The best tag that is old enough, with the digest that it had then, or that was chosen before."""
        s = self.s
        age = timedelta(seconds=s.minimum_age)
        before = {tag for tag in (s.last.tag if s.last is not None else None, s.previous) if tag is not None}
        entries = {entry.tag: entry for entry in self.remembered}
        old = {tag for tag, entry in entries.items() if entry.first_seen + age <= s.now}
        allowed = TagIndex(tag for tag in old | before if tag in s.index and tag not in self.verdicts)
        with allowed.hiding() as hide:
            while (tag := self._best(allowed, hide)) is not None:
                if isinstance(tag, Need) or tag in before:
                    break
                if tag not in s.digests:
                    return Need((tag,), essential=True)
                digest = s.digests[tag]
                if digest == entries[tag].digest:
                    break
                if digest is not None:  # somebody moved the tag: what is there now is new to us
                    self.remembered[self.remembered.index(entries[tag])] = Candidate(tag, digest, s.now)
                hide(tag)
        for entry in self.remembered:
            left = (entry.first_seen + age - s.now).total_seconds()
            if left > 0 and entry.tag not in before:
                self.verdicts.setdefault(entry.tag, Verdict(State.SOAKING, f"old enough in {format_duration(round(left))}"))
        return tag

    # --- the interlock

    def _conclude(self, natural: str | None, found: str | None) -> Decision:
        s = self.s
        last = s.last.tag if s.last is not None and not self.last_rejected else None
        if found is None or found == last:
            refused = self._lower(natural, last)
            return self._decision(last, self._stays(natural, last, refused=refused))
        if not self.pins and self._lower(found, last):
            if s.allowed == found:
                return self._decision(found, self._kept_back(natural, found), used=True)
            return self._decision(last, self._stays(found, last, refused=True))
        return self._decision(found, self._kept_back(natural, found))

    def _lower(self, tag: str | None, last: str | None) -> bool:
        """Whether going from the last choice to `tag` would be a step back that nobody asked for."""
        s = self.s
        if tag is None or last is None or tag == last or s.downgrades or s.excluded or not s.same_rule or last in s.index:
            return False
        return prefers(s.policy, last, tag)

    def _stays(self, natural: str | None, last: str | None, *, refused: bool) -> Held | None:
        if refused and natural is not None and not self.pins:
            self.verdicts[natural] = Verdict(State.REFUSED, f"{last}, which was chosen, ranks before it and is not in the list")
            return Held(
                DOWNGRADE_HELD,
                f"{last} is not in the list of tags any more and stays chosen, since {natural}, the best that is left, ranks "
                f"behind it; to go back, annotate the policy with {ALLOW_DOWNGRADE}: {natural}, or set spec.downgrade to Allow",
            )
        return self._kept_back(natural, last)

    def _kept_back(self, natural: str | None, choice: str | None) -> Held | None:
        """Why the choice is another than the rule's."""
        if self.pins:
            pin = self.pins[0]
            what = f"kept at {choice}" if choice is not None else "nothing is chosen"
            other = f"; without it the choice would be {natural}" if natural not in (None, choice) else ""
            if natural is not None and natural != choice:
                self.verdicts.setdefault(natural, Verdict(State.PINNED_OUT, f"{what} by {pin}"))
            return Held(PINNED, f"{what} by {pin}{other}")
        if natural == choice and choice is not None:
            return None
        verdict = self.verdicts.get(natural) if natural is not None else None
        if verdict is not None and verdict.state is State.REJECTED:
            return Held(REJECTED, f"{natural} is rejected {verdict.why}")
        if verdict is not None and verdict.state is State.BEHIND:
            return Held(REJECTED, f"{natural} ranks behind what is rejected {verdict.why}")
        if verdict is not None and verdict.state is State.SOAKING:
            return Held(SOAKING, f"{natural} is {self._since(natural)}")
        if self.s.minimum_age > 0:
            return Held(SOAKING, f"{natural} has not been known for {format_duration(self.s.minimum_age)} yet")
        rejected = next((v for v in self.verdicts.values() if v.state is State.REJECTED), None)
        return Held(REJECTED, f"everything that could be chosen is rejected {rejected.why}") if rejected else None

    def _since(self, tag: str | None) -> str:
        entry = next(entry for entry in self.remembered if entry.tag == tag)
        until = entry.first_seen + timedelta(seconds=self.s.minimum_age)
        return f"known since {entry.first_seen:%Y-%m-%dT%H:%M:%SZ} and may be chosen from {until:%Y-%m-%dT%H:%M:%SZ} on"

    def _decision(self, tag: str | None, held: Held | None, *, used: bool = False) -> Decision:
        s = self.s
        ends = [hold.expires for hold in self.holds if hold.expires is not None]
        ends += [entry.first_seen + timedelta(seconds=s.minimum_age) for entry in self.remembered]
        waits = [(end - s.now).total_seconds() for end in ends if end > s.now]
        # What is chosen now is remembered no more; neither is what ranks behind it.
        kept = tuple(
            entry
            for entry in self.remembered
            if tag is None or (entry.tag == tag and s.last is not None and s.last.tag == tag) or prefers(s.policy, entry.tag, tag)
        )
        return Decision(tag, held, dict(self.verdicts), kept, min(waits) if waits else None, used)
