"""The words of a decision about tags: what it is made from, and what comes out of it. Data, and small questions about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from imagebot.policy.base import NoChoice
from imagebot.policy.choose import Policy
from imagebot.policy.index import TagIndex

MAX_REMEMBERED = 50
"""Tags whose first sight is remembered at once."""
DOWNGRADE_HELD, PINNED, REJECTED, SOAKING, TAG_MUTATED = "DowngradeHeld", "Pinned", "Rejected", "Soaking", "TagMutated"
"""Reasons of the condition Held."""
ALLOW_DOWNGRADE = "imagebot.dev/allow-downgrade"
"""Annotation of a policy with the tag that it may go back to, once."""


class State(StrEnum):
    """What stood between the rule and a tag."""

    REJECTED = "rejected"
    BEHIND = "behind what is rejected"
    SOAKING = "soaking"
    PINNED_OUT = "not what is pinned"
    REFUSED = "downgrade refused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a tag that the rule could choose, and why."""

    state: State
    why: str


@dataclass(frozen=True, slots=True)
class Hold:
    """An ImageHold that concerns the policy. Without tags and digests a pin keeps what is chosen."""

    name: str
    mode: Literal["Reject", "Pin"]
    tags: frozenset[str] = frozenset()
    digests: frozenset[str] = frozenset()
    reason: str = ""
    expires: datetime | None = None
    fallback: str | None = None
    """With Reject, the tag that somebody went back to: nothing else is chosen but what ranks before all that is rejected."""

    def __str__(self) -> str:
        return f"ImageHold {self.name}" + (f" ({self.reason})" if self.reason else "")

    def in_force(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires is None or now < self.expires


@dataclass(frozen=True, slots=True)
class Chosen:
    """The last choice."""

    tag: str
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A digest under a tag, and when we saw it there first."""

    tag: str
    digest: str
    first_seen: datetime


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision is made from.

    Attributes:
        policy: the rule and its filter.
        index: the tags that there are.
        now: the moment.
        last: the last choice, of the same image.
        previous: the tag that the last choice replaced.
        same_rule: whether the last choice was made by this rule.
        excluded: whether the repository's exclusion list now drops the last choice.
        downgrades: whether a lower choice is taken as well (`spec.downgrade: Allow`).
        allowed: tag to which somebody allows to go back, once.
        holds: holds that concern the policy, also expired ones.
        minimum_age: seconds that a digest must have been known; 0 for none.
        remembered: first sights, from the decision before.
        digests: digests that were looked up for this decision; None for one that could not be had.
    """

    policy: Policy
    index: TagIndex
    now: datetime
    last: Chosen | None = None
    previous: str | None = None
    same_rule: bool = True
    excluded: bool = False
    downgrades: bool = False
    allowed: str | None = None
    holds: Sequence[Hold] = ()
    minimum_age: float = 0.0
    remembered: Sequence[Candidate] = ()
    digests: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Held:
    """Why the choice is not what the rule prefers: reason and message of the condition Held."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Need:
    """Digests that must be looked up before there can be a decision. One that is not `essential` may be missing."""

    tags: tuple[str, ...]
    essential: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What is chosen.

    Attributes:
        tag: the choice; None: nothing may be chosen, not even what was.
        held: why it is not what the rule prefers; None where it is.
        verdicts: tags that the rule could choose and that were kept back, with the reason.
        remembered: first sights to remember for the next decision.
        after: seconds until time alone may change the decision.
        used_allowance: whether `Situation.allowed` was made use of.
    """

    tag: str | None
    held: Held | None = None
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    remembered: tuple[Candidate, ...] = ()
    after: float | None = None
    used_allowance: bool = False


def rejection(holds: Iterable[Hold], tag: str, digest: str | None, now: datetime) -> Hold | None:
    """The hold in force that rejects this tag or digest, None if there is none."""
    for hold in holds:
        if hold.mode == "Reject" and hold.in_force(now) and (tag in hold.tags or (digest is not None and digest in hold.digests)):
            return hold
    return None


def prefers(policy: Policy, tag: str, other: str) -> bool:
    """Whether the rule would choose `tag` if it and `other` were all tags there are."""
    try:
        return tag != other and policy.choose(TagIndex((tag, other))).tag == tag
    except NoChoice:
        return False
