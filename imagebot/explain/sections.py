"""The explanation of an object, section by section: facts, a table, sentences. Pure; printing is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from imagebot.api import ImagePolicy, ImageRepository, ImageUpdateAutomation
from imagebot.explain.tags import Judgement, State, rule_in_words
from imagebot.policy.choose import Policy
from reconcile.api import conditions as cond
from reconcile.api.resource import AnyResource
from reconcile.cli.columns import age

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head; `more` says how many rows were left out."""

    head: tuple[str, ...]
    """Titles; a column that is empty in all rows is not shown to people."""
    rows: tuple[tuple[str, ...], ...]
    more: int = 0


@dataclass(frozen=True, slots=True)
class Section:
    """One part of an explanation."""

    title: str
    facts: Facts = ()
    table: Table | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scan:
    """The tags that an explanation is made from.

    Attributes:
        tags: what the registry has; or, if it was not asked, the latest tags of the status.
        fresh: whether the registry was asked.
        problem: why it was not asked, or what it answered instead.
    """

    tags: tuple[str, ...]
    fresh: bool
    problem: str = ""


# --- every object


def about(resource: AnyResource, now: datetime) -> Section:
    """How the object is doing."""
    facts: list[tuple[str, str]] = []
    notes: list[str] = []
    if resource.spec.suspend:
        facts.append(("suspended", "yes: nothing is done until it is resumed"))
    facts += [(entry.type.lower(), condition_text(resource, entry.type, now)) for entry in resource.status.conditions or ()]
    if not resource.status.conditions:
        notes.append("No controller has looked at it yet.")
    elif resource.status.observed_generation not in (resource.meta.generation, None) and resource.meta.generation > 1:
        notes.append("Its spec is newer than the last pass that came to an end.")
    if resource.meta.deletion_timestamp:
        notes.append("It is being deleted.")
    return Section(f"{resource.kind} {resource.key}", tuple(facts), notes=tuple(notes))


def condition_text(resource: AnyResource, kind: str, now: datetime) -> str:
    """A condition in one line: `True, Succeeded, 5m ago: …`."""
    found = cond.get(resource.status.conditions, kind)
    if found is None:
        return "not known yet"
    since = ago(found.last_transition_time, now)
    return f"{found.status}, {found.reason}, since {since}: {found.message}" if since else f"{found.status}: {found.message}"


def ago(moment: str | None, now: datetime) -> str:
    """`5m`, or an empty text."""
    return age(moment or "", now)


# --- ImageRepository


def repository_section(repository: ImageRepository, scan: Scan, judgement: Judgement | None, now: datetime) -> Section:
    """The image, its last scan, and what the registry has now."""
    spec, status = repository.spec, repository.status
    last = status.last_scan_result
    scanned = "never"
    if last is not None:
        scanned = f"{ago(last.scan_time, now) or 'some time'} ago: {last.tag_count} tags kept, checksum {last.revision}"
    facts = [
        ("image", spec.image),
        ("last scan", scanned),
        ("interval", str(spec.interval)),
        ("exclusions", ", ".join(spec.exclusions)),
    ]
    if spec.hint is not None:
        facts.append(("hints", f"of {spec.hint.type} at {status.hint_path or '(no path yet)'}"))
    notes: list[str] = []
    if spec.hint is not None and status.hint_problem:
        notes.append(f"Hints are not taken: {status.hint_problem}.")
    if judgement is not None and scan.fresh:
        kept = len(judgement.verdicts) - judgement.count(State.EXCLUDED)
        facts.append(("in the registry", f"{len(judgement.verdicts)} tags, {kept} kept"))
        if last is not None and last.tag_count != kept:
            notes.append(
                f"The registry has changed since the last scan: a scan now would keep {kept} tags, not {last.tag_count}."
            )
    if scan.problem:
        notes.append(f"The registry was not read: {scan.problem}.")
        notes.append("What follows is made from the latest ten tags, which its status has; others are not judged.")
    return Section(f"Repository {repository.key}", tuple(facts), notes=tuple(notes))


