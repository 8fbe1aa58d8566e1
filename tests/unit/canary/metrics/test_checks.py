"""The metrics of a Canary: what is asked, in which order and how often, and the words of whatever goes wrong."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from canary.api import Metric, MetricTemplateSpec, MetricTemplateStatus
from canary.errors import Problem
from canary.judge import Source
from canary.metrics.base import Check, Verdict
from canary.metrics.checks import Checks, plan, subject_of
from canary.metrics.providers import Providers
from canary.settings import CanarySettings
from canary.site import Site
from reconcile.api.meta import Key, ObjectMeta
from reconcile.api.resource import AnyResource, Resource
from reconcile.errors import NotFound, ReconcileError
from reconcile.net.proxy import ProxyEnvironment
from reconcile.ports.clock import SystemClock
from reconcile.ports.cluster import Reference
from reconcile.ports.store import Secret
from tests.support.canary_posts import site
from tests.support.objects import MemoryObjects
from tests.support.prometheus import FakePrometheus, Raw

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RATE = {"name": "request-success-rate", "interval": "1m", "thresholdRange": {"min": 99}}
DURATION = {"name": "request-duration", "interval": "30s", "thresholdRange": {"max": 500}}


class Templates:
    """MetricTemplates and Secrets; what else a Store has is not needed here."""

    def __init__(self) -> None:
        self.templates: dict[Key, AnyResource] = {}
        self.secrets: dict[Key, Mapping[str, bytes]] = {}
        self.error: ReconcileError | None = None

    def add(self, name: str, query: str, namespace: str = "prod", **provider: Any) -> None:
        spec = MetricTemplateSpec.model_validate({"provider": {"type": "prometheus", **provider}, "query": query})
        meta = ObjectMeta(name=name, namespace=namespace, uid=name)
        key = Key(namespace, name)
        self.templates[key] = Resource("flagger.app/v1beta1", "MetricTemplate", meta, spec, MetricTemplateStatus())

    async def get(self, kind: str, key: Key) -> AnyResource:
        assert kind == "MetricTemplate"
        if self.error is not None:
            raise self.error
        if key not in self.templates:
            raise NotFound(f'metrictemplates.flagger.app "{key.name}" not found')
        return self.templates[key]

    async def secret(self, key: Key) -> Secret:
        if key not in self.secrets:
            raise NotFound(f'secrets "{key.name}" not found')
        return Secret(key, "Opaque", self.secrets[key])


class Bench:
    """Checks with a scripted Prometheus."""

    def __init__(self, backend: FakePrometheus) -> None:
        self.backend = backend
        self.store = Templates()
        self.objects = MemoryObjects()
        self.seen: list[tuple[str, str, float]] = []
        self.settings = CanarySettings(metrics_server=backend.url)
        self.checks = self.make()

    def make(self, **settings: Any) -> Checks:
        providers = Providers(self.objects, environment=ProxyEnvironment())
        chosen = CanarySettings(metrics_server=self.backend.url, **settings)
        return Checks(self.store, self.objects, chosen, SystemClock(), self.observed, providers=providers)  # type: ignore[arg-type]

    def observed(self, about: Site, metric: str, value: float) -> None:
        self.seen.append((about.name, metric, value))

    async def measure(self, *metrics: Mapping[str, Any], **spec: Any) -> list[Check]:
        return list(await self.checks.measure(about(*metrics, **spec), NOW))

    async def texts(self, *metrics: Mapping[str, Any], **spec: Any) -> list[str]:
        return [check.text for check in await self.measure(*metrics, **spec)]

    async def probe(self, *metrics: Mapping[str, Any], **spec: Any) -> str:
        with pytest.raises(Problem) as caught:
            await self.checks.probe(about(*metrics, **spec))
        return str(caught.value)


def about(*metrics: Mapping[str, Any], name: str = "web", analysis: Mapping[str, Any] | None = None, **spec: Any) -> Site:
    data = {"interval": "10s", "threshold": 3, "stepWeight": 20, **(analysis or {}), "metrics": [dict(each) for each in metrics]}
    return site(name, analysis=data, spec={"provider": "istio", **spec})


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with FakePrometheus() as backend:
        made = Bench(backend)
        yield made
        await made.checks.aclose()
        assert not backend.problems


# --- order and number


def test_the_plan_has_built_in_and_inline_queries_before_templates() -> None:
    listed = [
        {"name": "a", "templateRef": {"name": "t"}, "query": "up"},
        RATE | {"query": "down"},
        {"name": "nothing"},
        DURATION | {"templateRef": {"name": "t"}},
    ]
    assert [(each.metric.name, each.source) for each in plan([Metric.model_validate(each) for each in listed])] == [
        ("a", Source.INLINE),
        ("request-success-rate", Source.SUCCESS_RATE),
        ("request-success-rate", Source.INLINE),
        ("request-duration", Source.DURATION),
        ("a", Source.TEMPLATE),
        ("nothing", None),
        ("request-duration", Source.TEMPLATE),
    ]


async def test_queries_come_in_the_order_of_the_manifest_though_none_waits_for_another(bench: Bench) -> None:
    bench.backend.default = "hang"
    listed = [{"name": f"m{n}", "query": f"q{n}"} for n in range(8)]
    asking = asyncio.create_task(bench.measure(*listed))
    while bench.backend.open < 8:
        await asyncio.sleep(0.01)
    assert bench.backend.texts == [f"q{n}" for n in range(8)]
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_failure_does_not_keep_others_from_being_asked(bench: Bench) -> None:
    bench.backend.replies = {"requests_total": 50.0, "duration": 1515.9}
    checks = await bench.measure(RATE, DURATION)
    assert [(check.verdict, check.value, check.threshold, check.count, check.at) for check in checks] == [
        (Verdict.FAIL, 50.0, ">= 99", 1, NOW),
        (Verdict.FAIL, 1515.0, "<= 500ms", 1, NOW),
    ]
    assert [check.query for check in checks] == bench.backend.texts
    assert bench.seen == [("web", "request-success-rate", 50.0), ("web", "request-duration", 1 + 0.515)]


async def test_equal_queries_are_sent_once(bench: Bench) -> None:
    listed = [{"name": "a", "query": "same", "threshold": 1}, {"name": "b", "query": "same", "threshold": 0}]
    first, second = await bench.measure(*listed)
    assert (first.verdict, second.verdict) == (Verdict.PASS, Verdict.FAIL)
    assert bench.backend.texts == ["same"]


async def test_equal_queries_of_several_canaries_are_sent_once_while_they_ask_together(bench: Bench) -> None:
    metric = {"name": "a", "query": "same", "threshold": 1}
    sites = [about(metric, name=f"c{n}") for n in range(5)]
    await asyncio.gather(*(bench.checks.measure(each, NOW) for each in sites))
    assert bench.backend.texts == ["same"]
    await bench.checks.measure(sites[0], NOW)
    assert bench.backend.texts == ["same", "same"]  # nothing is remembered
    other = about(metric, metricsServer=bench.backend.url.replace("127.0.0.1", "localhost"))
    await asyncio.gather(bench.checks.measure(sites[0], NOW), bench.checks.measure(other, NOW))
    assert len(bench.backend.texts) == 4


async def test_who_leaves_does_not_end_the_query_of_the_others(bench: Bench) -> None:
    bench.backend.default = "hang"
    tasks = [
        asyncio.create_task(bench.checks.measure(about({"name": "a", "query": "same"}, name=f"c{n}"), NOW)) for n in range(2)
    ]
    while not bench.backend.open:
        await asyncio.sleep(0.01)
    tasks[0].cancel()
    await asyncio.sleep(0.02)
    bench.backend.released.set()
    found = await tasks[1]
    assert "EOF" in found[0].text
    assert tasks[0].cancelled()
    assert len(bench.backend.texts) == 1


# --- what is asked


@pytest.mark.parametrize(
    ("provider", "flag", "piece"),
    [
        ("nginx", "istio", 'ingress="ing", canary!=""'),
        ("nginx", "linkerd", 'deployment=~"web"'),
        ("apisix", "istio", 'route=~"prod_rt-web-canary_.+"'),
        ("contour", "istio", "prod_svc-canary_"),
    ],
)
async def test_names_in_built_in_queries(bench: Bench, provider: str, flag: str, piece: str) -> None:
    spec = {
        "provider": provider,
        "ingressRef": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "ing"},
        "routeRef": {"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute", "name": "rt"},
        "service": {"port": 80, "name": "svc"},
    }
    data = {"interval": "10s", "threshold": 3, "stepWeight": 20, "metrics": [RATE]}
    await bench.checks.measure(site(analysis=data, spec=spec, settings=CanarySettings(mesh_provider=flag)), NOW)
    assert piece in bench.backend.texts[0]


async def test_durations_of_pods_come_in_seconds(bench: Bench) -> None:
    bench.backend.default = [0.9, 0.1234]
    check, *_ = await bench.measure(DURATION, provider="kubernetes")
    assert (check.value, check.text) == (900.0, "Halt web.prod advancement request duration 900ms > 500ms")
    assert check.count == 2
    assert bench.seen == [("web", "request-duration", 0.9)]


async def test_an_infinite_duration_fails(bench: Bench) -> None:
    bench.backend.default = "inf"
    assert await bench.texts(DURATION, provider="kubernetes") == ["Halt web.prod advancement request duration +Inf > 500ms"]
    assert bench.seen == [("web", "request-duration", math.inf)]


async def test_knative_routes_are_revisions(bench: Bench) -> None:
    target = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "web"}
    meta = {"name": "web", "namespace": "prod"}
    made = {"apiVersion": target["apiVersion"], "kind": "Service"}
    bench.objects.put({**made, "metadata": meta})
    bench.objects.put({**made, "metadata": {**meta, "name": "new"}})
    where = Reference(target["apiVersion"], "Service", "prod", "web")
    bench.objects.status(where, {"latestCreatedRevisionName": "web-00002"})
    await bench.measure(RATE, {"name": "r", "query": "{{ route }}"}, provider="knative", targetRef=target)
    assert 'envoy_cluster_name=~"prod/web-00002"' in bench.backend.texts[0]
    assert bench.backend.texts[1] == "web-00002"
    gone = await bench.measure(RATE, provider="knative", targetRef={**target, "name": "gone"})
    assert (gone[0].verdict, gone[0].text) == (Verdict.ERROR, 'services.serving.knative.dev "gone" not found')
    assert await bench.texts(RATE, provider="knative", targetRef={**target, "name": "new"}) == [
        "Knative Service new.prod has no revision yet"
    ]


def test_core_services_have_a_word_of_their_own() -> None:
    target = {"apiVersion": "v1", "kind": "Service", "name": "web"}
    assert subject_of(about(RATE, targetRef=target)).provider == "istio:service"


async def test_windows_have_a_default_unless_the_query_is_a_template(bench: Bench) -> None:
    bench.store.add("t", "t[{{ interval }}]", address=bench.backend.url)
    await bench.measure(
        {"name": "request-success-rate"}, {"name": "q", "query": "q[{{ interval }}]"}, {"name": "t", "templateRef": {"name": "t"}}
    )
    assert "[1m]" in bench.backend.texts[0]
    assert bench.backend.texts[1:] == ["q[1m]", "t[]"]


async def test_templates_bring_their_own_server_headers_and_secret(bench: Bench) -> None:
    bench.backend.bases = ("/mine",)
    bench.store.add(
        "t",
        'a{job="{{ variables.job }}"}\n  > 0',
        namespace="shared",
        address=f"{bench.backend.url}/mine",
        headers={"X-Scope-OrgID": ["tenant"]},
        secretRef={"name": "token"},
    )
    bench.store.secrets[Key("shared", "token")] = {"token": b"s3cret"}
    metric = {"name": "m", "templateRef": {"name": "t", "namespace": "shared"}, "templateVariables": {"job": "j"}, "threshold": 1}
    found = await bench.measure(metric)
    assert (found[0].verdict, found[0].query) == (Verdict.PASS, 'a{job="j"} > 0')
    sent = bench.backend.queries[0]
    assert (sent.path, sent.headers["authorization"], sent.headers["x-scope-orgid"]) == (
        "/mine/api/v1/query", "Bearer s3cret", "tenant",
    )  # fmt: skip


# --- words


async def test_metrics_that_cannot_be_asked_for(bench: Bench) -> None:
    url = bench.backend.url
    bench.store.add("bad", "{{ variables.k }}", address=url)
    bench.store.add("secretive", "up", address=url, secretRef={"name": "none"})
    bench.store.add("empty", "up", address=url, secretRef={"name": "empty"})
    bench.store.add("nowhere", "up", address="not a url")
    bench.store.secrets[Key("prod", "empty")] = {}

    def of(name: str) -> dict[str, Any]:
        return {"name": "m", "templateRef": {"name": name}}

    no_key = 'template excution failed: template: tmpl:1:3: executing "tmpl" at <variables>: map has no entry for key "k"'
    assert await bench.texts({"name": "x"}, of("gone"), of("bad"), of("secretive"), of("empty"), of("nowhere")) == [
        "Metric query failed for no usable metrics template and query were configured",
        'Metric template gone.prod error: metrictemplate.flagger.app "gone" not found',
        f"Metric template bad.prod query render error: {no_key}",
        'Metric template secretive.prod secret none error: secrets "none" not found',
        "Metric template empty.prod provider prometheus error: prometheus credentials does not contain a username",
        "Metric template nowhere.prod provider prometheus error: prometheus address not a url is not a valid URL",
    ]
    assert await bench.texts({"name": "m", "query": "{{ variables.k }}"}) == [f"Prometheus query failed for m: {no_key}"]
    assert not bench.backend.texts
    assert not bench.seen


async def test_queries_that_fail(bench: Bench) -> None:
    bench.store.add("t", "tmpl", address=bench.backend.url)
    bench.backend.default = "matrix"
    listed = [RATE, DURATION, {"name": "m", "query": "q"}, {"name": "m", "templateRef": {"name": "t"}}]
    why = "query returned multiple values"
    assert await bench.texts(*listed) == [
        f"Prometheus query failed: running query failed: {why}",
        f"Prometheus query failed: running query failed: {why}",
        f"Prometheus query failed for m: {why}",
        f"Metric query failed for m: {why}",
    ]
    bench.backend.default = "empty"
    halt = "Halt advancement no values found for"
    probably = "probably web.prod is not receiving traffic"
    assert await bench.texts(*listed, provider="nginx") == [
        f"{halt} nginx metric request-success-rate {probably}: running query failed: no values found",
        f"{halt} nginx metric request-duration {probably}",
        "Halt advancement no values found for metric: m",
        "Halt advancement no values found for custom metric: m: no values found",
    ]
    assert {check.verdict for check in await bench.measure(*listed, analysis={"onNoData": "Pass"})} == {Verdict.PASS}


async def test_a_store_that_cannot_be_read_is_no_missing_template(bench: Bench) -> None:
    bench.store.error = ReconcileError("the server is busy")
    metric = {"name": "m", "templateRef": {"name": "t"}}
    assert await bench.texts(metric) == ["Metric template t.prod error: the server is busy"]


async def test_other_namespaces_can_be_forbidden(bench: Bench) -> None:
    bench.store.add("t", "up", namespace="other", address=bench.backend.url)
    strict = bench.make(no_cross_namespace_refs=True)
    metric = {"name": "m", "templateRef": {"name": "t", "namespace": "other"}}
    text = "can't access metric template t.other, cross-namespace references are blocked"
    found = await strict.measure(about(metric), NOW)
    assert (found[0].verdict, found[0].text) == (Verdict.ERROR, text.capitalize())
    with pytest.raises(Problem) as caught:
        await strict.probe(about(metric))
    assert str(caught.value) == text
    bench.store.add("t", "up", address=bench.backend.url)
    assert [
        check.query
        for check in await strict.measure(about({"name": "m", "templateRef": {"name": "t", "namespace": "prod"}}), NOW)
    ] == ["up"]
    await strict.aclose()


# --- the probe before the first run


async def test_the_probe_asks_each_provider_and_no_inline_query(bench: Bench) -> None:
    bench.store.add("t", "up", address=bench.backend.url, headers={"X-Scope-OrgID": ["tenant"]})
    await bench.checks.probe(
        about(RATE, {"name": "m", "query": "{{ broken"}, {"name": "x"}, {"name": "t", "templateRef": {"name": "t"}})
    )
    assert bench.backend.texts == ["vector(1)", "vector(1)"]
    assert [query.headers.get("x-scope-orgid") for query in bench.backend.queries] == [None, "tenant"]
    await bench.checks.probe(about())


async def test_the_probe_names_the_first_provider_that_fails(bench: Bench) -> None:
    url = bench.backend.url
    bench.backend.replies["vector(1)"] = Raw(503, "busy")
    bench.store.add("t", "up", address=url)
    bench.store.add("secretive", "up", address=url, secretRef={"name": "none"})
    bench.store.add("nowhere", "up", address="")
    down = "running query failed: error response: Status 503 Service Unavailable: busy"
    assert await bench.probe(RATE, {"name": "t", "templateRef": {"name": "t"}}) == f"prometheus not avaiable: {down}"
    assert len(bench.backend.texts) == 1

    def of(name: str) -> dict[str, Any]:
        return {"name": "m", "templateRef": {"name": name}}

    assert await bench.probe(of("t"), RATE) == f"prometheus in metric template t.prod not avaiable: {down}"
    assert await bench.probe(of("gone")) == 'metric template gone.prod error: metrictemplate.flagger.app "gone" not found'
    assert await bench.probe(of("secretive")) == 'metric template secretive.prod secret none error: secrets "none" not found'
    assert await bench.probe(of("nowhere")) == (
        "metric template nowhere.prod provider prometheus error: prometheus address  is not a valid URL"
    )
    refused = await bench.probe(RATE, metricsServer="http://127.0.0.1:1")
    assert refused == (
        "prometheus not avaiable: running query failed: request failed: "
        'Get "http://127.0.0.1:1/api/v1/query?query=vector%281%29": '
        "dial tcp 127.0.0.1:1: connect: connection refused"
    )
