"""Health by expressions: `healthCheckExprs` of a Kustomization, and `readyExpr` of what it depends on. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reconcile import cel
from reconcile.api.appliers import CustomHealthCheck
from reconcile.api.kstatus import Status, Summary
from reconcile.errors import Invalid, LimitExceeded
from reconcile.ports.cluster import Object, Reference


@dataclass(frozen=True, slots=True)
class _Reader:
    current: cel.Expression
    in_progress: cel.Expression | None
    failed: cel.Expression | None

    def read(self, found: Object) -> Summary:
        status, metadata = found.get("status"), found.get("metadata")
        observed = status.get("observedGeneration") if isinstance(status, dict) else None
        generation = metadata.get("generation") if isinstance(metadata, dict) else None
        if isinstance(observed, int) and isinstance(generation, int) and observed != generation:
            return Summary(Status.IN_PROGRESS, f"generation {generation} is not observed yet, only {observed}")
        try:
            if self.in_progress is not None and self.in_progress.holds(found):
                return Summary(Status.IN_PROGRESS, f"in progress by the expression {self.in_progress.text!r}")
            if self.failed is not None and self.failed.holds(found):
                return Summary(Status.FAILED, f"failed by the expression {self.failed.text!r}")
            if self.current.holds(found):
                return Summary(Status.CURRENT, f"current by the expression {self.current.text!r}")
        except cel.EvaluationFailed as error:
            return Summary(Status.UNKNOWN, str(error))
        return Summary(Status.IN_PROGRESS, f"not yet current by the expression {self.current.text!r}")


class Readers:
    """Judges the kinds that have expressions; use as the `healthy` of a wait, where it precedes every other rule.

    Args:
        checks: `spec.healthCheckExprs`.

    Raises:
        CelError: One does not parse, or two are about the same kind; Flux's words, after its prefix for configuration errors.
    """

    def __init__(self, checks: Iterable[CustomHealthCheck] = ()) -> None:
        self._readers: dict[tuple[str, str], _Reader] = {}
        for index, check in enumerate(checks):
            group, kind = check.api_version.rpartition("/")[0], check.kind or ""
            if (group, kind) in self._readers:
                named = f"{kind or '*'}.{group}" if group else kind or "*"
                raise cel.CelError(f"duplicate custom health check for {named} at healthchecks[{index}]")
            try:
                in_progress, failed = _optional("InProgress", check.in_progress), _optional("Failed", check.failed)
                self._readers[group, kind] = _Reader(_parsed("Current", check.current), in_progress, failed)
            except (cel.CelError, LimitExceeded) as error:
                text = f"failed to create custom status evaluator for healthchecks[{index}]: {error}"
                raise cel.CelError(text) from None

    def __bool__(self) -> bool:
        return bool(self._readers)

    def __call__(self, found: Object) -> Summary | None:
        """How an object is doing by its kind's expressions; None when it has none."""
        reference = Reference.of(found)
        reader = self._readers.get((reference.group, reference.kind)) or self._readers.get((reference.group, ""))
        return None if reader is None else reader.read(found)


def _optional(which: str, text: str | None) -> cel.Expression | None:
    return _parsed(which, text) if text else None


def _parsed(which: str, text: str) -> cel.Expression:
    try:
        return cel.parse(text)
    except cel.CelError as error:
        raise cel.CelError(f"failed to parse the expression {which}: {error}") from None


class ReadyExpression:
    """`dependsOn[].readyExpr`: a condition over the object that depends and the one that it depends on.

    Args:
        text: The expression, over `self` and `dep`.

    Raises:
        Invalid: It does not compile, or is too long; Flux's words without its prefix.
    """

    def __init__(self, text: str) -> None:
        try:
            self._expression = cel.compile_bool(text, ("self", "dep"))
        except LimitExceeded as error:
            raise Invalid(str(error)) from None

    def holds(self, own: Mapping[str, Any], dependency: Mapping[str, Any]) -> bool:
        """Whether the dependency is ready; raises EvaluationFailed where the expression has no value."""
        return self._expression.holds({"self": own, "dep": dependency})
