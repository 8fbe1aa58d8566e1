"""The times of a Kustomization: how long it may take, when it is looked at again. Pure.

Flux kustomize-controller: `timeout` is the one given or the interval less half a minute, and never below half a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LEAST_TIMEOUT = 30.0
"""Seconds that checks of health and waits for deletion always have."""


@dataclass(frozen=True, slots=True)
class Times:
    """All in seconds."""

    interval: float
    retry: float
    timeout: float

    @classmethod
    def of(cls, spec: Any) -> Times:
        """Those that a spec of a Kustomization asks for."""
        interval = float(spec.interval)
        timeout = float(spec.timeout) if spec.timeout is not None else interval - LEAST_TIMEOUT
        retry = float(spec.retry_interval) if spec.retry_interval is not None else interval
        return cls(interval, retry, max(timeout, LEAST_TIMEOUT))
