"""The controller of Buckets: what it stores, says, asks for and leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from reconcile.api.meta import Key
from reconcile.errors import Failed, Stalled
from reconcile.sources.buckets.keys import revision
from reconcile.sources.buckets.listing import BucketLimits
from tests.support.bucket_controller import BucketWorld, bucket_world, conditions
from tests.support.bucket_servers import once, status
from tests.support.bucket_world import PROVIDERS
from tests.support.registry import Exchange


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[BucketWorld]:
    async with bucket_world(tmp_path) as made:
        yield made


def etags(lab: BucketWorld, *keys: str) -> dict[str, str]:
    quoted = '"{}"' if lab.world.provider == "azure" else "{}"
    return {key: quoted.format(lab.objects.objects[key].etag) for key in keys}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_objects_become_an_artifact_and_an_unchanged_bucket_costs_one_list(tmp_path: Path, provider: str):
    async with bucket_world(tmp_path, provider) as lab:
        lab.objects.put("b.yaml", "two")
        lab.objects.put("a/x.yaml", "one")
        lab.objects.put("a/", "")
        await lab.declare()
        resource = await lab.step()
        name = revision(etags(lab, "a/x.yaml", "b.yaml"))
        artifact = resource.status.artifact
        assert lab.files(resource) == {"a/x.yaml": b"one", "b.yaml": b"two"}
        assert artifact.revision == name
        assert artifact.path == f"bucket/apps/files/{name.removeprefix('sha256:')}.tar.gz"
        assert resource.status.url == "http://localhost/bucket/apps/files/latest.tar.gz"
        assert resource.status.observed_generation == resource.meta.generation
        assert conditions(resource) == [
            f"Ready=True Succeeded: stored artifact: revision '{name}'",
            f"ArtifactInStorage=True Succeeded: stored artifact: revision '{name}'",
        ]
        assert lab.events == ["Normal NewArtifact stored artifact with 2 fetched files from 'files' bucket"]
        assert lab.sink.events[0].metadata == {
            "source.toolkit.fluxcd.io/revision": name,
            "source.toolkit.fluxcd.io/digest": artifact.digest,
        }
        assert (lab.objects.counts["LIST"], lab.objects.counts["GET"]) == (1, 2)

        writes = lab.writes
        lab.objects.quiet()
        for _ in range(3):
            assert await lab.step() == resource
        assert lab.objects.counts["LIST"] == 3
        assert lab.objects.counts["GET"] == lab.objects.counts["LOOK"] == 0
        assert lab.writes == writes
        assert len(lab.events) == 1
        assert lab.outcome().after == 60.0


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("restarted", [False, True])
async def test_only_what_has_changed_is_downloaded(tmp_path: Path, provider: str, restarted: bool):
    async with bucket_world(tmp_path, provider) as lab:
        for number in range(20):
            lab.objects.put(f"{number:02}.yaml", f"old {number}")
        await lab.declare()
        before = await lab.step()
        lab.objects.quiet()
        lab.objects.put("07.yaml", "new")
        lab.objects.put("20.yaml", "added")
        lab.objects.delete("03.yaml")
        if restarted:
            lab.restart()
        after = await lab.step()
        assert sorted(lab.objects.asked) == ["07.yaml", "20.yaml"]
        expected = {f"{number:02}.yaml": f"old {number}".encode() for number in range(20) if number != 3}
        assert lab.files(after) == {**expected, "07.yaml": b"new", "20.yaml": b"added"}
        assert after.status.artifact.digest != before.status.artifact.digest
        assert lab.events[1:] == ["Normal NewArtifact stored artifact with 20 fetched files from 'files' bucket"]
        assert list(lab.work.iterdir()) == [lab.work / "known"]


async def test_an_artifact_is_the_same_whether_its_files_were_known_or_not(tmp_path: Path):
    digests = []
    for number, known in enumerate((True, False)):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with bucket_world(folder) as lab:
            lab.objects.put("a-b", "1", etag="e1")
            lab.objects.put("a/b", "2", etag="e2")
            if known:
                await lab.declare()
                await lab.step()
            lab.objects.put("c", "3", etag="e3")
            await lab.declare()
            digests.append((await lab.step()).status.artifact.digest)
    assert digests[0] == digests[1]


async def test_what_is_known_of_another_artifact_is_no_help(lab: BucketWorld):
    lab.objects.put("a", "1")
    lab.objects.put("b", "2")
    await lab.declare()
    await lab.step()
    (known,) = (lab.work / "known").iterdir()
    whole = orjson.loads(known.read_bytes())
    others = [{**whole, "digest": "sha256:other"}, {**whole, "bucket": "gcp other files"}, {**whole, "etags": {"a": 1}}]
    for content in (b"", b"{", b"[]", *map(orjson.dumps, others)):
        lab.objects.quiet()
        lab.objects.put("b", "2")
        before = (await lab.local.get("Bucket", Key("apps", "files"))).status.artifact.digest
        known.write_bytes(content.replace(whole["digest"].encode(), before.encode()))
        await lab.step()
        assert sorted(lab.objects.asked) == ["a", "b"]


async def test_an_artifact_that_disappeared_is_downloaded_again(lab: BucketWorld):
    lab.objects.put("a", "1")
    await lab.declare()
    resource = await lab.step()
    lab.storage.path_of(resource.status.artifact).unlink()
    lab.objects.quiet()
    assert lab.files(await lab.step()) == {"a": b"1"}
    assert lab.objects.asked == ["a"]


async def test_objects_under_a_prefix_without_those_that_are_ignored(lab: BucketWorld):
    for key in ("apps/a.yaml", "apps/b.txt", "apps/keep/c.txt", "other/d.yaml"):
        lab.objects.put(key, key)
    await lab.declare(prefix="apps/", ignore="*.txt\n!/apps/keep/*.txt")
    resource = await lab.step()
    assert list(lab.files(resource)) == ["apps/a.yaml", "apps/keep/c.txt"]
    assert resource.status.observed_ignore == "*.txt\n!/apps/keep/*.txt"


async def test_the_buckets_own_ignore_file_counts_and_is_part_of_the_artifact(lab: BucketWorld):
    lab.objects.put(".sourceignore", "*.txt\n")
    lab.objects.put("a.txt", "1")
    lab.objects.put("b.yaml", "2")
    lab.objects.put("c.md", "3")
    await lab.declare(ignore="*.md")
    resource = await lab.step()
    assert lab.files(resource) == {".sourceignore": b"*.txt\n", "b.yaml": b"2"}
    assert resource.status.artifact.revision == revision(etags(lab, "b.yaml"))
    assert lab.events == ["Normal NewArtifact stored artifact with 1 fetched files from 'files' bucket"]
    lab.objects.quiet()
    await lab.step()
    assert (lab.objects.counts["LIST"], lab.objects.counts["GET"]) == (1, 0)
    lab.objects.put(".sourceignore", "*.yaml\n")
    assert lab.files(await lab.step()) == {".sourceignore": b"*.yaml\n", "a.txt": b"1"}


async def test_the_ignore_file_outside_the_prefix_counts_too(lab: BucketWorld):
    lab.objects.put(".sourceignore", "*.txt\n")
    lab.objects.put("in/a.txt", "1")
    lab.objects.put("in/b.yaml", "2")
    await lab.declare(prefix="in/")
    assert lab.files(await lab.step()) == {".sourceignore": b"*.txt\n", "in/b.yaml": b"2"}
    lab.objects.quiet()
    await lab.step()
    assert lab.objects.asked == [".sourceignore"]
    assert lab.world.server.exchanges[-1].headers["if-none-match"].strip('"')
    lab.objects.delete(".sourceignore")
    assert sorted(lab.files(await lab.step())) == ["in/a.txt", "in/b.yaml"]


async def test_a_change_of_ignore_that_leaves_the_same_objects_is_none(lab: BucketWorld):
    lab.objects.put("a", "1")
    await lab.declare()
    before = await lab.step()
    await lab.declare(ignore="*.txt")
    after = await lab.step()
    assert after.status.artifact == before.status.artifact
    assert after.status.observed_ignore is None
    assert after.status.observed_generation == after.meta.generation


async def test_an_empty_bucket_is_an_empty_artifact(lab: BucketWorld):
    await lab.declare()
    resource = await lab.step()
    assert lab.files(resource) == {}
    assert resource.status.artifact.revision == revision({})


async def test_objects_that_vanish_or_change_while_they_are_fetched(lab: BucketWorld):
    for key in ("a", "b", "c"):
        lab.objects.put(key, "1")

    async def meanwhile(exchange: Exchange) -> bool:
        if "list-type" not in exchange.target and "b" in lab.objects.objects:
            lab.objects.delete("b")
            lab.objects.put("c", "2")
        return False

    lab.objects.faults.append(meanwhile)
    await lab.declare()
    resource = await lab.step()
    assert lab.files(resource) == {"a": b"1", "c": b"2"}
    assert resource.status.artifact.revision == revision(etags(lab, "a", "c"))
    assert lab.events == ["Normal NewArtifact stored artifact with 2 fetched files from 'files' bucket"]
    lab.objects.quiet()
    await lab.step()
    assert lab.objects.counts["GET"] == 0


async def test_a_change_that_is_gone_when_it_is_fetched_stores_nothing(lab: BucketWorld):
    lab.objects.put("a", "1")
    await lab.declare()
    before = await lab.step()
    lab.objects.put("b", "2")

    async def meanwhile(exchange: Exchange) -> bool:
        if exchange.target == "/files/b":
            del lab.objects.objects["b"]
        return False

    lab.objects.faults.append(meanwhile)
    await lab.declare(ignore="*.txt")
    after = await lab.step()
    assert after.status.artifact == before.status.artifact
    assert after.status.observed_ignore is None
    assert len(lab.events) == 1
    assert [text.partition(" ")[0] for text in conditions(after)] == ["Ready=True", "ArtifactInStorage=True"]


# --- failures


async def failing(lab: BucketWorld, reason: str, message: str) -> None:
    resource = await lab.step()
    assert conditions(resource)[:2] == [
        "Reconciling=True ProgressingWithRetry: building artifact",
        f"Ready=False {reason}: {message}",
    ]
    assert f"FetchFailed=True {reason}: {message}" in conditions(resource)
    assert lab.events[-1] == f"Warning {reason} {message}"
    assert isinstance(lab.outcome(), Failed)
    assert list(lab.work.glob("work-*")) == []


async def test_a_bucket_that_is_not_there(lab: BucketWorld):
    await lab.declare(bucketName="other")
    await failing(lab, "BucketOperationFailed", "bucket 'other' not found")


async def test_a_bucket_that_may_not_be_read(lab: BucketWorld):
    lab.world.secrets.put("login", accesskey="AKIAIOSFODNN7EXAMPLE", secretkey="mistaken")
    await lab.declare()
    message = (
        "failed to confirm existence of 'files' bucket: SignatureDoesNotMatch: The request signature we calculated does not "
        "match the signature you provided."
    )
    await failing(lab, "BucketOperationFailed", message)


async def test_a_later_page_that_does_not_come(lab: BucketWorld):
    lab.objects.page = 1
    lab.objects.put("a", "1")
    lab.objects.put("b", "2")
    lab.objects.faults.append(once(status("403 Forbidden"), part="continuation-token"))
    await lab.declare()
    await failing(
        lab,
        "BucketOperationFailed",
        "indexation of objects from bucket 'files' failed: listing objects from bucket 'files' failed: "
        "unexpected status code 403 Forbidden",
    )


async def test_an_object_that_may_not_be_read(lab: BucketWorld):
    lab.objects.put("a", "1")
    lab.objects.faults.append(once(status("403 Forbidden"), part="/files/a"))
    await lab.declare()
    resource = await lab.step()
    message = "fetch from bucket 'files' failed: failed to get 'a' object: unexpected status code 403 Forbidden"
    name = revision(etags(lab, "a"))
    assert conditions(resource) == [
        f"Reconciling=True ProgressingWithRetry: building artifact: new upstream revision '{name}'",
        f"Ready=False BucketOperationFailed: {message}",
        f"FetchFailed=True BucketOperationFailed: {message}",
    ]
    resource = await lab.step()
    assert [text.partition(" ")[0] for text in conditions(resource)] == ["Ready=True", "ArtifactInStorage=True"]
    assert lab.events[-1] == "Normal NewArtifact stored artifact with 1 fetched files from 'files' bucket"


async def test_a_failure_leaves_the_artifact_and_its_end_is_told(lab: BucketWorld):
    lab.objects.put("a", "1")
    await lab.declare()
    before = await lab.step()
    lab.objects.faults.append(once(status("403 Forbidden"), times=1))
    failed = await lab.step()
    assert failed.status.artifact == before.status.artifact
    assert failed.status.url == before.status.url
    await lab.step()
    assert [text.partition(" stored")[0].partition(" failed")[0] for text in lab.events] == [
        "Normal NewArtifact",
        "Warning BucketOperationFailed",
        "Normal Succeeded",
    ]


async def test_a_changed_bucket_that_fails_says_that_the_artifact_is_outdated(lab: BucketWorld):
    lab.objects.put("a", "1")
    await lab.declare()
    await lab.step()
    lab.objects.put("a", "2")
    lab.objects.faults.append(once(status("403 Forbidden"), part="/files/a"))
    resource = await lab.step()
    name = revision(etags(lab, "a"))
    assert f"ArtifactOutdated=True NewRevision: new upstream revision '{name}'" in conditions(resource)
    await lab.step()
    assert "ArtifactOutdated" not in str(conditions(await lab.step()))


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (["../../etc/cron.d/x"], "../../etc/cron.d/x"),
        (["/etc/passwd"], "/etc/passwd"),
        (["a\\b"], "a\\b"),
        (["a", "a/b"], "a/b"),
        (["a//b", "a/b"], "a/b"),
        (["x/./y"], "x/./y"),
    ],
)
async def test_keys_that_are_no_paths_are_refused_before_anything_is_fetched(lab: BucketWorld, keys: list[str], named: str):
    for key in keys:
        lab.objects.put(key, "x")
    await lab.declare()
    resource = await lab.step()
    (message,) = [text for text in conditions(resource) if text.startswith("FetchFailed=")]
    assert message.startswith(
        f"FetchFailed=True BucketOperationFailed: fetch from bucket 'files' failed: object '{named}' cannot"
    )
    assert lab.objects.counts["GET"] == 0
    assert resource.status.artifact is None
    await lab.declare(ignore=named.replace("\\", "\\\\") + "\n..\n.\npasswd\na")
    assert (await lab.step()).status.artifact is not None


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (BucketLimits(objects=2), "there are more than the limit of 2 objects; a prefix makes them fewer"),
        (BucketLimits(object=5), "object 'c' has 6 bytes; the limit is 5"),
        (BucketLimits(total=9), "the objects have 10 bytes together; the limit is 9"),
    ],
)
async def test_limits(tmp_path: Path, limits: BucketLimits, message: str):
    async with bucket_world(tmp_path, limits=limits) as lab:
        for key, content in (("a", "12"), ("b", "34"), ("c", "567890")):
            lab.objects.put(key, content)
        await lab.declare()
        await failing(lab, "BucketOperationFailed", message)
        assert lab.objects.counts["GET"] == 0


async def test_a_missing_secret(lab: BucketWorld):
    await lab.declare(secretRef={"name": "other"})
    await failing(lab, "AuthenticationFailed", "failed to get secret 'apps/other': secrets \"other\" not found")


async def test_credentials_that_cannot_be_made(lab: BucketWorld):
    lab.world.environment["AWS_EC2_METADATA_DISABLED"] = "true"
    await lab.declare(provider="aws", secretRef=None)
    await failing(lab, "AuthenticationFailed", "aws: no credentials in the environment, and instance metadata is disabled")


@pytest.mark.parametrize("enabled", [False, True])
async def test_an_identity_of_its_own_stalls(tmp_path: Path, enabled: bool):
    async with bucket_world(tmp_path, gates={"ObjectLevelWorkloadIdentity": enabled}) as lab:
        await lab.declare(provider="aws", secretRef=None, serviceAccountName="reader")
        resource = await lab.step()
        reason = "AuthenticationFailed" if enabled else "FeatureGateDisabled"
        assert isinstance(lab.outcome(), Stalled)
        assert lab.outcome().reason == reason
        assert [text.partition(":")[0] for text in conditions(resource)] == [
            f"Stalled=True {reason}",
            f"Ready=False {reason}",
            f"FetchFailed=True {reason}",
        ]
        assert lab.world.server.exchanges == []


async def test_a_token_service_that_would_be_shown_our_identity_stalls(lab: BucketWorld):
    await lab.declare(provider="aws", secretRef=None, sts={"provider": "aws", "endpoint": "https://sts.evil.example"})
    resource = await lab.step()
    assert conditions(resource)[0].startswith("Stalled=True InvalidSTSConfiguration: STS endpoint 'https://sts.evil.example'")
    assert resource.status.observed_generation == resource.meta.generation


# --- the end


async def test_a_bucket_that_is_withdrawn_leaves_nothing(lab: BucketWorld):
    lab.objects.put("a", "1")
    await lab.declare()
    resource = await lab.step()
    place = lab.storage.path_of(resource.status.artifact)
    assert place.exists()
    await lab.withdraw()
    await lab.controller.reconciler.removed(resource)
    assert not place.exists()
    assert list((lab.work / "known").iterdir()) == []


async def test_what_a_killed_process_left_is_swept(lab: BucketWorld):
    left = lab.work / "work-left"
    left.mkdir(parents=True)
    (left / "0").write_text("half")
    lab.objects.put("a", "1")
    await lab.declare()
    await lab.step()
    assert not left.exists()


async def test_a_pass_that_is_cancelled_leaves_no_folder(lab: BucketWorld):
    lab.objects.put("a", "1")
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang(exchange: Exchange) -> bool:
        if exchange.target != "/files/a":
            return False
        reached.set()
        await never.wait()
        return True

    lab.objects.faults.append(hang)
    await lab.declare()
    running = asyncio.create_task(lab.step())
    await reached.wait()
    assert len(list(lab.work.glob("work-*"))) == 1
    running.cancel()
    await asyncio.wait([running])
    assert list(lab.work.glob("work-*")) == []
