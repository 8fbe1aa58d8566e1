"""`imagebot explain DIRECTORY IMAGE|POLICY [TAG]`: the policies of a folder, tag by tag and marker by marker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from imagebot.api import ImagePolicy, ImageRepository, ImageUpdateAutomation
from imagebot.bot.source import Source
from imagebot.bot.update import MAX_FILE, MarkerMemory, marked_files, setter_values
from imagebot.explain import sections as parts
from imagebot.explain.chain import Chain, open_chain
from imagebot.explain.command import Explainer
from imagebot.explain.marked import MarkerRow, Writer, marker_rows, markers_section
from imagebot.explain.print import as_data, print_sections
from imagebot.explain.sections import Scan, Section
from imagebot.explain.tags import InvalidFilter, judge, policy_of
from imagebot.markers.files import update_root
from imagebot.plan.plan import held_because
from imagebot.plan.rehearsal import Overheard, Rehearsal, rehearsed
from imagebot.policy.base import InvalidPolicy
from imagebot.policy.controller import referred
from imagebot.scan.tags import InvalidExclusion
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.selectors import compile_selector
from reconcile.app import Registry, load_packages
from reconcile.cli.output import print_data
from reconcile.cli.place import Place
from reconcile.errors import Invalid, NotFound, ReconcileError
from reconcile.git.mirror import Mirror
from reconcile.redact import redact_url
from reconcile.registry.names import InvalidImage, parse_reference
from reconcile.settings import Settings

CHOSEN, UNKNOWN, NOT_CHOSEN = 0, 1, 2

Explanation = tuple[AnyResource, list[Section]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: of which folder, about which image or policy, and about which tag, if any."""

    directory: Path
    word: str
    tag: str


def explain_folder(question: Question, place: Place, *, rows: int | None, timeout: float, scan: bool, output: str) -> int:
    """Print the explanation; the exit code.

    Raises:
        UsageError: The options are for another place than the folder.
        Invalid: There is no such policy and no such image.
    """
    if place.kubeconfig or place.context:
        raise click.UsageError("--kubeconfig and --context are for clusters; a folder was named.")
    place = replace(place, directory=question.directory)
    code, found = asyncio.run(_explain(question, place, load_packages(), rows, timeout, scan))
    if output == "json":
        print_data({"explained": [as_data(resource, sections) for resource, sections in found]}, "json")
        return code
    for number, (_, sections) in enumerate(found):
        if number:
            click.echo("\n")
        print_sections(sections)
    return code


async def _explain(
    question: Question, place: Place, registry: Registry, rows: int | None, timeout: float, scan: bool
) -> tuple[int, list[Explanation]]:
    async with open_chain(place, registry.scheme) as chain:
        explainer = Explainer(chain, rows, timeout if scan else 0.0)
        subjects, tag = await _subjects(chain, question, place.namespace)
        policies = [subject for subject in subjects if subject.kind == "ImagePolicy"]
        if not policies:
            found = [(s, [parts.about(s, explainer.now), *await explainer.repository(s)]) for s in subjects]
            return (NOT_CHOSEN if tag else CHOSEN), found
        keys = {(policy.kind, policy.key) for policy in policies} | {("ImageRepository", referred(p)) for p in policies}

        def wanted(resource: AnyResource) -> bool:
            return scan and (resource.kind, resource.key) in keys

        answer = []
        settings = Settings(concurrent=4, user_docker_config=True)
        lists = Overheard()
        explainer.heard = lists.tags
        # The registry may need its time in the pass too, and once more for the token.
        async with rehearsed(
            question.directory, registry, settings, place.state, timeout=2 * timeout + 10, wanted=wanted, lists=lists
        ) as rehearsal:
            codes = []
            for policy in policies:
                sections = [parts.about(policy, explainer.now), *await explainer.policy(policy)]
                after = await rehearsal.store.get("ImagePolicy", policy.key)
                if tag:
                    code, section = await _tag(chain, explainer.scans.get(referred(policy)), policy, after, tag)
                    codes.append(code)
                    sections = _instead(sections, section)
                sections += _held(after)
                sections.append(await _markers(rehearsal, after))
                answer.append((policy, sections))
        worst = UNKNOWN if UNKNOWN in codes else max(codes, default=CHOSEN)
        return worst, answer


# --- what is meant


async def _subjects(chain: Chain, question: Question, namespace: str | None) -> tuple[Sequence[AnyResource], str]:
    """The policies that a word means (or repositories without policies), and the tag that is asked about."""
    policies: Sequence[ImagePolicy] = [p for p in await chain.all_of("ImagePolicy") if namespace in (None, p.key.namespace)]
    repositories: Sequence[ImageRepository] = await chain.all_of("ImageRepository")
    word = question.word
    if named := [p for p in policies if word in (p.key.name, str(p.key), f"imagepolicy/{p.key.name}")]:
        return named, question.tag
    image, tag = _image(word)
    meant = [r for r in repositories if word in (r.key.name, str(r.key)) or (image and _image(r.spec.image)[0] == image)]
    keys = {repository.key for repository in meant}
    if using := [policy for policy in policies if referred(policy) in keys]:
        return using, question.tag or tag
    if not meant:
        known = ", ".join([*(str(p.key) for p in policies[:10]), *(r.spec.image for r in repositories[:10])]) or "none"
        raise Invalid(f"{question.directory} has no ImagePolicy and no image {word}; there are: {known}")
    return meant, question.tag or tag


