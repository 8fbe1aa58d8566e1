"""What every object has: key, metadata, references, conditions. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

REQUESTED_AT = "reconcile.fluxcd.io/requestedAt"
"""Annotation whose change of value asks for a pass (opaque text)."""
EVENT_ANNOTATIONS = "event.toolkit.fluxcd.io/"
"""Prefix of annotations that are forwarded as event metadata."""
FINALIZER = "finalizers.fluxcd.io"


@dataclass(frozen=True, order=True, slots=True)
class Key:
    """Namespace and name of one object; prints as `namespace/name`."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ApiModel(BaseModel):
    """Base of all API types: camelCase outside, strict types, unknown fields ignored here and reported by `fields.unknown`."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", strict=True, frozen=True, use_attribute_docstrings=True
    )


class LocalReference(ApiModel):
    """Names an object of a known kind in the same namespace."""

    name: str
    """Name of the referent."""


class ObjectMeta(ApiModel):
    """The part of Kubernetes object metadata that this product uses."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 1
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return Key(self.namespace, self.name)

    @property
    def requested_at(self) -> str:
        """Value of the annotation that asks for a pass, or an empty text."""
        return self.annotations.get(REQUESTED_AT, "")


ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(ApiModel):
    """One entry of `status.conditions` (metav1.Condition)."""

    type: Annotated[
        str,
        Field(
            max_length=316,
            pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
        ),
    ]
    """Type of condition in CamelCase or in foo.example.com/CamelCase."""
    status: ConditionStatus
    """Status of the condition, one of True, False, Unknown."""
    observed_generation: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})] | None = None
    """The generation that the condition was set upon."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """Last time the status, reason or message changed."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """Machine-readable reason in CamelCase."""
    message: Annotated[str, Field(max_length=32768)]
    """Human-readable details."""


class CommonStatus(ApiModel):
    """The status fields that every kind has."""

    conditions: list[Condition] | None = None
    """Conditions of the object: Stalled, Reconciling, Ready, then others."""
    last_handled_reconcile_at: str | None = None
    """The last value of the annotation reconcile.fluxcd.io/requestedAt that was handled."""
    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """The last generation that was handled to the end."""


class CommonSpec(ApiModel):
    """The spec fields that every kind has."""

    suspend: bool | None = None
    """Stop reconciling the object; a run in flight is not stopped."""


class LabelRequirement(ApiModel):
    """One `matchExpressions` entry of a label selector."""

    key: str
    """Label key that the selector applies to."""
    operator: str
    """In, NotIn, Exists or DoesNotExist."""
    values: list[str] | None = None
    """Values for In and NotIn."""


class LabelSelector(ApiModel):
    """A Kubernetes label selector: all parts must match."""

    match_labels: dict[str, str] | None = None
    """Labels that must be present with these values."""
    match_expressions: list[LabelRequirement] | None = None
    """Further requirements."""


def drop_nulls(value: Any) -> Any:
    """`value` without mapping entries that are null, at any depth, as an API server treats nulls of fields that may not be."""
    if isinstance(value, dict):
        return {k: drop_nulls(v) for k, v in value.items() if v is not None}
    return [drop_nulls(v) for v in value] if isinstance(value, list) else value
