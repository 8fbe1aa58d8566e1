"""The lease on a real API server: one leads, and whoever stops leading does nothing more."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reconcile.kube.client import Client
from reconcile.kube.errors import LeaseLost, Target
from reconcile.kube.lease import KubeLease, LeaseTimes
from reconcile.ports.clock import SystemClock
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.kube import eventually, open_client, proxied

ROOT = Path(__file__).parents[2]
LONG = LeaseTimes(duration=3600, renew=3000, retry=0.2)
SHORT = LeaseTimes(duration=4, renew=2, retry=0.3)
LEASES = "coordination.k8s.io/v1"


@pytest.fixture
async def client(control_plane: Cluster) -> AsyncIterator[Client]:
    async with open_client(control_plane.kubeconfig) as made:
        yield made


def lease_of(client: Client, namespace: str, holder: str, times: LeaseTimes = LONG, **more: Any) -> KubeLease:
    return KubeLease(client, namespace, SystemClock(), holder=holder, times=times, **more)


def spec(cluster: Cluster, namespace: str, name: str = "imagebot-leader-election") -> dict[str, Any]:
    return dict(cluster.api.get(LEASES, "Lease", name, namespace)["spec"])


async def test_it_is_taken_kept_and_given_back(own_control_plane: ControlPlane, client: Client, namespace: str) -> None:
    one, two = lease_of(client, namespace, "one"), lease_of(client, namespace, "two")
    order: list[str] = []

    async def lead(lease: KubeLease, until: asyncio.Event) -> None:
        async with lease.hold():
            order.append(lease.holder)
            await until.wait()
            order.append(f"{lease.holder} ends")

    end = asyncio.Event()
    first = asyncio.create_task(lead(one, end))
    await eventually(lambda: order == ["one"])
    now = spec(own_control_plane, namespace)
    assert (now["holderIdentity"], now["leaseDurationSeconds"], now["leaseTransitions"]) == ("one", 3600, 0)
    second = asyncio.create_task(lead(two, end))
    renewed = now["renewTime"]
    await eventually(lambda: spec(own_control_plane, namespace)["renewTime"] > renewed)
    await asyncio.sleep(1)
    assert order == ["one"]
    assert (one.leading, two.leading) == (True, False)
    end.set()
    await asyncio.wait_for(first, 10)
    # It would be an hour until the lease ends by itself: it was given back.
    await asyncio.wait_for(second, 10)
    assert order == ["one", "one ends", "two", "two ends"]
    last = spec(own_control_plane, namespace)
    assert (last.get("holderIdentity") or "", last["leaseTransitions"]) == ("", 1)


async def test_a_body_that_fails_gives_the_lease_back_and_nothing_renews_it(
    own_control_plane: ControlPlane, client: Client, namespace: str
) -> None:
    lease = lease_of(client, namespace, "one")
    with pytest.raises(RuntimeError, match="body"):
        async with lease.hold():
            raise RuntimeError("body")
    assert not spec(own_control_plane, namespace).get("holderIdentity")
    mark = own_control_plane.audit.mark()
    await asyncio.sleep(1)
    assert own_control_plane.audit.count(mark, user_agent="imagebot/", resource="leases") == 0
    with pytest.raises(LeaseLost):
        lease.require()


async def test_a_cancelled_body_gives_the_lease_back(control_plane: Cluster, client: Client, namespace: str) -> None:
    lease = lease_of(client, namespace, "one")

    async def lead() -> None:
        async with lease.hold():
            await asyncio.Event().wait()

    task = asyncio.create_task(lead())
    await eventually(lambda: lease.leading)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not spec(control_plane, namespace).get("holderIdentity")


async def test_a_lease_that_somebody_else_took_cancels_the_body(control_plane: Cluster, client: Client, namespace: str) -> None:
    lease, cancelled = lease_of(client, namespace, "one"), []

    async def lead() -> None:
        async with lease.hold():
            patch = {"spec": {"holderIdentity": "thief"}}
            control_plane.api.merge_patch(LEASES, "Lease", "imagebot-leader-election", patch, namespace)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(lease.leading)
                raise

    with pytest.raises(LeaseLost):
        await lead()
    assert cancelled == [False]
    assert spec(control_plane, namespace)["holderIdentity"] == "thief"


async def test_a_lease_that_is_deleted_is_lost(control_plane: Cluster, client: Client, namespace: str) -> None:
    async def lead() -> None:
        async with lease_of(client, namespace, "one").hold():
            control_plane.api.delete(LEASES, "Lease", "imagebot-leader-election", namespace)
            await asyncio.sleep(60)

    with pytest.raises(LeaseLost):
        await lead()


async def test_a_change_by_a_bystander_does_not_cost_the_lease(control_plane: Cluster, client: Client, namespace: str) -> None:
    lease = lease_of(client, namespace, "one")
    async with lease.hold():
        patch = {"metadata": {"labels": {"a": "b"}}}
        control_plane.api.merge_patch(LEASES, "Lease", "imagebot-leader-election", patch, namespace)
        before = spec(control_plane, namespace)["renewTime"]
        await eventually(lambda: spec(control_plane, namespace)["renewTime"] > before)
        assert lease.leading


def notes(cluster: Cluster, namespace: str) -> dict[str, str]:
    found = cluster.api.get(LEASES, "Lease", "imagebot-leader-election", namespace)
    return dict(found["metadata"].get("annotations") or {})


async def test_a_note_is_read_by_those_that_wait_and_goes_with_its_holder(
    own_control_plane: ControlPlane, client: Client, namespace: str
) -> None:
    one, two = lease_of(client, namespace, "one"), lease_of(client, namespace, "two")
    async with one.hold():
        waiting = asyncio.create_task(two.acquire())
        await eventually(lambda: own_control_plane.audit.count(0, verb="get", resource="leases", namespace=namespace) > 2)
        assert two.noted("door") is None
        mark = own_control_plane.audit.mark()
        one.note("door", "here")
        await eventually(lambda: two.noted("door") == "here")
        assert (one.noted("door"), two.noted("other")) == (None, None)
        assert notes(own_control_plane, namespace) == {"imagebot.dev/door": "here"}
        patch = {"metadata": {"annotations": {"somebody/else": "stays"}}}
        own_control_plane.api.merge_patch(LEASES, "Lease", "imagebot-leader-election", patch, namespace)
        before = spec(own_control_plane, namespace)["renewTime"]
        await eventually(lambda: spec(own_control_plane, namespace)["renewTime"] > before)
        # Renewals and looks, as before.
        verbs = {r.verb for r in own_control_plane.audit.select(mark, user_agent="imagebot/", namespace=namespace)}
        assert verbs == {"get", "patch"}
    assert notes(own_control_plane, namespace) == {"somebody/else": "stays"}
    await asyncio.wait_for(waiting, 10)
    assert two.noted("door") is None
    assert notes(own_control_plane, namespace) == {"somebody/else": "stays"}
    await two.release()


async def test_the_note_of_a_holder_that_died_is_taken_away_by_the_next(
    control_plane: Cluster, client: Client, namespace: str
) -> None:
    one = lease_of(client, namespace, "one", SHORT)
    await one.acquire()
    one.note("door", "here")
    keeping = asyncio.create_task(one.keep())
    await eventually(lambda: notes(control_plane, namespace) == {"imagebot.dev/door": "here"})
    keeping.cancel()
    two = lease_of(client, namespace, "two", SHORT)
    await asyncio.wait_for(two.acquire(), 60)
    assert (two.noted("door"), notes(control_plane, namespace)) == (None, {})
    await two.release()


async def test_an_unreachable_server_ends_the_body_in_time(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    async with proxied(control_plane.kubeconfig, tmp_path) as (proxy, config), open_client(config) as ours:
        lease = lease_of(ours, namespace, "one", SHORT)
        ours.fence = lease.require

        async def lead() -> None:
            async with lease.hold():
                proxy.refusing = True
                await proxy.cut()
                await asyncio.sleep(60)

        with pytest.raises(LeaseLost):
            await lead()
        with pytest.raises(LeaseLost):
            await ours.delete(Target("", "v1", "configmaps", namespace, "nothing"))
        proxy.refusing = False
        # The fence is for writes; and who has lost the lease may have it again.
        await ours.get(Target("", "v1", "namespaces", name=namespace))
        async with lease.hold():
            ours.fence()


async def test_a_missing_right_is_said_and_the_candidate_goes_on_trying(
    control_plane: Cluster, namespace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    control_plane.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot", "namespace": namespace}})
    config = control_plane.service_account_kubeconfig(namespace, "bot", tmp_path / "bot.kubeconfig")
    async with open_client(config) as ours:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5), lease_of(ours, namespace, "one").hold():
                raise AssertionError("held without a right to")
    text = "".join(capsys.readouterr())
    assert text.count("cannot get or renew the lease") == 1
    assert 'missing RBAC rule {apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get"]}' in text


@asynccontextmanager
async def candidate(cluster: Cluster, namespace: str, name: str, times: LeaseTimes) -> AsyncIterator[asyncio.subprocess.Process]:
    cluster.api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}})
    numbers = [str(number) for number in (times.duration, times.renew, times.retry)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.lease_holder", str(cluster.kubeconfig), namespace, name, *numbers,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(process: asyncio.subprocess.Process, word: str) -> list[str]:
    """The lines up to and with `word`."""
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(60):
        while not lines or lines[-1] != word:
            line = (await process.stdout.readline()).decode().strip()
            assert line, f"ended after {lines}"
            lines.append(line)
    return lines


@pytest.mark.slow
async def test_a_frozen_leader_does_nothing_when_it_wakes(own_control_plane: ControlPlane, namespace: str) -> None:
    async with candidate(own_control_plane, namespace, "one", SHORT) as one:
        await until(one, "leading")
        async with candidate(own_control_plane, namespace, "two", SHORT) as two:
            await until(one, "wrote")
            one.send_signal(signal.SIGSTOP)
            await until(two, "leading")
            await until(two, "wrote")
            mark = own_control_plane.audit.mark()
            one.send_signal(signal.SIGCONT)
            rest = await until(one, "lost")
            assert set(rest) & {"refused", "cancelled"}
            await until(two, "wrote")
            patches = own_control_plane.audit.select(mark, user_agent="imagebot/", verb="patch", namespace=namespace)
            assert {request.name for request in patches if request.resource == "configmaps"} == {"two"}
            assert spec(own_control_plane, namespace, "contended")["holderIdentity"] == "two"


@pytest.mark.slow
async def test_a_killed_leader_is_followed_by_another(own_control_plane: ControlPlane, namespace: str) -> None:
    async with candidate(own_control_plane, namespace, "one", SHORT) as one:
        await until(one, "wrote")
        one.kill()
        await one.wait()
        async with candidate(own_control_plane, namespace, "two", SHORT) as two:
            await until(two, "wrote")
    assert spec(own_control_plane, namespace, "contended")["leaseTransitions"] == 1


async def test_many_candidates_lead_one_after_the_other(control_plane: Cluster, client: Client, namespace: str) -> None:
    leading, most = 0, 0
    times = LeaseTimes(duration=3600, renew=3000, retry=0.05)

    async def lead(name: str) -> None:
        nonlocal leading, most
        async with lease_of(client, namespace, name, times, name="many").hold():
            leading += 1
            most = max(most, leading)
            await asyncio.sleep(0.05)
            leading -= 1

    async with asyncio.timeout(200):
        await asyncio.gather(*(lead(f"{n}-{secrets.token_hex(2)}") for n in range(8)))
    assert most == 1
    # One who does not hear in time that it has the lease takes it once more.
    assert spec(control_plane, namespace, "many")["leaseTransitions"] >= 7
