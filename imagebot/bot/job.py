"""One automation's contribution to a branch, in steps: which edits are due on a ground, what is said of them, the commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from imagebot.api import DEFAULT_MESSAGE, ImageRef, ImageUpdateAutomation
from imagebot.bot.message import MessageError, RemovedField, render_message
from imagebot.bot.source import Source
from imagebot.bot.trailers import with_trailers
from imagebot.bot.update import MarkerMemory, Update, plan, setter_values
from imagebot.bot.writer import Built, Ground
from imagebot.markers.changes import Changed
from reconcile.errors import Failed, Stalled
from reconcile.git.mirror import Mirror
from reconcile.git.types import Author, Edit
from reconcile.ports.clock import Clock
from reconcile.ports.events import EventType

People = Callable[["Job", Ground], Awaitable[Mapping[str, str]]]
"""The policies, with the reason, of which nothing may be written that a job has just found to be due."""


class Job:
    """What an automation wants on a branch; each step may be taken again on other ground after a lost race.

    Attributes:
        resource: the automation.
        refs: the policies that count, with their choices, by name.
        source: where it reads and writes.
        mirror: of the repository.
        latest: what `update` found last.
        contested: whether others had their way with a part of it, in a commit that they share.
        kept: policies that `update` left to people, who set their markers, with the reason; they are not among `refs` then.
        news: what people should be told of it: type, reason and message of events.
    """

    def __init__(
        self,
        resource: ImageUpdateAutomation,
        refs: Mapping[str, ImageRef],
        source: Source,
        mirror: Mirror,
        memory: MarkerMemory,
        clock: Clock,
        people: People | None = None,
    ) -> None:
        """`people` says which policies are left to people."""
        self.resource = resource
        self.refs = refs
        self.source = source
        self.mirror = mirror
        self.latest = Update((), Changed(), ())
        self.contested = False
        self.kept: Mapping[str, str] = {}
        self.news: list[tuple[EventType, str, str]] = []
        self._wanted = refs
        self._people = people
        self._memory = memory
        self._clock = clock

    async def build(self, ground: Ground) -> Built:
        """Find what is due on a ground and commit it; raises Stalled and Failed with upstream's reasons, and GitError."""
        return await self.commit(ground, await self.update(ground))

    async def update(self, ground: Ground) -> Update:
        """The edits that are due on a ground; writes nothing; raises as `build`."""
        if self.source.reference.commit and ground.base != ground.checkout.commit:
            await self.mirror.fetch(ground.checkout)  # a commit is taken at its word until somebody looks
        self.refs = self._wanted
        self.latest = await self._plan(ground)
        self.kept = await self._people(self, ground) if self._people is not None else {}
        if self.kept:
            self.refs = {name: ref for name, ref in self._wanted.items() if name not in self.kept}
            found = await self._plan(ground)
            skipped = tuple(marker for marker in found.skipped if policy_of(marker.marker or "") not in self.kept)
            self.latest = replace(found, skipped=skipped)
        return self.latest

    def alone(self, policy: str) -> Job:
        """The job for one of the policies that count, whatever people did: `update` has asked before."""
        return Job(self.resource, {policy: self.refs[policy]}, self.source, self.mirror, self._memory, self._clock)

    async def _plan(self, ground: Ground) -> Update:
        values = setter_values(self.resource.key.namespace, self.refs)
        return await plan(self.mirror, ground.base, self.resource.spec.update.path, values, self._memory)

    def tell(self, kind: EventType, reason: str, message: str) -> None:
        """Have people told, once, however often a step is taken."""
        if (kind, reason, message) not in self.news:
            self.news.append((kind, reason, message))

    async def commit(self, ground: Ground, update: Update) -> Built:
        """A commit of an update on top of its ground, pushed nowhere; none where nothing is due; raises as `build`."""
        if not update.edits or self.resource.spec.git is None:
            return Built(None)
        refs = {(self.resource.key.namespace, name): str(ref) for name, ref in self.refs.items()}
        return await self.write(ground.base, update.edits, self.message(update.changed, refs))

    async def write(self, base: str, edits: Sequence[Edit], message: str) -> Built:
        """A commit of edits as this automation signs them; raises as `build`."""
        git = self.resource.spec.git
        assert git is not None  # noqa: S101 - `Sources.find` refuses it
        author = Author(git.commit.author.name or "", git.commit.author.email)
        oid = await self.mirror.write_commit(base, edits, message, author, self._clock.now(), self.source.signer)
        return Built(oid, message) if oid != base else Built(None)

    def message(self, changed: Changed, refs: Mapping[tuple[str, str], str]) -> str:
        """What a commit of these changes says; raises Stalled `RemovedTemplateField` and Failed `GitOperationFailed`.

        Args:
            changed: what is committed.
            refs: namespace and name of policies, and their choices.
        """
        git, key = self.resource.spec.git, self.resource.key
        assert git is not None  # noqa: S101 - `Sources.find` refuses it
        template, given = git.commit.message_template or DEFAULT_MESSAGE, git.commit.message_template_values or {}
        full = {f"{namespace}:{name}": ref for (namespace, name), ref in refs.items()}
        try:
            text = render_message(template, given, key.namespace, key.name, changed, refs=full)
            return with_trailers(text, named(changed, refs)) if git.commit.trailers else text
        except RemovedField as error:
            raise Stalled("RemovedTemplateField", str(error)) from error
        except (MessageError, ValueError) as error:
            raise Failed("GitOperationFailed", f"failed to update source: {error}") from error


def brought(refs: Mapping[str, ImageRef], update: Update) -> Iterable[ImageRef]:
    """The images whose policies changed something."""
    names = {change.setter.split(":")[1] for change in update.changed.changes() if ":" in change.setter}
    return [ref for name, ref in refs.items() if name in names]


def policy_of(setter: str) -> str:
    """The policy that a setter names."""
    return setter.partition(":")[2].partition(":")[0]


def named(changed: Changed, refs: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """Of `refs` those whose policies changed something."""
    parts = (change.setter.split(":") for change in changed.changes() if ":" in change.setter)
    policies = {(part[0], part[1]) for part in parts}
    return {policy: ref for policy, ref in refs.items() if policy in policies}
