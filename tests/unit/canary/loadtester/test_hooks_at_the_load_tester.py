"""Hooks of Canaries as the operator calls them, at a load tester on a real socket; among them those of the seed, word by word."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from canary.api import Webhook
from canary.exported import Exported
from canary.hooks import HookFailed, Hooks
from canary.loadtester.payload import Refused
from reconcile.ports.clock import SystemClock
from reconcile.runtime.metrics import Metrics
from tests.support.canary_posts import site
from tests.support.loadtesting import FakeReleases, LoadTester, running
from tests.support.webhooks import Receiver

WEB = site("my-app", "production")


@pytest.fixture
async def hooks() -> AsyncIterator[Hooks]:
    made = Hooks(SystemClock(), Exported(Metrics(), "istio"))
    yield made
    await made.aclose()


async def call(hooks: Hooks, tester: LoadTester, kind: str, path: str = "/", **metadata: str) -> None:
    hook = Webhook.model_validate(
        {"name": "hook", "type": kind, "url": tester.url + path, "timeout": "20s", "metadata": metadata or None}
    )
    await hooks.call(WEB, hook, phase="Progressing", checksum="5d8f")


async def test_a_rollout_hook_makes_load_in_the_background(hooks: Hooks) -> None:
    async with Receiver() as target, running() as tester:
        for _ in range(3):
            await call(hooks, tester, "rollout", cmd=f"hey -z 1m -q 10 -c 2 {target.url}/")
        await target.received(2)
        metrics = await tester.metrics()
        assert metrics["imagebot_loadtester_tasks_running"] == 1
        assert metrics['imagebot_loadtester_tasks_total{result="duplicate",type="cmd"}'] == 2


async def test_a_pre_rollout_hook_waits_for_the_helm_release(hooks: Hooks) -> None:
    releases = FakeReleases(
        [Refused(424, "HelmRelease production/my-app is not ready: upgrade failed"), "Helm upgrade succeeded"]
    )
    async with running(releases=releases) as tester:
        metadata = {"type": "helmrelease", "name": "my-app", "namespace": "production"}
        with pytest.raises(HookFailed, match=r"^HelmRelease production/my-app is not ready: upgrade failed$"):
            await call(hooks, tester, "pre-rollout", **metadata)
        await call(hooks, tester, "pre-rollout", **metadata)
    assert releases.asked == [("HelmRelease", "production", "my-app")] * 2


async def test_a_pre_rollout_hook_fails_with_the_words_of_the_load_tester(hooks: Hooks) -> None:
    async with running() as tester:
        with pytest.raises(HookFailed, match="--enable-shell"):
            await call(hooks, tester, "pre-rollout", type="bash", cmd="make test")


async def test_a_confirm_hook_waits_for_its_gate(hooks: Hooks) -> None:
    async with running() as tester:
        with pytest.raises(HookFailed, match=r"^Forbidden$"):
            await call(hooks, tester, "confirm-rollout", "/gate/check")
        assert (await tester.post("/gate/open"))[0] == 202
        await call(hooks, tester, "confirm-rollout", "/gate/check")
        with pytest.raises(HookFailed, match=r"^Forbidden$"):
            await call(hooks, tester, "rollback", "/rollback/check")
        assert (await tester.post("/rollback/open"))[0] == 202
        await call(hooks, tester, "rollback", "/rollback/check")
        await call(hooks, tester, "confirm-promotion", "/gate/approve")
        with pytest.raises(HookFailed, match=r"^Forbidden$"):
            await call(hooks, tester, "confirm-promotion", "/gate/halt")
