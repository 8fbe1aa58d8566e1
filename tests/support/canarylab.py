"""Canaries on a real API server with a real Prometheus: one service, one world, and many stories side by side.

A story is a function that is given a `Stage`: a namespace of its own, and ways to act in it and to wait. `Theatre` runs each in a
thread. What happened in a story is read from its chronicle afterwards: every version of every object, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support import router_crds
from tests.support.clusterlab import ClusterLab, Replica, cluster_lab
from tests.support.controlplane import Cluster
from tests.support.history import Chronicle, History, Version, changes, states
from tests.support.kubeapi import ApiError, KubeApi, Object, condition
from tests.support.prometheus_server import PrometheusServer
from tests.support.traffic import Traffic
from tests.support.webhooks import Received, Receiver, Reply

FLAGGER = "flagger.app/v1beta1"
ISTIO = "networking.istio.io/v1beta1"
INGRESS = "networking.k8s.io/v1"
GATEWAY = "gateway.networking.k8s.io/v1"
TRAEFIK = "traefik.io/v1alpha1"
PATIENCE = 100.0
"""Seconds that a step of a story may take; most take one interval, which is ten seconds."""
WATCHED = (
    (FLAGGER, "Canary"),
    ("v1", "Event"),
    ("v1", "Pod"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    (ISTIO, "VirtualService"),
    (INGRESS, "Ingress"),
    (GATEWAY, "HTTPRoute"),
    (TRAEFIK, "TraefikService"),
)
WAITING = "not ready: waiting for rollout to finish"
FINALIZER_FREE = {"metadata": {"finalizers": None}}


# --- manifests


def deployment(name: str = "web", *, tag: str = "1", replicas: int = 2, annotations: Mapping[str, str] | None = None,
               **pod: Any) -> Object:  # fmt: skip
    """A target with the selector label `app`."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, tag, annotations, **pod),
        },
    }


def daemonset(name: str = "web", *, tag: str = "1") -> Object:
    """A target with a pod on every node; the new one is there before the old one goes."""
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    spec = {"updateStrategy": update, "selector": {"matchLabels": {"app": name}}, "template": template(name, tag, None)}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name}, "spec": spec}


def template(name: str, tag: str, annotations: Mapping[str, str] | None, **pod: Any) -> Object:
    """A pod template."""
    container = {"name": "app", "image": f"example.org/{name}:{tag}", "ports": [{"containerPort": 8080}]}
    metadata = {"labels": {"app": name}, **({"annotations": dict(annotations)} if annotations else {})}
    return {"metadata": metadata, "spec": {"containers": [container], **pod}}


def autoscaler(name: str = "web", *, least: int = 2, most: int = 4) -> Object:
    """A HorizontalPodAutoscaler of autoscaling/v2."""
    utilization = {"type": "Utilization", "averageUtilization": 99}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": utilization}}],
        },
    }


