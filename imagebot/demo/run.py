"""The demonstration: a real registry protocol, a real Git server, the real service; a new tag becomes a signed commit.

The only parts that are not what production has are the two servers, which live in this process, and the key, which is made for
the occasion. Everything is below one temporary folder and goes with it, however the demonstration ends.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from rich.text import Text

from imagebot.api import ImagePolicy, ImageRepository, ImageUpdateAutomation
from imagebot.demo.keys import Kind
from imagebot.demo.show import Screen, marked
from imagebot.demo.stage import BRANCH, FIRST_TAGS, Stage, built
from imagebot.demo.tools import DemoFailed
from imagebot.policy.base import SemVer
from imagebot.policy.choose import build_policy
from imagebot.policy.index import TagIndex
from reconcile.api import conditions as cond
from reconcile.api.resource import AnyResource
from reconcile.app import Service, load_packages, local_service, run_local
from reconcile.registry.manifest import OCI_MANIFEST
from reconcile.runtime.logs import configure
from reconcile.settings import RetrySettings, ServerSettings, Settings
from reconcile.versions import InvalidVersion, parse_constraint, parse_version

NEW_TAG = "1.2.0"
FURTHER_TAG = "1.3.0"
PATIENCE = 30.0
"""Seconds until something that should happen counts as failed."""
LOOK = 0.02
PAUSES = {"slow": 4.0, "normal": 1.2, "fast": 0.0}
"""Seconds between chapters, for reading."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was asked for. `speed` None: normal on a terminal, fast elsewhere."""

    keep: bool = False
    signing: Kind | None = None
    speed: str | None = None


def run_demo(options: Options) -> int:
    """Play it; returns the exit code. Raises `ReconcileError` when something fails."""
    configure("error", "console")
    # A local registry is tried with TLS first, which a plain server reports as a bad request.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return asyncio.run(perform(options))


async def perform(options: Options) -> int:
    """The play as a task that the first SIGINT or SIGTERM cancels, so that everything is taken down in order.

    Returns the exit code: 128 + signal when it was stopped before its end. Raises `ReconcileError`.
    """
    loop = asyncio.get_running_loop()
    received: list[int] = []
    show = _Show(options, Screen())
    play = asyncio.create_task(show.play(), name="demo")

    def stop(number: int) -> None:
        if not received:
            play.cancel()
        received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        await play
    except asyncio.CancelledError:
        if not received:
            play.cancel()
            raise
        show.screen.line()
        show.screen.title("Stopped; the servers have ended and the temporary folder is gone.")
        return 0 if show.finished else 128 + received[0]
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return 0


