"""What of a commit comes into an artifact: modes, ignore rules, hostile trees, sparse folders, submodules, includes, limits."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from imagebot.demo.gitserver import GitServer
from reconcile.git.auth import GitCredentials
from reconcile.git.errors import GitError
from reconcile.sources.git_access import for_module
from reconcile.sources.git_archive import BATCH_BYTES, batches
from reconcile.sources.git_includes import inside, same_url
from reconcile.sources.git_tree import File, Limits, module_url
from tests.support.gitrepo import BareRepository, Blob
from tests.support.sourceworld import SourceWorld, conditions, source_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[SourceWorld]:
    async with source_world(tmp_path) as made:
        yield made


# --- trees


async def test_links_are_left_out_and_modes_kept(world: SourceWorld) -> None:
    files = {
        "run.sh": Blob(b"#!/bin/sh\n", "100755"),
        "link": Blob(b"run.sh", "120000"),
        "out": Blob(b"/etc/passwd", "120000"),
        "folder/inside": Blob(b"../run.sh", "120000"),
        "module": Blob(b"1" * 40, "160000"),
    }
    world.repository(files=files)
    await world.declare()
    found = await world.step()
    assert world.files(found) == {"run.sh": (b"#!/bin/sh\n", True)}
    assert world.folders(found) == [".", "folder", "module"]


async def test_names_that_people_do_not_expect_are_kept(world: SourceWorld) -> None:
    names = ["new\nline", 'quo"te', "-rf", "übung", "raw-\udcff\udcfe", "a b/c d", "$(touch x)", "x" * 200]
    world.repository(files={name: name.encode("utf-8", "surrogateescape") for name in names})
    await world.declare()
    found = world.files(await world.step())
    assert found == {name: (name.encode("utf-8", "surrogateescape"), False) for name in names}


async def test_a_name_that_no_consumer_could_unpack_is_named(world: SourceWorld) -> None:
    world.repository(files={"a\\b": b"1"})
    await world.declare()
    [failure] = [c for c in conditions(await world.step()) if c.startswith("StorageOperationFailed")]
    assert failure.startswith("StorageOperationFailed=True ArchiveOperationFailed: ")
    assert "'a\\\\b'" in failure
    await world.declare(ignore="a*")
    assert world.names(await world.step()) == []


def crafted(repository: BareRepository, *entries: tuple[str, bytes, str]) -> str:
    """A commit with a tree that git itself would refuse to make."""
    raw = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
    tree = repository.git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=raw)
    commit = repository.git("commit-tree", tree, "-m", "crafted")
    repository.git("update-ref", "refs/heads/main", commit)
    return commit


@pytest.mark.parametrize("name", [b"..", b"../../evil", b"/etc/evil", b"."])
async def test_crafted_trees_never_lead_out(world: SourceWorld, name: bytes) -> None:
    repository = world.repository(files={"good": b"1"})
    await world.declare()
    good = await world.step()
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"evil")
    crafted(repository, ("100644", name, blob))
    found = await world.step()
    bad = [c for c in conditions(found) if c.startswith(("StorageOperationFailed", "FetchFailed"))]
    assert bad or all(not path.startswith(("/", "..")) for path in world.names(found))
    if bad:
        assert found.status.artifact == good.status.artifact
        assert world.names(found) == ["good"]


async def test_a_crafted_tree_with_a_file_and_a_folder_of_one_name_is_refused(world: SourceWorld) -> None:
    repository = world.repository(files={"good": b"1"})
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"evil")
    inner = repository.git("hash-object", "-t", "tree", "-w", "--stdin", stdin=b"100644 x\0" + bytes.fromhex(blob))
    crafted(repository, ("100644", b"a", blob), ("40000", b"a", inner))
    await world.declare()
    assert any("a file and" in c or "twice" in c for c in conditions(await world.step()))


# --- ignore


async def test_ignore_rules_come_from_the_tree_and_the_spec(world: SourceWorld) -> None:
    files = {
        ".sourceignore": b"*.md\n",
        "README.md": b"x",
        "a.png": b"x",
        "sub/.sourceignore": b"secret.yaml\n",
        "sub/secret.yaml": b"x",
        "secret.yaml": b"x",
        "sub/b.txt": b"x",
        ".gitignore": b"x",
    }
    world.repository(files=files)
    await world.declare(ignore="*.txt")
    assert world.names(await world.step()) == [".sourceignore", "a.png", "secret.yaml", "sub/.sourceignore"]


# --- limits


async def test_what_is_too_large_is_named(tmp_path: Path) -> None:
    async with source_world(tmp_path, limits=Limits(file=1000, total=1500, files=3)) as world:
        repository = world.repository(files={"big.bin": b"x" * 1001})
        await world.declare()
        [failure] = [c for c in conditions(await world.step()) if c.startswith("StorageOperationFailed")]
        assert "'big.bin' has 1001 bytes, more than the limit of 1000" in failure
        await world.declare(ignore="big.bin")
        assert world.names(await world.step()) == []
        repository.commit({"a": b"1" * 800, "b": b"2" * 800})
        [failure] = [c for c in conditions(await world.step()) if c.startswith("StorageOperationFailed")]
        assert "have 1600 bytes together, more than the limit of 1500" in failure
        repository.commit({"a": b"1", "b": b"2", "c": b"3", "d": b"4"})
        [failure] = [c for c in conditions(await world.step()) if c.startswith("StorageOperationFailed")]
        assert "it has 4 files, more than the limit of 3" in failure


def test_batches_are_small_whatever_the_files() -> None:
    mirror = object()
    sizes = [1, BATCH_BYTES, 5, 5, BATCH_BYTES * 3, 2]
    files = [File(str(number), "0" * 40, size, False, mirror) for number, size in enumerate(sizes)]  # type: ignore[arg-type]
    found = [[file.size for file in batch] for batch in batches(files)]
    assert found == [[1], [BATCH_BYTES], [5, 5], [BATCH_BYTES * 3], [2]]
    assert [size for batch in found for size in batch] == sizes


async def test_many_files_come_through_in_batches(world: SourceWorld) -> None:
    files = {f"d{n % 50}/f{n}.txt": f"{n}".encode() * 100 for n in range(5000)}
    world.repository(files=files)
    await world.declare()
    first = await world.step()
    assert {name: data for name, (data, _) in world.files(first).items()} == files
    # The same commit makes the same bytes.
    path = world.storage.path_of(first.status.artifact)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    await world.step()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


# --- sparse


async def test_sparse_folders_are_all_there_is(world: SourceWorld) -> None:
    repository = world.repository(files={"root.txt": b"r", "a/x": b"1", "a/b/y": b"2", "ab/z": b"3", "c/w": b"4"})
    repository.tag("v1.0.0", repository.head() or "")
    await world.declare(sparseCheckout=["./a", "c/"])
    assert world.names(await world.step()) == ["a/b/y", "a/x", "c/w"]
    await world.declare(ref={"name": "refs/tags/v1.0.0"}, sparseCheckout=["a/b"])
    assert world.names(await world.step()) == ["a/b/y"]
    await world.declare(ref={"semver": "1.x"})
    assert world.names(await world.step()) == ["a/b/y", "a/x", "ab/z", "c/w", "root.txt"]
    await world.declare(ref={"branch": "main"}, sparseCheckout=["a", "../a"])
    assert any("sparse checkout dir '../a' does not exist in repository" in c for c in conditions(await world.step()))


# --- submodules


def with_module(world: SourceWorld, url: str, name: str = "lib", files: dict[str, bytes] | None = None) -> BareRepository:
    inner = world.repository(name, files or {"l.txt": b"lib"})
    modules = f'[submodule "{name}"]\n\tpath = vendor/{name}\n\turl = {url}\n'.encode()
    return world.repository(
        files={".gitmodules": modules, "a.txt": b"app", f"vendor/{name}": Blob((inner.head() or "").encode(), "160000")}
    )


@pytest.mark.parametrize("form", ["../lib", "./../lib", "absolute"])
async def test_submodules_are_fetched_when_asked(world: SourceWorld, form: str) -> None:
    with_module(world, world.git.url("lib") if form == "absolute" else form)
    await world.declare()
    assert world.names(await world.step()) == ["a.txt"]
    await world.declare(recurseSubmodules=True)
    found = await world.step()
    assert world.names(found) == ["a.txt", "vendor/lib/l.txt"]
    assert found.status.observed_recurse_submodules is True
    world.processes()
    await world.step()
    assert world.processes() == {"ls-remote": 1}


async def test_a_submodule_that_holds_itself_ends(world: SourceWorld) -> None:
    inner = world.repository("lib", {"l.txt": b"lib"})
    for _ in range(12):
        modules = b'[submodule "s"]\n\tpath = s\n\turl = ../lib\n'
        inner.commit({".gitmodules": modules, "s": Blob((inner.head() or "").encode(), "160000")})
    await world.declare(url=world.git.url("lib"), recurseSubmodules=True)
    assert any("submodules are nested more than 10 deep" in c for c in conditions(await world.step()))


@pytest.mark.parametrize(
    ("modules", "complaint"),
    [
        (b"", "is not described in .gitmodules"),
        (b"[submodule", "cannot read the settings"),
        (b'[submodule "x"]\n\tpath = vendor/lib\n\turl = file:///etc\n', "'file' is not supported|repository"),
        (b'[submodule "x"]\n\tpath = vendor/lib\n\turl = ext::sh -c id\n', "is not supported"),
        (b'[submodule "x"]\n\tpath = vendor/lib\n\turl = --upload-pack=id\n', "is not supported"),
        (b'[submodule "x"]\n\tpath = vendor/lib\n\turl = ../../../../x\n', "leads out of the parent's host"),
        (b"[include]\n\tpath = /etc/passwd\n", "is not described"),
    ],
)
async def test_hostile_descriptions_of_submodules(world: SourceWorld, modules: bytes, complaint: str) -> None:
    world.repository(files={".gitmodules": modules, "vendor/lib": Blob(b"1" * 40, "160000")})
    await world.declare(recurseSubmodules=True)
    found = conditions(await world.step())
    [failure] = [c for c in found if c.startswith("FetchFailed")]
    assert any(word in failure for word in complaint.split("|"))


async def test_credentials_go_to_submodules_on_the_same_server_alone(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    foreign_repository = BareRepository.create(tmp_path / "foreign" / "lib")
    head = foreign_repository.commit({"l.txt": b"foreign"})
    headers = []

    def watch(handler: object) -> bool:
        headers.append(dict(handler.headers).get("Authorization"))  # type: ignore[attr-defined]
        return False

    async with source_world(tmp_path, username="user", password="pass") as world:
        with GitServer(tmp_path / "foreign", intercept=watch) as foreign:
            with_module(world, "../lib")
            await world.secret("login", {"username": "user", "password": "pass"})
            await world.declare(recurseSubmodules=True, secretRef={"name": "login"})
            assert world.names(await world.step()) == ["a.txt", "vendor/lib/l.txt"]
            modules = f'[submodule "lib"]\n\tpath = vendor/lib\n\turl = {foreign.url("lib")}\n'.encode()
            BareRepository(tmp_path / "git" / "app").commit({".gitmodules": modules, "vendor/lib": Blob(head.encode(), "160000")})
            found = await world.step()
            assert world.files(found)["vendor/lib/l.txt"] == (b"foreign", False)
            assert headers
            assert set(headers) == {None}


@pytest.mark.parametrize(
    ("parent", "url", "ours"),
    [
        ("https://git.example/a/b", "https://git.example/c", True),
        ("https://git.example/a/b", "https://git.example:443/c", False),
        ("https://git.example/a/b", "http://git.example/c", False),
        ("https://git.example/a/b", "https://git.example.evil/c", False),
        ("https://git.example/a/b", "https://git.example@evil/c", False),
        ("https://git.example/a/b", "ssh://git@git.example/c", False),
        ("ssh://git@git.example/a", "ssh://git@git.example/c", True),
        ("ssh://git@git.example/a", "ssh://git@other.example/c", False),
    ],
)
def test_whose_credentials_a_submodule_gets(parent: str, url: str, ours: bool) -> None:
    held = GitCredentials(username="u", password="p", ssh_key=b"k", known_hosts=b"h", client_key=b"c", proxy="http://proxy:1")
    given = for_module(parent, held, url)
    assert (given == held) is ours
    assert given.proxy == held.proxy
    if not ours:
        assert given == GitCredentials(proxy=held.proxy)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("../c", "https://h/a/c"),
        ("./c", "https://h/a/b.git/c"),
        ("../../c.git", "https://h/c.git"),
        ("git@other:org/x.git", "ssh://git@other/org/x.git"),
        ("ssh://git@other/x", "ssh://git@other/x"),
    ],
)
def test_urls_of_submodules(url: str, wanted: str) -> None:
    assert module_url("https://h/a/b.git", url) == wanted


def test_a_relative_url_stays_on_its_server() -> None:
    with pytest.raises(GitError, match="leads out"):
        module_url("https://h/a", "../../../x")


# --- includes


async def test_a_repository_is_woken_by_what_it_includes(world: SourceWorld) -> None:
    lib = world.repository("lib", {"l.txt": b"1"})
    world.repository("app", {"a.txt": b"app"})
    await world.declare("lib", url=world.git.url("lib"))
    await world.declare("app", url=world.git.url("app"), include=[{"repository": {"name": "lib"}, "toPath": "vendor/lib"}])
    await world.heard()
    waiting = await world.step("app")
    assert "IncludeUnavailable=True NoArtifact: no artifact available for include 'lib'" in conditions(waiting)
    assert world.sink.take() == [("Trace", "NoArtifact", "no artifact available for include 'lib'")]
    await world.step("lib")
    assert "app" in await world.heard()
    found = await world.step("app")
    assert world.names(found) == ["a.txt", "vendor/lib/l.txt"]
    await world.heard()
    lib.commit({"l.txt": b"2"})
    await world.step("lib")
    assert await world.heard() == ["app"]
    again = await world.step("app")
    assert world.files(again)["vendor/lib/l.txt"] == (b"2", False)
    assert [a.revision for a in again.status.included_artifacts] == [f"main@sha1:{lib.head()}"]
    world.processes()
    assert await world.step("app") == again
    assert world.processes() == {"ls-remote": 1}
    # A change of status that is none of the artifact wakes nobody.
    await world.declare("lib", requested="x")
    await world.step("lib")
    assert await world.heard() == ["lib"]


@pytest.mark.parametrize(
    ("include", "names"),
    [
        ({}, ["a.txt", "lib/.sourceignore", "lib/deep/d.sh", "lib/l.txt"]),
        ({"fromPath": "deep"}, ["a.txt", "lib/d.sh"]),
        ({"fromPath": "./deep/", "toPath": "/x//y/"}, ["a.txt", "x/y/d.sh"]),
        ({"toPath": "../../out"}, ["a.txt", "out/.sourceignore", "out/deep/d.sh", "out/l.txt"]),
        ({"fromPath": "../../../deep", "toPath": "x"}, ["a.txt", "x/d.sh"]),
        ({"fromPath": "deep/d.sh", "toPath": "bin/run"}, ["a.txt", "bin/run"]),
    ],
)
async def test_where_included_files_go(world: SourceWorld, include: dict[str, str], names: list[str]) -> None:
    lib = {"l.txt": b"1", "deep/d.sh": Blob(b"#!", "100755"), ".sourceignore": b"*.md", "x.md": b"1"}
    world.repository("lib", lib)
    world.repository("app", {"a.txt": b"app"})
    await world.declare("lib", url=world.git.url("lib"))
    await world.step("lib")
    await world.declare("app", url=world.git.url("app"), include=[{"repository": {"name": "lib"}, **include}])
    found = await world.step("app")
    assert world.names(found) == names
    assert [data[1] for name, data in world.files(found).items() if name.endswith(("d.sh", "run"))] == [True]


@pytest.mark.parametrize(
    ("include", "complaint"),
    [
        ({"toPath": "vendor"}, "from  to vendor: link error: cannot rename unpack to vendor: rename unpack vendor: file exists"),
        ({"toPath": "a.txt"}, "file exists"),
        ({"toPath": "a.txt/below"}, "file exists"),
        ({"toPath": "link"}, "file exists"),
        ({"toPath": "."}, "file exists"),
        ({"fromPath": "nowhere", "toPath": "x"}, "no such file or directory"),
    ],
)
async def test_includes_never_replace_anything(world: SourceWorld, include: dict[str, str], complaint: str) -> None:
    world.repository("lib", {"l.txt": b"1"})
    world.repository("app", {"a.txt": b"app", "vendor/v.txt": b"v", "link": Blob(b"..", "120000")})
    await world.declare("lib", url=world.git.url("lib"))
    await world.step("lib")
    await world.declare("app", url=world.git.url("app"), include=[{"repository": {"name": "lib"}, **include}])
    [failure] = [c for c in conditions(await world.step("app")) if c.startswith("StorageOperationFailed")]
    assert failure.startswith("StorageOperationFailed=True CopyFailure: failed to copy 'lib' include ")
    assert complaint in failure


async def test_two_includes_of_one_repository_and_a_lost_file(world: SourceWorld) -> None:
    world.repository("lib", {"l.txt": b"1", "z.txt": b"2"})
    world.repository("app", {"m.txt": b"app"})
    await world.declare("lib", url=world.git.url("lib"))
    lib = await world.step("lib")
    includes = [{"repository": {"name": "lib"}, "toPath": path} for path in ("z", "a")]
    await world.declare("app", url=world.git.url("app"), include=includes)
    assert world.names(await world.step("app")) == ["a/l.txt", "a/z.txt", "m.txt", "z/l.txt", "z/z.txt"]
    world.storage.path_of(lib.status.artifact).unlink()
    await world.declare("app", ignore="m.txt")
    found = await world.step("app")
    assert any(c.startswith("StorageOperationFailed=True CopyFailure: ") for c in conditions(found))
    assert "m.txt" in world.names(found)  # the old artifact stays
    await world.step("lib")
    assert world.names(await world.step("app")) == ["a/l.txt", "a/z.txt", "z/l.txt", "z/z.txt"]


@pytest.mark.parametrize(
    ("path", "wanted"), [("", ""), ("/", ""), ("a//b/./c", "a/b/c"), ("../..", ""), ("a/../../b", "b"), (None, "")]
)
def test_paths_of_includes_stay_inside(path: str | None, wanted: str) -> None:
    assert inside(path) == wanted


# --- pushes of our own


async def test_who_follows_what_we_push(world: SourceWorld) -> None:
    world.repository("app", {"a.txt": b"1"})
    url = world.git.url("app")
    references = {
        "main": {"branch": "main"},
        "other": {"branch": "other"},
        "full": {"name": "refs/heads/main"},
        "range": {"semver": "1.x"},
        "tag": {"tag": "v1"},
        "fixed": {"commit": "1" * 40, "branch": "main"},
    }
    for name, reference in references.items():
        await world.declare(name, url=url, ref=reference)
    await world.declare("slash", url=url + ".git/", ref={"branch": "main"})
    await world.declare("elsewhere", url=world.git.url("elsewhere"))
    await world.declare("asleep", url=url, suspend=True)
    await world.heard()

    async def woken(ref: str) -> list[str]:
        return [key.name for key in await world.reconciler.pushed(url, ref)]

    assert await woken("refs/heads/main") == ["full", "main", "slash"]
    assert await woken("refs/tags/v1") == ["range", "tag"]
    assert await woken("refs/heads/none") == []
    await world.declare("main", url=world.git.url("elsewhere"))
    await world.heard()
    assert await woken("refs/heads/main") == ["full", "slash"]


def test_ways_to_write_an_address() -> None:
    assert len({same_url(f"{scheme}://Git.Example/a/b{end}") for scheme in ("https", "HTTPS") for end in ("", "/", ".git")}) == 1
    assert same_url("ssh://git@h/a") == same_url("ssh://h/a.git")
    assert same_url("https://h/a") != same_url("https://h/A")
