"""One pass over the pull requests of one automation: look, decide, act, report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagebot.api import ImageRef, ImageUpdateAutomation
from imagebot.bot.job import Job, brought
from imagebot.bot.requests.act import Deed, Doer, Group
from imagebot.bot.requests.body import changes_in
from imagebot.bot.requests.decide import decide
from imagebot.bot.requests.groups import groups_of
from imagebot.bot.requests.look import Seen, look
from imagebot.bot.requests.scene import Decision, Scene, bounded, branch_of, is_over
from imagebot.bot.requests.settings import Settings
from imagebot.bot.source import Source
from imagebot.bot.update import Update
from imagebot.bot.writer import Ground
from imagebot.pullrequests import PullRequestStatus
from reconcile.api import conditions as cond
from reconcile.errors import Conflict, Failed, ReconcileError
from reconcile.git.errors import LostRace
from reconcile.git.mirror import Mirror
from reconcile.git.types import HEADS, Resolved
from reconcile.ports.clock import timestamp
from reconcile.ports.events import EventType
from reconcile.ports.forge import Forge, Request, RequestState
from reconcile.runtime.bus import Pushed, trace_of
from reconcile.runtime.outcome import Success
from reconcile.runtime.run import Run

if TYPE_CHECKING:
    from imagebot.bot.requests.run import Requests

UP_TO_DATE = "repository up-to-date"
NO_CHANGE = "no change since last reconciliation"
TRIES = 5
"""Looks of one pass, when others move branches meanwhile."""
SOON = 60.0
"""Seconds to the next look while a merge is wished for."""
AGAIN = 5.0
"""Seconds to the next look after a merge that the base did not show yet."""
MAX_ASKED = 120
"""Times that a merge is asked for each minute; afterwards at each interval."""

Choices = Callable[[], Awaitable[Mapping[str, ImageRef]]]
"""Waits until choices that are under way are made, and gives those that count."""


@dataclass(frozen=True, slots=True)
class Calm:
    """What a pass left behind, when nothing was to be done any more; compared with what the next one finds."""

    settings: Settings
    refs: Mapping[str, ImageRef]
    source: tuple[str, str]
    base_commit: str | None
    heads: Mapping[str, str | None]
    requests: Mapping[int, tuple[RequestState, bool] | None]


class Pass:
    """Looks, decides and acts for one automation; `opens`: whether new requests may be opened."""

    def __init__(
        self, owner: Requests, run: Run, settings: Settings, source: Source, mirror: Mirror, forge: Forge, *, opens: bool
    ) -> None:
        self.owner = owner
        self.run = run
        self.settings = settings
        self.source = source
        self.mirror = mirror
        self.forge = forge
        self.opens = opens
        self.resource: ImageUpdateAutomation = run.resource
        self.key = self.resource.key
        self.automation = str(self.key)
        self.before = tuple(self.resource.status.pull_requests or ())
        self.news: list[str] = []
        self.renew = run.new_generation or run.requested

    async def go(self, refs: Mapping[str, ImageRef], choices: Choices) -> Success:
        """Look and act until nobody is in between."""
        for attempt in range(TRIES):
            seen = await look(self.mirror, self.forge, self._entries())
            self._drop_strangers(seen)
            if attempt == 0 and self._is_calm(seen, refs):
                return Success(UP_TO_DATE, after=self.resource.spec.interval, quiet=True, trace=NO_CHANGE)
            self.owner.calm.pop(self.key, None)
            refs = await choices()
            try:
                return await self._act(seen, refs)
            except (LostRace, Conflict) as error:
                lost: ReconcileError = error
        raise lost

    def _entries(self) -> tuple[PullRequestStatus, ...]:
        return tuple(self.run.status.pull_requests or ())

    def _drop_strangers(self, seen: Seen) -> None:
        """Forget numbers that are those of other requests: the repository or the forge is another one now."""
        kept = []
        for entry in self._entries():
            request = seen.requests.get(entry.number or 0)
            if request is None or request.branch == entry.branch:
                kept.append(entry)
        if len(kept) != len(self._entries()):
            self._set_entries(kept)

    # --- nothing to do

    def _is_calm(self, seen: Seen, refs: Mapping[str, ImageRef]) -> bool:
        ready = cond.get(self.resource.status.conditions, cond.READY)
        if self.renew or ready is None or ready.status != "True":
            return False
        return self.owner.calm.get(self.key) == self._calm(seen, refs)

    def _calm(self, seen: Seen, refs: Mapping[str, ImageRef]) -> Calm:
        branches = {entry.branch for entry in self._entries()}
        requests = {
            number: (request.state, request.draft) if request is not None else None for number, request in seen.requests.items()
        }
        git = self.source
        shape = (f"{git.url} {git.push_branch} {git.options}", git.credentials.digest())
        heads = {branch: seen.head(branch) for branch in branches}
        return Calm(self.settings, dict(refs), shape, seen.head(self.settings.base), heads, requests)

    # --- what is due

    async def _act(self, seen: Seen, refs: Mapping[str, ImageRef]) -> Success:
        base = seen.head(self.settings.base) if self.settings.base else None
        if base is None and self.settings.spec is not None:
            missing = f"the branch '{self.settings.base}' to merge into does not exist in '{self.mirror.url}'"
            raise Failed("GitOperationFailed", f"failed to checkout source: {missing}")
        job, whole, groups = await self._due(base or "", refs)
        refs = job.refs if job is not None else refs
        held = await self.owner.hold(self.run, job) if job is not None and self._news(groups) else None
        if held is None and job is not None and self.opens:  # else the push that follows says what waits
            self.owner.release(self.run)
        decision, seen = await self._decide(seen, base or "", groups, waits=held is not None)
        self._tell_of_merges(seen, decision)
        doer = Doer(
            self.forge,
            self.mirror,
            self.settings,
            groups,
            base or "",
            automation=self.automation,
            clock=self.owner.clock,
            fence=self.owner.fence,
            note=self._note,
            merging=self.owner.merging(self.key),
        )
        deed = await doer.carry_out(decision, self._entries(), seen)
        self._set_entries(deed.entries, tidy=True)
        self.news += deed.news
        self._tell_of_pushes(deed, groups)
        if deed.failure is not None:
            if self.news and not isinstance(deed.failure, LostRace | Conflict):
                self.run.tell(EventType.NORMAL, cond.SUCCEEDED, "\n".join(self.news))
            raise deed.failure
        if held is not None:
            told = "\n".join(self.news)
            return replace(held, event=told, changed=True) if told else held
        return self._report(base or "", refs, whole, decision, deed)

    def _news(self, groups: Mapping[str, Group]) -> bool:
        """Whether something is due that no request is about, open or declined."""
        known = {(entry.group, entry.changes) for entry in self._entries()}
        return self.opens and any((name, group.due.changes) not in known for name, group in groups.items())

    async def _due(self, base: str, refs: Mapping[str, ImageRef]) -> tuple[Job | None, Update | None, dict[str, Group]]:
        """What is due on the base, in all and by group."""
        if self.settings.spec is None:
            return None, None, {}
        resolved = Resolved(base, HEADS + self.settings.base)
        await self.mirror.fetch(resolved)
        ground = Ground(resolved, None, base)
        # What is checked out is the base, whatever else the spec names.
        source = replace(self.source, reference=replace(self.source.reference, commit=""))
        job = self.owner.job(self.resource.with_status(self.run.status), refs, source, self.mirror)
        whole = await job.update(ground)
        for news in job.news:
            self.run.tell(*news)
        job.news.clear()
        rules = await self.owner.rules(self.key.namespace) if whole.edits else {}
        return job, whole, await groups_of(job, ground, rules, by_policy=self.settings.by_policy)

    async def _decide(self, seen: Seen, base: str, groups: Mapping[str, Group], *, waits: bool) -> tuple[Decision, Seen]:
        """Decide, and look up what has to be known for it."""
        spec, git = self.settings.spec, self.resource.spec.git
        merging = self.owner.merging(self.key)
        branches = await self.owner.owners.branches(
            self.mirror,
            seen,
            self._entries(),
            [branch_of(self.settings.prefix, group) for group in groups],
            automation=self.automation,
            email=git.commit.author.email if git is not None else "",
            through_api=self.settings.through_api,
        )
        scene = Scene(
            base=self.settings.base,
            base_commit=base,
            prefix=self.settings.prefix,
            by_policy=self.settings.by_policy,
            dues={name: group.due for name, group in groups.items()},
            entries=self._entries(),
            branches=branches,
            requests=seen.requests,
            max_open=self.settings.max_open,
            auto_merge=spec is not None and spec.auto_merge == "WhenChecksPass",
            merging=merging.settled,
            renew=self.renew,
            off=spec is None,
            opens=self.opens,
            waits=waits,
        )
        decision = decide(scene)
        while decision.lookups:
            found: dict[str, Request | None] = {}
            for branch in decision.lookups:
                found[branch] = request = await self.forge.find(branch, self.settings.base)
                if request is not None and request.state is RequestState.OPEN:
                    seen = seen.with_request(request)
            known = {r.number: changes for r in found.values() if r and (changes := changes_in(r.body, self.automation))}
            scene = replace(scene, found={**scene.found, **found}, known={**scene.known, **known})
            decision = decide(scene)
        return decision, seen

    # --- what is remembered and told

    async def _note(self, entries: list[PullRequestStatus]) -> None:
        """Make entries durable, before something is done that a restart must not forget."""
        shown = self._entries()
        self._set_entries(entries)
        if self._entries() != shown:
            await self.run.save()

    def _set_entries(self, entries: list[PullRequestStatus], *, tidy: bool = False) -> None:
        if tidy:  # what never was opened and has nothing to be cleared away is no history
            entries = [e for e in entries if e.number is not None or e.state != "Superseded" or e.head is not None]
        old = {(e.group, e.branch, e.base, e.number): e for e in self.before}
        now = timestamp(self.owner.clock.now())
        stamped = []
        for entry in entries:
            known = old.get((entry.group, entry.branch, entry.base, entry.number))
            same = known is not None and known.model_copy(update={"updated": None}) == entry.model_copy(update={"updated": None})
            stamped.append(entry.model_copy(update={"updated": known.updated if same and known else now}))
        left = any(not is_over(entry) for entry in stamped)
        kept = bounded(stamped) if tidy else tuple(stamped)
        self.run.set(pull_requests=list(kept) or None, observed_forge=self.settings.where if left else None)

    def _tell_of_merges(self, seen: Seen, decision: Decision) -> None:
        """What was merged came to the base by us: who follows the base wants to know of it, and which images it brought."""
        open_before = {entry.number for entry in self._entries() if entry.state not in {"Merged", "Superseded"}}
        for entry in decision.entries:
            request = seen.requests.get(entry.number or 0)
            if entry.state != "Merged" or entry.number not in open_before or request is None:
                continue
            self.news.append(f"merged: {entry.url}")
            images = [image.partition(": ")[2].partition("@")[0].rpartition(":") for image in entry.images or []]
            if request.merge_commit:
                traces = tuple(sorted(trace_of(name, tag) for name, _, tag in images))
                self.owner.bus.pushed(Pushed(self.mirror.url, entry.base, request.merge_commit, traces))

    def _tell_of_pushes(self, deed: Deed, groups: Mapping[str, Group]) -> None:
        for branch, head, name in deed.pushed:
            group = groups[name]
            traces = tuple(sorted(trace_of(ref.name, ref.tag) for ref in brought(group.job.refs, group.update)))
            self.owner.bus.pushed(Pushed(self.mirror.url, branch, head, traces, head))
            self.run.set(last_push_commit=head, last_push_time=timestamp(self.owner.clock.now()))

    def _report(self, base: str, refs: Mapping[str, ImageRef], whole: Update | None, decision: Decision, deed: Deed) -> Success:
        if whole is not None and self.opens:  # else a push follows, which says what was observed
            revision = f"{self.settings.base}@sha1:{base}"
            self.run.set(
                observed_policies=dict(refs) or None, observed_source_revision=revision, skipped=list(whole.skipped) or None
            )
        interval = float(self.resource.spec.interval)
        after = interval
        if decision.again or deed.merged:
            after = min(interval, AGAIN)
        elif decision.soon and max(self.owner.merging(self.key).tries.values(), default=0) < MAX_ASKED:
            after = min(interval, SOON)
        elif not decision.acts:
            self.owner.calm[self.key] = self._calm(deed.seen, refs)
        event = "\n".join(self.news) or None
        return Success(
            UP_TO_DATE, after=after, event=event, quiet=True, trace="" if event else UP_TO_DATE, changed=event is not None
        )
