"""Traffic providers: who splits the traffic between primary and canary, one module each."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from canary.routing.base import Router
from canary.settings import CanarySettings
from reconcile.ports.objects import Objects

SMI_VERSIONS = ("v1alpha1", "v1alpha2", "v1alpha3")


def make_router(
    provider: str, objects: Objects, settings: CanarySettings, *, rand: Callable[[int], int] = secrets.randbelow
) -> Router:
    """The router of a provider, by the names that `spec.provider` and the flag `-mesh-provider` have for it.

    As in Flagger, `smi:v1alphaN` may be followed by `:` and the name of a mesh, and a name that is not known means istio. But
    `gatewayapi` without a version, or with one that is not known, is `gatewayapi:v1`.

    Args:
        provider: The name.
        objects: Where routes live.
        settings: Of the service.
        rand: Random whole numbers from 0 to below the argument; for session cookies.
    """
    family, _, rest = provider.partition(":")
    if family == "smi":
        version, _, mesh = rest.partition(":")
        if version in SMI_VERSIONS:
            return _smi(objects, version, mesh)
    if family == "gatewayapi":
        return _gateway_api(objects, "v1beta1" if rest.partition(":")[0] == "v1beta1" else "v1", rand)
    make = _others(objects, settings).get(provider)
    return make() if make is not None else _istio(objects, rand)


# Modules are imported where they are used: a process has one or two providers.


def _istio(objects: Objects, rand: Callable[[int], int]) -> Router:
    from canary.routing.istio import IstioRouter

    return IstioRouter(objects, rand)


def _gateway_api(objects: Objects, version: str, rand: Callable[[int], int]) -> Router:
    from canary.routing.gateway_api import GatewayApiRouter

    return GatewayApiRouter(objects, rand, version=version)


def _smi(objects: Objects, version: str, mesh: str) -> Router:
    from canary.routing.smi import SmiRouter

    return SmiRouter(objects, version, mesh)


def _others(objects: Objects, settings: CanarySettings) -> Mapping[str, Callable[[], Router]]:
    """Factories of the providers that go by one name."""

    def kubernetes() -> Router:
        from canary.routing.service import ServiceRouter

        return ServiceRouter()

    def nginx() -> Router:
        from canary.routing.nginx import NginxRouter

        return NginxRouter(objects, settings)

    def skipper() -> Router:
        from canary.routing.skipper import SkipperRouter

        return SkipperRouter(objects)

    def contour() -> Router:
        from canary.routing.contour import ContourRouter

        return ContourRouter(objects, settings)

    def gloo() -> Router:
        from canary.routing.gloo import GlooRouter

        return GlooRouter(objects)

    def traefik() -> Router:
        from canary.routing.traefik import TraefikRouter

        return TraefikRouter(objects)

    def apisix() -> Router:
        from canary.routing.apisix import ApisixRouter

        return ApisixRouter(objects)

    def kuma() -> Router:
        from canary.routing.kuma import KumaRouter

        return KumaRouter(objects)

    def knative() -> Router:
        from canary.routing.knative import KnativeRouter

        return KnativeRouter(objects)

    def appmesh(version: str) -> Router:
        from canary.routing.appmesh import AppMeshRouter

        return AppMeshRouter(objects, version)

    return {
        "kubernetes": kubernetes,
        "nginx": nginx,
        "skipper": skipper,
        "contour": contour,
        "gloo": gloo,
        "traefik": traefik,
        "apisix": apisix,
        "kuma": kuma,
        "knative": knative,
        "linkerd": lambda: _smi(objects, "v1alpha1", "linkerd"),
        "osm": lambda: _smi(objects, "v1alpha2", "osm"),
        "appmesh": lambda: appmesh("v1beta1"),
        "appmesh:v1beta2": lambda: appmesh("v1beta2"),
    }
