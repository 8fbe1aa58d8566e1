"""Which router a provider's name stands for, and the one that routes nothing."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from canary.api import Provider
from canary.routing import make_router
from canary.routing.base import ALL_PRIMARY, Weights
from canary.routing.service import ServiceRouter
from canary.settings import CanarySettings
from tests.support import router_cases
from tests.support.objects import MemoryObjects

CLASSES = {
    "apisix": "ApisixRouter",
    "appmesh": "AppMeshRouter",
    "appmesh:v1beta2": "AppMeshRouter",
    "contour": "ContourRouter",
    "gatewayapi": "GatewayApiRouter",
    "gatewayapi:v1": "GatewayApiRouter",
    "gatewayapi:v1beta1": "GatewayApiRouter",
    "gatewayapi:v2": "GatewayApiRouter",
    "gloo": "GlooRouter",
    "istio": "IstioRouter",
    "knative": "KnativeRouter",
    "kubernetes": "ServiceRouter",
    "kuma": "KumaRouter",
    "linkerd": "SmiRouter",
    "nginx": "NginxRouter",
    "osm": "SmiRouter",
    "skipper": "SkipperRouter",
    "smi:v1alpha1": "SmiRouter",
    "smi:v1alpha1:istio": "SmiRouter",
    "smi:v1alpha2": "SmiRouter",
    "smi:v1alpha3": "SmiRouter",
    "smi:v9": "IstioRouter",
    "something": "IstioRouter",
    "traefik": "TraefikRouter",
    "": "IstioRouter",
}


def router(provider: str, **more: Any) -> Any:
    return make_router(provider, MemoryObjects(), CanarySettings(), **more)


def test_every_provider_of_the_schema_is_known() -> None:
    assert set(get_args(Provider)) <= CLASSES.keys()


@pytest.mark.parametrize("provider", CLASSES)
def test_name_stands_for_its_router(provider: str) -> None:
    assert type(router(provider)).__name__ == CLASSES[provider]


@pytest.mark.parametrize(
    ("provider", "version"),
    [("gatewayapi", "v1"), ("gatewayapi:v1", "v1"), ("gatewayapi:v1beta1", "v1beta1"), ("gatewayapi:v2", "v1")],
)
def test_version_of_the_gateway_api(provider: str, version: str) -> None:
    assert router(provider).reference(router_cases.site("gatewayapi:v1")).api_version == f"gateway.networking.k8s.io/{version}"


async def test_cookies_come_from_the_random_source() -> None:
    where = router_cases.site("istio", analysis={"stepWeight": 20, "sessionAffinity": {"cookieName": "sticky"}})
    cookies = await router("istio", rand=lambda bound: bound - 1).set_weights(where, Weights.at(20))
    assert cookies.session == "sticky=ZZZZZZZZZZ"
    values = {(await router("istio").set_weights(where, Weights.at(20))).session for _ in range(3)}
    assert len(values) == 3


@pytest.mark.parametrize(
    ("iterations", "weights"), [(None, ALL_PRIMARY), (0, ALL_PRIMARY), (-1, ALL_PRIMARY), (1, Weights(0, 100))]
)
async def test_plain_services_route_nothing(iterations: int | None, weights: Weights) -> None:
    made, where = ServiceRouter(), router_cases.site("kubernetes").with_status(iterations=iterations)
    await made.reconcile(where)
    assert await made.set_weights(where, Weights.at(50)) is None
    await made.revert(where)
    assert await made.weights(where) == weights
    assert (made.weighted, made.mirrors) == (False, False)
