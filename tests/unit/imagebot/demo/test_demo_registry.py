"""The demonstration registry keeps the protocol: pushed over HTTP, read back, refused where it must refuse."""

from __future__ import annotations

import httpx
import orjson
import pytest

from imagebot.demo.door import Account, ApiError
from imagebot.demo.images import make_image
from imagebot.demo.registry import Registry
from reconcile.registry.keychain import Credential
from reconcile.registry.manifest import OCI_MANIFEST, digest_of
from reconcile.registry.names import parse_repository
from tests.support.registry import FixedKeychain, TestRegistry, make_pool, push_over_http


def image(tag: str = "1.0.0", platforms: tuple[str, ...] = ("linux/amd64",)):
    return make_image("acme/app", tag, labels={"a": "b"}, platforms=platforms, created="2024-01-01T00:00:00Z")


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["errors"][0]["code"]


async def test_an_image_pushed_over_http_is_the_image_pushed_directly():
    async with Registry() as registry, httpx.AsyncClient(base_url=registry.url, trust_env=False) as client:
        digest = await push_over_http(client, registry.url, "acme/app", "1.0.0", image(platforms=("linux/amd64", "linux/arm64")))
        direct = Registry()
        again = direct.push_image("acme/app", "1.0.0", labels={"a": "b"}, platforms=("linux/amd64", "linux/arm64"))
        assert digest == again
        got = await client.get("/v2/acme/app/manifests/1.0.0")
        assert digest_of(got.content) == got.headers["docker-content-digest"] == digest
        head = await client.head("/v2/acme/app/manifests/1.0.0")
        assert head.content == b""
        assert head.headers["content-length"] == str(len(got.content))
        assert head.headers["content-type"] == got.headers["content-type"] == "application/vnd.oci.image.index.v1+json"
        for entry in got.json()["manifests"]:
            manifest = (await client.get(f"/v2/acme/app/manifests/{entry['digest']}")).json()
            for part in (manifest["config"], *manifest["layers"]):
                blob = await client.get(f"/v2/acme/app/blobs/{part['digest']}")
                assert digest_of(blob.content) == part["digest"]
                assert len(blob.content) == part["size"]


async def test_what_is_refused_on_push():
    wrong = "sha256:" + "0" * 64
    async with Registry() as registry, httpx.AsyncClient(base_url=registry.url, trust_env=False) as client:
        assert error(await client.post(f"/v2/acme/app/blobs/uploads/?digest={wrong}", content=b"x")) == (400, "DIGEST_INVALID")
        assert error(await client.put(f"/v2/acme/app/blobs/uploads/abc?digest={wrong}")) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert error(await client.put("/v2/acme/app/manifests/1.0.0", content=b"{")) == (400, "MANIFEST_INVALID")
        assert error(await client.put("/v2/acme/app/manifests/1.0.0", content=b"[]")) == (400, "MANIFEST_INVALID")
        content = image().manifests[0][1]
        assert error(await client.put("/v2/acme/app/manifests/1.0.0", content=content)) == (400, "MANIFEST_BLOB_UNKNOWN")
        assert error(await client.put(f"/v2/acme/app/manifests/{wrong}", content=content)) == (400, "DIGEST_INVALID")
        assert error(await client.put("/v2/acme/app/manifests/bad%20tag", content=content)) == (400, "TAG_INVALID")
        assert not registry.repositories
        index = orjson.dumps({"manifests": [{"digest": wrong}]})
        assert error(await client.put("/v2/acme/app/manifests/1.0.0", content=index)) == (400, "MANIFEST_BLOB_UNKNOWN")


async def test_what_is_not_there():
    async with Registry() as registry, httpx.AsyncClient(base_url=registry.url, trust_env=False) as client:
        registry.push_image("acme/app", "1.0.0")
        assert error(await client.get("/v2/nowhere/tags/list")) == (404, "NAME_UNKNOWN")
        assert error(await client.get("/v2/acme/app/manifests/2.0.0")) == (404, "MANIFEST_UNKNOWN")
        assert error(await client.get("/v2/acme/app/blobs/sha256:00")) == (404, "BLOB_UNKNOWN")
        assert error(await client.get("/elsewhere")) == (404, "UNSUPPORTED")
        assert error(await client.get("/token")) == (404, "UNSUPPORTED")
        assert error(await client.get("/v2/acme/app/blobs/uploads/")) == (405, "UNSUPPORTED")
        assert error(await client.get("/v2/acme/app/tags/list?n=x")) == (400, "PAGINATION_NUMBER_INVALID")


