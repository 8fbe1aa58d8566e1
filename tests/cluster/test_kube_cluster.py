"""The Cluster on a real API server: what applying, deleting and waiting do, what they cost, and what is said when they fail."""

from __future__ import annotations

import asyncio
import copy
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reconcile.api.kstatus import Status
from reconcile.errors import Conflict, Invalid, LimitExceeded, NotFound, TimedOut
from reconcile.kube.client import Client
from reconcile.kube.cluster import KubeCluster
from reconcile.kube.errors import Denied, KindMissing, ObjectMissing
from reconcile.kube.resources import Resources
from reconcile.ports.clock import SystemClock
from reconcile.ports.cluster import Cluster as ClusterPort
from reconcile.ports.cluster import Impersonation, NotReady, Propagation, Reference
from tests.support.clock import VirtualClock
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.kube import THING, eventually, minimal_crd, open_client, thing, thing_kind
from tests.support.kubeapi import ApiError

pytestmark = pytest.mark.slow

OURS = "imagebot/"
DEFINITION = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")


@pytest.fixture
async def client(control_plane: Cluster) -> AsyncIterator[Client]:
    async with open_client(control_plane.kubeconfig) as made:
        yield made


@pytest.fixture
def cluster(client: Client) -> KubeCluster:
    made = KubeCluster(client, SystemClock())
    _: ClusterPort = made
    return made


def config(namespace: str, name: str = "settings", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "web"}},
        "data": data,
    }


def deployment(namespace: str, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels, "annotations": annotations or {}},
        "spec": {"containers": [{"name": "app", "image": "example/app:1.0.0"}]},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def find_text(plane: Cluster, path: str) -> Any:
    """What is at a path; nothing where there is none."""
    try:
        return plane.api.request("GET", path)
    except ApiError as error:
        if error.code != 404:
            raise
        return ""


# --- reading


async def test_objects_are_read_as_they_are(cluster: KubeCluster, control_plane: Cluster, namespace: str) -> None:
    control_plane.api.create(config(namespace, key="value"))
    found = await cluster.get("v1", "ConfigMap", namespace, "settings")
    assert found == control_plane.api.get("v1", "ConfigMap", "settings", namespace)
    with pytest.raises(NotFound, match=r'^configmaps "other" not found$'):
        await cluster.get("v1", "ConfigMap", namespace, "other")
    # A kind without namespaces is found whatever the reference says of one.
    assert (await cluster.get("v1", "Namespace", "x", namespace))["metadata"]["name"] == namespace


async def test_lists_come_in_pages_and_say_what_their_objects_are(
    own_control_plane: ControlPlane, client: Client, namespace: str
) -> None:
    cluster = KubeCluster(client, SystemClock(), page=2, most=5)
    for number in range(5):
        own_control_plane.api.create(config(namespace, f"c{number}"))
    mark = own_control_plane.audit.mark()
    found = await cluster.list("v1", "ConfigMap", namespace, "app=web")
    assert [Reference.of(each) for each in found] == [Reference("v1", "ConfigMap", namespace, f"c{n}") for n in range(5)]
    assert own_control_plane.audit.tally(mark, user_agent=OURS) == {"get ": 1, "list configmaps": 3}
    assert await cluster.list("v1", "ConfigMap", namespace, "app=other") == []

    everywhere = await KubeCluster(client, SystemClock()).list("v1", "ConfigMap", selector="app=web")
    assert {each["metadata"]["namespace"] for each in everywhere} >= {namespace}

    own_control_plane.api.create(config(namespace, "c5"))
    with pytest.raises(LimitExceeded, match=f"^list configmaps {namespace}: there are more than 5 objects$"):
        await cluster.list("v1", "ConfigMap", namespace, "app=web")


# --- discovery


async def test_each_group_version_is_asked_for_once(
    own_control_plane: ControlPlane, cluster: KubeCluster, namespace: str
) -> None:
    mark = own_control_plane.audit.mark()
    for _ in range(3):
        assert await cluster.known("v1", "ConfigMap")
        assert await cluster.known("v1", "Namespace")
        assert await cluster.known("apps/v1", "Deployment")
        assert await cluster.acting_as(Impersonation("somebody")).known("apps/v1", "StatefulSet")
    uris = [request.uri for request in own_control_plane.audit.select(mark, user_agent=OURS)]
    assert uris == ["/api/v1", "/apis/apps/v1"]


