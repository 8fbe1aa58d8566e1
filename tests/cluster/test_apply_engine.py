"""The apply engine on a real API server: stages, drift, force, pruning, marks; what it says, and what it costs."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from reconcile.api.appliers import CustomHealthCheck, IgnoreRule, Selector
from reconcile.apply import health
from reconcile.apply.changeset import Action, ApplyFailed, PruneFailed
from reconcile.apply.engine import Applier
from reconcile.apply.inventory import Entry
from reconcile.apply.memory import Memory, seen_state
from reconcile.apply.owner import Owner
from reconcile.apply.prepare import prepared
from reconcile.apply.prune import wait_gone
from reconcile.apply.readers import Readers
from reconcile.errors import Conflict, Invalid, NotFound
from reconcile.kube import connect
from reconcile.kube.client import Client
from reconcile.kube.cluster import KubeCluster
from reconcile.kube.errors import Late
from reconcile.kube.owned import OwnedStamps
from reconcile.ports.clock import SystemClock
from reconcile.ports.cluster import Impersonation, NotReady, Object, Reference, UnknownKind
from reconcile.ports.stamps import Sight, Touched
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.kube import eventually, minimal_crd, open_client, thing, thing_kind

pytestmark = pytest.mark.slow

OURS = "imagebot/"


@pytest.fixture
async def client(control_plane: Cluster) -> AsyncIterator[Client]:
    async with open_client(control_plane.kubeconfig) as made:
        yield made
        await asyncio.sleep(0.05)  # the connections of ended watches are closed by both sides in turn, before the loop ends


@pytest.fixture
async def stamps(client: Client) -> AsyncIterator[OwnedStamps]:
    async with OwnedStamps(client, SystemClock()) as made:
        yield made


@pytest.fixture
def cluster(client: Client) -> KubeCluster:
    return KubeCluster(client, SystemClock())


@pytest.fixture
def applier(cluster: KubeCluster) -> Applier:
    """Without watches and without memory between two of its kind."""
    return Applier(cluster, SystemClock())


@pytest.fixture
def owner(namespace: str) -> Owner:
    return Owner("app", namespace)


def config(namespace: str, name: str = "one", annotations: dict[str, str] | None = None, **data: Any) -> Object:
    metadata: Object = {"name": name, "namespace": namespace}
    if annotations:
        metadata["annotations"] = {f"kustomize.toolkit.fluxcd.io/{key}": value for key, value in annotations.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def deployment(namespace: str, name: str = "web", **spec: Any) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "example/app:1.0.0"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def service(namespace: str, port: int) -> Object:
    metadata = {"name": "svc", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": port}]}}


def refs(*objects: Object) -> list[Reference]:
    return [Reference.of(each) for each in objects]


def managers(found: Object) -> list[tuple[str, str]]:
    return sorted((entry["manager"], entry["operation"]) for entry in found["metadata"]["managedFields"])


class Ledger:
    """What an apply intended to write."""

    def __init__(self) -> None:
        self.intended: list[str] = []

    async def __call__(self, references: Sequence[Reference]) -> None:
        self.intended += map(str, references)


def writes(tally: Counter[str]) -> dict[str, int]:
    return {what: count for what, count in tally.items() if what.split(" ")[0] in {"patch", "delete", "create", "update"}}


def dry_and_real(plane: ControlPlane, mark: int) -> tuple[int, int, int]:
    """Reads of objects, dry runs and writes of ours since a mark."""
    requests = plane.audit.select(mark, user_agent=OURS)
    patches = [request for request in requests if request.verb == "patch"]
    dry = sum("dryRun=All" in request.uri for request in patches)
    return sum(request.verb == "get" and bool(request.name) for request in requests), dry, len(patches) - dry


# --- applying


async def test_created_configured_unchanged_and_what_each_costs(
    own_control_plane: ControlPlane, cluster: KubeCluster, stamps: OwnedStamps, owner: Owner, namespace: str
) -> None:
    applier, ledger = Applier(cluster, SystemClock(), memory=Memory(), stamps=stamps), Ledger()
    mark = own_control_plane.audit.mark()
    wanted = prepared([config(namespace, "b", k="v"), config(namespace, "a", k="v"), deployment(namespace)], owner)
    done = await applier.apply(wanted, owner=owner, intend=ledger)
    assert done.lines() == [
        f"ConfigMap/{namespace}/a created",
        f"ConfigMap/{namespace}/b created",
        f"Deployment/{namespace}/web created",
    ]
    assert ledger.intended == [str(reference) for reference in done.references()]
    assert dry_and_real(own_control_plane, mark) == (0, 3, 3)  # what a dry run tells to be new is not looked for

    mark, ledger = own_control_plane.audit.mark(), Ledger()
    again = await applier.apply(wanted, owner=owner, intend=ledger)
    assert [change.action for change in again] == [Action.UNCHANGED] * 3
    assert (own_control_plane.audit.tally(mark, user_agent=OURS), ledger.intended) == (Counter(), [])

    mark = own_control_plane.audit.mark()
    wanted = prepared([config(namespace, "b", k="new"), config(namespace, "a", k="v"), deployment(namespace)], owner)
    done = await applier.apply(wanted, owner=owner)
    assert (done.lines(), done.drifted) == ([f"ConfigMap/{namespace}/b configured"], ())
    assert dry_and_real(own_control_plane, mark) == (1, 1, 1)

    # Nothing is remembered: a look and a dry run for each object, and no write.
    mark = own_control_plane.audit.mark()
    assert not (await Applier(cluster, SystemClock()).apply(wanted, owner=owner)).changed
    assert dry_and_real(own_control_plane, mark) == (3, 3, 0)


async def test_drift_is_put_back_and_says_who_it_was(
    own_control_plane: ControlPlane, cluster: KubeCluster, stamps: OwnedStamps, owner: Owner, namespace: str
) -> None:
    told: list[Touched] = []
    stamps.subscribe(told.append)
    applier = Applier(cluster, SystemClock(), memory=Memory(), stamps=stamps)
    wanted = prepared([config(namespace, "one", k="git", other="x"), config(namespace, "two", k="v")], owner)
    await applier.apply(wanted, owner=owner)
    assert told == []  # our own writes are no news
    own_control_plane.api.apply(config(namespace, "one", k="hand", extra="mine"), manager="somebody")
    await eventually(lambda: told)
    assert told[0].which == Reference.of(wanted[0])
    assert told[0].owners == frozenset({(namespace, "app")})
    mark = own_control_plane.audit.mark()
    done = await applier.apply(wanted, owner=owner)
    assert done.lines() == [f"ConfigMap/{namespace}/one configured"]
    assert [(each.path, each.managers) for each in done.drifted[0].drift] == [("/data/k", ("somebody",))]
    assert dry_and_real(own_control_plane, mark) == (1, 1, 1)
    found = own_control_plane.api.get("v1", "ConfigMap", "one", namespace)
    assert found["data"] == {"k": "git", "other": "x", "extra": "mine"}  # what is only theirs stays

    own_control_plane.api.merge_patch("v1", "ConfigMap", "one", {"data": {"other": None}}, namespace)
    await eventually(lambda: len(told) > 1)
    done = await applier.apply(wanted, owner=owner)
    assert [(each.path, each.managers) for each in done.drifted[0].drift] == [("/data/other", ())]
    own_control_plane.api.delete("v1", "ConfigMap", "two", namespace)
    await eventually(lambda: stamps.seen(Reference.of(wanted[1])) is Sight.NONE)
    assert (await applier.apply(wanted, owner=owner)).lines() == [f"ConfigMap/{namespace}/two created"]


async def test_one_change_among_a_thousand_writes_one_object(
    own_control_plane: ControlPlane, cluster: KubeCluster, stamps: OwnedStamps, owner: Owner, namespace: str
) -> None:
    applier = Applier(cluster, SystemClock(), concurrent=8, memory=Memory(), stamps=stamps)
    objects = [config(namespace, f"c{number}", k="v") for number in range(1000)]
    wanted = prepared(objects, owner)
    assert len((await applier.apply(wanted, owner=owner)).changed) == 1000
    references = refs(*wanted)
    state = applier.state(owner, references)
    assert state
    assert state == seen_state((reference, stamps.seen(reference)) for reference in references)
    objects[500]["data"]["k"] = "new"
    mark = own_control_plane.audit.mark()
    done = await applier.apply(prepared(objects, owner), owner=owner)
    assert done.lines() == [f"ConfigMap/{namespace}/c500 configured"]
    assert dry_and_real(own_control_plane, mark) == (1, 1, 1)
    assert applier.state(owner, references) not in {"", state}

    # After a restart the watches alone know whether anything has moved.
    async with open_client(own_control_plane.kubeconfig) as client, OwnedStamps(client, SystemClock()) as fresh:
        mark = own_control_plane.audit.mark()
        await fresh.follow({("v1", "ConfigMap")})
        assert seen_state((each, fresh.seen(each)) for each in references) == applier.state(owner, references)
        tally = own_control_plane.audit.tally(mark, user_agent=OURS)
        assert tally["get configmaps"] == 0
        assert tally["list configmaps"] <= 4
        own_control_plane.api.merge_patch("v1", "ConfigMap", "c1", {"metadata": {"labels": {"x": "y"}}}, namespace)
        now = applier.state(owner, references)
        await eventually(lambda: seen_state((each, fresh.seen(each)) for each in references) != now)


async def test_what_kubectl_owned_is_taken_over(control_plane: Cluster, applier: Applier, owner: Owner, namespace: str) -> None:
    old = config(namespace, "one", k="old", extra="kubectl")
    old["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    control_plane.api.apply(old, manager="kubectl-client-side-apply")
    done = await applier.apply(prepared([config(namespace, "one", k="git")], owner), owner=owner)
    assert (done.lines(), done.drifted) == ([f"ConfigMap/{namespace}/one configured"], ())
    found = control_plane.api.get("v1", "ConfigMap", "one", namespace)
    assert (found["data"], managers(found)) == ({"k": "git"}, [("kustomize-controller", "Apply")])
    assert "annotations" not in found["metadata"]

    merging = config(namespace, "two", {"ssa": "Merge"}, k="git")
    control_plane.api.apply(config(namespace, "two", k="old", extra="kubectl"), manager="kubectl-client-side-apply")
    await applier.apply(prepared([merging], owner), owner=owner)
    found = control_plane.api.get("v1", "ConfigMap", "two", namespace)
    assert (found["data"], len(managers(found))) == ({"k": "git", "extra": "kubectl"}, 2)


async def test_a_set_that_flux_applied_is_taken_over_without_a_write(
    own_control_plane: ControlPlane, applier: Applier, owner: Owner, namespace: str
) -> None:
    wanted = prepared([config(namespace, k="v"), deployment(namespace)], owner)
    for each in wanted:
        own_control_plane.api.apply(each, manager="kustomize-controller")
    mark = own_control_plane.audit.mark()
    done = await applier.apply(wanted, owner=owner)
    assert [change.action for change in done] == [Action.UNCHANGED] * 2
    assert dry_and_real(own_control_plane, mark) == (2, 2, 0)


async def test_annotations_leave_objects_alone(control_plane: Cluster, applier: Applier, owner: Owner, namespace: str) -> None:
    control_plane.api.create(config(namespace, "there", k="live"))
    control_plane.api.create(config(namespace, "disabled", {"reconcile": "Disabled"}, k="live"))
    wanted = [
        config(namespace, "there", {"ssa": "IfNotPresent"}, k="git"),
        config(namespace, "absent", {"ssa": "IfNotPresent"}, k="git"),
        config(namespace, "disabled", k="git"),
        config(namespace, "never", {"ssa": "Ignore"}, k="git"),
    ]
    done = await applier.apply(prepared(wanted, owner), owner=owner)
    assert done.lines(Action) == [
        f"ConfigMap/{namespace}/absent created",
        f"ConfigMap/{namespace}/disabled skipped",
        f"ConfigMap/{namespace}/never skipped",
        f"ConfigMap/{namespace}/there skipped",
    ]
    assert control_plane.api.get("v1", "ConfigMap", "there", namespace)["data"] == {"k": "live"}
    assert control_plane.api.find("v1", "ConfigMap", "never", namespace) is None


async def test_ignored_fields_stay_as_they_are(control_plane: Cluster, applier: Applier, owner: Owner, namespace: str) -> None:
    rules = [
        IgnoreRule(paths=["/spec/replicas"], target=Selector(kind="Deployment")),
        IgnoreRule(paths=["/data/volatile"]),
        IgnoreRule(paths=["/data/other"]),
    ]

    async def apply(image: str) -> list[str]:
        web = deployment(namespace)
        web["spec"]["template"]["spec"]["containers"][0]["image"] = image
        wanted = [web, config(namespace, volatile="git", other="git")]
        return (await applier.apply(prepared(wanted, owner), owner=owner, ignore=rules)).lines()

    assert len(await apply("a:1")) == 2
    control_plane.api.merge_patch("apps/v1", "Deployment", "web", {"spec": {"replicas": 3}}, namespace)
    control_plane.api.merge_patch("v1", "ConfigMap", "one", {"data": {"volatile": "live", "other": "live"}}, namespace)
    assert await apply("a:1") == []
    assert await apply("a:2") == [f"Deployment/{namespace}/web configured"]
    found = control_plane.api.get("apps/v1", "Deployment", "web", namespace)
    assert (found["spec"]["replicas"], found["spec"]["template"]["spec"]["containers"][0]["image"]) == (3, "a:2")
    assert control_plane.api.get("v1", "ConfigMap", "one", namespace)["data"] == {"volatile": "live", "other": "live"}


async def test_fields_that_nobody_knows_vanish_and_wrong_types_are_refused(
    control_plane: Cluster, applier: Applier, owner: Owner, namespace: str
) -> None:
    web = deployment(namespace, replica=3)
    web["spec"]["template"]["spec"]["bogus"] = {"x": 1}
    web["spec"]["template"]["spec"]["containers"][0]["foo"] = 1
    web["spec"]["template"]["metadata"]["creationTimestamp"] = None
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace}, "stringData": {"a": "b"}}
    done = await applier.apply(prepared([web, secret], owner), owner=owner)
    assert len(done.changed) == 2
    assert control_plane.api.get("v1", "Secret", "s", namespace)["data"] == {"a": "Yg=="}
    assert not (await applier.apply(prepared([web, secret], owner), owner=owner)).changed
    with pytest.raises(ApplyFailed) as failed:
        await applier.apply(prepared([config(namespace, number=1)], owner), owner=owner)
    assert str(failed.value) == (
        f"ConfigMap/{namespace}/one dry-run failed: failed to create typed patch object ({namespace}/one; /v1, Kind=ConfigMap): "
        ".data.number: expected string, got &value.valueUnstructured{Value:1}\n"
    )


# --- failures


async def test_a_failed_stage_writes_nothing_and_names_what_earlier_ones_did(
    control_plane: Cluster, applier: Applier, owner: Owner, namespace: str
) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": namespace}, "rules": []}
    ledger = Ledger()
    wanted = prepared([config(namespace, "aa"), service(namespace, 99999), role], owner)
    with pytest.raises(ApplyFailed) as failed:
        await applier.apply(wanted, owner=owner, intend=ledger)
    assert str(failed.value) == (
        f'Service/{namespace}/svc dry-run failed (Invalid): Service "svc" is invalid: [spec.ports[0].port: Invalid value: 99999: '
        "must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 99999: must be between 1 and 65535, "
        f"inclusive]\nClusterRole/{namespace} created\n"
    )
    assert ledger.intended == [f"ClusterRole/{namespace}"]  # known to whoever prunes
    assert control_plane.api.find("v1", "ConfigMap", "aa", namespace) is None
    done = await applier.prune(failed.value.changes.references(), owner=owner)
    assert done.lines(Action) == [f"ClusterRole/{namespace} deleted"]


async def test_texts_of_kinds_and_namespaces_that_are_not_there(applier: Applier, owner: Owner, namespace: str) -> None:
    async def fails(wanted: Object) -> str:
        with pytest.raises(ApplyFailed) as failed:
            await applier.apply(prepared([wanted], owner), owner=owner)
        return str(failed.value)

    nowhere = config(namespace)
    del nowhere["metadata"]["namespace"]
    assert await fails(nowhere) == "ConfigMap/one namespace not specified: the server could not find the requested resource\n"
    assert await fails(config("no-such-namespace")) == (
        'ConfigMap/no-such-namespace/one not found: namespaces "no-such-namespace" not found\n'
    )
    assert await fails({**config(namespace), "apiVersion": "example.test/v1", "kind": "Nothing"}) == (
        f'Nothing/{namespace}/one dry-run failed: no matches for kind "Nothing" in version "example.test/v1"\n'
    )
    assert await fails(config(namespace, large="x" * 1_600_000)) == (
        f'ConfigMap/{namespace}/one dry-run failed (Invalid): ConfigMap "one" is invalid: '
        "[]: Too long: may not be more than 1048576 bytes\n"
    )
    assert "dry-run failed (RequestEntityTooLarge): Request entity too large" in await fails(config(namespace, x="x" * 3_200_000))


async def test_whoever_has_no_rights_is_told_so_and_quota_too(
    control_plane: Cluster, cluster: KubeCluster, applier: Applier, owner: Owner, namespace: str
) -> None:
    user = f"system:serviceaccount:{namespace}:tenant"
    with pytest.raises(ApplyFailed) as failed:
        await Applier(cluster.acting_as(Impersonation(user)), SystemClock()).apply(
            prepared([config(namespace)], owner), owner=owner
        )
    assert str(failed.value).startswith(
        f'ConfigMap/{namespace}/one dry-run failed (Forbidden): configmaps "one" is forbidden: User "{user}" cannot patch '
        f'resource "configmaps" in API group "" in the namespace "{namespace}"'
    )
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": namespace}}
    control_plane.api.create({**quota, "spec": {"hard": {"configmaps": "0"}}})

    async def exceeded() -> bool:
        try:
            await applier.apply(prepared([config(namespace, secrets.token_hex(3))], owner), owner=owner)
        except ApplyFailed as error:
            return "dry-run failed (Forbidden): " in str(error) and "exceeded quota: q" in str(error)
        return False

    await eventually(exceeded)


async def test_force_is_for_fields_that_cannot_be_changed_and_for_nothing_else(
    control_plane: Cluster, applier: Applier, owner: Owner, namespace: str
) -> None:
    def immutable(value: str, **more: Any) -> Object:
        return {**config(namespace, k=value), "immutable": True, **more}

    await applier.apply(prepared([immutable("1"), service(namespace, 80), deployment(namespace)], owner), owner=owner)
    first = control_plane.api.get("v1", "ConfigMap", "one", namespace)
    with pytest.raises(ApplyFailed, match="field is immutable when `immutable` is set"):
        await applier.apply(prepared([immutable("2")], owner), owner=owner)
    done = await applier.apply(prepared([immutable("2")], owner), owner=owner, force=True)
    assert done.lines() == [f"ConfigMap/{namespace}/one created"]
    second = control_plane.api.get("v1", "ConfigMap", "one", namespace)
    assert (second["data"], second["metadata"]["uid"] != first["metadata"]["uid"]) == ({"k": "2"}, True)

    svc = control_plane.api.get("v1", "Service", "svc", namespace)
    with pytest.raises(ApplyFailed, match="must be between 1 and 65535"):
        await applier.apply(prepared([service(namespace, 99999)], owner), owner=owner, force=True)
    assert control_plane.api.get("v1", "Service", "svc", namespace)["metadata"]["uid"] == svc["metadata"]["uid"]

    # Refused for an immutable field and for an error that would be met again: what runs stays.
    web = control_plane.api.get("apps/v1", "Deployment", "web", namespace)
    broken = deployment(namespace, selector={"matchLabels": {"app": "other"}})
    with pytest.raises(ApplyFailed, match="field is immutable"):
        await applier.apply(prepared([broken], owner), owner=owner, force=True)
    assert control_plane.api.get("apps/v1", "Deployment", "web", namespace)["metadata"]["uid"] == web["metadata"]["uid"]

    annotated = immutable("3")
    annotated["metadata"]["annotations"] = {"kustomize.toolkit.fluxcd.io/force": "enabled"}
    assert (await applier.apply(prepared([annotated], owner), owner=owner)).lines() == [f"ConfigMap/{namespace}/one created"]


async def test_a_finalizer_that_never_ends_ends_the_wait(
    control_plane: Cluster, applier: Applier, owner: Owner, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconcile.apply.engine.GONE_TIMEOUT", 1.0)
    held = {**config(namespace, k="1"), "immutable": True}
    held["metadata"]["finalizers"] = ["imagebot.test/hold"]
    await applier.apply(prepared([held], owner), owner=owner)
    with pytest.raises(
        ApplyFailed, match=r"one apply failed: .* not gone 1s after its deletion: it has finalizers imagebot.test/hold"
    ):
        await applier.apply(prepared([{**held, "data": {"k": "2"}}], owner), owner=owner, force=True)
    control_plane.api.merge_patch("v1", "ConfigMap", "one", {"metadata": {"finalizers": None}}, namespace)


async def test_a_definition_and_its_objects_in_one_set(
    control_plane: Cluster, cluster: KubeCluster, applier: Applier, owner: Owner, namespace: str
) -> None:
    info = thing_kind(f"Set{secrets.token_hex(3)}")
    definition = minimal_crd(info)
    definition["spec"]["scope"] = "Cluster"
    one = thing("one", namespace, kind=info)  # its namespace does not count
    ledger = Ledger()
    done = await applier.apply(prepared([one, definition], owner), owner=owner, intend=ledger)
    assert done.lines() == [f"CustomResourceDefinition/{info.plural}.{info.group} created", f"{info.kind}/one created"]
    assert Entry.of(done.references()[1]).id == f"_one_{info.group}_{info.kind}"
    # The same object under a namespace that its kind does not have is not pruned as somebody else.
    forged = Reference(info.api_version, info.kind, namespace, "one")
    assert (await applier.prune([forged], owner=owner, keep=done.references())).lines(Action) == []
    assert control_plane.api.find(info.api_version, info.kind, "one") is not None
    await applier.prune(done.references(), owner=owner)
    await wait_gone(cluster, SystemClock(), done.references(), 20.0)


# --- pruning


async def test_only_what_is_ours_is_pruned_in_reverse_order(
    control_plane: Cluster, applier: Applier, owner: Owner, namespace: str
) -> None:
    objects = [config(namespace, name) for name in ("a", "b", "foreign", "kept", "disabled")]
    control_plane.api.create(config(namespace, "stranger"))
    done = await applier.apply(prepared([*objects, deployment(namespace)], owner), owner=owner)
    labels = {"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "another"}}}
    control_plane.api.merge_patch("v1", "ConfigMap", "foreign", labels, namespace)
    for name, mark in (("kept", "prune"), ("disabled", "reconcile")):
        notes = {"metadata": {"annotations": {f"kustomize.toolkit.fluxcd.io/{mark}": "disabled"}}}
        control_plane.api.merge_patch("v1", "ConfigMap", name, notes, namespace)
    control_plane.api.delete("v1", "ConfigMap", "b", namespace)
    forged = [
        Reference("v1", "ConfigMap", namespace, "stranger"),
        Reference("v1", "ConfigMap", "", "a"),
        Reference("v1", "ConfigMap", namespace, "../configmaps/a"),
        Reference("nowhere.test/v1", "Thing", namespace, "x"),
    ]
    pruned = await applier.prune([*done.references(), *forged], owner=owner)
    assert pruned.lines(Action) == [
        f"Thing/{namespace}/x deleted",
        f"Deployment/{namespace}/web deleted",
        f"ConfigMap/{namespace}/stranger skipped",
        f"ConfigMap/{namespace}/kept skipped",
        f"ConfigMap/{namespace}/foreign skipped",
        f"ConfigMap/{namespace}/disabled skipped",
        f"ConfigMap/{namespace}/b deleted",
        f"ConfigMap/{namespace}/a deleted",
        f"ConfigMap/{namespace}/../configmaps/a skipped",
        "ConfigMap/a skipped",
    ]
    assert [each["metadata"]["name"] for each in control_plane.api.list("v1", "ConfigMap", namespace)] == [
        "disabled", "foreign", "kept", "kube-root-ca.crt", "stranger",
    ]  # fmt: skip


async def test_what_cannot_be_deleted_is_left_and_the_rest_is_deleted(
    control_plane: Cluster, cluster: KubeCluster, applier: Applier, owner: Owner, namespace: str
) -> None:
    done = await applier.apply(prepared([config(namespace, "a"), service(namespace, 80)], owner), owner=owner)
    rbac, user = "rbac.authorization.k8s.io", f"system:serviceaccount:{namespace}:tenant"
    metadata = {"name": "tenant", "namespace": namespace}
    rules = [
        {"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["delete"]},
    ]
    control_plane.api.create({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules})
    control_plane.api.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "tenant"},
            "subjects": [{"kind": "User", "apiGroup": rbac, "name": user}],
        }
    )
    tenant = cluster.acting_as(Impersonation(user))

    async def allowed() -> bool:
        try:
            return await tenant.find(done.references()[0]) is not None
        except Exception:
            return False

    await eventually(allowed)
    with pytest.raises(PruneFailed) as failed:
        await Applier(tenant, SystemClock()).prune(done.references(), owner=owner)
    assert failed.value.changes.lines(Action) == [f"ConfigMap/{namespace}/a deleted"]
    assert failed.value.left == (Reference("v1", "Service", namespace, "svc"),)
    assert str(failed.value).startswith(
        f'delete failed, errors: Service/{namespace}/svc delete failed: services "svc" is forbidden'
    )
    assert str(failed.value).endswith(";")


async def test_objects_that_are_ending_are_waited_for_no_longer_than_told(
    control_plane: Cluster, cluster: KubeCluster, applier: Applier, owner: Owner, namespace: str
) -> None:
    held = config(namespace)
    held["metadata"]["finalizers"] = ["imagebot.test/hold"]
    done = await applier.apply(prepared([held], owner), owner=owner)
    for _ in range(2):
        assert (await applier.prune(done.references(), owner=owner)).lines(Action) == [f"ConfigMap/{namespace}/one deleted"]
    ending = f"timeout waiting for: .ConfigMap/{namespace}/one status: 'Terminating': has finalizers imagebot.test/hold"
    with pytest.raises(NotReady, match=ending):
        await wait_gone(cluster, SystemClock(), done.references(), 0.3)
    # An object that is going away is not remembered as being there.
    again = await applier.apply(prepared([held], owner), owner=owner)
    assert applier.state(owner, again.references()) == ""
    control_plane.api.merge_patch("v1", "ConfigMap", "one", {"metadata": {"finalizers": None}}, namespace)
    await wait_gone(cluster, SystemClock(), done.references(), 10.0)


# --- health


async def test_health_in_flux_words_and_a_wait_that_is_called_off(
    workloads: Cluster, cluster: KubeCluster, namespace: str
) -> None:
    ghost = Reference("apps/v1", "Deployment", namespace, "ghost")
    with pytest.raises(health.HealthCheckFailed) as late:
        await health.wait(cluster, [ghost], timeout=0.5)
    assert str(late.value) == f"timeout waiting for: [Deployment/{namespace}/ghost status: 'NotFound']"
    assert late.value.details == (f"Deployment/{namespace}/ghost status: 'NotFound': deployments.apps \"ghost\" not found",)
    called_off = asyncio.Event()
    waiting = asyncio.create_task(health.wait(cluster, [ghost], timeout=60, canceled=called_off))
    await asyncio.sleep(0)
    called_off.set()
    with pytest.raises(health.HealthCheckCanceled):
        await waiting
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "gone", "namespace": namespace}}
    assert await health.wait(cluster, [{**job, "spec": {"ttlSecondsAfterFinished": 0}}], timeout=5)
    await cluster.apply(deployment(namespace), manager="tests")
    assert (await health.wait(cluster, [Reference("apps/v1", "Deployment", namespace, "web")], timeout=30))[0].current


# --- watches


async def test_without_the_right_to_watch_objects_are_asked_for(
    own_control_plane: ControlPlane, cluster: KubeCluster, client: Client, owner: Owner, namespace: str
) -> None:
    nobody = client.acting_as(connect.Impersonation("nobody"))
    async with OwnedStamps(nobody, SystemClock()) as blind:
        applier = Applier(cluster, SystemClock(), memory=Memory(), stamps=blind)
        wanted = prepared([config(namespace, k="v")], owner)
        await applier.apply(wanted, owner=owner)
        assert blind.seen(Reference.of(wanted[0])) is Sight.UNKNOWN
        mark = own_control_plane.audit.mark()
        assert not (await applier.apply(wanted, owner=owner)).changed
        assert dry_and_real(own_control_plane, mark) == (1, 0, 0)


async def test_no_more_kinds_are_followed_than_allowed(client: Client, namespace: str) -> None:
    async with OwnedStamps(client, SystemClock(), most=1) as stamps:
        await stamps.follow([("v1", "Nothing")])
        await stamps.follow([("v1", "ConfigMap")])  # takes the place of one that does not exist
        assert stamps.seen(Reference("v1", "ConfigMap", namespace, "none")) is Sight.NONE
        assert stamps.seen(Reference("v1", "Nothing", namespace, "none")) is Sight.UNKNOWN


async def test_an_ignore_rule_that_cannot_be_read_is_named(applier: Applier, owner: Owner) -> None:
    with pytest.raises(Invalid, match="'data' is not a JSON pointer"):
        await applier.apply([], owner=owner, ignore=[IgnoreRule(paths=["data"])])


async def test_a_namespace_that_is_ending_says_so(control_plane: Cluster, applier: Applier, owner: Owner, namespace: str) -> None:
    name = f"ending-{secrets.token_hex(3)}"
    control_plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    hold = config(name, "hold")
    hold["metadata"]["finalizers"] = ["imagebot.test/hold"]
    control_plane.api.create(hold)
    control_plane.api.delete("v1", "Namespace", name)
    try:
        with pytest.raises(ApplyFailed, match=rf"ConfigMap/{name}/one dry-run failed \(Forbidden\): .* it is being terminated"):
            await applier.apply(prepared([config(name)], owner), owner=owner)
    finally:
        control_plane.api.merge_patch("v1", "ConfigMap", "hold", {"metadata": {"finalizers": None}}, name)


async def test_a_run_that_is_killed_at_any_write_is_finished_by_the_next(
    client: Client, cluster: KubeCluster, owner: Owner, namespace: str
) -> None:
    class Killed(BaseException):
        pass

    class Killing(KubeCluster):
        """Dies at its n-th write, before or after it is carried out."""

        left, after = 0, False

        async def apply(self, wanted: Object, *, manager: str, force: bool = False) -> Object:
            Killing.left -= 1
            if Killing.left == 0 and not Killing.after:
                raise Killed
            made = await super().apply(wanted, manager=manager, force=force)
            if Killing.left == 0:
                raise Killed
            return made

    wanted = prepared([config(namespace, "a"), config(namespace, "b"), service(namespace, 80)], owner)
    recorded: set[Reference] = set()

    async def intend(references: Sequence[Reference]) -> None:
        recorded.update(references)

    for round_number in range(1, 4):
        for after in (False, True):
            Killing.left, Killing.after = round_number, after
            recorded.clear()
            dying = Applier(Killing(client, SystemClock()), SystemClock(), concurrent=1)
            with pytest.raises(Killed):
                await dying.apply(wanted, owner=owner, intend=intend)
            there = [reference for reference in refs(*wanted) if await cluster.find(reference) is not None]
            assert set(there) <= recorded
            assert len(there) == round_number - (not after)
            done = await Applier(cluster, SystemClock()).apply(wanted, owner=owner)
            assert len(done.changed) == 3 - len(there)
            await Applier(cluster, SystemClock()).prune(recorded, owner=owner)


async def test_what_others_change_at_the_same_time_is_judged_again(
    control_plane: Cluster, client: Client, owner: Owner, namespace: str
) -> None:
    class Meddled(KubeCluster):
        """Somebody is faster than each patch."""

        meddle = 1

        async def json_patch(self, which: Object | Reference, operations: Sequence[Object], *, manager: str) -> Object:
            if self.meddle > 0:
                self.meddle -= 1
                labels = {"metadata": {"labels": {"meddled": str(self.meddle)}}}
                control_plane.api.merge_patch("v1", "ConfigMap", "one", labels, namespace)
            return await super().json_patch(which, operations, manager=manager)

    meddled = Meddled(client, SystemClock())
    for times, done in ((1, True), (9, False)):
        control_plane.api.apply(config(namespace, k=str(times), extra="x"), manager="kubectl")
        meddled.meddle = times
        wanted = prepared([config(namespace, k="git")], owner)
        if done:
            assert (await Applier(meddled, SystemClock()).apply(wanted, owner=owner)).lines() == [
                f"ConfigMap/{namespace}/one configured"
            ]
            assert control_plane.api.get("v1", "ConfigMap", "one", namespace)["data"] == {"k": "git"}
        else:
            with pytest.raises(ApplyFailed, match=r"one apply failed: .* the object has been modified"):
                await Applier(meddled, SystemClock()).apply(wanted, owner=owner)


async def test_other_managers_and_other_versions_are_taken_over(
    control_plane: Cluster, cluster: KubeCluster, owner: Owner, namespace: str
) -> None:
    control_plane.api.apply(config(namespace, k="old", extra="x"), manager="other-tool")
    taking = Applier(cluster, SystemClock(), override_managers=["other-tool"])
    await taking.apply(prepared([config(namespace, k="git")], owner), owner=owner)
    found = control_plane.api.get("v1", "ConfigMap", "one", namespace)
    assert (found["data"], managers(found)) == ({"k": "git"}, [("kustomize-controller", "Apply")])

    info = thing_kind(f"Old{secrets.token_hex(3)}")
    control_plane.api.install_crd(minimal_crd(info))
    older = {**thing("one", namespace, kind=info), "apiVersion": f"{info.group}/v1beta1"}
    control_plane.api.apply(older, manager="somebody")
    wanted = prepared([thing("one", namespace, kind=info)], owner)
    done = await Applier(cluster, SystemClock(), migrate=True).apply(wanted, owner=owner)
    assert len(done.changed) == 1
    found = control_plane.api.get(info.api_version, info.kind, "one", namespace)
    assert {entry["apiVersion"] for entry in found["metadata"]["managedFields"]} == {info.api_version}


async def test_objects_are_found_in_whatever_version_is_served_and_patches_are_of_one_state(
    control_plane: Cluster, cluster: KubeCluster, namespace: str
) -> None:
    info = thing_kind(f"Found{secrets.token_hex(3)}")
    control_plane.api.install_crd(minimal_crd(info))
    made = control_plane.api.create(thing("one", namespace, kind=info))
    assert (await cluster.namespaced(info.api_version, info.kind), await cluster.namespaced("v1", "Namespace")) == (True, False)
    with pytest.raises(UnknownKind, match=f'no matches for kind "{info.kind}" in version "v1"'):
        await cluster.namespaced("v1", info.kind)
    gone = Reference(f"{info.group}/v0", info.kind, namespace, "one")
    found = await cluster.find(gone)
    assert found is not None
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    assert await cluster.find(Reference(f"{info.group}/v0", info.kind, namespace, "two")) is None
    assert await cluster.find(Reference("nowhere.test/v1", "Thing", namespace, "one")) is None
    version = {"op": "replace", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"]}
    labels = [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}, version]
    assert (await cluster.json_patch(made, labels, manager="tests"))["metadata"]["labels"] == {"a": "b"}
    with pytest.raises(Conflict, match="the object has been modified"):
        await cluster.json_patch(made, [{**labels[0], "value": {"a": "c"}}, version], manager="tests")
    with pytest.raises(NotFound):
        await cluster.json_patch(Reference(info.api_version, info.kind, namespace, "two"), labels, manager="tests")


async def test_a_server_that_does_not_answer_is_not_asked_about_every_object(
    client: Client, owner: Owner, namespace: str
) -> None:
    class Silent(KubeCluster):
        asked = 0

        async def dry_run(self, wanted: Object, *, manager: str, force: bool = False) -> Object:
            Silent.asked += 1
            raise Late("patch configmaps: the API server did not answer in time", "patch")

    wanted = prepared([config(namespace, f"c{number}") for number in range(100)], owner)
    with pytest.raises(ApplyFailed, match="c0 dry-run failed: patch configmaps: the API server did not answer in time"):
        await Applier(Silent(client, SystemClock()), SystemClock(), concurrent=2).apply(wanted, owner=owner)
    assert Silent.asked <= 8  # each of two at once, before and after the look


async def test_a_policy_that_denies_deletes_nothing(
    control_plane: Cluster, applier: Applier, owner: Owner, namespace: str
) -> None:
    name, api = f"no-{secrets.token_hex(3)}", "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["configmaps"]}
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    validation = {"expression": "object.data.k == oldObject.data.k", "message": "k stays"}
    policy = {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]}, "validations": [validation]}
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": selector}
    for kind, spec in (("ValidatingAdmissionPolicy", policy), ("ValidatingAdmissionPolicyBinding", binding)):
        control_plane.api.create({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec})
    await applier.apply(prepared([config(namespace, k="1")], owner), owner=owner)
    there = control_plane.api.get("v1", "ConfigMap", "one", namespace)["metadata"]["uid"]
    said = ""

    async def denied() -> bool:
        nonlocal said
        try:
            await applier.apply(prepared([config(namespace, k=secrets.token_hex(3))], owner), owner=owner, force=True)
        except ApplyFailed as error:
            said = str(error)
        return "dry-run failed" in said  # it may come into force between a dry run and its apply

    await eventually(denied)
    assert said.startswith(f"ConfigMap/{namespace}/one dry-run failed (Invalid): ")
    assert "denied request: k stays" in said
    assert control_plane.api.get("v1", "ConfigMap", "one", namespace)["metadata"]["uid"] == there
    for kind in ("ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"):
        control_plane.api.delete(api, kind, name)


async def test_expressions_come_before_other_rules_of_health(cluster: KubeCluster, namespace: str) -> None:
    readers = Readers(
        [CustomHealthCheck(api_version="v1", kind="ConfigMap", current="data.ready == 'yes'", failed="data.ready == 'no'")]
    )
    await cluster.apply(config(namespace, "good", ready="yes"), manager="tests")
    await cluster.apply(config(namespace, "bad", ready="no"), manager="tests")
    await cluster.apply(config(namespace, "odd"), manager="tests")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace}}
    await cluster.apply(secret, manager="tests")

    async def wait(*names: str, **more: Any) -> str:
        which = [Reference("v1", "ConfigMap", namespace, name) for name in names]
        with pytest.raises(health.HealthCheckFailed) as failed:
            await health.wait(cluster, [*which, Reference.of(secret)], timeout=0.6, healthy=readers, **more)
        return str(failed.value)

    which = [Reference("v1", "ConfigMap", namespace, "good"), Reference.of(secret)]
    assert all(each.current for each in await health.wait(cluster, which, timeout=5, healthy=readers))
    assert await wait("good", "bad") == f"failed early due to stalled resources: [ConfigMap/{namespace}/bad status: 'Failed']"
    assert await wait("odd", fail_fast=False) == (
        f"timeout waiting for: [ConfigMap/{namespace}/odd status: 'Unknown': failed to evaluate the CEL expression "
        "'data.ready == 'no'': no such attribute(s): data]"
    )
