"""ConfigMaps and Secrets of a target: what it uses, whether that changed, and the copies that the primary uses instead.

Their content is never held: a change shows in the metadata, which is followed anyway, and only then is an object read, once.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from canary.errors import Problem
from canary.settings import CanarySettings
from canary.site import MANAGER, Site
from canary.workload.podtemplate import SUFFIX, config_uses, included
from reconcile.api.mergepatch import difference
from reconcile.errors import Conflict, NotFound, ReconcileError
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

TRACKING = "flagger.app/config-tracking"
"""Annotation that keeps an object from being tracked, with a value that begins with `disable`."""
TRACKED_TYPES = frozenset({"Opaque", "kubernetes.io/basic-auth", "kubernetes.io/ssh-auth", "kubernetes.io/tls"})
"""Types of Secrets that are tracked."""

BINARY = "#binaryData"
"""End of the key of a checksum that counts `binaryData`."""
REMEMBERED = 8192
"""Contents whose checksum is kept: those of a few thousand targets and their copies."""
TRIES = 5

_GO_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is remembered of one content of an object.

    Attributes:
        checksum: Of all of it.
        text_checksum: Of `data` alone; the same when there is nothing else.
        tracked: Whether an object of its type is tracked.
    """

    checksum: str
    text_checksum: str
    tracked: bool = True


class Tracker:
    """Looks after the configuration of targets. One for all of a kind: it remembers checksums by content."""

    def __init__(self, objects: Objects, settings: CanarySettings, *, remembered: int = REMEMBERED) -> None:
        self._objects = objects
        self._settings = settings
        self._remembered = remembered
        self._known: OrderedDict[tuple[str, str], Fingerprint] = OrderedDict()

    async def checksums(self, namespace: str, pod_spec: Mapping[str, Any]) -> dict[str, str]:
        """Checksums of what a pod spec uses and is tracked, by `configmap/NAME` or `secret/NAME`, sorted.

        These are Flagger's, which leave `binaryData` out; where there is any, `configmap/NAME#binaryData` has one of all of it.
        No request for what has not changed since it was seen last.

        Raises:
            Problem: `GetTargetConfigs failed: …`: something that is not optional is missing, or could not be read.
        """
        found: dict[str, str] = {}
        for which, optional in _used(namespace, pod_spec):
            fingerprint = await self._tracked(which, optional=optional)
            if fingerprint is not None:
                found |= _checksums(which, fingerprint)
        return dict(sorted(found.items()))

    async def copy(self, site: Site, pod_spec: Mapping[str, Any]) -> dict[str, str]:
        """Bring the primary's copies to what a pod spec uses now; checksums of what was copied, as `checksums` gives them.

        Raises:
            Problem: `GetTargetConfigs failed: …` before anything is written; `CreatePrimaryConfigs failed: …`.
        """
        wanted: dict[str, str] = {}
        for key in texts(await self.checksums(site.namespace, pod_spec)):
            which = _reference(site.namespace, key)
            try:
                source = await self._objects.read(which)
                await self._write(site, source, Reference("v1", which.kind, which.namespace, which.name + SUFFIX))
            except ReconcileError as error:
                raise Problem(f"CreatePrimaryConfigs failed: {_shown(which)}{SUFFIX}.{site.namespace}: {error}") from error
            wanted |= _checksums(which, self._remember(source))
        return wanted

    async def copied(self, namespace: str, pod_spec: Mapping[str, Any]) -> bool:
        """Whether the primary's copies have what a pod spec uses now. A copy that Flagger made lacks `binaryData`; it counts.

        Raises:
            Problem: `GetTargetConfigs failed: …`.
        """
        for which, optional in _used(namespace, pod_spec):
            source = await self._tracked(which, optional=optional)
            if source is None:
                continue
            copy = await self._fingerprint(Reference("v1", which.kind, namespace, which.name + SUFFIX), optional=True)
            if copy is None or copy.checksum not in (source.checksum, source.text_checksum):
                return False
        return True

    async def _tracked(self, which: Reference, *, optional: bool) -> Fingerprint | None:
        """The fingerprint of what is there and tracked."""
        fingerprint = await self._fingerprint(which, optional=optional)
        return fingerprint if fingerprint is not None and fingerprint.tracked else None

    async def _fingerprint(self, which: Reference, *, optional: bool) -> Fingerprint | None:
        try:
            stamp = await self._objects.stamp(which)
            if stamp is None:
                raise NotFound(f'{which.kind.lower()}s "{which.name}" not found')
            if stamp.annotations.get(TRACKING, "").startswith("disable"):
                return None
            known = self._known.get((stamp.uid, stamp.version))
            if known is not None:
                self._known.move_to_end((stamp.uid, stamp.version))
                return known
            return self._remember(await self._objects.read(which))
        except NotFound as error:
            if optional:
                return None
            raise _unreadable(which, error) from error
        except ReconcileError as error:
            raise _unreadable(which, error) from error

    def _remember(self, found: Object) -> Fingerprint:
        made = fingerprint_of(found)
        meta = found["metadata"]
        self._known[meta["uid"], meta["resourceVersion"]] = made
        while len(self._known) > self._remembered:
            self._known.popitem(last=False)
        return made

    async def _write(self, site: Site, source: Object, which: Reference) -> None:
        """Create or update one copy. The content of the present one is read: it is followed by its metadata only."""
        for attempt in range(TRIES):
            try:
                try:
                    present = await self._objects.read(which)
                except NotFound:
                    self._remember(await self._objects.create(copy_of(source, None, site), manager=MANAGER))
                    return
                wanted = copy_of(source, present, site)
                if _unchangeable(present, wanted):
                    await self._objects.delete(present)
                    wanted = {**wanted, "metadata": _fresh(wanted["metadata"])}
                    self._remember(await self._objects.create(wanted, manager=MANAGER))
                    return
                patch = difference(present, wanted)
                self._remember(await self._objects.patch(present, patch, manager=MANAGER) if patch else present)
                return
            except Conflict:
                if attempt == TRIES - 1:
                    raise


