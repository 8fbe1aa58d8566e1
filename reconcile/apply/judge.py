"""Judges one object of a set: whether it has to be written, by what is remembered, a look at it, and a dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconcile.apply import drift, fields
from reconcile.apply.changeset import Action, Drift, dry_run_failure, namespace_missing
from reconcile.apply.drift import Ignored
from reconcile.apply.memory import Known, Remembered
from reconcile.apply.owner import Marks, Owner
from reconcile.apply.prepare import undeclared
from reconcile.errors import Conflict, Invalid, NotFound, ReconcileError
from reconcile.ports.clock import Clock
from reconcile.ports.cluster import Cluster, ClusterError, Object, Reference, UnknownKind
from reconcile.ports.stamps import Mark, Sight, Stamps, digest
from reconcile.runtime.logs import get_logger

log = get_logger("apply")

UNSERVED_WAIT, UNSERVED_TRIES = 0.5, 20
"""Seconds between two looks for a kind whose definition was just applied, and how many."""
STATE_TRIES = 3
"""How often an object is looked at again that others change between a look and the dry run."""
UNDECLARED_TRIES = 8
"""How often fields are left out that the API server does not know: it does not name all of them at once."""
IMMUTABLE = ("is immutable", "immutable field", "may not change once set", "cannot change ")
"""Texts by which API servers refuse the change of a field that can only be set at creation."""
INVALID = " is invalid: "
"""In every refusal by the rules of a kind itself; policies and webhooks say something else."""
PROBE = "-applied-anew"
"""Ends the name under which it is tried whether an object could be made anew."""
MAX_PROBE = 50
"""Characters of such a name: within the limit of every kind."""


class Refusal(ReconcileError):
    """One object cannot be applied; the text names it.

    Attributes:
        hopeless: The API server does not answer: there is no use in asking about further objects.
    """

    def __init__(self, text: str, *, hopeless: bool = False) -> None:
        super().__init__(text)
        self.hopeless = hopeless


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with an object."""

    reference: Reference
    desired: Object
    """As it was given, without a namespace where its kind has none."""
    payload: Object
    """What to apply."""
    digest: str
    """Of what is wanted; see `Known.payload`."""
    action: Action
    live: Object | None = None
    mark: Mark | None = None
    """How the live object looks, where that is known without a look at it."""
    clean_up: Sequence[Object] = ()
    """The JSON patch to carry out before."""
    recreate: bool = False
    """Whether the live object has to be deleted before."""
    drift: tuple[Drift, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether anything is to be written."""
        return self.action in {Action.CREATED, Action.CONFIGURED}


@dataclass(frozen=True)
class Terms:
    """What holds for all objects of one apply."""

    owner: Owner
    manager: str
    override: tuple[str, ...] = ()
    """Other managers that are taken over."""
    force: bool = False
    """Objects may be deleted and made anew where a field cannot be changed."""
    ignored: Ignored = field(default_factory=Ignored)
    thorough: bool = False
    """Nothing that is remembered counts."""
    migrate: bool = False
    """Give managedFields that are of another API version that of the object, before anything else."""

    @property
    def marks(self) -> Marks:
        """The words by which objects opt out."""
        return Marks(self.owner.prefix)


class Judge:
    """Judges objects of one apply.

    Args:
        cluster: Where they are.
        clock: Time.
        terms: What holds for all.
        known: How they were left last.
        stamps: How they look now, where that is known; None: they are asked for one by one.
        defined: API groups of which definitions were applied just now, so that their kinds may not be served yet.
    """

    def __init__(
        self, cluster: Cluster, clock: Clock, terms: Terms, known: Remembered, stamps: Stamps | None, defined: frozenset[str]
    ) -> None:
        self._cluster, self._clock, self._terms = cluster, clock, terms
        self._known, self._stamps, self._defined = known, stamps, defined
        self._unserved: set[tuple[str, str]] = set()

    async def judge(self, given: Object) -> Plan:
        """What is to be done with an object; raises Refusal."""
        try:
            desired = await self._placed(given)
        except ReconcileError as error:
            if isinstance(error, Refusal):
                raise
            raise _refusal(Reference.of(given), error) from error
        terms, reference = self._terms, Reference.of(desired)
        ignored = terms.ignored.paths(desired)
        wanted = digest([desired, sorted(ignored), terms.force, terms.manager, terms.override])
        plan = Plan(reference, desired, desired, wanted, Action.UNCHANGED)
        seen = self._stamps.seen(reference) if self._stamps is not None else Sight.UNKNOWN
        if terms.marks.left_alone(desired):
            return replace(plan, action=Action.SKIPPED, mark=seen if isinstance(seen, Mark) else None)
        known = None if terms.thorough else self._known.get(reference)
        same = known is not None and known.payload == wanted and known.mark is not None
        if known is not None and same and seen == known.mark:
            return replace(plan, action=known.action, mark=known.mark)
        ahead = await self._tried(plan) if known is None and not terms.migrate else None
        if ahead is not None and not ahead[1]["metadata"].get("resourceVersion"):
            return replace(ahead[0], action=Action.CREATED)
        live, unreadable = await self._live(reference)
        if live is not None and self._stamps is not None:
            self._stamps.wrote(live)
        plan = replace(plan, live=live)
        if terms.marks.skipped(desired, live):
            return replace(plan, action=Action.SKIPPED)
        if known is not None and live is not None and same and Mark.of(live) == known.mark:
            return plan
        try:
            if terms.migrate and live is not None:
                plan = replace(plan, live=(live := await self._migrated(reference, live)))
            plan, result = await self._dry_run(plan) if ahead is None else (replace(ahead[0], live=live), ahead[1])
        except ReconcileError as error:
            if live is not None and await self._may_be_made_anew(plan, live, error):
                return replace(plan, action=Action.CREATED, recreate=True)
            raise _refusal(reference, error) from error
        if unreadable is not None:
            raise _refusal(reference, unreadable) from unreadable
        if live is None:
            return replace(plan, action=Action.CREATED)
        plan, result = await self._of_one_state(plan, live, result)
        return self._compared(plan, plan.live or live, result, ignored, known)

    async def _tried(self, plan: Plan) -> tuple[Plan, Object] | None:
        """The dry run of an object that may be new, before anybody looks for it; None when it is refused, for whatever reason."""
        try:
            return await self._dry_run(plan)
        except ReconcileError:
            return None

    async def _placed(self, given: Object) -> Object:
        """The object with a namespace if, and only if, its kind has them."""
        reference = Reference.of(given)
        try:
            namespaced = await self._namespaced(reference)
        except UnknownKind as error:
            raise _refusal(reference, error) from error
        if namespaced and not reference.namespace:
            raise Refusal(namespace_missing(reference))
        if namespaced or not reference.namespace:
            return given
        return {**given, "metadata": {name: value for name, value in given["metadata"].items() if name != "namespace"}}

    async def _namespaced(self, reference: Reference) -> bool:
        for left in range(UNSERVED_TRIES, -1, -1):
            try:
                return await self._cluster.namespaced(reference.api_version, reference.kind)
            except UnknownKind:
                kind = reference.api_version, reference.kind
                if reference.group not in self._defined or kind in self._unserved:
                    raise
                if not left:
                    self._unserved.add(kind)  # its other objects need not wait as well
                    raise
            await self._clock.sleep(UNSERVED_WAIT)
        raise AssertionError("the last try returns or raises")

    async def _live(self, reference: Reference) -> tuple[Object | None, ReconcileError | None]:
        """The live object; why it may not be read, of which its dry run may know better."""
        try:
            return await self._cluster.get(reference.api_version, reference.kind, reference.namespace, reference.name), None
        except (NotFound, UnknownKind):
            return None, None
        except ClusterError as error:
            if error.reason != "Forbidden":
                raise _refusal(reference, error) from error
            return None, error

    def _compared(
        self, plan: Plan, live: Object, result: Object, ignored: Sequence[tuple[str, ...]], known: Known | None
    ) -> Plan:
        terms = self._terms
        clean_up = [] if terms.marks.merges(plan.desired, live) else fields.clean_up(live, terms.manager, terms.override)
        differs = drift.drifted(live, result, ignored)
        if not differs and not clean_up:
            return plan
        repeated = known is not None and known.payload == plan.digest
        found = drift.told(live, differs, terms.manager) if terms.owner.owns(live) else ()
        return replace(
            plan,
            action=Action.CONFIGURED,
            clean_up=clean_up,
            payload=drift.payload_beside(plan.payload, live, ignored, terms.manager),
            drift=tuple(each for each in found if repeated or each.managers),
        )

    async def _of_one_state(self, plan: Plan, live: Object, result: Object) -> tuple[Plan, Object]:
        """A live object and a dry run that are of the same state of it: what others changed in between is no drift."""
        for _ in range(STATE_TRIES):
            if live["metadata"].get("resourceVersion") == result["metadata"].get("resourceVersion"):
                break
            if not drift.drifted(live, result):
                break
            again, _error = await self._live(plan.reference)
            if again is None:
                break
            live = again
            plan, result = await self._dry_run(replace(plan, live=live))
        return plan, result

    async def _dry_run(self, plan: Plan) -> tuple[Plan, Object]:
        """The object as it would be, applied without the fields that nobody knows."""
        for _ in range(UNDECLARED_TRIES):
            try:
                return plan, await self._cluster.dry_run(plan.payload, manager=self._terms.manager, force=True)
            except ClusterError as error:
                less = undeclared(plan.payload, error.text)
                if less is None:
                    raise
                name = str(plan.reference)
                log.warning("fields that the API server does not know are left out", object=name, error=error.text)
            plan = replace(plan, payload=less)
        return plan, await self._cluster.dry_run(plan.payload, manager=self._terms.manager, force=True)

    async def _migrated(self, reference: Reference, live: Object) -> Object:
        entries = fields.migrated(fields.entries_of(live), reference.api_version)
        if entries is None:
            return live
        operations = fields.entries_patch(live, entries)
        return await self._cluster.json_patch(reference, operations, manager=self._terms.manager)

    async def _may_be_made_anew(self, plan: Plan, live: Object, error: ReconcileError) -> bool:
        """Whether an object is refused only because it is there already with another value in a field that cannot be changed.

        That is tried by a dry run under a name that nobody has: whatever is refused there as well would be lost by a deletion.
        """
        forced = self._terms.force or self._terms.marks.forced(plan.desired, live)
        if not forced or not isinstance(error, Invalid) or isinstance(error, Conflict) or not _about_fields(error):
            return False
        metadata = {name: value for name, value in plan.payload["metadata"].items() if name not in {"uid", "resourceVersion"}}
        probe = {**plan.payload, "metadata": {**metadata, "name": plan.reference.name[: MAX_PROBE - len(PROBE)] + PROBE}}
        try:
            await self._cluster.dry_run(probe, manager=self._terms.manager, force=True)
        except Invalid as refused:
            return _says_immutable(error) and _only_taken(refused)
        return True


def _about_fields(error: ReconcileError) -> bool:
    return _says_immutable(error) or (isinstance(error, ClusterError) and error.reason == "Invalid" and INVALID in error.text)


def _says_immutable(error: ReconcileError) -> bool:
    text = str(error)
    return any(phrase in text for phrase in IMMUTABLE)


def _only_taken(refused: ReconcileError) -> bool:
    """Whether a second object is refused only for what the first one holds: a port, an address."""
    return "already allocated" in str(refused)


def _refusal(reference: Reference, error: ReconcileError) -> Refusal:
    answered = isinstance(error, NotFound | Conflict | Invalid | UnknownKind) or (isinstance(error, ClusterError) and error.text)
    return Refusal(dry_run_failure(reference, error), hopeless=not answered)


def labelled(found: Mapping[str, object] | None, owner: Owner) -> bool:
    """Whether a live object carries the label by which watches select managed objects."""
    metadata = (found or {}).get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return isinstance(labels, dict) and f"{owner.prefix}/name" in labels
