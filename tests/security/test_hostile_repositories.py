"""Threat: a repository whose committer wants more: `.git` paths, submodules, hooks, filters, links, broken objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.gitrepo import BareRepository, Blob
from tests.support.hostile_trees import holding, point_at, raw_blob, raw_tree
from tests.support.lab import automation, marked
from tests.support.neighbours import Street, street
from tests.support.sourceworld import SourceWorld, source_world

UPDATE = "ImageUpdateAutomation"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Street]:
    async with street(tmp_path) as made:
        yield made
        assert not (tmp_path / "pwned").exists()
        assert {path.name for path in tmp_path.iterdir()} <= {"git", "manifests", "state", "secret"}


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[SourceWorld]:
    async with source_world(tmp_path) as made:
        yield made


def mirror_of(world: Street, bare: BareRepository) -> BareRepository:
    """The service's mirror of a repository."""
    name = world.url(bare.path.name)
    return next(BareRepository(p.parent / "repo.git") for p in world.state.rglob("url") if p.read_text().strip() == name)


@pytest.mark.parametrize("name", [".git", ".GIT", ".Git", "..", "."])
async def test_folders_that_git_would_take_for_its_own_are_never_written(world: Street, name: str) -> None:
    """The commit is not made, the condition names the path, and the repository stays as it is."""
    bare, inner = world.files({}), "config.yaml"
    text = marked(world.image("web"), "web", "0.9.0").encode()
    commit = holding(bare, name.encode(), inner.encode(), text, {b"deploy.yaml": text})
    done = await world.once()
    status, reason, message = done.ready(UPDATE, "web")
    assert (status, reason) == ("False", "GitOperationFailed")
    assert f"not a path inside a repository: '{name}/{inner}'" in message
    assert bare.head() == commit


@pytest.mark.parametrize("name", ["git~1", ".g\u200cit", ".git::$INDEX_ALLOCATION", "a\\..\\b"])
async def test_names_that_other_systems_take_for_git_are_names(world: Street, name: str) -> None:
    """There is no work tree, so nothing is ever written under such a name here; a commit keeps it."""
    bare = world.files({})
    text = marked(world.image("web"), "web", "0.9.0").encode()
    commit = holding(bare, name.encode(), b"x.yaml", text, {b"deploy.yaml": text})
    done = await world.once()
    assert done.ready(UPDATE, "web")[0] == "True"
    assert bare.log()[1] == commit
    assert b"web:1.0.0" in bare.file(f"{name}/x.yaml")
    assert set(bare.tree()) == {f"{name}/x.yaml", "deploy.yaml"}


@pytest.mark.parametrize("name", ["a/b.yaml", "../../x.yaml", ".git/config.yaml", "\n.yaml"])
async def test_names_that_hold_slashes_lead_nowhere(world: Street, name: str) -> None:
    bare = world.files({})
    text = marked(world.image("web"), "web", "0.9.0").encode()
    tree = raw_tree(bare, (b"100644", name.encode(), raw_blob(bare, text)), (b"100644", b"deploy.yaml", raw_blob(bare, text)))
    commit = point_at(bare, tree)
    done = await world.once()
    if done.ready(UPDATE, "web")[0] == "True":
        assert bare.log()[1] == commit
    else:
        assert done.ready(UPDATE, "web")[1] == "GitOperationFailed"
        assert bare.head() == commit


@pytest.mark.parametrize(
    "shape", ["twice", "unsorted", "unknown-mode", "old-mode", "missing-blob", "blob-as-tree", "empty-name", "deep"]
)
async def test_objects_that_are_broken_or_odd(world: Street, shape: str) -> None:
    """Each has its condition or its commit; the neighbour has its commit in any case."""
    bare = world.files({})
    blob = raw_blob(bare, marked(world.image("web"), "web", "0.9.0").encode())
    good = (b"100644", b"deploy.yaml", blob)
    trees = {
        "twice": lambda: raw_tree(bare, good, good),
        "unsorted": lambda: raw_tree(bare, (b"100644", b"z", blob), good),
        "unknown-mode": lambda: raw_tree(bare, (b"123456", b"a.yaml", blob), good),
        "old-mode": lambda: raw_tree(bare, (b"040000", b"a", raw_tree(bare, good)), (b"100664", b"b.yaml", blob), good),
        "missing-blob": lambda: raw_tree(bare, (b"100644", b"a.yaml", "1" * 40), good),
        "blob-as-tree": lambda: raw_tree(bare, (b"40000", b"a", blob), good),
        "empty-name": lambda: raw_tree(bare, (b"100644", b"", blob), good),
        "deep": lambda: _deep(bare, blob),
    }
    commit = point_at(bare, trees[shape]())
    done = await world.once()
    status, reason, message = done.ready(UPDATE, "web")
    if status == "True":
        assert bare.log()[1] == commit
    else:
        assert reason in {"GitOperationFailed", "UpdateFailed"}
        assert message
        assert len(message) < 2000
        assert bare.head() == commit


def _deep(bare: BareRepository, blob: str, levels: int = 6000) -> str:
    """A chain of folders, each in the one above."""
    path = "/".join(["d"] * levels) + "/deploy.yaml"
    stream = f"commit refs/heads/deep\ncommitter x <x> 0 +0000\ndata 0\nM 100644 {blob} {path}\n"
    bare.git("fast-import", "--quiet", stdin=stream.encode())
    return bare.git("rev-parse", "refs/heads/deep^{tree}")


