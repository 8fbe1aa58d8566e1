"""`imagebot explain KIND/NAME`: reads the chain of objects and the registry, writes nothing anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from imagebot.api import ImagePolicy, ImageRepository, ImageUpdateAutomation
from imagebot.explain import sections as parts
from imagebot.explain.chain import Chain, open_chain
from imagebot.explain.held import held_section
from imagebot.explain.print import as_data, print_sections
from imagebot.explain.sections import Scan, Section
from imagebot.explain.tags import Judgement, judge, policy_of
from imagebot.policy.base import InvalidFilter, InvalidPolicy
from imagebot.policy.choose import Policy
from imagebot.policy.controller import referred
from imagebot.scan.access import repository_of
from imagebot.scan.tags import InvalidExclusion
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.api.selectors import compile_selector
from reconcile.app import load_packages
from reconcile.cli.columns import present
from reconcile.cli.output import print_data
from reconcile.cli.place import Place
from reconcile.cli.target import DURATION, PATIENCE, finish, one_subject, place_options
from reconcile.errors import Invalid, ReconcileError
from reconcile.redact import redact_url
from reconcile.registry.names import Repository
from reconcile.runtime.logs import configure

EXPLAINED = ("ImageRepository", "ImagePolicy", "ImageUpdateAutomation")


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND[/NAME] [NAME] | DIRECTORY IMAGE|POLICY [TAG]")
@click.option("--tags", "limit", type=click.IntRange(1), default=20, show_default=True, help="Rows of the table of tags.")
@click.option("--all-tags", is_flag=True, help="All rows of the table of tags.")
@click.option("--scan/--no-scan", default=True, show_default=True, help="Ask the registry for its tags; else use the status.")
@click.option("--timeout", type=DURATION, default="30s", show_default=True, help="Most time for the registry.")
@place_options()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def explain(words: tuple[str, ...], limit: int, all_tags: bool, scan: bool, timeout: float, place: Place, output: str) -> int:
    """Explain why an image was chosen, or was not: the repository, each tag, the rule, the automation, and what it waits for.

    With DIRECTORY: the policies of that name, or all that choose from that image, and besides every marker of theirs in the
    repositories of the automations: file, line, old value, new value, and whether and why it would be changed or not. With TAG:
    what becomes of that tag.

    Reads objects, the Secrets they name, the registry and repositories; writes nothing anywhere. Exit code 0: explained, and TAG,
    if given, is the one that is chosen; 2: TAG is not chosen; 1: it cannot be told.
    """
    configure("none")
    scheme = load_packages().scheme
    if names_folder(words, place, scheme):
        from imagebot.explain.folder import Question, explain_folder

        if len(words) not in (2, 3):
            raise click.UsageError(
                "name an image or a policy behind the folder, and perhaps a tag: DIRECTORY IMAGE|POLICY [TAG]."
            )
        question = Question(Path(words[0]), words[1], words[2] if len(words) == 3 else "")
        return explain_folder(question, place, rows=None if all_tags else limit, timeout=timeout, scan=scan, output=output)
    info, name = one_subject(scheme, words)
    if info.kind not in EXPLAINED:
        raise Invalid(f"there is nothing to explain of a {info.kind}: ask for one of {', '.join(EXPLAINED)}")
    rows = None if all_tags else limit
    resource, found = finish(_explain(scheme, info, name, place, rows, timeout if scan else 0.0), timeout + PATIENCE)
    if output == "json":
        print_data(as_data(resource, found), "json")
    else:
        print_sections(found)
    return 0


def names_folder(words: Sequence[str], place: Place, scheme: Scheme) -> bool:
    """Whether the first word is a folder: one that is there, unless it is also a word for a kind."""
    first = words[0]
    if place.directory is not None or not Path(first).is_dir():
        return False
    groups = {info.group.split(".")[0] for info in scheme}
    word = first.partition("/")[0].partition(",")[0]
    return not (any(info.matches(word) for info in scheme) or word in groups)


async def _explain(
    scheme: Scheme, info: KindInfo, name: str, place: Place, rows: int | None, timeout: float
) -> tuple[AnyResource, list[Section]]:
    async with open_chain(place, scheme) as chain:
        resource = await chain.only(info, name)
        explainer = Explainer(chain, rows, timeout)
        match info.kind:
            case "ImageRepository":
                found = await explainer.repository(resource)
            case "ImagePolicy":
                found = await explainer.policy(resource)
            case _:
                found = await explainer.automation(resource)
        return resource, [parts.about(resource, explainer.now), *found]


class Explainer:
    """Reads what belongs to an object and makes sections of it. `rows` None: all tags; `timeout` 0: do not ask the registry."""

    def __init__(self, chain: Chain, rows: int | None, timeout: float) -> None:
        self.now = present()
        self._chain = chain
        self._rows = rows
        self._timeout = timeout
        self.scans: dict[Key, Scan] = {}
        """The tags of each repository that was looked at."""
        self.heard: Callable[[Repository], tuple[str, ...] | None] = lambda _: None
        """The tags of an image that somebody has asked the registry for already."""

    async def repository(self, resource: ImageRepository) -> list[Section]:
        """The tags of a repository, and who chooses from them."""
        scan = await self._scan(resource)
        judgement, notes = _judged(scan, resource, None)
        found = [parts.repository_section(resource, scan, judgement, self.now)]
        if judgement is not None:
            found.append(parts.tags_section(judgement, self._rows))
        return [*found, *notes, await self._users(resource)]

    async def _users(self, resource: ImageRepository) -> Section:
        try:
            policies: Sequence[ImagePolicy] = await self._chain.all_of("ImagePolicy")
        except ReconcileError as error:
            return Section("Policies", notes=(f"They cannot be read: {error}.",))
        return parts.users_section([policy for policy in policies if referred(policy) == resource.key])

    async def policy(self, resource: ImagePolicy) -> list[Section]:
        """From the image to the choice, and who writes it into Git."""
        users = await self._writers(resource)
        key = referred(resource)
        try:
            repository = await self._chain.get("ImageRepository", key)
        except ReconcileError as error:
            missing = Section(f"Repository {key}", notes=(f"It cannot be read: {error}.",))
            return [missing, parts.choice_section(resource, None, Scan((), fresh=False)), users]
        scan = await self._scan(repository)
        try:
            policy = policy_of(resource.spec)
        except InvalidPolicy as error:
            judgement, notes = _judged(scan, repository, None)
            bad = Section("Rule", notes=(f"Nobody can follow it: {error}.",))
            return [parts.repository_section(repository, scan, judgement, self.now), *notes, bad, users]
        judgement, notes = _judged(scan, repository, policy)
        found = [parts.repository_section(repository, scan, judgement, self.now), parts.rule_section(policy), *notes]
        if judgement is not None:
            found.append(parts.tags_section(judgement, self._rows))
            found += await self._held(resource, repository, policy, scan)
        return [*found, parts.choice_section(resource, judgement, scan), users]

    async def _held(self, resource: ImagePolicy, repository: ImageRepository, policy: Policy, scan: Scan) -> list[Section]:
        try:
            holds = await self._chain.all_of("ImageHold", resource.key.namespace)
        except ReconcileError as error:
            return [Section("Kept back", notes=(f"ImageHolds cannot be read: {error}.",))]
        found = held_section(resource, repository, policy, scan.tags, holds, self.now) if scan.fresh else None
        return [found] if found is not None else []

    async def _writers(self, resource: ImagePolicy) -> Section:
        try:
            automations: Sequence[ImageUpdateAutomation] = await self._chain.all_of(
                "ImageUpdateAutomation", resource.key.namespace
            )
        except ReconcileError as error:
            return Section("Automations", notes=(f"They cannot be read: {error}.",))
        selecting = [automation for automation in automations if _surely_selects(automation, resource)]
        return parts.automations_section(selecting, len(automations), self.now)

    async def automation(self, resource: ImageUpdateAutomation) -> list[Section]:
        """From the choices to the commit, and what is waited for."""
        policies: Sequence[ImagePolicy] = await self._chain.all_of("ImagePolicy", resource.key.namespace)
        notes = []
        try:
            selected = [policy for policy in policies if _selects(resource, policy)]
        except Invalid as error:
            selected = []
            notes.append(Section("Selector", notes=(f"policySelector cannot be used: {error}.",)))
        left_out = [policy for policy in policies if policy not in selected]
        reference = resource.spec.source_ref
        url, problem = None, ""
        try:
            source = await self._chain.get("GitRepository", Key(reference.namespace or resource.key.namespace, reference.name))
            url = redact_url(source.spec.url)
        except ReconcileError as error:
            problem = f"It cannot be read: {error}."
        skipped, requests = parts.skipped_section(resource), parts.requests_section(resource)
        return [
            parts.source_section(resource, url, problem),
            *notes,
            parts.selected_section(selected, left_out, resource.status.observed_policies or {}),
            parts.run_section(resource, self.now),
            *([skipped] if skipped else []),
            *([requests] if requests else []),
            parts.waiting_section(resource, selected),
        ]

    async def _scan(self, repository: ImageRepository) -> Scan:
        found = self.scans.get(repository.key)
        if found is None:
            found = self.scans[repository.key] = await self._look(repository)
        return found

    async def _look(self, repository: ImageRepository) -> Scan:
        last = repository.status.last_scan_result
        known = tuple((last and last.latest_tags) or ())
        if not self._timeout:
            return Scan(known, fresh=False, problem="--no-scan was given")
        try:
            if (heard := self.heard(repository_of(repository))) is not None:
                return Scan(heard, fresh=True)
            async with asyncio.timeout(self._timeout):
                return Scan(await self._chain.tags(repository), fresh=True)
        except TimeoutError:
            return Scan(known, fresh=False, problem=f"it did not answer in {self._timeout:g} s (see --timeout)")
        except ReconcileError as error:
            return Scan(known, fresh=False, problem=str(error))


def _judged(scan: Scan, repository: ImageRepository, policy: Any) -> tuple[Judgement | None, list[Section]]:
    if not scan.tags and not scan.fresh:
        return None, []
    try:
        return judge(scan.tags, repository.spec.exclusions, policy), []
    except (InvalidExclusion, InvalidFilter) as error:
        return None, [Section("Tags", notes=(f"They cannot be told apart: {error}.",))]


def _selects(automation: ImageUpdateAutomation, policy: ImagePolicy) -> bool:
    """Whether it writes what the policy chose; raises Invalid for a selector that cannot be used."""
    return compile_selector(automation.spec.policy_selector)(policy.meta.labels)


def _surely_selects(automation: ImageUpdateAutomation, policy: ImagePolicy) -> bool:
    try:
        return _selects(automation, policy)
    except Invalid:
        return False  # its own explanation says so
