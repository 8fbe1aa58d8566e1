"""Where a Kustomization is applied, and as whom: the cluster we are in or another one, with our rights or a ServiceAccount's.

Sources, variables, keys and kubeconfigs are read with our own identity; objects are never written with it when a ServiceAccount
is named, by the Kustomization or by the installation's default.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.errors import Failed, Invalid, ReconcileError
from reconcile.ports.cluster import Cluster, Impersonation
from reconcile.ports.store import Store

Remote = Callable[[str], Awaitable[Cluster]]
"""From a kubeconfig to its cluster; raises Invalid when it cannot be used."""

DEFAULT_KEYS = ("value", "value.yaml")
"""Keys of a Secret under which a kubeconfig is looked for when none is named."""


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster, as somebody."""

    cluster: Cluster
    local: bool
    """Whether it is the one that we are in, whose objects we watch."""
    account: str
    """ServiceAccount that is impersonated; empty: nobody."""


class Targets:
    """Finds the target of each Kustomization."""

    def __init__(self, store: Store, cluster: Cluster, remote: Remote, default_account: str) -> None:
        self._store, self._cluster, self._remote, self._default = store, cluster, remote, default_account

    def account(self, resource: AnyResource) -> str:
        """The ServiceAccount, in the namespace of the Kustomization, in whose name it is applied; empty: our own."""
        return resource.spec.service_account_name or self._default

    async def find(self, resource: AnyResource, retry: float) -> Target:
        """The target; raises Failed, to be tried again after `retry` seconds, when there is no way to it."""
        try:
            cluster = self._cluster if resource.spec.kube_config is None else await self._other(resource)
        except ReconcileError as error:
            raise Failed(
                "ReconciliationFailed", str(error), event=f"failed to build kube client: {error}", after=retry
            ) from error
        account = self.account(resource)
        if account:
            user = f"system:serviceaccount:{resource.key.namespace}:{account}"
            cluster = cluster.acting_as(Impersonation(user))
        return Target(cluster, resource.spec.kube_config is None, account)

    async def _other(self, resource: AnyResource) -> Cluster:
        reference = resource.spec.kube_config
        if reference.secret_ref is None:
            name = reference.config_map_ref.name
            raise Invalid(
                f"kubeConfig.configMapRef '{resource.key.namespace}/{name}': logging in with the identity of a cloud is not "
                "supported; give a kubeconfig in a Secret by kubeConfig.secretRef"
            )
        key = Key(resource.key.namespace, reference.secret_ref.name)
        try:
            secret = await self._store.secret(key)
        except ReconcileError as error:
            raise type(error)(f"unable to read KubeConfig secret '{key}' error: {error}") from error
        names = (reference.secret_ref.key,) if reference.secret_ref.key else DEFAULT_KEYS
        found = next((secret.data[name] for name in names if name in secret.data), None)
        if found is None:
            wanted = f"'{names[0]}' key" if reference.secret_ref.key else "'value' or 'value.yaml' keys"
            raise Invalid(f"KubeConfig secret '{key}' does not contain a {wanted} with data")
        try:
            return await self._remote(found.decode())
        except UnicodeDecodeError:
            raise Invalid(f"KubeConfig secret '{key}': the kubeconfig is not UTF-8") from None
