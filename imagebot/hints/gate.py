"""What a hint leads to, and how often: decisions and bounded memory, without I/O.

A hint leads to a scan at most. Whoever repeats one, or sends what we know, causes nothing; whoever sends many causes one scan
each few seconds, the last of which comes after the last hint, so that nothing is lost.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from imagebot.hints.payloads import Pushed
from reconcile.api.meta import Key

SPACING = 5.0
"""Seconds between two scans of one object that hints lead to."""
LOOKS = (5.0, 30.0, 120.0)
"""Seconds after which to look again for a tag that was pushed and is not listed: some registries list it later."""
MOST_DELIVERIES = 64
"""Deliveries to one object that are remembered."""
MOST_DIGESTS = 256
"""Tags of one object whose digest is remembered."""
MOST_MISSING = 32
"""Tags of one object that are looked for again."""


class Effect(StrEnum):
    """What a pushed image means for an ImageRepository, the strongest first."""

    SCAN = "scan"
    """Its tag is not in the list."""
    DIGEST = "digest"
    """Its tag is in the list, and may have another digest now."""
    KNOWN = "known"
    """Tag and digest are known."""
    EXCLUDED = "excluded"
    """The object excludes the tag."""
    FOREIGN = "foreign"
    """It is another image."""


@dataclass(frozen=True, slots=True)
class Known:
    """What we know of an ImageRepository's tags."""

    excludes: Callable[[str], bool]
    lists: Callable[[str], bool]
    digest: Callable[[str], str]
    """The digest that a tag had by the last hint; empty: none told."""


def effect_of(image: Pushed, known: Known) -> Effect:
    """What an image of this repository means for it."""
    if not image.tag:
        return Effect.SCAN
    if known.excludes(image.tag):
        return Effect.EXCLUDED
    if not known.lists(image.tag):
        return Effect.SCAN
    return Effect.KNOWN if image.digest and known.digest(image.tag) == image.digest else Effect.DIGEST


def strongest(effects: set[Effect]) -> Effect:
    """The effect that decides what is done; FOREIGN where there is none."""
    return next((effect for effect in Effect if effect in effects), Effect.FOREIGN)


@dataclass(slots=True)
class Memory:
    """What is remembered of the hints for one object."""

    asked: float | None = None
    """When the last hint led to work, on the monotonic clock."""
    waiting: bool = False
    """Whether a timer is set for the next work."""
    watchers: set[Key] = field(default_factory=set)
    """Policies that are to look at the digest of their tag."""
    deliveries: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    digests: OrderedDict[str, str] = field(default_factory=OrderedDict)
    missing: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """Tags that were pushed and are not listed, with the number of times that we have looked again."""

    def wait(self, now: float) -> float:
        """Seconds until work is allowed again; 0: now."""
        return 0.0 if self.asked is None else max(0.0, self.asked + SPACING - now)

    def repeated(self, body: bytes) -> bool:
        """Whether this body came before, among the last ones."""
        return _mark(body) in self.deliveries

    def delivered(self, body: bytes) -> None:
        """Remember a body."""
        self.deliveries[_mark(body)] = None
        if len(self.deliveries) > MOST_DELIVERIES:
            self.deliveries.popitem(last=False)

    def told(self, image: Pushed) -> None:
        """Remember the digest of a tag."""
        if image.tag and image.digest:
            self.digests[image.tag] = image.digest
            self.digests.move_to_end(image.tag)
            if len(self.digests) > MOST_DIGESTS:
                self.digests.popitem(last=False)

    def expect(self, tag: str) -> None:
        """Look for this tag again if the scan does not find it."""
        if tag:
            self.missing[tag] = 0
            if len(self.missing) > MOST_MISSING:
                self.missing.popitem(last=False)

    def look_again(self, lists: Callable[[str], bool]) -> float | None:
        """Seconds after which to look again for what is still missing, None when there is nothing to look for."""
        for tag in [tag for tag, looks in self.missing.items() if looks >= len(LOOKS) or lists(tag)]:
            del self.missing[tag]
        if not self.missing:
            return None
        after = min(LOOKS[looks] for looks in self.missing.values())
        for tag in self.missing:
            self.missing[tag] += 1
        return after


def _mark(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
