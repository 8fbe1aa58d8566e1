"""Kustomization: what a source holds becomes what is in the cluster, and stays so.

A pass, in upstream's order: may the source be used and is it there; are the dependencies ready; build; apply; prune; wait for
health. Nothing is built while what can be read is the same as last time, and nothing is asked of the cluster for objects that
have not moved. Behaves like Flux's kustomize-controller; what is better stands in `docs/differences.md`.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconcile.api import conditions as cond
from reconcile.api.duration import format_duration
from reconcile.api.resource import AnyResource
from reconcile.apply.owner import Owner
from reconcile.apply.readers import Readers, ReadyExpression
from reconcile.errors import Invalid, NotFound, ReconcileError, Stalled, Waiting
from reconcile.kustomize.deletion import Deletion
from reconcile.kustomize.dependencies import Expression, dependency_key, unmet
from reconcile.kustomize.passes import Pass
from reconcile.kustomize.sources import Input, SourceFinder
from reconcile.kustomize.times import Times
from reconcile.kustomize.tools import Tools
from reconcile.ports.cluster import Healthy
from reconcile.runtime.bus import Bus
from reconcile.runtime.outcome import Pending, Success
from reconcile.runtime.run import Reconciler, Run

KIND = "Kustomization"
TERMINAL = "Reconciliation failed terminally due to configuration error: terminal error: "
"""What upstream puts before what nothing but an edit of the spec mends."""


class KustomizationReconciler(Reconciler):
    """One pass over a Kustomization: what may not be, what must be waited for, and then the work."""

    kind = KIND
    announces_start = False

    def __init__(self, tools: Tools, finder: SourceFinder, bus: Bus, gates: Mapping[str, bool]) -> None:
        self._tools, self._finder, self._bus, self._gates = tools, finder, bus, gates
        self._deletion = Deletion(tools)

    async def reconcile(self, run: Run) -> Success | Pending:
        """One pass.

        Raises:
            Stalled: Nothing helps but an edit of the object.
            Failed: A step failed; tried again after `retryInterval`.
            Waiting: The source or a dependency is not ready.
        """
        resource, times = run.resource, Times.of(run.resource.spec)
        readers = self._readers(resource)
        self._refuse_identity(resource)
        given = await self._finder.find(resource, times.retry)
        run.metadata = {**given.metadata(), **await self._bus.metadata(given.revision, given.origin)}
        await self._require_dependencies(resource, given)
        return await Pass(self._tools, run, given, times, readers).go()

    def observes_suspended(self, resource: AnyResource) -> bool:
        """A suspended one that is ready still notes its generation."""
        return cond.is_true(resource.status.conditions, cond.READY)

    async def finalize(self, resource: AnyResource) -> None:
        """Delete what the deletion policy says; raises what is to be tried again."""
        await self._deletion.run(resource)

    async def removed(self, resource: AnyResource) -> None:
        """Forget what was remembered of its objects."""
        self._tools.memory.forget(Owner(resource.key.name, resource.key.namespace))

    # --- before the work

    def _readers(self, resource: AnyResource) -> Healthy | None:
        expressions = resource.spec.health_check_exprs
        if not expressions:
            return None
        try:
            return Readers(expressions)
        except Invalid as error:
            raise Stalled("InvalidCELExpression", f"{TERMINAL}{error}") from error

    def _refuse_identity(self, resource: AnyResource) -> None:
        decryption = resource.spec.decryption
        if decryption is None or not decryption.service_account_name:
            return
        if not self._gates["ObjectLevelWorkloadIdentity"]:
            text = (
                "to use spec.decryption.serviceAccountName for decryption authentication please enable the "
                "ObjectLevelWorkloadIdentity feature gate in the controller"
            )
            raise Stalled("FeatureGateDisabled", text, observed=False)
        text = (
            "spec.decryption.serviceAccountName is not supported: name the credentials of the key service in "
            "spec.decryption.secretRef, or leave it out to use the identity of the service"
        )
        raise Stalled("BuildFailed", text)

    async def _require_dependencies(self, resource: AnyResource, given: Input) -> None:
        additive = self._gates["AdditiveCELDependencyCheck"]
        for dependency in resource.spec.depends_on or ():
            key = dependency_key(resource, dependency)
            try:
                found = await self._tools.store.get(KIND, key)
            except NotFound:
                found = None
            expression = _expression(dependency.name, dependency.ready_expr)
            why = unmet(resource, key, found, revision=given.revision, expression=expression, additive=additive)
            if why is not None:
                text = f"Dependencies do not meet ready condition, retrying in {format_duration(self._tools.requeue)}"
                raise Waiting("DependencyNotReady", why, self._tools.requeue, event=text, told="Normal")


def _expression(name: str, text: str | None) -> Expression | None:
    """The compiled readyExpr of a dependency; raises Stalled when it does not compile."""
    if not text:
        return None
    try:
        compiled = ReadyExpression(text)
    except Invalid as error:
        raise Stalled("InvalidCELExpression", f"{TERMINAL}failed to evaluate dependency {name}: {error}") from error

    def holds(resource: AnyResource, dependency: AnyResource) -> bool:
        try:
            return compiled.holds(resource.to_dict(), dependency.to_dict())
        except ReconcileError:
            return False  # one that has no value yet, such as a status that is not there, is not ready

    return holds
