"""What the kinds of `source.toolkit.fluxcd.io` share: the artifact, who may use a source, the columns of tables. Data only."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from reconcile.api.meta import ApiModel, CommonStatus
from reconcile.api.scheme import PrinterColumn

GROUP = "source.toolkit.fluxcd.io"
CONTROLLER = "source-controller"
CATEGORIES = ("all", "fluxcd", "fluxcd-sources")


class Artifact(ApiModel):
    """A packed source that other controllers fetch."""

    path: str
    """Path of the file below the root of the artifact server."""
    url: str
    """Address to fetch it from."""
    revision: str
    """Where it was made from, such as main@sha1:…."""
    digest: Annotated[str, Field(pattern=r"^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$")]
    """Digest of the file, such as sha256:…."""
    last_update_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it was made."""
    size: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """Bytes of the file."""
    metadata: dict[str, str] | None = None
    """Annotations of where it came from, such as those of an OCI image."""


class NamespaceSelector(ApiModel):
    """Namespaces that have all of these labels."""

    match_labels: dict[str, str] | None = None
    """Labels that a namespace must have with these values."""


class AccessFrom(ApiModel):
    """Namespaces whose objects may use a source; taken and never acted on, as upstream does."""

    namespace_selectors: list[NamespaceSelector]
    """The namespaces: those that any entry selects."""


class SourceStatus(CommonStatus):
    """The status fields of every kind that makes artifacts."""

    artifact: Artifact | None = None
    """The last artifact made."""


class LinkedStatus(SourceStatus):
    """The status of a kind that also names an address which always has its newest artifact."""

    url: str | None = None
    """Address that always has the newest artifact."""


class Unobserved(CommonStatus):
    """A status that others write: nobody here handles a generation or a request."""

    last_handled_reconcile_at: ClassVar[None] = None  # type: ignore[misc]
    observed_generation: ClassVar[None] = None  # type: ignore[misc]


READY = PrinterColumn("Ready", '.status.conditions[?(@.type=="Ready")].status')
MESSAGE = PrinterColumn("Status", '.status.conditions[?(@.type=="Ready")].message')
AGE = PrinterColumn("Age", ".metadata.creationTimestamp", "date")
URL = PrinterColumn("URL", ".spec.url")