async def test_what_is_remembered_grows_old_and_is_bounded(own_control_plane: ControlPlane, client: Client) -> None:
    clock = VirtualClock()
    resources = Resources(client, clock, age=600, most=1)
    mark = own_control_plane.audit.mark()
    assert (await resources.find("v1", "Pod")).target("n", "p").path == "/api/v1/namespaces/n/pods/p"
    clock.advance(599)
    await resources.find("v1", "Pod")
    assert own_control_plane.audit.count(mark, user_agent=OURS) == 1
    clock.advance(1)
    await resources.find("v1", "Pod")
    assert own_control_plane.audit.count(mark, user_agent=OURS) == 2
    await resources.find("apps/v1", "Deployment")
    await resources.find("v1", "Pod")
    assert own_control_plane.audit.count(mark, user_agent=OURS) == 4


async def test_a_miss_asks_once_more_and_finds_a_new_definition(
    own_control_plane: ControlPlane, cluster: KubeCluster, namespace: str
) -> None:
    first, second = (thing_kind(f"{name}{secrets.token_hex(3)}") for name in ("First", "Second"))
    own_control_plane.api.install_crd(minimal_crd(first))
    assert await cluster.known(first.api_version, first.kind)

    mark = own_control_plane.audit.mark()
    assert not await cluster.known(second.api_version, second.kind)
    assert own_control_plane.audit.count(mark, user_agent=OURS) == 1
    with pytest.raises(KindMissing, match=f'^no matches for kind "{second.kind}" in version "{second.api_version}"$'):
        await cluster.apply(thing("one", namespace, kind=second), manager="tests")

    own_control_plane.api.install_crd(minimal_crd(second))
    mark = own_control_plane.audit.mark()
    applied = await cluster.apply(thing("one", namespace, kind=second), manager="tests")
    assert applied["spec"] == {"size": 1}
    assert [(r.verb, r.uri.partition("?")[0]) for r in own_control_plane.audit.select(mark, user_agent=OURS)] == [
        ("get", f"/apis/{second.api_version}"),
        ("patch", f"/apis/{second.api_version}/namespaces/{namespace}/{second.plural}/one"),
    ]
    # That list has both; the first kind was not forgotten either.
    assert await cluster.known(first.api_version, first.kind)
    assert own_control_plane.audit.count(mark, user_agent=OURS) == 2


async def test_what_is_no_version_or_name_is_not_asked_for(
    own_control_plane: ControlPlane, cluster: KubeCluster, namespace: str
) -> None:
    assert not await cluster.known("nowhere.test/v1", "Thing")
    mark = own_control_plane.audit.mark()
    for api_version in ("", "/v1", "apps/", "a/b/c", "../v1", "apps/v1?x=y"):
        with pytest.raises(Invalid, match="is not an apiVersion: write it like v1 or apps/v1"):
            await cluster.known(api_version, "Deployment")
    assert own_control_plane.audit.count(mark, user_agent=OURS) == 0
    for where, name in ((namespace, "a/status"), (namespace, ".."), ("", "a"), ("..", "a"), (namespace, "")):
        with pytest.raises(Invalid):
            await cluster.get("v1", "ConfigMap", where, name)
    with pytest.raises(Invalid, match=r"needs apiVersion, kind and metadata\.name"):
        await cluster.apply({"apiVersion": "v1", "kind": "ConfigMap"}, manager="tests")
    assert own_control_plane.audit.tally(mark, user_agent=OURS) == {"get ": 1}


# --- applying


async def test_applying_the_same_again_does_not_move_the_version(
    own_control_plane: ControlPlane, cluster: KubeCluster, namespace: str
) -> None:
    wanted = deployment(namespace, "web", replicas=0)
    before = copy.deepcopy(wanted)
    first = await cluster.apply(wanted, manager="tests")
    assert wanted == before
    settled = own_control_plane.api.wait(
        "apps/v1", "Deployment", "web", lambda found: (found or {}).get("status", {}).get("observedGeneration") == 1, namespace
    )
    assert settled is not None
    mark = own_control_plane.audit.mark()
    versions = set()
    for _ in range(3):
        again = await cluster.apply(wanted, manager="tests")
        versions.add((again["metadata"]["uid"], again["metadata"]["generation"]))
    assert versions == {(first["metadata"]["uid"], 1)}
    assert own_control_plane.audit.tally(mark, user_agent=OURS) == {"patch deployments": 3}

    one = await cluster.apply(config(namespace, key="value"), manager="tests")
    two = await cluster.apply(config(namespace, key="value"), manager="tests")
    assert one["metadata"]["resourceVersion"] == two["metadata"]["resourceVersion"]
    other = await cluster.apply(config(namespace, key="other"), manager="tests")
    assert other["metadata"]["resourceVersion"] != one["metadata"]["resourceVersion"]


