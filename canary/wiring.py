"""Puts Flagger's kinds into the service (entry point of the group `reconcile.packages`)."""

from __future__ import annotations

from canary.api import ALERT_PROVIDER, CANARY, METRIC_TEMPLATE
from reconcile.app import Registry


def register(registry: Registry) -> None:
    """Add the kinds of this package."""
    for info in (CANARY, METRIC_TEMPLATE, ALERT_PROVIDER):
        registry.scheme.register(info)
