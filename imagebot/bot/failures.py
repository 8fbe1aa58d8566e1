"""What Git refuses, as the failure of a pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reconcile.errors import Failed, ReasonedError, ReconcileError
from reconcile.git.errors import PushFailed, SigningFailed


@contextmanager
def failures() -> Iterator[None]:
    """Errors of Git with the reason and the words of Flux image-automation-controller."""
    try:
        yield
    except ReasonedError:
        raise
    except (PushFailed, SigningFailed) as error:
        raise Failed("GitOperationFailed", f"failed to update source: {error}") from error
    except ReconcileError as error:
        raise Failed("GitOperationFailed", f"failed to checkout source: {error}") from error
