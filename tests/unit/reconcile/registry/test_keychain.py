"""Which credential is shown to which repository."""

from __future__ import annotations

import base64

import orjson
import pytest

from reconcile.errors import Invalid
from reconcile.registry.keychain import Anonymous, Credential, chain, keychain_from_docker_config, keychain_from_secret
from reconcile.registry.names import parse_repository


def config(**auths):
    return orjson.dumps({"auths": {key.replace("__", "."): value for key, value in auths.items()}})


def user(name: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:p:w".encode()).decode()}


def found(keys: list[str], image: str) -> str | None:
    keychain = keychain_from_docker_config(orjson.dumps({"auths": {key: {"username": key, "password": "x"} for key in keys}}))
    credential = keychain.find(parse_repository(image))
    return None if credential is None else credential.username


@pytest.mark.parametrize(
    ("keys", "image", "wanted"),
    [
        (["ghcr.io"], "ghcr.io/a/b", "ghcr.io"),
        (["ghcr.io"], "ghcr.io.evil.example/a/b", None),
        (["ghcr.io/a"], "ghcr.io/a/b", "ghcr.io/a"),
        (["ghcr.io/x"], "ghcr.io/a/b", None),
        (["ghcr.io", "ghcr.io/a", "ghcr.io/a/b"], "ghcr.io/a/b", "ghcr.io/a/b"),
        (["ghcr.io", "ghcr.io/a"], "ghcr.io/z/b", "ghcr.io"),
        (["*.example.com"], "a.example.com/x/y", "*.example.com"),
        (["*.example.com"], "a.b.example.com/x/y", None),
        (["reg?.example.com"], "reg1.example.com/x/y", "reg?.example.com"),
        (["reg[^1].example.com"], "reg1.example.com/x/y", None),
        (["reg.example.com:5000"], "reg.example.com:5000/x/y", "reg.example.com:5000"),
        (["reg.example.com"], "reg.example.com:5000/x/y", None),
        (["reg.example.com:5000"], "reg.example.com/x/y", None),
        (["https://index.docker.io/v1/"], "alpine", "https://index.docker.io/v1/"),
        (["docker.io"], "acme/app", "docker.io"),
        (["index.docker.io"], "docker.io/acme/app", "index.docker.io"),
        (["https://reg.example.com/v2/"], "reg.example.com/x/y", "https://reg.example.com/v2/"),
        (["http://reg.example.com/v1/team"], "reg.example.com/team/y", "http://reg.example.com/v1/team"),
    ],
)
def test_keys_match_as_the_kubelet_matches_them(keys, image, wanted):
    assert found(keys, image) == wanted


async def test_every_field_of_an_entry():
    data = config(
        a__io=user("ann"),
        b__io={"username": "bob", "password": "secret"},
        c__io={"identitytoken": "refresh"},
        d__io={"registrytoken": "bearer"},
        e__io={},
    )
    keychain = keychain_from_docker_config(data)
    results = {host: await keychain.resolve(parse_repository(f"{host}/x/y")) for host in ("a.io", "b.io", "c.io", "d.io", "e.io")}
    assert results == {
        "a.io": Credential("ann", "p:w"),
        "b.io": Credential("bob", "secret"),
        "c.io": Credential(identity_token="refresh"),
        "d.io": Credential(registry_token="bearer"),
        "e.io": None,
    }


def test_secrets_do_not_show():
    credential = Credential("ann", "secret-1", "secret-2", "secret-3")
    assert "secret" not in repr(credential)
    keychain = keychain_from_docker_config(config(a__io={"username": "ann", "password": "secret-1"}))
    assert "secret" not in repr(keychain)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"auths": []}', None),
        (b'{"auths": ["secret"]}', "'auths' is not an object"),
        (b'{"auths": {"a.io": "secret"}}', "the entry 'a.io' is not an object"),
        (b'{"auths": {"a.io": {"auth": "secret!"}}}', "'auth' of 'a.io' is not the base64 of username:password"),
        (b'{"auths": {"a.io": {"auth": "c2VjcmV0"}}}', "'auth' of 'a.io' is not the base64 of username:password"),
        (b'{"auths": {"a.io": {"password": ["secret"]}}}', "'password' of 'a.io' is not a text"),
    ],
)
def test_what_cannot_be_read_is_said_without_quoting_it(data, text):
    if text is None:
        assert keychain_from_docker_config(data).entries == ()
        return
    with pytest.raises(Invalid, match=text) as caught:
        keychain_from_docker_config(data)
    assert "secret" not in str(caught.value).replace("'auth'", "")


def test_secret_types():
    auths = {"a.io": user("ann")}
    new = keychain_from_secret("kubernetes.io/dockerconfigjson", {".dockerconfigjson": orjson.dumps({"auths": auths})})
    old = keychain_from_secret("kubernetes.io/dockercfg", {".dockercfg": orjson.dumps(auths)})
    assert new == old
    assert keychain_from_secret("Opaque", {".dockerconfigjson": b"{}"}) is None


async def test_chains_ask_in_order():
    repository = parse_repository("a.io/x/y")
    first = keychain_from_docker_config(config(b__io=user("bob")))
    second = keychain_from_docker_config(config(a__io=user("ann")))
    third = keychain_from_docker_config(config(a__io=user("eve")))
    credential = await chain(None, first, second, third).resolve(repository)
    assert credential is not None
    assert credential.username == "ann"
    assert chain(None, first) is first
    assert isinstance(chain(None), Anonymous)
    assert await chain().resolve(repository) is None
