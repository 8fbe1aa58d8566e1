"""What the demonstration plays on: a registry, a Git server with one repository, a key, and the example's manifests."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from imagebot.demo.gitserver import GitServer
from imagebot.demo.keys import DemoKey, Kind, choose_kind, make_key
from imagebot.demo.registry import Registry
from imagebot.demo.tools import DemoFailed, Tools

EXAMPLE = Path(__file__).with_name("example")
"""The folder `examples/commit-bot` of the repository (a link there, copied into the wheel)."""

FIRST_TAGS = ("1.0.0", "1.1.0")
ALIAS = "latest"
BRANCH = "main"
SCAN_INTERVAL = "1s"

_DEVELOPER = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "Ada Developer"), ("EMAIL", "ada@example.com"))
}


@dataclass(frozen=True, slots=True)
class CommitView:
    """One commit as git shows it."""

    oid: str
    author: str
    message: str
    diff: str


@dataclass(slots=True)
class Stage:
    """Everything that runs round the service. `image` and `repository` are the names without their hosts."""

    folder: Path
    registry: Registry
    server: GitServer
    tools: Tools
    key: DemoKey
    remark: str
    image: str
    repository: str
    objects: int
    author: str
    token: str

    @property
    def manifests(self) -> Path:
        """What the service runs on."""
        return self.folder / "manifests"

    @property
    def state(self) -> Path:
        """Where the service keeps its state."""
        return self.folder / "state"

    @property
    def bare(self) -> Path:
        """The repository on disk."""
        return self.server.root / self.repository

    @property
    def image_name(self) -> str:
        """The image with the registry that runs now."""
        return f"{self.registry.host}/{self.image}"

    @property
    def url(self) -> str:
        """The repository's address."""
        return self.server.url(self.repository)

    def push(self, tag: str) -> str:
        """Push an image as a build would; returns its digest."""
        return self.registry.push_image(self.image, tag)

    async def head(self) -> str:
        """The commit that the branch is at."""
        return (await self.tools.run("git", "rev-parse", f"refs/heads/{BRANCH}", cwd=self.bare)).strip()

    async def marked_line(self) -> tuple[str, str]:
        """File and text of the marked line in the repository."""
        found = await self.tools.run("git", "grep", "-F", "$imagepolicy", BRANCH, cwd=self.bare)
        _, path, line = found.splitlines()[0].split(":", 2)
        return path, line.strip()

    async def commit(self, oid: str) -> CommitView:
        """A commit with its message and its changes."""
        shown = await self.tools.run("git", "show", "-s", "--format=%an <%ae>%n%B", oid, cwd=self.bare)
        author, _, message = shown.partition("\n")
        diff = await self.tools.run("git", "show", "--format=", "--no-color", "--no-ext-diff", "-U2", oid, cwd=self.bare)
        return CommitView(oid, author, message.strip(), diff.rstrip())


@asynccontextmanager
async def built(wanted: Kind | None) -> AsyncIterator[Stage]:
    """The stage while inside; nothing of it is left behind. Raises `MissingProgram` or `DemoFailed`."""
    documents = {path.name: _load(path) for path in sorted((EXAMPLE / "manifests").glob("*.yaml"))}
    every = [document for found in documents.values() for document in found]
    image = _spec(every, "ImageRepository")["image"]
    author = _spec(every, "ImageUpdateAutomation")["git"]["commit"]["author"]
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(_folder())
        stack.enter_context(_loopback_without_proxy())
        tools = stack.enter_context(closing(Tools(folder / "home")))
        kind, remark = await choose_kind(wanted, tools)
        key = await make_key(kind, author["name"], author["email"], folder / "key", tools)
        token = secrets.token_urlsafe(24)
        registry = await stack.enter_async_context(Registry())
        server = stack.enter_context(GitServer(folder / "git", username="imagebot", password=token))
        stage = Stage(
            folder=folder,
            registry=registry,
            server=server,
            tools=tools,
            key=key,
            remark=remark,
            image=image.partition("/")[2],
            repository=urlsplit(_spec(every, "GitRepository")["url"]).path.lstrip("/"),
            objects=sum(document["kind"] != "Secret" for document in every),
            author=f"{author['name']} <{author['email']}>",
            token=token,
        )
        for tag in FIRST_TAGS:
            stage.push(tag)
        registry.repositories[stage.image].tags[ALIAS] = registry.repositories[stage.image].tags[FIRST_TAGS[-1]]
        await _fill_repository(stage, image)
        _write_manifests(stage, documents)
        yield stage


