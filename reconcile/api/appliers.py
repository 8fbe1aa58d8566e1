"""Parts of specs and statuses that every kind which applies something has: patches, health rules, other clusters, inventories."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, model_validator

from reconcile.api.crd import validations
from reconcile.api.meta import ApiModel, LocalReference

ONE_OF_TWO = "exactly one of spec.kubeConfig.configMapRef or spec.kubeConfig.secretRef must be specified"


class Selector(ApiModel):
    """Objects that fit all of these; the names are anchored regular expressions."""

    group: str | None = None
    """API group."""
    version: str | None = None
    """API version without the group."""
    kind: str | None = None
    """Kind."""
    namespace: str | None = None
    """Namespace."""
    name: str | None = None
    """Name."""
    annotation_selector: str | None = None
    """Annotations, in the syntax of label selectors."""
    label_selector: str | None = None
    """Labels, in the syntax of label selectors."""


class Patch(ApiModel):
    """One change of built objects."""

    patch: str
    """The change, as YAML or JSON: a strategic merge patch, or a list of JSON 6902 operations."""
    target: Selector | None = None
    """Which objects; for a strategic merge patch those that it names when unset."""


class Image(ApiModel):
    """What takes the place of an image."""

    name: str
    """Image without tag."""
    new_name: str | None = None
    """Name in its place."""
    new_tag: str | None = None
    """Tag in place of its own."""
    digest: str | None = None
    """Digest in place of its tag; wins over newTag."""


class IgnoreRule(ApiModel):
    """Fields of objects that are left as they are in the cluster."""

    paths: list[str]
    """JSON pointers (RFC 6901) of the fields; an empty one is the whole object."""
    target: Selector | None = None
    """Which objects; all when unset."""


class CustomHealthCheck(ApiModel):
    """What health means for a kind, as CEL expressions over an object's fields."""

    api_version: str
    """Group and version of the kind."""
    kind: str | None = None
    """The kind; every one of the group when unset."""
    current: str
    """Holds when an object is healthy."""
    in_progress: str | None = None
    """Holds while an object is on the way; asked first."""
    failed: str | None = None
    """Holds when an object has failed; asked second."""


class SecretKeyReference(ApiModel):
    """One key of a Secret in the same namespace."""

    name: str
    """Name of the Secret."""
    key: str | None = None
    """Key in it; value, or else value.yaml, when unset."""


class KubeConfigReference(ApiModel):
    """How to reach another cluster."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            ("has(self.configMapRef) || has(self.secretRef)", ONE_OF_TWO),
            ("!has(self.configMapRef) || !has(self.secretRef)", ONE_OF_TWO),
        )
    )

    config_map_ref: LocalReference | None = None
    """ConfigMap that says how to log in with the identity of a cloud."""
    secret_ref: SecretKeyReference | None = None
    """Secret with a kubeconfig."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.config_map_ref is None) == (self.secret_ref is None):
            raise ValueError(ONE_OF_TWO)
        return self


class InventoryEntry(ApiModel):
    """One object that was applied."""

    id: str
    """`namespace_name_group_kind`."""
    v: str
    """Version of its API, without the group."""


class Inventory(ApiModel):
    """The objects that were applied."""

    entries: list[InventoryEntry]
    """One for each object."""