async def test_what_is_not_applied_any_more_is_taken_away(cluster: KubeCluster, namespace: str) -> None:
    await cluster.apply(config(namespace, a="1", b="2"), manager="tests")
    assert (await cluster.apply(config(namespace, a="1"), manager="tests"))["data"] == {"a": "1"}


async def test_a_dry_run_changes_nothing_and_shows_defaults(cluster: KubeCluster, control_plane: Cluster, namespace: str) -> None:
    shown = await cluster.dry_run(deployment(namespace, "web"), manager="tests")
    assert shown["spec"]["strategy"]["type"] == "RollingUpdate"
    assert control_plane.api.find("apps/v1", "Deployment", "web", namespace) is None

    await cluster.apply(config(namespace, key="value"), manager="tests")
    before = control_plane.api.get("v1", "ConfigMap", "settings", namespace)
    assert (await cluster.dry_run(config(namespace, key="other"), manager="tests"))["data"] == {"key": "other"}
    assert control_plane.api.get("v1", "ConfigMap", "settings", namespace) == before
    with pytest.raises(Conflict, match='conflict with "tests"'):
        await cluster.dry_run(config(namespace, key="other"), manager="another")
    assert (await cluster.dry_run(config(namespace, key="third"), manager="another", force=True))["data"] == {"key": "third"}
    assert control_plane.api.get("v1", "ConfigMap", "settings", namespace) == before


async def test_a_namespace_does_not_count_where_there_is_none(
    cluster: KubeCluster, control_plane: Cluster, namespace: str
) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": []}
    wanted = {**role, "metadata": {"name": f"imagebot-test:{namespace}", "namespace": namespace}}
    made = await cluster.apply(wanted, manager="tests")
    assert "namespace" not in made["metadata"]
    assert await cluster.delete(wanted, uid=made["metadata"]["uid"])
    assert control_plane.api.find(role["apiVersion"], "ClusterRole", made["metadata"]["name"]) is None


async def test_a_conflict_names_the_other_manager_and_force_takes_over(cluster: KubeCluster, namespace: str) -> None:
    await cluster.apply(config(namespace, key="value"), manager="first")
    with pytest.raises(Conflict, match=r'^Apply failed with 1 conflict: conflict with "first": \.data\.key$'):
        await cluster.apply(config(namespace, key="other"), manager="second")
    assert (await cluster.get("v1", "ConfigMap", namespace, "settings"))["data"] == {"key": "value"}
    assert (await cluster.apply(config(namespace, key="other"), manager="second", force=True))["data"] == {"key": "other"}
    with pytest.raises(Conflict, match='conflict with "second"'):
        await cluster.apply(config(namespace, key="value"), manager="first")


async def test_what_the_server_refuses_is_said_in_its_words(cluster: KubeCluster, namespace: str) -> None:
    wrong = deployment(namespace, "web", replicas=-1)
    with pytest.raises(Invalid, match=r'^Deployment\.apps "web" is invalid: spec\.replicas: Invalid value: -1: must be greater'):
        await cluster.dry_run(wrong, manager="tests")
    with pytest.raises(ObjectMissing, match=r'^namespaces "no-such-namespace" not found$'):
        await cluster.apply(config("no-such-namespace"), manager="tests")


# --- deleting


async def test_a_delete_is_for_one_uid_and_missing_is_fine(cluster: KubeCluster, namespace: str) -> None:
    made = await cluster.apply(config(namespace), manager="tests")
    reference = Reference.of(made)
    with pytest.raises(Conflict, match=r"the UID in the precondition .* does not match"):
        await cluster.delete(reference, uid="00000000-0000-0000-0000-000000000000")
    assert (await cluster.get("v1", "ConfigMap", namespace, "settings"))["metadata"]["uid"] == made["metadata"]["uid"]
    assert await cluster.delete(made, uid=made["metadata"]["uid"])
    assert not await cluster.delete(reference, uid=made["metadata"]["uid"])
    assert not await cluster.delete(Reference("nowhere.test/v1", "Thing", namespace, "one"))
    assert not await cluster.delete(Reference("v1", "Nothing", namespace, "one"))


