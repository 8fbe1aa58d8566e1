"""A small world for stories: a registry, a Git server, a folder of manifests, and the real service on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from imagebot.demo.gitserver import GitServer
from imagebot.demo.registry import Registry
from reconcile.api import conditions as cond
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.app import Service, load_packages, local_service, run_local
from reconcile.errors import NotFound
from reconcile.runtime.outcome import Outcome
from reconcile.settings import RetrySettings, Settings
from tests.support.gitrepo import BareRepository

IMAGE = "image.toolkit.fluxcd.io/v1"
SOURCE = "source.toolkit.fluxcd.io/v1"
PATIENCE = 20.0


def obj(api: str, kind: str, name: str, spec: dict[str, Any], namespace: str = "apps", **meta: Any) -> dict[str, Any]:
    """A manifest."""
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace, **meta}, "spec": spec}


def image_repository(name: str, image: str, interval: str = "1h", **spec: Any) -> dict[str, Any]:
    """An ImageRepository."""
    return obj(IMAGE, "ImageRepository", name, {"image": image, "interval": interval, **spec})


def image_policy(name: str, semver: str = ">=0.0.0", repository: str | None = None, **spec: Any) -> dict[str, Any]:
    """An ImagePolicy with a SemVer range, or with `policy=` of another kind."""
    policy = spec.pop("policy", {"semver": {"range": semver}})
    labels = spec.pop("labels", {})
    return obj(
        IMAGE, "ImagePolicy", name, {"imageRepositoryRef": {"name": repository or name}, "policy": policy, **spec}, labels=labels
    )


def git_repository(name: str, url: str, branch: str = "main", **spec: Any) -> dict[str, Any]:
    """A GitRepository."""
    return obj(SOURCE, "GitRepository", name, {"url": url, "interval": "1h", "ref": {"branch": branch}, **spec})


def automation(name: str, repository: str, interval: str = "1h", **spec: Any) -> dict[str, Any]:
    """An ImageUpdateAutomation; `commit`, `push` and `checkout` are merged into `spec.git`."""
    git: dict[str, Any] = {"commit": {"author": {"email": "bot@example.com", "name": "bot"}, **spec.pop("commit", {})}}
    for part in ("push", "checkout"):
        if part in spec:
            git[part] = spec.pop(part)
    return obj(
        IMAGE,
        "ImageUpdateAutomation",
        name,
        {"sourceRef": {"kind": "GitRepository", "name": repository}, "interval": interval, "git": git, **spec},
    )


def secret(name: str, values: dict[str, str], type_: str = "Opaque") -> dict[str, Any]:
    """A Secret in plain text."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "apps"},
        "type": type_,
        "stringData": values,
    }


def marked(image: str, policy: str, tag: str, namespace: str = "apps") -> str:
    """A Deployment with one marked image."""
    return (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  template:\n    spec:\n      containers:\n"
        f'        - name: web\n          image: {image}:{tag} # {{"$imagepolicy": "{namespace}:{policy}"}}\n'
    )


