"""Waits until a HelmRelease or Kustomization of Flux is ready, so that a Canary goes on only with all that was released."""

from __future__ import annotations

from typing import Literal, Protocol

Kind = Literal["HelmRelease", "Kustomization"]
TYPES: dict[str, Kind] = {"helmrelease": "HelmRelease", "kustomization": "Kustomization"}
"""Types of tasks and the kinds that they wait for."""

NOT_READY = 424
"""Status of the answer for what is not ready: a hook that fails with 4xx, unlike 5xx, shows the text in the Canary's event."""


class Releases(Protocol):
    """The objects of Flux in a cluster."""

    async def ready(self, kind: Kind, namespace: str, name: str, seconds: float) -> str:
        """Wait until an object is ready at its present generation; gives its own words.

        Raises:
            Refused: It is not there (404), has failed or is not ready after so many seconds (424), or cannot be read.
        """
        ...
