"""What registry clients remember together: tokens, challenges, and facts about hosts. All bounded, all in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from reconcile.registry.auth import Challenges, TokenCache

SCHEME_LIFE = 3600.0
"""Seconds after which the choice between https and http is made anew."""


@dataclass
class Hosts:
    """What was learnt about each registry host: its scheme where http is permitted, and the page size it takes.

    Bounded; the least recently learnt goes first.
    """

    max_entries: int = 1_000
    _schemes: OrderedDict[str, tuple[str, float]] = field(default_factory=OrderedDict, repr=False)
    _sizes: OrderedDict[str, int] = field(default_factory=OrderedDict, repr=False)

    def scheme(self, registry: str, now: float) -> str | None:
        """The scheme found lately, or None."""
        scheme, until = self._schemes.get(registry, ("", 0.0))
        return scheme if scheme and now < until else None

    def learn_scheme(self, registry: str, scheme: str | None, now: float) -> None:
        """Remember `scheme` for a while, or forget it (None)."""
        self._schemes.pop(registry, None)
        if scheme is not None:
            self._schemes[registry] = scheme, now + SCHEME_LIFE
        while len(self._schemes) > self.max_entries:
            self._schemes.popitem(last=False)

    def page_size(self, registry: str, default: int) -> int:
        """The page size that the registry takes."""
        return self._sizes.get(registry, default)

    def learn_page_size(self, registry: str, size: int) -> None:
        """Remember that the registry refused more than `size`."""
        self._sizes[registry] = size
        self._sizes.move_to_end(registry)
        while len(self._sizes) > self.max_entries:
            self._sizes.popitem(last=False)


@dataclass
class Memory:
    """What clients share: tokens, challenges and facts about hosts."""

    tokens: TokenCache = field(default_factory=TokenCache)
    challenges: Challenges = field(default_factory=Challenges)
    hosts: Hosts = field(default_factory=Hosts)
