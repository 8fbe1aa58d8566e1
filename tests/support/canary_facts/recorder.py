"""Plays stories of Canaries on the running service and writes down what can be seen from outside, as it was recorded of Flagger.

A story is a function that is given a `Story`: it creates objects, scripts metrics and webhooks, and waits for what happens. Each
has the namespace `st-<name>`, so that many run side by side before one service. What a record has, volatile parts masked:

  status, conditions  each state that the Canary had, in order
  events              every event as posted to the event webhook
  kubeEvents          Events on the Canary as stored
  objects             each object of the namespace: its first version in full, then what changed
  hooks, alerts       what webhooks and chats were sent
  queries             what Prometheus was asked
  metrics             exported series of the namespace at the end
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support import router_crds
from tests.support.canary_facts.listeners import GoldenSignals, in_thread
from tests.support.canary_facts.observed import (
    COOKIES,
    Record,
    calls_of,
    changed_only,
    condition_of,
    event_of,
    kube_event_of,
    masked,
    numbered,
    objects_of,
    request_of,
    state_of,
)
from tests.support.canarylab import remove
from tests.support.clusterlab import cluster_lab
from tests.support.controlplane import Cluster
from tests.support.history import Chronicle, History, Version
from tests.support.kubeapi import KubeApi, Object
from tests.support.prometheus import Reply
from tests.support.webhooks import Received, Receiver
from tests.support.webhooks import Reply as Answer

PATIENCE = 200.0
"""Seconds that one step of a story may take on a busy machine; nearly all take one interval, which is ten."""
SIDE_BY_SIDE = 18
APART = 0.7
"""Seconds between two beginnings, so that steps of different stories do not come at one moment."""
FLAGGER, ISTIO, KUMA = "flagger.app/v1beta1", "networking.istio.io/v1beta1", "kuma.io/v1alpha1"
VERSIONS = {"Canary": FLAGGER, "ConfigMap": "v1", "Secret": "v1", "Service": "v1", "Deployment": "apps/v1"}
WATCHED = (
    (FLAGGER, "Canary"),
    ("v1", "Event"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("networking.k8s.io/v1", "Ingress"),
    (ISTIO, "VirtualService"),
    (ISTIO, "DestinationRule"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("projectcontour.io/v1", "HTTPProxy"),
    ("gateway.solo.io/v1", "RouteTable"),
    ("gloo.solo.io/v1", "Upstream"),
    ("apisix.apache.org/v2", "ApisixRoute"),
    (KUMA, "TrafficRoute"),
    ("serving.knative.dev/v1", "Service"),
    ("keda.sh/v1alpha1", "ScaledObject"),
)
NOT_RECORDED = {"Canary", "Event"}

Play = Callable[["Story"], None]


# --- one story


class Closing(Exception):
    """The run ends before the story does."""


class Story:
    """One story that is being played: ways to act, to script and to wait, and what was observed so far."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.ns = world, name, f"st-{name}"
        self.api = world.api
        self.ended = threading.Event()

    @property
    def chronicle(self) -> Chronicle:
        """All versions of all objects."""
        return self.world.history.namespace(self.ns)

    # --- acting

    def hook(self, name: str, kind: str = "") -> Object:
        """A webhook of the Canary."""
        return {"name": name, "url": f"{self.world.sink.url}/{self.ns}/{name}", **({"type": kind} if kind else {})}

    def alert_url(self, name: str) -> str:
        """Address of a chat."""
        return f"{self.world.sink.url}/{self.ns}/alert/{name}"

    def prometheus_url(self) -> str:
        """Address of a Prometheus of the story's own."""
        return f"{self.world.prometheus.url}/{self.ns}"

    def apply(self, *objects: Object) -> None:
        """Create objects."""
        for body in objects:
            self.api.create({**body, "metadata": {**body["metadata"], "namespace": self.ns}})

    def patch(self, kind: str, name: str, patch: Object, api_version: str = "", subresource: str | None = None) -> Object:
        """Merge patch of an object."""
        return self.api.merge_patch(api_version or VERSIONS[kind], kind, name, patch, self.ns, subresource=subresource)

    def spec(self, **changes: Any) -> None:
        """Merge into the Canary's spec."""
        self.patch("Canary", "web", {"spec": changes})

    def delete(self) -> None:
        """Ask for the Canary's end, and wait for it."""
        self.api.delete(FLAGGER, "Canary", "web", self.ns)
        self.phase("(deleted)")

    def release(self, tag: str = "2") -> None:
        """A new revision of the target."""
        containers = self.api.get("apps/v1", "Deployment", "web", self.ns)["spec"]["template"]["spec"]["containers"]
        containers[0]["image"] = f"example.org/web:{tag}"
        self.patch("Deployment", "web", {"spec": {"template": {"spec": {"containers": containers}}}})

    # --- scripting

    def metric(self, **replies: Reply) -> None:
        """What queries are answered from now on: `success`, `duration`, `custom`."""
        for kind, reply in replies.items():
            self.world.prometheus.rules[self.ns, kind] = reply

    def answer(self, hook: str, status: int, text: str = "no") -> None:
        """What a webhook answers from now on."""
        self.world.sink.standing[f"/{self.ns}/{hook}"] = Answer(status, text.encode())

    # --- waiting

    def until(self, probe: Callable[[], Any], what: str) -> None:
        """Wait until something holds, looking after each change."""

        def holds() -> Any:
            if self.world.closing.is_set():
                raise Closing
            return probe()

        try:
            self.chronicle.until(holds, what, PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.states()[-1:]}, last event {self.events()[-1:]}") from None

    def phase(self, phase: str) -> None:
        """Wait until the Canary is in a phase."""
        self.until(lambda: self.now["phase"] == phase, f"phase {phase}")

    def weight(self, weight: int) -> None:
        """Wait until the canary has a weight in the status."""
        self.until(lambda: self.now["canaryWeight"] == weight and self.now["phase"] == "Progressing", f"weight {weight}")

    def event(self, text: str, times: int = 1) -> None:
        """Wait until an event with this text was posted so many times."""
        self.until(lambda: self.posted(text) >= times, f"event {text!r} x{times}")

    def called(self, hook: str, times: int = 1) -> None:
        """Wait until a webhook was called so many times."""
        path = f"/{self.ns}/{hook}"
        self.until(lambda: sum(r.path == path for r in self.world.received[self.ns]) >= times, f"hook {hook} x{times}")

    def initialized(self) -> None:
        """Wait for the end of the initialization."""
        self.phase("Initialized")
        self.event("Initialization done")

    def settle(self, seconds: float = 2.0) -> None:
        """Give what ought not to happen time to do so."""
        self.world.closing.wait(seconds)

    def until_stored(self, seconds: float = 10.0) -> None:
        """Events are written in the background: give the last ones time to arrive."""

        def stored() -> bool:
            return {e["message"] for e in self.events()} <= {e["message"] for e in self.kube_events()}

        with contextlib.suppress(AssertionError):
            self.chronicle.until(stored, "all events to be stored", seconds)

    # --- observing

    @property
    def now(self) -> Object:
        """The Canary's state."""
        return (self.states() or [{"phase": None, "canaryWeight": 0, "failedChecks": 0}])[-1]

    def posted(self, text: str) -> int:
        """How many events with this text were posted."""
        return sum(text in event["message"] for event in self.events())

    def states(self) -> list[Object]:
        """Each state that the Canary had."""
        return [state_of(version) for version in self.chronicle.of("Canary")]

    def events(self) -> list[Object]:
        """What was posted to the event webhook."""
        return [event_of(r.data) for r in self.world.received[self.ns] if r.path == "/events"]

    def kube_events(self) -> list[Object]:
        """The Canary's Events."""
        stored = [v.body for v in self.chronicle.of("Event") if not v.gone and v.body["involvedObject"]["kind"] == "Canary"]
        return [kube_event_of(body) for body in stored]

    def record(self, error: str | None) -> Record:
        """All that was observed, masked."""
        with self.chronicle.changed:
            seen = self.chronicle.of("Canary")
            statuses = [version.body.get("status") or {} for version in seen if not version.gone]
            received = list(self.world.received[self.ns])
        hooks = [r for r in received if r.path.startswith(f"/{self.ns}/") and not r.path.startswith(f"/{self.ns}/alert/")]
        chats = [r for r in received if r.path.startswith(f"/{self.ns}/alert/")]
        record = {
            "story": self.name,
            "error": error,
            "status": changed_only(self.states()),
            "conditions": changed_only([condition_of(c) for status in statuses for c in status.get("conditions") or ()]),
            "events": self.events(),
            "kubeEvents": self.kube_events(),
            "objects": objects_of(self.world.versions(self.ns)),
            "hooks": calls_of(hooks),
            "alerts": [{"provider": r.path.split("/", 3)[3], **request_of(r)} for r in chats],
            "queries": self.world.queries(self.ns),
            "metrics": self.world.series(self.ns),
        }
        hashes = [status.get(key) for status in statuses for key in ("lastAppliedSpec", "lastPromotedSpec")]
        cookies = [status[key].split("=")[-1] for status in statuses for key in COOKIES if status.get(key)]
        names = {self.world.prometheus.url: "http://PROMETHEUS", self.world.sink.url: "http://SINK"}
        names |= numbered(cookies, "<cookie{}>") | numbered(hashes, "h{}")
        return masked(record, names)


