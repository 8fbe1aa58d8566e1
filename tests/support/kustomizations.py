"""Kustomizations and sources as objects, for tests of what reads them."""

from __future__ import annotations

from typing import Any

from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import Scheme
from reconcile.api.source import SOURCES

SCHEME = Scheme()
for _info in (*SOURCES, KUSTOMIZATION):
    SCHEME.register(_info)

DIGEST = "sha256:" + "0" * 64


def kustomization(
    name: str, *, namespace: str = "apps", source: str = "fleet", generation: int = 1, status: Any = None, **spec: Any
) -> AnyResource:
    """A Kustomization of a GitRepository; `spec` in camelCase."""
    body = {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": {"name": name, "namespace": namespace, "generation": generation, "uid": f"uid-of-{name}"},
        "spec": {"interval": "10m", "prune": True, "sourceRef": {"kind": "GitRepository", "name": source}, **spec},
        "status": status or {},
    }
    return SCHEME.decode(KUSTOMIZATION, body)


def ready(revision: str = "main@sha1:1", generation: int = 1, **status: Any) -> dict[str, Any]:
    """The status of one that has applied a revision."""
    return {
        "observedGeneration": generation,
        "lastAppliedRevision": revision,
        "lastAttemptedRevision": revision,
        "conditions": [condition("Ready", "True", "ReconciliationSucceeded", f"Applied revision: {revision}")],
        **status,
    }


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    """One condition."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }


def git_repository(name: str = "fleet", *, namespace: str = "apps", revision: str = "", digest: str = DIGEST) -> AnyResource:
    """A GitRepository, with an artifact if a revision is given."""
    artifact = {
        "path": f"gitrepository/{namespace}/{name}/1.tar.gz",
        "url": f"http://artifacts.test/gitrepository/{namespace}/{name}/1.tar.gz",
        "revision": revision,
        "digest": digest,
        "lastUpdateTime": "2026-01-01T00:00:00Z",
    }
    body = {
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "GitRepository",
        "metadata": {"name": name, "namespace": namespace, "generation": 1, "uid": f"uid-of-{name}"},
        "spec": {"interval": "1m", "url": "https://git.test/fleet"},
        "status": {"artifact": artifact} if revision else {},
    }
    return SCHEME.decode(next(info for info in SOURCES if info.kind == "GitRepository"), body)
