"""Knative's traffic block: the recorded run, readings on both sides of a promotion, people's entries, giving back."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Weights
from canary.routing.knative import API_VERSION, PRIMARY_REVISION, KnativeRouter, parse, reverted, with_traffic
from canary.settings import CanarySettings
from canary.site import Site
from canary.workload.knative import KnativeWorkload
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_sites import as_recorded, history, recorded, site
from tests.support.objects import MemoryObjects

WEB = Reference(API_VERSION, "Service", "prod", "web")


def knative_site(phase: str = "", namespace: str = "prod") -> Site:
    return site(recorded("knative")["canary"], namespace=namespace, phase=phase, label="", value="")


def knative_service(
    traffic: list[Object] | None = None,
    *,
    live: list[Object] | None = None,
    primary: str = "web-00001",
    latest: str = "web-00001",
) -> Object:
    annotations = {"people": "yes"} | ({PRIMARY_REVISION: primary} if primary else {})
    return {
        "apiVersion": API_VERSION,
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "prod", "annotations": annotations},
        "spec": {
            "template": {"spec": {"containers": [{"image": "a:1"}]}},
            **({"traffic": traffic} if traffic is not None else {}),
        },
        "status": {"latestCreatedRevisionName": latest, "traffic": live or []},
    }


def knative(objects: MemoryObjects, which: Reference = WEB) -> None:
    """What Knative does: wanted traffic becomes live, with the name of the latest revision filled in."""
    found = objects.now(which)
    assert found is not None
    latest = found["status"]["latestCreatedRevisionName"]
    live = [{"revisionName": latest, **entry} for entry in found["spec"].get("traffic", [])]
    objects.change(which, {"status": {"traffic": live}})


async def test_a_run_writes_what_flagger_wrote() -> None:
    story = recorded("knative")
    which = Reference(API_VERSION, "Service", story["namespace"], "web")
    objects = MemoryObjects(story["given"])
    router, workload = KnativeRouter(objects), KnativeWorkload(objects, CanarySettings())
    versions = [as_recorded(objects.now(which))]

    def keep() -> None:
        versions.append(as_recorded(objects.now(which)))
        knative(objects, which)

    here = knative_site("Initializing", story["namespace"])
    objects.change(which, {"status": {"latestCreatedRevisionName": "web-00001"}})
    await workload.initialize(here)
    await router.reconcile(here)
    keep()
    assert await router.weights(here) == ALL_PRIMARY

    here = knative_site("Progressing", story["namespace"])
    objects.change(which, {"spec": {"template": {"spec": {"containers": [{"image": "example.org/web:2"}]}}}})
    objects.change(which, {"status": {"latestCreatedRevisionName": "web-00002"}})
    keep()
    await workload.initialize(here)
    await router.reconcile(here)
    await router.set_weights(here, Weights.at(50))
    keep()
    assert await router.weights(here) == Weights(50, 50)
    await workload.promote(here)
    keep()

    here = knative_site("Promoting", story["namespace"])
    await workload.initialize(here)
    await router.reconcile(here)
    assert await router.weights(here) == Weights(50, 50)
    await router.set_weights(here, ALL_PRIMARY)
    keep()
    assert await router.weights(here) == ALL_PRIMARY, "Flagger's gauges read 0 and 0 here"

    # What Flagger writes beside its own fields is the emptiness of its types.
    theirs = [
        {path: value for path, value in change.items() if not path.endswith(("/metadata", "/name", "/resources"))}
        for change in story["objects"]["Service.serving.knative.dev/v1/web"]
    ]
    assert history(versions) == theirs


@given(canary=st.integers(0, 100), tags=st.booleans())
def test_what_was_built_reads_back_and_building_again_changes_nothing(canary: int, tags: bool) -> None:
    people: list[Object] = [{"tag": "old", "revisionName": "web-00000"}, {"tag": "next", "latestRevision": True}] if tags else []
    found = knative_service(people)
    wanted = Weights.at(canary)
    built = with_traffic(deepcopy(found), wanted, "web-00001")
    assert parse(built["spec"]["traffic"], "web-00001", "x") == wanted
    assert sum(entry.get("percent", 0) for entry in built["spec"]["traffic"]) == 100
    assert with_traffic(deepcopy(built), wanted, "web-00001") == built
    assert {entry["tag"] for entry in built["spec"]["traffic"] if "tag" in entry} == ({"old", "next"} if tags else set())
    assert {**built, "spec": {**built["spec"], "traffic": people}} == found


async def test_only_the_traffic_is_written() -> None:
    objects = MemoryObjects([knative_service([{"latestRevision": True, "percent": 100}])])
    await KnativeRouter(objects).set_weights(knative_site(), Weights.at(10))
    traffic = [{"latestRevision": True, "percent": 10}, {"revisionName": "web-00001", "percent": 90}]
    assert objects.patches == [("Service", "web", {"spec": {"traffic": traffic}})]


async def test_defaults_that_knative_fills_in_cause_no_write() -> None:
    traffic: list[Object] = [
        {"latestRevision": True, "percent": 10},
        {"latestRevision": False, "revisionName": "web-00001", "percent": 90, "tag": "stable"},
    ]
    objects = MemoryObjects([knative_service(traffic)])
    router = KnativeRouter(objects)
    await router.set_weights(knative_site("Progressing"), Weights.at(10))
    await router.reconcile(knative_site("Progressing"))
    assert objects.writes == []


@pytest.mark.parametrize(
    "traffic",
    [
        None,
        [],
        [{"latestRevision": True, "percent": 100}],
        [{"revisionName": "b", "percent": 100}],
        [{"latestRevision": True, "percent": 100}, {"revisionName": "web-00001", "tag": "stable"}],
    ],
)
async def test_lost_entries_come_back_with_all_traffic_on_the_primary(traffic: list[Object] | None) -> None:
    objects = MemoryObjects([knative_service(traffic)])
    await KnativeRouter(objects).reconcile(knative_site("Initialized"))
    found = objects.now(WEB)
    assert found is not None
    assert parse(found["spec"]["traffic"], "web-00001", "x") == ALL_PRIMARY
    assert found["spec"]["traffic"][1]["revisionName"] == "web-00001"


@pytest.mark.parametrize(("phase", "revision"), [("Promoting", "web-00001"), ("Progressing", "web-00002")])
async def test_the_old_revision_keeps_its_traffic_between_promotion_and_shift_only(phase: str, revision: str) -> None:
    traffic: list[Object] = [{"latestRevision": True, "percent": 30}, {"revisionName": "web-00001", "percent": 70}]
    objects = MemoryObjects([knative_service(traffic, primary="web-00002", latest="web-00002")])
    await KnativeRouter(objects).reconcile(knative_site(phase))
    found = objects.now(WEB)
    assert found is not None
    assert found["spec"]["traffic"] == [traffic[0], {"revisionName": revision, "percent": 70}]


NEW, OLD = "web-00002", "web-00001"


@pytest.mark.parametrize(
    ("primary", "live", "weights"),
    [
        (
            OLD,
            [{"latestRevision": True, "revisionName": NEW, "percent": 20}, {"revisionName": OLD, "percent": 80}],
            Weights(80, 20),
        ),
        (
            NEW,
            [{"latestRevision": True, "revisionName": NEW, "percent": 20}, {"revisionName": OLD, "percent": 80}],
            Weights(80, 20),
        ),
        (
            NEW,
            [{"latestRevision": True, "revisionName": NEW, "percent": 0}, {"revisionName": NEW, "percent": 100}],
            Weights(100, 0),
        ),
        (NEW, [{"revisionName": NEW, "percent": 100}, {"latestRevision": True, "revisionName": NEW}], Weights(100, 0)),
        (NEW, [{"latestRevision": True, "revisionName": NEW, "percent": 100}], Weights(100, 0)),
        (
            OLD,
            [
                {"revisionName": OLD, "tag": "mine"},
                {"latestRevision": True, "revisionName": NEW, "percent": 60},
                {"latestRevision": False, "revisionName": OLD, "percent": 40},
            ],
            Weights(40, 60),
        ),
    ],
)
async def test_live_traffic_tells_primary_and_canary_apart(primary: str, live: list[Object], weights: Weights) -> None:
    objects = MemoryObjects([knative_service(live=live, primary=primary, latest=NEW)])
    assert await KnativeRouter(objects).weights(knative_site()) == weights


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, 'get query error: services.serving.knative.dev "web" not found'),
        (knative_service(primary=""), "has no annotation flagger.app/primary-revision"),
        (knative_service(live=[{"revisionName": OLD, "percent": 100}]), "has no traffic entry for the latest revision"),
        (
            knative_service(live=[{"latestRevision": True, "revisionName": NEW, "percent": 100}]),
            "has no traffic entry for revision web-00001",
        ),
    ],
)
async def test_what_cannot_be_read_is_a_problem(found: Object | None, text: str) -> None:
    router = KnativeRouter(MemoryObjects([found] if found else []))
    with pytest.raises(Problem) as raised:
        await router.weights(knative_site())
    assert str(raised.value) == f"Knative Service web.prod {text}"


@pytest.mark.parametrize("present", [[], [knative_service(primary="")]])
async def test_without_service_or_annotation_nothing_is_written(present: list[Object]) -> None:
    objects = MemoryObjects(present)
    router = KnativeRouter(objects)
    for call in (router.reconcile(knative_site()), router.set_weights(knative_site(), ALL_PRIMARY)):
        with pytest.raises(Problem, match=r"^Knative Service web\.prod "):
            await call
    assert objects.writes == []


async def test_an_absent_kind_is_a_problem_that_names_it() -> None:
    objects = MemoryObjects()
    objects.missing_kinds.add((API_VERSION, "Service"))
    router = KnativeRouter(objects)
    for call in (router.reconcile(knative_site()), router.weights(knative_site()), router.revert(knative_site())):
        with pytest.raises(Problem, match=r"^Knative Service web\.prod get query error: the server could not find"):
            await call


async def test_giving_back_takes_the_annotation_and_lets_traffic_follow_a_promoted_revision() -> None:
    traffic: list[Object] = [
        {"latestRevision": True, "percent": 0, "tag": "next"},
        {"revisionName": NEW, "percent": 100},
        {"revisionName": "web-00000", "tag": "old"},
    ]
    objects = MemoryObjects([knative_service(traffic, primary=NEW, latest=NEW)])
    await KnativeRouter(objects).revert(knative_site("Terminating"))
    found = objects.now(WEB)
    assert found is not None
    assert found["metadata"]["annotations"] == {"people": "yes"}
    assert found["spec"]["traffic"] == [{"latestRevision": True, "percent": 100, "tag": "next"}, traffic[2]]
    objects.forget()
    await KnativeRouter(objects).revert(knative_site("Terminating"))
    assert objects.writes == []


async def test_giving_back_leaves_traffic_on_a_primary_that_is_not_the_newest_revision() -> None:
    traffic: list[Object] = [{"latestRevision": True, "percent": 0}, {"revisionName": OLD, "percent": 100}]
    objects = MemoryObjects([knative_service(traffic, primary=OLD, latest=NEW)])
    await KnativeRouter(objects).revert(knative_site("Terminating"))
    assert objects.patches == [("Service", "web", {"metadata": {"annotations": {PRIMARY_REVISION: None}}})]


def test_giving_back_what_was_never_taken_is_nothing() -> None:
    alone: Any = {"metadata": {"name": "web", "annotations": {PRIMARY_REVISION: OLD}}, "spec": {}, "status": {}}
    assert reverted(None) is None
    assert reverted(knative_service(primary="")) is None
    assert reverted(alone) == {"metadata": {"name": "web"}, "spec": {}, "status": {}}
