"""Carries out one schedule: real processes, a real registry and Git server, and the facts for the judge."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from imagebot.demo.gitserver import GitServer
from tests.faults import child
from tests.faults.judge import Commit, Facts, Judgement, Ran, judge, parse_log
from tests.faults.launcher import Child, Launcher
from tests.faults.schedule import Delete, Event, Fill, Human, Push, Schedule, Start
from tests.faults.servers import FaultyRegistry, GitFaults
from tests.faults.space import Space
from tests.support.gitrepo import BareRepository
from tests.support.lab import automation, git_repository, image_policy, image_repository, secret

PATIENCE = 60.0
"""Seconds that a process has to end when nothing holds it up."""
PASSES = 8
"""Passes after which the service must have come to rest when all faults have ceased."""
GIT_PASSWORD, REGISTRY_PASSWORD = "git-secret-93ab1d5c", "registry-secret-5d0e77aa"
KEY_PASSWORD = "key-secret-0c6b2f4e"
NAMES = ("alpha", "beta", "gamma")
RUN = ("--health-addr", "", "--min-retry-delay", "100ms", "--max-retry-delay", "1s", "--requeue-dependency", "300ms")
SUSPICIOUS = ("*.tmp", "*.lock", "*.new", "tmp_*", "askpass", "password", "username", "identity", "session-*", "key*")


@dataclass
class Servers:
    """What the worlds of one worker share, one world at a time."""

    root: Path
    registry: FaultyRegistry
    git: GitServer
    git_faults: GitFaults
    launcher: Launcher
    space: Space
    key: str
    """A private key in OpenSSH's form, encrypted with `KEY_PASSWORD`."""
    templates: dict[tuple[object, ...], Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What came of a schedule."""

    schedule: Schedule
    facts: Facts
    judgement: Judgement
    faults: Counter[str]
    kills: int
    requests: Counter[str]
    """Requests to the registry, by kind."""
    seconds: float
    kept: str = ""


class World:
    """One schedule's world."""

    def __init__(self, schedule: Schedule, servers: Servers, folder: Path) -> None:
        self.schedule = schedule
        self.servers = servers
        self.folder = folder
        self.manifests, self.tmp, self.home = folder / "manifests", folder / "tmp", folder / "home"
        for path in (self.manifests, self.tmp, self.home):
            path.mkdir(parents=True)
        self.state = servers.space.fresh()
        self.policies = NAMES[: len(schedule.images)]
        self.ever: dict[str, set[str]] = {name: set() for name in self.policies}
        self.tokens: dict[str, set[str]] = {"main": set()}
        self.ran: list[Ran] = []
        self.stuck: list[str] = []
        self.faults: Counter[str] = Counter()
        self.kills = 0
        servers.registry.reset()
        servers.registry.requests.clear()
        servers.git_faults.calm()
        servers.git_faults.met.clear()
        for name, tags in zip(self.policies, schedule.tags, strict=True):
            for tag in tags:
                self._push(name, tag)
        self.repository = self._repository()
        self.target = "bot" if schedule.layout == "branch" else "main"
        self._declare()

    # --- the world

    def _repository(self) -> BareRepository:
        key = (self.schedule.images,)
        template = self.servers.templates.get(key)
        if template is None:
            template = self.servers.root / "templates" / f"{len(self.servers.templates)}.git"
            bare = BareRepository.create(template)
            bare.commit({self.path(name): self._text(name).encode() for name in self.policies})
            bare.hook("pre-receive", '[ ! -e "$GIT_DIR/closed" ] || { echo "not today" >&2; exit 1; }\n')
            self.servers.templates[key] = template
        path = self.servers.root / "git" / "app.git"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(template, path)
        return BareRepository(path)

    def path(self, name: str) -> str:
        """The marked file of an image; every image has a folder of its own."""
        return f"apps/{name}/deploy.yaml"

    def _image(self, name: str) -> str:
        return f"{self.servers.registry.url.removeprefix('http://')}/{name}"

    def _text(self, name: str) -> str:
        return f'kind: Deployment\nspec:\n  image: {self._image(name)}:0.0.1 # {{"$imagepolicy": "apps:{name}"}}\n# end\n'

    def _declare(self) -> None:
        url, objects = self.servers.git.url("app.git"), []
        for name, order in zip(self.policies, self.schedule.images, strict=True):
            policy = {"semver": {"range": ">=0.0.0"}} if order == "semver" else {"numerical": {"order": "asc"}}
            filters = {} if order == "semver" else {"filterTags": {"pattern": r"^(?P<n>\d+(\.\d+)?)$", "extract": "$n"}}
            limit = f"{self.schedule.timeout}s"
            objects.append(image_repository(name, self._image(name), "1s", timeout=limit, secretRef={"name": "registry"}))
            objects.append(image_policy(name, policy=policy, **filters))
        objects.append(git_repository("app", url, timeout="4s", secretRef={"name": "git"}))
        paths = {"one": ["."], "branch": ["."], "overlap": [".", "."]}.get(
            self.schedule.layout, ["./apps/alpha", "./apps/beta", "./apps/gamma"][: len(self.policies)]
        )
        push = {"push": {"branch": "bot"}} if self.schedule.layout == "branch" else {}
        commit = {"signingKey": {"type": "ssh", "secretRef": {"name": "key"}}} if self.schedule.signed else {}
        for number, path in enumerate(paths):
            update = {"path": path, "strategy": "Setters"}
            objects.append(automation(f"update-{number}", "app", "2s", update=update, commit=commit, **push))
        if self.schedule.signed:
            objects.append(secret("key", {"identity": self.servers.key, "password": KEY_PASSWORD}))
        objects.append(secret("git", {"username": "bot", "password": GIT_PASSWORD}))
        login = {"auths": {self._image("").rstrip("/"): {"username": "bot", "password": REGISTRY_PASSWORD}}}
        objects.append(secret("registry", {".dockerconfigjson": json.dumps(login)}, "kubernetes.io/dockerconfigjson"))
        # JSON is YAML too; and quicker to write.
        (self.manifests / "all.yaml").write_text(yaml.safe_dump_all(objects, sort_keys=False))

    def _push(self, name: str, tag: str) -> None:
        self.servers.registry.remember(name)
        self.servers.registry.push_image(name, tag)
        self.ever[name].add(tag)

    # --- what happens

    def happen(self, event: Event) -> None:
        """An event that has nothing to do with the service."""
        registry = self.servers.registry
        match event:
            case Push(image, tag):
                self._push(self.policies[image], tag)
            case Delete(image, tag):
                name = self.policies[image]
                if tag in registry.repositories[name].tags:
                    registry.remember(name)
                    registry.delete_tag(name, tag)
            case Fill(left):
                self.servers.space.fill(left)
                self.faults["disk full"] += 1
            case Human(number, image):
                self._commit(number, None if image is None else self.path(self.policies[image]))

    def _commit(self, number: int, path: str | None) -> None:
        branch = self.target if number % 2 and self.repository.head(self.target) else "main"
        token = f"human-{number}"
        while True:
            head = self.repository.head(branch)
            assert head is not None
            text = self.repository.file(path, head) + f"# {token}\n".encode() if path else f"{token}\n".encode()
            name = path or f"notes/{token}.txt"
            try:
                self.repository.commit(
                    {name: text}, branch=branch, message=f"a person: {token}", when=int(time.time()), force=False
                )
            except AssertionError as error:
                if "Not updating" not in str(error) and "does not contain" not in str(error):
                    raise
                continue  # the service was quicker; a person would pull and push again
            if token.encode() in self.repository.raw("log", "-p", "--format=", branch):
                break
        self.tokens.setdefault(branch, set()).add(token)

    async def carry_out(self) -> None:
        """All steps of the schedule."""
        for step in self.schedule.steps:
            if isinstance(step, Start):
                await self.start(step)
            else:
                await asyncio.to_thread(self.happen, step)

    # --- starts

    async def start(self, step: Start) -> Ran:
        """One start of the service, with all that befalls it, to its end."""
        registry, git = self.servers.registry, self.servers.git_faults
        registry.faults[:] = step.registry
        git.faults[:] = [kind for kind in step.git if kind != "hook"]
        closed, deaf = self.repository.path / "closed", self.folder / "deaf"
        if "hook" in step.git:
            closed.touch()
            self.faults["git hook"] += 1
        if step.deaf:
            deaf.touch()
            self.faults["name service"] += 1
        self._count(step)
        if step.read_only:
            self._freeze()
        limit = self.servers.space.fill(step.full) if step.full is not None else 0
        number = len(self.ran) + 1
        log = self.folder / f"log-{number}"
        try:
            process = await self.servers.launcher.start(self._child(step, log, limit))
            code = await self._live(step, process, log)
        finally:
            for path in (closed, deaf):
                path.unlink(missing_ok=True)
            git.calm()
            registry.calm()
            self.servers.space.free()
            self._thaw()
        if code == -signal.SIGKILL:
            self.kills += 1
        ran = Ran(step.mode, step.disturbance(), code, log.read_text(errors="replace"))
        self.ran.append(ran)
        return ran

    def _count(self, step: Start) -> None:
        for name, met in (
            ("clock", bool(step.clock or step.jump)),
            ("disk full", step.full is not None),
            ("read-only state", step.read_only),
            ("second instance", step.second),
            ("stopped", step.stop is not None and step.stop.act == "stop"),
        ):
            self.faults[name] += met

    def _child(self, step: Start, log: Path, limit: int) -> child.Start:
        common = (
            str(self.manifests),
            "--state",
            str(self.state),
            "--no-docker-config",
            "--log-encoding",
            "json",
            "--log-level",
            "info",
        )
        more = RUN if step.mode == "run" else ("--timeout", "40")
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "LANG": "C.UTF-8",
            "GIT_PYTHON_REFRESH": "quiet",
        }
        return child.Start(
            (step.mode, *common, *more),
            str(log),
            str(self.folder),
            environment,
            step.stop,
            str(self.folder / "mark"),
            str(self.folder / "deaf"),
            step.clock,
            step.jump,
            limit,
            step.read_only,
        )

    async def _live(self, step: Start, process: Child, log: Path) -> int:
        if step.killed_on_push:
            self.servers.git_faults.on_push = lambda: process.send(signal.SIGKILL)
        killing = None
        if step.moment is not None:
            killing = asyncio.get_running_loop().call_later(step.moment, process.send, signal.SIGKILL)
        try:
            if step.mode == "run":
                await self._live_long(step, process, log)
            elif step.stop is not None and step.stop.act == "stop" and await process.until_stopped(PATIENCE):
                for event in step.during:
                    await asyncio.to_thread(self.happen, event)
                process.send(signal.SIGCONT)
            return await process.wait(PATIENCE)
        except TimeoutError:
            process.send(signal.SIGABRT)
            with suppress(TimeoutError):
                return await process.wait(5)
            process.send(signal.SIGKILL)
            return -signal.SIGABRT
        finally:
            if killing is not None:
                killing.cancel()

    async def _live_long(self, step: Start, process: Child, log: Path) -> None:
        await self._until_up(process, log)
        await asyncio.sleep(step.dwell)
        if step.jump:
            process.send(signal.SIGUSR2)
        for event in step.during:
            await asyncio.to_thread(self.happen, event)
        if step.second:
            await self._second(process)
        if step.awaited and not await self._up_to_date(process):
            self.stuck.append(f"Git was not brought up to date: {step.disturbance()}")
        await asyncio.sleep(step.dwell)
        process.send(signal.SIGTERM)

    async def _until_up(self, process: Child, log: Path) -> None:
        """Wait until it says that it runs, or has ended. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE):
            while process.code is None and "imagebot runs on" not in (log.read_text(errors="replace") if log.exists() else ""):
                await asyncio.sleep(0.02)

    async def _second(self, first: Child) -> None:
        """Another one on the same state folder: it must say so and stop."""
        log = self.folder / f"log-second-{len(self.ran)}"
        process = await self.servers.launcher.start(self._child(Start(), log, 0))
        code = await process.wait(PATIENCE)
        said = log.read_text(errors="replace")
        if first.code is None and (code != 1 or "already works with this state" not in said):
            code = 99
        self.ran.append(Ran("once", "the second", code, said))

    def _freeze(self) -> None:
        for folder in [self.state, *(p for p in self.state.rglob("*") if p.is_dir())]:
            folder.chmod(0o500)
        for file in self.state.rglob("*"):
            if file.is_file():
                file.chmod(0o400)

    def _thaw(self) -> None:
        self.state.chmod(0o700)
        for path in self.state.rglob("*"):
            with suppress(FileNotFoundError):
                path.chmod(0o700 if path.is_dir() else 0o600)

    # --- the end

    async def settle(self) -> bool:
        """Let the service come to rest, now that all faults have ceased."""
        if self.schedule.settle == "run":
            await self._settle_running()
        for _ in range(PASSES):
            if (await self.start(Start())).code == 0:
                return True
        return False

    async def _settle_running(self) -> None:
        log = self.folder / f"log-{len(self.ran) + 1}"
        step = Start("run")
        process = await self.servers.launcher.start(self._child(step, log, 0))
        await self._until_up(process, log)
        if not await self._up_to_date(process):
            self.stuck.append("Git was not brought up to date by a service that was left alone")
        process.send(signal.SIGTERM)
        self.ran.append(Ran("run", "left alone", await process.wait(PATIENCE), log.read_text(errors="replace")))

    async def _up_to_date(self, process: Child) -> bool:
        """Wait until everything that is due is in Git; False when that takes too long."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and process.code is None:
            judgement = judge(await asyncio.to_thread(self._history))
            if not any(finding.kind == "lost" for finding in judgement.findings):
                return True
            await asyncio.sleep(0.1)
        return process.code is not None

    def _history(self) -> Facts:
        registry = self.servers.registry
        branch = self._log(self.target)
        return Facts(
            orders=dict(zip(self.policies, self.schedule.images, strict=True)),
            ever={name: frozenset(tags) for name, tags in self.ever.items()},
            present={name: frozenset(registry.repositories[name].tags) for name in self.policies},
            branch=branch,
            markers={(self.path(name), name): "0.0.1" for name in self.policies},
        )

    def _log(self, branch: str) -> list[Commit]:
        if self.repository.head(branch) is None:
            return []
        return [
            commit
            for commit in parse_log(self.repository.git("log", "--reverse", "--format=%x01%H%x02%an%x02", "-p", "-U0", branch))
            if not (commit.author == "Human" and set(commit.writes.values()) == {"0.0.1"})
        ]

    def facts(self, *, settled: bool) -> Facts:
        """All that is judged."""
        found = {
            branch: frozenset(self.repository.git("grep", "-h", "-o", "human-[0-9]*", branch, check=False).split())
            for branch in self.tokens
        }
        try:
            self.repository.check()
            damage = ""
        except AssertionError as error:
            damage = str(error)
        return replace(
            self._history(),
            others=self._log("main") if self.target != "main" else (),
            tokens={branch: frozenset(tokens) for branch, tokens in self.tokens.items()},
            found=found,
            damage=damage,
            leftovers=self._leftovers(),
            leaks=self._leaks(),
            ran=tuple(self.ran),
            settled=settled,
            stuck=tuple(self.stuck),
        )

    def _leftovers(self) -> list[str]:
        left = [str(path.relative_to(self.folder)) for path in (*self.tmp.rglob("*"), *self.home.rglob("*"))]
        for pattern in SUSPICIOUS:
            left += [str(path.relative_to(self.state)) for path in self.state.rglob(pattern)]
        left += [str(path.relative_to(self.state)) for path in self.state.glob("git/*/tmp/*")]
        return sorted(set(left))

    def _leaks(self) -> list[str]:
        body = self.servers.key.splitlines()[2]
        secrets = [GIT_PASSWORD, REGISTRY_PASSWORD, KEY_PASSWORD, body, "PRIVATE KEY", *self.servers.registry.door.tokens]
        texts = [text.encode() for text in secrets]
        files = [path for top in (self.state, self.tmp, self.home) for path in top.rglob("*") if path.is_file()]
        files += list(self.folder.glob("log-*"))
        found = []
        for path in files:
            data = path.read_bytes()
            found += [f"{path.name} holds a secret" for text in texts if text in data]
        return found


