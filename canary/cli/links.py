"""The links of the chain that an explanation is: what blocks, which gate, which check, when the next step is. Pure."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from datetime import datetime, timedelta

from canary.cli.facts import Facts, Kind, Line
from canary.cli.view import View, seconds_left, short
from canary.metrics.base import Verdict
from canary.phases import Phase
from canary.plan import HookType
from canary.seen import Wish
from canary.workload.base import Readiness
from reconcile.cli.columns import age
from reconcile.ports.clock import parse_timestamp

Lines = Iterator[Line]

_GATES: Mapping[HookType, str] = {
    HookType.CONFIRM_ROLLOUT: r"advancement waiting for approval (\S+)",
    HookType.CONFIRM_PROMOTION: r"advancement waiting for promotion approval (\S+)",
    HookType.CONFIRM_TRAFFIC_INCREASE: r"advancement waiting for traffic increase approval (\S+)",
}
CHECK_FAILED = r"advancement (?:external|pre-rollout) check \S+ failed"
SETUP_FAILED = r"Error checking metric providers: "


def blockers(facts: Facts) -> list[tuple[str, str]]:
    """What keeps every tick from its end, each with what to do."""
    found = []
    if facts.target_problem:
        found.append((facts.target_problem, "Create or correct the target; it is noticed at once."))
    if facts.configs_problem:
        found.append((facts.configs_problem, "Create it, or mark the reference optional."))
    if facts.routes_problem:
        found.append((facts.routes_problem, _routes_advice(facts.routes_problem)))
    return found


def _routes_advice(problem: str) -> str:
    if "no matches for kind" in problem:
        return "Install the definitions of this provider, or name another one in spec.provider."
    if "is not ready (status:" in problem:
        return "The gateway has not accepted the route: see the status of the HTTPRoute and of its Gateway."
    return "The service makes what is missing with its next step; see its logs if it stays so."


def blocked(facts: Facts) -> Generator[Line, None, bool]:
    """Say what blocks; a generator that returns whether anything does."""
    found = blockers(facts)
    for problem, advice in found:
        yield Line(Kind.BAD, f"{problem}.")
        yield Line(Kind.DO, advice)
    for name in facts.missing_templates:
        yield Line(Kind.BAD, f"There is no MetricTemplate {name}: each check fails.")
    return bool(found)


def unready(facts: Facts) -> Generator[Line, None, bool]:
    """Say which workload is not ready; returns whether one is not."""
    for readiness in (facts.primary, facts.ready):
        if readiness is not None and not readiness.ready:
            yield from not_ready(facts, readiness, "the run is rolled back then")
            return True
    return False


def not_ready(facts: Facts, readiness: Readiness, then: str) -> Lines:
    """Say why a workload cannot take traffic, how long it may be so, and what follows."""
    yield Line(Kind.BAD, f"{readiness.text}.")
    status, plan = facts.view.canary.status, facts.view.plan
    if not readiness.retriable:
        yield Line(Kind.NOTE, f"Its deadline is over ({short(plan.deadline)}, progressDeadlineSeconds): {then}.")
        return
    left = seconds_until(status.not_ready_since, plan.deadline + plan.interval, facts.now)
    if left is None:
        yield Line(Kind.NOTE, f"It may take {short(plan.deadline)} (progressDeadlineSeconds): {then}.")
    else:
        since = age(status.not_ready_since or "", facts.now)
        yield Line(Kind.NOTE, f"So it has been for {since}, and may be for {short(round(left))} more: {then}.")
    yield Line(Kind.DO, "See its pods: images that cannot be pulled, failing probes, missing room on nodes.")


def gate(facts: Facts, kind: HookType) -> Lines:
    """Say which gate of a kind is closed, since when, and what becomes of it."""
    view = facts.view
    since = view.canary.status.phase_since
    shut = closed(facts, kind)
    names = view.hooks(kind)
    if shut is not None:
        yield Line(Kind.WAITS, f"The gate {shut} ({kind.value}) is closed, {lasting(since, facts.now)}.")
    elif names:
        yield Line(Kind.WAITS, f"One of the gates is closed, {lasting(since, facts.now)}: {names} ({kind.value}).")
    else:
        yield Line(Kind.WAITS, f"The spec has no {kind.value} gate any more: it goes on with the next step.")
        return
    yield from _gate_deadline(facts, since)
    yield from next_step(facts, "The gate is asked again")


def traffic_gate(facts: Facts) -> Lines:
    """Say which gate keeps the weight where it is, if one does."""
    since = facts.view.canary.status.gate_since
    shut = closed(facts, HookType.CONFIRM_TRAFFIC_INCREASE, recent=True)
    if not since and shut is None:
        return
    names = shut or facts.view.hooks(HookType.CONFIRM_TRAFFIC_INCREASE)
    lasts = f", {lasting(since, facts.now)}" if since else ""
    yield Line(Kind.WAITS, f"A closed gate (confirm-traffic-increase) keeps the weight where it is{lasts}: {names}.")
    if since:
        yield from _gate_deadline(facts, since)


def _gate_deadline(facts: Facts, since: str | None) -> Lines:
    limit = facts.view.plan.gate_deadline
    left = seconds_until(since, limit, facts.now) if limit is not None else None
    if left is not None:
        yield Line(Kind.NOTE, f"In {short(max(0, round(left)))} it is rolled back, if the gate is closed still (gateDeadline).")
    else:
        yield Line(Kind.NOTE, "It waits for ever: there is no gateDeadline.")


def failed_checks(facts: Facts) -> Lines:
    """Say how many checks have failed, and which."""
    view = facts.view
    if view.failed:
        left = view.plan.threshold - view.failed
        text = f"{view.failed} of {view.plan.threshold} checks have failed; {left} more, and it is rolled back."
        yield Line(Kind.BAD if left <= 1 else Kind.NOTE, text)
    for check in view.canary.status.checks or ():
        if check.verdict != Verdict.PASS:
            yield Line(Kind.BAD, check_words(check.metric, check.verdict, check.value, check.threshold, check.message))
    if (said := recent(facts, CHECK_FAILED)) is not None:
        yield Line(Kind.BAD, f"{said}.")


def check_words(metric: str, verdict: str, value: str | None, threshold: str | None, message: str | None) -> str:
    """A metric that did not pass, in a sentence."""
    if verdict == Verdict.FAIL and value:
        return f"Metric {metric} is {value}, and should be {threshold}."
    return f"Metric {metric}: {message or verdict}."


def weights(facts: Facts) -> Lines:
    """Say what the routes do."""
    if facts.live is None:
        return
    text = f"The routes send {facts.live.canary} percent to the canary"
    if facts.live.mirrored:
        text += ", and a copy of the requests"
    if facts.live.canary != facts.view.weight and facts.view.phase is Phase.PROGRESSING:
        yield Line(Kind.NOTE, f"{text}, the status says {facts.view.weight}: what is live counts.")
    else:
        yield Line(Kind.GOOD, f"{text}.")


def next_step(facts: Facts, what: str = "The next step is due") -> Lines:
    """Say when the next step is due, or how late it is."""
    left = seconds_left(facts.view, facts.now)
    if left is None:
        return
    if left > 0:
        yield Line(Kind.WAITS, f"{what} in {short(max(1, round(left)))}.")
    elif (
        late := seconds_until(facts.view.canary.status.next_step_time, 0, facts.now)
    ) is not None and late < -facts.view.plan.interval:
        yield Line(Kind.BAD, f"The next step is {short(round(-late))} late: does the service run?")
    else:
        yield Line(Kind.WAITS, f"{what} now.")


def last_words(facts: Facts) -> Lines:
    """The last warning, word for word."""
    last = next((said for said in reversed(facts.said) if said.type == "Warning"), None)
    if last is not None:
        yield Line(Kind.BAD, f"{last.message}.")


def asked(facts: Facts) -> Lines:
    """Say what somebody has asked for and nobody has done yet."""
    asked = facts.view.asked
    if not asked:
        return
    word = asked.split()[0].lower()
    if word in set(Wish):
        yield Line(Kind.NOTE, f"Somebody asks for {word}, and it is not done yet.")
    else:
        yield Line(Kind.NOTE, f'The annotation imagebot.dev/action says "{word}": known are promote, rollback and retry.')


def unread(facts: Facts) -> Lines:
    """Say what the reader has no right to read."""
    for text in facts.denied:
        yield Line(Kind.NOTE, f"Not known, because you may not read it: {text}")


# --- words


def closed(facts: Facts, kind: HookType, *, recent: bool = False) -> str | None:
    """The gate that the last Event of this phase says is closed."""
    earliest = facts.view.canary.status.phase_since or ""
    if recent:
        earliest = (facts.now - timedelta(seconds=2 * facts.view.plan.interval)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for said in reversed(facts.said):
        if said.at[:19] >= earliest[:19] and (match := re.search(_GATES[kind], said.message)):
            return match[1]
    return None


def recent(facts: Facts, pattern: str, *, any_age: bool = False) -> str | None:
    """The last warning that matches, of the last two ticks."""
    earliest = (facts.now - timedelta(seconds=2 * facts.view.plan.interval)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for said in reversed(facts.said):
        if said.type == "Warning" and (any_age or said.at[:19] >= earliest[:19]) and re.search(pattern, said.message):
            return said.message
    return None


def seconds_until(since: str | None, limit: float, now: datetime) -> float | None:
    """Seconds that are left of a limit; None when it is not known since when."""
    if not since:
        return None
    try:
        return limit - (now - parse_timestamp(since)).total_seconds()
    except ValueError:
        return None


def lasting(since: str | None, now: datetime) -> str:
    """`for 5m`, also of a moment that is not known."""
    return f"for {age(since, now)}" if since else "for some time"


def ago(since: str | None, now: datetime) -> str:
    """`5m ago`, also of a moment that is not known."""
    return f"{age(since, now)} ago" if since else "some time ago"


def command(verb: str, view: View) -> str:
    """A command that does this to the Canary."""
    return f"imagebot canary {verb} {view.canary.meta.name} -n {view.canary.meta.namespace}"
