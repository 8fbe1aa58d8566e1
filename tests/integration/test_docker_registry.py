"""Our client against Debian's docker-registry, with docker-registry-client as the second opinion on tag lists."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
from pathlib import Path

import pytest

from imagebot.demo.images import make_image
from reconcile.net.client import make_client
from reconcile.net.proxy import ProxyEnvironment
from reconcile.registry.errors import StatusError
from reconcile.registry.keychain import Credential
from reconcile.registry.manifest import OCI_INDEX
from reconcile.registry.names import parse_repository
from tests.support.registry import FixedKeychain, make_pool, push_over_http

pytestmark = pytest.mark.needs("docker-registry", "docker-registry-client")

# bcrypt of "secret-password" at the lowest cost; the registry takes no other hash
HTPASSWD = "ann:$2b$04$abcdefghijklmnopqrstuuq8DwlpszTVmH1ckl/VPV38Vwtq3col2\n"

# Runs in a process of its own: the library sets a global warnings filter when imported.
SECOND_OPINION = """
import json, sys
from docker_registry_client import DockerRegistryClient
host, user, password, *names = sys.argv[1:]
client = DockerRegistryClient(host, api_version=2, username=user or None, password=password or None)
print(json.dumps({name: client.repository(name).tags() for name in names}))
"""


@contextlib.asynccontextmanager
async def docker_registry(folder: Path, *, htpasswd: str = ""):
    """Debian's registry on a free loopback port, its content in `folder`; gives `host:port`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    auth = ""
    if htpasswd:
        (folder / "htpasswd").write_text(htpasswd)
        auth = f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '{host}'}}\n{auth}"
    )
    program = shutil.which("docker-registry") or "docker-registry"
    process = await asyncio.create_subprocess_exec(
        program, "serve", str(config), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            while not await listens(host):
                assert process.returncode is None, "docker-registry ended at once"
                await asyncio.sleep(0.05)
        yield host
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def listens(host: str) -> bool:
    name, _, port = host.partition(":")
    try:
        _, writer = await asyncio.open_connection(name, int(port))
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def second_opinion(host: str, *names: str, user: str = "", password: str = "") -> dict[str, list[str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SECOND_OPINION, f"http://{host}", user, password, *names,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


async def push(host: str, name: str, tags: list[str], auth: tuple[str, str] | None = None) -> dict[str, str]:
    digests = {}
    async with make_client(environment=ProxyEnvironment()) as client:
        client.auth = auth
        for tag in tags:
            platforms = ("linux/amd64", "linux/arm64") if tag.startswith("multi") else ("linux/amd64",)
            image = make_image(name, tag, labels={}, platforms=platforms, created="2024-01-01T00:00:00Z")
            digests[tag] = await push_over_http(client, f"http://{host}", name, tag, image)
    return digests


async def test_our_tag_list_equals_the_pushed_tags_and_the_second_opinion(tmp_path):
    pushed = {
        "acme/app": [f"1.{minor}.{patch}" for minor in range(5) for patch in range(4)],
        "acme/deeply/nested/web": ["latest", "multi-1", "V_1.2-rc.3", "x" * 128],
    }
    async with docker_registry(tmp_path) as host, make_pool() as pool:
        digests = {name: await push(host, name, tags) for name, tags in pushed.items()}
        others = await second_opinion(host, *pushed)
        for name, tags in pushed.items():
            repository = parse_repository(f"{host}/{name}")
            client = await pool.client(repository)
            pages = await client.list_tags(repository)
            assert sorted(pages.tags) == sorted(tags) == sorted(others[name])
            assert (await client.list_tags(repository, pages)).unchanged
            for tag in tags:
                assert await client.digest(repository, tag) == digests[name][tag]
        manifest = await client.manifest(repository, "multi-1")
        assert manifest.media_type == OCI_INDEX
        assert [str(platform) for platform in manifest.platforms] == ["linux/amd64", "linux/arm64"]
        image = await client.manifest(repository, manifest.images[0].digest)
        assert image.config is not None
        assert json.loads(await client.blob(repository, image.config.digest, limit=10_000))["architecture"] == "amd64"


async def test_errors_of_the_real_registry(tmp_path):
    async with docker_registry(tmp_path) as host, make_pool() as pool:
        await push(host, "acme/app", ["1.0.0"])
        repository = parse_repository(f"{host}/nowhere/app")
        client = await pool.client(repository)
        with pytest.raises(StatusError) as caught:
            await client.list_tags(repository)
        assert str(caught.value) == (
            f"GET http://{host}/v2/nowhere/app/tags/list?n=1000: "
            "NAME_UNKNOWN: repository name not known to registry; map[name:nowhere/app]"
        )
        with pytest.raises(
            StatusError, match=r"unexpected status code 404 Not Found \(HEAD responses have no body, use GET for details\)$"
        ):
            await client.digest(parse_repository(f"{host}/acme/app"), "9.9.9")


async def test_basic_authentication_of_the_real_registry(tmp_path):
    async with docker_registry(tmp_path, htpasswd=HTPASSWD) as host, make_pool() as pool:
        await push(host, "acme/app", ["1.0.0", "1.1.0"], ("ann", "secret-password"))
        repository = parse_repository(f"{host}/acme/app")
        client = await pool.client(repository, keychain=FixedKeychain(Credential("ann", "secret-password")))
        tags = (await client.list_tags(repository)).tags
        assert sorted(tags) == ["1.0.0", "1.1.0"]
        assert sorted((await second_opinion(host, "acme/app", user="ann", password="secret-password"))["acme/app"]) == sorted(
            tags
        )
        with pytest.raises(StatusError, match="UNAUTHORIZED: authentication required"):
            await (await pool.client(repository)).list_tags(repository)