class Lab:
    """The world. `declare` writes a manifest into the folder, `start` runs the service, `once` makes one pass."""

    def __init__(self, root: Path, registry: Registry, git: GitServer) -> None:
        self.registry = registry
        self.git = git
        self.folder = root / "manifests"
        self.folder.mkdir()
        self.state = root / "state"
        self.root = root
        self.settings = Settings(user_docker_config=False, retry=RetrySettings(0.05, 1.0, 0.2))

    def image(self, name: str) -> str:
        """Full name of an image in the registry."""
        return f"{self.registry.host}/{name}"

    def repository(self, name: str, files: dict[str, str] | None = None, branch: str = "main") -> BareRepository:
        """A bare repository behind the Git server, with a first commit if there are files."""
        bare = BareRepository.create(self.root / "git" / name)
        if files is not None:
            bare.commit({path: text.encode() for path, text in files.items()}, branch=branch)
        return bare

    def url(self, name: str) -> str:
        """URL of a repository."""
        return self.git.url(name)

    def declare(self, *objects: dict[str, Any]) -> None:
        """Write manifests, one file for each object."""
        for body in objects:
            meta = body["metadata"]
            path = self.folder / f"{body['kind']}.{meta.get('namespace', '')}.{meta['name']}.yaml"
            path.write_text(yaml.safe_dump(body, sort_keys=False))

    def withdraw(self, body: dict[str, Any]) -> None:
        """Remove the manifest of an object."""
        meta = body["metadata"]
        (self.folder / f"{body['kind']}.{meta.get('namespace', '')}.{meta['name']}.yaml").unlink()

    def declare_app(self, name: str = "web", repository: str = "app.git", **more: Any) -> BareRepository:
        """The usual set: a repository with one marked file, and the four objects that keep it up to date."""
        bare = self.repository(repository, {"deploy.yaml": marked(self.image(name), name, "0.9.0")})
        self.declare(
            image_repository(name, self.image(name)),
            image_policy(name),
            git_repository(name, self.url(repository)),
            automation(name, name, **more),
        )
        return bare

    @asynccontextmanager
    async def start(self, **options: Any) -> AsyncIterator[Running]:
        """The service, running."""
        async with local_service(
            self.folder, registry=load_packages(), settings=self.settings, state=self.state, **options
        ) as service:
            work = asyncio.create_task(run_local(service), name="service")
            try:
                yield Running(service)
            finally:
                work.cancel()
                await asyncio.wait([work])

    async def once(self) -> Pass:
        """One pass, as `imagebot once` makes it."""
        async with local_service(
            self.folder, registry=load_packages(), settings=self.settings, state=self.state, retry=False
        ) as service:
            await service.manager.drained()
            outcomes = {(c.kind, str(key)): outcome for c in service.controllers for key, outcome in c.outcomes.items()}
            objects = {(r.kind, str(r.key)): r for i in load_packages().scheme for r in await service.store.list(i.kind)}
            return Pass(service, outcomes, objects, changed=any(c.effects for c in service.controllers))


class Pass:
    """What one pass came to."""

    def __init__(
        self,
        service: Service,
        outcomes: dict[tuple[str, str], Outcome],
        objects: dict[tuple[str, str], AnyResource],
        *,
        changed: bool,
    ) -> None:
        self.changed = changed
        self.outcomes = outcomes
        self.objects = objects
        self.problems = service.store.problems

    def ready(self, kind: str, name: str, namespace: str = "apps") -> tuple[str, str, str]:
        """Status, reason and message of Ready."""
        return ready(self.objects[kind, f"{namespace}/{name}"])


def ready(resource: AnyResource) -> tuple[str, str, str]:
    """Status, reason and message of Ready."""
    found = cond.get(resource.status.conditions, cond.READY)
    return (found.status, found.reason, found.message) if found else ("", "", "")


class Running:
    """A running service."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def get(self, kind: str, name: str, namespace: str = "apps") -> AnyResource:
        """An object as the service sees it."""
        return await self.service.store.get(kind, Key(namespace, name))

    async def until_ready(self, kind: str, name: str, message: str = "") -> AnyResource:
        """Wait until an object is Ready (with this text in its message)."""

        async def probe() -> AnyResource | None:
            try:
                found = await self.get(kind, name)
            except NotFound:
                return None
            return found if cond.is_ready(found.status.conditions) and message in ready(found)[2] else None

        return await eventually(probe, f"{kind} {name} Ready {message}")

    async def until_failed(self, kind: str, name: str, reason: str) -> AnyResource:
        """Wait until an object is not Ready for this reason."""

        async def probe() -> AnyResource | None:
            try:
                found = await self.get(kind, name)
            except NotFound:
                return None
            return found if ready(found)[:2] == ("False", reason) else None

        return await eventually(probe, f"{kind} {name} failing with {reason}")

    def request(self, kind: str, name: str) -> None:
        """Ask for a pass now."""
        controller = next(c for c in self.service.controllers if c.kind == kind)
        controller.add(Key("apps", name))

    def writes(self, kind: str) -> float:
        """Status writes so far."""
        value = self.service.metrics.registry.get_sample_value("imagebot_status_writes_total", {"kind": kind})
        return value or 0.0


async def eventually(probe: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """The first true value of `probe` (plain or async); fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = probe()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        await asyncio.sleep(0.02)


@asynccontextmanager
async def lab(root: Path) -> AsyncIterator[Lab]:
    """The world, started."""
    (root / "git").mkdir()
    async with Registry() as registry:
        with GitServer(root / "git") as git:
            yield Lab(root, registry, git)
