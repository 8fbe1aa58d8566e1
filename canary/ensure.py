"""Brings an object of ours to what it should be, with the fewest writes: none when it is so already."""

from __future__ import annotations

from collections.abc import Callable

from canary.errors import Problem
from canary.site import MANAGER
from reconcile.api.jsondata import duplicate
from reconcile.api.mergepatch import difference
from reconcile.errors import Conflict, ReconcileError
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

TRIES = 5
"""How often a write that somebody else's write came before is prepared anew."""

Build = Callable[[Object | None], Object | None]
"""Makes the wanted object of the present one (None: there is none; may be changed); None leaves things as they are."""


async def ensure(objects: Objects, which: Reference, build: Build, *, shown: str) -> Object | None:
    """Make `which` what `build` wants it to be; the object as it is then.

    Args:
        objects: Where it lives.
        which: The object.
        build: Pure; called again after a lost race, with the newer object.
        shown: How messages name it: `service web.prod`.

    Raises:
        Problem: `<shown> get query error: …`, `<shown> create error: …`, `<shown> update error: …`, as Flagger says it.
    """
    for _ in range(TRIES):
        try:
            present = await objects.find(which)
        except ReconcileError as error:
            raise Problem(f"{shown} get query error: {error}") from error
        wanted = build(duplicate(present))
        if wanted is None:
            return present
        try:
            if present is None:
                return await objects.create(wanted, manager=MANAGER)
            patch = difference(present, wanted)
            return await objects.patch(present, patch, manager=MANAGER) if patch else present
        except Conflict as error:
            lost = error
        except ReconcileError as error:
            raise Problem(f"{shown} {'create' if present is None else 'update'} error: {error}") from error
    raise Problem(f"{shown} update error: {lost}")
