"""Canaries in any phase, as commands read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from canary.api import API_VERSION, CanarySpec, CanaryStatus
from canary.cli.view import View, view_of
from reconcile.api.meta import ObjectMeta
from reconcile.api.resource import Resource

NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
OURS, OTHER = "454545454545", "666666666666"
METRICS = [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"}]
GATES = [
    {"name": "approve", "type": "confirm-rollout", "url": "http://gate.test/start"},
    {"name": "more", "type": "confirm-traffic-increase", "url": "http://gate.test/more"},
    {"name": "qa", "type": "confirm-promotion", "url": "http://gate.test/qa"},
]


def at(seconds: float) -> str:
    """A moment so many seconds from NOW."""
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def view(
    phase: str,
    status: Mapping[str, Any] | None = None,
    *,
    spec: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    deleted: bool = False,
    **analysis: Any,
) -> View:
    """A Canary `apps/web` on a ladder of 20 and 40, in a phase of 5 minutes; a run has a revision that the primary has not."""
    wanted: dict[str, Any] = {"interval": "30s", "threshold": 2, **analysis}
    if not {"iterations", "stepWeight", "stepWeights"} & wanted.keys():
        wanted |= {"stepWeight": 20, "maxWeight": 40}
    data: dict[str, Any] = {
        "provider": "istio",
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "service": {"port": 80},
        "analysis": wanted,
        **(spec or {}),
    }
    rested = phase in {"Initialized", "Succeeded"}
    known: dict[str, Any] = {"lastAppliedSpec": OURS, "lastPromotedSpec": OURS if rested else OTHER, "phaseSince": at(-300)}
    stored = {**(known if phase else {}), "phase": phase, **(status or {})}
    meta = ObjectMeta(
        name="web",
        namespace="apps",
        uid="uid-of-web",
        annotations=dict(annotations or {}),
        deletion_timestamp=at(-60) if deleted else None,
        finalizers=["finalizer.flagger.app"] if deleted else [],
    )
    return view_of(Resource(API_VERSION, "Canary", meta, CanarySpec.model_validate(data), CanaryStatus.model_validate(stored)))
