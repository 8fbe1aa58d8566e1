"""HelmRepository against a web server on loopback: what is stored, what an unchanged index costs, what goes wrong."""

from __future__ import annotations

import hashlib
import json

import pytest
from starlette.responses import RedirectResponse, Response

from reconcile.sources import helm_fetch
from tests.support.chart_site import INDEX, ChartSite
from tests.support.charted_world import conditions, helm_world
from tests.support.pki import Authority


@pytest.fixture
async def site():
    async with ChartSite() as running:
        yield running


@pytest.fixture
async def world(tmp_path, site):
    async with helm_world(tmp_path) as made:
        await made.declare(url=site.url)
        yield made


def revision(text: str | bytes) -> str:
    return f"sha256:{hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()}"


def ready(found) -> str:
    return next(line for line in conditions(found) if line.startswith("Ready="))


async def test_an_index_is_stored_as_json_with_the_highest_version_first(world, site):
    found = await world.step()
    stored = found.status.artifact
    digest = revision(INDEX)
    assert stored.revision == digest
    assert stored.path == f"helmrepository/apps/app/index-{digest.partition(':')[2]}.yaml"
    assert stored.digest == revision(world.content(found))
    assert found.status.url == "http://localhost/helmrepository/apps/app/index.yaml"
    index = json.loads(world.content(found))
    assert [entry["version"] for entry in index["entries"]["app"]] == ["1.10.0", "1.0.0"]
    message = f"stored artifact: revision '{digest}'"
    assert conditions(found) == [f"Ready=True Succeeded: {message}", f"ArtifactInStorage=True Succeeded: {message}"]
    size = f"{stored.size}B"
    assert world.sink.take() == [("Normal", "NewArtifact", f"stored fetched index of size {size} from '{site.url}'")]
    assert site.log() == ["GET /charts/index.yaml"]


@pytest.mark.parametrize("etags", [True, False])
async def test_an_unchanged_index_costs_a_conditional_request_and_no_write(world, site, etags):
    site.etags = etags
    first = await world.step()
    writes = world.writes
    world.sink.take()
    site.log()
    assert await world.step() == first
    assert site.log() == ["GET /charts/index.yaml conditional"]
    assert world.writes == writes
    assert world.sink.take() == []
    assert world.successful().after == 600.0


async def test_without_validators_the_same_bytes_are_not_read_again(world, site, monkeypatch):
    site.answers = [Response(INDEX), Response(INDEX)]
    first = await world.step()

    async def never(*_: object) -> None:
        raise AssertionError("the index was parsed again")

    monkeypatch.setattr("reconcile.sources.helmrepository.cleaned", never)
    assert (await world.step()).status == first.status


async def test_somebody_who_asks_gets_the_whole_index(world, site):
    await world.step()
    await world.declare(requested="now")
    site.log()
    await world.step()
    assert site.log() == ["GET /charts/index.yaml"]


async def test_a_new_index_replaces_the_old_one(world, site):
    before = await world.step()
    world.sink.take()
    site.index = INDEX.replace("1.10.0", "1.11.0").encode()
    found = await world.step()
    assert found.status.artifact.revision == revision(site.index)
    assert b"1.11.0" in world.content(found)
    assert [event[:2] for event in world.sink.take()] == [("Normal", "NewArtifact")]
    assert world.storage.path_of(before.status.artifact).exists()


async def test_what_disappears_from_the_storage_is_fetched_whole(world, site):
    found = await world.step()
    world.storage.path_of(found.status.artifact).unlink()
    site.log()
    found = await world.step()
    assert site.log() == ["GET /charts/index.yaml"]
    assert world.content(found)


async def test_a_large_index_is_read_by_a_process_of_its_own(world, site, monkeypatch):
    small = await world.step()
    content = world.content(small)
    monkeypatch.setattr(helm_fetch, "OWN_PROCESS", 10)
    site.index = INDEX.encode() + b"# a comment\n"
    found = await world.step()
    assert found.status.artifact.revision == revision(site.index)
    assert world.content(found) == content
    site.index = b"apiVersion: v1\nentries:\n  app: []\n  app: []\n"
    found = await world.step()
    text = "failed to load Helm repository from index YAML: index.yaml:4:3: key 'app' is set twice in one mapping"
    assert ready(found) == f"Ready=False IndexationFailed: {text}"


async def test_defaults_of_interval(tmp_path, site):
    async with helm_world(tmp_path) as world:
        await world.declare(url=site.url, interval=None)
        await world.step()
        assert world.successful().after == 60.0


# --- logins


async def test_the_login_goes_to_the_host_of_the_repository_alone(world, site):
    await world.secret("login", {"username": "ann", "password": "secret-password"})
    await world.declare(secretRef={"name": "login"})
    async with ChartSite() as other:
        site.answers = [RedirectResponse(f"{other.url}/index.yaml")]
        assert ready(await world.step()).startswith("Ready=True")
        assert [request.headers.get("authorization") for request in other.seen] == [None]
        site.answers = [RedirectResponse(other.url.replace("127.0.0.1", "localhost") + "/index.yaml")]
        assert "redirect to a private or link-local address refused" in ready(await world.step())
    assert [request.headers.get("authorization", "")[:6] for request in site.seen] == ["Basic "] * 2


