"""What decisions about pull requests are made of, and what they consist of. Data only.

A *group* is what one request brings: all changes of an automation (named ""), or those of one policy. An *entry* is what the
status remembers of one request. As long as an entry has a `head`, there may be a branch of ours to clear away; without one, an
ended entry is history.

========  =================================================================================================================
Pending   not opened: the branch is in the way of another, or the pass ended early
Open      kept up to date: the branch has our commit
Foreign   people committed to the branch: it is left to them until it is ours again, merged or closed
Waiting   for room under `maxOpen`
Closed    by a person, or its branch was deleted: the changes are declined, until there are others or it is opened again
Merged    the base has them; the branch is deleted
Superseded  closed by us: nothing is left to change, or the settings ask for another request
========  =================================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from imagebot.pullrequests import PullRequestStatus
from reconcile.ports.forge import Request

MAX_ENTRIES = 50
MAX_IMAGES = 50
NOT_OPENED_AGAIN = "closed by a person, who is understood to decline these changes; they are proposed again when there are others"
GONE = (
    "its branch was deleted or put back to its base, which is understood to decline these changes; they are proposed again when "
    "there are others"
)
OTHERS = "the branch has commits of others, so it is left to them; delete the branch, or merge or close the request, to go on"
TAKEN = "the branch exists already and is not ours; delete it, or name another in spec.git.push.branch"


class Do(StrEnum):
    """Kinds of acts."""

    PUSH = "push"
    """Build the branch from its base, if it is not the same already."""
    OPEN = "open"
    UPDATE = "update"
    """Title, body, labels."""
    MERGE = "merge"
    COMMENT = "comment"
    CLOSE = "close"
    DELETE = "delete"
    """The branch."""


class Say(StrEnum):
    """What a comment is about."""

    NOTHING = ""
    FOREIGN = "foreign"
    NOTHING_LEFT = "nothing left"
    SUPERSEDED = "superseded"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Due:
    """What a group would change on the base: a checksum of it, and what it brings as `policy: image`."""

    group: str
    changes: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch of the remote; `ours` when its head is a commit of ours."""

    head: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a decision is made of.

    Attributes:
        base: branch to merge into.
        base_commit: its head.
        prefix: branch of the group "", and what those of policies begin with.
        by_policy: whether each policy is a group.
        dues: by group; nothing to change is not among them.
        entries: what is remembered, oldest first.
        branches: of the remote, as far as they matter, by name.
        requests: what the forge says of remembered numbers; None: there is no such request.
        found: what the forge says of branches that were looked up; None: it never had a request.
        max_open: most requests at a time.
        auto_merge: whether requests are merged without a person.
        merging: heads, by number, whose merge is settled.
        renew: look at branch and text even if nothing changed: the spec did.
        off: there are to be no requests any more.
        opens: whether new ones may be opened; else only those that are there are looked after.
        waits: what is due waits for more: only what others did to requests is followed.
        known: by number, whose changes a looked-up request brought; none: not one of ours.
    """

    base: str
    base_commit: str
    prefix: str
    by_policy: bool
    dues: Mapping[str, Due]
    entries: tuple[PullRequestStatus, ...]
    branches: Mapping[str, Branch]
    requests: Mapping[int, Request | None]
    found: Mapping[str, Request | None] = field(default_factory=dict)
    max_open: int = MAX_ENTRIES
    auto_merge: bool = False
    merging: Mapping[int, str] = field(default_factory=dict)
    renew: bool = False
    off: bool = False
    opens: bool = True
    waits: bool = False
    known: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Act:
    """One step; `slot` is the place of its entry, `head` the commit that the branch must be at (None: it must not exist)."""

    do: Do
    slot: int
    head: str | None = None
    say: Say = Say.NOTHING
    declined: int | None = None
    """For OPEN and UPDATE: number of the request whose changes were declined."""
    retitle: bool = True
    """For UPDATE: whether the title is set, too; else it stays as it is, also where a person set it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, in this order, and the entries as they are to be noted first.

    Attributes:
        acts: in order; those of one entry depend on one another.
        entries: what is noted before the first act.
        lookups: branches whose requests must be looked up before anything is decided about them.
        soon: whether to look again before the interval ends: a merge is wished for.
        again: whether to look again at once: what was just merged is not on the base yet.
    """

    acts: tuple[Act, ...]
    entries: tuple[PullRequestStatus, ...]
    lookups: tuple[str, ...] = ()
    soon: bool = False
    again: bool = False


def branch_of(prefix: str, group: str) -> str:
    """The branch of a group. A policy's name is a reference's name but for its end: Git keeps `.lock` for itself."""
    return f"{prefix}/{group}{'-' if group.endswith('.lock') else ''}" if group else prefix


def is_live(entry: PullRequestStatus) -> bool:
    """Whether the request is open, as far as is known."""
    return entry.number is not None and entry.state in {"Open", "Foreign"}


def is_over(entry: PullRequestStatus) -> bool:
    """Whether nothing is left to be done about an entry, ever."""
    return entry.state in {"Closed", "Merged", "Superseded"} and entry.head is None


def declines(entry: PullRequestStatus, due: Due) -> bool:
    """Whether the person who closed the entry's request declined all that is due."""
    known = entry.images or []
    return entry.changes == due.changes or (0 < len(known) < MAX_IMAGES and set(due.images) <= set(known))


def bounded(entries: list[PullRequestStatus]) -> tuple[PullRequestStatus, ...]:
    """At most `MAX_ENTRIES`: history goes first, the oldest of it in front, then those that wait, the last of them in front."""
    while len(entries) > MAX_ENTRIES:
        over = next((slot for slot, entry in enumerate(entries) if is_over(entry)), None)
        if over is None:
            over = next((s for s in reversed(range(len(entries))) if entries[s].state == "Waiting"), len(entries) - 1)
        entries = [entry for slot, entry in enumerate(entries) if slot != over]
    return tuple(entries)
