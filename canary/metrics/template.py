"""Queries as Go templates: the functions that Flagger gives them, and its error texts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from reconcile.errors import ReconcileError
from reconcile.gotemplate import CallError, ExecError, Limits, ParseError, Template
from reconcile.gotemplate.strconv import quote
from reconcile.gotemplate.values import STRING_MAP, Map

_LIMITS: Final = Limits(output=64 * 1024, work=200_000)
_NAME: Final = "tmpl"


class RenderError(ReconcileError):
    """A query template cannot be filled in; Go's text after Flagger's words."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a query template can ask for, each by a function of this name."""

    name: str
    namespace: str
    target: str
    service: str
    ingress: str
    route: str
    interval: str
    variables: Mapping[str, str] = field(default_factory=dict)


_model: ContextVar[Model] = ContextVar("query_model")


class _Variables(dict[object, object]):
    """`missingkey=error` of Go: a field of the map that is not there is an error. `index` gives an empty text, as in Go."""

    def get(self, key: object, default: object = None) -> object:  # noqa: ARG002
        if key not in self:
            raise CallError(f"map has no entry for key {quote(str(key))}")
        return self[key]


def _text(read: Callable[[Model], str]) -> Callable[[], str]:
    return lambda: read(_model.get())


def _variables() -> object:
    return Map(STRING_MAP, _Variables(_model.get().variables))


_FUNCTIONS: Final[Mapping[str, Callable[..., object]]] = {
    "name": _text(lambda model: model.name),
    "namespace": _text(lambda model: model.namespace),
    "target": _text(lambda model: model.target),
    "service": _text(lambda model: model.service),
    "ingress": _text(lambda model: model.ingress),
    "route": _text(lambda model: model.route),
    "interval": _text(lambda model: model.interval),
    "variables": _variables,
}


@lru_cache(maxsize=512)
def _parse(text: str) -> Template:
    # The functions read the model of the running execution, so that one parsed template serves every Canary.
    return Template.parse(_NAME, text, _FUNCTIONS)


def render(text: str, model: Model) -> str:
    """The query that a template (Go's `text/template`, no Sprig, `missingkey=error`, run with no data) makes of a model.

    Raises:
        RenderError: The text is no template, or it fails.
    """
    try:
        template = _parse(text)
    except ParseError as error:
        raise RenderError(f"template parsing failed: {error}") from None
    token = _model.set(model)
    try:
        return template.execute(None, _LIMITS)
    except ExecError as error:
        raise RenderError(f"template excution failed: {error}") from None
    finally:
        _model.reset(token)
