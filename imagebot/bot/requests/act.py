"""Carries out what was decided about pull requests, one act after the other, and keeps the entries true on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from imagebot.bot.job import Job
from imagebot.bot.requests.body import Told, body_of, comment, title_of
from imagebot.bot.requests.look import Seen, read_commit
from imagebot.bot.requests.ownership import parse_commit, same_content, with_trailer
from imagebot.bot.requests.scene import MAX_IMAGES, Act, Decision, Do, Due
from imagebot.bot.requests.settings import Settings
from imagebot.bot.update import Update
from imagebot.pullrequests import PullRequestStatus
from reconcile.api import conditions as cond
from reconcile.errors import Conflict, Failed, Invalid, ReconcileError
from reconcile.git.errors import LostRace
from reconcile.git.mirror import Mirror
from reconcile.git.types import HEADS, RefUpdate
from reconcile.ports.clock import Clock
from reconcile.ports.forge import AccessRefused, Forge, Merge, RateLimited, Request, Wanted

NEXT = ".next"
"""Ends the name of the branch on which GitHub makes a commit before it is pushed to the branch of the request: resetting that one
to its base would close the request."""
MARKS = {"github": "#", "gitea": "#", "gitlab": "!"}


@dataclass(frozen=True, slots=True)
class Group:
    """What a group brings: its job, the edits on the base, what is told of them, and the message of the commit."""

    job: Job
    update: Update
    due: Due
    told: Told
    message: str


@dataclass(slots=True)
class Merging:
    """Merges that were asked for: number to head, settled or asked how often."""

    settled: dict[int, str] = field(default_factory=dict)
    tries: dict[tuple[int, str], int] = field(default_factory=dict)


@dataclass(slots=True)
class Deed:
    """What was done.

    Attributes:
        entries: as they are now.
        seen: what is there now.
        news: for the event, one line each.
        pushed: branches with their new heads and groups.
        merged: whether something was merged at once.
        failure: what went wrong first.
    """

    entries: list[PullRequestStatus]
    seen: Seen
    news: list[str] = field(default_factory=list)
    pushed: list[tuple[str, str, str]] = field(default_factory=list)
    merged: bool = False
    failure: ReconcileError | None = None


class Doer:
    """Carries out the acts of one pass."""

    def __init__(
        self,
        forge: Forge,
        mirror: Mirror,
        settings: Settings,
        groups: Mapping[str, Group],
        base_commit: str,
        *,
        automation: str,
        clock: Clock,
        fence: Callable[[], None],
        note: Callable[[list[PullRequestStatus]], Awaitable[None]],
        merging: Merging,
    ) -> None:
        """`fence` raises when nothing may be changed; `note` makes entries durable."""
        self._forge = forge
        self._mirror = mirror
        self._settings = settings
        self._groups = groups
        self._base_commit = base_commit
        self._automation = automation
        self._clock = clock
        self._fence = fence
        self._note = note
        self._merging = merging

    async def carry_out(self, decision: Decision, before: tuple[PullRequestStatus, ...], seen: Seen) -> Deed:
        """Do it; what fails for one request does not stop the others, unless the forge or a lost race stops all.

        Raises:
            LostRace: a branch was moved meanwhile: look again. Conflict: as LostRace, said by the forge.
        """
        deed = Deed(list(decision.entries), seen)
        if decision.acts:
            await self._note(deed.entries)
        failed: set[int] = set()
        for act in decision.acts:
            if act.slot in failed:
                continue
            try:
                await self._do(act, deed)
            except ReconcileError as error:
                failed.add(act.slot)
                if act.do is Do.COMMENT and act.slot < len(before):
                    # Nothing was said: what was to be said is decided again at the next look.
                    deed.entries[act.slot] = before[act.slot]
                if act.do is Do.UPDATE:
                    self._set(deed, act.slot, changes=None)  # what it says is not what it changes: the next look sees to that
                deed.failure = deed.failure or error
                if isinstance(error, LostRace | Conflict | AccessRefused | RateLimited):
                    break
        return deed

    async def _do(self, act: Act, deed: Deed) -> None:
        entry = deed.entries[act.slot]
        match act.do:
            case Do.PUSH:
                await self._push(act, deed)
            case Do.OPEN:
                await self._open(act, deed)
            case Do.UPDATE:
                request = self._request(entry, deed)
                self._fence()
                wanted = self._wanted(act, entry)
                wanted = wanted if act.retitle else replace(wanted, title=request.title)
                deed.seen = deed.seen.with_request(await self._forge.update(request, wanted))
            case Do.MERGE:
                await self._merge(act, deed)
            case Do.COMMENT:
                self._fence()
                await self._forge.comment(entry.number or 0, comment(act.say, self._automation, self._successors(deed, entry)))
            case Do.CLOSE:
                self._fence()
                await self._forge.close(entry.number or 0)
                if entry.state == "Closed":
                    self._set(deed, act.slot, head=None)
                if entry.state == "Superseded":
                    deed.news.append(f"closed pull request {self._mark(entry.number)}: {entry.message}")
            case Do.DELETE:
                self._fence()
                await self._mirror.push([RefUpdate("", HEADS + entry.branch, act.head)])
                self._set(deed, act.slot, head=None)

    # --- the branch

    async def _push(self, act: Act, deed: Deed) -> None:
        entry = deed.entries[act.slot]
        group = self._groups[entry.group]
        message = with_trailer(group.message, self._automation)
        head = (await group.job.write(self._base_commit, group.update.edits, message)).commit or self._base_commit
        if act.head is not None and await self._same(head, act.head):
            head = act.head
        else:
            if self._settings.through_api:
                head = await self._commit_there(entry.branch, group, message, act.head, deed)
            else:
                self._fence()
                await self._mirror.push([RefUpdate(head, HEADS + entry.branch, act.head)], group.job.source.options)
            deed.pushed.append((entry.branch, head, entry.group))
            if entry.number is not None:
                deed.news.append(f"updated pull request {self._mark(entry.number)}: {entry.url}\n{group.message}")
        images = list(group.due.images[:MAX_IMAGES])
        self._set(deed, act.slot, head=head, base_commit=self._base_commit, changes=group.due.changes, images=images)

    async def _same(self, built: str, present: str) -> bool:
        raw = await self._mirror.read([built])
        there = await read_commit(self._mirror, present)
        return same_content(parse_commit(raw[built]), there, through_api=self._settings.through_api)

    async def _commit_there(self, branch: str, group: Group, message: str, head: str | None, deed: Deed) -> str:
        """Have GitHub make and sign the commit on a branch beside, then move the request's branch to it."""
        beside = branch + NEXT
        left = deed.seen.head(beside)  # by a pass that was ended
        if left != self._base_commit:
            self._fence()
            await self._mirror.push([RefUpdate(self._base_commit, HEADS + beside, left)])
        files = {edit.path: edit.data for edit in group.update.edits}
        self._fence()
        made = await self._forge.commit(beside, self._base_commit, files, message)
        await self._mirror.fetch(made)
        self._fence()
        await self._mirror.push([RefUpdate(made, HEADS + branch, head), RefUpdate("", HEADS + beside, made)])
        return made

    # --- the request

    async def _open(self, act: Act, deed: Deed) -> None:
        entry = deed.entries[act.slot]
        self._fence()
        request = await self._forge.open(entry.branch, entry.base, self._wanted(act, entry))
        message = "; ".join(request.warnings)[:500] or None
        self._set(deed, act.slot, number=request.number, url=request.url, state="Open", message=message)
        deed.seen = deed.seen.with_request(request)
        await self._note(deed.entries)
        news = f"opened pull request {self._mark(request.number)}: {request.url}"
        deed.news.append(f"{news}\n{self._groups[entry.group].message}")

    async def _merge(self, act: Act, deed: Deed) -> None:
        entry = deed.entries[act.slot]
        request = self._request(entry, deed)
        self._fence()
        try:
            outcome = await self._forge.merge_when_checks_pass(request)
        except Invalid as error:
            # The forge never will for this head; people are told why.
            self._merging.settled[request.number] = request.head
            self._set(deed, act.slot, message=cond.cut(f"it cannot be merged without a person: {error}"))
            return
        if outcome is Merge.WAITING:
            tries = self._merging.tries
            tries[request.number, request.head] = tries.get((request.number, request.head), 0) + 1
            return
        self._merging.settled[request.number] = request.head
        self._merging.tries.pop((request.number, request.head), None)
        deed.merged = deed.merged or outcome is Merge.DONE

    def _wanted(self, act: Act, entry: PullRequestStatus) -> Wanted:
        spec, told = self._settings.spec, self._groups[entry.group].told
        if spec is None:
            raise Failed("PullRequestFailed", "there are to be no pull requests")
        if act.declined is not None:
            told = told.after(self._mark(act.declined))
        return Wanted(
            title_of(spec.title, told),
            body_of(spec.body, told),
            tuple(spec.labels or ()),
            tuple(spec.reviewers or ()),
            bool(spec.draft),
        )

    def _successors(self, deed: Deed, entry: PullRequestStatus) -> list[str]:
        """Addresses of the open requests that take over from one: that of its group, else all."""
        live = [e for e in deed.entries if e.state == "Open" and e.url and e.number != entry.number]
        return [e.url or "" for e in [e for e in live if e.group == entry.group] or live]

    def _request(self, entry: PullRequestStatus, deed: Deed) -> Request:
        request = deed.seen.requests.get(entry.number or 0)
        if request is None:
            raise Failed("PullRequestFailed", f"nothing is known of pull request {self._mark(entry.number)}")
        return request

    def _mark(self, number: int | None) -> str:
        return f"{MARKS[self._settings.where.provider]}{number}"

    @staticmethod
    def _set(deed: Deed, slot: int, **fields: object) -> None:
        deed.entries[slot] = deed.entries[slot].model_copy(update=fields)
