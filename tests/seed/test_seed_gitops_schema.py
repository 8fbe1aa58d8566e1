"""The chapter's sources and Kustomizations are read as written, with nothing lost; fragments are completed.

Where the chapter writes `url` of its HelmRepository twice, each of the two has a file.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reconcile.api.resource import AnyResource
from reconcile.app import load_packages
from reconcile.yamlio import load_documents

FOLDER = Path(__file__).parent
SCHEME = load_packages().scheme
PREFIXES = ("git-repository", "gotk-sync", "helm-repository", "oci-repository", "bucket", "kustomization", "team-account")
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem.startswith(PREFIXES))


def documents(path: Path) -> list[Any]:
    return [body for body, _ in load_documents(path.read_text(), path.name)]


def ours(path: Path) -> list[AnyResource]:
    found = []
    for body in documents(path):
        info = SCHEME.find(body["apiVersion"], body["kind"])
        if info is not None:
            found.append(SCHEME.decode(info, body, strict=True))
    return found


def one(stem: str, kind: str = "") -> AnyResource:
    (found,) = [r for r in ours(FOLDER / f"{stem}.yaml") if kind in {"", r.kind}]
    return found


def test_these_are_all() -> None:
    kinds = Counter(body["kind"] for path in FILES for body in documents(path))
    assert kinds == {
        "GitRepository": 5, "Kustomization": 10, "HelmRepository": 2, "OCIRepository": 1, "Bucket": 1, "Secret": 2,
        "ServiceAccount": 1, "Role": 1, "RoleBinding": 1,
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_strict_decoding_keeps_all_that_is_written(path: Path) -> None:
    manifests = [body for body in documents(path) if SCHEME.find(body["apiVersion"], body["kind"])]
    for body, found in zip(manifests, ours(path), strict=True):
        kept = found.to_dict()
        assert (kept["apiVersion"], kept["kind"], kept["spec"]) == (body["apiVersion"], body["kind"], body["spec"])


def test_defaults_that_the_chapter_relies_on() -> None:
    for stem in ("kustomization-team", "kustomization-other-teams-source"):
        spec = one(stem).spec
        assert (spec.prune, str(spec.interval), spec.wait) == (False, "10m", None)
    assert one("kustomization-infrastructure").spec.prune is False
    assert one("kustomization-apps").spec.prune is True
    assert one("gotk-sync", "Kustomization").spec.prune is True
    assert str(one("oci-repository").spec.timeout) == "60s"
    assert one("bucket").spec.provider == "generic"


def test_the_sources() -> None:
    podinfo = one("git-repository").spec
    assert (podinfo.ref.branch, podinfo.verify.mode, podinfo.verify.secret_ref.name, podinfo.suspend) == (
        "master", "head", "pgp-public-keys", False,
    )  # fmt: skip
    assert podinfo.ignore == "# Exclude all except kustomize\n/*\n!/kustomize/\n"
    oci = one("oci-repository").spec
    assert (oci.ref.semver, oci.verify.provider, oci.verify.secret_ref.name) == (">=6.0.0", "cosign", "cosign-public-key")
    bucket = one("bucket").spec
    assert (bucket.bucket_name, bucket.region, bucket.prefix) == ("my-company-manifests", "us-east-1", "production/apps/")
    assert [(r.spec.type, r.spec.url.split(":")[0]) for r in (one("helm-repository"), one("helm-repository-index"))] == [
        ("oci", "oci"), (None, "https"),
    ]  # fmt: skip


def test_the_kustomizations() -> None:
    spec = one("kustomization-infrastructure").spec
    assert spec.post_build.substitute == {"cluster_name": "production-us-east", "region": "us-east-1"}
    assert [(r.kind, r.name, r.optional) for r in spec.post_build.substitute_from] == [("ConfigMap", "cluster-vars", False)]
    assert [(c.kind, c.name) for c in spec.health_checks] == [("Deployment", "cert-manager"), ("Deployment", "ingress-nginx")]
    assert (spec.service_account_name, str(spec.retry_interval)) == ("flux-admin", "2m")
    assert (spec.decryption.provider, spec.decryption.secret_ref.name) == ("sops", "sops-gpg")
    assert [(d.name, d.namespace) for d in one("kustomization-cross-namespace").spec.depends_on] == [
        ("database", "infrastructure")
    ]
    apps = one("kustomization-apps").spec
    assert (apps.target_namespace, apps.wait, str(apps.timeout)) == ("production", True, "2m")
    assert one("kustomization-other-teams-source").spec.source_ref.namespace == "team-b"
