"""Which variables a Kustomization has, and post-build substitution of one object after another. Pure.

What Flux's kustomize-controller does with `spec.postBuild`, given what the referenced ConfigMaps and Secrets hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from reconcile.kustomize.failure import BuildFailed
from reconcile.kustomize.ids import marked, resource_id
from reconcile.kustomize.substitute import SubstitutionError, substitute_object
from reconcile.ports.cluster import Object

SUBSTITUTE: Final = "kustomize.toolkit.fluxcd.io/substitute"
"""Label or annotation; `disabled` leaves an object as it is."""

ALWAYS: Final = "Always"
"""The strategy that substitutes even when there is no variable."""

_RULE: Final = "^[_[:alpha:]][_[:alpha:][:digit:]]*$"
_VALID = re.compile(r"[_A-Za-z][_A-Za-z0-9]*\Z")


@dataclass(frozen=True, slots=True)
class VariableSource:
    """One entry of `substituteFrom`, and what was found.

    Attributes:
        kind: `ConfigMap` or `Secret`.
        name: Its name, in the namespace of the Kustomization.
        data: The `data` of a ConfigMap, the decoded `data` of a Secret; None when there is no such object.
        optional: Whether it may be missing.
        error: Why it could not be read, if that was not because it is missing.
    """

    kind: str
    name: str
    data: Mapping[str, str | bytes] | None
    optional: bool = False
    error: str = ""


def merged(sources: Sequence[VariableSource], inline: Mapping[str, str]) -> dict[str, str]:
    """All variables: later sources win over earlier ones, `inline` over all; newlines are removed from values.

    Bytes that are no UTF-8 are kept as `surrogateescape` does.

    Raises:
        SubstitutionError: An object that is not optional is missing, or one could not be read.
    """
    variables: dict[str, str] = {}
    for source in sources:
        if source.error:
            raise SubstitutionError(f"substitute from '{source.kind}/{source.name}' error: {source.error}")
        if source.data is None:
            if source.optional:
                continue
            plural = "secrets" if source.kind == "Secret" else "configmaps"
            raise SubstitutionError(f"substitute from '{source.kind}/{source.name}' error: {plural} \"{source.name}\" not found")
        for name, value in source.data.items():
            variables[name] = _one_line(value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value)
    return {**variables, **{name: _one_line(value) for name, value in inline.items()}}


def _one_line(value: str) -> str:
    return value.replace("\n", "")


def check_names(names: Mapping[str, str]) -> None:
    """Raises `SubstitutionError` for the first name (in order) that no variable may have, used or not."""
    bad = min((name for name in names if not _VALID.match(name)), default=None)
    if bad is not None:
        raise SubstitutionError(f"'{bad}' var name is invalid, must match '{_RULE}'")


class PostBuild:
    """Substitution in the objects of one build."""

    def __init__(
        self, sources: Sequence[VariableSource], inline: Mapping[str, str], *, strategy: str | None = None, strict: bool = True
    ) -> None:
        """What is missing or wrong shows with the first object that is to be substituted.

        Args:
            sources: In the order of `spec.postBuild.substituteFrom`.
            inline: `spec.postBuild.substitute`.
            strategy: `spec.postBuild.substituteStrategy`; None is `WithVariables`: only if there is a variable.
            strict: Whether a variable that is not set is an error.
        """
        self._sources = tuple(sources)
        self._inline = inline
        self._always = strategy == ALWAYS
        self._strict = strict

    @cached_property
    def _variables(self) -> dict[str, str]:
        variables = merged(self._sources, self._inline)
        try:
            check_names(variables)
        except SubstitutionError as error:
            raise SubstitutionError(f"envsubst error: {error}") from None
        return variables

    def object(self, obj: Object) -> Object:
        """`obj` after substitution; the very same when nothing is to be done.

        Raises:
            BuildFailed: `post build failed for '<id>': …` with Flux's words.
        """
        if marked(obj, SUBSTITUTE, labels=True):
            return obj
        try:
            variables = self._variables
            if not variables and not self._always:
                return obj
            return self._substituted(obj, variables)
        except SubstitutionError as error:
            raise BuildFailed(f"post build failed for '{resource_id(obj)}': {error}") from None

    def _substituted(self, obj: Object, variables: Mapping[str, str]) -> Object:
        try:
            return substitute_object(obj, variables, strict=self._strict)
        except SubstitutionError as error:
            raise SubstitutionError(f"envsubst error: {error}") from None
