"""HelmRepository: an index of charts. Data only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from reconcile.api.crd import ServedKind
from reconcile.api.duration import Duration, ShortDuration
from reconcile.api.meta import CommonSpec, LocalReference
from reconcile.api.source_common import AGE, CATEGORIES, CONTROLLER, GROUP, MESSAGE, READY, URL, AccessFrom, LinkedStatus


class HelmRepositorySpec(CommonSpec):
    """Spec of a HelmRepository."""

    url: Annotated[str, Field(pattern=r"^(http|https|oci)://.*$")]
    """Address of the repository: http or https, and oci for type oci."""
    secret_ref: LocalReference | None = None
    """Secret with the credentials."""
    cert_secret_ref: LocalReference | None = None
    """Secret with a certificate authority, or a client certificate."""
    pass_credentials: bool | None = None
    """Send the credentials also to other hosts that the index names."""
    interval: Duration | None = None
    """How often the index is looked at; each minute when unset."""
    insecure: bool | None = None
    """Plain HTTP for a registry; nothing for an index."""
    timeout: ShortDuration | None = None
    """Limit of one request; 60s when unset."""
    access_from: AccessFrom | None = None
    """Accepted without effect."""
    type: Literal["default", "oci"] | None = None
    """default is an index over HTTP, oci a registry; default when unset."""
    provider: Literal["generic", "aws", "azure", "gcp"] = "generic"
    """How to log in to a registry."""


class HelmRepositoryStatus(LinkedStatus):
    """Status of a HelmRepository; empty for type oci."""


HELM_REPOSITORY = ServedKind(
    group=GROUP,
    kind="HelmRepository",
    plural="helmrepositories",
    versions=("v1", "v1beta2", "v1beta1"),
    spec=HelmRepositorySpec,
    status=HelmRepositoryStatus,
    short_names=("helmrepo",),
    categories=CATEGORIES,
    columns=(URL, AGE, READY, MESSAGE),
    older_columns=(("v1beta1", (URL, READY, MESSAGE, AGE)),),
    description="A HelmRepository is a place that charts come from.",
    controller=CONTROLLER,
)