@pytest.mark.parametrize(("propagation", "stays"), [(Propagation.BACKGROUND, False), (Propagation.ORPHAN, True)])
async def test_propagation_decides_over_what_is_owned(
    workloads: Cluster, cluster: KubeCluster, namespace: str, propagation: Propagation, stays: bool
) -> None:
    made = await cluster.apply(deployment(namespace, "web", replicas=0), manager="tests")

    def sets() -> list[Any]:
        return workloads.api.list("apps/v1", "ReplicaSet", namespace)

    await eventually(sets)
    await asyncio.sleep(1.0)  # the garbage collector has to have seen the set too: what it does not know of it cannot orphan
    assert await cluster.delete(made, propagation=propagation)
    workloads.api.wait("apps/v1", "Deployment", "web", lambda found: found is None, namespace)
    if stays:
        assert [each["metadata"].get("ownerReferences") for each in sets()] == [None]
    else:
        await eventually(lambda: not sets())


async def test_foreground_keeps_the_owner_until_the_owned_are_gone(
    workloads: Cluster, cluster: KubeCluster, namespace: str
) -> None:
    made = await cluster.apply(deployment(namespace, "web", replicas=0), manager="tests")
    await eventually(lambda: workloads.api.list("apps/v1", "ReplicaSet", namespace))
    owned = workloads.api.list("apps/v1", "ReplicaSet", namespace)[0]["metadata"]["name"]
    hold = {"metadata": {"finalizers": ["imagebot.test/hold"]}}
    workloads.api.merge_patch("apps/v1", "ReplicaSet", owned, hold, namespace)
    assert await cluster.delete(made, propagation=Propagation.FOREGROUND)
    with pytest.raises(NotReady, match=f"Deployment/{namespace}/web status: 'Terminating'"):
        await cluster.wait([made], timeout=0.5)
    workloads.api.merge_patch("apps/v1", "ReplicaSet", owned, {"metadata": {"finalizers": None}}, namespace)
    workloads.api.wait("apps/v1", "Deployment", "web", lambda found: found is None, namespace)


async def test_an_object_whose_version_is_gone_is_deleted_in_another(
    cluster: KubeCluster, control_plane: Cluster, namespace: str
) -> None:
    control_plane.api.install_crd(minimal_crd(THING))
    control_plane.api.create(thing("one", namespace))
    assert await cluster.delete(Reference(f"{THING.group}/v0", THING.kind, namespace, "one"))
    assert control_plane.api.find(THING.api_version, THING.kind, "one", namespace) is None


async def test_objects_went_with_their_definition(control_plane: Cluster, cluster: KubeCluster, namespace: str) -> None:
    info = thing_kind(f"Gone{secrets.token_hex(3)}")
    name = f"{info.plural}.{info.group}"
    control_plane.api.install_crd(minimal_crd(info))
    one = await cluster.apply(thing("one", namespace, kind=info), manager="tests")
    assert await cluster.delete(Reference(*DEFINITION, "", name))
    control_plane.api.wait(*DEFINITION, name, lambda found: found is None)
    served = f"/apis/{info.api_version}"
    await eventually(lambda: info.kind not in str(find_text(control_plane, served)))
    assert not await cluster.delete(one)
    with pytest.raises(KindMissing, match=f'no matches for kind "{info.kind}"'):
        await cluster.get(info.api_version, info.kind, namespace, "one")


# --- waiting


async def test_waiting_for_a_deployment_and_what_is_there_at_once(
    workloads: Cluster, cluster: KubeCluster, namespace: str
) -> None:
    web = await cluster.apply(deployment(namespace, "web", {"imagebot.test/ready-after": "1s"}, replicas=2), manager="tests")
    settings = await cluster.apply(config(namespace), manager="tests")
    done = await cluster.wait([web, Reference.of(settings)], timeout=60)
    assert [(str(each.reference), each.summary and each.summary.status) for each in done] == [
        (f"Deployment/{namespace}/web", Status.CURRENT),
        (f"ConfigMap/{namespace}/settings", Status.CURRENT),
    ]
    available = workloads.api.get("apps/v1", "Deployment", "web", namespace)["status"]
    assert (available["availableReplicas"], available["observedGeneration"]) == (2, 1)


async def test_a_broken_deployment_is_named_with_its_reason(workloads: Cluster, cluster: KubeCluster, namespace: str) -> None:
    web = await cluster.apply(deployment(namespace, "web", {"imagebot.test/broken": "ImagePullBackOff"}), manager="tests")
    await eventually(lambda: any(p["status"].get("containerStatuses") for p in workloads.api.list("v1", "Pod", namespace)))
    missing = Reference("v1", "ConfigMap", namespace, "none")
    with pytest.raises(TimedOut) as late:
        await cluster.wait([web, missing], timeout=3)
    text = re.sub(r"web-[a-z0-9]+-[a-z0-9]+", "POD", str(late.value))
    assert text.startswith(
        f"timeout waiting for: [Deployment/{namespace}/web status: 'InProgress': Available: 0/1; "
        "Pod POD: container app: ImagePullBackOff"
    )
    assert text.endswith(f"ConfigMap/{namespace}/none status: 'NotFound': configmaps \"none\" not found]")


