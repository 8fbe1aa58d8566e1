"""OCIRepository on the in-process registry: what is stored, what is said, and what an unchanged image costs."""

from __future__ import annotations

import hashlib
import json

import pytest

from reconcile.registry.manifest import digest_of
from reconcile.runtime.outcome import Success
from reconcile.sources.oci_resolve import FLUX_LAYER, HELM_LAYER
from tests.support.charted_world import conditions, oci_world
from tests.support.oci_artifacts import artifact, index_of, layer_of, of_files
from tests.support.registry import TestRegistry

FILES = {"deploy/app.yaml": "kind: Deployment\n", "notes.jpg": "picture", "README.md": "read me\n"}


@pytest.fixture
async def registry():
    async with TestRegistry() as running:
        yield running


@pytest.fixture
async def world(tmp_path):
    async with oci_world(tmp_path) as made:
        yield made


def url(registry: TestRegistry, name: str = "acme/app") -> str:
    return f"oci://{registry.host}/{name}"


async def test_an_artifact_by_tag(registry, world):
    origin = {"org.opencontainers.image.source": "https://example.com/app", "org.opencontainers.image.revision": "main@sha1:abc"}
    digest = registry.put_image("acme/app", "1.0.0", of_files(FILES, annotations={**origin, "note": "x"}))
    await world.declare(url=url(registry), ref={"tag": "1.0.0"})
    found = await world.step()
    stored = found.status.artifact
    revision = f"1.0.0@{digest}"
    assert stored.revision == revision
    assert stored.path == f"ocirepository/apps/app/{digest}.tar.gz"
    assert stored.metadata == {**origin, "note": "x"}
    assert stored.digest == f"sha256:{hashlib.sha256(world.content(found)).hexdigest()}"
    assert found.status.url == "http://localhost/ocirepository/apps/app/latest.tar.gz"
    assert world.files(found) == {"README.md": b"read me\n", "deploy/app.yaml": b"kind: Deployment\n"}
    message = f"stored artifact for digest '{revision}'"
    assert conditions(found) == [f"Ready=True Succeeded: {message}", f"ArtifactInStorage=True Succeeded: {message}"]
    assert found.status.observed_generation == found.meta.generation
    told = f"stored artifact with revision '{revision}' from '{url(registry)}'"
    told += ", origin source 'https://example.com/app', origin revision 'main@sha1:abc'"
    assert world.sink.take() == [("Normal", "NewArtifact", told)]
    assert world.successful().after == 600.0


async def test_the_tag_latest_is_the_default(registry, world):
    digest = registry.put_image("acme/app", "latest", of_files(FILES))
    await world.declare(url=url(registry))
    assert (await world.step()).status.artifact.revision == f"latest@{digest}"


async def test_an_unchanged_tag_costs_one_head_and_no_write(registry, world):
    registry.put_image("acme/app", "latest", of_files(FILES))
    await world.declare(url=url(registry))
    first = await world.step()
    writes = world.writes
    registry.quiet()
    world.sink.take()
    assert await world.step() == first
    assert list(registry.log) == ["HEAD /v2/acme/app/manifests/latest"]
    assert world.writes == writes
    assert world.sink.take() == []


async def test_an_unchanged_range_costs_a_list_and_a_head(registry, world):
    registry.put_image("acme/app", "1.0.0", of_files(FILES))
    registry.put_image("acme/app", "1.1.0", of_files({"a": "b"}))
    await world.declare(url=url(registry), ref={"semver": "1.x"})
    assert (await world.step()).status.artifact.revision.startswith("1.1.0@")
    registry.quiet()
    await world.step()
    assert list(registry.log) == ["GET /v2/acme/app/tags/list?n=1000", "HEAD /v2/acme/app/manifests/1.1.0"]
    registry.put_image("acme/app", "1.2.0", of_files({"a": "c"}))
    found = await world.step()
    assert found.status.artifact.revision.startswith("1.2.0@")
    assert world.files(found) == {"a": b"c"}


async def test_an_unchanged_digest_costs_nothing(registry, world):
    digest = registry.put_image("acme/app", "1.0.0", of_files(FILES))
    await world.declare(url=url(registry), ref={"digest": digest, "semver": "9.x", "tag": "other"})
    found = await world.step()
    assert found.status.artifact.revision == digest
    registry.quiet()
    await world.step()
    assert list(registry.log) == []


async def test_a_tag_that_moves(registry, world):
    registry.put_image("acme/app", "latest", of_files(FILES))
    await world.declare(url=url(registry))
    before = await world.step()
    world.sink.take()
    digest = registry.put_image("acme/app", "latest", of_files({"new": "file"}))
    found = await world.step()
    assert found.status.artifact.revision == f"latest@{digest}"
    assert found.status.artifact.digest != before.status.artifact.digest
    assert world.files(found) == {"new": b"file"}
    assert [event[:2] for event in world.sink.take()] == [("Normal", "NewArtifact")]


