"""The folders of `examples/`, with the addresses of the test's own servers put into them and nothing else changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tests.support.gitrepo import BareRepository
from tests.support.lab import Lab

EXAMPLES = Path(__file__).parents[2] / "examples"
REGISTRY = "registry.example.com"
GIT_HOSTS = ("https://git.example.com/", "https://github.com/")

TAGS = {"1.0.0", "1.1.0", "1.2.0-rc.1", "2.0.0", "latest"}
BUILDS = {"main-0a1b2c3-1704060000", "main-5f2c1e0-1704067200", "main-aaaaaaa-1704063600", "feature-x-1704070000"}


def copy(source: Path, target: Path, world: Lab, more: Mapping[str, str] | None = None) -> None:
    """Copy a folder of an example; `more` has further texts and what stands for them."""
    swaps = {**(more or {}), REGISTRY: world.registry.host, **dict.fromkeys(GIT_HOSTS, world.url(""))}
    for path in sorted(source.rglob("*")):
        if not path.is_file() or path.name == "README.md":
            continue
        text = path.read_text()
        for old, new in swaps.items():
            text = text.replace(old, new)
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def files(folder: Path) -> dict[str, str]:
    """Every file below a folder with its text, by its path there; what git keeps for itself is left out."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".git" not in path.relative_to(folder).parts]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


def stage(
    world: Lab, name: str, repository: str, more: Mapping[str, str] | None = None, bare: BareRepository | None = None
) -> BareRepository:
    """An example with `manifests/` and `repository/`: both below `world.root`, the latter also as a commit of a repository.

    Args:
        world: the servers.
        name: of the example.
        repository: name of the repository that is made.
        more: further texts and what stands for them.
        bare: a repository that is there already, instead of a new one.
    """
    copy(EXAMPLES / name / "manifests", world.folder, world, more)
    copy(EXAMPLES / name / "repository", world.root / "repository", world)
    push_images(world, world.root / "repository")
    content = files(world.root / "repository")
    if bare is None:
        return world.repository(repository, content)
    bare.commit({path: text.encode() for path, text in content.items()})
    return bare


def push_images(world: Lab, folder: Path) -> list[str]:
    """Fill the registry with what policies can choose from, for each image that is named below a folder; their names."""
    names: dict[str, bool] = {}
    for text in files(folder).values():
        for found in re.finditer(rf"{re.escape(world.registry.host)}/([\w/]+)", text):
            names[found[1]] = names.get(found[1], False) or "main-" in text
    for name, builds in sorted(names.items()):
        for tag in sorted(BUILDS if builds else TAGS):
            world.registry.push_image(name, tag)
    return sorted(names)


def shell_lines(page: Path) -> list[str]:
    """The lines of the shell blocks of a page."""
    blocks = re.findall(r"^```shell\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]
