"""Stories of routers other than Istio, and of targets other than Deployments."""

from __future__ import annotations

import threading

from tests.support.canary_facts.acts import promoted, start, story, succeed
from tests.support.canary_facts.manifests import (
    BOTH,
    GATEWAY,
    INGRESS,
    KNATIVE,
    SUCCESS,
    apisix_route,
    canary,
    deployment,
    ingress,
    named,
    service,
)
from tests.support.canary_facts.recorder import Story
from tests.support.clusterlab import until
from tests.support.kubeapi import Object


@story
def nginx_weight(s: Story) -> None:
    start(s, ingress(), deployment(), canary("nginx", spec=INGRESS, metrics=BOTH))
    succeed(s)


@story
def nginx_ab(s: Story) -> None:
    match = [{"headers": {"x-canary": {"exact": "insider"}}}, {"headers": {"cookie": {"exact": "canary"}}}]
    start(s, ingress(), deployment(), canary("nginx", spec=INGRESS, iterations=2, metrics=BOTH, match=match))
    succeed(s)


@story
def nginx_rollback(s: Story) -> None:
    start(s, ingress(), deployment(), canary("nginx", spec=INGRESS, threshold=1, metrics=BOTH))
    s.release()
    s.weight(20)
    s.metric(success="empty")
    s.phase("Failed")


@story
def nginx_wrong_backend(s: Story) -> None:
    s.apply(ingress("other"), deployment(), canary("nginx", spec=INGRESS))
    s.event("backend", 2)


@story
def nginx_missing_ingress(s: Story) -> None:
    s.apply(deployment(), canary("nginx", spec=INGRESS))
    s.event("ngress", 2)


@story
def gatewayapi_full_service(s: Story) -> None:
    matches = [
        {"uri": {"prefix": "/api"}, "method": {"exact": "GET"}},
        {"uri": {"regex": "/v[0-9]+"}, "headers": {"x-a": {"regex": "b.*"}}, "queryParams": {"q": {"exact": "1"}}},
    ]
    request = {"add": {"x-b": "2", "x-a": "1"}, "set": {"x-c": "3"}, "remove": ["x-d"]}
    cors = {
        "allowOrigin": ["https://example.org"],
        "allowMethods": ["GET"],
        "allowHeaders": ["x-h"],
        "exposeHeaders": ["x-e"],
        "maxAge": "24h",
        "allowCredentials": True,
    }
    full = {
        **GATEWAY,
        "timeout": "10s",
        "backendTimeout": "5s",
        "match": matches,
        "rewrite": {"uri": "/", "authority": "inner.example.org", "type": "ReplacePrefixMatch"},
        "headers": {"request": request, "response": {"add": {"x-r": "1"}}},
        "corsPolicy": cors,
        "mirror": [{"backendRef": {"name": "shadow", "port": 80}}],
        "apex": {"labels": {"kind": "apex"}, "annotations": {"note": "apex"}},
    }
    start(s, deployment(), canary("gatewayapi:v1", full, stepWeight=50, maxWeight=50))
    succeed(s)


@story
def gatewayapi_rollback(s: Story) -> None:
    start(s, deployment(), canary("gatewayapi:v1", GATEWAY, threshold=1, metrics=BOTH))
    s.release()
    s.weight(20)
    s.metric(duration=900.0)
    s.phase("Failed")


@story
def contour_ab(s: Story) -> None:
    match = [{"headers": {"x-canary": {"exact": "insider"}}}, {"headers": {"cookie": {"suffix": "test"}}}]
    start(s, deployment(), canary("contour", iterations=1, metrics=BOTH, match=match))
    succeed(s)


@story
def gloo(s: Story) -> None:
    start(s, deployment(), canary("gloo", stepWeight=50, maxWeight=50, metrics=BOTH))
    succeed(s)


@story
def skipper(s: Story) -> None:
    start(s, ingress(), deployment(), canary("skipper", spec=INGRESS, stepWeight=50, maxWeight=50, metrics=BOTH))
    succeed(s)


@story
def apisix(s: Story) -> None:
    ref = {"routeRef": {"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute", "name": "web"}}
    start(s, apisix_route(), deployment(), canary("apisix", stepWeight=50, maxWeight=50, metrics=BOTH, spec=ref))
    succeed(s)


@story
def kuma(s: Story) -> None:
    start(s, deployment(), canary("kuma", stepWeight=50, maxWeight=50, metrics=BOTH))
    succeed(s)


@story
def service_target(s: Story) -> None:
    """A ClusterIP Service as target."""
    s.apply(service(x="y"), canary(target="Service", stepWeight=50, maxWeight=50, metrics=[SUCCESS]))
    s.until(lambda: s.posted("Initialization done") or s.posted("reconcileCanaryService") > 1, "initialized or refused twice")


@story
def service_target_external(s: Story) -> None:
    """An ExternalName Service as target."""
    target = {**named("v1", "Service", "web", x="y"), "spec": {"type": "ExternalName", "externalName": "v1.example.org"}}
    start(s, target, canary(target="Service", stepWeight=50, maxWeight=50, metrics=[SUCCESS]))
    s.patch("Service", "web", {"spec": {"externalName": "v2.example.org"}})
    promoted(s)


@story
def knative(s: Story) -> None:
    """A stand-in for Knative copies spec.traffic to status.traffic and keeps revisions ready."""

    def stated(**status: object) -> None:
        s.patch("Service", "web", {"status": status}, KNATIVE, "status")

    def revision(name: str) -> None:
        s.apply({**named(KNATIVE, "Revision", name), "spec": {}})
        ready = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}
        s.patch("Revision", name, {"status": ready}, KNATIVE, "status")
        stated(latestCreatedRevisionName=name, latestReadyRevisionName=name)

    def mirror_traffic() -> None:
        while not s.ended.wait(0.5):
            found = s.api.get(KNATIVE, "Service", "web", s.ns)
            latest = found.get("status", {}).get("latestCreatedRevisionName")
            traffic = [{"revisionName": latest, **share} for share in found["spec"].get("traffic", [])]
            if traffic and traffic != found.get("status", {}).get("traffic"):
                stated(traffic=traffic)

    def template_of(tag: str) -> Object:
        return {"template": {"spec": {"containers": [{"image": f"example.org/web:{tag}"}]}}}

    s.apply({**named(KNATIVE, "Service", "web"), "spec": template_of("1")})
    revision("web-00001")
    threading.Thread(target=mirror_traffic, name="knative", daemon=True).start()
    target = {"targetRef": {"apiVersion": KNATIVE, "kind": "Service", "name": "web"}}
    wanted = canary("knative", stepWeight=50, maxWeight=50, metrics=BOTH, spec=target)
    del wanted["spec"]["service"]
    start(s, wanted)
    until(lambda: s.api.get(KNATIVE, "Service", "web", s.ns)["status"].get("traffic"), "Knative to follow", 100)
    s.patch("Service", "web", {"spec": template_of("2")}, KNATIVE)
    revision("web-00002")
    promoted(s)