SUCCESS = {"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "30s"}
DURATION = {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"}


def canary(provider: str = "istio", *, kind: str = "Deployment", spec: Object | None = None, service: Object | None = None,
           **analysis: Any) -> Object:  # fmt: skip
    """A Canary of `web`: one step to 50, judged by both built-in metrics, unless the analysis says otherwise."""
    wanted: Object = {"interval": "10s", "threshold": 2, "metrics": [SUCCESS, DURATION], **analysis}
    if not {"iterations", "stepWeight", "stepWeights"} & wanted.keys():
        wanted |= {"stepWeight": 50, "maxWeight": 50}
    return {
        "apiVersion": FLAGGER,
        "kind": "Canary",
        "metadata": {"name": "web"},
        "spec": {
            "provider": provider,
            "targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": "web"},
            "service": {"port": 80, "targetPort": 8080, **(service or {})},
            "analysis": wanted,
            **(spec or {}),
        },
    }


# --- who is asked


class Gates:
    """Webhooks on a loop of their own: each path answers yes until it is closed. A context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="webhooks", daemon=True)
        self._receiver = Receiver()
        self._closed: dict[str, bool] = {}

    def url(self, path: str) -> str:
        """The address of a hook."""
        return f"{self._receiver.url}{path}"

    @property
    def address(self) -> str:
        """The address of all."""
        return self._receiver.url

    def close(self, path: str, text: str = "not yet") -> None:
        """Answer no on this path, until it is opened."""
        self._receiver.script(path, *[Reply(403, text.encode())] * 1000)

    def hang(self, path: str) -> None:
        """Do not answer the next request on this path."""
        self._receiver.script(path, Reply(hang=True))

    def open(self, path: str) -> None:
        """Answer yes."""
        self._loop.call_soon_threadsafe(self._receiver._scripts.pop, path, None)

    def requests(self, path: str) -> list[Received]:
        """What came to a path."""
        return [request for request in list(self._receiver.requests) if request.path == path]

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._receiver.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call(self._receiver.__aexit__())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(20)
            self._loop.close()

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)


class NameProxy:
    """An HTTP proxy that knows where some names are, so that addresses in manifests can stay as they are; a context manager.

    Args:
        places: By host name, the address (`http://127.0.0.1:port`) that stands for it. Other hosts get 502.
        inside: The same for addresses (`http://NAME`) within bodies.
    """

    def __init__(self, places: Mapping[str, str], inside: Mapping[str, str] | None = None) -> None:
        self.places, self.inside = dict(places), dict(inside or {})
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="proxy", daemon=True)

    @property
    def url(self) -> str:
        """For HTTP_PROXY."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(20)
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                for name, place in proxy.inside.items():
                    body = body.replace(name.encode(), place.encode())
                parts = urlsplit(self.path)
                proxy.asked.append(self.path)
                known = proxy.places.get(parts.hostname or "")
                if known is None:
                    self.answer(502, f"no such host {parts.hostname}".encode())
                    return
                headers = {"Content-Type": self.headers.get("Content-Type", "")}
                found = httpx.post(f"{known}{parts.path}", content=body, headers=headers, timeout=60.0, trust_env=False)
                self.answer(found.status_code, found.content)

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


# --- the world


@dataclass
class World:
    """What all stories of a run share."""

    lab: ClusterLab
    traffic: Traffic
    prometheus: PrometheusServer
    gates: Gates
    history: History
    proxy: NameProxy
    services: dict[str, Service] = field(default_factory=dict)

    @property
    def api(self) -> KubeApi:
        """The API as administrator."""
        return self.lab.api

    def service(self, name: str = "flagger", *flags: str, namespace: str = "", prometheus: str = "") -> Service:
        """A process of the service, not started: for all namespaces, or for one, with this Prometheus or that of the world."""
        surroundings = {"HTTP_PROXY": self.proxy.url, **({"RUNTIME_NAMESPACE": namespace} if namespace else {})}
        replica = self.lab.replica(name, **surroundings)  # type: ignore[arg-type]
        scope = ("--watch-all-namespaces=false",) if namespace else ()
        metrics = ("--metrics-server", prometheus or self.prometheus.url)
        self.services[name] = Service(replica, ("--controllers", "canary", *metrics, *scope, *flags))
        return self.services[name]


class Service:
    """One process of the service that runs Canaries, and how it is started."""

    def __init__(self, replica: Replica, flags: Sequence[str]) -> None:
        self.replica, self.flags = replica, tuple(flags)
        self.metrics_port = 0

    def start(self, *, ready: bool = True) -> Self:
        """Start it (again)."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.metrics_port = listening.getsockname()[1]
        self.replica.start(*self.flags, "--metrics-addr", f"127.0.0.1:{self.metrics_port}", ready=ready)
        return self

    def exported(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Its metrics by name and labels."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=20.0, trust_env=False).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


@contextmanager
def canary_lab(cluster: Cluster, namespace: str, root: Path) -> Iterator[World]:
    """The world, opened: all kinds served, Prometheus scraping, nothing of ours running yet."""
    with ExitStack() as stack:
        lab = stack.enter_context(cluster_lab(cluster, namespace, root))
        router_crds.install(cluster.api)
        traffic, gates = stack.enter_context(Traffic()), stack.enter_context(Gates())
        proxy = stack.enter_context(NameProxy({"flagger-loadtester.test": gates.address}))
        prometheus = PrometheusServer(lab.supervisor, root / "prometheus", traffic.address)
        prometheus.start()
        watching = stack.enter_context(KubeApi.from_kubeconfig(cluster.kubeconfig))
        history = stack.enter_context(History(watching, *WATCHED))
        yield World(lab, traffic, prometheus, gates, history, proxy)


# --- one story

Weight = Callable[[Object], int | None]
"""The canary's weight in a route."""


@dataclass(frozen=True)
class Told:
    """What an event says."""

    kind: str
    text: str


@dataclass
class Stage:
    """The namespace of one story, where all objects have one name.

    Attributes:
        name: Of the objects.
        demand: Ready pods that there have to be at every moment.
        began: Resource version from which on the demand is covered; set by `bootstrap`.
        ended: Resource version up to which that is asked for; 0 for ever.
        served_by: The process of the service that is asked for metrics.
        notes: What a story wants to tell its test.
    """

    world: World
    namespace: str
    name: str = "web"
    demand: int = 2
    began: int = 0
    ended: int = 0
    served_by: str = "flagger"
    notes: dict[str, Any] = field(default_factory=dict)

    # --- acting

    @property
    def api(self) -> KubeApi:
        return self.world.api

    def create(self, *objects: Object) -> None:
        """Make objects."""
        for body in objects:
            self.api.create({**body, "metadata": {**body["metadata"], "namespace": self.namespace}})

    def delete(self, kind: str = "Canary", name: str = "web") -> None:
        """Ask for the end of an object."""
        self.api.delete(FLAGGER, kind, name, self.namespace)

    def patch(self, kind: str, patch: Object, name: str = "web") -> Object:
        """Merge patch of an object."""
        versions = {"Canary": FLAGGER, "ConfigMap": "v1", "VirtualService": ISTIO}
        return self.api.merge_patch(versions.get(kind, "apps/v1"), kind, name, patch, self.namespace)

    def traffic(self, **quality: float) -> None:
        """What requests to the target are like from now on: `failing` (a share), `latency` (milliseconds)."""
        self.world.traffic.set(self.namespace, self.name, **quality)

    def bootstrap(self, *objects: Object, wait: bool = True, **quality: float) -> None:
        """Make a target, a Canary and what else there is, and wait until the Canary is initialized.

        Traffic has its quality from the start: rates are then the same over any window.
        """
        self.traffic(**quality)
        self.create(*objects)
        if wait:
            self.until_phase("Initialized")
        self.began = self.began or max(v.revision for v in self.chronicle.of())

    def release(self, tag: str, *, kind: str = "Deployment", annotations: Mapping[str, str | None] | None = None) -> None:
        """A new revision of the target."""
        changed: Object = {"spec": {"containers": template(self.name, tag, None)["spec"]["containers"]}}
        if annotations:
            changed["metadata"] = {"annotations": dict(annotations)}
        self.patch(kind, {"spec": {"template": changed}}, self.name)

    # --- waiting

    @property
    def chronicle(self) -> Chronicle:
        """All that happens here."""
        return self.world.history.namespace(self.namespace)

    def until(self, probe: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Wait until something holds, looking after each change."""
        try:
            return self.chronicle.until(probe, f"{what} in {self.namespace}", seconds)
        except AssertionError as error:
            texts = "\n".join(f"{told.kind} {told.text}" for told in self.events()[-12:])
            raise AssertionError(f"{error}; phases {self.phases()}, weights {self.weights()}, events:\n{texts}") from None

    def catch_up(self) -> None:
        """Wait until the chronicle has what the cluster has of the workload: each kind is watched by itself, some come later."""

        def level() -> bool:
            now = self.find("Deployment", self.name)
            known = self.chronicle.of("Deployment", self.name)
            return now is None or (bool(known) and known[-1].revision >= int(now["metadata"]["resourceVersion"]))

        self.until(level, "the chronicle to catch up")

    def until_phase(self, *wanted: str, seconds: float = PATIENCE) -> None:
        """Wait until the Canary is in one of these phases."""
        self.until(lambda: self.phases()[-1:] and self.phases()[-1] in wanted, f"phase {' or '.join(wanted)}", seconds)

    def until_passed(self, phase: str, seconds: float = PATIENCE) -> None:
        """Wait until the Canary has been in a phase, lately or now."""
        self.until(lambda: phase in self.phases(), f"phase {phase}", seconds)

    def until_event(self, text: str, *, times: int = 1, seconds: float = PATIENCE) -> None:
        """Wait until an event with this text was told so many times."""
        self.until(lambda: sum(text in told.text for told in self.events()) >= times, f"event {text!r}", seconds)

    def until_weight(self, weight: int, seconds: float = PATIENCE) -> None:
        """Wait until the VirtualService gives the canary this weight."""
        self.until(lambda: self.weights()[-1:] == [weight], f"weight {weight}", seconds)

    # --- what happened

    def events(self) -> list[Told]:
        """What was told of the Canary, in order; each repetition counts."""
        told: list[Told] = []
        for version in self.chronicle.of("Event"):
            body = version.body
            if not version.gone and body["involvedObject"]["kind"] == "Canary":
                told.append(Told(body["type"], body["message"].replace(self.namespace, "NS")))
        return told

    def told(self) -> list[Told]:
        """What was told since the initialization: what goes on before depends on the machine."""
        events = self.events()
        start = next((n for n, told in enumerate(events) if told.text.startswith("Initialization done!")), -1)
        return events[start + 1 :]

    def texts(self) -> list[str]:
        """The texts since the initialization, but for those about pods that are not there yet: that too depends on it."""
        return [told.text for told in self.told() if WAITING not in told.text]

    def warnings(self) -> list[str]:
        """The texts of warnings, as `texts` has them."""
        return [told.text for told in self.told() if told.kind == "Warning" and WAITING not in told.text]

    def waits(self) -> list[str]:
        """The texts about pods that were not there yet."""
        return [told.text for told in self.told() if WAITING in told.text]

    def statuses(self, name: str = "") -> list[Object]:
        """Each status that a Canary had."""
        return [version.body.get("status") or {} for version in self.chronicle.of("Canary", name or self.name)]

    def status(self) -> Object:
        """The last one."""
        return self.statuses()[-1]

    def phases(self, name: str = "") -> list[str]:
        """Its phases in order."""
        return changes([status["phase"] for status in self.statuses(name) if "phase" in status])

    def weights(self, kind: str = "VirtualService", name: str = "", read: Weight | None = None) -> list[int]:
        """Weights of the canary in a route, in order."""
        read = read or istio_weight
        found = [read(version.body) for version in self.chronicle.of(kind, name or self.name) if not version.gone]
        return changes([weight for weight in found if weight is not None])

    def ladder(self, field: str) -> list[int]:
        """The values that a number in the status had, in order."""
        return changes([int(status.get(field) or 0) for status in self.statuses() if status])

    def image(self, name: str = "web", kind: str = "Deployment") -> str:
        """The tag that a workload has."""
        found = self.chronicle.of(kind, name)[-1]
        assert not found.gone, f"{kind} {name} is gone"
        return str(found.body["spec"]["template"]["spec"]["containers"][0]["image"]).rpartition(":")[2]

    def sizes(self, name: str = "") -> list[int]:
        """The replicas that a Deployment was to have, in order."""
        return changes([v.body["spec"]["replicas"] for v in self.chronicle.of("Deployment", name or self.name)])

    def find(self, kind: str, name: str = "web") -> Object | None:
        """An object as it is now."""
        versions = {each: version for version, each in WATCHED} | {"ConfigMap": "v1", "DestinationRule": ISTIO}
        return self.api.find(versions[kind], kind, name, self.namespace)

    def metric(self, family: str, /, **labels: str) -> float | None:
        """A metric of the service; `namespace` is added."""
        return (
            self.world.services[self.served_by]
            .exported()
            .get((family, frozenset({**labels, "namespace": self.namespace}.items())))
        )

    # --- laws

    def check_capacity(self) -> None:
        """At every moment since the bootstrap as many pods are ready as the demand asks for."""
        looked = 0
        for version, now in states(self.chronicle.of()):
            if version.kind == "Pod" and self._within(version):
                looked += 1
                sides = [ready(now, f"{self.name}-primary"), ready(now, self.name)]
                assert sum(sides) >= self.demand, f"{sides} pods ready at {version.revision} in {self.namespace}"
        assert looked or self.ended, "there was no pod to look at"

    def check_routes(self) -> None:
        """At every moment since the bootstrap a side that gets traffic has a ready pod."""
        for version, now in states(self.chronicle.of()):
            route = now.get(("VirtualService", self.name))
            weight = istio_weight(route) if route is not None else None
            if weight is not None and self._within(version):
                where = f"with {weight} % for the canary at {version.revision} in {self.namespace}"
                assert weight == 100 or ready(now, f"{self.name}-primary"), f"no primary {where}"
                assert weight == 0 or ready(now, self.name), f"no canary {where}"

    def _within(self, version: Version) -> bool:
        return version.revision >= self.began and not (self.ended and version.revision > self.ended)


def ready(now: Mapping[tuple[str, str], Object], app: str) -> int:
    """Ready pods of one side."""
    pods = [body for (kind, _), body in now.items() if kind == "Pod" and body["metadata"].get("labels", {}).get("app") == app]
    return sum(condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"] for pod in pods)


def istio_weight(found: Object) -> int | None:
    """The canary's weight in a VirtualService of ours."""
    for rule in (found.get("spec") or {}).get("http") or ():
        shares = {entry["destination"]["host"]: entry.get("weight", 0) for entry in rule.get("route") or ()}
        for host, weight in shares.items():
            if host.endswith("-canary"):
                return int(weight)
    return None


# --- many stories


Story = Callable[[Stage], None]


class Theatre:
    """Runs stories side by side, each in a namespace and a thread of its own; a context manager."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stages: dict[str, Stage] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._failures: dict[str, BaseException] = {}

    def start(self, name: str, story: Story, *, namespace: str = "") -> None:
        """Begin a story, in a namespace that it makes up unless told."""
        namespace = namespace or f"{name.replace('_', '-')[:40].strip('-')}-{secrets.token_hex(3)}"
        self.world.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        stage = self.stages[name] = Stage(self.world, namespace)

        def run() -> None:
            try:
                story(stage)
            except BaseException as error:
                self._failures[name] = error

        self._threads[name] = threading.Thread(target=run, name=f"story {name}", daemon=True)
        self._threads[name].start()

    def told(self, name: str) -> Stage:
        """Wait for the end of a story; raises what it raised, and checks the laws that hold in all of them."""
        self._threads[name].join(400)
        assert not self._threads[name].is_alive(), f"story {name} does not end"
        if name in self._failures:
            raise self._failures[name]
        stage = self.stages[name]
        stage.catch_up()
        stage.check_capacity()
        stage.check_routes()
        return stage

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads.values():
            thread.join(1)
        for stage in self.stages.values():
            remove(self.world.api, stage.namespace)


def remove(api: KubeApi, namespace: str, names: Sequence[str] = ("web",)) -> None:
    """A namespace with Canaries, also ones that wait for a service which has ended."""
    for name in names:
        with contextlib.suppress(ApiError, LookupError):
            api.merge_patch(FLAGGER, "Canary", name, FINALIZER_FREE, namespace)
    api.delete("v1", "Namespace", namespace, missing_ok=True)
