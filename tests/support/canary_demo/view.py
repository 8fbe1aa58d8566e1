"""How the demonstration shows a Canary: from plain objects to what a person looks at. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Group
from rich.text import Text

from reconcile.ports.clock import parse_timestamp
from tests.support.kubeapi import Object

BAR = 30
"""Characters of a bar of all traffic."""
APP, PHASE, METRIC = 7, 15, 22
"""Columns."""
STYLES = {"Succeeded": "bold green", "Failed": "bold red", "Initialized": "green"}
ENDED = frozenset({"Succeeded", "Failed"})
SIDE = " " * (3 + APP)


@dataclass(frozen=True)
class Seen:
    """One Canary at one moment.

    Attributes:
        weight: Percent of the traffic that the route gives to the canary; None while there is no route.
        checks: As the status has them: metric, value, threshold, verdict.
        due: When the next step is planned.
        serving: Image of the primary.
        trying: Image of the target.
    """

    app: str
    phase: str = ""
    weight: int | None = None
    failed: int = 0
    threshold: int = 0
    checks: tuple[tuple[str, str, str, str], ...] = ()
    due: datetime | None = None
    serving: str = ""
    trying: str = ""
    failure: str = ""


def seen(canary: Object, route: Object | None, deployments: Mapping[str, Object]) -> Seen:
    """What can be seen of a Canary, its route and its workloads."""
    app, status = canary["metadata"]["name"], canary.get("status") or {}
    due = status.get("nextStepTime")
    return Seen(
        app=app,
        phase=status.get("phase", ""),
        weight=weight_of(app, route) if route is not None else None,
        failed=int(status.get("failedChecks") or 0),
        threshold=int(canary["spec"]["analysis"]["threshold"]),
        checks=tuple(
            (check["metric"], _value(check), check.get("threshold", ""), check["verdict"]) for check in status.get("checks") or ()
        ),
        due=parse_timestamp(due) if due else None,
        serving=_image(deployments.get(f"{app}-primary")),
        trying=_image(deployments.get(app)),
        failure=status.get("failure", ""),
    )


def weight_of(app: str, route: Object) -> int | None:
    """The canary's weight in a VirtualService."""
    for rule in (route.get("spec") or {}).get("http") or ():
        shares = {entry["destination"]["host"]: entry.get("weight", 0) for entry in rule.get("route") or ()}
        if f"{app}-canary" in shares:
            return int(shares[f"{app}-canary"])
    return None


def _value(check: Object) -> str:
    """The value with the unit that its bounds have."""
    value, unit = check.get("value"), "ms" if check.get("threshold", "").endswith("ms") else ""
    return f"{value}{unit}" if value else "none"


def _image(deployment: Object | None) -> str:
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"]) if deployment else ""


def short(image: str) -> str:
    """`shop:2.0.0` of `example.org/shop:2.0.0`."""
    return image.rpartition("/")[2]


def app_of(image: str) -> str:
    """`shop` of `example.org/shop:2.0.0`."""
    return short(image).partition(":")[0]


def folded(text: str, width: int) -> list[str]:
    """A line in lines of at most this width, the later ones indented as the first, under its text."""
    start = " " * (len(text) - len(text.lstrip(" ✓✗·→")))
    return textwrap.wrap(text, width, subsequent_indent=start, break_on_hyphens=False) or [""]


# --- on a terminal


def board(found: Sequence[Seen], now: datetime) -> Group:
    """All Canaries, one below the other."""
    parts: list[Text] = [Text()]
    for one in found:
        parts += [_head(one), *_checks(one), _state(one, now), Text()]
    return Group(*parts[:-1])


def bar(one: Seen) -> Text:
    """All traffic as a bar: what the new revision has, then what the primary has."""
    weight = one.weight or 0
    # A share that is not nothing is to be seen.
    full = max(1, round(weight * BAR / 100)) if weight else 0
    return Text.assemble(("━" * full, "yellow"), ("─" * (BAR - full), "blue" if one.weight is not None else "dim"))


def _head(one: Seen) -> Text:
    phase = (one.phase.ljust(PHASE), STYLES.get(one.phase, "cyan"))
    return Text.assemble("   ", (one.app.ljust(APP), "bold"), phase, bar(one), "  ", share(one))


def _state(one: Seen, now: datetime) -> Text:
    """What comes next, and what there is to worry about."""
    if one.phase == "Failed":
        return Text.assemble(SIDE, ("why: ", "dim"), one.failure)
    parts: list[tuple[str, str]] = []
    if one.failed:
        parts += [(_failed(one), "bold yellow"), (", ", "dim")]
    if one.due is not None:
        left = (one.due - now).total_seconds()
        parts.append((f"next step in {left:.0f} s" if left >= 1 else "next step now", "dim"))
    else:
        parts.append(("at rest", "dim"))
    return Text.assemble(SIDE, *parts)


def _checks(one: Seen) -> list[Text]:
    """A line for each metric: value, bounds, and what follows where it is not good."""
    if not one.checks:
        return [Text(f"{SIDE}nothing measured yet", "dim")]
    lines = []
    for metric, value, threshold, verdict in one.checks:
        good = verdict == "Pass"
        sign = ("✓ ", "green") if good else ("✗ ", "bold red")
        said = ("" if good else verdict, "bold red")
        lines.append(Text.assemble(SIDE, sign, metric.ljust(METRIC), (value.rjust(8), said[1] if not good else ""), "  ",
                                   (threshold.ljust(10), "dim"), said))  # fmt: skip
    return lines


# --- anywhere


def share(one: Seen) -> str:
    """Who gets the traffic: `60 % to shop:2.0.0`."""
    if one.weight is None:
        return ""
    return f"{one.weight} % to {short(one.trying)}" if one.weight else f"all to {short(one.serving)}"


def line(one: Seen) -> str:
    """All of it in one line, without what changes by itself."""
    parts = [one.phase or "new", *filter(None, [share(one)])]
    parts += [f"{'✓' if v == 'Pass' else '✗'} {metric} {value} ({threshold})" for metric, value, threshold, v in one.checks]
    return ", ".join([*parts, _failed(one)] if one.failed else parts)


def _failed(one: Seen) -> str:
    return f"failed checks {one.failed} of {one.threshold}"


def clock(seconds: float) -> str:
    """`1:07`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
