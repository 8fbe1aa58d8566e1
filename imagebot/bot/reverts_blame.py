"""Who set a value back, and what we had written: asked of a bounded part of the history, when something was set back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagebot.bot.reverts_seen import Hand, spots
from imagebot.bot.trailers import NAME, read_trailers
from imagebot.bot.update import MAX_FILE, MarkerMemory
from imagebot.markers.find import FileMarkers
from reconcile.errors import ReconcileError
from reconcile.git.history import Step
from reconcile.git.mirror import Mirror
from reconcile.redact import redact
from reconcile.runtime.logs import get_logger

log = get_logger("reverts")

DEPTHS = (50, 500)
"""Commits of history that are fetched, one after the other until they say it."""
MAX_AUTHOR, MAX_SUBJECT, MAX_PATH = 60, 120, 160
SHORT = 7


@dataclass(frozen=True, slots=True)
class Blame:
    """The commit that set a value back; without `exact` the one in which it is so, since history does not say more."""

    commit: str
    author: str = ""
    subject: str = ""
    exact: bool = True

    def reason(self, path: str) -> str:
        """Who did it, in words that are bounded and hold no secret."""
        person = f" of {_shown(self.author, MAX_AUTHOR)}" if self.author else ""
        subject = f": {_shown(self.subject, MAX_SUBJECT)}" if self.subject else ""
        how = "by" if self.exact else "at"
        return f"reverted {how} {self.commit[:SHORT]}{person} on {_shown(path, MAX_PATH)}{subject}"


async def who_set_back(mirror: Mirror, head: str, hand: Hand, memory: MarkerMemory) -> Blame:
    """The commit up to `head` that took away what stood at a hand's spot; never raises, since it is only for people."""
    blame = Blame(head, exact=False)
    try:
        for depth in DEPTHS:
            await mirror.fetch(head, depth)
            for step in await mirror.changes_of(head, hand.spot.path):
                if await _takes_away(mirror, step, hand, memory):
                    return Blame(step.commit, step.author, step.subject)
        step = await mirror.described(head)
        return Blame(head, step.author, step.subject, exact=False)
    except ReconcileError as error:
        log.warning("history does not say who set a value back", error=str(error))
        return blame


async def written_by_us(mirror: Mirror, head: str, wanted: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """The last commits of which trailers say that they wrote these images, by namespace and name of the policy.

    Policies whose last commit wrote another image, or that history does not name, are left out. Raises GitError.
    """
    said: dict[tuple[str, str], tuple[str, str]] = {}
    for depth in DEPTHS:
        await mirror.fetch(head, depth)
        for commit, message in await mirror.messages(head, NAME):
            for policy, image in read_trailers(message).items():
                said.setdefault(policy, (image, commit))
        if wanted.keys() <= said.keys():
            break
    return {policy: said[policy][1] for policy, image in wanted.items() if policy in said and said[policy][0] == image}


async def _takes_away(mirror: Mirror, step: Step, hand: Hand, memory: MarkerMemory) -> bool:
    """Whether a commit leaves fewer of the values that stood at a spot than it found."""
    if step.before is None:
        return False
    before, after = [await _count(mirror, blob, hand, memory) for blob in (step.before, step.after)]
    return before > after


async def _count(mirror: Mirror, blob: str | None, hand: Hand, memory: MarkerMemory) -> int:
    if blob is None:
        return 0
    found = memory.get(blob) or memory.learn(blob, (await mirror.read([blob], MAX_FILE))[blob])
    if not isinstance(found, FileMarkers):
        return 0
    values = spots([(hand.spot.path, found)], {hand.spot.setter}).get(hand.spot, ())
    return sum(value in hand.gone for value in values)


def _shown(text: str, most: int) -> str:
    """One line of text that is safe to show."""
    line = " ".join(redact(text).split())
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return line if len(line) <= most else line[: most - 1] + "…"