async def perform(schedule: Schedule, servers: Servers, folder: Path, *, keep: bool = False) -> Result:
    """Carry out a schedule in `folder`, judge it, and clear everything away unless it is to be kept."""
    begin = time.monotonic()
    world = World(schedule, servers, folder)
    await world.carry_out()
    settled = await world.settle()
    facts = await asyncio.to_thread(world.facts, settled=settled)
    if facts.leftovers:
        # What was killed cannot clean up behind itself; the next start does. Processes that it had started may have held on.
        await asyncio.sleep(0.5)
        await world.start(Start())
        facts = await asyncio.to_thread(world.facts, settled=settled)
    judgement = judge(facts)
    faults = Counter({f"registry {kind}": count for kind, count in servers.registry.met.items()})
    faults += Counter({f"git {kind}": count for kind, count in servers.git_faults.met.items()})
    faults += world.faults
    kept = ""
    if keep:
        kept = str(folder)
        shutil.copytree(world.state, folder / "state", dirs_exist_ok=True)
        shutil.copytree(world.repository.path, folder / "app.git", dirs_exist_ok=True)
    else:
        shutil.rmtree(folder)
    return Result(
        schedule, facts, judgement, faults, world.kills, Counter(servers.registry.requests), time.monotonic() - begin, kept
    )