def _image(text: str) -> tuple[str, str]:
    """The full name of an image and the tag that is written behind it; empty when it is none."""
    try:
        reference = parse_reference(text)
    except InvalidImage:
        return "", ""
    return reference.repository.canonical, reference.tag or ""


# --- one tag


def _instead(sections: list[Section], tag: Section) -> list[Section]:
    """The sections with that of the one tag in the place of the table of all tags."""
    places = [number for number, section in enumerate(sections) if section.title == "Tags"]
    at = places[0] if places else len(sections)
    return [*sections[:at], tag, *sections[at + bool(places) :]]


async def _tag(chain: Chain, scan: Scan | None, before: ImagePolicy, after: ImagePolicy, tag: str) -> tuple[int, Section]:
    asked = ("tag", tag)
    if scan is None or not scan.fresh:
        why = scan.problem if scan is not None else "its ImageRepository is not there"
        return UNKNOWN, Section("Tag", (asked,), notes=(f"It cannot be told: {why}.",))
    try:
        repository = await chain.get("ImageRepository", referred(before))
        there = tag in scan.tags
        judgement = judge([*scan.tags, tag], repository.spec.exclusions, policy_of(before.spec))
    except (NotFound, InvalidPolicy, InvalidFilter, InvalidExclusion) as error:
        return UNKNOWN, Section("Tag", (asked,), notes=(f"It cannot be told: {error}.",))
    verdict = next(verdict for verdict in judgement.verdicts if verdict.tag == tag)
    latest = after.status.latest_ref
    chosen = there and latest is not None and latest.tag == tag
    facts = [asked, ("in the registry", "yes" if there else "no: this is what would become of it")]
    facts.append(("verdict", "chosen" if chosen else str(verdict.state.value)))
    notes = []
    if verdict.why:
        facts.append(("why", verdict.why))
    if verdict.value:
        facts.append(("compared", verdict.value))
    if verdict.rank is not None:
        facts.append(("rank", str(verdict.rank)))
    if not chosen and latest is not None:
        notes.append(f"A pass now chooses {latest.tag}.")
    return (CHOSEN if chosen else NOT_CHOSEN), Section("Tag", tuple(facts), notes=tuple(notes))


def _held(after: ImagePolicy) -> list[Section]:
    """What keeps a pass now from choosing what the rule prefers."""
    held = held_because(after)
    if held is None:
        return []
    latest = after.status.latest_ref
    return [Section("Held", (("why", held), ("a pass now has", str(latest) if latest else "no choice")))]


# --- markers


async def _markers(rehearsal: Rehearsal, policy: ImagePolicy) -> Section:
    """Every marker of a policy in every repository that an automation of the folder writes to."""
    latest = policy.status.latest_ref
    rows: list[MarkerRow] = []
    problems: list[str] = []
    looked_at: list[str] = []
    try:
        values = setter_values(policy.key.namespace, {policy.key.name: latest}) if latest is not None else {}
    except ReconcileError as error:
        return Section("Markers", notes=(f"{error}.",))
    for source, mirror, base, name, writers in await _repositories(rehearsal, policy, problems):
        where = f"{name}: {redact_url(source.url)}, branch {source.push_branch}, at {base[:12]}"
        try:
            for entry, found in await marked_files(mirror, base, MarkerMemory()):
                data = (await mirror.read([entry.oid], MAX_FILE))[entry.oid]
                rows += marker_rows(name, entry.path, data, found, policy.key, values, writers)
        except ReconcileError as error:
            problems.append(f"{where}: {error}")
        else:
            looked_at.append(where)
    return markers_section(rows, problems, looked_at)


async def _repositories(
    rehearsal: Rehearsal, policy: ImagePolicy, problems: list[str]
) -> list[tuple[Source, Mirror, str, str, list[Writer]]]:
    """Each repository and branch once, with the commit to look at, its name, and all automations that write there."""
    found: dict[tuple[str, str], tuple[Source, Mirror, str, str, list[Writer]]] = {}
    for automation in await rehearsal.automations():
        try:
            source, mirror, ground = await rehearsal.updater.ground(automation, {})
        except ReconcileError as error:
            problems.append(f"{automation.kind} {automation.key}: {error}")
            continue
        name = _source_name(automation)
        entry = found.setdefault((source.url, source.push_branch), (source, mirror, ground.base, name, []))
        entry[4].append(_writer(automation, policy))
    return list(found.values())


def _source_name(automation: ImageUpdateAutomation) -> str:
    reference = automation.spec.source_ref
    return str(Key(reference.namespace or automation.key.namespace, reference.name))


def _writer(automation: ImageUpdateAutomation, policy: ImagePolicy) -> Writer:
    try:
        selects = compile_selector(automation.spec.policy_selector)(policy.meta.labels)
    except Invalid:
        selects = False
    return Writer(automation.key, update_root(automation.spec.update.path), selects, bool(automation.spec.suspend))
