"""The exception tree of the core.

::

    ReconcileError            something a person can read; `str(error)` is the message
    ├── Stalled               no retry will help until somebody changes an object; has a reason
    ├── Failed                try again with back-off; has a reason
    ├── Waiting               not yet: come back after a fixed delay; has a reason
    ├── Conflict              a write met a newer version of the object
    ├── NotFound              the object, file or reference is not there
    ├── Invalid               an object, file or setting does not fit its schema
    ├── LimitExceeded         an answer, file or queue was larger than its limit
    ├── TimedOut              a deadline passed
    └── MissingProgram        an external program is not installed

`reason` is a CamelCase word and part of the API (`image-automation.md` §10); the message is for people. Packages that wrap a
library (`net`, `registry`, `git`, `local`, `kube`) derive their own errors from these and raise nothing of the library's.
"""

from __future__ import annotations

from typing import Literal

Told = Literal["Warning", "Normal", "Trace", ""]
"""How people hear of an outcome: type of an event, or nothing."""


class ReconcileError(Exception):
    """Base of every error that carries a message for a person."""


class ReasonedError(ReconcileError):
    """A `ReconcileError` that also carries the machine-readable reason for conditions and events.

    Args:
        reason: CamelCase word.
        message: For people; the message of the condition Ready.
        event: Text of the event, where it is another one than the message.
        told: What kind of event it is.
    """

    def __init__(self, reason: str, message: str, *, event: str | None = None, told: Told = "Warning") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.event = event
        self.told: Told = told


class Stalled(ReasonedError):
    """Nothing helps until somebody edits the object or what it refers to; the object is not retried.

    With `observed` the generation counts as handled.
    """

    def __init__(
        self, reason: str, message: str, *, event: str | None = None, told: Told = "Warning", observed: bool = True
    ) -> None:
        super().__init__(reason, message, event=event, told=told)
        self.observed = observed


class Failed(ReasonedError):
    """The step failed for a classified reason and is retried: after `after` seconds, or with exponential back-off."""

    def __init__(
        self, reason: str, message: str, *, event: str | None = None, told: Told = "Warning", after: float | None = None
    ) -> None:
        super().__init__(reason, message, event=event, told=told)
        self.after = after


class Waiting(ReasonedError):
    """Something is not there yet; the object is looked at again after `after` seconds, without back-off."""

    def __init__(self, reason: str, message: str, after: float, *, event: str | None = None, told: Told = "Warning") -> None:
        super().__init__(reason, message, event=event, told=told)
        self.after = after


class Conflict(ReconcileError):
    """A write was based on an outdated version of the object; read it again."""


class NotFound(ReconcileError):
    """The named object, file or reference does not exist."""


class Invalid(ReconcileError):
    """An object, file or setting does not fit its schema; the message says which one and where."""


class LimitExceeded(ReconcileError):
    """Something was larger than its limit and was refused, never cut."""


class TimedOut(ReconcileError):
    """A deadline passed."""


class MissingProgram(ReconcileError):
    """An external program is not on PATH; the message says what to install."""
