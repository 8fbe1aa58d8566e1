"""Knative Services as targets: what a revision is, readiness, naming the primary."""

from __future__ import annotations

from typing import Any

import pytest

from canary.errors import Problem
from canary.routing.knative import API_VERSION, PRIMARY_REVISION
from canary.settings import CanarySettings
from canary.site import Site
from canary.workload.base import READY
from canary.workload.knative import KnativeWorkload
from canary.workload.revision import revision_of
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_sites import recorded, site
from tests.support.objects import MemoryObjects

WEB = Reference(API_VERSION, "Service", "prod", "web")


def here(phase: str = "Initialized") -> Site:
    return site(recorded("knative")["canary"], phase=phase, label="", value="")


def knative_service(*, latest: str = "web-00002", primary: str = "web-00001") -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "prod", **({"annotations": {PRIMARY_REVISION: primary}} if primary else {})},
        "spec": {"template": {"spec": {"containers": [{"image": "a:1"}, {"name": "side", "image": "b:2"}]}}},
        "status": {"latestCreatedRevisionName": latest},
    }


def revision(name: str, ready: Object | None, *, observed: int = 1) -> Object:
    meta = {"name": name, "namespace": "prod"}
    conditions = [{"type": "Active", "status": "False"}, *([{"type": "Ready", **ready}] if ready else [])]
    status = {"observedGeneration": observed, "conditions": conditions}
    return {"apiVersion": API_VERSION, "kind": "Revision", "metadata": meta, "status": status}


def workload(*found: Object) -> tuple[KnativeWorkload, MemoryObjects]:
    objects = MemoryObjects(found)
    return KnativeWorkload(objects, CanarySettings()), objects


async def test_the_target_is_its_newest_revision() -> None:
    knative, objects = workload(knative_service())
    found = await knative.target(here().canary)
    assert (found.label, found.value, found.ports, found.generation) == ("", "", {}, 1)
    assert found.images == ("user-container=a:1", "side=b:2")
    assert found.revision == revision_of("web-00002")
    objects.change(WEB, {"spec": {"traffic": [{"latestRevision": True, "percent": 100}]}})
    assert (await knative.target(here().canary)).revision == found.revision
    objects.change(WEB, {"status": {"latestCreatedRevisionName": "web-00003"}})
    assert (await knative.target(here().canary)).revision != found.revision
    assert await knative.configs(here()) is None


async def test_a_service_without_revisions_or_none_at_all_is_a_problem() -> None:
    knative, _ = workload(knative_service(latest=""))
    with pytest.raises(
        Problem, match=r"^Knative Service web\.prod has no revision yet: status\.latestCreatedRevisionName is empty$"
    ):
        await knative.target(here().canary)
    knative, objects = workload()
    calls: list[Any] = [
        knative.target(here().canary),
        knative.promote(here()),
        knative.initialize(here("")),
        knative.primary_ready(here()),
    ]
    for call in calls:
        with pytest.raises(
            Problem, match=r'^Knative Service web\.prod get query error: services\.serving\.knative\.dev "web" not found$'
        ):
            await call
    assert objects.writes == []


@pytest.mark.parametrize("phase", ["", "Initializing"])
async def test_while_initializing_the_newest_revision_is_the_primary_with_all_traffic(phase: str) -> None:
    knative, objects = workload(knative_service(primary=""))
    await knative.initialize(here(phase))
    traffic = [{"latestRevision": True, "percent": 0}, {"revisionName": "web-00002", "percent": 100}]
    wanted = {"metadata": {"annotations": {PRIMARY_REVISION: "web-00002"}}, "spec": {"traffic": traffic}}
    assert objects.patches == [("Service", "web", wanted)], "one write, of nothing else"
    await knative.initialize(here(phase))
    assert len(objects.writes) == 1


@pytest.mark.parametrize("phase", ["Initialized", "Progressing", "Promoting", "Failed", "Succeeded"])
async def test_afterwards_nothing_is_initialized(phase: str) -> None:
    knative, objects = workload(knative_service(primary=""))
    await knative.initialize(here(phase))
    assert objects.writes == []


@pytest.mark.parametrize(
    ("ready", "observed", "why"),
    [
        ({"status": "False", "reason": "ContainerMissing", "message": "no image"}, 1, "ContainerMissing: no image"),
        ({"status": "Unknown"}, 1, "condition Ready is Unknown"),
        ({"status": "True"}, 0, "its newest generation has not been looked at yet"),
        (None, 1, "it has no condition Ready yet"),
        ({"status": "False", "message": "x" * 5000}, 1, "x" * 300),
    ],
)
async def test_a_revision_that_is_not_ready_may_still_become_so(ready: Object | None, observed: int, why: str) -> None:
    knative, _ = workload(
        knative_service(), revision("web-00001", ready, observed=observed), revision("web-00002", {"status": "True"})
    )
    said = await knative.primary_ready(here())
    assert (said.ready, said.retriable) == (False, True)
    assert said.text == f"revision web-00001 of Knative Service web.prod not ready: {why}"
    assert await knative.canary_ready(here()) == READY


async def test_primary_and_canary_are_told_apart() -> None:
    knative, objects = workload(knative_service(), revision("web-00001", {"status": "True"}))
    assert await knative.primary_ready(here()) == READY
    said = await knative.canary_ready(here())
    assert not said.ready
    assert said.text.endswith('not ready: revisions.serving.knative.dev "web-00002" not found')
    objects.fail["get", "Revision", "web-00002"] = ReconcileError("no answer")
    with pytest.raises(Problem, match=r"^revision web-00002 of Knative Service web\.prod get query error: no answer$"):
        await knative.canary_ready(here())


async def test_without_the_annotation_no_primary_is_ready() -> None:
    knative, _ = workload(knative_service(primary=""))
    said = await knative.primary_ready(here())
    assert (said.ready, said.text) == (False, "Knative Service web.prod has no annotation flagger.app/primary-revision")


async def test_promoting_names_the_newest_revision_once() -> None:
    knative, objects = workload(knative_service())
    assert not await knative.same_as_primary(here())
    await knative.promote(here())
    assert objects.patches == [("Service", "web", {"metadata": {"annotations": {PRIMARY_REVISION: "web-00002"}}})]
    assert await knative.same_as_primary(here())
    await knative.promote(here())
    assert len(objects.writes) == 1


async def test_scaling_and_giving_back_are_knatives() -> None:
    knative, objects = workload(knative_service())
    for call in (knative.scale_to_zero(here()), knative.scale_from_zero(here()), knative.give_back(here())):
        await call
    assert (objects.reads, objects.writes) == ([], [])