async def test_other_ignore_rules_pack_anew_and_are_remembered(registry, world):
    registry.put_image(
        "acme/app", "latest", of_files({**FILES, "deploy/.sourceignore": "secret.txt\n", "deploy/secret.txt": "x"})
    )
    await world.declare(url=url(registry))
    found = await world.step()
    assert sorted(world.files(found)) == ["README.md", "deploy/.sourceignore", "deploy/app.yaml", "notes.jpg"]
    await world.declare(ignore="/*\n!/deploy")
    found = await world.step()
    # the last pattern that matches decides, and those of the spec come last
    assert sorted(world.files(found)) == ["deploy/.sourceignore", "deploy/app.yaml", "deploy/secret.txt"]
    assert found.status.observed_ignore == "/*\n!/deploy"
    registry.quiet()
    await world.step()
    assert len(registry.log) == 1


async def test_a_layer_by_media_type_is_copied_as_it_is(registry, world):
    chart = layer_of({"app/Chart.yaml": "name: app\n"})
    registry.put_image("acme/chart", "1.0.0_build.1", artifact([(FLUX_LAYER, layer_of(FILES)), (HELM_LAYER, chart)]))
    selector = {"mediaType": HELM_LAYER, "operation": "copy"}
    await world.declare(url=url(registry, "acme/chart"), ref={"semver": "1.x"}, layerSelector=selector, ignore="*")
    found = await world.step()
    assert found.status.artifact.revision.startswith("1.0.0_build.1@sha256:")
    assert world.content(found) == chart
    assert found.status.artifact.digest == digest_of(chart)
    assert found.status.observed_layer_selector.media_type == HELM_LAYER
    await world.declare(layerSelector={"mediaType": HELM_LAYER}, ignore=None)
    assert world.files(await world.step()) == {"app/Chart.yaml": b"name: app\n"}
    await world.declare(layerSelector={"mediaType": "text/plain"}, ref={"tag": "1.0.0_build.1"})
    found = await world.step()
    message = "failed to find layer with media type 'text/plain' in artifact"
    assert conditions(found)[1] == f"Ready=False OCIArtifactLayerOperationFailed: {message}"


async def test_of_an_index_the_image_for_linux_on_amd64(registry, world):
    arm, amd = of_files({"machine": "arm64"}), of_files({"machine": "amd64"}, annotations={"machine": "amd64"})
    digest = registry.put_image("acme/app", "latest", index_of({"linux/arm64": arm, "linux/amd64": amd}))
    await world.declare(url=url(registry))
    found = await world.step()
    assert found.status.artifact.revision == f"latest@{digest}"
    assert world.files(found) == {"machine": b"amd64"}
    assert found.status.artifact.metadata == {"machine": "amd64"}
    registry.put_image("acme/app", "latest", index_of({"linux/arm64": arm}))
    found = await world.step()
    assert "no child with platform linux/amd64 in index" in conditions(found)[1]


async def test_what_disappears_from_the_storage_is_fetched_again(registry, world):
    registry.put_image("acme/app", "latest", of_files(FILES))
    await world.declare(url=url(registry))
    found = await world.step()
    world.storage.path_of(found.status.artifact).unlink()
    found = await world.step()
    assert world.files(found)["README.md"] == b"read me\n"


async def test_a_suspended_and_a_removed_repository(registry, world):
    registry.put_image("acme/app", "latest", of_files(FILES))
    await world.declare(url=url(registry))
    found = await world.step()
    path = world.storage.path_of(found.status.artifact)
    await world.declare(suspend=True)
    registry.quiet()
    await world.step()
    assert list(registry.log) == []
    assert path.exists()
    await world.withdraw()
    await world.controller.reconciler.removed(found)
    assert not path.exists()


# --- what goes wrong


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("oci://host.example/app:1.0", "URL must not contain a tag; remove ':1.0'"),
        ("oci://host.example/app@sha256:12", "could not parse reference: host.example/app@sha256:12"),
        ("oci://HOST/APP", "could not parse reference: HOST/APP"),
    ],
)
async def test_urls_that_name_no_repository(world, address, message):
    await world.declare(url=address)
    found = await world.step()
    text = f"URLInvalid: URL validation failed for '{address}': {message}"
    assert conditions(found) == [f"Stalled=True {text}", f"Ready=False {text}", f"FetchFailed=True {text}"]
    assert found.status.observed_generation == found.meta.generation


