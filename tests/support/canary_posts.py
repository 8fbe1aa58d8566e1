"""What the real operator posted and exported in recorded runs, and Sites to post for."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from canary.api import API_VERSION, CanarySpec, CanaryStatus
from canary.settings import CanarySettings
from canary.site import CanaryResource, Site
from reconcile.api.meta import ObjectMeta
from reconcile.api.resource import Resource

FACTS = Path(__file__).parent.parent / "facts" / "canary_posts.json"


@functools.cache
def recorded() -> dict[str, Any]:
    """Story → hooks, alerts and events in order, and the exported series at the end."""
    return json.loads(FACTS.read_text(encoding="utf-8"))


def site(
    name: str = "web",
    namespace: str = "prod",
    *,
    analysis: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
    settings: CanarySettings | None = None,
) -> Site:
    """The Site of a Canary whose target is the Deployment web; `analysis` and `spec` as in a manifest."""
    data = {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "service": {"port": 80},
        "analysis": {"interval": "10s", "threshold": 3, "stepWeight": 50, "maxWeight": 50} if analysis is None else analysis,
        **(spec or {}),
    }
    meta = ObjectMeta(name=name, namespace=namespace, uid=f"uid-{namespace}-{name}")
    canary: CanaryResource = Resource(API_VERSION, "Canary", meta, CanarySpec.model_validate(data), CanaryStatus())
    return Site(canary, settings or CanarySettings())
