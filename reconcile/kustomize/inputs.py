"""What a pass over a Kustomization is made from, as one digest: the same inputs lead to the same objects.

In it: what the build can read of the source, the spec, the variables and keys that it refers to, the build tool. Objects with
secret content count by their version in the API server, so that nobody reads them to find out that they have not changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from reconcile import __version__
from reconcile.api.resource import AnyResource, dump
from reconcile.errors import NotFound, ReconcileError
from reconcile.ports.cluster import Reference
from reconcile.ports.objects import Objects

IRRELEVANT = ("interval", "retryInterval", "timeout", "suspend", "dependsOn", "sourceRef")
"""Fields of a spec that decide when a pass is made and not what comes of it."""


def configs(resource: AnyResource, age_secret: Reference | None = None) -> list[Reference]:
    """The ConfigMaps and Secrets that a Kustomization reads."""
    spec, namespace = resource.spec, resource.key.namespace
    found = [
        Reference("v1", one.kind, namespace, one.name)
        for one in (spec.post_build.substitute_from if spec.post_build is not None else None) or ()
    ]
    if spec.decryption is not None:
        if spec.decryption.secret_ref is not None:
            found.append(Reference("v1", "Secret", namespace, spec.decryption.secret_ref.name))
        elif age_secret is not None:
            found.append(age_secret)
    if spec.kube_config is not None:
        if spec.kube_config.secret_ref is not None:
            found.append(Reference("v1", "Secret", namespace, spec.kube_config.secret_ref.name))
        else:
            found.append(Reference("v1", "ConfigMap", namespace, spec.kube_config.config_map_ref.name))
    return list(dict.fromkeys(found))


async def versions(objects: Objects, wanted: Iterable[Reference]) -> dict[str, str]:
    """For each object its identity and version; `-` where there is none.

    Raises ReconcileError when nobody can tell: then nothing may be taken for unchanged.
    """
    found: dict[str, str] = {}
    for reference in wanted:
        stamp = await _stamp(objects, reference)
        found[str(reference)] = stamp
    return found


async def _stamp(objects: Objects, reference: Reference) -> str:
    try:
        stamp = await objects.stamp(reference)
    except ReconcileError:
        # Without the right to follow the kind the object itself is asked for.
        try:
            read = await objects.read(reference)
        except NotFound:
            return "-"
        meta: Mapping[str, Any] = read["metadata"]
        return f"{meta.get('uid')}/{meta.get('resourceVersion')}"
    return "-" if stamp is None else f"{stamp.uid}/{stamp.version}"


@dataclass(frozen=True, slots=True)
class Surround:
    """What of the installation has a say in what is built and applied."""

    account: str
    """ServiceAccount in whose name is applied."""
    strict: bool
    """Whether a variable that is not set is an error."""
    tool: str
    """Version of the build tool."""


def digest(resource: AnyResource, reach: str, read: Mapping[str, str], surround: Surround) -> str:
    """The digest of all inputs.

    Args:
        resource: The Kustomization.
        reach: Digest of what the build can read of the source.
        read: From `versions`.
        surround: The installation.
    """
    spec = {name: value for name, value in dump(resource.spec).items() if name not in IRRELEVANT}
    parts = {
        "spec": spec,
        "reach": reach,
        "read": dict(read),
        "account": surround.account,
        "strict": surround.strict,
        "tool": surround.tool,
        "service": __version__,
    }
    return "sha256:" + hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