def texts(checksums: Mapping[str, str] | None) -> dict[str, str]:
    """Those checksums that Flagger has, for `status.trackedConfigs`."""
    return {key: value for key, value in (checksums or {}).items() if not key.endswith(BINARY)}


def binaries(checksums: Mapping[str, str] | None) -> dict[str, str]:
    """Those that Flagger has not."""
    return {key: value for key, value in (checksums or {}).items() if key.endswith(BINARY)}


def _checksums(which: Reference, found: Fingerprint) -> dict[str, str]:
    plain = {_key(which): found.text_checksum}
    return plain if found.checksum == found.text_checksum else {**plain, _key(which) + BINARY: found.checksum}


def checksum_of(data: Any) -> str:
    """Flagger's checksum: the first 8 bytes of the SHA-256 of the JSON that Go's encoder writes, as 16 hex digits."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for char, escape in _GO_ESCAPES.items():
        text = text.replace(char, escape)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_of(found: Object) -> Fingerprint:
    """What is remembered of a ConfigMap or Secret. `binaryData` counts only where there is any, as Flagger leaves it out."""
    data, binary = found.get("data"), found.get("binaryData")
    text_checksum = checksum_of(data)
    checksum = checksum_of({"data": data, "binaryData": binary}) if binary else text_checksum
    tracked = found.get("kind") != "Secret" or (found.get("type") or "Opaque") in TRACKED_TYPES
    return Fingerprint(checksum, text_checksum, tracked)


def copy_of(source: Object, present: Object | None, site: Site) -> Object:
    """The primary's copy of a ConfigMap or Secret. Pure.

    It is this Canary's, beside other owners that it has already, which Canaries that share it are; labels and annotations that
    people put on a copy stay.
    """
    meta = source["metadata"]
    before = (present or {}).get("metadata") or {}
    labels = {**(before.get("labels") or {}), **included(meta.get("labels"), site.settings.include_label_prefix)}
    others = [{**ref, "controller": False} for ref in before.get("ownerReferences") or () if not _ours(ref, site)]
    wanted: Object = {
        **(present or {}),
        "apiVersion": "v1",
        "kind": source["kind"],
        "metadata": {
            **before,
            "name": meta["name"] + SUFFIX,
            "namespace": site.namespace,
            "ownerReferences": [site.owner, *others],
        },
    }
    if labels:
        wanted["metadata"]["labels"] = labels
    for part in ("data", "binaryData", "type"):
        wanted.pop(part, None)
        if source.get(part):
            wanted[part] = source[part]
    return wanted


def _ours(ref: Mapping[str, Any], site: Site) -> bool:
    return (ref.get("kind"), ref.get("name")) == ("Canary", site.name) or ref.get("uid") == site.canary.meta.uid


def _unchangeable(present: Object, wanted: Object) -> bool:
    """Whether the server refuses this change: an immutable copy, or a Secret of another type. Such a copy is made anew."""
    changed = any(present.get(part) != wanted.get(part) for part in ("data", "binaryData"))
    return (bool(present.get("immutable")) and changed) or present.get("type") != wanted.get("type")


def _fresh(meta: Object) -> Object:
    """Metadata for another object of the same name."""
    return {name: meta[name] for name in ("name", "namespace", "labels", "annotations", "ownerReferences") if meta.get(name)}


def _used(namespace: str, pod_spec: Mapping[str, Any]) -> list[tuple[Reference, bool]]:
    """What a pod spec uses, each once, and whether it may be missing."""
    optional: dict[Reference, bool] = {}
    for use in config_uses(pod_spec):
        which = Reference("v1", use.kind, namespace, use.name)
        optional[which] = optional.get(which, True) and use.optional
    return list(optional.items())


def _reference(namespace: str, key: str) -> Reference:
    kind, _, name = key.partition("/")
    return Reference("v1", "ConfigMap" if kind == "configmap" else "Secret", namespace, name)


def _key(which: Reference) -> str:
    return f"{which.kind.lower()}/{which.name}"


def _shown(which: Reference) -> str:
    return f"{which.kind.lower()} {which.name}"


def _unreadable(which: Reference, error: ReconcileError) -> Problem:
    """Flagger says it twice."""
    what = f"{_shown(which)}.{which.namespace} get query error: "
    return Problem(f"GetTargetConfigs failed: {what}{what}{error}")
