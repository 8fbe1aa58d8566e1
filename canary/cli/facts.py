"""What an explanation is made from, and the sentences that it consists of. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from canary.cli.view import View
from canary.routing.base import Weights
from canary.workload.base import Readiness, Target


class Kind(StrEnum):
    """What a sentence is; the value is the sign in front of it."""

    VERDICT = "▶"
    GOOD = "✔"
    BAD = "✗"
    WAITS = "◎"
    NOTE = "·"
    DO = "→"


@dataclass(frozen=True, slots=True)
class Line:
    """One sentence of an explanation."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """An Event of the Canary: when it came last, its type, text, and how often it came."""

    at: str
    type: str
    message: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What an explanation is made from. None: not known, because it does not matter or may not be read.

    Attributes:
        invalid: What is wrong with the spec; empty when nothing is.
        target: The target as it is now.
        target_problem: Why there is none.
        configs_problem: Why the ConfigMaps and Secrets of the target cannot be used.
        primary: Whether the primary can take traffic.
        ready: Whether the target can.
        same: Whether the primary runs exactly what the target says.
        changed: Whether the target or its configuration is another than the one in work.
        live: Weights of the routes.
        routes_problem: Why they cannot be read.
        missing_templates: MetricTemplates that are not there.
        said: Events, oldest first.
        denied: What may not be read by who asks.
    """

    view: View
    now: datetime
    invalid: str = ""
    target: Target | None = None
    target_problem: str = ""
    configs_problem: str = ""
    primary: Readiness | None = None
    ready: Readiness | None = None
    same: bool | None = None
    changed: bool | None = None
    live: Weights | None = None
    routes_problem: str = ""
    missing_templates: tuple[str, ...] = ()
    said: tuple[Said, ...] = ()
    denied: tuple[str, ...] = ()
