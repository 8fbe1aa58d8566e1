"""Targets of Canaries: what is copied to a primary, how it is scaled, when it is ready, what makes a revision."""

from __future__ import annotations

from canary.errors import Problem
from canary.settings import CanarySettings
from canary.workload.base import Workload
from reconcile.ports.clock import Clock
from reconcile.ports.objects import Objects

KNATIVE = "serving.knative.dev/"


def make_workload(
    kind: str, api_version: str, objects: Objects, settings: CanarySettings, clock: Clock | None = None
) -> Workload:
    """What acts on targets of a kind. Make one for each kind and keep it: it remembers what it has read.

    Args:
        kind: `spec.targetRef.kind`.
        api_version: `spec.targetRef.apiVersion`; it tells Knative's Services from others.
        objects: Where targets live.
        settings: Of the service.
        clock: The real one when not given.

    Raises:
        Problem: There are no targets of this kind.
    """
    if kind == "Deployment":
        from canary.workload.deployment import DeploymentWorkload

        return DeploymentWorkload(objects, settings, clock)
    if kind == "DaemonSet":
        from canary.workload.daemonset import DaemonSetWorkload

        return DaemonSetWorkload(objects, settings, clock)
    if kind == "Service" and api_version.startswith(KNATIVE):
        from canary.workload.knative import KnativeWorkload

        return KnativeWorkload(objects, settings)
    if kind == "Service":
        from canary.workload.service import ServiceWorkload

        return ServiceWorkload(objects, settings)
    raise Problem(f"spec.targetRef.kind must be Deployment, DaemonSet or Service, not {kind}", retriable=False)