async def test_tags_come_sorted_in_pages_with_links_and_can_be_deleted():
    async with Registry() as registry, httpx.AsyncClient(base_url=registry.url, trust_env=False) as client:
        for tag in ("c", "a", "d", "b", "e"):
            registry.push_image("acme/app", tag)
        seen, url = [], "/v2/acme/app/tags/list?n=2"
        while url:
            page = await client.get(url)
            seen.append(page.json()["tags"])
            url = page.links.get("next", {}).get("url", "")
        assert seen == [["a", "b"], ["c", "d"], ["e"]]
        assert (await client.get("/v2/acme/app/tags/list")).json() == {"name": "acme/app", "tags": list("abcde")}
        assert (await client.get("/v2/acme/app/tags/list?n=0")).json()["tags"] == []
        assert (await client.delete("/v2/acme/app/manifests/b")).status_code == 202
        registry.delete_tag("acme/app", "c")
        assert (await client.get("/v2/acme/app/tags/list")).json()["tags"] == ["a", "d", "e"]
        with pytest.raises(ApiError, match="manifest unknown"):
            registry.delete_tag("acme/app", "c")
        digest = registry.repositories["acme/app"].tags["a"]
        assert (await client.delete(f"/v2/acme/app/manifests/{digest}")).status_code == 202
        assert (await client.get("/v2/acme/app/tags/list")).json()["tags"] == ["d", "e"]


async def test_a_tag_can_move():
    async with Registry() as registry:
        first = registry.push_image("acme/app", "latest", labels={"v": "1"})
        second = registry.push_image("acme/app", "latest", labels={"v": "2"})
        assert first != second
        assert registry.repositories["acme/app"].tags == {"latest": second}
        assert registry.push_image("acme/app", "latest", labels={"v": "1"}) == first  # same arguments, same bytes


async def test_basic_account():
    async with (
        Registry(account=Account("ann", "pw")) as registry,
        httpx.AsyncClient(base_url=registry.url, trust_env=False) as client,
    ):
        refused = await client.get("/v2/")
        assert error(refused) == (401, "UNAUTHORIZED")
        assert refused.headers["www-authenticate"] == 'Basic realm="registry"'
        assert (await client.get("/v2/", auth=("ann", "wrong"))).status_code == 401
        assert (await client.get("/v2/", auth=("ann", "pw"))).status_code == 200
        client.auth = ("ann", "pw")
        await push_over_http(client, registry.url, "acme/app", "1.0.0", image())


async def test_bearer_account_grants_what_was_asked_for_and_no_more():
    account = Account("ann", "pw", scheme="bearer", anonymous_pull=True)
    async with Registry(account=account) as registry, httpx.AsyncClient(base_url=registry.url, trust_env=False) as client:
        registry.push_image("acme/app", "1.0.0")
        registry.push_image("acme/web", "1.0.0")
        refused = await client.get("/v2/acme/app/tags/list")
        assert refused.headers["www-authenticate"] == (
            f'Bearer realm="{registry.url}/token",service="{registry.host}",scope="repository:acme/app:pull"'
        )

        async def token(scope: str, auth: tuple[str, str] | None = None) -> httpx.Response:
            return await client.get("/token", params={"scope": scope, "service": registry.host}, auth=auth)

        pull = {"Authorization": f"Bearer {(await token('repository:acme/app:pull')).json()['token']}"}
        assert (await client.get("/v2/acme/app/tags/list", headers=pull)).status_code == 200
        assert (await client.get("/v2/acme/web/tags/list", headers=pull)).status_code == 401
        assert (await client.delete("/v2/acme/app/manifests/1.0.0", headers=pull)).status_code == 401
        assert (await token("repository:acme/app:pull,push")).status_code == 401
        assert (await token("repository:acme/app:pull", ("ann", "wrong"))).status_code == 401
        push = {"Authorization": f"Bearer {(await token('repository:acme/app:pull,push', ('ann', 'pw'))).json()['token']}"}
        assert (await client.delete("/v2/acme/app/manifests/1.0.0", headers=push)).status_code == 202


@pytest.mark.parametrize("identity_token", ["refresh", ""])
async def test_our_client_with_an_identity_token(identity_token):
    account = Account("ann", "pw", scheme="bearer", identity_token=identity_token)
    async with TestRegistry(account=account) as registry, make_pool() as pool:
        registry.push_image("acme/app", "1.0.0")
        repository = parse_repository(f"{registry.host}/acme/app")
        keychain = FixedKeychain(Credential("ann", "pw", identity_token="refresh"))
        client = await pool.client(repository, keychain=keychain)
        assert (await client.list_tags(repository)).tags == ("1.0.0",)
        assert registry.requests["token"] == (1 if identity_token else 2)  # without OAuth there: POST, 404, GET


async def test_content_survives_a_stop_and_requests_are_counted():
    registry = Registry()
    registry.push_image("acme/app", "1.0.0")
    for _ in range(2):
        async with registry, httpx.AsyncClient(base_url=registry.url, trust_env=False) as client:
            assert (await client.get("/v2/acme/app/tags/list")).json()["tags"] == ["1.0.0"]
            assert (await client.get("/v2/acme/app/manifests/1.0.0")).headers["content-type"] == OCI_MANIFEST
    assert dict(registry.requests) == {"tags": 2, "manifest": 2}
    assert next(iter(registry.log)) == "GET /v2/acme/app/tags/list"
