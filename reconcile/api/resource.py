"""One object of one of our kinds, typed: metadata, spec, status."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from reconcile.api.meta import CommonSpec, CommonStatus, Key, ObjectMeta

SpecT = TypeVar("SpecT", bound=CommonSpec)
StatusT = TypeVar("StatusT", bound=CommonStatus)


@dataclass(frozen=True, slots=True)
class Resource(Generic[SpecT, StatusT]):
    """An object as it was read from a Store. Frozen: a new status makes a new Resource."""

    api_version: str
    kind: str
    meta: ObjectMeta
    spec: SpecT
    status: StatusT

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.meta.key

    def with_status(self, status: StatusT) -> Resource[SpecT, StatusT]:
        """The same object with another status."""
        return replace(self, status=status)

    def to_dict(self) -> dict[str, Any]:
        """The object as a manifest: plain data with camelCase keys, unset fields left out."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "metadata": {"name": self.meta.name, "namespace": self.meta.namespace, "generation": self.meta.generation}
            | self.meta.model_dump(by_alias=True, exclude_defaults=True),
            "spec": dump(self.spec),
            "status": dump(self.status),
        }


AnyResource = Resource[Any, Any]


def dump(model: CommonSpec | CommonStatus) -> dict[str, Any]:
    """Plain data of a spec or status: camelCase keys, unset fields left out."""
    return model.model_dump(by_alias=True, exclude_none=True, exclude_unset=True, mode="json")