async def test_nothing_in_a_repository_is_run_or_believed(world: Street, tmp_path: Path) -> None:
    """Submodules, filters, drivers, hooks, configuration, references that replace, grafts: none has an effect."""
    touch = f"touch {tmp_path}/pwned"
    modules = "".join(
        f'[submodule "{name}"]\n\tpath = {path}\n\turl = {url}\n\tupdate = !{touch}\n'
        for name, path, url in (
            ("a", "vendor/a", f"ext::sh -c '{touch}'"),
            ("b", "vendor/b", f"-u{touch}"),
            ("../../hooks", "vendor/c", f"file://{tmp_path}"),
            ("d", "vendor/d", f"ssh://-oProxyCommand={touch}/x"),
            ("e", "-c", f"--upload-pack={touch}"),
        )
    )
    config = f"[core]\n\tsshCommand = {touch}\n\tfsmonitor = {touch}\n\thooksPath = .\n"
    config += f'[filter "x"]\n\tclean = {touch}\n\tsmudge = {touch}\n'
    hook = Blob(f"#!/bin/sh\n{touch}\n".encode(), "100755")
    names = ("pre-push", "post-checkout", "hooks/pre-push", "hooks/reference-transaction", ".githooks/post-commit")
    bare = world.files(
        {
            ".gitmodules": modules,
            ".gitattributes": "*.yaml filter=x diff=x merge=x textconv=x export-subst ident working-tree-encoding=UTF-16\n",
            ".gitconfig": config,
            "config": config,
            ".mailmap": "Boss <boss@example.com> <bot@example.com>\n",
            "objects/info/alternates": f"{tmp_path}/git/good.git/objects\n",
        }
    )
    bare.commit(dict.fromkeys(names, hook) | {f"vendor/{n}": Blob(b"1" * 40, "160000") for n in "abcd"})
    base, blob = bare.head(), raw_blob(bare, b"image: replaced\n")
    assert base
    old = bare.tree()["deploy.yaml"][1]
    bare.git("update-ref", f"refs/replace/{old}", blob)
    (bare.path / "info").mkdir(exist_ok=True)
    (bare.path / "info" / "grafts").write_text(f"{base}\n")
    done = await world.once()
    assert done.ready(UPDATE, "web")[0] == "True"
    head = bare.head()
    found = bare.git("--no-replace-objects", "cat-file", "blob", f"{head}:deploy.yaml")
    assert found + "\n" == marked(world.image("web"), "web", "1.0.0")
    changed = bare.git("--no-replace-objects", "diff-tree", "-r", "--name-only", "--no-commit-id", base, str(head))
    assert changed == "deploy.yaml"
    mirror = mirror_of(world, bare)
    assert {ref.split("/")[1] for ref in mirror.git("for-each-ref", "--format=%(refname)").split()} == {"mirror"}
    for left in ("objects/info/alternates", "info/grafts", "hooks", "modules", "worktrees"):
        assert not (mirror.path / left).exists()
    settings = mirror.git("config", "--file", str(mirror.path / "config"), "--name-only", "--list").split()
    assert set(settings) <= {"core.repositoryformatversion", "core.filemode", "core.bare"}


@pytest.mark.parametrize("target", ["{root}/secret", "../../../secret", "deploy.yaml", "link.yaml"])
async def test_links_are_neither_read_nor_written(world: Street, tmp_path: Path, target: str) -> None:
    """A file that is a link out of the tree, into it, or to itself, and the same as a folder."""
    outside = tmp_path / "secret"
    text = marked(world.image("web"), "web", "0.9.0")
    outside.write_text(text)
    link = Blob(target.format(root=tmp_path).encode(), "120000")
    bare = world.files({})
    bare.commit({"link.yaml": link, "folder": link, "a/link.yaml": link})
    before = bare.tree()
    done = await world.once()
    assert done.ready(UPDATE, "web")[0] == "True"
    after = bare.tree()
    assert [path for path in after if after[path] != before[path]] == ["deploy.yaml"]
    assert outside.read_text() == text
    for path in ("link.yaml", "folder/../../secret"):
        world.declare(automation("web", "web", update={"path": path}))
        status, reason, _ = (await world.once()).ready(UPDATE, "web")
        assert (status, reason) in {("False", "UpdateFailed"), ("False", "GitOperationFailed"), ("True", "Succeeded")}
        assert bare.tree() == after
        assert outside.read_text() == text


@pytest.mark.parametrize("name", [".git", "..", ".", "a/../..", "/abs"])
async def test_an_artifact_has_no_path_out_of_it(sources: SourceWorld, name: str) -> None:
    """What a GitRepository hands on to others to unpack."""
    bare = sources.repository(files={"x": b"1"})
    holding(bare, name.encode(), b"x.yaml", b"hostile", {b"good.yaml": b"1"})
    await sources.declare()
    found = await sources.step()
    if found.status.artifact is not None:
        names = sources.names(found)
        assert "good.yaml" in names
        assert not any(part in {"", ".", ".."} or part == ".git" for each in names for part in each.split("/"))
    else:
        assert any("False" in str(c.status) for c in found.status.conditions)
