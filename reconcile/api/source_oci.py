"""OCIRepository: files of an OCI artifact. Data only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from reconcile.api.crd import ServedKind
from reconcile.api.duration import Duration, GoDuration, ShortDuration
from reconcile.api.meta import ApiModel, CommonSpec, LocalReference
from reconcile.api.source_common import AGE, CATEGORIES, CONTROLLER, GROUP, MESSAGE, READY, URL, LinkedStatus


class OCIReference(ApiModel):
    """Which manifest of a repository; `digest` wins over `semver` over `tag`."""

    digest: str | None = None
    """Digest of the manifest, such as sha256:…."""
    semver: str | None = None
    """SemVer range over the tags."""
    semver_filter: str | None = None
    """Regular expression that a tag must match before the range is asked."""
    tag: str | None = None
    """Tag; latest when nothing else is given."""


class LayerSelector(ApiModel):
    """Which layer of the image becomes the artifact, and how."""

    media_type: str | None = None
    """Media type of the layer; the first that has it is taken, and the first of all when unset."""
    operation: Literal["extract", "copy"] | None = None
    """extract packs the files of the layer anew, copy keeps the layer as it is; extract when unset."""


class OIDCIdentity(ApiModel):
    """Who may have signed without a key of their own."""

    issuer: str
    """Regular expression for the issuer of the certificate."""
    subject: str
    """Regular expression for the subject of the certificate."""


class OCIVerification(ApiModel):
    """How signatures of an image are checked."""

    provider: Literal["cosign", "notation"] = "cosign"
    """What the image was signed with."""
    secret_ref: LocalReference | None = None
    """Secret with the public keys of trusted authors; signed without keys when unset."""
    match_oidc_identity: Annotated[list[OIDCIdentity] | None, Field(alias="matchOIDCIdentity")] = None
    """Who may have signed without a key; one that matches is enough."""
    trusted_root_secret_ref: LocalReference | None = None
    """Secret with a Sigstore trusted root, as trusted_root.json, that takes the place of the public one."""


class OCIRepositorySpec(CommonSpec):
    """Spec of an OCIRepository."""

    url: Annotated[str, Field(pattern=r"^oci://.*$")]
    """Address of the repository: oci://host/path, without tag and digest."""
    ref: OCIReference | None = None
    """Which image; the tag latest when unset."""
    layer_selector: LayerSelector | None = None
    """Which layer becomes the artifact; the first, unpacked, when unset."""
    provider: Literal["generic", "aws", "azure", "gcp"] = "generic"
    """How to log in to the registry."""
    secret_ref: LocalReference | None = None
    """Secret with the login (kubernetes.io/dockerconfigjson)."""
    verify: OCIVerification | None = None
    """Check of signatures."""
    service_account_name: str | None = None
    """ServiceAccount whose pull secrets are used; with a cloud provider also its identity there."""
    cert_secret_ref: LocalReference | None = None
    """Secret with a certificate authority, or a client certificate."""
    proxy_secret_ref: LocalReference | None = None
    """Secret with the proxy."""
    interval: Duration
    """How often the repository is looked at."""
    timeout: ShortDuration = GoDuration("60s")
    """Limit of what is asked of the registry."""
    ignore: str | None = None
    """Patterns to leave out, in the syntax of .gitignore; not for a layer that is copied."""
    insecure: bool | None = None
    """Plain HTTP."""


class OCIRepositoryStatus(LinkedStatus):
    """Status of an OCIRepository."""

    observed_ignore: str | None = None
    """Patterns that were left out of the artifact."""
    observed_layer_selector: LayerSelector | None = None
    """Which layer the artifact was made from."""


OCI_REPOSITORY = ServedKind(
    group=GROUP,
    kind="OCIRepository",
    plural="ocirepositories",
    versions=("v1", "v1beta2"),
    spec=OCIRepositorySpec,
    status=OCIRepositoryStatus,
    short_names=("ocirepo",),
    categories=CATEGORIES,
    columns=(URL, READY, MESSAGE, AGE),
    description="An OCIRepository is a repository of a registry and the artifact in it that is meant.",
    controller=CONTROLLER,
)