def tags_section(judgement: Judgement, limit: int | None) -> Section:
    """The tags and what became of each."""
    shown = judgement.verdicts if limit is None else judgement.verdicts[:limit]
    head = ("RANK", "TAG", "COMPARED", "VERDICT", "WHY")
    rows = tuple((str(v.rank or ""), v.tag, v.value, v.state.value, v.why) for v in shown)
    possible = judgement.count(State.CHOSEN, State.CANDIDATE)
    counts = [("can be chosen", str(possible))] if possible else []
    others = (State.KEPT, State.OUTSIDE, State.UNREADABLE, State.FILTERED, State.EXCLUDED)
    counts += [(state.value, str(judgement.count(state))) for state in others if judgement.count(state)]
    return Section("Tags", tuple(counts), Table(head, rows, len(judgement.verdicts) - len(shown)))


def users_section(policies: Sequence[ImagePolicy]) -> Section:
    """The policies that choose from a repository."""
    if not policies:
        return Section("Policies", notes=("No ImagePolicy of the namespaces looked at chooses from it.",))
    rows = tuple((str(p.key), _ref(p), ready_word(p)) for p in policies)
    return Section("Policies", table=Table(("POLICY", "IMAGE", "READY"), rows))


# --- ImagePolicy


def rule_section(policy: Policy) -> Section:
    """What the policy asks for."""
    facts = [("takes", rule_in_words(policy))]
    if policy.tag_filter.pattern:
        facts.append(("of tags that match", policy.tag_filter.pattern))
    if policy.tag_filter.extract:
        facts.append(("compared by", policy.tag_filter.extract))
    if extra := getattr(policy.rule, "filter", ""):
        facts.append(("and match", extra))
    return Section("Rule", tuple(facts), notes=tuple(policy.warnings))


def choice_section(resource: ImagePolicy, judgement: Judgement | None, scan: Scan) -> Section:
    """The image that is in force, why, and whether a pass now would change it."""
    status, facts, notes = resource.status, [], []
    latest = status.latest_ref
    facts.append(("image", str(latest) if latest else "none yet"))
    if judgement is not None and judgement.choice is not None and latest is not None and judgement.choice.tag == latest.tag:
        facts.append(("because it is", judgement.choice.reason))
    elif judgement is not None and judgement.choice is not None and scan.fresh:
        held = cond.is_true(status.conditions, "Held")
        who = "The rule alone" if held else "The next scan and pass"
        notes.append(f"{who} would choose {judgement.choice.tag}: {judgement.choice.reason}.")
    elif judgement is not None and judgement.problem and scan.fresh:
        kept = f" {latest} stays in force." if latest else ""
        notes.append(f"From the tags of now nothing can be chosen: {judgement.problem}.{kept}")
    if status.observed_previous_ref is not None:
        facts.append(("before", str(status.observed_previous_ref)))
    facts.append(("digest", _digest_in_words(resource)))
    return Section("Choice", tuple(facts), notes=tuple(notes))


def _digest_in_words(resource: ImagePolicy) -> str:
    match resource.spec.digest_reflection_policy:
        case "Always":
            return f"looked up every {resource.spec.interval}"
        case "IfNotPresent":
            return "looked up once for each tag that is chosen"
        case _:
            return "not looked up (digestReflectionPolicy: Never)"


def automations_section(automations: Sequence[ImageUpdateAutomation], others: int, now: datetime) -> Section:
    """Who writes the choice into Git."""
    if not automations:
        text = "Nobody writes this image into Git: the namespace has no ImageUpdateAutomation"
        return Section("Automations", notes=(f"{text} that selects this policy." if others else f"{text}.",))
    rows = tuple((a.key.name, ready_word(a), _pushed(a, now)) for a in automations)
    return Section("Automations", table=Table(("AUTOMATION", "READY", "LAST PUSH"), rows))


# --- ImageUpdateAutomation


def source_section(automation: ImageUpdateAutomation, url: str | None, problem: str) -> Section:
    """The repository that is written to."""
    spec = automation.spec
    namespace = spec.source_ref.namespace or automation.key.namespace
    facts = [("GitRepository", f"{namespace}/{spec.source_ref.name}")]
    if url:
        facts.append(("url", url))
    if spec.git is not None and spec.git.push is not None and spec.git.push.branch:
        facts.append(("pushes to", spec.git.push.branch))
    facts.append(("below", spec.update.path or "the whole repository"))
    return Section("Source", tuple(facts), notes=(problem,) if problem else ())


