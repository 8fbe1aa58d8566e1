"""What becomes of the digest of a choice: looked up, kept, or moved on when somebody pushed another image under the tag. Pure.

Without extensions it is Flux's `digestReflectionPolicy`. `onMutation` says what a digest that changed under the same tag means,
and a minimum age counts for such a digest as it does for a new tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from imagebot.policy.situation import SOAKING, TAG_MUTATED, Candidate, Chosen, Held

Reflection = Literal["Always", "IfNotPresent", "Never"]
OnMutation = Literal["Follow", "Hold", "Alarm"]
ALLOW_MUTATION = "imagebot.dev/allow-mutation"
"""Annotation of a policy with the digest that its tag may move to."""


@dataclass(frozen=True, slots=True)
class Before:
    """What the policy asks for, and what it had.

    Attributes:
        reflection: `spec.digestReflectionPolicy`.
        on_mutation: `spec.onMutation`.
        last: the last choice, of the same image.
        observed: the digest that its tag had when it was last accepted; kept where `onMutation` is Hold or Alarm.
        allowed: digest to which somebody allows the tag to move.
        minimum_age: seconds that a digest must have been known; 0 for none.
        remembered: first sights.
        now: the moment.
    """

    reflection: Reflection
    on_mutation: OnMutation
    now: datetime
    last: Chosen | None = None
    observed: str | None = None
    allowed: str | None = None
    minimum_age: float = 0.0
    remembered: Sequence[Candidate] = ()

    @property
    def watching(self) -> bool:
        """Whether the digest matters although it may not be written anywhere."""
        return self.on_mutation != "Follow"

    def kept(self, tag: str) -> str | None:
        """The digest of the last choice, if it is the same tag."""
        return self.last.digest if self.last is not None and self.last.tag == tag else None

    def known(self, tag: str) -> str | None:
        """The digest that the tag had when it was last accepted, if it is the last choice's."""
        if self.last is None or self.last.tag != tag:
            return None
        return (self.observed if self.watching else None) or self.last.digest

    def asks(self, tag: str) -> bool:
        """Whether the digest of the tag must be looked up."""
        if self.watching or self.reflection == "Always":
            return True
        return self.reflection == "IfNotPresent" and not self.kept(tag)


@dataclass(frozen=True, slots=True)
class Settled:
    """The digest to report, and what to remember.

    Attributes:
        digest: of the choice; None where none is asked for.
        observed: what to keep for the next time.
        held: why the digest is not the one that the tag has now.
        alarm: what to warn of, once.
        remembered: first sights.
        after: seconds until time alone may change the digest.
    """

    digest: str | None
    observed: str | None = None
    held: Held | None = None
    alarm: str | None = None
    remembered: tuple[Candidate, ...] = ()
    after: float | None = None


def settle(before: Before, tag: str, current: str | None) -> Settled:
    """Decide on the digest of the chosen `tag`; `current` is what was looked up, None: it was not."""
    known = before.known(tag)
    kept = before.kept(tag)
    others = tuple(entry for entry in before.remembered if entry.tag != tag)
    if current is not None and known is not None and current != known:
        return _moved(before, tag, current, known, others)
    digest = {"Never": None, "IfNotPresent": kept or current, "Always": current or kept}[before.reflection]
    return Settled(digest, (known or current) if before.watching else None, remembered=others)


def _moved(before: Before, tag: str, current: str, known: str, others: tuple[Candidate, ...]) -> Settled:
    stays = None if before.reflection == "Never" else before.kept(tag) or known
    told = f"{tag} was moved from {known} to {current}"
    if before.on_mutation == "Hold" and before.allowed != current:
        what = f"{stays} stays chosen" if stays else "the policy chooses by tag only, so whoever pulls it has another image now"
        held = Held(
            TAG_MUTATED,
            f"{told}; {what}; to follow, annotate the policy with {ALLOW_MUTATION}: {current}, or set spec.onMutation to Follow",
        )
        return Settled(stays, known, held, remembered=others)
    alarm = told if before.on_mutation == "Alarm" else None
    if before.reflection == "Always" or (before.reflection == "IfNotPresent" and before.on_mutation == "Hold"):
        if before.minimum_age > 0:
            return _aged(before, tag, current, known, others, alarm)
        return Settled(current, current if before.watching else None, alarm=alarm, remembered=others)
    # Flux does not look either: the digest of the first sight stays.
    return Settled(stays, current if before.watching else None, alarm=alarm, remembered=others)


def _aged(before: Before, tag: str, current: str, known: str, others: tuple[Candidate, ...], alarm: str | None) -> Settled:
    entry = next((entry for entry in before.remembered if (entry.tag, entry.digest) == (tag, current)), None)
    if entry is None:
        entry = Candidate(tag, current, before.now)
    elif alarm is not None:
        alarm = None  # told when it was seen first
    first = min(entry.first_seen, before.now)
    end = first + timedelta(seconds=before.minimum_age)
    if end <= before.now:
        return Settled(current, current if before.watching else None, alarm=alarm, remembered=others)
    held = Held(SOAKING, f"{tag} was moved to {current}, which may be chosen from {end:%Y-%m-%dT%H:%M:%SZ} on")
    left = (end - before.now).total_seconds()
    return Settled(known, known if before.watching else None, held, alarm, (*others, Candidate(tag, current, first)), left)
