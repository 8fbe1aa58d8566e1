"""A controller on a real API server: what passes cost, and that nothing is done twice."""

from __future__ import annotations

import asyncio
from typing import Any

from reconcile.api.meta import FINALIZER
from reconcile.api.resource import AnyResource
from reconcile.kube.events import KubeEvents
from reconcile.kube.store import KubeStore
from reconcile.ports.clock import SystemClock
from reconcile.runtime.controller import Controller
from reconcile.runtime.loop import Surroundings
from reconcile.runtime.manager import Manager
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.outcome import Success
from reconcile.runtime.run import Reconciler, Run
from reconcile.runtime.schedule import Schedule
from tests.support.controlplane import ControlPlane
from tests.support.kube import THING, eventually, minimal_crd, open_client, scheme_of, thing

OURS = "imagebot/"
COUNT = 20


class Noting(Reconciler):
    """Writes the size into the status."""

    kind = THING.kind
    announces_requests = False
    acknowledges_suspended = False

    def __init__(self) -> None:
        self.passes: list[str] = []
        self.gone: list[str] = []

    async def reconcile(self, run: Run) -> Success:
        self.passes.append(run.resource.key.name)
        run.set(note=f"size {run.resource.spec.size}")
        return Success("noted", after=600.0)

    async def removed(self, resource: AnyResource) -> None:
        self.gone.append(resource.key.name)


async def test_passes_cost_what_they_change(own_control_plane: ControlPlane, namespace: str) -> None:
    api = own_control_plane.api
    api.install_crd(minimal_crd(THING))
    for n in range(COUNT):
        api.create(thing(f"t{n:02}", namespace, n))
    clock, metrics, reconciler = SystemClock(), Metrics(), Noting()

    def asked(mark: int) -> dict[str, int]:
        tally = own_control_plane.audit.tally(mark, user_agent=OURS)
        return {what: count for what, count in tally.items() if what != "watch things"}

    def notes() -> list[Any]:
        return [body["status"].get("note") for body in api.list(THING.api_version, THING.kind, namespace)]

    async with (
        open_client(own_control_plane.kubeconfig) as client,
        KubeStore(client, scheme_of(THING), clock, namespace=namespace) as store,
    ):
        sink, schedule = KubeEvents(client, clock), Schedule(clock)
        around = Surroundings(store, clock, schedule, sink, metrics)
        controller = Controller(
            reconciler, around, name="thing-controller", workers=COUNT
        )  # no backlog: passes show their progress
        manager = Manager(store, [controller], schedule)
        mark = own_control_plane.audit.mark()
        async with sink.running(), manager.running():
            await eventually(lambda: notes() == [f"size {n}" for n in range(COUNT)])
            await manager.drained()
            await sink._idle.wait()
            # The finalizer, "new generation", the outcome; one list, two looks at what is served; one Event.
            expected = {
                "list things": 1,
                "get ": 2,
                "patch things": COUNT,
                "patch things/status": 2 * COUNT,
                "create events": COUNT,
            }
            assert asked(mark) == expected
            assert sorted(reconciler.passes) == [f"t{n:02}" for n in range(COUNT)]

            mark = own_control_plane.audit.mark()
            for found in await store.list(THING.kind):
                controller.add(found.key)
            await manager.drained()
            assert len(reconciler.passes) == 2 * COUNT
            assert asked(mark) == {}

            await asyncio.to_thread(api.apply, thing("t00", namespace, 77))
            await eventually(lambda: notes()[0] == "size 77")
            await manager.drained()
            assert len(reconciler.passes) == 2 * COUNT + 1
            assert asked(mark) == {"patch things/status": 2}

            await asyncio.to_thread(api.delete, THING.api_version, THING.kind, "t01", namespace)
            await eventually(lambda: len(notes()) == COUNT - 1)
            await manager.drained()
            assert asked(mark) == {"patch things/status": 2, "patch things": 1}
            assert set(reconciler.gone) == {"t01"}
    left = api.list(THING.api_version, THING.kind, namespace)
    assert all(FINALIZER in body["metadata"]["finalizers"] for body in left)
    for body in left:
        api.merge_patch(THING.api_version, THING.kind, body["metadata"]["name"], {"metadata": {"finalizers": []}}, namespace)
