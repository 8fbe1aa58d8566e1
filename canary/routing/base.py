"""What the machine needs of a traffic provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from canary.site import Site

TOTAL = 100
"""Weights of primary and canary add up to this."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Share of the traffic in percent, and whether the canary gets a copy of it."""

    primary: int
    canary: int
    mirrored: bool = False

    @classmethod
    def at(cls, canary: int, *, mirrored: bool = False) -> Weights:
        """So much for the canary, the rest for the primary."""
        return cls(TOTAL - canary, canary, mirrored)


ALL_PRIMARY = Weights(TOTAL, 0)


@dataclass(frozen=True, slots=True)
class Affinity:
    """Session cookies as `name=value`; empty when there is none. They belong into the status beside their weights."""

    session: str = ""
    previous: str = ""
    primary: str = ""


class Router(Protocol):
    """One traffic provider. Stateless: what is live is in the cluster.

    Every method raises Problem with Flagger's text. A method writes only what differs, owns only its own fields, keeps what
    people added beside them, and treats a missing CRD as a Problem that names it.
    """

    mirrors: bool
    """Whether it can copy traffic to the canary."""
    weighted: bool
    """Whether it can split traffic at all (plain Services cannot)."""

    async def reconcile(self, site: Site) -> None:
        """Create what is missing with all traffic on the primary; put right what drifted, without moving live weights."""
        ...

    async def weights(self, site: Site) -> Weights:
        """What is live now."""
        ...

    async def set_weights(self, site: Site, weights: Weights) -> Affinity | None:
        """Make `weights` live, and read back that they are; the cookies for the status when session affinity is in force."""
        ...

    async def revert(self, site: Site) -> None:
        """The Canary is being deleted with `revertOnDeletion`: give back what was taken over."""
        ...
