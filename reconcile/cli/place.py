"""Where a command looks, and what it finds there: the words that folders and clusters have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reconcile.api.scheme import KindInfo
from reconcile.errors import Invalid

Object = dict[str, Any]


class UnknownKind(Invalid):
    """A cluster does not have the definition of a kind."""


@dataclass(frozen=True, slots=True)
class Place:
    """What the options say about where to look.

    Attributes:
        directory: folder of manifests; None: a cluster.
        state: folder with the state, None: the usual one for the directory.
        kubeconfig: file; empty: search.
        context: context of the kubeconfig; empty: its current one.
        namespace: the one given, None: that of the context, or all of a folder.
        everywhere: all namespaces.
    """

    directory: Path | None
    state: Path | None
    kubeconfig: str
    context: str
    namespace: str | None
    everywhere: bool


class Objects(Protocol):
    """The objects of a place, as plain data with their status."""

    namespaced: bool
    """Whether objects of one namespace only are shown, so that a table need not name it."""
    where: str
    """The place in words that follow `no objects` and `not found`."""

    async def all_of(self, info: KindInfo, selector: str = "") -> list[Object]:
        """All objects of a kind that match a label selector, ordered by namespace and name."""
        ...

    async def find(self, info: KindInfo, name: str) -> list[Object]:
        """The objects of this name: one, or one for each namespace; raises NotFound."""
        ...

    async def events(self) -> list[Object]:
        """The core/v1 Events of our kinds, oldest first."""
        ...