def selected_section(selected: Sequence[ImagePolicy], left_out: Sequence[ImagePolicy], seen: Mapping[str, object]) -> Section:
    """The policies of the namespace, and what the last run knew of each."""
    rows = []
    for policy in selected:
        latest = policy.status.latest_ref
        known = seen.get(policy.key.name)
        note = "has not chosen yet: its markers are left alone" if latest is None else ""
        if latest is not None and known != latest:
            note = f"new since the last run, which had {known}" if known is not None else "new since the last run"
        rows.append((policy.key.name, str(latest) if latest else "none yet", note))
    rows += [(policy.key.name, _ref(policy), "not selected: its labels do not match policySelector") for policy in left_out]
    if not rows:
        return Section("Policies", notes=("The namespace has no ImagePolicy: there is nothing to write.",))
    return Section("Policies", table=Table(("POLICY", "IMAGE", "WHY"), tuple(rows)))


def run_section(automation: ImageUpdateAutomation, now: datetime) -> Section:
    """The last run and the last push."""
    status = automation.status
    facts = [("last run", f"{ago(status.last_automation_run_time, now)} ago" if status.last_automation_run_time else "never")]
    if status.observed_source_revision:
        facts.append(("at", status.observed_source_revision))
    facts.append(("last push", _pushed(automation, now)))
    return Section("Runs", tuple(facts))


def skipped_section(automation: ImageUpdateAutomation) -> Section | None:
    """The markers and files that the last run could not use; None when it could use all."""
    skipped = automation.status.skipped or ()
    if not skipped:
        return None
    rows = tuple((f"{s.path}:{s.line}" if s.line else s.path, s.marker or "", s.message) for s in skipped)
    return Section("Skipped", table=Table(("FILE", "MARKER", "WHY"), rows))


def requests_section(automation: ImageUpdateAutomation) -> Section | None:
    """The pull requests that it keeps up to date, and those that ended last; None when there are none."""
    found = automation.status.pull_requests or []
    if not found:
        return None
    rows = tuple(
        (
            str(entry.number or "-"),
            entry.state,
            entry.branch,
            entry.group or "all",
            "; ".join(entry.images or ()),
            entry.message or "",
        )
        for entry in found
    )
    return Section("Pull requests", table=Table(("NUMBER", "STATE", "BRANCH", "OF", "BRINGS", "NOTE"), rows))


def waiting_section(automation: ImageUpdateAutomation, selected: Sequence[ImagePolicy]) -> Section:
    """What the automation waits for."""
    ready = cond.get(automation.status.conditions, cond.READY)
    notes = []
    if automation.spec.suspend:
        notes.append("To be resumed.")
    elif cond.is_true(automation.status.conditions, cond.STALLED):
        notes.append("An edit: it is not tried again before its spec, or what it refers to, changes.")
    elif ready is not None and ready.status == "False":
        notes.append("The next try: it failed, and is tried again with a growing delay.")
    elif automation.status.pending_until:
        since = f" the first has been due since {automation.status.pending_since}," if automation.status.pending_since else ""
        notes.append(f"More changes for the same commit:{since} at {automation.status.pending_until} it is made.")
    elif changed := [p.key.name for p in selected if _is_new(automation, p)]:
        notes.append(f"The run that writes the new choice of {', '.join(changed)}.")
    else:
        notes.append(f"A policy that chooses another image; otherwise it looks at the branch every {automation.spec.interval}.")
    if undecided := [p.key.name for p in selected if p.status.latest_ref is None]:
        notes.append(f"A first choice of {', '.join(undecided)}: see imagebot explain imagepolicy/{undecided[0]}.")
    return Section("Waits for", notes=tuple(notes))


def _is_new(automation: ImageUpdateAutomation, policy: ImagePolicy) -> bool:
    known = (automation.status.observed_policies or {}).get(policy.key.name)
    return policy.status.latest_ref is not None and policy.status.latest_ref != known


def _pushed(automation: ImageUpdateAutomation, now: datetime) -> str:
    status = automation.status
    if not status.last_push_commit:
        return "never"
    when = f", {ago(status.last_push_time, now)} ago" if status.last_push_time else ""
    return f"{status.last_push_commit[:12]}{when}"


def ready_word(resource: AnyResource) -> str:
    """`True`, `False`, `Unknown` or `Suspended`; `-` when nobody has looked yet."""
    if resource.spec.suspend:
        return "Suspended"
    ready = cond.get(resource.status.conditions, cond.READY)
    return ready.status if ready else "-"


def _ref(policy: ImagePolicy) -> str:
    return str(policy.status.latest_ref) if policy.status.latest_ref else "none yet"
