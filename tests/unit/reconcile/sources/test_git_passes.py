"""GitRepository, pass by pass: what is asked of the remote, what is stored, what the object and the events say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconcile.api.meta import FINALIZER
from reconcile.artifact.storage import Storage
from tests.support.gitrepo import Blob
from tests.support.sourceworld import SourceWorld, conditions, source_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[SourceWorld]:
    async with source_world(tmp_path) as made:
        yield made


async def test_a_commit_becomes_an_artifact(world: SourceWorld) -> None:
    commit = world.repository(files={"a.txt": b"1\n", "sub/run.sh": Blob(b"#!/bin/sh\n", "100755")}).head()
    await world.declare()
    found = await world.step()
    message = f"stored artifact for revision 'main@sha1:{commit}'"
    assert conditions(found) == [f"Ready=True Succeeded: {message}", f"ArtifactInStorage=True Succeeded: {message}"]
    assert world.files(found) == {"a.txt": (b"1\n", False), "sub/run.sh": (b"#!/bin/sh\n", True)}
    artifact = found.status.artifact
    assert (artifact.path, artifact.revision) == (f"gitrepository/apps/app/{commit}.tar.gz", f"main@sha1:{commit}")
    assert artifact.url == f"http://localhost/{artifact.path}"
    assert (found.status.observed_generation, found.meta.finalizers) == (1, [FINALIZER])
    [event] = world.sink.events
    assert (event.type, event.reason, event.message) == ("Normal", "NewArtifact", "stored artifact for commit 'change'")
    assert event.metadata == {
        "source.toolkit.fluxcd.io/revision": artifact.revision,
        "source.toolkit.fluxcd.io/digest": artifact.digest,
    }
    assert world.successful().after == 600


@pytest.mark.parametrize(
    "reference",
    [
        {"branch": "main"},
        {"tag": "v1.2.0"},
        {"semver": ">=1.0.0"},
        {"name": "refs/heads/main"},
        {"name": "refs/tags/v1.2.0^{}"},
        {"name": "refs/pull/1/head"},
    ],
    ids=lambda reference: "-".join(map(str, reference)),
)
async def test_a_remote_that_has_not_moved_costs_one_look(world: SourceWorld, reference: dict[str, str]) -> None:
    repository = world.repository(files={"a.txt": b"1\n"})
    head = repository.head() or ""
    repository.tag("v1.0.0", head)
    repository.tag("v1.2.0", repository.commit({"a.txt": b"2\n"}), annotated=True)
    repository.git("update-ref", "refs/pull/1/head", head)
    await world.declare(ref=reference)
    before = await world.step()
    world.processes(), world.sink.take()
    writes = world.writes
    for _ in range(3):
        world.clock.advance(600)
        assert await world.step() == before
        assert world.processes() == {"ls-remote": 1}
    assert (world.writes, world.sink.take()) == (writes, [])


@pytest.mark.parametrize("branch", [None, "main"])
async def test_a_commit_that_is_stored_costs_nothing(world: SourceWorld, branch: str | None) -> None:
    repository = world.repository(files={"a.txt": b"1\n"})
    first = repository.head()
    repository.commit({"a.txt": b"2\n"})
    await world.declare(ref={"commit": first, **({"branch": branch} if branch else {})})
    before = await world.step()
    assert before.status.artifact.revision == (f"main@sha1:{first}" if branch else f"sha1:{first}")
    assert world.files(before) == {"a.txt": (b"1\n", False)}
    world.processes()
    requests = len(world.git.traffic.requests)
    assert await world.step() == before
    assert (world.processes(), len(world.git.traffic.requests)) == ({}, requests)


async def test_a_commit_must_be_in_the_history_of_its_branch(world: SourceWorld) -> None:
    repository = world.repository(files={"a.txt": b"1\n"})
    other = repository.commit({"b.txt": b"2\n"}, branch="other", start=repository.head())
    await world.declare(ref={"commit": other, "branch": "main"})
    found = await world.step()
    text = f"failed to checkout and determine revision: unable to resolve commit object for '{other}': object not found"
    assert f"FetchFailed=True GitOperationFailed: {text}" in conditions(found)
    await world.declare(ref={"commit": other, "branch": "other"})
    assert world.names(await world.step()) == ["a.txt", "b.txt"]


async def test_a_new_commit_is_one_look_and_one_fetch(world: SourceWorld) -> None:
    repository = world.repository(files={"a.txt": b"1\n"})
    await world.declare()
    old = await world.step()
    commit = repository.commit({"a.txt": b"2\n"}, message="second\n\nwith a body")
    world.processes(), world.sink.take()
    new = await world.step()
    assert world.processes() == {"ls-remote": 1, "fetch": 1, "ls-tree": 1}
    assert world.sink.take() == [("Normal", "NewArtifact", "stored artifact for commit 'second'")]
    assert new.status.artifact.revision == f"main@sha1:{commit}"
    # Who has just read the old address still gets the old artifact; after its time it is collected.
    assert world.storage.path_of(old.status.artifact).exists()
    world.clock.advance(61)
    await world.step()
    assert not world.storage.path_of(old.status.artifact).exists()
    assert world.sink.take() == [("Trace", "GarbageCollectionSucceeded", "garbage collected 1 artifacts")]


async def test_a_commit_that_changes_nothing_of_the_artifact_is_a_new_revision_of_the_same_content(world: SourceWorld) -> None:
    repository = world.repository(files={"a.txt": b"1\n"})
    await world.declare()
    old = (await world.step()).status.artifact
    repository.commit({"picture.png": b"ignored"})
    world.sink.take()
    new = (await world.step()).status.artifact
    assert new.digest == old.digest
    assert new.revision != old.revision
    assert world.sink.take() == []


async def test_failures_leave_the_old_artifact_and_say_what_happened(world: SourceWorld) -> None:
    repository = world.repository(files={"a.txt": b"1\n"})
    await world.declare()
    good = await world.step()
    world.sink.take()
    (repository.path / "HEAD").rename(repository.path / "HEAD.gone")
    bad = await world.step()
    url = world.git.url("app")
    text = f"failed to checkout and determine revision: unable to clone '{url}': repository not found: "
    assert conditions(bad) == [
        "Reconciling=True ProgressingWithRetry: reconciliation in progress",
        f"Ready=False GitOperationFailed: {text}",
        f"ArtifactInStorage=True Succeeded: stored artifact for revision '{good.status.artifact.revision}'",
        f"FetchFailed=True GitOperationFailed: {text}",
    ]
    assert bad.status.artifact == good.status.artifact
    assert world.names(bad) == ["a.txt"]
    assert world.sink.take() == [("Warning", "GitOperationFailed", text)]
    writes = world.writes
    await world.step()
    assert (world.writes, world.sink.take()) == (writes, [])
    (repository.path / "HEAD.gone").rename(repository.path / "HEAD")
    world.clock.advance(1)
    again = await world.step()
    assert conditions(again) == conditions(good)
    [(kind, reason, message)] = world.sink.take()
    assert (kind, reason) == ("Normal", "Succeeded")
    assert message == f"stored artifact for commit '{good.status.artifact.revision}'"


async def test_an_empty_repository_has_a_reason_of_its_own(world: SourceWorld) -> None:
    world.repository()
    await world.declare()
    assert "FetchFailed=True EmptyGitRepository: git repository is empty" in conditions(await world.step())


async def test_an_artifact_that_is_gone_or_damaged_is_made_again(world: SourceWorld) -> None:
    world.repository(files={"a.txt": b"1\n"})
    await world.declare()
    good = await world.step()
    path = world.storage.path_of(good.status.artifact)
    data = path.read_bytes()
    path.unlink()
    world.sink.take()
    assert (await world.step()).status.artifact.digest == good.status.artifact.digest
    assert path.read_bytes() == data
    assert world.sink.take() == []  # nobody who has the artifact has anything to do
    path.write_bytes(data[:-1] + b"x")
    assert (await world.step()).status.artifact.digest == good.status.artifact.digest
    assert path.read_bytes() == data
    [(kind, reason, _)] = world.sink.take()
    assert (kind, reason) == ("Warning", "ArtifactVerificationFailed")


async def test_settings_of_content_make_another_artifact_of_the_same_commit(world: SourceWorld) -> None:
    world.repository(files={"a.yaml": b"a", "b.txt": b"b", "img.png": b"p", "sub/c.yaml": b"c", "other/d.yaml": b"d"})
    await world.declare()
    assert world.names(await world.step()) == ["a.yaml", "b.txt", "other/d.yaml", "sub/c.yaml"]
    await world.declare(ignore="*.txt\n")
    world.processes()
    found = await world.step()
    assert world.processes() == {"ls-remote": 1, "ls-tree": 1}
    assert world.names(found) == ["a.yaml", "img.png", "other/d.yaml", "sub/c.yaml"]
    assert found.status.observed_ignore == "*.txt\n"
    await world.declare(ignore=None, sparseCheckout=["./sub"])
    found = await world.step()
    assert world.names(found) == ["sub/c.yaml"]
    assert found.status.observed_sparse_checkout == ["./sub"]
    assert found.status.observed_ignore is None
    await world.declare(sparseCheckout=None)
    assert world.names(await world.step()) == ["a.yaml", "b.txt", "other/d.yaml", "sub/c.yaml"]


async def test_a_request_is_answered_even_when_there_is_nothing_to_do(world: SourceWorld) -> None:
    world.repository(files={"a.txt": b"1\n"})
    await world.declare()
    revision = (await world.step()).status.artifact.revision
    world.sink.take()
    await world.declare(requested="now")
    found = await world.step()
    assert found.status.last_handled_reconcile_at == "now"
    text = f"no changes since last reconciliation: observed revision '{revision}'"
    assert world.sink.take() == [("Trace", "GitOperationSucceeded", text)]


async def test_a_suspended_repository_keeps_its_artifact(world: SourceWorld) -> None:
    repository = world.repository(files={"a.txt": b"1\n"})
    await world.declare()
    good = await world.step()
    await world.declare(suspend=True)
    repository.commit({"a.txt": b"2\n"})
    world.processes()
    still = await world.step()
    assert world.processes() == {}
    assert still.status.artifact == good.status.artifact
    assert still.status.observed_generation == 2


async def test_deleting_a_repository_deletes_its_artifacts(world: SourceWorld) -> None:
    world.repository(files={"a.txt": b"1\n"})
    await world.declare()
    path = world.storage.path_of((await world.step()).status.artifact)
    world.sink.take()
    await world.withdraw()
    await world.controller.step((await world.get()).key)
    assert not path.exists()
    text = "garbage collected artifacts for deleted resource"
    assert world.sink.take() == [("Trace", "GarbageCollectionSucceeded", text)]


async def test_another_url_is_another_repository(world: SourceWorld) -> None:
    world.repository(files={"a.txt": b"1\n"})
    other = world.repository("other", {"b.txt": b"2\n"})
    await world.declare()
    await world.step()
    await world.declare(url=world.git.url("other"))
    found = await world.step()
    assert world.names(found) == ["b.txt"]
    assert found.status.artifact.revision == f"main@sha1:{other.head()}"


async def test_an_artifact_gets_the_address_of_the_server_it_is_served_by_now(world: SourceWorld) -> None:
    world.repository(files={"a.txt": b"1\n"})
    await world.declare()
    before = (await world.step()).status.artifact
    world.sink.take()
    elsewhere = Storage(world.storage.root, world.clock, host="https://artifacts.example:8443")
    world.reconciler.tools = replace(world.reconciler.tools, storage=elsewhere)
    after = (await world.step()).status.artifact
    assert after == before.model_copy(update={"url": f"https://artifacts.example:8443/{before.path}"})
    assert world.sink.take() == []
    elsewhere.close()


async def test_a_storage_that_cannot_be_written_is_told(world: SourceWorld) -> None:
    world.repository(files={"a.txt": b"1\n"})
    (world.storage.root / "gitrepository").parent.mkdir(exist_ok=True)
    (world.storage.root / "gitrepository").write_text("in the way")
    await world.declare()
    found = conditions(await world.step())
    [failure] = [
        c for c in found if c.startswith("StorageOperationFailed=True ArchiveOperationFailed: unable to archive artifact")
    ]
    assert f"Ready=False {failure.removeprefix('StorageOperationFailed=True ')}" in found
    (world.storage.root / "gitrepository").unlink()
    found = await world.step()
    assert [c.split("=")[0] for c in conditions(found)] == ["Ready", "ArtifactInStorage"]
