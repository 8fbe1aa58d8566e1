"""Kinds of `source.toolkit.fluxcd.io`: where files come from."""

from __future__ import annotations

from reconcile.api.resource import Resource
from reconcile.api.source_bucket import BUCKET, BucketSpec, BucketStatus, BucketSTS
from reconcile.api.source_common import GROUP, AccessFrom, Artifact, LinkedStatus, SourceStatus
from reconcile.api.source_external import EXTERNAL_ARTIFACT, ExternalArtifactSpec, ExternalArtifactStatus, ProducerReference
from reconcile.api.source_git import (
    ACCOUNT_WITHOUT_CLOUD,
    GIT_REPOSITORY,
    GitInclude,
    GitReference,
    GitRepositorySpec,
    GitRepositoryStatus,
    GitVerification,
)
from reconcile.api.source_helm import HELM_REPOSITORY, HelmRepositorySpec, HelmRepositoryStatus
from reconcile.api.source_oci import (
    OCI_REPOSITORY,
    LayerSelector,
    OCIReference,
    OCIRepositorySpec,
    OCIRepositoryStatus,
    OCIVerification,
    OIDCIdentity,
)

__all__ = [
    "ACCOUNT_WITHOUT_CLOUD",
    "BUCKET",
    "EXTERNAL_ARTIFACT",
    "GIT_REPOSITORY",
    "GROUP",
    "HELM_REPOSITORY",
    "OCI_REPOSITORY",
    "SOURCES",
    "AccessFrom",
    "Artifact",
    "Bucket",
    "BucketSTS",
    "BucketSpec",
    "BucketStatus",
    "ExternalArtifact",
    "ExternalArtifactSpec",
    "ExternalArtifactStatus",
    "GitInclude",
    "GitReference",
    "GitRepository",
    "GitRepositorySpec",
    "GitRepositoryStatus",
    "GitVerification",
    "HelmRepository",
    "HelmRepositorySpec",
    "HelmRepositoryStatus",
    "LayerSelector",
    "LinkedStatus",
    "OCIReference",
    "OCIRepository",
    "OCIRepositorySpec",
    "OCIRepositoryStatus",
    "OCIVerification",
    "OIDCIdentity",
    "ProducerReference",
    "SourceStatus",
]

GitRepository = Resource[GitRepositorySpec, GitRepositoryStatus]
OCIRepository = Resource[OCIRepositorySpec, OCIRepositoryStatus]
HelmRepository = Resource[HelmRepositorySpec, HelmRepositoryStatus]
Bucket = Resource[BucketSpec, BucketStatus]
ExternalArtifact = Resource[ExternalArtifactSpec, ExternalArtifactStatus]

SOURCES = (GIT_REPOSITORY, OCI_REPOSITORY, HELM_REPOSITORY, BUCKET, EXTERNAL_ARTIFACT)
"""All kinds of this group that are served."""
