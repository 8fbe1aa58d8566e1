"""A world in which one set of objects is in trouble and its neighbour must not notice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from imagebot.demo.gitserver import GitServer
from tests.support.gitrepo import BareRepository
from tests.support.lab import Lab, Pass, automation, git_repository, image_policy, image_repository, marked
from tests.support.registry import TestRegistry


class Street(Lab):
    """A `Lab` whose objects named `good` are in order; `once` also checks that they were served in the same pass."""

    registry: TestRegistry

    def __init__(self, root: Path, registry: TestRegistry, git: GitServer) -> None:
        super().__init__(root, registry, git)
        registry.push_image("web", "1.0.0")
        registry.push_image("good", "1.0.0")
        self._number = 0
        self.good = self.declare_app("good", "good.git")

    async def once(self) -> Pass:
        """One pass, in which the neighbour gets a new tag and its commit."""
        self._number += 1
        tag = f"1.{self._number}.0"
        self.registry.push_image("good", tag)
        commits = len(self.good.log())
        done = await super().once()
        for kind in ("ImageRepository", "ImagePolicy", "ImageUpdateAutomation"):
            assert done.ready(kind, "good")[0] == "True", done.ready(kind, "good")
        assert f"good:{tag}".encode() in self.good.file("deploy.yaml")
        assert len(self.good.log()) == commits + 1
        return done

    def declare_git(self, url: str, **spec: object) -> None:
        """A healthy image `web`, and an automation that works on the repository at `url`."""
        self.declare(
            image_repository("web", self.image("web")),
            image_policy("web"),
            git_repository("web", url, **spec),
            automation("web", "web"),
        )

    def files(self, files: dict[str, str | bytes], name: str = "app.git") -> BareRepository:
        """A healthy image `web`, and a Git repository with a file that is to be updated and with `files`."""
        bare = self.repository(name)
        every = {"deploy.yaml": marked(self.image("web"), "web", "0.9.0"), **files}
        bare.commit({path: data.encode() if isinstance(data, str) else data for path, data in every.items()})
        self.declare_git(self.url(name))
        return bare


@asynccontextmanager
async def street(root: Path) -> AsyncIterator[Street]:
    """The world, started."""
    (root / "git").mkdir()
    async with TestRegistry() as registry:
        with GitServer(root / "git") as git:
            yield Street(root, registry, git)
