"""What keeps a tick from going on."""

from __future__ import annotations

from reconcile.errors import ReconcileError


class Problem(ReconcileError):
    """A step of a tick failed; the text is what people read in the event of the Canary, in Flagger's words where it has some.

    Attributes:
        retriable: False when waiting will not help: a workload has exceeded its deadline, so the run is to be rolled back.
    """

    def __init__(self, message: str, *, retriable: bool = True) -> None:
        super().__init__(message)
        self.retriable = retriable
