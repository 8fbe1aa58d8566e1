"""Connections to a real API server: who we are, how we stay it, and what is said when it does not work."""

from __future__ import annotations

import base64
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio.config import incluster_config

from reconcile.errors import Invalid
from reconcile.kube import connect as connecting
from reconcile.kube.client import Client, open_client
from reconcile.kube.connect import Impersonation, KubeSettings
from reconcile.kube.errors import (
    Denied,
    KindMissing,
    ObjectMissing,
    Outdated,
    Refused,
    Target,
    Unauthenticated,
    Unreachable,
    Untrusted,
)
from reconcile.ports.clock import SystemClock
from tests.support import kube
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.pki import Authority

NAMESPACES = Target("", "v1", "namespaces")
DEFAULT = Target("", "v1", "namespaces", name="default")


def kubeconfig(cluster: Cluster, path: Path, user: dict[str, Any], **server: Any) -> Path:
    """The cluster's kubeconfig with another user, and with changes of the cluster entry."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = user
    config["clusters"][0]["cluster"] |= server
    path.write_text(yaml.safe_dump(config))
    return path


def admin_token(cluster: Cluster) -> str:
    return str(yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]["token"])


async def whoami(client: Client) -> str:
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = await client.create(Target("authentication.k8s.io", "v1", "selfsubjectreviews"), review, manager="tests")
    return str(answer["status"]["userInfo"]["username"])


async def test_a_token_file_is_read_again_when_the_token_is_refused(own_control_plane: ControlPlane, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("expired")
    config = kubeconfig(own_control_plane, tmp_path / "config", {"tokenFile": "token"})
    async with kube.open_client(config) as client:
        with pytest.raises(Unauthenticated, match="does not accept our credentials to get namespaces: Unauthorized"):
            await client.get(DEFAULT)
        token.write_text(admin_token(own_control_plane) + "\n")
        mark = own_control_plane.audit.mark()
        assert (await client.get(DEFAULT))["kind"] == "Namespace"
        token.write_text("expired")
        assert (await client.get(DEFAULT))["kind"] == "Namespace"  # remembered for a minute
        assert own_control_plane.audit.count(mark, user_agent="imagebot/") == 2


async def test_a_token_that_ends_while_we_work_costs_one_more_request(own_control_plane: ControlPlane, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(admin_token(own_control_plane))
    config = kubeconfig(own_control_plane, tmp_path / "config", {"tokenFile": str(token)})
    async with kube.open_client(config) as client:
        await client.get(DEFAULT)
        client.connection._token = "Bearer ended"
        assert (await client.get(DEFAULT))["kind"] == "Namespace"
        client.connection._token = "Bearer ended"
        assert await whoami(client) == "admin"  # a write, which was not carried out either


async def test_a_login_program_is_run_when_needed(own_control_plane: ControlPlane, tmp_path: Path) -> None:
    runs, answer, program = tmp_path / "runs", tmp_path / "answer", tmp_path / "login"
    program.write_text(f"#!/bin/sh\necho run >> {runs}\ncat {answer}\n")
    program.chmod(0o755)

    def say(token: str, **more: str) -> None:
        status = {"token": token, **more}
        answer.write_text(
            json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})
        )

    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), "interactiveMode": "Never"}}
    config = kubeconfig(own_control_plane, tmp_path / "config", user)
    say("wrong", expirationTimestamp="2099-01-01T00:00:00Z")
    async with kube.open_client(config) as client:
        with pytest.raises(Unauthenticated):
            await client.get(DEFAULT)
        say(admin_token(own_control_plane), expirationTimestamp="2099-01-01T00:00:00Z")
        before = len(runs.read_text().split())
        for _ in range(5):
            await client.get(DEFAULT)
        assert len(runs.read_text().split()) == before + 1
        answer.write_text("no JSON")
        client.connection.forget_token()
        with pytest.raises(Invalid, match="login program"):
            await client.get(DEFAULT)


async def test_a_client_certificate_is_used_and_its_key_does_not_stay_on_disk(
    own_control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = own_control_plane.authority.client("carol", ["system:masters"])
    user = {
        "client-certificate-data": base64.b64encode(certificate).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    config = kubeconfig(own_control_plane, tmp_path / "config", user)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for _ in range(2):  # the library remembers its files
        async with kube.open_client(config) as client:
            assert list(folder.iterdir()) == []
            assert await whoami(client) == "carol"


async def test_impersonation_of_the_kubeconfig_and_of_the_settings(own_control_plane: ControlPlane, tmp_path: Path) -> None:
    user = {"token": admin_token(own_control_plane), "as": "dave", "as-groups": ["builders", "system:authenticated"]}
    config = kubeconfig(own_control_plane, tmp_path / "config", user)
    async with kube.open_client(config) as client:
        assert await whoami(client) == "dave"
        with pytest.raises(Denied, match='User "dave" cannot list resource "namespaces"'):
            await client.page(NAMESPACES)
        other = client.acting_as(Impersonation("erin", ("system:masters",)))
        assert await whoami(other) == "erin"
        assert (await other.page(NAMESPACES)).items
    async with kube.open_client(config, impersonate=Impersonation("frank", ("system:authenticated",))) as client:
        assert await whoami(client) == "frank"


async def test_in_a_pod_the_token_of_the_service_account_is_used(
    own_control_plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_control_plane.api.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot", "namespace": namespace}}
    )
    for name, text in (
        ("token", own_control_plane.api.token(namespace, "bot")),
        ("ca.crt", own_control_plane.authority.certificate.decode()),
        ("namespace", namespace),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(connecting, "POD_NAMESPACE", tmp_path / "namespace")
    port = own_control_plane.api.server.rpartition(":")[2]
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    mark = own_control_plane.audit.mark()
    async with open_client(KubeSettings(), SystemClock()) as client:
        assert client.connection.namespace == namespace
        assert await whoami(client) == f"system:serviceaccount:{namespace}:bot"
    agents = {request.user_agent for request in own_control_plane.audit.select(mark, user_agent="imagebot/")}
    assert agents == {connecting.USER_AGENT}


async def test_a_server_that_cannot_be_trusted_or_reached(own_control_plane: ControlPlane, tmp_path: Path) -> None:
    user = {"token": admin_token(own_control_plane)}
    stranger = base64.b64encode(Authority().certificate).decode()
    config = kubeconfig(own_control_plane, tmp_path / "config", user, **{"certificate-authority-data": stranger})
    async with kube.open_client(config) as client:
        with pytest.raises(Untrusted, match="cannot be trusted") as untrusted:
            await client.get(DEFAULT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = kubeconfig(own_control_plane, tmp_path / "config", user, server=f"https://127.0.0.1:{port}")
    async with kube.open_client(config) as client:
        with pytest.raises(Unreachable, match=f"the API server https://127.0.0.1:{port} cannot be reached") as gone:
            await client.get(DEFAULT)
    for found in (untrusted, gone):
        assert user["token"] not in str(found.value)
        assert user["token"] not in repr(client.connection)


@pytest.mark.parametrize(
    ("text", "context", "words"),
    [
        (None, "", "there is no kubeconfig"),
        ("{", "", "config"),
        ("users: []", "", "current-context"),
        ("apiVersion: v1\nkind: Config\ncontexts: []\nclusters: []\nusers: []\n", "other", "other"),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used_is_refused(text: str | None, context: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Invalid, match=words):
        async with open_client(KubeSettings(kubeconfig=str(path), context=context), SystemClock(), environment={}):
            raise AssertionError("connected")


async def test_the_search_for_a_kubeconfig(control_plane: Cluster, tmp_path: Path) -> None:
    home = tmp_path / ".kube"
    home.mkdir()
    (home / "config").write_bytes(control_plane.kubeconfig.read_bytes())
    other = tmp_path / "other"
    other.write_text("apiVersion: v1\nkind: Config\nusers: []\nclusters: []\ncontexts: []\n")
    several = os.pathsep.join([str(tmp_path / "missing"), str(home / "config"), str(other)])
    for settings, environment in (
        (KubeSettings(), {"HOME": str(tmp_path)}),
        (KubeSettings(), {"HOME": "/nonexistent", "KUBECONFIG": several}),
        (KubeSettings(kubeconfig=str(home / "config"), context="tests"), {"KUBECONFIG": str(other)}),
    ):
        async with open_client(settings, SystemClock(), environment=environment) as client:
            assert client.connection.server == control_plane.api.server


async def test_the_words_of_the_server(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    maps = Target("", "v1", "configmaps", namespace)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    async with kube.open_client(control_plane.kubeconfig) as client:
        with pytest.raises(ObjectMissing, match=r'^configmaps "a" not found$'):
            await client.get(Target("", "v1", "configmaps", namespace, "a"))
        with pytest.raises(KindMissing, match=r"the server could not find the requested resource \(list nothings.example.com\)"):
            await client.page(Target("example.com", "v1", "nothings"))
        await client.create(maps, body, manager="tests")
        with pytest.raises(Outdated, match='configmaps "a" already exists'):
            await client.create(maps, body, manager="tests")
        with pytest.raises(Refused, match="Invalid value"):
            await client.create(maps, {**body, "metadata": {"name": "Not valid"}}, manager="tests")
        one = Target("", "v1", "configmaps", namespace, "a")
        with pytest.raises(Outdated):
            await client.delete(one, uid="another")
        found = await client.apply(one, {**body, "data": {"k": "v"}}, manager="tests", force=True, dry_run=True)
        assert found["data"] == {"k": "v"}
        assert "data" not in await client.get(one)
        await client.apply(one, {**body, "data": {"k": "v"}}, manager="one")
        with pytest.raises(Outdated, match='conflict with "one"'):
            await client.apply(one, {**body, "data": {"k": "w"}}, manager="two")
        await client.delete(one)
        with pytest.raises(ObjectMissing):
            await client.get(one)
