"""What a Kustomization waits for: the others in `dependsOn`. Pure; what is asked of each is upstream's rule.

Without an expression a dependency must be ready at its present generation and, when it is made from the same source, have applied
the same revision. With `readyExpr` that alone decides, or both with the gate AdditiveCELDependencyCheck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reconcile.api import conditions as cond
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource

Expression = Callable[[AnyResource, AnyResource], bool]
"""Whether an expression holds for (self, dependency); False also when it cannot be evaluated."""


@dataclass(frozen=True, slots=True)
class SourceName:
    """Which source."""

    kind: str
    key: Key

    @classmethod
    def of(cls, resource: AnyResource) -> SourceName:
        """The source that a Kustomization names."""
        reference = resource.spec.source_ref
        return cls(reference.kind, Key(reference.namespace or resource.key.namespace, reference.name))

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}"


def dependency_key(resource: AnyResource, dependency: Any) -> Key:
    """Key of a Kustomization that another one depends on."""
    return Key(dependency.namespace or resource.key.namespace, dependency.name)


def unmet(
    resource: AnyResource,
    key: Key,
    found: AnyResource | None,
    *,
    revision: str,
    expression: Expression | None = None,
    additive: bool = False,
) -> str | None:
    """Why a dependency is not met, in upstream's words; None when it is.

    Args:
        resource: Who depends.
        key: On whom.
        found: The dependency; None when there is none.
        revision: The revision of the present artifact of `resource`.
        expression: Its readyExpr, compiled.
        additive: Whether the expression is asked beside the usual rule, not in its place.
    """
    if found is None:
        return f"dependency '{key}' not found: kustomizations.kustomize.toolkit.fluxcd.io \"{key.name}\" not found"
    if expression is not None:
        if not expression(resource, found):
            return f"dependency '{key}' is not ready according to readyExpr eval"
        if not additive:
            return None
    ready = found.status.observed_generation == found.meta.generation and cond.is_true(found.status.conditions, cond.READY)
    if not ready:
        return f"dependency '{key}' is not ready"
    if SourceName.of(found) == SourceName.of(resource) and found.status.last_applied_revision != revision:
        return f"dependency '{key}' revision is not up to date"
    return None