class _Show:
    """The chapters, in order."""

    def __init__(self, options: Options, screen: Screen) -> None:
        self.screen = screen
        self.finished = False
        """Whether everything has been shown and only `--keep` goes on."""
        self._keep = options.keep
        self._signing: Kind | None = options.signing
        self._pause = PAUSES[options.speed or ("normal" if screen.terminal else "fast")]

    async def play(self) -> None:
        started = time.monotonic()
        self.screen.title("imagebot demo: a pushed image becomes a signed commit")
        async with built(self._signing) as stage:
            await self._show_stage(stage)
            async with _service(stage, keep=self._keep) as service:
                await self._first_commit(stage, service)
                await self._next_tag(stage, service)
                self._end(time.monotonic() - started)
                if self._keep:
                    self.finished = True
                    await self._stay(stage, service)

    async def _show_stage(self, stage: Stage) -> None:
        self.screen.chapter(1, "The stage")
        tags = ", ".join([*FIRST_TAGS, f"latest = {FIRST_TAGS[-1]}"])
        self.screen.facts(
            [
                ("registry", f"{stage.image_name}  ({tags})"),
                ("repository", f"{stage.url}  (branch {BRANCH})"),
                ("manifests", f"{stage.objects} objects from examples/commit-bot/manifests, with these two addresses"),
                ("signing", stage.remark or stage.key.shown),
            ]
        )
        path, line = await stage.marked_line()
        self.screen.line()
        self.screen.line(Text.assemble("The repository has one marked line, in ", (path, "bold"), ":"))
        self.screen.line(Text("  ") + marked(line))
        await self._breathe()

    async def _first_commit(self, stage: Stage, service: Service) -> None:
        self.screen.chapter(2, "The service runs on the manifests")
        with self.screen.waiting("scanning"):
            repository = await _wait(service, "ImageRepository", lambda r: r.status.last_scan_result is not None)
            policy = await _wait(service, "ImagePolicy", lambda r: r.status.latest_ref is not None)
        self.screen.done("scanned", _message(repository))
        self.screen.done("chose", _message(policy))
        self.screen.line()
        self._show_choice(repository, policy)
        with self.screen.waiting("committing"):
            commit = await _next_commit(service, "", PATIENCE)
        await self._breathe()
        self.screen.chapter(3, f"The commit on branch {BRANCH}")
        await self._show_commit(stage, commit)
        await self._breathe()

    def _show_choice(self, repository: ImageRepository, policy: ImagePolicy) -> None:
        rule = policy.spec.policy.semver
        tags = repository.status.last_scan_result.latest_tags if repository.status.last_scan_result else None
        if rule is None or not tags:
            raise DemoFailed("the example's policy has no semver range, or nothing was scanned")
        choice = build_policy(SemVer(rule.range)).choose(TagIndex(list(tags)))
        rows = []
        for tag in tags:
            if tag == choice.tag:
                rows.append([Text(tag, "bold green"), Text(f"chosen: {choice.reason}", "green")])
            else:
                rows.append([Text(tag), Text(_verdict(tag, rule.range), "dim")])
        self.screen.table(("TAG", "VERDICT"), rows)

    async def _show_commit(self, stage: Stage, oid: str) -> None:
        commit = await stage.commit(oid)
        rows: list[tuple[str, Text | str]] = [("commit", Text(commit.oid, "yellow")), ("author", commit.author)]
        if stage.key.kind == "none":
            rows.append(("signature", Text(stage.remark, "yellow")))
        else:
            said = await stage.key.verify(stage.tools, stage.bare, oid)
            good, _, by = said.partition(" with ")
            rows += [("signature", Text("✓ verified by git verify-commit", "green")), ("", good)]
            rows += [("", f"with {by}")] if by else []
        if commit.author != stage.author:
            raise DemoFailed(f"the commit's author is {commit.author}, not {stage.author}")
        self.screen.facts(rows)
        self.screen.line()
        for line in commit.message.splitlines():
            self.screen.line(f"  {line}".rstrip())
        self.screen.line()
        self.screen.diff(commit.diff)

    async def _next_tag(self, stage: Stage, service: Service) -> None:
        self.screen.chapter(4, f"A build pushes {stage.image}:{NEW_TAG} while the service runs")
        before = await stage.head()
        started = time.monotonic()
        digest = stage.push(NEW_TAG)
        self.screen.done("pushed", digest)
        with self.screen.waiting("waiting for the next scan"):
            await _wait(service, "ImagePolicy", lambda r: r.status.latest_ref.tag == NEW_TAG)
            chosen = time.monotonic() - started
            commit = await _next_commit(service, before, PATIENCE)
            pushed = time.monotonic() - started
        self.screen.done("chosen", f"after {chosen:.2f} s (the example scans every second here)")
        self.screen.done("committed", f"after {pushed:.2f} s")
        self.screen.line()
        await self._show_commit(stage, commit)

    def _end(self, seconds: float) -> None:
        self.screen.line()
        self.screen.title(f"Done in {seconds:.0f} s: two tags, two commits, one changed line each.")
        if not self._keep:
            self.screen.line("On your own repository: imagebot once DIR, with manifests like those in examples/commit-bot.")
            self.screen.line("To look around in this one: imagebot demo --keep")

    async def _stay(self, stage: Stage, service: Service) -> None:
        self.screen.chapter(5, "Everything keeps running until Ctrl-C. In another terminal:")
        for what, command in _hints(stage, service):
            self.screen.line(Text(what, "dim"))
            self.screen.line(Text(f"  {command}"))
        await self._tell_commits(stage, service)

    async def _tell_commits(self, stage: Stage, service: Service) -> None:
        last = await stage.head()
        while True:
            last = await _next_commit(service, last)
            self.screen.line()
            self.screen.done("committed", time.strftime("%H:%M:%S"))
            await self._show_commit(stage, last)

    async def _breathe(self) -> None:
        await asyncio.sleep(self._pause)


