"""ExternalArtifact: an artifact that somebody else makes and serves. Data only; nothing here writes its status."""

from __future__ import annotations

from typing import ClassVar

from reconcile.api.crd import ServedKind
from reconcile.api.meta import ApiModel, CommonSpec
from reconcile.api.scheme import PrinterColumn
from reconcile.api.source_common import AGE, CATEGORIES, CONTROLLER, GROUP, MESSAGE, READY, SourceStatus, Unobserved


class ProducerReference(ApiModel):
    """The object that an artifact was made from."""

    api_version: str | None = None
    """Group and version of the producer."""
    kind: str
    """Kind of the producer."""
    name: str
    """Name of the producer."""
    namespace: str | None = None
    """Namespace of the producer."""


class ExternalArtifactSpec(CommonSpec):
    """Spec of an ExternalArtifact."""

    suspend: ClassVar[None] = None  # type: ignore[misc]

    source_ref: ProducerReference | None = None
    """What made the artifact; for information."""


class ExternalArtifactStatus(Unobserved, SourceStatus):
    """Status of an ExternalArtifact, written by whoever makes the artifact."""


EXTERNAL_ARTIFACT = ServedKind(
    group=GROUP,
    kind="ExternalArtifact",
    plural="externalartifacts",
    versions=("v1",),
    spec=ExternalArtifactSpec,
    status=ExternalArtifactStatus,
    short_names=("ea",),
    categories=CATEGORIES,
    columns=(AGE, READY, MESSAGE, PrinterColumn("Source", ".spec.sourceRef.name")),
    description="An ExternalArtifact is an artifact that somebody else makes and serves.",
    controller=CONTROLLER,
)
