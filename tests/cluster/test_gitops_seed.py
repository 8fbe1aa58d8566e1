"""The chapter's sources, Kustomizations and tenants, applied with kubectl as written, in the namespaces that it names.

A Git server on loopback takes the place of the public one in URLs, and keys that of the dots in Secrets. Registry, bucket and
chart repository are found under their own names. What the manifests refer to is added: repositories, Secrets, accounts.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncssh
import httpx
import pytest
import yaml

from imagebot.demo.gitserver import GitServer
from tests.scenario.test_signing_stories import GpgHome
from tests.support.clusterlab import Replica, ready_of, until
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.gitopslab import KUSTOMIZE, SOURCE_V1, GitOpsLab, config_map, gitops_lab, manifests, programs_path
from tests.support.gitrepo import BareRepository
from tests.support.kubeapi import ApiError, Object, condition
from tests.support.seed_internet import LOGIN, Internet, internet
from tests.support.sops_documents import age_key, encrypted, pgp_key
from tests.support.sshserver import SshGitServer

pytestmark = [pytest.mark.slow, pytest.mark.needs("gpg")]

SEED = Path(__file__).parent.parent / "seed"
FLUX = "flux-system"
NAMESPACES = (FLUX, "production", "cert-manager", "ingress-nginx", "apps", "infrastructure", "team-a", "team-b")
SOPS = ("--encrypted-regex", "^(data|stringData)$")


class Chapter(GitOpsLab):
    """The world of the chapter: hosts, repositories and the service; `sync` applies a manifest as written."""

    hosts: Internet
    private: GitServer
    ssh: SshGitServer
    identity: asyncssh.SSHKey
    signer: GpgHome
    service: Replica

    def __init__(self, world: GitOpsLab) -> None:
        self.__dict__ = world.__dict__

    def written(self, stem: str) -> str:
        """A manifest of the chapter, with the loopback servers of Git in its URLs."""
        text = (SEED / f"{stem}.yaml").read_text().replace("$GITHUB_USER", "company")
        text = text.replace("https://github.com/org/", self.private.url("org/"))
        return text.replace("https://github.com/", self.git.url("")).replace("ssh://git@github.com/", self.ssh.url("", "git"))

    def sync(self, *stems: str) -> None:
        """Apply manifests of the chapter."""
        for stem in stems:
            self.cluster.kubectl("apply", "--validate=strict", "-f", "-", stdin=self.written(stem))

    def add(self, *objects: Object, namespace: str = FLUX) -> None:
        """Make what the manifests refer to."""
        self.create(*objects, namespace=namespace)

    def secret(self, name: str, values: Mapping[str, str | bytes], namespace: str = FLUX, kind: str = "Opaque") -> None:
        """Make a Secret."""
        data = {key: base64.b64encode(v if isinstance(v, bytes) else v.encode()).decode() for key, v in values.items()}
        meta = {"name": name}
        self.add({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": meta, "data": data}, namespace=namespace)

    def repo(self, name: str, files: Mapping[str, str], branch: str = "main", root: str = "git") -> BareRepository:
        """A repository with a signed commit."""
        bare = BareRepository.create(self.root / root / name)
        self.signed(bare, files, branch)
        return bare

    def signed(self, bare: BareRepository, files: Mapping[str, str | None], branch: str = "main") -> str:
        """One more commit, signed; its revision."""
        made = bare.commit({path: None if text is None else text.encode() for path, text in files.items()}, branch=branch)
        raw = bare.raw("cat-file", "commit", made)
        signature = self.signer.run("--armor", "--detach-sign", stdin=raw).decode().rstrip("\n").replace("\n", "\n ")
        head, _, message = raw.decode().partition("\n\n")
        text = f"{head}\ngpgsig {signature}\n\n{message}".encode()
        commit = bare.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=text)
        bare.git("update-ref", f"refs/heads/{branch}", commit)
        return f"{branch}@sha1:{commit}"

    def git_source(self, name: str, namespace: str, bare: BareRepository) -> None:
        """A GitRepository that the chapter takes for granted."""
        url = self.git.url(str(bare.path.relative_to(self.root / "git")))
        spec = {"url": url, "interval": "1h", "ref": {"branch": "main"}}
        self.add(
            {"apiVersion": SOURCE_V1, "kind": "GitRepository", "metadata": {"name": name}, "spec": spec}, namespace=namespace
        )

    def applied(self, name: str, revision: str, namespace: str = FLUX) -> Object:
        """Wait until a Kustomization has applied a revision."""
        return self.until_ready("Kustomization", name, f"Applied revision: {revision}", namespace)

    def failed(self, kind: str, name: str, reason: str, namespace: str = FLUX) -> str:
        """Wait until an object is not ready for a reason; the message."""

        def holds(found: Object) -> bool:
            return ready_of(found)[:2] == ("False", reason)

        return ready_of(self.until_object(kind, name, holds, f"not ready: {reason}", namespace))[2]


def clear_away(cluster: Cluster, name: str) -> None:
    """Delete a namespace that another test left, and wait until it is gone."""
    cluster.api.delete("v1", "Namespace", name, missing_ok=True)
    until(lambda: cluster.api.find("v1", "Namespace", name) is None, f"namespace {name} to be gone", 120)


@pytest.fixture(scope="module")
def chapter(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chapter]:
    """The service in the namespaces of the chapter: on a cluster of our own alone, as Flux may be in another one."""
    if not isinstance(control_plane, ControlPlane) or not control_plane.runs_workloads:
        pytest.skip("it takes a control plane of our own, in which workloads run")
    root = tmp_path_factory.mktemp("seed")
    for name in NAMESPACES:
        clear_away(control_plane, name)
        control_plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    with ExitStack() as stack:
        stack.callback(control_plane.api.delete, "v1", "Namespace", FLUX, missing_ok=True)
        hosts = stack.enter_context(internet(root))
        world = stack.enter_context(gitops_lab(control_plane, FLUX, root))
        made = Chapter(world)
        made.namespaces += NAMESPACES[1:]
        made.hosts, made.identity = hosts, asyncssh.generate_private_key("ssh-ed25519")
        (root / "private").mkdir()
        server = GitServer(root / "private", username="flux", password="ghp_xxxxxxxxxxxxxxxxxxxx")
        made.private = stack.enter_context(server)
        public = made.identity.export_public_key("openssh").decode()
        made.ssh = stack.enter_context(SshGitServer(root / "private", authorized=[public]))
        made.signer = GpgHome(root / "gpg")
        stack.callback(made.signer.close)
        made.signer.make_key()
        made.replica("replica", PATH=programs_path(), HTTPS_PROXY=hosts.proxy, SSL_CERT_FILE=str(hosts.trusted))
        made.service = made.start("--sops-age-secret=sops-age", "--no-cross-namespace-refs=true", everywhere=True)
        yield made


# --- sources


def test_the_sources_become_ready(chapter: Chapter) -> None:
    ring = chapter.signer.run("--armor", "--export")
    chapter.secret("pgp-public-keys", {"author.asc": ring})
    chapter.repo("stefanprodan/podinfo", {"kustomize/a.yaml": "a: 1\n", "charts/b.yaml": "b: 1\n", "README.md": ""}, "master")
    chapter.repo("org/repo", {"a.yaml": config_map("a")}, "master", root="private")
    docker = json.dumps({"auths": {"registry-1.docker.io": {"username": LOGIN[0], "password": LOGIN[1]}}})
    chapter.secret("registry-credentials", {"username": LOGIN[0], "password": LOGIN[1], ".dockerconfigjson": docker})
    files = {"deploy.yaml": config_map("podinfo")}
    for tag in ("5.9.0", "6.1.0"):
        key = chapter.hosts.sign("stefanprodan/manifests/podinfo", tag, {**files, "tag": tag})
    chapter.secret("cosign-public-key", {"cosign.pub": key})
    chapter.hosts.store.put("production/apps/web.yaml", config_map("web"))
    chapter.hosts.store.put("staging/apps/web.yaml", config_map("web"))
    chapter.secret("aws-credentials", {"accesskey": chapter.hosts.keys.access, "secretkey": chapter.hosts.keys.secret})

    chapter.sync("git-repository", "git-repository-https", "oci-repository", "bucket", "helm-repository-index")

    podinfo = chapter.until_ready("GitRepository", "podinfo", "stored artifact for revision 'master@sha1:")
    assert condition(podinfo, "SourceVerified") == "True"
    assert podinfo["status"]["sourceVerificationMode"] == "head"
    assert members(podinfo) == ["kustomize/a.yaml"]
    assert members(chapter.until_ready("GitRepository", "repo")) == ["a.yaml"]
    oci = chapter.until_ready("OCIRepository", "podinfo", "6.1.0@sha256:")
    assert condition(oci, "SourceVerified") == "True"
    assert members(oci) == ["deploy.yaml", "tag"]
    assert members(chapter.until_ready("Bucket", "my-app-manifests")) == ["production/apps/web.yaml"]
    chapter.until_ready("HelmRepository", "bitnami")
    assert chapter.hosts.charts.served >= 1
    assert {"ghcr.io", "my-company-manifests.s3.amazonaws.com", "charts.bitnami.com"} <= set(chapter.hosts.asked)


def test_a_repository_over_ssh_becomes_ready(chapter: Chapter) -> None:
    bare = BareRepository(chapter.root / "private" / "org" / "repo")
    if not bare.path.exists():
        bare = chapter.repo("org/repo", {"a.yaml": config_map("a")}, "master", root="private")
    source, secret = yaml.safe_load_all(chapter.written("git-repository-ssh"))
    # In the chapter there are dots where the keys are.
    secret["stringData"] = {
        "identity": chapter.identity.export_private_key("openssh").decode(),
        "known_hosts": chapter.ssh.known_hosts().decode(),
    }
    chapter.cluster.kubectl("apply", "--validate=strict", "-f", "-", stdin=manifests(source, secret))

    def over_ssh(found: Object) -> bool:
        return (
            condition(found, "Ready") == "True" and found["status"].get("observedGeneration") == found["metadata"]["generation"]
        )

    found = chapter.until_object("GitRepository", "repo", over_ssh, "Ready over ssh")
    assert found["spec"]["url"].startswith("ssh://git@")
    assert found["status"]["artifact"]["revision"] == f"master@sha1:{bare.head('master')}"
    assert chapter.ssh.logins >= 1


def test_a_registry_of_charts_is_accepted_and_asked_for_nothing(chapter: Chapter) -> None:
    chapter.sync("helm-repository")

    def plain(found: Object) -> bool:
        return found["spec"].get("type") == "oci" and not (found.get("status") or {}).get("conditions")

    found = chapter.until_object("HelmRepository", "bitnami", plain, "without a status")
    assert "artifact" not in (found.get("status") or {})
    assert "registry-1.docker.io" not in chapter.hosts.asked


def members(source: Object) -> list[str]:
    """Files of the artifact of a source."""
    content = httpx.get(source["status"]["artifact"]["url"], trust_env=False).content
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return sorted(member.name for member in archive if member.isreg())


# --- Kustomizations of the platform team


def deployment(name: str, namespace: str) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": name, "image": "example.com/web:1"}]}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }  # fmt: skip


def api_keys(value: str) -> str:
    meta = {"name": "api-keys", "namespace": "cert-manager"}
    return manifests({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"api-key": value}})


def kustomization(*resources: str) -> str:
    return yaml.safe_dump({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [*resources]})


def test_the_fleet_becomes_ready(chapter: Chapter) -> None:
    pgp, age = pgp_key("fleet"), age_key()
    names = {"cluster": "${cluster_name}", "region": "${region}", "domain": "${domain}"}
    production = "infrastructure/overlays/production"
    bare = chapter.repo(
        "company/fleet-infra",
        {
            "clusters/production/flux-system/gotk-sync.yaml": chapter.written("gotk-sync"),
            "clusters/production/cluster.yaml": config_map("cluster", namespace=FLUX),
            f"{production}/kustomization.yaml": kustomization("controllers.yaml", "info.yaml", "keys.yaml"),
            f"{production}/controllers.yaml": manifests(
                deployment("cert-manager", "cert-manager"), deployment("ingress-nginx", "ingress-nginx")
            ),
            f"{production}/info.yaml": config_map("info", names, namespace="cert-manager"),
            f"{production}/keys.yaml": encrypted(api_keys("by-pgp"), "yaml", pgp=pgp, options=SOPS).decode(),
            "infrastructure/kustomization.yaml": kustomization("keys.yaml"),
            "infrastructure/keys.yaml": encrypted(api_keys("by-age"), "yaml", age=age, options=SOPS).decode(),
            "apps/production/app.yaml": manifests(deployment("critical-app", "production")),
            "crds/crds.yaml": config_map("crds", namespace=FLUX),
        },
    )
    # Where no branch is named it is master, as it was when Flux was young.
    bare.git("update-ref", "refs/heads/master", str(bare.head()))
    revision = f"master@sha1:{bare.head()}"
    chapter.secret(FLUX, {"username": "git", "password": "token"})
    if chapter.find("Secret", "cosign-public-key") is None:
        chapter.secret("cosign-public-key", {"cosign.pub": ""})
    ring = base64.b64encode(chapter.signer.run("--armor", "--export")).decode()
    chapter.patch("Secret", "cosign-public-key", {"data": {"author.asc": ring}})
    chapter.secret("sops-gpg", {"pgp.asc": pgp.secret})
    chapter.secret("sops-age", {"keys.agekey": age.entry})
    chapter.add(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cluster-vars"}, "data": {"domain": "example.com"}}
    )
    chapter.kubeconfig("flux-admin")  # makes the account, which may do anything

    # What the bootstrap leaves looks after itself.
    chapter.sync("gotk-sync", "git-repository-verify")
    found = chapter.applied(FLUX, f"main@sha1:{bare.head()}")
    assert {entry["id"] for entry in found["status"]["inventory"]["entries"]} == {
        "flux-system_cluster__ConfigMap",
        "flux-system_flux-system_kustomize.toolkit.fluxcd.io_Kustomization",
        "flux-system_flux-system_source.toolkit.fluxcd.io_GitRepository",
    }
    assert condition(chapter.until_ready("GitRepository", "fleet-infra"), "SourceVerified") == "True"

    # Variables, decryption, an account and health checks.
    chapter.sync("kustomization-infrastructure")
    found = chapter.applied("infrastructure", revision)
    assert condition(found, "Healthy") == "True"
    for name in ("cert-manager", "ingress-nginx"):
        assert condition(chapter.find("Deployment", name, name), "Available") == "True"
    info = chapter.find("ConfigMap", "info", "cert-manager")
    assert info is not None
    assert info["data"] == {"cluster": "production-us-east", "region": "us-east-1", "domain": "example.com"}
    assert secret_value(chapter) == "by-pgp"

    # A target namespace, and the wait for all objects.
    chapter.sync("kustomization-apps")
    assert condition(chapter.applied("apps", revision), "Healthy") == "True"
    assert condition(chapter.find("Deployment", "critical-app", "production"), "Available") == "True"

    # Dependencies: one is ready, the other is not there.
    chapter.sync("kustomization-depends-on")
    assert chapter.failed("Kustomization", "apps", "DependencyNotReady").startswith("dependency 'flux-system/crds' not found")
    chapter.kustomization("crds", "./crds", "fleet-infra", targetNamespace=FLUX)
    chapter.applied("crds", revision)
    chapter.applied("apps", revision)

    # Decryption without a Secret of its own: with that of the installation. What the other path had is pruned.
    chapter.sync("kustomization-decryption")
    until(lambda: secret_value(chapter) == "by-age", "the Secret of the other path")
    chapter.until_gone("Deployment", "cert-manager", "cert-manager")
    found = chapter.applied("infrastructure", revision)
    assert [entry["id"] for entry in found["status"]["inventory"]["entries"]] == ["cert-manager_api-keys__Secret"]

    # A health check that says what the object is, and not where.
    chapter.api.delete(KUSTOMIZE, "Kustomization", "apps", FLUX)
    chapter.until_gone("Deployment", "critical-app", "production")
    chapter.sync("kustomization-health-checks")
    assert condition(chapter.applied("critical-app", revision), "Healthy") == "True"
    assert condition(chapter.find("Deployment", "critical-app", "production"), "Available") == "True"

    # A commit that nobody signed is not taken.
    unsigned = bare.commit({"apps/production/more.yaml": b""}, branch="master")
    chapter.request("GitRepository", "fleet-infra")
    assert unsigned in chapter.failed("GitRepository", "fleet-infra", "InvalidCommitSignature")
    assert chapter.get("GitRepository", "fleet-infra")["status"]["artifact"]["revision"] == revision


def secret_value(chapter: Chapter) -> str:
    found = chapter.find("Secret", "api-keys", "cert-manager")
    return base64.b64decode((found or {"data": {"api-key": ""}})["data"]["api-key"]).decode()


# --- Kustomizations of other namespaces


def test_a_dependency_in_another_namespace_and_a_suspended_kustomization(chapter: Chapter) -> None:
    bare = chapter.repo("apps", {"backend/api.yaml": config_map("api", namespace="apps")})
    data = chapter.repo("data", {"database/database.yaml": config_map("database", namespace="infrastructure")})
    chapter.git_source("apps", "apps", bare)
    chapter.git_source("data", "infrastructure", data)
    chapter.sync("kustomization-cross-namespace")
    text = chapter.failed("Kustomization", "backend-api", "DependencyNotReady", "apps")
    assert text.startswith("dependency 'infrastructure/database' not found")
    database: dict[str, Any] = {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": {"name": "database"},
        "spec": {"interval": "1h", "prune": True, "path": "./database", "sourceRef": {"kind": "GitRepository", "name": "data"}},
    }  # fmt: skip
    chapter.add(database, namespace="infrastructure")
    first = f"main@sha1:{bare.head()}"
    chapter.applied("backend-api", first, "apps")

    chapter.sync("kustomization-suspended")
    chapter.signed(bare, {"backend/api.yaml": config_map("api", {"key": "new"}, namespace="apps")})
    chapter.request("GitRepository", "apps", namespace="apps")
    chapter.until_ready("GitRepository", "apps", f"main@sha1:{bare.head()}", "apps")
    token = chapter.request("Kustomization", "backend-api", namespace="apps")
    found = chapter.handled("Kustomization", token, "backend-api", "apps")
    assert found["status"]["lastAppliedRevision"] == first
    assert (chapter.find("ConfigMap", "api", "apps") or {})["data"] == {"key": "api"}


# --- tenants


def test_a_tenant_may_what_its_account_may_and_reaches_no_other_source(chapter: Chapter) -> None:
    bare = chapter.repo("team-a", {"apps/web.yaml": config_map("web", namespace="team-a")})
    other = chapter.repo("team-b", {"secret.yaml": config_map("of-team-b")})
    chapter.git_source("team-a-repo", "team-a", bare)
    chapter.git_source("other-team-repo", "team-b", other)
    chapter.sync("team-account", "kustomization-team", "kustomization-other-teams-source")
    chapter.applied("team-a-apps", f"main@sha1:{bare.head()}", "team-a")
    assert chapter.find("ConfigMap", "web", "team-a") is not None
    blocked = "can't access 'GitRepository/team-b/other-team-repo', cross-namespace references have been blocked"
    assert chapter.failed("Kustomization", "bad-example", "AccessDenied", "team-a") == blocked

    chapter.signed(bare, {"apps/there.yaml": config_map("there", namespace="team-b")})
    chapter.request("GitRepository", "team-a-repo", namespace="team-a")
    text = chapter.failed("Kustomization", "team-a-apps", "ReconciliationFailed", "team-a")
    assert 'User "system:serviceaccount:team-a:team-a-reconciler" cannot patch resource "configmaps"' in text
    assert chapter.find("ConfigMap", "there", "team-b") is None
    with pytest.raises(ApiError):
        chapter.api.get("v1", "ConfigMap", "of-team-b", "team-a")
