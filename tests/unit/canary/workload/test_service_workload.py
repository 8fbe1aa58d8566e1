"""Core Services as targets: the recorded run, copies that an API server takes, what a new revision is."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.errors import Problem
from canary.settings import CanarySettings
from canary.site import Site
from canary.workload.base import READY
from canary.workload.service import ServiceWorkload, copied, copied_spec, meaning, without_assigned
from reconcile.errors import Invalid, ReconcileError
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_sites import as_recorded, history, recorded, site
from tests.support.objects import MemoryObjects

WEB, CANARY, PRIMARY = (Reference("v1", "Service", "prod", name) for name in ("web", "web-canary", "web-primary"))
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def here(namespace: str = "prod", **service: Any) -> Site:
    spec = recorded("service-target")["canary"]
    return site({**spec, "service": {**spec["service"], **service}}, namespace=namespace, label="", value="")


def cluster_ip(**spec: Any) -> Object:
    """A Service as an API server of 1.35 has it."""
    ports = [
        {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 9898, "nodePort": 30080},
        {"name": "grpc", "protocol": "TCP", "port": 81, "targetPort": 81},
    ]
    filled = {
        "clusterIP": "10.0.0.7",
        "clusterIPs": ["10.0.0.7"],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
        "healthCheckNodePort": 31000,
        "sessionAffinity": "None",
        "type": "ClusterIP",
    }
    annotations = {LAST_APPLIED: "{}", "kustomize.toolkit.fluxcd.io/checksum": "1", "people": "yes"}
    meta = {
        "name": "web",
        "namespace": "prod",
        "labels": {"x": "y", "kustomize.toolkit.fluxcd.io/name": "apps"},
        "annotations": annotations,
        "finalizers": ["people.example.org/cleanup"],
    }
    body: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"selector": {"app": "web"}, "ports": ports} | filled | spec,
    }
    return {**body, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}


class Strict(MemoryObjects):
    """Refuses and assigns addresses as an API server of 1.35 does."""

    async def create(self, wanted: Object, *, manager: str) -> Object:
        spec = wanted["spec"]
        if spec.get("clusterIPs") and not spec.get("clusterIP"):
            raise Invalid("spec.clusterIPs: Invalid value: must be empty when `clusterIP` is not specified")
        if "nodePort" in str(spec.get("ports")) or "healthCheckNodePort" in spec:
            raise Invalid("provided port is already allocated")
        number = len(self.all("Service")) + 10
        if spec.get("clusterIP", "") not in ("", "None"):
            raise Invalid("spec.clusterIPs: Invalid value: provided IP is already allocated")
        if spec.get("type") != "ExternalName":
            address = spec.get("clusterIP") or f"10.0.0.{number}"
            filled = {"clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
            wanted = {**wanted, "spec": {**filled, **spec}}
        return await super().create(wanted, manager=manager)

    async def patch(self, which: Any, patch: Object, *, manager: str) -> Object:
        if {"clusterIP", "clusterIPs"} & patch.get("spec", {}).keys() and "type" not in patch["spec"]:
            raise Invalid("spec.clusterIP: Invalid value: field is immutable")
        return await super().patch(which, patch, manager=manager)


async def test_a_run_writes_what_flagger_wrote_but_for_what_its_promotion_drops() -> None:
    story = recorded("service-target-external")
    namespace, wanted = story["namespace"], story["objects"]
    given = story["given"][0]
    given["spec"] = wanted["Service.v1/web"][0]["spec"]
    objects = Strict([given])
    workload, where = ServiceWorkload(objects, CanarySettings()), here(namespace)
    names = {name: Reference("v1", "Service", namespace, name) for name in ("web", "web-canary", "web-primary")}
    seen: dict[str, list[Object]] = {name: [] for name in names}

    def keep() -> None:
        for name, which in names.items():
            found = as_recorded(objects.now(which))
            if seen[name][-1:] != [found]:
                seen[name].append(found)

    first = await workload.target(where.canary)
    await workload.initialize(where)
    keep()
    objects.change(names["web"], {"spec": {"externalName": "v2.example.org"}})
    assert (await workload.target(where.canary)).revision != first.revision
    assert not await workload.same_as_primary(where)
    await workload.initialize(where)
    keep()
    await workload.promote(where)
    keep()
    assert await workload.same_as_primary(where)
    assert history(seen["web-canary"]) == wanted["Service.v1/web-canary"]
    promoted = {"/spec/externalName": "v2.example.org"}
    assert history(seen["web-primary"]) == [wanted["Service.v1/web-primary"][0], promoted]
    objects.forget()
    await workload.initialize(where)
    await workload.promote(where)
    assert objects.writes == []


async def test_a_service_with_an_address_can_be_copied() -> None:
    objects = Strict([cluster_ip()])
    workload = ServiceWorkload(objects, CanarySettings())
    await workload.initialize(here())
    for which in (CANARY, PRIMARY):
        found = objects.now(which)
        assert found is not None
        assert found["metadata"]["labels"] == {"x": "y"}
        assert found["metadata"]["annotations"] == {"people": "yes"}
        assert found["metadata"]["ownerReferences"] == [here().owner]
        assert "finalizers" not in found["metadata"]
        assert "status" not in found
        assert found["spec"]["clusterIP"] not in ("", "10.0.0.7")
        assert [port.get("nodePort") for port in found["spec"]["ports"]] == [None, None]
        assert found["spec"]["selector"] == {"app": "web"}
    assert objects.writes == [("create", "Service", "web-canary"), ("create", "Service", "web-primary")]
    assert await workload.same_as_primary(here())
    await workload.initialize(here())
    await workload.promote(here())
    assert len(objects.writes) == 2


async def test_copies_keep_the_addresses_and_node_ports_that_they_were_given() -> None:
    objects = Strict([cluster_ip(type="NodePort")])
    workload = ServiceWorkload(objects, CanarySettings())
    await workload.initialize(here())
    for which, port in ((CANARY, 30001), (PRIMARY, 30002)):
        found = objects.now(which)
        assert found is not None
        found["spec"]["ports"][0]["nodePort"] = port
        found["spec"]["healthCheckNodePort"] = port + 1000
        found["metadata"]["labels"]["people"] = "too"
        objects.put(found)
    before = objects.now(PRIMARY)
    assert before is not None
    objects.forget()
    await workload.initialize(here())
    assert objects.writes == []
    objects.change(WEB, {"spec": {"selector": {"app": "web", "version": "2"}}, "metadata": {"labels": {"new": "one"}}})
    await workload.initialize(here())
    await workload.promote(here())
    for which, port in ((CANARY, 30001), (PRIMARY, 30002)):
        found = objects.now(which)
        assert found is not None
        assert found["spec"]["ports"][0]["nodePort"] == port
        assert found["spec"]["healthCheckNodePort"] == port + 1000
        assert found["spec"]["selector"] == {"app": "web", "version": "2"}
        assert found["metadata"]["labels"] == {"x": "y", "new": "one", "people": "too"}
        assert found["metadata"]["ownerReferences"] == [here().owner]
    after = objects.now(PRIMARY)
    assert after is not None
    assert after["spec"]["clusterIP"] == before["spec"]["clusterIP"]


async def test_the_primary_is_changed_by_promotions_alone() -> None:
    objects = Strict([cluster_ip()])
    workload = ServiceWorkload(objects, CanarySettings())
    await workload.initialize(here())
    objects.change(WEB, {"spec": {"selector": {"app": "other"}}})
    objects.forget()
    await workload.initialize(here())
    assert objects.writes == [("patch", "Service", "web-canary")]
    objects.remove(PRIMARY)
    await workload.initialize(here())
    assert objects.writes[1:] == [("create", "Service", "web-primary")]


async def test_headless_services_and_changes_of_type_are_followed() -> None:
    objects = Strict([cluster_ip(clusterIP="None", clusterIPs=["None"])])
    workload = ServiceWorkload(objects, CanarySettings())
    await workload.initialize(here())
    found = objects.now(CANARY)
    assert found is not None
    assert (found["spec"]["clusterIP"], found["spec"]["clusterIPs"]) == ("None", ["None"])
    external = cluster_ip()
    external["spec"] = {"type": "ExternalName", "externalName": "a.example.org", "sessionAffinity": "None"}
    objects.put(external)
    await workload.initialize(here())
    found = objects.now(CANARY)
    assert found is not None
    assert found["spec"] == external["spec"]


def test_address_families_are_copied_when_somebody_asked_for_them() -> None:
    families = {"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack"}
    spec = copied_spec(here(), cluster_ip(**families), None)
    assert {name: spec[name] for name in families} == families
    given = cluster_ip(clusterIPs=["10.0.0.9"], clusterIP="10.0.0.9")
    kept = copied_spec(here(), cluster_ip(**families), given)
    assert kept["clusterIPs"] == ["10.0.0.9"]
    assert kept["ipFamilyPolicy"] == "PreferDualStack"


def test_the_canary_says_how_traffic_is_distributed() -> None:
    assert copied_spec(here(trafficDistribution="PreferClose"), cluster_ip(), None)["trafficDistribution"] == "PreferClose"
    assert copied_spec(here(), cluster_ip(trafficDistribution="PreferSameNode"), None)["trafficDistribution"] == "PreferSameNode"


async def revision(spec: Object) -> str:
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "prod"}, "spec": spec}
    return (await ServiceWorkload(MemoryObjects([body]), CanarySettings()).target(here().canary)).revision


ASKED: Object = {"selector": {"app": "web"}, "ports": [{"port": 80}]}


@pytest.mark.parametrize(
    "filled",
    [
        {"clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"},
        {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "publishNotReadyAddresses": False},
        {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30080}], "healthCheckNodePort": 31000},
        {"externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": True},
        {"loadBalancerSourceRanges": [], "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}},
    ],
)
async def test_what_a_server_fills_in_is_no_new_revision(filled: Object) -> None:
    assert await revision({**ASKED, **filled}) == await revision(ASKED)


@pytest.mark.parametrize(
    "changed",
    [
        {"selector": {"app": "web", "v": "2"}},
        {"ports": [{"port": 80, "targetPort": 81}]},
        {"ports": [{"port": 80, "protocol": "UDP"}]},
        {"type": "ExternalName", "externalName": "a"},
        {"clusterIP": "None"},
        {"sessionAffinity": "ClientIP"},
        {"ipFamilyPolicy": "PreferDualStack"},
        {"somethingNew": False},
    ],
)
async def test_what_people_change_is_a_new_revision(changed: Object) -> None:
    assert await revision({**ASKED, **changed}) != await revision(ASKED)


async def test_the_target_has_no_pods() -> None:
    objects = Strict([cluster_ip()])
    workload = ServiceWorkload(objects, CanarySettings())
    found = await workload.target(here().canary)
    assert (found.label, found.value, found.ports, found.images) == ("", "", {}, ())
    objects.forget()
    assert (await workload.primary_ready(here()), await workload.canary_ready(here())) == (READY, READY)
    assert await workload.configs(here()) is None
    for call in (workload.scale_to_zero(here()), workload.scale_from_zero(here()), workload.give_back(here())):
        await call
    assert (objects.reads, objects.writes) == ([], [])


@pytest.mark.parametrize(
    ("fail", "text"),
    [
        (("get", "web"), "service web.prod get query error: no answer"),
        (("get", "web-canary"), "reconcileCanaryService failed: service web-canary.prod get query error: no answer"),
        (("create", "web-canary"), "reconcileCanaryService failed: creating service shop.prod query error: no answer"),
        (("create", "web-primary"), "reconcilePrimaryService failed: creating service shop.prod query error: no answer"),
    ],
)
async def test_failures_are_told_in_flaggers_words(fail: tuple[str, str], text: str) -> None:
    objects = Strict([cluster_ip()])
    objects.fail[fail[0], "Service", fail[1]] = ReconcileError("no answer")
    where = site(recorded("service-target")["canary"], name="shop", label="", value="")
    with pytest.raises(Problem) as raised:
        await ServiceWorkload(objects, CanarySettings()).initialize(where)
    assert str(raised.value) == text


async def test_failures_of_updates_and_promotions_are_told() -> None:
    objects = Strict([cluster_ip()])
    workload = ServiceWorkload(objects, CanarySettings())
    await workload.initialize(here())
    objects.change(WEB, {"spec": {"selector": {"app": "other"}}})
    for name in ("web-canary", "web-primary"):
        objects.fail["patch", "Service", name] = ReconcileError("no answer")
    with pytest.raises(Problem, match=r"^reconcileCanaryService failed: updating service web-canary\.prod failed: no answer$"):
        await workload.initialize(here())
    with pytest.raises(Problem, match=r"^updating service web-primary\.prod failed: no answer$"):
        await workload.promote(here())


async def test_a_missing_target_is_a_problem() -> None:
    with pytest.raises(Problem, match=r'^service web\.prod get query error: services "web" not found$'):
        await ServiceWorkload(Strict(), CanarySettings()).target(here().canary)


names = st.sampled_from(
    ["type", "selector", "clusterIP", "clusterIPs", "ipFamilyPolicy", "healthCheckNodePort", "unknown", "other"]
)
values = st.one_of(st.text(max_size=5), st.integers(), st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
ports = st.lists(
    st.fixed_dictionaries(
        {"port": st.integers(1, 9)}, optional={"name": st.sampled_from("abc"), "nodePort": st.integers(1, 9), "unknown": values}
    ),
    max_size=3,
)


@given(spec=st.dictionaries(names, values, max_size=6), listed=st.none() | ports)
def test_copying_again_changes_nothing_and_unknown_fields_are_copied(spec: Object, listed: Any) -> None:
    target = cluster_ip()
    target["spec"] = spec if listed is None else {**spec, "ports": listed}
    untouched = deepcopy(target)
    first = copied(here(), target, CANARY, None)
    assert copied(here(), target, CANARY, deepcopy(first)) == first
    assert target == untouched
    assert {name: first["spec"][name] for name in ("unknown", "other") if name in first["spec"]} == {
        name: value for name, value in spec.items() if name in ("unknown", "other")
    }
    assert without_assigned(without_assigned(target["spec"])) == without_assigned(target["spec"])
    assert meaning(first["spec"]) == meaning(target["spec"])
