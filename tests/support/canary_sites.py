"""Sites of Canaries for tests of routers and workloads, and what a recorded run of Flagger made of their objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from canary.api import API_VERSION, CanarySpec, CanaryStatus
from canary.settings import CanarySettings
from canary.site import Site
from reconcile.api.meta import ObjectMeta
from reconcile.api.resource import Resource
from reconcile.ports.cluster import Object

RECORDED = Path(__file__).parent.parent / "facts" / "canary_traffic.json"
MEANT = ("mesh", "spec")
"""Parts of an object that a record has, beside labels, annotations and owner references."""


def recorded(story: str) -> Any:
    """A recorded story: namespace, spec of the Canary, objects given, and by object its first version and each change."""
    return json.loads(RECORDED.read_text())[story]


def site(
    spec: Mapping[str, Any] | None = None,
    *,
    namespace: str = "prod",
    name: str = "web",
    provider: str = "istio",
    service: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    phase: str = "",
    label: str = "app",
    value: str = "web",
) -> Site:
    """A Canary of target `web` on port 80, or with this spec."""
    data = spec or {
        "provider": provider,
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "service": {"port": 80, **(service or {})},
        "analysis": {"interval": "10s", "threshold": 3, "stepWeight": 10},
    }
    meta = ObjectMeta(name=name, namespace=namespace, uid=f"uid-of-{name}", annotations=dict(annotations or {}))
    status = CanaryStatus.model_validate({"phase": phase})
    canary = Resource(API_VERSION, "Canary", meta, CanarySpec.model_validate(dict(data)), status)
    return Site(canary, CanarySettings(), label, value)


def as_recorded(found: Object | None) -> Object:
    """An object as records have it: what is meant, without names, bookkeeping and uids."""
    assert found is not None
    meta = found["metadata"]
    kept = {name: meta[name] for name in ("labels", "annotations") if meta.get(name)}
    owners = [{key: value for key, value in each.items() if key != "uid"} for each in meta.get("ownerReferences") or ()]
    return {**kept, **({"ownerReferences": owners} if owners else {}), **{name: found[name] for name in MEANT if name in found}}


def changes(old: Any, new: Any, path: str = "") -> Object:
    """What differs, by JSON pointer, as records have it: whole values where one side has none, None for what is gone."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: Object = {path + "/" + name: None for name in old if name not in new}
        for name, value in new.items():
            found |= changes(old[name], value, path + "/" + name) if name in old else {path + "/" + name: value}
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        found = {}
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            found |= changes(before, after, f"{path}/{index}")
        return found
    return {} if old == new else {path: new}


def history(versions: Sequence[Object]) -> list[Object]:
    """The first version and each change, as records have it."""
    return [versions[0], *(changes(old, new) for old, new in pairwise(versions))]
