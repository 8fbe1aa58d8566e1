"""What people set back in Git after we had written it stays so: an ImageHold rejects the image until it is ended.

What we wrote is known from the status of the automation: the choices that it had brought, and the commit in which it saw them in
order. Where the status is lost, commits with our trailers say it. History is asked only when something was set back, for who
did it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from imagebot.api import ImagePolicy, ImageRef, ImageUpdateAutomation
from imagebot.bot.reverts_blame import Blame, who_set_back, written_by_us
from imagebot.bot.reverts_hold import hold_name, in_force, is_ours, reverted, set_by_hand
from imagebot.bot.reverts_seen import Hand, gone_back_to, hands, is_revert, same_tag, setters_of, spots, takes_back
from imagebot.bot.source import Source
from imagebot.bot.update import MarkerMemory, Update, markers_below, setter_values
from imagebot.bot.writer import Ground
from imagebot.holds import ImageHold
from imagebot.markers.find import FileMarkers
from imagebot.policy.base import InvalidFilter, InvalidPolicy
from imagebot.policy.choose import Policy
from imagebot.policy.floor import Floor, ranks_before
from imagebot.policy.holding import holds_for
from imagebot.policy.rules import policy_of
from imagebot.policy.situation import rejection
from reconcile.api.meta import Key
from reconcile.api.resource import dump
from reconcile.api.selectors import compile_selector
from reconcile.errors import Conflict, Failed, Invalid, NotFound, ReconcileError
from reconcile.git.errors import ReferenceNotFound
from reconcile.git.mirror import Mirror
from reconcile.ports.clock import Clock
from reconcile.ports.events import EventType
from reconcile.ports.store import Store

REVERTED, ENDED, HOLD_FAILED = "Reverted", "RevertEnded", "RevertHoldFailed"
"""Reasons of the events, and of the failure to hold."""
MAX_TRIES = 5
"""Times that a hold is written while somebody else writes it too."""

Tell = Callable[[EventType, str, str], None]
Files = Sequence[tuple[str, FileMarkers]]


@dataclass(frozen=True, slots=True)
class Scene:
    """What a pass is about to do.

    Attributes:
        resource: the automation, with its status as it was read.
        refs: the policies that count, with their choices.
        source: where it reads and writes.
        mirror: of the repository.
        ground: what it would write on.
        update: what it would write.
        before: where it found everything in order last, as far as that is remembered.
        tell: takes events; None: this is a rehearsal, in which nothing is written.
    """

    resource: ImageUpdateAutomation
    refs: Mapping[str, ImageRef]
    source: Source
    mirror: Mirror
    ground: Ground
    update: Update
    before: Ground | None = None
    tell: Tell | None = None

    @property
    def due(self) -> frozenset[str]:
        """The policies whose markers would be written."""
        setters = (change.setter.split(":") for change in self.update.changed.changes())
        return frozenset(parts[1] for parts in setters if len(parts) > 1)

    @property
    def history(self) -> str:
        """The commit whose history says who did what: that of the remote, not one of ours on top."""
        ground = self.ground
        return ground.base if ground.base == ground.checkout.commit else ground.push_head or ground.checkout.commit


@dataclass(slots=True)
class _Work:
    """What is found out about a scene in the course of it: policies with their holds, and markers by commit."""

    scene: Scene
    policies: Mapping[str, ImagePolicy]
    holds: Mapping[str, ImageHold]
    files: dict[str, Files] = field(default_factory=dict)


class Reverts:
    """Notices what was set back and holds it; one for all automations."""

    def __init__(self, store: Store, memory: MarkerMemory, clock: Clock) -> None:
        self._store = store
        self._memory = memory
        self._clock = clock

    async def allowed(self, policies: Sequence[ImagePolicy]) -> dict[str, ImageRef]:
        """The choices that may be written, by policy: a hold counts from when it is made, not from when the policy notices."""
        found: dict[str, ImageRef] = {}
        holds: dict[str, Sequence[ImageHold]] = {}
        for policy in policies:
            ref, namespace = policy.status.latest_ref, policy.key.namespace
            if ref is None:
                continue
            if namespace not in holds:
                holds[namespace] = await self._store.list("ImageHold", namespace)
            if not holds[namespace] or self._may_be_written(policy, ref, holds[namespace]):
                found[policy.key.name] = ref
        return found

    def _may_be_written(self, policy: ImagePolicy, ref: ImageRef, holds: Sequence[ImageHold]) -> bool:
        now = self._clock.now()
        concerned = [hold for hold in holds_for(holds, policy, ref.name) if hold.in_force(now)]
        if rejection(concerned, ref.tag, ref.digest, now) is not None:
            return False
        if any(hold.mode == "Pin" for hold in concerned) or all(hold.fallback is None for hold in concerned):
            return True
        try:
            return Floor(policy_of(policy.spec), concerned).against(ref.tag) is None
        except (InvalidPolicy, InvalidFilter):
            return True

    async def left_to_people(self, scene: Scene) -> Mapping[str, str]:
        """The policies of which nothing may be written in this pass, since somebody set their markers; with the reason.

        What was set back is held from then on.

        Raises:
            Failed: `RevertHoldFailed`, something was set back and cannot be held; nothing may be written over it.
            GitError: The repository cannot be read.
        """
        if scene.resource.spec.update.on_revert == "Overwrite":
            return {}
        work = await self._look(scene)
        lost = _status_is_lost(scene)
        known = [name for name in sorted(work.policies) if name in work.holds or _is_suspect(scene, name)]
        suspects = [name for name in sorted(work.policies) if name in scene.due] if lost else known
        found: dict[str, str] = {}
        for name, before in (await self._before(work, suspects, lost=lost)).items() if suspects else ():
            setters = setters_of(scene.resource.key.namespace, name)
            now = await self._files(work, scene.ground.base)
            seen = hands(spots(await self._files(work, before), setters), spots(now, setters))
            said = await self._judge(work, name, seen, lost=lost) if seen else None
            if said is not None:
                found[name] = said
        return found

    # --- what there is

    async def _look(self, scene: Scene) -> _Work:
        namespace = scene.resource.key.namespace
        selected = compile_selector(scene.resource.spec.policy_selector)
        policies = {p.key.name: p for p in await self._store.list("ImagePolicy", namespace) if selected(p.meta.labels)}
        now = self._clock.now()
        held = {
            hold.spec.image_ref.policy: hold
            for hold in await self._store.list("ImageHold", namespace)
            if is_ours(hold) and in_force(hold, now) and hold.spec.image_ref.policy in policies
        }
        return _Work(scene, policies, held)

    async def _before(self, work: _Work, suspects: Sequence[str], *, lost: bool) -> Mapping[str, str]:
        """The commit in which each suspect was in order last; none where that is not known or nothing has changed since."""
        scene = work.scene
        if not lost:
            commit = seen_at(scene)
            if commit is None or commit == scene.ground.base:
                return {}
            try:
                await scene.mirror.fetch(commit)
            except ReferenceNotFound:
                lost = True  # history was written anew, and nobody keeps the old one
            else:
                return dict.fromkeys(suspects, commit)
        git, namespace = scene.resource.spec.git, scene.resource.key.namespace
        if git is None or not git.commit.trailers:
            return {}
        wanted = {(namespace, name): str(scene.refs[name]) for name in suspects if name in scene.refs and name in scene.due}
        found = await written_by_us(scene.mirror, scene.history, wanted) if wanted else {}
        return {name: commit for (_, name), commit in found.items()}

    async def _files(self, work: _Work, commit: str) -> Files:
        if commit not in work.files:
            scene = work.scene
            entries = await markers_below(scene.mirror, commit, scene.resource.spec.update.path, self._memory)
            work.files[commit] = [(entry.path, found) for entry, found in entries if isinstance(found, FileMarkers)]
        return work.files[commit]

    # --- what it means

    async def _judge(self, work: _Work, name: str, seen: Sequence[Hand], *, lost: bool) -> str | None:
        """Hold what was taken back, or let go of what was set again; why the markers are left alone, None if they are not."""
        scene, policy = work.scene, work.policies[name]
        ref, held = scene.refs.get(name), work.holds.get(name)
        try:
            rule = policy_of(policy.spec)
            if ref is not None and (lost or _is_suspect(scene, name)):
                values = setter_values(policy.key.namespace, {name: ref})
                back = [hand for hand in seen if takes_back(hand, ref, values)]
                if back and is_revert(back, rule, ref):
                    return await self._hold(work, policy.key, ref, back)
            image = ref or policy.status.latest_ref or policy.status.observed_previous_ref
            if held is not None and _set_meanwhile(held, rule, ref, seen, image):
                return await self._follow(work, held, seen, image)
        except (InvalidPolicy, InvalidFilter):
            return None  # the policy says so; without a rule nothing ranks
        return None

    async def _hold(self, work: _Work, policy: Key, ours: ImageRef, back: Sequence[Hand]) -> str:
        scene = work.scene
        fallback, digest_only = gone_back_to(back, ours.name), same_tag(back, ours)
        blame = await who_set_back(scene.mirror, scene.history, back[0], self._memory)
        reason = blame.reason(back[0].spot.path)
        if scene.tell is None:
            return reason
        key = Key(policy.namespace, hold_name(policy.name))

        def changed(held: ImageHold | None) -> ImageHold:
            if held is not None and not in_force(held, self._clock.now()):
                ended = held.spec.model_copy(update={"tags": None, "digests": None, "expires_at": None})
                held = replace(held, spec=ended)
            return reverted(held, policy, ours, fallback, reason, digest_only=digest_only)

        what = f"ImagePolicy {policy}: {ours} was set back in Git"
        await self._write(key, changed, f"{what}: {reason}")
        scene.tell(EventType.WARNING, REVERTED, _story(what, ours, fallback, digest_only, blame, back[0], key))
        return reason

    async def _follow(self, work: _Work, held: ImageHold, seen: Sequence[Hand], image: ImageRef | None) -> str:
        scene = work.scene
        tag = gone_back_to(seen, image.name if image is not None else None)
        digests = [hand.digest for hand in seen if hand.digest]
        said = f"{tag or 'another value'} was set in Git"
        if scene.tell is None:
            return said
        left: list[ImageHold | None] = []

        def changed(current: ImageHold | None) -> ImageHold | None:
            left[:] = [set_by_hand(current, tag, digests) if current is not None else None]
            return left[0]

        await self._write(held.key, changed, f"ImagePolicy {held.key.namespace}/{held.spec.image_ref.policy}: {said}")
        what = f"ImageHold {held.key} is deleted" if left == [None] else f"ImageHold {held.key} holds {tag or 'it'} from now on"
        scene.tell(EventType.NORMAL, ENDED if left == [None] else REVERTED, f"{said} at {seen[0].spot.path}: {what}")
        return said

    async def _write(self, key: Key, change: Callable[[ImageHold | None], ImageHold | None], what: str) -> None:
        """Make, change or delete a hold; raises Failed `RevertHoldFailed`."""
        trouble = "somebody else changes it all the time"
        for _ in range(MAX_TRIES):
            try:
                await self._try(key, change)
                return
            except Conflict as error:
                trouble = str(error)
            except ReconcileError as error:
                trouble = str(error)
                break
        raise Failed(
            HOLD_FAILED,
            f"{what}; the ImageHold {key} that has to keep it so cannot be written, and nothing is written over it until then: "
            f"{trouble}; to have such values overwritten, set spec.update.onRevert to Overwrite",
        )

    async def _try(self, key: Key, change: Callable[[ImageHold | None], ImageHold | None]) -> None:
        try:
            held: ImageHold | None = await self._store.get("ImageHold", key)
        except NotFound:
            held = None
        if held is not None and not is_ours(held):
            raise Invalid("one of this name was made by somebody else, give that another name")
        new = change(held)
        if held is not None and new is not None and _says_the_same(held, new):
            return
        if held is None and new is not None:
            await self._store.create(new)
        elif held is not None and new is None:
            await self._store.delete(held)
        elif new is not None and held is not None:
            await self._store.update(new)


def seen_at(scene: Scene) -> str | None:
    """The commit in which the automation found everything in order last, on the branch that it writes on now."""
    status, ground, source = scene.resource.status, scene.ground, scene.source
    revision = status.observed_source_revision or ""
    branch, _, commit = revision.rpartition("@sha1:")
    if source.same_branch:
        return commit if branch == source.push_branch else None
    if ground.push_head is None or ground.base == ground.checkout.commit:
        return commit if branch and branch == ground.checkout.short else None
    if scene.before is not None:
        return scene.before.push_head
    known = status.observed_generation == scene.resource.meta.generation
    return status.last_push_commit if known else None


def _status_is_lost(scene: Scene) -> bool:
    status = scene.resource.status
    return status.observed_source_revision is None and status.last_push_commit is None


def _is_suspect(scene: Scene, name: str) -> bool:
    """Whether a choice that was brought already would be written again."""
    ref = scene.refs.get(name)
    return ref is not None and name in scene.due and (scene.resource.status.observed_policies or {}).get(name) == ref


def _set_meanwhile(held: ImageHold, rule: Policy, ref: ImageRef | None, seen: Sequence[Hand], image: ImageRef | None) -> bool:
    """Whether somebody set markers of a policy that is held to something that is to stay: not what is chosen anyway, not what
    was gone back to, and nothing that ranks before all that is rejected."""
    tag = gone_back_to(seen, image.name if image is not None else None)
    if set(held.spec.digests or ()) & {hand.digest for hand in seen}:
        return True
    if tag == held.spec.fallback or (ref is not None and tag == ref.tag):
        return False
    rejected = held.spec.tags or ()
    tags = [hand.tag for hand in seen if hand.part != "digest"]
    newer = [hand for hand in tags if hand is not None and all(ranks_before(rule, hand, other) for other in rejected)]
    return len(newer) < len(tags)


def _says_the_same(one: ImageHold, other: ImageHold) -> bool:
    specs = [hold.spec.model_copy(update={"reason": None}) for hold in (one, other)]
    return dump(specs[0]) == dump(specs[1]) and one.meta.annotations == other.meta.annotations


def _story(what: str, ours: ImageRef, fallback: str, digest_only: bool, blame: Blame, hand: Hand, key: Key) -> str:
    to = f" to {hand.value}" if digest_only or not fallback else f" to {fallback}"
    again = ours.digest if digest_only else ours.tag
    return (
        f"{what}{to}: {blame.reason(hand.spot.path)}; it is rejected by ImageHold {key} until a newer image comes; to end that "
        f"before, delete the ImageHold, or set the marker to {again} again"
    )
