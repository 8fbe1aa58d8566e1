"""One suite for every transport: what `Mirror` promises, against a real Git server over HTTP and over SSH."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncssh
import pytest

from imagebot.demo.gitserver import GitServer
from reconcile.git.auth import GitCredentials, credentials_from_secret
from reconcile.git.errors import (
    EmptyRepository,
    LostRace,
    PushRejected,
    ReferenceNotFound,
    RepositoryNotFound,
    UnsupportedRepository,
)
from reconcile.git.mirror import Mirror
from reconcile.git.mirrors import Mirrors
from reconcile.git.types import Author, Edit, Reference, RefUpdate
from tests.support.gitrepo import BareRepository, Blob, manifests
from tests.support.sshserver import SshGitServer

AUTHOR = Author("Image Bot", "bot@example.com")
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass
class World:
    """A server with one repository, and a service that knows it."""

    server: GitServer | SshGitServer
    repository: BareRepository
    credentials: GitCredentials
    mirrors: Mirrors

    def mirror(self, name: str = "team/app.git", timeout: float = 30.0) -> Mirror:
        return self.mirrors.mirror(self.server.url(name), self.credentials, timeout)

    async def head(self, branch: str = "main") -> str:
        """What the mirror believes the branch to be; fetched."""
        mirror = self.mirror()
        resolved = await mirror.resolve(Reference(branch=branch), await mirror.ls_remote())
        await mirror.fetch(resolved)
        return resolved.commit


@pytest.fixture(params=["http", "ssh"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[GitServer | SshGitServer, GitCredentials]]:
    root = tmp_path / "srv"
    root.mkdir()
    if request.param == "http":
        with GitServer(root, username="bot", password="s3cret/p@ss") as http:
            yield http, GitCredentials(username="bot", password="s3cret/p@ss")
        return
    key = asyncssh.generate_private_key("ssh-ed25519")
    with SshGitServer(root, authorized=[key.export_public_key("openssh").decode()]) as ssh:
        secret = {"identity": key.export_private_key("openssh"), "known_hosts": ssh.known_hosts()}
        yield ssh, credentials_from_secret(ssh.url("x"), secret)


@pytest.fixture
async def world(server: tuple[GitServer | SshGitServer, GitCredentials], tmp_path: Path) -> AsyncIterator[World]:
    repository = BareRepository.create(tmp_path / "srv" / "team" / "app.git")
    mirrors = Mirrors(tmp_path / "state")
    yield World(server[0], repository, server[1], mirrors)
    await mirrors.close()
    # Whatever a test did: no credentials stay on disk.
    assert not list((tmp_path / "state").rglob("tmp/*"))


async def test_a_commit_changes_only_the_edited_files_and_is_pushed_with_a_lease(world: World) -> None:
    files = manifests(300)
    base = world.repository.commit(files)
    commit = await world.head()
    assert commit == base
    mirror = world.mirror()
    first, second = min(files), max(files)
    made = await mirror.write_commit(base, [Edit(first, b"one\r\n"), Edit(second, b"")], "message\n", AUTHOR, WHEN)
    await mirror.push([RefUpdate(made, "refs/heads/main", base)])

    assert world.repository.log() == [made, base]
    assert world.repository.file(first) == b"one\r\n"
    assert world.repository.file(second) == b""
    before, after = world.repository.tree(base), world.repository.tree(made)
    assert {path for path in after if after[path] != before.get(path)} == {first, second}
    assert before.keys() == after.keys()
    world.repository.check()


async def test_an_idle_look_is_one_process(world: World) -> None:
    world.repository.commit({"a.yaml": b"a"})
    mirror = world.mirror()
    await mirror.ls_remote()
    mirror.counters.processes.clear()
    refs = await mirror.ls_remote()
    resolved = await mirror.resolve(Reference(branch="main"), refs)
    assert resolved.revision == f"main@sha1:{world.repository.head()}"
    assert dict(mirror.counters.processes) == {"ls-remote": 1}


@pytest.mark.parametrize("size", [50, 1000])
async def test_the_work_of_a_run_grows_with_what_changed(world: World, size: int) -> None:
    files = manifests(size, range(0, 30, 10))
    base = world.repository.commit(files)
    mirror = world.mirror()
    await mirror.ls_remote()
    mirror.counters.processes.clear()
    await world.head()
    assert dict(mirror.counters.processes) == {"ls-remote": 1, "for-each-ref": 1, "fetch": 1, "cat-file": 1}
    mirror.counters.processes.clear()
    entries = await mirror.grep(base, b"$imagepolicy")
    assert len(entries) == 3
    texts = await mirror.read([entry.oid for entry in entries])
    edits = [Edit(entry.path, texts[entry.oid].replace(b"1.0.0", b"1.0.1 %d" % index)) for index, entry in enumerate(entries)]
    made = await mirror.write_commit(base, edits, "m", AUTHOR, WHEN)
    await mirror.push([RefUpdate(made, "refs/heads/main", base)])
    # Three files in three folders app-0, app-1, app-2 of one team: three leaves, team, apps, root.
    assert dict(mirror.counters.objects) == {"blob": 3, "tree": 6, "commit": 1}
    assert dict(mirror.counters.processes) == {"grep": 1, "ls-tree": 1, "unpack-objects": 1, "push": 1}

    mirror.counters.processes.clear()
    assert {entry.path for entry in await mirror.grep(made, b"$imagepolicy")} == {entry.path for entry in entries}
    assert dict(mirror.counters.processes) == {"diff-tree": 1}


async def test_a_lost_race_changes_nothing_and_can_be_repeated_on_the_new_head(world: World) -> None:
    base = world.repository.commit({"app.yaml": b"v1", "other.yaml": b"1"})
    await world.head()
    mirror = world.mirror()
    made = await mirror.write_commit(base, [Edit("app.yaml", b"v2")], "bot", AUTHOR, WHEN)
    human = world.repository.commit({"other.yaml": b"2"})
    with pytest.raises(LostRace) as lost:
        await mirror.push([RefUpdate(made, "refs/heads/main", base)])
    assert str(lost.value) == "failed to push to remote: non-fast-forward update: refs/heads/main"
    assert lost.value.ref == "refs/heads/main"
    assert world.repository.head() == human

    assert await world.head() == human
    again = await mirror.write_commit(human, [Edit("app.yaml", b"v2")], "bot", AUTHOR, WHEN)
    await mirror.push([RefUpdate(again, "refs/heads/main", human)])
    assert world.repository.log() == [again, human, base]
    assert (world.repository.file("app.yaml"), world.repository.file("other.yaml")) == (b"v2", b"2")


async def test_a_branch_is_made_only_when_it_is_not_there(world: World) -> None:
    base = world.repository.commit({"a": b"1"})
    await world.head()
    mirror = world.mirror()
    made = await mirror.write_commit(base, [Edit("a", b"2")], "m", AUTHOR, WHEN)
    await mirror.push([RefUpdate(made, "refs/heads/bot/updates", None)])
    assert world.repository.head("bot/updates") == made
    assert world.repository.head() == base
    other = await mirror.write_commit(base, [Edit("a", b"3")], "m", AUTHOR, WHEN)
    with pytest.raises(LostRace):
        await mirror.push([RefUpdate(other, "refs/heads/bot/updates", None)])
    assert world.repository.head("bot/updates") == made


async def test_two_references_move_together_or_not_at_all(world: World) -> None:
    base = world.repository.commit({"a": b"1"})
    await world.head()
    mirror = world.mirror()
    made = await mirror.write_commit(base, [Edit("a", b"2")], "m", AUTHOR, WHEN)
    world.repository.hook("update", 'if [ "$1" = refs/heads/locked ]; then echo "this branch is locked"; exit 1; fi\n')
    with pytest.raises(PushRejected) as rejected:
        await mirror.push([RefUpdate(made, "refs/heads/main", base), RefUpdate(made, "refs/heads/locked", None)])
    assert str(rejected.value) == "failed to push to remote: command error on refs/heads/locked: hook declined"
    assert rejected.value.detail == "this branch is locked"
    assert (world.repository.head(), world.repository.head("locked")) == (base, None)
    await mirror.push([RefUpdate(made, "refs/heads/main", base), RefUpdate(made, "refs/for/main", None)])
    assert world.repository.head() == made
    assert world.repository.git("rev-parse", "refs/for/main") == made


async def test_a_hook_that_declines_is_named_and_what_it_says_is_kept_apart(world: World) -> None:
    base = world.repository.commit({"a": b"1"})
    await world.head()
    mirror = world.mirror()
    made = await mirror.write_commit(base, [Edit("a", b"2")], "m", AUTHOR, WHEN)
    world.repository.hook("pre-receive", "echo 'policy: ask first' >&2\nhead -c 100000 /dev/zero | tr '\\0' x\nexit 1\n")
    with pytest.raises(PushRejected) as rejected:
        await mirror.push([RefUpdate(made, "refs/heads/main", base)])
    assert str(rejected.value) == "failed to push to remote: command error on refs/heads/main: pre-receive hook declined"
    assert rejected.value.status == "pre-receive hook declined"
    assert "policy: ask first" in rejected.value.detail
    assert len(rejected.value.detail) < 5000
    assert world.repository.head() == base


async def test_push_options_reach_the_hook(world: World) -> None:
    base = world.repository.commit({"a": b"1"})
    await world.head()
    mirror = world.mirror()
    made = await mirror.write_commit(base, [Edit("a", b"2")], "m", AUTHOR, WHEN)
    hook = f'printf "%s|" "$GIT_PUSH_OPTION_0" "$GIT_PUSH_OPTION_1" > {world.repository.path}/seen\n'
    world.repository.hook("pre-receive", hook)
    await mirror.push([RefUpdate(made, "refs/heads/main", base)], ["ci.skip=", "merge_request.title=a b"])
    assert (world.repository.path / "seen").read_text() == "ci.skip=|merge_request.title=a b|"


@pytest.mark.parametrize("advertise", ["atomic", "push options"])
async def test_a_server_that_cannot_is_told_apart_and_nothing_is_pushed(world: World, advertise: str) -> None:
    base = world.repository.commit({"a": b"1"})
    await world.head()
    mirror = world.mirror()
    made = await mirror.write_commit(base, [Edit("a", b"2")], "m", AUTHOR, WHEN)
    updates = [RefUpdate(made, "refs/heads/main", base), RefUpdate(made, "refs/heads/copy", None)]
    if advertise == "atomic":
        world.repository.git("config", "receive.advertiseAtomic", "false")
        with pytest.raises(PushRejected, match=r"^failed to push to remote: the receiving end does not support --atomic push$"):
            await mirror.push(updates)
    elif isinstance(world.server, SshGitServer):
        world.repository.git("config", "receive.advertisePushOptions", "false")
        with pytest.raises(PushRejected, match=r"^failed to push to remote: the receiving end does not support push options$"):
            await mirror.push(updates[:1], ["a=b"])
    assert (world.repository.head(), world.repository.head("copy")) == (base, None)


async def test_fetches_are_shallow_incremental_and_not_repeated(world: World) -> None:
    for number in range(5):
        world.repository.commit({f"old-{number}": b"x" * 1000})
    base = world.repository.commit(manifests(500))
    mirror = world.mirror()
    await world.head()
    assert await mirror.entries(base)
    mirror.counters.processes.clear()
    await mirror.fetch(base)
    assert "fetch" not in mirror.counters.processes

    made = await mirror.write_commit(base, [Edit("old-1", b"bot")], "m", AUTHOR, WHEN)
    await mirror.push([RefUpdate(made, "refs/heads/main", base)])
    assert await world.head() == made
    assert "fetch" not in mirror.counters.processes

    if isinstance(world.server, GitServer):
        world.server.traffic.clear()
    human = world.repository.commit({"old-0": b"human"})
    assert await world.head() == human
    assert mirror.counters.processes["fetch"] == 1
    assert await mirror.read([world.repository.tree(human)["old-0"][1]]) == {world.repository.tree(human)["old-0"][1]: b"human"}
    if isinstance(world.server, GitServer):
        assert world.server.traffic.sent < 5000


async def test_every_kind_of_reference(world: World) -> None:
    first = world.repository.commit({"a": b"1"}, when=1_700_000_000)
    second = world.repository.commit({"a": b"2"}, when=1_700_000_100)
    third = world.repository.commit({"a": b"3"}, when=1_700_000_200)
    world.repository.tag("v1.0.0", first)
    world.repository.tag("v1.1.0+a", third)
    world.repository.tag("v1.1.0+b", second, annotated=True)
    world.repository.git("update-ref", "refs/pull/7/head", first)
    mirror = world.mirror()
    refs = await mirror.ls_remote()

    async def resolve(reference: Reference) -> tuple[str, str, str | None]:
        found = await mirror.resolve(reference, refs, lambda tags: sorted(t for t in tags if t.startswith("v1.1")))
        return found.commit, found.revision, found.branch

    assert await resolve(Reference(branch="main")) == (third, f"main@sha1:{third}", "main")
    assert await resolve(Reference(branch="main", tag="v1.0.0")) == (first, f"v1.0.0@sha1:{first}", None)
    assert await resolve(Reference(tag="v1.1.0+b")) == (second, f"v1.1.0+b@sha1:{second}", None)
    assert await resolve(Reference(tag="v1.0.0", semver="1.1.x")) == (third, f"v1.1.0+a@sha1:{third}", None)
    assert await resolve(Reference(semver="x", name="refs/tags/v1.1.0+b^{}")) == (second, f"v1.1.0+b@sha1:{second}", None)
    assert await resolve(Reference(name="refs/heads/main", commit=first)) == (first, f"sha1:{first}", None)
    pull = await mirror.resolve(Reference(name="refs/pull/7/head"), await mirror.ls_remote(["refs/pull/7/head"]))
    assert pull.revision == f"pull/7/head@sha1:{first}"
    await mirror.fetch(pull)
    await mirror.fetch(second)
    assert [entry.path for entry in await mirror.entries(second)] == ["a"]


async def test_what_is_not_there_is_said_as_flux_says_it(world: World) -> None:
    world.repository.commit({"a": b"1"})
    mirror = world.mirror()
    refs = await mirror.ls_remote()
    url = mirror.url

    async def text(reference: Reference) -> str:
        with pytest.raises(ReferenceNotFound) as error:
            await mirror.resolve(reference, refs, lambda tags: [])
        return str(error.value)

    assert await text(Reference()) == f"unable to clone '{url}': reference not found"
    assert await text(Reference(branch="x")) == f"unable to clone '{url}': reference not found"
    assert await text(Reference(tag="x")) == f"unable to clone '{url}': couldn't find remote ref \"refs/tags/x\""
    assert await text(Reference(semver="^9")) == "no match found for semver: ^9"
    assert await text(Reference(name="refs/heads/x")) == "unable to resolve ref 'refs/heads/x' to a specific commit"
    assert await text(Reference(commit="abc1234")) == "unable to resolve commit object for 'abc1234': object not found"
    missing = "0123456789" * 4
    assert (await mirror.resolve(Reference(commit=missing), refs)).commit == missing
    with pytest.raises(ReferenceNotFound, match=f"^unable to resolve commit object for '{missing}': object not found$"):
        await mirror.fetch(missing)
    with pytest.raises(RepositoryNotFound) as error:
        await world.mirror("team/none.git").ls_remote()
    assert str(error.value).startswith(f"unable to clone '{world.mirror('team/none.git').url}': repository not found: ")


async def test_an_empty_repository_and_one_with_sha256_names_are_said_clearly(world: World, tmp_path: Path) -> None:
    mirror = world.mirror()
    refs = await mirror.ls_remote()
    assert refs.empty
    with pytest.raises(EmptyRepository, match=r"remote repository is empty$"):
        await mirror.resolve(Reference(branch="main"), refs)
    other = BareRepository.create(tmp_path / "srv" / "new.git", object_format="sha256")
    other.commit({"a": b"1"})
    with pytest.raises(UnsupportedRepository, match=r"sha256 object format, which is not supported$"):
        await world.mirror("new.git").ls_remote()


async def test_modes_links_submodules_and_odd_names_are_kept(world: World) -> None:
    odd = ['quo"te.yaml', "new\nline.yaml", "tab\t.yaml", "-dash.yaml", ":(glob)*.yaml"]
    odd += ["ünïcode/日本.yaml", "back\\slash.yaml", "a b/c d.yaml"]
    latin = b"latin-\xe9.yaml".decode("utf-8", "surrogateescape")
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    base = world.repository.commit(
        {
            **{path: Blob(b"image: x # needle", "100755" if "dash" in path else "100644") for path in [*odd, latin]},
            "link.yaml": Blob(b"../needle", "120000"),
            "sub": Blob(b"1" * 40, "160000"),
            "big.bin": Blob(lfs),
            "run.sh": Blob(b"needle", "100755"),
        }
    )
    await world.head()
    mirror = world.mirror()
    found = await mirror.grep(base, b"needle")
    assert {entry.path for entry in found} == {*odd, latin, "run.sh"}
    made = await mirror.write_commit(base, [Edit(entry.path, b"done") for entry in found], "m", AUTHOR, WHEN)
    await mirror.push([RefUpdate(made, "refs/heads/main", base)])
    before, after = world.repository.tree(base), world.repository.tree(made)
    assert {path: mode for path, (mode, _) in before.items()} == {path: mode for path, (mode, _) in after.items()}
    assert {path for path in after if after[path] != before[path]} == {*odd, latin, "run.sh"}
    assert after["sub"] == ("160000", "1" * 40)
    # An incremental search sees the same as a full one.
    assert await mirror.grep(made, b"needle") == []
    assert {entry.path for entry in await mirror.grep(made, b"done", "ünïcode")} == {"ünïcode/日本.yaml"}


async def test_many_at_once_on_one_mirror_lose_nothing(world: World) -> None:
    base = world.repository.commit({f"{name}.yaml": b"1" for name in "abcdefgh"})

    async def automation(name: str) -> None:
        mirror = world.mirror()
        for _ in range(40):
            resolved = await mirror.resolve(Reference(branch="main"), await mirror.ls_remote())
            await mirror.fetch(resolved)
            made = await mirror.write_commit(resolved.commit, [Edit(f"{name}.yaml", b"2")], name, AUTHOR, WHEN)
            try:
                await mirror.push([RefUpdate(made, "refs/heads/main", resolved.commit)])
            except LostRace:
                continue
            return
        raise AssertionError("never got through")

    await asyncio.gather(*(automation(name) for name in "abcd"))
    assert len(world.repository.log()) == 5
    assert [world.repository.file(f"{name}.yaml") for name in "abcdefgh"] == [b"2"] * 4 + [b"1"] * 4
    assert world.repository.log()[-1] == base
    world.repository.check()