def _hints(stage: Stage, service: Service) -> list[tuple[str, str]]:
    """What to look at, and commands for it."""
    where = f"--dir {shlex.quote(str(stage.manifests))} --state {shlex.quote(str(stage.state))}"
    manifest = f"{stage.registry.url}/v2/{stage.image}/manifests"
    put = f"curl -X PUT -H 'Content-Type: {OCI_MANIFEST}' --data-binary @- {manifest}/{FURTHER_TAG}"
    return [
        ("objects", f"imagebot get {where}"),
        ("one as YAML", f"imagebot get imagepolicy/web -o yaml {where}"),
        ("history", f"git -C {shlex.quote(str(stage.bare))} log -p {BRANCH}"),
        ("health and metrics", f"curl {service.url}/readyz {service.url}/metrics"),
        ("change the rule", f"edit {stage.manifests / 'image-policy.yaml'}; it counts within two seconds"),
        (f"push tag {FURTHER_TAG}", f"curl -s {manifest}/{NEW_TAG} | {put}"),
    ]


@asynccontextmanager
async def _service(stage: Stage, *, keep: bool) -> AsyncIterator[Service]:
    """The real service on the stage's manifests, watching them; raises what made it fail."""
    registry = load_packages()
    if "ImageRepository" not in registry.scheme.kinds:
        raise DemoFailed("imagebot is not installed in this environment: run `make install` or `pip install imagebot`")
    settings = Settings(
        user_docker_config=False, retry=RetrySettings(0.25, 2.0), server=ServerSettings("127.0.0.1:0" if keep else "")
    )
    async with local_service(stage.manifests, registry=registry, settings=settings, state=stage.state) as service:
        work = asyncio.create_task(run_local(service), name="service")
        try:
            yield service
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work


async def _wait(
    service: Service, kind: str, reached: Callable[[AnyResource], bool], patience: float | None = PATIENCE
) -> AnyResource:
    """The one object of a kind, as soon as `reached` says so; raises `DemoFailed` with what all objects say."""
    end = None if patience is None else time.monotonic() + patience
    while True:
        for resource in await service.store.list(kind):
            if reached(resource) and cond.is_ready(resource.status.conditions):
                return resource
        stalled = [r for r in await _all(service) if cond.is_true(r.status.conditions, cond.STALLED)]
        if service.manager.failed is not None:
            raise DemoFailed(f"a part of the service has failed: {service.manager.failed}")
        if end is not None and (stalled or service.store.problems or time.monotonic() > end):
            late = "" if stalled or service.store.problems else f" within {patience:g} s"
            raise DemoFailed("\n  ".join([f"the {kind} did not get where it should{late}:", *await _complaints(service)]))
        await asyncio.sleep(LOOK)


async def _next_commit(service: Service, known: str, patience: float | None = None) -> str:
    """The commit that the automation pushed after `known`."""
    automation = await _wait(service, "ImageUpdateAutomation", lambda r: r.status.last_push_commit not in (None, known), patience)
    return str(automation.status.last_push_commit)


async def _all(service: Service) -> list[AnyResource]:
    kinds = ("ImageRepository", "ImagePolicy", "ImageUpdateAutomation")
    return [resource for kind in kinds for resource in await service.store.list(kind)]


async def _complaints(service: Service) -> list[str]:
    told = [str(problem) for problem in service.store.problems]
    return told + [f"{resource.kind} {resource.key}: {_message(resource) or 'nothing yet'}" for resource in await _all(service)]


def _message(resource: ImageRepository | ImagePolicy | ImageUpdateAutomation) -> str:
    ready = cond.get(resource.status.conditions, cond.READY)
    return ready.message if ready else ""


def _verdict(tag: str, text: str) -> str:
    """Why a tag was not chosen."""
    try:
        version = parse_version(tag) if tag.count(".") >= 2 else None
    except InvalidVersion:
        version = None
    if version is None:
        return "not a version"
    return "in the range, lower" if parse_constraint(text).check(version) else "outside of the range"