# --- many stories


class World:
    """What all stories of a run share: a cluster that is watched, metrics and a listener that are scripted, one service."""

    def __init__(self, api: KubeApi, history: History, prometheus: GoldenSignals) -> None:
        self.api, self.history, self.prometheus = api, history, prometheus
        self.received: dict[str, list[Received]] = defaultdict(list)
        self.sink = Receiver(told=self._hear)
        self.sink.default = Answer(200, b"ok")
        self.metrics_address = ""
        self.closing = threading.Event()

    def _hear(self, request: Received) -> None:
        parts = urlsplit(request.path).path.strip("/").split("/")
        namespace = parts[0] if len(parts) > 1 else str(request.data.get("namespace", ""))
        chronicle = self.history.namespace(namespace)
        with chronicle.changed:
            self.received[namespace].append(request)
            chronicle.changed.notify_all()

    def versions(self, namespace: str) -> list[Version]:
        """All versions of what a story may show; objects without a namespace are found by what they say."""
        everywhere = [v for v in self.history.namespace("").of() if namespace in json.dumps(v.body.get("spec", {}))]
        found = [v for v in self.history.namespace(namespace).of() if v.kind not in NOT_RECORDED]
        return [v for v in found + everywhere if v.name != "kube-root-ca.crt"]

    def queries(self, namespace: str) -> list[Object]:
        """Each query about a namespace, in order of first appearance."""
        found: dict[str, Object] = {}
        for query in self.prometheus.queries:
            if self.prometheus.about(f"{query.path}/", query.query) == namespace:
                headers = {k: v for k, v in query.headers.items() if k == "authorization" or k.startswith("x-")}
                entry = {"method": "GET", "path": query.path, "query": query.query, **({"headers": headers} if headers else {})}
                found.setdefault(json.dumps(entry), entry)
        return list(found.values())

    def series(self, namespace: str) -> list[str]:
        """The exported series about a namespace."""
        text = httpx.get(f"http://{self.metrics_address}/metrics", timeout=20.0, trust_env=False).text
        return sorted(line for line in text.splitlines() if f'namespace="{namespace}"' in line and "duration_seconds" not in line)

    def play(self, name: str, play: Play) -> Record:
        """Play one story; its record, also of one that did not come to its end."""
        story = Story(self, name)
        error = None
        renew_namespace(self.api, story.ns)
        try:
            play(story)
            story.settle()
            story.until_stored()
        except Exception as failure:
            error = f"{failure}\n{traceback.format_exc(limit=-3)}"
        finally:
            story.ended.set()
        try:
            return story.record(error)
        finally:
            self.api.delete(FLAGGER, "Canary", "web", story.ns, missing_ok=True)
            remove(self.api, story.ns)


