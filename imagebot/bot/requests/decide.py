"""What becomes of pull requests: from what is due, what is remembered and what the forge says to acts. Pure.

An intention to close or to comment is an entry's state before it is carried out, so that a restart between the two neither takes
our closing for a person's, nor says anything twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from imagebot.bot.requests.scene import (
    GONE,
    MAX_IMAGES,
    NOT_OPENED_AGAIN,
    OTHERS,
    TAKEN,
    Act,
    Branch,
    Decision,
    Do,
    Due,
    Say,
    Scene,
    branch_of,
    declines,
    is_live,
)
from imagebot.pullrequests import PullRequestStatus
from reconcile.ports.forge import Request, RequestState


def decide(scene: Scene) -> Decision:
    """What to do now."""
    return _Decider(scene).decision()


class _Decider:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.entries = list(scene.entries)
        self.before: list[Act] = []
        self.acts: list[Act] = []
        self.after: list[Act] = []
        self.lookups: list[str] = []
        self.just_merged: set[int] = set()
        self.opening = 0
        self.soon = self.again = False
        self.freed: set[str] = set()
        """Branches that this decision deletes first, because they are in the way of others."""

    def decision(self) -> Decision:
        for slot in range(len(self.entries)):
            self._refresh(slot)
        if self.scene.waits:
            for slot, entry in enumerate(self.entries):
                if entry.state == "Merged":
                    self._clear(slot, wanted=False)
            return Decision((*self.acts, *self.after), tuple(self.entries))
        current = {group: self._current(group) for group in self.scene.dues}
        kept = {slot for slot in current.values() if slot is not None}
        for slot in range(len(self.entries)):
            if slot not in kept:
                self._retire(slot)
        for group in self._in_turn(current):
            self._propose(self.scene.dues[group], current[group])
        return Decision(
            (*self.before, *self.acts, *self.after), tuple(self.entries), tuple(self.lookups), soon=self.soon, again=self.again
        )

    def _in_turn(self, current: Mapping[str, int | None]) -> list[str]:
        """The groups, those in front that wait for room: else one that always has something new would leave them none."""

        def turn(group: str) -> int:
            slot = current[group]
            return slot if slot is not None and self.entries[slot].state == "Waiting" else len(self.entries)

        return sorted(self.scene.dues, key=turn)

    # --- what happened since the last look

    def _refresh(self, slot: int) -> None:
        entry = self.entries[slot]
        if entry.number is None or entry.number not in self.scene.requests:
            return
        request, branch = self.scene.requests[entry.number], self.scene.branches.get(entry.branch)
        if request is not None and request.state is RequestState.MERGED:
            if entry.state != "Merged":
                self.just_merged.add(slot)
                self._set(slot, state="Merged", message=None)
        elif request is None or request.state is RequestState.CLOSED:
            if entry.state not in {"Superseded", "Closed"}:
                self._set(slot, state="Closed", message=NOT_OPENED_AGAIN)
            if branch is None:
                self._set(slot, head=None)
        elif entry.state == "Superseded":
            return  # we were ended before it was closed
        elif branch is None or self._is_empty(entry.branch, branch):
            if entry.state != "Closed":
                self._set(slot, state="Closed", message=GONE)
            if entry.head is not None:  # kept until it is closed: we may be ended before
                self.after.append(Act(Do.CLOSE, slot))
        elif not branch.ours:
            if entry.state != "Foreign":
                self.acts.append(Act(Do.COMMENT, slot, say=Say.FOREIGN))
            self._set(slot, state="Foreign", message=OTHERS)
        elif entry.state != "Open":
            self._set(slot, state="Open", message=None)

    def _is_empty(self, name: str, branch: Branch) -> bool:
        """Whether a branch was put back to its base, so that nobody's work is on it."""
        return branch.head in {self.scene.base_commit, *(e.base_commit for e in self.entries if e.branch == name)}

    # --- what is due

    def _current(self, group: str) -> int | None:
        """The newest entry of a group under the present settings."""
        branch = branch_of(self.scene.prefix, group)
        for slot in reversed(range(len(self.entries))):
            entry = self.entries[slot]
            if (entry.group, entry.branch, entry.base) == (group, branch, self.scene.base):
                return slot
        return None

    def _propose(self, due: Due, slot: int | None) -> None:
        entry = self.entries[slot] if slot is not None else None
        if slot is None or entry is None:
            self._new(due, None, None)
        elif is_live(entry):
            self._maintain(due, slot)
        elif entry.state == "Closed":
            if declines(entry, due):
                if not entry.message:
                    self._set(slot, message=NOT_OPENED_AGAIN)
            else:
                self._new(due, None, entry.number)
        elif entry.state == "Merged" and slot in self.just_merged and entry.changes == due.changes:
            # The base was read before it had them, or somebody changed them while merging: the next look will tell.
            self.again = True
            self._clear(slot, wanted=False)
        elif entry.state == "Superseded" and self._is_open(entry):
            self._set(slot, state="Open", message=None)
            self._maintain(due, slot)
        elif entry.state in {"Merged", "Superseded"}:
            self._new(due, None, None)
        else:
            self._new(due, slot, None)

    def _is_open(self, entry: PullRequestStatus) -> bool:
        request = self.scene.requests.get(entry.number or 0)
        return request is not None and request.state is RequestState.OPEN

    def _full(self) -> bool:
        return sum(map(is_live, self.entries)) + self.opening >= self.scene.max_open

    def _maintain(self, due: Due, slot: int) -> None:
        entry = self.entries[slot]
        branch = self.scene.branches.get(entry.branch)
        request = self.scene.requests.get(entry.number or 0)
        if entry.state == "Foreign" or branch is None or request is None:
            return
        known = (entry.head, entry.base_commit, entry.changes)
        stale = self.scene.renew or known != (branch.head, self.scene.base_commit, due.changes)
        if stale:
            retitle = self.scene.renew or entry.changes != due.changes
            update = Act(Do.UPDATE, slot, declined=self._declined_before(slot), retitle=retitle)
            self.acts += [Act(Do.PUSH, slot, branch.head), update]
        if not self.scene.auto_merge or request.draft:
            return
        if stale or request.head != branch.head:
            self.soon = True
        elif self.scene.merging.get(request.number) != branch.head:
            self.soon = True
            self.acts.append(Act(Do.MERGE, slot))

    def _declined_before(self, slot: int) -> int | None:
        """The request that was declined right before this one, for its text."""
        group = self.entries[slot].group
        earlier = [entry for entry in self.entries[:slot] if entry.group == group and entry.number is not None]
        return earlier[-1].number if earlier and earlier[-1].state == "Closed" else None

    def _new(self, due: Due, slot: int | None, declined: int | None) -> None:
        """Open a request, where nothing forbids it."""
        if not self.scene.opens:
            return
        name = branch_of(self.scene.prefix, due.group)
        branch = self.scene.branches.get(name)
        if (problem := self._in_the_way(name)) is not None:
            self._note(due, slot, "Pending", problem)
            return
        if name not in self.scene.found:
            if self._full():
                self._wait(due, slot)
            else:
                self.opening += 1
                self.lookups.append(name)
            return
        seen = self.scene.found[name]
        if seen is not None and seen.state is RequestState.OPEN:
            self._adopt(due, slot, seen)
            return
        if seen is not None and seen.state is RequestState.CLOSED and (changes := self._unknown(seen)):
            # The status was lost, or we were ended before it was noted; the request itself says what it brought.
            slot = self._note(due, slot, "Closed", NOT_OPENED_AGAIN, number=seen.number, url=seen.url, changes=changes)
            self._set(slot, head=branch.head if branch is not None and branch.ours else None, images=None)
            if changes == due.changes:
                self._set(slot, images=list(due.images[:MAX_IMAGES]))
                return
            slot, declined = None, seen.number
        if branch is not None and not branch.ours and not self._is_empty(name, branch):
            self._note(due, slot, "Foreign", TAKEN)
        elif self._full():
            self._wait(due, slot)
        else:
            slot = self._note(due, slot, "Pending", None)
            self.opening += 1
            for other, entry in enumerate(self.entries):
                if entry.branch == name and other != slot and entry.head is not None:
                    self._set(other, head=None)  # the branch belongs to the new one from now on
            head = branch.head if branch is not None else None
            self.acts += [Act(Do.PUSH, slot, head), Act(Do.OPEN, slot, declined=declined)]
            self.soon = self.soon or self.scene.auto_merge

    def _adopt(self, due: Due, slot: int | None, seen: Request) -> None:
        """A request that is open already: we were ended before its number was noted, or somebody opened an old one again."""
        old = next((s for s, entry in enumerate(self.entries) if entry.number == seen.number), None)
        branch = self.scene.branches.get(seen.branch)
        state = "Open" if branch is not None and branch.ours else "Foreign"
        message = None if state == "Open" else OTHERS
        slot = self._note(due, old if old is not None else slot, state, message, number=seen.number, url=seen.url)
        if state == "Foreign":
            self.acts.append(Act(Do.COMMENT, slot, say=Say.FOREIGN))
            return
        self._set(slot, head=None, changes=None, base_commit=None)
        self.scene = replace(self.scene, requests={**self.scene.requests, seen.number: seen})
        self._maintain(due, slot)

    def _unknown(self, seen: Request) -> str:
        """The checksum of the changes of a request of ours that is not remembered."""
        if any(entry.number == seen.number for entry in self.entries):
            return ""
        return self.scene.known.get(seen.number, "")

    def _wait(self, due: Due, slot: int | None) -> None:
        number = self.scene.max_open
        opened = "1 request is" if number == 1 else f"{number} requests are"
        most = f"{opened} open already, the most that spec.git.push.pullRequest.maxOpen allows"
        self._note(due, slot, "Waiting", most)

    def _in_the_way(self, name: str) -> str | None:
        """Git cannot have a branch whose name is a folder of another's."""
        for other in self.scene.branches:
            if other not in self.freed and (other.startswith(f"{name}/") or name.startswith(f"{other}/")):
                return f"branch '{other}' is in the way of '{name}': delete it, or merge or close its request"
        return None

    # --- what is over

    def _retire(self, slot: int) -> None:
        """The group of an entry has nothing due, or the settings have another place for it."""
        entry = self.entries[slot]
        here = branch_of(self.scene.prefix, entry.group) == entry.branch and entry.base == self.scene.base
        moved = self.scene.off or not here or self.scene.by_policy != bool(entry.group)
        if entry.state == "Foreign" and entry.number is not None:
            return
        if entry.state == "Open":
            say, message = Say.NOTHING_LEFT, "nothing is left to change"
            if self.scene.off:
                say, message = Say.OFF, "there are to be no pull requests any more"
            elif moved:
                say, message = Say.SUPERSEDED, "the settings ask for other requests"
            self._set(slot, state="Superseded", message=message)
            self.after += [Act(Do.COMMENT, slot, say=say), Act(Do.CLOSE, slot)]
        elif entry.number is None:
            branch = self.scene.branches.get(entry.branch)
            self._set(slot, state="Superseded", message=None, head=branch.head if branch is not None else None)
        elif entry.state == "Superseded" and self._is_open(entry):
            self.after.append(Act(Do.CLOSE, slot))
        self._clear(slot, early=moved)

    def _clear(self, slot: int, *, early: bool = False, wanted: bool = True) -> None:
        """Have the branch deleted where it is ours and nobody `wanted` it; the entry becomes history."""
        entry = self.entries[slot]
        branch = self.scene.branches.get(entry.branch)
        others = [branch_of(self.scene.prefix, group) for group in self.scene.dues] if wanted else []
        others += [other.branch for s, other in enumerate(self.entries) if s != slot and is_live(other)]
        if entry.head is None or (entry.state == "Closed" and self._is_open(entry)):
            return
        if branch is None or not branch.ours or entry.branch in others:
            self._set(slot, head=None)
        elif early and any(o.startswith(f"{entry.branch}/") or entry.branch.startswith(f"{o}/") for o in others):
            self.freed.add(entry.branch)
            self.before.append(Act(Do.DELETE, slot, branch.head))
        else:
            self.after.append(Act(Do.DELETE, slot, branch.head))

    # --- entries

    def _set(self, slot: int, **fields: object) -> None:
        self.entries[slot] = self.entries[slot].model_copy(update=fields)

    def _note(self, due: Due, slot: int | None, state: str, message: str | None, **fields: object) -> int:
        """Put an entry at `slot`, or at the end; where it is."""
        name = branch_of(self.scene.prefix, due.group)
        if slot is None:
            slot = len(self.entries)
            # Its state is set below, with the rest.
            made = {"group": due.group, "branch": name, "base": self.scene.base, "state": "Pending"}
            self.entries.append(PullRequestStatus.model_validate(made))
        if state in {"Pending", "Waiting", "Foreign"} and self.entries[slot].number is None:
            fields = {"images": list(due.images[:MAX_IMAGES]), **fields}
        self._set(slot, state=state, message=message, **fields)
        return slot