async def test_a_deployment_over_its_deadline_ends_the_wait(workloads: Cluster, cluster: KubeCluster, namespace: str) -> None:
    broken = {"imagebot.test/broken": "ImagePullBackOff"}
    web = await cluster.apply(deployment(namespace, "web", broken, progressDeadlineSeconds=1), manager="tests")
    with pytest.raises(NotReady, match=r"^failed early due to stalled resources") as stuck:
        await cluster.wait([web], timeout=60)
    assert f"[Deployment/{namespace}/web status: 'Failed': Progress deadline exceeded]" in str(stuck.value)


async def test_a_stateful_set_fails_with_its_pod(workloads: Cluster, cluster: KubeCluster, namespace: str) -> None:
    crashing = deployment(namespace, "db", {"imagebot.test/broken": "CrashLoopBackOff"}, serviceName="db")
    with pytest.raises(NotReady, match=r"StatefulSet/[^ ]+/db status: 'Failed': Pod db-0: Containers in CrashLoop state: app\]$"):
        await cluster.wait([await cluster.apply({**crashing, "kind": "StatefulSet"}, manager="tests")], timeout=60)


async def test_a_kind_and_its_definition_become_current(cluster: KubeCluster, namespace: str) -> None:
    info = thing_kind(f"Late{secrets.token_hex(3)}")
    definition = await cluster.apply(minimal_crd(info), manager="tests")
    await cluster.wait([definition, Reference(*DEFINITION, "", f"{info.plural}.{info.group}")], timeout=30)
    with pytest.raises(NotReady, match=f"{info.kind}/{namespace}/one status: 'NotFound'"):
        await cluster.wait([thing("one", namespace, kind=info)], timeout=1)


# --- rights


async def test_somebody_without_rights_is_told_the_missing_rule(
    own_control_plane: ControlPlane, cluster: KubeCluster, namespace: str
) -> None:
    user = f"system:serviceaccount:{namespace}:applier"
    limited = cluster.acting_as(Impersonation(user))
    with pytest.raises(Denied) as denied:
        await limited.apply(config(namespace), manager="tests")
    assert str(denied.value) == (
        f'configmaps "settings" is forbidden: User "{user}" cannot patch resource "configmaps" in API group "" in the namespace '
        f'"{namespace}": missing RBAC rule {{apiGroups: [""], resources: ["configmaps"], verbs: ["patch"]}}'
    )
    with pytest.raises(
        Denied, match=r'missing RBAC rule \{apiGroups: \[""\], resources: \["configmaps"\], verbs: \["delete"\]\}$'
    ):
        await limited.delete(config(namespace))
    with pytest.raises(NotReady, match=f"can't determine status for ConfigMap/{namespace}/settings: .* cannot get resource"):
        await limited.wait([config(namespace)], timeout=0.3)

    rbac = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch"]}]
    metadata = {"name": "applier", "namespace": namespace}
    await cluster.apply({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules}, manager="tests")
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "applier"},
        "subjects": [{"kind": "Group", "apiGroup": rbac, "name": "appliers"}],
    }
    await cluster.apply(binding, manager="tests")
    grouped = cluster.acting_as(Impersonation(user, ("appliers",)))

    async def allowed() -> bool:
        try:
            await grouped.apply(config(namespace), manager="tests")
        except Denied:
            return False  # the authorizer has not seen the binding yet
        return True

    await eventually(allowed)
    assert (await grouped.wait([config(namespace)], timeout=10))[0].current
    with pytest.raises(Denied):
        await limited.get("v1", "ConfigMap", namespace, "settings")


async def test_a_path_of_the_api_is_read_as_it_is(client: Client) -> None:
    found = await client.raw("/apis/apps/v1")
    assert (found["kind"], found["groupVersion"]) == ("APIResourceList", "apps/v1")
    listed = await client.raw("/api/v1/namespaces?labelSelector=kubernetes.io%2Fmetadata.name%3Ddefault")
    assert [each["metadata"]["name"] for each in listed["items"]] == ["default"]
    with pytest.raises(Invalid, match="is no path of the Kubernetes API"):
        await client.raw("https://elsewhere.example/api/v1")
    with pytest.raises(KindMissing):
        await client.raw("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/jobs?labelSelector=a%3Db")
