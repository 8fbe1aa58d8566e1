"""The user's docker configuration and its helper programs."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from pathlib import Path

import orjson
import pytest

from reconcile.errors import Invalid, MissingProgram
from reconcile.registry.errors import CredentialError
from reconcile.registry.helpers import HELPER_LIFE, UserKeychain, keychain_from_user_docker_config, run_helper
from reconcile.registry.keychain import Anonymous, Credential
from reconcile.registry.names import parse_repository
from tests.support.registry import FakeClock


@pytest.fixture
def helper(tmp_path):
    """Install a helper program; the returned function writes it and gives the environment."""

    def install(name: str, body: str) -> dict[str, str]:
        program = tmp_path / "bin" / f"docker-credential-{name}"
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f"#!{sys.executable}\nimport sys, os, time\nserver = sys.stdin.readline().strip()\n{textwrap.dedent(body)}"
        )
        program.chmod(0o755)
        return {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}

    return install


ANSWER = """
with open(os.environ["HOME"] + "/asked", "a") as log:
    log.write(server + "\\n")
print('{"ServerURL":"%s","Username":"ann","Secret":"from-%s"}' % (server, server))
"""


async def test_the_helper_of_the_host_then_the_store_then_auths(helper, tmp_path):
    environment = helper("one", ANSWER)
    helper("store", 'print("credentials not found in native keychain"); sys.exit(1)')
    path = tmp_path / "config.json"
    auths = {"c.io": {"username": "carl", "password": "x"}}
    path.write_bytes(orjson.dumps({"credHelpers": {"a.io": "one", "docker.io": "one"}, "credsStore": "store", "auths": auths}))
    clock = FakeClock()
    keychain = UserKeychain(path, environment, clock=clock)
    assert await keychain.resolve(parse_repository("a.io/x/y")) == Credential("ann", "from-a.io")
    assert await keychain.resolve(parse_repository("alpine")) == Credential("ann", "from-https://index.docker.io/v1/")
    assert await keychain.resolve(parse_repository("c.io/x/y")) == Credential("carl", "x")
    assert await keychain.resolve(parse_repository("d.io/x/y")) is None
    await keychain.resolve(parse_repository("a.io/other/y"))
    assert (tmp_path / "asked").read_text().split() == ["a.io", "https://index.docker.io/v1/"]
    clock.seconds += HELPER_LIFE
    await keychain.resolve(parse_repository("a.io/x/y"))
    assert (tmp_path / "asked").read_text().split().count("a.io") == 2


async def test_a_changed_configuration_is_read_again(helper, tmp_path):
    path = tmp_path / "config.json"
    keychain = keychain_from_user_docker_config(path)
    repository = parse_repository("a.io/x/y")
    assert await keychain.resolve(repository) is None
    path.write_bytes(orjson.dumps({"auths": {"a.io": {"username": "ann", "password": "long-enough"}}}))
    assert await keychain.resolve(repository) == Credential("ann", "long-enough")
    path.unlink()
    assert await keychain.resolve(repository) is None
    path.write_bytes(b"{")
    with pytest.raises(Invalid, match="is not JSON"):
        await keychain.resolve(repository)


async def test_an_identity_token(helper):
    environment = helper("one", """print('{"Username":"<token>","Secret":"refresh"}')""")
    assert await run_helper("one", "a.io", environment=environment) == Credential(identity_token="refresh")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('print("boom"); sys.exit(3)', "docker-credential-bad: exit status 3: boom"),
        ('print("not json with secret-word")', "the answer has no Username and Secret"),
        ("""print('{"Username": 1, "Secret": "secret-word"}')""", "are not texts"),
        ('sys.stdout.write("x" * 200000)', "the answer is larger than 65536 bytes"),
    ],
)
async def test_helpers_that_fail(helper, body, text):
    environment = helper("bad", body)
    with pytest.raises(CredentialError, match=text) as caught:
        await run_helper("bad", "a.io", environment=environment)
    assert "secret-word" not in str(caught.value)


def state_of(stat: Path) -> str:
    """State of a process, X when there is none any more."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


async def test_a_helper_that_hangs_is_ended_with_all_it_started(helper, tmp_path):
    body = """
    import subprocess
    child = subprocess.Popen(["sleep", "60"])
    with open(os.environ["HOME"] + "/child", "w") as file:
        file.write(str(child.pid))
    time.sleep(60)
    """
    environment = helper("slow", body)
    with pytest.raises(CredentialError, match="no answer within 5s"):
        await run_helper("slow", "a.io", environment=environment, timeout=5.0)
    child = int((tmp_path / "child").read_text())
    stat = Path(f"/proc/{child}/stat")
    async with asyncio.timeout(30):
        while state_of(stat) not in "ZX":
            await asyncio.sleep(0.01)


async def test_a_missing_helper_says_what_to_do():
    with pytest.raises(MissingProgram, match="'docker-credential-nowhere', which is not on PATH; install it or remove it there"):
        await run_helper("nowhere", "a.io", environment={"PATH": "/nonexistent"})


async def test_a_helper_name_is_no_path():
    with pytest.raises(CredentialError, match="cannot be the name of a credential helper"):
        await run_helper("../../bin/sh", "a.io", environment=dict(os.environ))


def test_where_the_configuration_is_looked_for(tmp_path):
    assert isinstance(keychain_from_user_docker_config(environment={"HOME": str(tmp_path)}), Anonymous)
    podman = tmp_path / "run" / "containers" / "auth.json"
    podman.parent.mkdir(parents=True)
    podman.write_text("{}")
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    keychain = keychain_from_user_docker_config(environment=environment)
    assert isinstance(keychain, UserKeychain)
    assert keychain.path == podman
    docker = tmp_path / ".docker" / "config.json"
    docker.parent.mkdir()
    docker.write_text("{}")
    keychain = keychain_from_user_docker_config(environment=environment)
    assert isinstance(keychain, UserKeychain)
    assert keychain.path == docker
