"""What can go wrong with a template, in Go's own words."""

from __future__ import annotations

from reconcile.errors import ReconcileError


class TemplateError(ReconcileError):
    """A template cannot be used; `str()` is the text that Go's `text/template` gives."""


class ParseError(TemplateError):
    """The text is not a template: `template: <name>:<line>: <what>`."""


class ExecError(TemplateError):
    """Executing failed: `template: <name>:<line>:<column>: executing "<template>" at <<node>>: <what>`."""


class CallError(Exception):
    """A function refused its arguments. The executor turns it into an `ExecError` that says where."""
