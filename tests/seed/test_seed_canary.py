"""The chapter's Canary does what it says, as written: minute by minute from a new revision to its promotion.

Webhooks go by their written address to the real load tester, over sockets; a proxy tells where that is. What is pretended is the
cluster and the metrics; a real API server and a real Prometheus are asked in `tests/cluster`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from canary.loadtester.payload import Refused
from canary.metrics.base import Verdict
from canary.phases import Phase
from canary.status import phase_of
from reconcile.api.meta import Key
from reconcile.app import load_packages
from reconcile.ports.cluster import Object, Reference
from reconcile.yamlio import load_documents
from tests.support.canarylab import NameProxy, autoscaler, deployment
from tests.support.canaryworld import CanaryWorld, canary_world
from tests.support.loadtesting import FakeReleases, LoadTester, running
from tests.support.seed_canary import FOLDER, seed_canary
from tests.support.webhooks import Receiver

KEY = Key("production", "my-app")
MINUTE = 60.0


def test_strict_decoding_accepts_it() -> None:
    scheme = load_packages().scheme
    ((body, _),) = load_documents((FOLDER / "canary.yaml").read_text(), "canary.yaml")
    info = scheme.find(body["apiVersion"], body["kind"])
    assert info is not None
    found = scheme.decode(info, body, strict=True)
    spec = found.spec
    assert found.key == KEY
    assert (spec.target_ref.name, spec.service.gateways, spec.service.hosts) == (
        "my-app",
        ["istio-gateway"],
        ["my-app.company.com"],
    )
    analysis = spec.analysis
    assert (str(analysis.interval), analysis.threshold, analysis.max_weight, analysis.step_weight) == ("1m", 5, 50, 10)
    assert [metric.name for metric in analysis.metrics] == ["request-success-rate", "request-duration"]
    assert (spec.autoscaler_ref.api_version, spec.autoscaler_ref.name) == ("autoscaling/v2", "my-app")
    with_hook = scheme.decode(info, seed_canary(), strict=True)
    assert [hook.type for hook in with_hook.spec.analysis.webhooks] == [None, "pre-rollout"]


class Chapter:
    """The chapter's Canary in a world of its own."""

    def __init__(self, world: CanaryWorld) -> None:
        self.world = world

    async def begin(self) -> None:
        objects = self.world.objects
        for body in (deployment("my-app"), autoscaler("my-app")):
            body["metadata"]["namespace"] = "production"
            objects.put(body)
        (self.world._folder / "canary.yaml").write_text(yaml.safe_dump(seed_canary()))
        await self.world.store.sync()
        self.world.pods.run()
        self.world.loop.add(KEY)
        await self.until(Phase.INITIALIZED)

    def release(self) -> None:
        which = Reference("apps/v1", "Deployment", "production", "my-app")
        self.world.objects.change(which, {"spec": {"template": deployment("my-app", tag="2")["spec"]["template"]}})
        self.world.pods.run()
        self.world.loop.add(KEY)

    async def status(self) -> Any:
        return (await self.world.store.get("Canary", KEY)).status

    async def until(self, phase: Phase) -> float:
        """Let minutes pass until a phase is reached; how many."""
        await self.world.work()
        for minutes in range(20):
            if phase_of(await self.status()) is phase:
                return minutes
            await self.world.run(MINUTE)
        raise AssertionError(f"not {phase}: {self.world.texts()}")

    def route(self) -> Object:
        found = self.world.objects.now(Reference("networking.istio.io/v1beta1", "VirtualService", "production", "my-app"))
        assert found is not None
        return found


@pytest.fixture
async def app() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
def releases() -> FakeReleases:
    return FakeReleases()


@pytest.fixture
async def load(releases: FakeReleases) -> AsyncIterator[LoadTester]:
    async with running(releases=releases) as tester:
        yield tester


@pytest.fixture
async def chapter(tmp_path: Path, app: Receiver, load: LoadTester, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Chapter]:
    inside = {"http://my-app.company.com/": f"{app.url}/"}
    with NameProxy({"flagger-loadtester.test": load.url}, inside) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with canary_world(tmp_path) as world:
            yield Chapter(world)


async def test_a_good_revision_is_promoted_in_steps_of_ten(
    chapter: Chapter, load: LoadTester, releases: FakeReleases, app: Receiver
) -> None:
    releases.script = ["Helm upgrade succeeded"]
    await chapter.begin()
    chapter.release()
    minutes = await chapter.until(Phase.SUCCEEDED)
    # A minute to the first step, five steps, the promotion, the way back of the traffic, and the end.
    assert minutes <= 9
    texts = [text.replace("my-app.production", "APP") for text in chapter.world.texts()]
    assert texts[texts.index("New revision detected! Scaling up APP") :] == [
        "New revision detected! Scaling up APP",
        "Starting canary analysis for APP",
        "Pre-rollout check flux-helm-release passed",
        *(f"Advance APP canary weight {weight}" for weight in (10, 20, 30, 40, 50)),
        "Copying APP template spec to my-app-primary.production",
        "Routing all traffic to primary",
        "Promotion completed! Scaling down APP",
    ]
    assert releases.asked == [("HelmRelease", "production", "my-app")]
    spec = chapter.route()["spec"]
    assert (spec["gateways"], spec["hosts"]) == (["istio-gateway"], ["my-app.company.com", "my-app"])
    scaler = chapter.world.objects.now(Reference("autoscaling/v2", "HorizontalPodAutoscaler", "production", "my-app-primary"))
    assert scaler is not None
    assert scaler["spec"]["scaleTargetRef"]["name"] == "my-app-primary"
    # The load reaches the application: `hey -z 1m -q 10 -c 2`, once for each tick that checks, the same one being run only once.
    await app.received(10)
    assert {request.method for request in app.requests} == {"GET"}


async def test_it_does_not_begin_before_the_helm_release_is_ready(chapter: Chapter, releases: FakeReleases) -> None:
    releases.script = [Refused(424, "HelmRelease production/my-app: install retries exhausted"), "Helm upgrade succeeded"]
    await chapter.begin()
    chapter.release()
    await chapter.world.run(MINUTE)
    refused = "Halt my-app.production advancement pre-rollout check flux-helm-release failed "
    assert chapter.world.texts()[-1].startswith(f"{refused}HelmRelease production/my-app: install retries exhausted")
    assert (await chapter.status()).canary_weight in {0, None}
    await chapter.until(Phase.SUCCEEDED)
    assert len(releases.asked) == 2


async def test_five_failed_checks_take_it_back(chapter: Chapter, releases: FakeReleases) -> None:
    releases.script = ["Helm upgrade succeeded"]
    await chapter.begin()
    chapter.release()
    await chapter.world.run(2 * MINUTE)
    chapter.world.measures.verdicts = [Verdict.FAIL]
    await chapter.until(Phase.FAILED)
    assert sum("errors 7.10 > 5" in text for text in chapter.world.texts()) == 5
    assert chapter.world.pods.available("my-app") == 0
    weights = [entry["weight"] for entry in chapter.route()["spec"]["http"][0]["route"]]
    assert weights == [100, 0]
