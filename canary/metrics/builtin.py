"""The built-in PromQL of each traffic provider, as Flagger sends it: the share of requests that succeed, and how long they take.

Pure. Each text is what goes to Prometheus once its placeholders are filled in: it begins with a space, and whitespace is single.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from canary.metrics.template import Model, render

SUCCESS_RATE: Final = "request-success-rate"
DURATION: Final = "request-duration"
NAMES: Final = frozenset({SUCCESS_RATE, DURATION})
"""Metrics that have a built-in query."""

DEFAULT_INTERVAL: Final = "1m"
"""Window of built-in metrics and inline queries that name none."""
PROBE: Final = "vector(1)"
"""Any Prometheus answers this with 1."""

_SPACE: Final = re.compile(r"[\t\n\f\r ]+")
_NO_WORD: Final = re.compile(r"[^0-9A-Za-z_]")
_WINDOW: Final = "[{{ interval }}]"


@dataclass(frozen=True, slots=True)
class Queries:
    """The built-in queries of one traffic provider, as templates.

    Attributes:
        success_rate: Percent of requests that succeed.
        duration: How long requests take.
        factor: Milliseconds in one unit of the duration's result.
        words_only: Whether names are put in with `_` for whatever is not a letter, digit or `_`.
    """

    success_rate: str
    duration: str
    factor: float = 1.0
    words_only: bool = False


def _ratio(metric: str, good: str, everything: str) -> str:
    upper, lower = (f"sum( rate( {metric}{{ {labels} }}{_WINDOW} ) )" for labels in (good, everything))
    return f" {upper} / {lower} * 100"


def _quantile(metric: str, labels: str) -> str:
    return f" histogram_quantile( 0.99, sum( rate( {metric}{{ {labels} }}{_WINDOW} ) ) by (le) )"


def _mean(metric: str, labels: str) -> str:
    upper, lower = (f"sum( rate( {metric}_{part}{{ {labels} }}{_WINDOW} ) )" for part in ("sum", "count"))
    return f" {upper} / {lower} * 1000"


def _pods(count: str, bucket: str, failed: str, factor: float) -> Queries:
    labels = 'kubernetes_namespace="{{ namespace }}", kubernetes_pod_name=~"{{ target }}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)"'
    return Queries(_ratio(count, f"{labels}, {failed}", labels), _quantile(bucket, labels), factor)


def _envoy(label: str) -> Queries:
    everything = f"{label},"  # the comma before the brace is Flagger's
    return Queries(
        _ratio("envoy_cluster_upstream_rq", f'{label}, envoy_response_code!~"5.*"', everything),
        _quantile("envoy_cluster_upstream_rq_time_bucket", everything),
    )


def _istio() -> Queries:
    labels = 'reporter="destination", destination_workload_namespace="{{ namespace }}", destination_workload=~"{{ target }}"'
    return Queries(
        _ratio("istio_requests_total", f'{labels}, response_code!~"5.*"', labels),
        _quantile("istio_request_duration_milliseconds_bucket", labels),
    )


def _linkerd() -> Queries:
    who, inbound = 'namespace="{{ namespace }}", deployment=~"{{ target }}"', 'direction="inbound"'
    return Queries(
        _ratio("response_total", f'{who}, classification!="failure", {inbound}', f"{who}, {inbound}"),
        _quantile("response_latency_ms_bucket", f"{who}, {inbound}"),
    )


def _nginx() -> Queries:
    labels = 'namespace="{{ namespace }}", ingress="{{ ingress }}", canary!=""'
    return Queries(
        _ratio("nginx_ingress_controller_requests", f'{labels}, status!~"5.*"', labels),
        _mean("nginx_ingress_controller_response_duration_seconds", labels),
    )


def _traefik() -> Queries:
    metric = "traefik_service_request_duration_seconds_bucket"
    service, every = 'service=~"{{ namespace }}-{{ target }}-canary-[0-9a-zA-Z-]+@kubernetescrd"', 'le="+Inf"'
    return Queries(
        _ratio(metric, f'{service}, code!~"5..", {every}', f"{service}, {every}"), f"{_quantile(metric, service)} * 1000"
    )


def _apisix() -> Queries:
    route = 'route=~"{{ namespace }}_{{ route }}-{{ target }}-canary_.+"'
    return Queries(
        _ratio("apisix_http_status", f'{route}, code!~"5.."', route),
        _quantile("apisix_http_latency_bucket", f'type=~"request", {route}'),
    )


def _osm() -> Queries:
    labels = 'destination_namespace="{{ namespace }}", destination_kind="Deployment", destination_name="{{ target }}"'
    return Queries(
        _ratio("osm_request_total", f'{labels}, response_code!~"5.*"', labels),
        _quantile("osm_request_duration_ms_bucket", labels),
    )


def _skipper() -> Queries:
    route = 'route=~"kube(ew)?_{{ namespace }}__{{ ingress }}_canary__.*__{{ service }}_canary(_[0-9]+)?"'

    def rate(metric: str, labels: str) -> str:
        return f"sum(rate({metric}{{{labels}}}{_WINDOW}))"

    bucket, duration = "skipper_response_duration_seconds_bucket", "skipper_serve_route_duration_seconds"
    good, everything = f'{route},code!~"5..",le="+Inf"', f'{route},le="+Inf"'
    return Queries(
        f" {rate(bucket, good)} / {rate(bucket, everything)} * 100",
        f" {rate(f'{duration}_sum', route)} / {rate(f'{duration}_count', route)} * 1000",
        words_only=True,
    )


_SECONDS: Final = 1000.0
_ISTIO: Final = _istio()
_APPMESH: Final = _pods("envoy_cluster_upstream_rq", "envoy_cluster_upstream_rq_time_bucket", 'envoy_response_code!~"5.*"', 1.0)
_HTTP: Final = _pods("http_request_duration_seconds_count", "http_request_duration_seconds_bucket", 'status!~"5.*"', _SECONDS)
_GLOO: Final = _envoy('envoy_cluster_name=~"{{ namespace }}-{{ target }}-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+"')
_EXACT: Final = {
    "linkerd": _linkerd(),
    "istio": _ISTIO,
    "contour": _envoy('envoy_cluster_name=~"{{ namespace }}_{{ service }}-canary_[0-9a-zA-Z-]+"'),
    "nginx": _nginx(),
    "kubernetes": _HTTP,
    "skipper": _skipper(),
    "traefik": _traefik(),
    "osm": _osm(),
    "kuma": _envoy('service=~"{{ target }}-canary_{{ namespace }}_svc_[0-9a-zA-Z-]+"'),
    "apisix": _apisix(),
    "knative": _envoy('envoy_cluster_name=~"{{ namespace }}/{{ route }}"'),
}
_PREFIXES: Final = (("appmesh", _APPMESH), ("gloo", _GLOO), ("gatewayapi", _HTTP))


def provider_word(own: str | None, default: str, *, core_service: bool = False) -> str:
    """The word that chooses the queries and stands in event texts.

    Args:
        own: `spec.provider` of the Canary.
        default: The traffic provider of the service. Where it is a Linkerd, so are the queries of Canaries with another provider.
        core_service: Whether the target is a Service of the core API.
    """
    word = own or default
    if own and "linkerd" in default:
        word = "linkerd"
    return f"{word}:service" if core_service else word


def queries(word: str) -> Queries:
    """The queries that a provider word stands for; those of Istio when it is not known."""
    found = _EXACT.get(word)
    if found is not None:
        return found
    return next((known for prefix, known in _PREFIXES if word.startswith(prefix)), _ISTIO)


def resolve(word: str, metric: str, model: Model) -> str:
    """The built-in query of a metric (one of `NAMES`) as it is sent."""
    found = queries(word)
    if found.words_only:
        namespace, ingress, service = (_NO_WORD.sub("_", name) for name in (model.namespace, model.ingress, model.service))
        model = replace(model, namespace=namespace, ingress=ingress, service=service)
    return render(found.success_rate if metric == SUCCESS_RATE else found.duration, model)


def collapse(query: str) -> str:
    """The query as Prometheus is sent it: each run of whitespace is one space, also inside quotes and at the ends."""
    return _SPACE.sub(" ", query)
