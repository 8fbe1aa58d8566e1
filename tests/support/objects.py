"""Objects of anybody in memory, with the ways of an API server: what tests of code on the `Objects` port run on.

What an API server does and this does not: defaults and validation, admission, garbage collection of owned objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from reconcile.errors import Conflict, Invalid, NotFound, ReconcileError
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Moved, Notice, Stamp

PLURALS: Mapping[str, str] = {
    "Gateway": "gateways",
    "HTTPProxy": "httpproxies",
    "Ingress": "ingresses",
    "IngressClass": "ingressclasses",
    "NetworkPolicy": "networkpolicies",
}
"""Kinds that are not made plural by an s."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which kubectl keeps content; a stamp does not have it."""

METADATA_ONLY = frozenset({("v1", "Secret"), ("v1", "ConfigMap")})
"""Kinds whose content is not remembered: `stamp` and `read`, no `get`."""

CREATED = "2026-01-01T00:00:00Z"

Kind = tuple[str, str]
Failure = BaseException | list[BaseException | None]


class MemoryObjects:
    """The port `reconcile.ports.objects.Objects`, in memory.

    Attributes:
        reads: Each read as (verb, kind, name), verb being get (also of `find`), stamp or read.
        writes: Each write that was asked for as (verb, kind, name), verb being create, patch or delete; refused ones too.
        patches: Each patch that was asked for, in order, beside its (kind, name).
        missing_kinds: (apiVersion, kind) that are not served.
        fail: What to raise instead, by (verb, kind, name): an exception, each time; or a list of them, one for each call, None
            for a call that goes well. The name `*` stands for any.
        before: Called once, right before the next write of (kind, name) is looked at: somebody else is faster.
        managers: Field managers of successful writes by reference.
    """

    def __init__(self, found: Iterable[Object] = (), *, plurals: Mapping[str, str] | None = None, created: str = CREATED) -> None:
        self.reads: list[tuple[str, str, str]] = []
        self.writes: list[tuple[str, str, str]] = []
        self.patches: list[tuple[str, str, Object]] = []
        self.missing_kinds: set[Kind] = set()
        self.fail: dict[tuple[str, str, str], Failure] = {}
        self.before: dict[tuple[str, str], Any] = {}
        self.managers: dict[Reference, set[str]] = {}
        self._plurals = {**PLURALS, **(plurals or {})}
        self._created = created
        self._objects: dict[Reference, Object] = {}
        self._followed: set[Kind] = set()
        self._notices: list[Notice] = []
        self._version = 0
        for each in found:
            self.put(each)

    # --- the port: reading

    async def get(self, which: Reference) -> Object:
        """See the port."""
        self._reading("get", which)
        if _kind(which) in METADATA_ONLY:
            raise Invalid(f"{which.kind} is followed by metadata only: its content is read from the server")
        return deepcopy(self._present(which))

    async def find(self, which: Reference) -> Object | None:
        """See the port."""
        try:
            return await self.get(which)
        except NotFound:
            return None

    async def stamp(self, which: Reference) -> Stamp | None:
        """See the port."""
        self._reading("stamp", which)
        found = self._objects.get(which)
        if found is None:
            return None
        meta = found["metadata"]
        annotations = {name: text for name, text in (meta.get("annotations") or {}).items() if name != LAST_APPLIED}
        return Stamp(meta["uid"], meta["resourceVersion"], dict(meta.get("labels") or {}), annotations)

    async def read(self, which: Reference) -> Object:
        """See the port."""
        self._reading("read", which)
        return deepcopy(self._present(which))

    # --- the port: writing

    async def create(self, wanted: Object, *, manager: str) -> Object:
        """See the port."""
        which = Reference.of(wanted)
        self._writing("create", which)
        if which in self._objects:
            raise Conflict(f'{self._resource(which)} "{which.name}" already exists')
        body = {name: value for name, value in merged({}, deepcopy(wanted)).items() if name != "status"}
        return deepcopy(self._keep(which, body, manager))

    async def patch(self, which: Object | Reference, patch: Object, *, manager: str) -> Object:
        """See the port."""
        reference = which if isinstance(which, Reference) else Reference.of(which)
        if not patch:
            return await self.get(reference) if isinstance(which, Reference) else deepcopy(which)
        self.patches.append((reference.kind, reference.name, deepcopy(patch)))
        self._writing("patch", reference)
        held = self._present(reference)
        asked = deepcopy(patch)
        if not isinstance(which, Reference):
            asked["metadata"] = {"resourceVersion": which["metadata"]["resourceVersion"], **(asked.get("metadata") or {})}
        expected = (asked.get("metadata") or {}).get("resourceVersion")
        if expected and expected != held["metadata"]["resourceVersion"]:
            raise Conflict(
                f'Operation cannot be fulfilled on {self._resource(reference)} "{reference.name}": the object has been modified; '
                "please apply your changes to the latest version and try again"
            )
        asked.pop("status", None)
        body = merged(held, asked)
        return deepcopy(self._keep(reference, body, manager))

    async def delete(self, which: Object | Reference) -> bool:
        """See the port."""
        reference = which if isinstance(which, Reference) else Reference.of(which)
        self._writing("delete", reference)
        held = self._objects.get(reference)
        if held is None:
            return False
        uid = "" if isinstance(which, Reference) else which["metadata"].get("uid", "")
        if uid and uid != held["metadata"]["uid"]:
            raise Conflict(
                f'Operation cannot be fulfilled on {self._resource(reference)} "{reference.name}": the UID in the precondition '
                f"({uid}) does not match the UID in record ({held['metadata']['uid']}). The object might have been deleted and "
                "then recreated"
            )
        self.remove(reference)
        return True

    def subscribe(self, notice: Notice) -> None:
        """See the port."""
        self._notices.append(notice)

    # --- for tests: the rest of the world

    def put(self, wanted: Object) -> Object:
        """Have this object, status included, whatever there was before; no write of ours. The object as it is then."""
        which = Reference.of(wanted)
        body = merged({}, deepcopy(wanted))
        held = self._objects.get(which)
        if held is not None and "status" not in body and "status" in held:
            body["status"] = held["status"]
        return deepcopy(self._keep(which, body, status=True))

    def change(self, which: Reference, patch: Object) -> Object:
        """Somebody else's merge patch, status included; raises NotFound."""
        return deepcopy(self._keep(which, merged(self._present(which), deepcopy(patch)), status=True))

    def status(self, which: Reference, status: Object) -> Object:
        """Somebody else replaces the status; raises NotFound."""
        return deepcopy(self._keep(which, {**self._present(which), "status": deepcopy(status)}, status=True))

    def remove(self, which: Reference) -> None:
        """Somebody else deletes it; it stays, with a deletion timestamp, while it has finalizers. Raises NotFound."""
        held = self._present(which)
        if not held["metadata"].get("finalizers"):
            del self._objects[which]
            self._tell(Moved(which))
        elif not held["metadata"].get("deletionTimestamp"):
            self._keep(which, merged(held, {"metadata": {"deletionTimestamp": self._created}}), status=True)

    def now(self, which: Reference) -> Object | None:
        """The object as it is, by no read that counts; None when there is none."""
        return deepcopy(self._objects.get(which))

    def all(self, kind: str = "") -> list[Object]:
        """All objects, of one kind if given, in the order in which they came."""
        return [deepcopy(body) for which, body in self._objects.items() if not kind or which.kind == kind]

    def forget(self) -> None:
        """Begin to count reads and writes anew."""
        self.reads.clear()
        self.writes.clear()
        self.patches.clear()

    # --- within

    def _reading(self, verb: str, which: Reference) -> None:
        self.reads.append((verb, which.kind, which.name))
        self._served(which)
        if verb != "read":
            self._followed.add(_kind(which))
        self._injected(verb, which)

    def _writing(self, verb: str, which: Reference) -> None:
        self.writes.append((verb, which.kind, which.name))
        faster = self.before.pop((which.kind, which.name), None)
        if faster is not None:
            faster()
        self._served(which)
        self._injected(verb, which)

    def _served(self, which: Reference) -> None:
        if _kind(which) in self.missing_kinds:
            raise ReconcileError("the server could not find the requested resource")

    def _injected(self, verb: str, which: Reference) -> None:
        for name in (which.name, "*"):
            failure = self.fail.get((verb, which.kind, name))
            if isinstance(failure, list):
                failure = failure.pop(0) if failure else None
            if failure is not None:
                raise failure

    def _present(self, which: Reference) -> Object:
        found = self._objects.get(which)
        if found is None:
            raise NotFound(f'{self._resource(which)} "{which.name}" not found')
        return found

    def _resource(self, which: Reference) -> str:
        plural = self._plurals.get(which.kind, f"{which.kind.lower()}s")
        return f"{plural}.{which.group}" if which.group else plural

    def _keep(self, which: Reference, body: Object, manager: str = "", *, status: bool = False) -> Object:
        """Store a state of an object, with the bookkeeping that the server does; what changes nothing is not stored."""
        held = self._objects.get(which)
        kept = held["metadata"] if held is not None else {}
        meta = {**body["metadata"]}
        meta["uid"] = kept.get("uid") or f"uid-{self._version + 1}"
        meta["creationTimestamp"] = kept.get("creationTimestamp") or meta.get("creationTimestamp") or self._created
        meta["generation"] = kept.get("generation", 1)
        meta["resourceVersion"] = kept.get("resourceVersion", "")
        if kept.get("deletionTimestamp"):
            meta["deletionTimestamp"] = kept["deletionTimestamp"]
        elif not status:
            meta.pop("deletionTimestamp", None)
        new = {**body, "metadata": meta}
        if manager:
            self.managers.setdefault(which, set()).add(manager)
        if held is not None:
            if new == held:
                return held
            if _content(new) != _content(held):
                meta["generation"] += 1
        self._version += 1
        meta["resourceVersion"] = str(self._version)
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self._objects.pop(which, None)
        else:
            self._objects[which] = new
        self._tell(Moved(which, held is not None and _wanted(new) == _wanted(held)))
        return new

    def _tell(self, moved: Moved) -> None:
        if _kind(moved.which) in self._followed:
            for notice in self._notices:
                notice(moved)


def merged(body: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(body) if isinstance(body, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _kind(which: Reference) -> Kind:
    return which.api_version, which.kind


def _wanted(body: Object) -> Object:
    metadata = {name: value for name, value in body["metadata"].items() if name != "resourceVersion"}
    return {**_content(body), "metadata": metadata}


def _content(body: Object) -> Object:
    return {name: value for name, value in body.items() if name not in {"metadata", "status"}}
