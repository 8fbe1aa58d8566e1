"""What the machine needs of a kind of workload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from canary.site import CanaryResource, Site


@dataclass(frozen=True, slots=True)
class Target:
    """The target as it is now.

    Attributes:
        label: Its selector label (L); empty for targets without pods of their own.
        value: The label's value (V).
        ports: Discovered container ports by name, sorted by name; empty without `portDiscovery`.
        revision: Canonical hash of what a new revision changes; equal in meaning is equal in text.
        generation: `metadata.generation` of the target.
        images: `container=image` of the pod template, for people.
    """

    label: str
    value: str
    revision: str
    ports: Mapping[str, int] = field(default_factory=dict)
    generation: int = 0
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a workload can take traffic; when not, why, in Flagger's words, and whether waiting may help.

    Attributes:
        asleep: It is asked to have no pods at all, so it will not become ready until it is given some.
    """

    ready: bool
    text: str = ""
    retriable: bool = True
    asleep: bool = False


READY = Readiness(True)


@dataclass(frozen=True, slots=True)
class Demand:
    """Pods of primary and canary that are ready, and how many the traffic needs: what the capacity rule looks at."""

    primary: int
    canary: int
    wanted: int


class Workload(Protocol):
    """One kind of target. Every method raises Problem with Flagger's text; reads come from memory; writes only what differs."""

    async def target(self, canary: CanaryResource) -> Target:
        """Read the target."""
        ...

    async def configs(self, site: Site) -> Mapping[str, str] | None:
        """Checksums of the tracked ConfigMaps and Secrets by `configmap/NAME` or `secret/NAME`; None when nothing is tracked
        by principle (other kinds of target, tracking switched off)."""
        ...

    async def initialize(self, site: Site) -> None:
        """Create the primary, and the copies of what it refers to, if it does not exist."""
        ...

    async def primary_ready(self, site: Site) -> Readiness:
        """Whether the primary can take traffic. The text has its prefix."""
        ...

    async def canary_ready(self, site: Site) -> Readiness:
        """Whether the target can take traffic. The text has its prefix."""
        ...

    async def same_as_primary(self, site: Site) -> bool:
        """Whether the primary runs exactly what promoting the present target would make it run."""
        ...

    async def promote(self, site: Site) -> None:
        """Copy the target, as it is now, to the primary."""
        ...

    async def scale_to_zero(self, site: Site) -> None:
        """Take the target's pods away."""
        ...

    async def scale_from_zero(self, site: Site) -> None:
        """Give the target pods."""
        ...

    async def give_back(self, site: Site) -> None:
        """The Canary is being deleted with `revertOnDeletion`: the target gets the primary's size."""
        ...


class Scaler(Protocol):
    """The autoscaler of a target. Every method raises Problem with Flagger's text."""

    async def initialize(self, site: Site) -> None:
        """Create the primary's autoscaler if it does not exist."""
        ...

    async def promote(self, site: Site) -> None:
        """Bring the primary's autoscaler to the target's."""
        ...

    async def pause(self, site: Site) -> None:
        """Keep the target's autoscaler from scaling the target up."""
        ...

    async def resume(self, site: Site) -> None:
        """Let it scale again."""
        ...
