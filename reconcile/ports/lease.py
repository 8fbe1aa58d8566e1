"""Lease: only one of us acts."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Lease(Protocol):
    """Held inside `async with lease.hold()`; the block is cancelled when the lease is lost."""

    def hold(self) -> AbstractAsyncContextManager[None]:
        """Wait until the lease is ours, keep it while inside, give it back at the end."""
        ...