def renew_namespace(api: KubeApi, name: str) -> None:
    """An empty namespace, also where there was one of this name."""
    if api.find("v1", "Namespace", name):
        api.delete("v1", "Namespace", name, missing_ok=True)
        api.wait("v1", "Namespace", name, lambda found: found is None, seconds=60)
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def open_definitions() -> list[Object]:
    """The routers' kinds, accepting anything and adding nothing, as they were when the facts were recorded."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"openAPIV3Schema": {**anything, "properties": {"spec": anything, "status": anything}}}
    found = router_crds.definitions()
    for manifest in found:
        for version in manifest["spec"]["versions"]:
            version["schema"] = schema
            version.pop("additionalPrinterColumns", None)
    return found


@contextmanager
def canary_world(cluster: Cluster, namespace: str, root: Path, names: list[str]) -> Iterator[World]:
    """The world of these stories, with the service running and ready."""
    with ExitStack() as stack:
        lab = stack.enter_context(cluster_lab(cluster, namespace, root))
        stack.callback(router_crds.install, cluster.api)
        for manifest in open_definitions():
            cluster.api.install_crd(manifest)
        cluster.api.delete(KUMA, "TrafficRoute", "web", missing_ok=True)  # has no namespace to go with
        watching = stack.enter_context(KubeApi.from_kubeconfig(cluster.kubeconfig))
        history = stack.enter_context(History(watching, *WATCHED))
        prometheus = GoldenSignals([f"st-{name}" for name in names])
        world = World(cluster.api, history, prometheus)
        stack.enter_context(in_thread(prometheus, world.sink))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            world.metrics_address = f"127.0.0.1:{listening.getsockname()[1]}"
        lab.replica("canaries").start(
            "--controllers", "canary", "--mesh-provider", "istio", "--metrics-server", prometheus.url,
            "--event-webhook", f"{world.sink.url}/events", "--metrics-addr", world.metrics_address,
        )  # fmt: skip
        yield world


@contextmanager
def playing(world: World, plays: Mapping[str, Play], side_by_side: int = SIDE_BY_SIDE) -> Iterator[dict[str, Future[Record]]]:
    """Play stories, which begin in this order; the records as they will be. At the end those that are left are given up."""
    records: dict[str, Future[Record]] = {name: Future() for name in plays}
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in plays:
        waiting.put(name)
    gate = threading.Lock()

    def begin() -> str | None:
        with gate:
            world.closing.wait(APART)
            return None if world.closing.is_set() or waiting.empty() else waiting.get()

    def work() -> None:
        while name := begin():
            try:
                records[name].set_result(world.play(name, plays[name]))
            except BaseException as failure:
                records[name].set_exception(failure)

    threads = [threading.Thread(target=work, name=f"story {n}", daemon=True) for n in range(min(side_by_side, len(plays)))]
    for thread in threads:
        thread.start()
    try:
        yield records
    finally:
        world.closing.set()
        for thread in threads:
            thread.join(20)
