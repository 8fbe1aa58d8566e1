"""One automation's contribution to a branch, in steps: which edits are due on a ground, what is said of them, the commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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


class Job:
    """What an automation wants on a branch; each step may be taken again on other ground after a lost race.

    Attributes:
        resource: the automation.
        refs: the policies that count, with their choices, by name.
        source: where it reads and writes.
        mirror: of the repository.
        latest: what `update` found last.
        contested: whether others had their way with a part of it, in a commit that they share.
    """

    def __init__(
        self,
        resource: ImageUpdateAutomation,
        refs: Mapping[str, ImageRef],
        source: Source,
        mirror: Mirror,
        memory: MarkerMemory,
        clock: Clock,
    ) -> None:
        self.resource = resource
        self.refs = refs
        self.source = source
        self.mirror = mirror
        self.latest = Update((), Changed(), ())
        self.contested = False
        self._memory = memory
        self._clock = clock

    async def build(self, ground: Ground) -> Built:
        """Find what is due on a ground and commit it; raises Stalled and Failed with upstream's reasons, and GitError."""
        return await self.commit(ground, await self.update(ground))

    async def update(self, ground: Ground) -> Update:
        """The edits that are due on a ground; writes nothing; raises as `build`."""
        if self.source.reference.commit and ground.base != ground.checkout.commit:
            await self.mirror.fetch(ground.checkout)  # a commit is taken at its word until somebody looks
        values = setter_values(self.resource.key.namespace, self.refs)
        self.latest = await plan(self.mirror, ground.base, self.resource.spec.update.path, values, self._memory)
        return self.latest

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


def named(changed: Changed, refs: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """Of `refs` those whose policies changed something."""
    parts = (change.setter.split(":") for change in changed.changes() if ":" in change.setter)
    policies = {(part[0], part[1]) for part in parts}
    return {policy: ref for policy, ref in refs.items() if policy in policies}
