"""Tag lists, digests and manifests against the demonstration registry, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib

import orjson
import pytest
from starlette.responses import Response

from imagebot.demo.door import Account
from reconcile.registry.errors import DigestMismatch, RegistryError, StatusError, Unreachable
from reconcile.registry.keychain import Credential
from reconcile.registry.manifest import OCI_INDEX
from reconcile.registry.names import parse_repository
from tests.support.registry import FixedKeychain, TestRegistry, make_pool

SOMEBODY = FixedKeychain(Credential("ann", "secret-password"))


async def test_tags_come_in_pages_to_the_end():
    tags = [f"v{number:04}" for number in range(2500)]
    async with TestRegistry() as registry, make_pool() as pool:
        registry.put_tags("acme/app", tags)
        client = await pool.client(registry.repository("acme/app"))
        pages = await client.list_tags(registry.repository("acme/app"))
        assert list(pages.tags) == tags
        assert pages.pages == 3
        assert not pages.unchanged
        assert registry.requests["tags"] == 3
        assert registry.log[1] == "GET /v2/acme/app/tags/list?n=1000"


async def test_a_steady_scan_costs_one_request_and_parses_nothing(monkeypatch):
    async with TestRegistry() as registry, make_pool() as pool:
        repository = registry.repository("acme/app")
        registry.put_tags("acme/app", ["1.0.0", "1.1.0"])
        client = await pool.client(repository)
        first = await client.list_tags(repository)
        registry.quiet()
        monkeypatch.setattr("reconcile.registry.client.parse_page", None)
        again = await (await pool.client(repository)).list_tags(repository, first)
        assert dict(registry.requests) == {"tags": 1}
        assert again.unchanged
        assert again.tags is first.tags
        monkeypatch.undo()
        registry.push_image("acme/app", "1.2.0")
        third = await client.list_tags(repository, again)
        assert not third.unchanged
        assert third.tags == ("1.0.0", "1.1.0", "1.2.0")


async def test_bearer_token_is_kept_and_scoped_to_its_repository():
    account = Account("ann", "secret-password", scheme="bearer")
    async with TestRegistry(account=account) as registry, make_pool() as pool:
        for name in ("acme/app", "acme/web"):
            registry.push_image(name, "1.0.0")
        one, two = registry.repository("acme/app"), registry.repository("acme/web")
        client = await pool.client(one, keychain=SOMEBODY)
        assert await pool.client(two, keychain=SOMEBODY) is client
        assert (await client.list_tags(one)).tags == ("1.0.0",)
        assert dict(registry.requests) == {"ping": 1, "tags": 2, "token": 1}
        registry.quiet()
        await client.list_tags(one)
        assert dict(registry.requests) == {"tags": 1}
        registry.quiet()
        # The challenge is known by now: a new repository costs one token and one list, no refusal in between.
        assert (await client.list_tags(two)).tags == ("1.0.0",)
        assert dict(registry.requests) == {"token": 1, "tags": 1}
        assert "scope=repository%3Aacme%2Fweb%3Apull" in registry.log[0]


async def test_basic_credentials_go_along_once_the_registry_asked_for_them():
    async with TestRegistry(account=Account("ann", "secret-password")) as registry, make_pool() as pool:
        registry.push_image("acme/app", "1.0.0")
        repository = registry.repository("acme/app")
        client = await pool.client(repository, keychain=SOMEBODY)
        assert (await client.list_tags(repository)).tags == ("1.0.0",)
        registry.quiet()
        assert (await client.list_tags(repository)).tags == ("1.0.0",)
        assert dict(registry.requests) == {"tags": 1}


async def test_wrong_password_is_a_401_that_names_the_url_and_no_secret():
    async with TestRegistry(account=Account("ann", "right-password")) as registry, make_pool() as pool:
        registry.push_image("acme/app", "1.0.0")
        repository = registry.repository("acme/app")
        client = await pool.client(repository, keychain=SOMEBODY)
        with pytest.raises(StatusError) as caught:
            await client.list_tags(repository)
        assert str(caught.value) == (
            f"GET http://{registry.host}/v2/acme/app/tags/list?n=1000: UNAUTHORIZED: authentication required"
        )
        assert "secret" not in repr(caught.value)


async def test_anonymous_access_where_credentials_are_needed():
    async with TestRegistry(account=Account("ann", "x")) as registry, make_pool() as pool:
        repository = registry.repository("acme/app")
        with pytest.raises(StatusError, match=r"UNAUTHORIZED: authentication required$"):
            await (await pool.client(repository)).list_tags(repository)
        assert registry.requests["tags"] == 1


async def test_unknown_repository():
    async with TestRegistry() as registry, make_pool() as pool:
        repository = registry.repository("nowhere/app")
        with pytest.raises(StatusError) as caught:
            await (await pool.client(repository)).list_tags(repository)
        assert str(caught.value) == (
            f"GET http://{registry.host}/v2/nowhere/app/tags/list?n=1000: "
            "NAME_UNKNOWN: repository name not known to registry; map[name:nowhere/app]"
        )
        assert caught.value.status == 404


async def test_nobody_listens_names_both_attempts():
    async with TestRegistry() as registry:
        host = registry.host
    async with make_pool() as pool:
        repository = parse_repository(f"{host}/acme/app")
        client = await pool.client(repository)
        for _ in range(2):
            with pytest.raises(Unreachable) as caught:
                await client.list_tags(repository)
            assert str(caught.value) == (
                f'Get "https://{host}/v2/": dial tcp {host}: connect: connection refused; '
                f'Get "http://{host}/v2/": dial tcp {host}: connect: connection refused'
            )


async def test_a_registry_that_went_away_and_came_back_is_found_again():
    registry = TestRegistry()
    await registry.start()
    port = int(registry.host.rpartition(":")[2])
    registry.push_image("acme/app", "1.0.0")
    repository = registry.repository("acme/app")
    async with make_pool() as pool:
        client = await pool.client(repository)
        await client.list_tags(repository)
        await registry.stop()
        with pytest.raises(Unreachable, match=r"https://.*connection refused; Get .http://.*connection refused"):
            await client.list_tags(repository)
        await registry.start(port)
        assert (await client.list_tags(repository)).tags == ("1.0.0",)
        await registry.stop()


async def test_page_size_is_halved_after_a_400_and_remembered_for_the_host():
    tags = [f"v{number:03}" for number in range(300)]
    async with TestRegistry(max_page=130) as registry, make_pool() as pool:
        registry.put_tags("acme/app", tags)
        repository = registry.repository("acme/app")
        client = await pool.client(repository)
        assert list((await client.list_tags(repository)).tags) == tags
        asked = [line.rpartition("n=")[2] for line in registry.log if "tags/list" in line]
        assert asked == ["1000", "500", "250", "125", "125", "125"]
        registry.quiet()
        await client.list_tags(repository)
        assert registry.requests["tags"] == 3


async def test_a_400_for_another_reason_keeps_its_first_text_and_the_page_size():
    async with TestRegistry() as registry, make_pool() as pool:
        body = orjson.dumps({"errors": [{"code": "ODD", "message": "not today"}]})
        registry.answers(Response(body, 400), path="tags/list")
        repository = registry.repository("acme/app")
        client = await pool.client(repository)
        with pytest.raises(StatusError, match=r"n=1000: ODD: not today$"):
            await client.list_tags(repository)
        assert pool.memory.hosts.page_size(registry.host, 1000) == 1000


async def test_digest_by_head_alone():
    async with TestRegistry() as registry, make_pool() as pool:
        wanted = registry.push_image("acme/app", "1.0.0", platforms=("linux/amd64", "linux/arm64/v8"))
        repository = registry.repository("acme/app")
        client = await pool.client(repository)
        assert await client.digest(repository, "1.0.0") == wanted
        assert list(registry.log)[1:] == ["HEAD /v2/acme/app/manifests/1.0.0"]


async def test_digest_of_an_unknown_tag_has_the_texts_of_a_head_request():
    async with TestRegistry() as registry, make_pool() as pool:
        registry.push_image("acme/app", "1.0.0")
        repository = registry.repository("acme/app")
        with pytest.raises(StatusError) as caught:
            await (await pool.client(repository)).digest(repository, "9.9.9")
        assert str(caught.value) == (
            f"HEAD http://{registry.host}/v2/acme/app/manifests/9.9.9: unexpected status code 404 Not Found "
            "(HEAD responses have no body, use GET for details)"
        )


@pytest.mark.parametrize("status", [200, 405])
async def test_digest_without_a_useful_head_is_hashed_from_the_body(status):
    async with TestRegistry() as registry, make_pool() as pool:
        wanted = registry.push_image("acme/app", "1.0.0")
        registry.faults.append(lambda request: Response(status_code=status) if request.method == "HEAD" else None)
        repository = registry.repository("acme/app")
        assert await (await pool.client(repository)).digest(repository, "1.0.0") == wanted


async def test_manifest_with_the_wrong_digest_is_refused_naming_both():
    async with TestRegistry() as registry, make_pool() as pool:
        registry.push_image("acme/app", "1.0.0")
        announced = "sha256:" + "0" * 64
        body = b'{"schemaVersion":2}'
        registry.answers(Response(body, headers={"Docker-Content-Digest": announced}), path="manifests")
        repository = registry.repository("acme/app")
        client = await pool.client(repository)
        found = "sha256:" + hashlib.sha256(body).hexdigest()
        with pytest.raises(DigestMismatch, match=f"announced {announced}, content is {found}"):
            await client.manifest(repository, "1.0.0")
        with pytest.raises(DigestMismatch):
            await client.manifest(repository, found[:-1] + ("0" if found[-1] != "0" else "1"))


async def test_index_lists_its_platforms_and_leads_to_images_and_blobs():
    async with TestRegistry() as registry, make_pool() as pool:
        registry.push_image("acme/app", "1.0.0", labels={"a": "b"}, platforms=("linux/amd64", "linux/arm64/v8"))
        repository = registry.repository("acme/app")
        client = await pool.client(repository)
        index = await client.manifest(repository, "1.0.0")
        assert index.is_index
        assert index.media_type == OCI_INDEX
        assert [str(platform) for platform in index.platforms] == ["linux/amd64", "linux/arm64/v8"]
        image = await client.manifest(repository, index.images[1].digest)
        assert image.config is not None
        config = orjson.loads(await client.blob(repository, image.config.digest, limit=10_000))
        assert config["architecture"] == "arm64"
        assert config["config"]["Labels"] == {"a": "b"}
        with pytest.raises(RegistryError, match="larger than the limit of 10 bytes"):
            await client.blob(repository, image.config.digest, limit=10)


async def test_concurrent_scans_find_the_scheme_once():
    async with TestRegistry() as registry, make_pool() as pool:
        repositories = [registry.repository(f"acme/app{number}") for number in range(20)]
        for repository in repositories:
            registry.push_image(repository.path, "1.0.0")
        client = await pool.client(repositories[0])
        await asyncio.gather(*(client.list_tags(repository) for repository in repositories))
        assert dict(registry.requests) == {"ping": 1, "tags": 20}
