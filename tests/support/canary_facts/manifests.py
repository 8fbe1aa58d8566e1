"""Manifests of the recorded stories of Canaries. What they say is part of the facts."""

from __future__ import annotations

from typing import Any

from tests.support.canary_facts.recorder import Story
from tests.support.kubeapi import Object

SUCCESS = {"name": "request-success-rate", "interval": "1m", "thresholdRange": {"min": 99}}
DURATION = {"name": "request-duration", "interval": "30s", "thresholdRange": {"max": 500}}
BOTH = [SUCCESS, DURATION]
COOKIE = {"headers": {"cookie": {"regex": "^(.*?;)?(canary=always)(;.*)?$"}}}
COOKIE_MATCH = [COOKIE, {"headers": {"x-user": {"exact": "insider"}}}]
GATEWAY = {"gatewayRefs": [{"name": "gw", "namespace": "infra"}], "hosts": ["web.example.org"]}
KNATIVE = "serving.knative.dev/v1"


def named(api_version: str, kind: str, name: str, **labels: str) -> Object:
    """The first lines of a manifest."""
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, **({"labels": labels} if labels else {})}}


INGRESS = {"ingressRef": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "web"}}


def deployment(*, labels: Object | None = None, template: Object | None = None, pod: Object | None = None,
               container: Object | None = None, **spec: Any) -> Object:  # fmt: skip
    """A target of two pods."""
    labels = labels or {"app": "web"}
    app = {"name": "app", "image": "example.org/web:1", "ports": [{"name": "http", "containerPort": 9898}], **(container or {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {**labels, "team": "blue"}, "annotations": {}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, **(template or {})}, "spec": {"containers": [app], **(pod or {})}},
            **spec,
        },
    }


def canary(provider: str = "istio", service: Object | None = None, target: str = "Deployment", spec: Object | None = None,
           **analysis: Any) -> Object:  # fmt: skip
    """A Canary with steps of 20 up to 40, unless its analysis says otherwise."""
    analysis = {"interval": "10s", "threshold": 3, **analysis}
    if not {"iterations", "stepWeight", "stepWeights"} & analysis.keys():
        analysis |= {"stepWeight": 20, "maxWeight": 40}
    version = {"Service": "v1"}.get(target, "apps/v1")
    return {
        **named("flagger.app/v1beta1", "Canary", "web"),
        "spec": {
            "provider": provider,
            "targetRef": {"apiVersion": version, "kind": target, "name": "web"},
            "service": {"port": 80, "targetPort": 9898, **(service or {})},
            "analysis": analysis,
            **(spec or {}),
        },
    }


def config_map(name: str, **data: str) -> Object:
    return {**named("v1", "ConfigMap", name, team="blue"), "data": data}


def secret(name: str, **data: str) -> Object:
    return {**named("v1", "Secret", name), "type": "Opaque", "stringData": data}


def service(**labels: str) -> Object:
    """A Service that people have already."""
    port = {"name": "http", "port": 80, "targetPort": 9898}
    return {**named("v1", "Service", "web", **labels), "spec": {"selector": {"app": "web"}, "ports": [port]}}


def ingress(backend: str = "web") -> Object:
    """An Ingress that people have already."""
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": backend, "port": {"number": 80}}}}
    annotations = {"nginx.ingress.kubernetes.io/rewrite-target": "/", "example.org/keep": "yes"}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web", "labels": {"app": "web"}, "annotations": annotations},
        "spec": {"ingressClassName": "nginx", "rules": [{"host": "web.example.org", "http": {"paths": [path]}}]},
    }


def virtual_service() -> Object:
    """A VirtualService that people have already."""
    route = [{"route": [{"destination": {"host": "web"}}]}]
    spec = {"hosts": ["web.example.org"], "gateways": ["infra/gw"], "exportTo": ["*"], "http": route}
    return {**named("networking.istio.io/v1beta1", "VirtualService", "web", mine="yes"), "spec": spec}


def apisix_route() -> Object:
    """An ApisixRoute that people have already."""
    backend = {"serviceName": "web", "servicePort": 80}
    rule = {"name": "main", "match": {"hosts": ["web.example.org"], "paths": ["/*"]}, "backends": [backend]}
    return {**named("apisix.apache.org/v2", "ApisixRoute", "web", x="y"), "spec": {"http": [rule]}}


def scaled_object() -> Object:
    """An autoscaler of KEDA."""
    query = 'sum(rate(http{svc="web-canary", app="web"}[1m]))'
    metadata = {"serverAddress": "http://p", "metricName": "rps", "threshold": "5", "query": query}
    spec = {
        "scaleTargetRef": {"name": "web"},
        "minReplicaCount": 3,
        "maxReplicaCount": 5,
        "pollingInterval": 10,
        "triggers": [{"type": "prometheus", "name": "rps", "metadata": metadata}],
    }
    return {**named("keda.sh/v1alpha1", "ScaledObject", "web", x="y"), "spec": spec}


def template(s: Story, name: str, query: str, **provider: Any) -> Object:
    """A MetricTemplate."""
    spec = {"provider": {"type": "prometheus", "address": s.prometheus_url(), **provider}, "query": query}
    return {**named("flagger.app/v1beta1", "MetricTemplate", name), "spec": spec}


def alert_provider(s: Story, kind: str, name: str = "", secret_name: str = "") -> Object:
    """A chat."""
    where = {"secretRef": {"name": secret_name}} if secret_name else {"address": s.alert_url(name or kind)}
    spec = {"type": kind, "channel": "ops", "username": "bot", **where}
    return {**named("flagger.app/v1beta1", "AlertProvider", name or kind), "spec": spec}


CONFIGURED: Object = {
    "container": {
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "env": [
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}},
            {"name": "OPT", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "x", "optional": True}}},
        ],
        "volumeMounts": [{"name": "files", "mountPath": "/files"}, {"name": "all", "mountPath": "/all"}],
    },
    "pod": {
        "volumes": [
            {"name": "files", "configMap": {"name": "files"}},
            {"name": "all", "projected": {"sources": [{"secret": {"name": "keys"}}, {"configMap": {"name": "untracked"}}]}},
        ]
    },
}
"""What a target says that uses configuration in every way."""


def configs() -> tuple[Object, ...]:
    """The configuration that `CONFIGURED` names."""
    untracked, files = config_map("untracked", z="1"), config_map("files", text="a <b> & c")
    untracked["metadata"]["annotations"] = {"flagger.app/config-tracking": "disabled"}
    files["binaryData"] = {"raw": "AAEC"}
    return config_map("settings", a="1", b="2"), files, untracked, secret("keys", key="k1")
