"""What holds with a fallback leave: that tag, or one that ranks before all that is rejected. Pure.

Whoever takes an image back in Git goes back to another one and wants neither the image nor what lies between the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from imagebot.policy.base import NoChoice
from imagebot.policy.choose import Policy
from imagebot.policy.index import TagIndex
from imagebot.policy.situation import Hold, prefers


class Floor:
    """The holds with a fallback that are in force for one policy; false where there are none."""

    def __init__(self, policy: Policy, holds: Iterable[Hold]) -> None:
        self._policy = policy
        self._holds = [hold for hold in holds if hold.mode == "Reject" and hold.fallback is not None]

    def __bool__(self) -> bool:
        return bool(self._holds)

    def against(self, tag: str) -> Hold | None:
        """The hold that does not let a tag be chosen, None where all do."""
        for hold in self._holds:
            others = [other for other in (*hold.tags, hold.fallback) if other]
            if tag != hold.fallback and not all(ranks_before(self._policy, tag, other) for other in others):
                return hold
        return None

    def fallbacks(self, index: TagIndex) -> Sequence[str]:
        """The tags of the list that were gone back to, that the rule can choose and that no hold is against; best first."""
        left = {hold.fallback for hold in self._holds if hold.fallback}
        found = []
        while left and (tag := _choice(self._policy, TagIndex(tag for tag in left if rankable(self._policy, tag)))) is not None:
            left.discard(tag)
            if tag in index and self.against(tag) is None:
                found.append(tag)
        return found

    def base(self, base: str | None) -> str | None:
        """What a tag must rank before to be worth waiting for: `base` (None: nothing), or the best that is rejected."""
        for tag in sorted({tag for hold in self._holds for tag in hold.tags}):
            if rankable(self._policy, tag) and (base is None or prefers(self._policy, tag, base)):
                base = tag
        return base


def rankable(policy: Policy, tag: str) -> bool:
    """Whether the rule could choose a tag if it were the only one."""
    return _choice(policy, TagIndex((tag,))) == tag


def ranks_before(policy: Policy, tag: str, other: str) -> bool:
    """Whether the rule prefers `tag` to `other`; what it could never choose ranks behind all that it could."""
    return tag != other and rankable(policy, tag) and (not rankable(policy, other) or prefers(policy, tag, other))


def _choice(policy: Policy, index: TagIndex) -> str | None:
    try:
        return policy.choose(index).tag if len(index) else None
    except NoChoice:
        return None