async def test_a_range_that_nothing_fits_then_recovery(registry, world):
    registry.put_image("acme/app", "1.0.0", of_files(FILES))
    await world.declare(url=url(registry), ref={"semver": ">=2"})
    found = await world.step()
    text = f"failed to determine the artifact tag for '{url(registry)}': no match found for semver: >=2"
    assert conditions(found)[1:] == [f"Ready=False ReadOperationFailed: {text}", f"FetchFailed=True ReadOperationFailed: {text}"]
    assert found.status.artifact is None
    assert world.sink.take() == [("Warning", "ReadOperationFailed", text)]
    registry.put_image("acme/app", "2.0.0", of_files(FILES))
    found = await world.step()
    assert [line.partition(" ")[0] for line in conditions(found)] == ["Ready=True", "ArtifactInStorage=True"]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"semver": "a.b"}, "improper constraint"),
        ({"semver": "1.x", "semverFilter": "("}, "error parsing regexp: missing closing )"),
        ({"digest": "sha256:12"}, "could not parse reference"),
        ({"tag": "no tag"}, "could not parse reference"),
    ],
)
async def test_references_that_cannot_be_read(registry, world, reference, message):
    registry.put_image("acme/app", "1.0.0", of_files(FILES))
    await world.declare(url=url(registry), ref=reference)
    found = await world.step()
    assert "ReadOperationFailed" in conditions(found)[1]
    assert message in conditions(found)[1]


async def test_a_tag_that_is_not_there(registry, world):
    registry.put_image("acme/app", "1.0.0", of_files(FILES))
    await world.declare(url=url(registry), ref={"tag": "none"})
    found = await world.step()
    assert conditions(found)[1].startswith("Ready=False OCIArtifactPullFailed: failed to determine artifact digest: HEAD http://")


@pytest.mark.parametrize(
    "layer",
    [b"no archive", layer_of({"../escape": "x"}), layer_of({"/absolute": "x"}), layer_of(FILES)[:-20]],
    ids=["no archive", "parent", "absolute", "truncated"],
)
async def test_hostile_layers_leave_nothing_behind(registry, world, tmp_path, layer):
    registry.put_image("acme/app", "latest", artifact([(FLUX_LAYER, layer)]))
    await world.declare(url=url(registry))
    found = await world.step()
    start = "Ready=False OCIArtifactLayerOperationFailed: failed to extract layer contents from artifact: "
    assert conditions(found)[1].startswith(start)
    assert found.status.artifact is None
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not (tmp_path / "escape").exists()


async def test_a_failed_pull_keeps_the_artifact_and_says_that_it_is_old(registry, world):
    registry.put_image("acme/app", "latest", of_files(FILES))
    await world.declare(url=url(registry))
    before = await world.step()
    digest = registry.put_image("acme/app", "latest", artifact([(FLUX_LAYER, b"no archive")]))
    found = await world.step()
    assert found.status.artifact == before.status.artifact
    text = f"new revision 'latest@{digest}' for '{registry.host}/acme/app:latest'"
    assert f"ArtifactOutdated=True NewRevision: {text}" in conditions(found)
    assert conditions(found)[0] == f"Reconciling=True ProgressingWithRetry: building artifact: {text}"
    registry.put_image("acme/app", "latest", of_files(FILES))
    world.sink.take()
    found = await world.step()
    assert [line.partition(" ")[0] for line in conditions(found)] == ["Ready=True", "ArtifactInStorage=True"]
    assert [event[:2] for event in world.sink.take()] == [("Normal", "Succeeded")]


async def test_links_in_a_layer_are_left_out(registry, world):
    layer = layer_of({"a": "b"}, links={"link": "/etc/passwd", "up": "../.."})
    registry.put_image("acme/app", "latest", artifact([(FLUX_LAYER, layer)]))
    await world.declare(url=url(registry))
    assert world.files(await world.step()) == {"a": b"b"}


async def test_a_layer_above_the_limit_is_not_even_fetched(registry, tmp_path):
    registry.put_image("acme/app", "latest", of_files({"big": "x" * 10_000}))
    async with oci_world(tmp_path, most_bytes=100) as world:
        await world.declare(url=url(registry))
        found = await world.step()
        assert "more than the limit of 100" in conditions(found)[1]
    assert registry.requests["blob"] == 0


async def test_what_an_earlier_process_left_in_the_scratch_folder_is_removed(registry, tmp_path):
    left = tmp_path / "scratch" / "tmp123" / "layer"
    left.mkdir(parents=True)
    registry.put_image("acme/app", "latest", of_files(FILES))
    async with oci_world(tmp_path) as world:
        await world.declare(url=url(registry))
        assert isinstance((await world.step(), world.outcome())[1], Success)
    assert not left.exists()


async def test_the_json_of_the_status_has_flux_names(registry, world):
    registry.put_image("acme/app", "latest", of_files(FILES))
    await world.declare(url=url(registry), ignore="x", layerSelector={"operation": "extract"})
    found = await world.step()
    status = json.loads(found.status.model_dump_json(by_alias=True, exclude_none=True))
    assert status["observedIgnore"] == "x"
    assert status["observedLayerSelector"] == {"operation": "extract"}