@contextmanager
def _folder() -> Iterator[Path]:
    """A private temporary folder with the folders that everything starts from."""
    with tempfile.TemporaryDirectory(prefix="imagebot-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        for part in ("home", "key", "git", "manifests"):
            (folder / part).mkdir(mode=0o700)
        yield folder


def _load(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]


def _spec(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    for document in documents:
        if document["kind"] == kind:
            spec: dict[str, Any] = document["spec"]
            return spec
    raise DemoFailed(f"the example has no {kind}: {EXAMPLE}")


async def _fill_repository(stage: Stage, image: str) -> None:
    """A bare repository whose first commit is the example's, with the image at the registry that runs now."""
    work, tools, source = stage.folder / "work", stage.tools, EXAMPLE / "repository"
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        target = work / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text("utf-8").replace(f"{image}:", f"{stage.image_name}:"), "utf-8")
    stage.bare.parent.mkdir(parents=True)
    await tools.run("git", "init", "--quiet", cwd=work)
    await tools.run("git", "symbolic-ref", "HEAD", f"refs/heads/{BRANCH}", cwd=work)
    await tools.run("git", "add", "--all", cwd=work)
    await tools.run("git", "commit", "--quiet", "--message", f"Deploy web {FIRST_TAGS[0]}", cwd=work, env=_DEVELOPER)
    await tools.run("git", "clone", "--quiet", "--bare", str(work), str(stage.bare))


def _write_manifests(stage: Stage, documents: Mapping[str, list[dict[str, Any]]]) -> None:
    token = stage.folder / "git-token"
    token.touch(mode=0o600)
    token.write_text(stage.token)
    for name, found in documents.items():
        adapted = [document for document in found if _adapt(document, stage, token)]
        text = yaml.safe_dump_all(adapted, sort_keys=False, width=130)
        (stage.manifests / name).write_text(text, "utf-8")


def _adapt(document: dict[str, Any], stage: Stage, token: Path) -> bool:
    """Point an example at this stage; False when it has no place here."""
    spec, name = document.get("spec", {}), document["metadata"]["name"]
    match document["kind"]:
        case "ImageRepository":
            spec |= {"image": stage.image_name, "interval": SCAN_INTERVAL}
        case "GitRepository":
            spec["url"] = stage.url
        case "ImageUpdateAutomation":
            commit = spec["git"]["commit"]
            if stage.key.kind == "none":
                del commit["signingKey"]
            else:
                commit["signingKey"]["type"] = stage.key.kind
        case "Secret" if "password" in document["dataFrom"]:
            document["dataFrom"] = {"password": {"file": str(token)}}
        case "Secret":
            document["dataFrom"] = {key: {"file": str(path)} for key, path in stage.key.files.items()}
            return bool(stage.key.files)
        case "ImagePolicy":
            pass
        case other:
            raise DemoFailed(f"the example's {other} {name} has no place in the demonstration")
    return True


@contextmanager
def _loopback_without_proxy() -> Iterator[None]:
    """Git, unlike our own client, would ask a proxy of the environment for this machine, too."""
    names = ("no_proxy", "NO_PROXY")
    before = {name: os.environ.get(name) for name in names}
    try:
        for name in names:
            os.environ[name] = ",".join(filter(None, (before[name], "127.0.0.1")))
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
