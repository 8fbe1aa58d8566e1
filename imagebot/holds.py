"""ImageHold, of `imagebot.dev`: what of an image may not be chosen, or what must stay chosen. Data only, without a status."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from imagebot.api import REFLECTOR
from reconcile.api.crd import ServedKind, validations
from reconcile.api.meta import ApiModel, CommonSpec, CommonStatus
from reconcile.api.resource import Resource
from reconcile.api.scheme import PrinterColumn
from reconcile.ports.clock import parse_timestamp

GROUP = "imagebot.dev"
VERSION = "v1alpha1"

FALLBACK_OF_PIN = "spec.fallback goes with mode Reject"
_FALLS_BACK = "self.mode == 'Reject' || !has(self.fallback)"
WITHOUT_IMAGE = "spec.imageRef needs name or policy"
NOTHING_REJECTED = "spec.mode Reject needs spec.tags or spec.digests"
_REJECTS = "self.mode != 'Reject' || (has(self.tags) && size(self.tags) > 0) || (has(self.digests) && size(self.digests) > 0)"
MAX_NAMED = 100

Tag = Annotated[str, Field(min_length=1, max_length=128)]
Digest = Annotated[str, Field(max_length=256, pattern=r"^[a-z0-9]+([+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}$")]


class HeldImage(ApiModel):
    """Whom a hold concerns: policies of its own namespace, those of an image or the one of a name."""

    model_config = ConfigDict(json_schema_extra=validations(("has(self.name) || has(self.policy)", WITHOUT_IMAGE)))

    name: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Name of the image, without tag and digest: all policies that choose from it."""
    policy: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Name of an ImagePolicy; with `name` as well, both must fit."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.name is None and self.policy is None:
            raise ValueError(WITHOUT_IMAGE)
        return self


class ImageHoldSpec(CommonSpec):
    """Spec of an ImageHold."""

    model_config = ConfigDict(json_schema_extra=validations((_REJECTS, NOTHING_REJECTED), (_FALLS_BACK, FALLBACK_OF_PIN)))
    suspend: ClassVar[None] = None  # type: ignore[misc]

    image_ref: HeldImage
    """Which policies of the namespace are concerned."""
    mode: Literal["Reject", "Pin"]
    """Reject: what is named is never chosen. Pin: nothing but what is named is chosen, or what is chosen stays if nothing is."""
    tags: Annotated[list[Tag], Field(max_length=MAX_NAMED)] | None = None
    """Tags that are rejected or pinned."""
    digests: Annotated[list[Digest], Field(max_length=MAX_NAMED)] | None = None
    """Digests that are rejected or pinned, under whatever tag."""
    fallback: Annotated[str, Field(max_length=128)] | None = None
    """With Reject: the tag that was gone back to; nothing else is chosen until a tag ranks before all that is rejected."""
    reason: Annotated[str, Field(max_length=1024)] | None = None
    """Why, for people: shown wherever the hold has an effect."""
    expires_at: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When the hold ends; never when unset."""

    @field_validator("expires_at")
    @classmethod
    def _is_a_moment(cls, value: str | None) -> str | None:
        if value is not None:
            parse_timestamp(value)
        return value

    @model_validator(mode="after")
    def _rejects_something(self) -> Self:
        if self.mode == "Reject" and not self.tags and not self.digests:
            raise ValueError(NOTHING_REJECTED)
        if self.mode == "Pin" and self.fallback is not None:
            raise ValueError(FALLBACK_OF_PIN)
        return self


class ImageHoldStatus(CommonStatus):
    """Status of an ImageHold: it has no fields."""

    conditions: ClassVar[None] = None  # type: ignore[misc]
    last_handled_reconcile_at: ClassVar[None] = None  # type: ignore[misc]
    observed_generation: ClassVar[None] = None  # type: ignore[misc]


ImageHold = Resource[ImageHoldSpec, ImageHoldStatus]

IMAGE_HOLD = ServedKind(
    group=GROUP,
    kind="ImageHold",
    plural="imageholds",
    versions=(VERSION,),
    spec=ImageHoldSpec,
    status=ImageHoldStatus,
    short_names=("imghold",),
    categories=("all",),
    columns=(
        PrinterColumn("Mode", ".spec.mode"),
        PrinterColumn("Image", ".spec.imageRef.name"),
        PrinterColumn("Policy", ".spec.imageRef.policy"),
        PrinterColumn("Tags", ".spec.tags"),
        PrinterColumn("Reason", ".spec.reason"),
        PrinterColumn("Expires", ".spec.expiresAt"),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
    ),
    description="An ImageHold keeps ImagePolicies from choosing an image, or at the one that they have chosen.",
    controller=REFLECTOR,
)
