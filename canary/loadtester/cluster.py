"""The HelmReleases and Kustomizations of the cluster that a pod or a kubeconfig leads to."""

from __future__ import annotations

from collections.abc import Mapping

from canary.loadtester.payload import Refused
from canary.loadtester.releases import NOT_READY, Kind
from reconcile.api.duration import format_duration
from reconcile.api.meta import CommonSpec, CommonStatus, Key
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.cli.cluster import open_cluster
from reconcile.cli.place import Place, UnknownKind
from reconcile.cli.wait import until_done
from reconcile.errors import NotFound, ReconcileError, TimedOut

HELM_RELEASE = KindInfo(
    "helm.toolkit.fluxcd.io", "HelmRelease", "helmreleases", ("v2", "v2beta2", "v2beta1"), CommonSpec, CommonStatus
)
KUSTOMIZATION = KindInfo(
    "kustomize.toolkit.fluxcd.io", "Kustomization", "kustomizations", ("v1", "v1beta2", "v1beta1"), CommonSpec, CommonStatus
)
_KINDS: Mapping[Kind, KindInfo] = {"HelmRelease": HELM_RELEASE, "Kustomization": KUSTOMIZATION}


class ClusterReleases:
    """See `Releases`. Each call has a connection of its own: a configuration that changes meanwhile is read again."""

    def __init__(self, kubeconfig: str, context: str) -> None:
        self._place = Place(None, None, kubeconfig, context, namespace=None, everywhere=False)

    async def ready(self, kind: Kind, namespace: str, name: str, seconds: float) -> str:
        """Wait until an object is ready at its present generation; gives its own words."""
        what = f"{kind} {namespace}/{name}"
        try:
            async with open_cluster(self._place, Scheme()) as cluster:
                _, said = await until_done(cluster, _KINDS[kind], Key(namespace, name), lambda _: True, seconds)
        except NotFound as error:
            raise Refused(404, f"{what} not found") from error
        except TimedOut as error:
            raise Refused(NOT_READY, f"{error} (waited {format_duration(seconds)})") from error
        except UnknownKind as error:
            raise Refused(501, f"{what}: Flux's definition of {kind} is not installed in the cluster") from error
        except ReconcileError as error:
            raise Refused(502, f"{what}: {error}") from error
        if said.state != "current":
            raise Refused(NOT_READY, f"{what} is not ready: {said.message}")
        return said.message