async def test_secrets_that_do_not_fit(world, site):
    start = "Ready=False AuthenticationFailed: "
    await world.declare(secretRef={"name": "login"})
    assert ready(await world.step()).startswith(f"{start}failed to get authentication secret 'apps/login': ")
    await world.secret("login", {"username": "ann"})
    text = "secret 'apps/login': malformed basic auth - has 'username' but missing 'password'"
    assert ready(await world.step()) == start + text
    await world.secret("login", {"username": "ann", "password": "x"})
    await world.declare(certSecretRef={"name": "trust"})
    assert ready(await world.step()).startswith(f"{start}failed to construct Helm client's TLS config: ")
    assert site.seen == []


async def test_certificates_from_either_secret(tmp_path):
    authority = Authority()
    files = (tmp_path / "tls.crt", tmp_path / "tls.key")
    for file, content in zip(files, authority.server(["127.0.0.1"]), strict=True):
        file.write_bytes(content)
    async with ChartSite(certificate=files) as site, helm_world(tmp_path) as world:
        await world.declare(url=site.url)
        assert "x509: certificate signed by unknown authority" in ready(await world.step())
        await world.secret("trust", {"ca.crt": authority.certificate})
        await world.declare(certSecretRef={"name": "trust"})
        assert ready(await world.step()).startswith("Ready=True")
        await world.declare(certSecretRef=None, secretRef={"name": "trust"})
        assert ready(await world.step()).startswith("Ready=True")


async def test_a_login_in_the_url_is_never_shown(world, site):
    address = site.url.replace("http://", "http://ann:secret-password@")
    await world.declare(url=address)
    found = await world.step()
    assert site.seen[-1].headers["authorization"].startswith("Basic ")
    told = world.sink.take()
    site.answers = [Response(status_code=500)]
    found = await world.step()
    assert ready(found).startswith("Ready=False Failed: failed to fetch Helm repository index: ")
    assert "secret-password" not in json.dumps([told, world.sink.take(), conditions(found)])


# --- what goes wrong


async def test_addresses_that_cannot_be(world):
    await world.declare(url="oci://host.example/charts")
    text = "URLInvalid: invalid Helm repository URL: 'oci' URL scheme cannot be used with 'default' HelmRepository type"
    found = await world.step()
    assert conditions(found) == [f"Stalled=True {text}", f"Ready=False {text}", f"FetchFailed=True {text}"]
    await world.declare(url="http://")
    assert ready(await world.step()).startswith("Ready=False URLInvalid: invalid Helm repository URL: ")


async def test_an_index_that_is_not_there(world, site):
    await world.declare(url=f"{site.url}/elsewhere/")
    start = "Ready=False Failed: failed to fetch Helm repository index: failed to cache index to temporary file: failed to fetch "
    assert ready(await world.step()) == f"{start}{site.url}/elsewhere/index.yaml : 404 Not Found"


async def test_an_index_that_is_too_large_keeps_the_old_one(tmp_path, site):
    async with helm_world(tmp_path, most_bytes=len(INDEX)) as world:
        await world.declare(url=site.url)
        before = await world.step()
        site.index = INDEX.encode() + b"#"
        found = await world.step()
        assert f"larger than the limit of {len(INDEX)} bytes" in ready(found)
        assert found.status.artifact == before.status.artifact


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"", "empty index.yaml file"),
        (b"entries: {}\n", "no API version specified"),
        (b"<html></html>", "the index is not a mapping"),
        (b"apiVersion: v1\nentries: []\n", "entries is not a mapping"),
    ],
)
async def test_answers_that_are_no_index(world, site, index, message):
    site.index = index
    found = await world.step()
    start = "failed to load Helm repository from index YAML: "
    assert ready(found).startswith(f"Ready=False IndexationFailed: {start}{message}")
    assert found.status.artifact is None
    site.index = INDEX.encode()
    assert ready(await world.step()).startswith("Ready=True")


async def test_a_server_that_cannot_be_reached(world):
    await world.declare(url="http://127.0.0.1:1/charts")
    assert "connection refused" in ready(await world.step())


# --- registries


async def test_a_repository_of_type_oci_is_only_data_and_loses_what_it_had(world, site):
    before = await world.step()
    path = world.storage.path_of(before.status.artifact)
    world.sink.take()
    site.log()
    await world.declare(type="oci", url="oci://host.example/charts")
    found = await world.step()
    assert found.meta.finalizers == []
    assert (found.status.artifact, found.status.url, found.status.conditions) == (None, None, None)
    assert not path.exists()
    writes = world.writes
    assert await world.step() == found
    assert world.writes == writes
    assert site.log() == []
    await world.declare(type="default", url=site.url)
    assert ready(await world.step()).startswith("Ready=True")


async def test_a_repository_that_is_oci_from_its_beginning_gets_nothing(world):
    await world.declare("charts", type="oci", url="oci://host.example/charts")
    found = await world.step("charts")
    assert found.meta.finalizers == []
    assert (found.status.artifact, found.status.conditions) == (None, None)
    assert world.sink.take() == []
