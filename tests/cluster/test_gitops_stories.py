"""Stories of sources and Kustomizations on a real API server, told side by side by one service, and by one for tenants.

Above each test is the story that it is about: a function that acts and waits. All stories that are asked for begin together; a
test waits for the end of its own and says what must have happened.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx
import pytest
import yaml

from tests.support.clusterlab import ready_of, until
from tests.support.controlplane import Cluster
from tests.support.gitopslab import config_map, gitops_lab, manifests
from tests.support.gitopsstage import SHARD, Stage, Story, Theatre
from tests.support.kubeapi import Object, condition
from tests.support.lab import automation, image_policy, image_repository
from tests.support.sops_documents import age_key, encrypted, pgp_key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Test = TypeVar("Test", bound=Callable[..., None])

WATCHED = {"reconcile.fluxcd.io/watch": "Enabled"}
DISABLED = {"kustomize.toolkit.fluxcd.io/prune": "disabled"}
CONFIG_MAPS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}
SERVICES = {"apiGroups": [""], "resources": ["services"], "verbs": ["*"]}
HOLD = "imagebot.test/hold"


def about(story: Story) -> Callable[[Test], Test]:
    """Which story a test is about."""

    def mark(test: Test) -> Test:
        test.story = story  # type: ignore[attr-defined]
        return test

    return mark


@pytest.fixture(scope="module")
def theatre(
    control_plane: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Theatre]:
    """All stories of the tests that were selected, begun."""
    if not control_plane.runs_workloads:
        pytest.skip("nothing runs on a bare API server")
    tests = [item.function for item in request.session.items if isinstance(item, pytest.Function)]
    wanted: set[Story] = {test.story for test in tests if test.__module__ == __name__ and hasattr(test, "story")}
    namespace = f"gitops-stories-{secrets.token_hex(3)}"
    control_plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    root = tmp_path_factory.mktemp("stories")
    try:
        with gitops_lab(control_plane, namespace, root) as world, Theatre(world) as made:
            everything = world.start(
                "--controllers=image,source,kustomize", f"--watch-label-selector={SHARD}=one", name="one", everywhere=True
            )
            for story in sorted(wanted - {tenants_without_an_account}, key=lambda story: story.__name__):
                made.start(story, everything)
            if tenants_without_an_account in wanted:
                flags = ("--default-service-account=tenant", f"--watch-label-selector={SHARD}=tenants")
                made.start(tenants_without_an_account, world.start(*flags, name="tenants", everywhere=True))
            yield made
    finally:
        control_plane.api.delete("v1", "Namespace", namespace, missing_ok=True)


@pytest.fixture
def stage(theatre: Theatre, request: pytest.FixtureRequest) -> Stage:
    """The story of the test, told to its end."""
    return theatre.told(request.function.story.__name__)


def deployment(name: str, *, broken: bool = False) -> Object:
    """A Deployment of one pod; a broken one finds no node, and gives up at once."""
    pod: Object = {"containers": [{"name": name, "image": "example.com/web:1"}], "terminationGracePeriodSeconds": 0}
    if broken:
        pod["nodeSelector"] = {"imagebot.test/nowhere": "true"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "progressDeadlineSeconds": 1 if broken else 600,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    }


# --- from commit to Ready


def a_commit(stage: Stage) -> None:
    web = manifests(deployment("web"))
    stage.notes["first"] = stage.commit({"app/web.yaml": web, "app/settings.yaml": config_map("settings", {"colour": "red"})})
    stage.source()
    stage.kustomization(wait=True)
    stage.notes["ready"] = stage.until_applied("app", stage.notes["first"])
    stage.notes["web"] = stage.find("Deployment", "web")
    artifact = stage.get("GitRepository", "fleet")["status"]["artifact"]
    stage.notes["artifact"], stage.notes["tarball"] = artifact, httpx.get(artifact["url"], trust_env=False).content
    stage.notes["second"] = stage.publish({"app/settings.yaml": config_map("settings", {"colour": "blue"})})
    stage.until_text("Kustomization", "app", "Progressing", "configured")


@about(a_commit)
def test_a_commit_becomes_ready(stage: Stage) -> None:
    ready, space = stage.notes["ready"], stage.namespace
    status = ready["status"]
    assert {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]} == {
        "Ready": ("True", "ReconciliationSucceeded"),
        "Healthy": ("True", "Succeeded"),
    }
    assert status["inventory"]["entries"] == [
        {"id": f"{space}_settings__ConfigMap", "v": "v1"},
        {"id": f"{space}_web_apps_Deployment", "v": "v1"},
    ]
    assert (status["lastAppliedRevision"], status["lastAttemptedRevision"]) == (stage.notes["first"],) * 2
    assert ready["metadata"]["finalizers"] == ["finalizers.fluxcd.io"]
    # Ready was said of a Deployment that was available.
    assert condition(stage.notes["web"], "Available") == "True"
    assert stage.notes["web"]["metadata"]["labels"] == {
        "kustomize.toolkit.fluxcd.io/name": "app",
        "kustomize.toolkit.fluxcd.io/namespace": space,
    }
    digest = hashlib.sha256(stage.notes["tarball"]).hexdigest()
    assert (stage.notes["artifact"]["digest"], stage.notes["artifact"]["revision"]) == (f"sha256:{digest}", stage.notes["first"])


@about(a_commit)
def test_a_commit_changes_only_what_it_changes(stage: Stage) -> None:
    space, second = stage.namespace, stage.notes["second"]
    assert stage.data("settings") == {"colour": "blue"}
    assert stage.get("Kustomization", "app")["status"]["lastAppliedRevision"] == second
    web = stage.find("Deployment", "web")
    assert web is not None
    assert web["metadata"]["uid"] == stage.notes["web"]["metadata"]["uid"]
    assert web["metadata"]["generation"] == 1
    told = {text for text in stage.texts("Kustomization", "app", "Progressing") if "Health check" not in text}
    assert told == {
        f"ConfigMap/{space}/settings created\nDeployment/{space}/web created",
        f"ConfigMap/{space}/settings configured",
    }
    assert stage.texts("GitRepository", "fleet", "NewArtifact") == ["stored artifact for commit 'change'"]


# --- health along dependencies


def a_dependency_fails_and_is_repaired(stage: Stage) -> None:
    broken = manifests(deployment("gate", broken=True))
    stage.commit({"infra/gate.yaml": broken, "apps/front.yaml": config_map("front"), "last/end.yaml": config_map("end")})
    stage.source()
    stage.kustomization("last", "./last", dependsOn=[{"name": "apps"}])
    stage.kustomization("apps", "./apps", dependsOn=[{"name": "infra"}])
    stage.kustomization("infra", "./infra", wait=True, timeout="5m")
    stage.notes["infra"] = stage.until_failed("infra", "HealthCheckFailed", "Deployment")
    stage.notes["apps"] = stage.until_failed("apps", "DependencyNotReady", "is not ready")
    stage.notes["last"] = stage.until_failed("last", "DependencyNotReady", "is not ready")
    stage.notes["meanwhile"] = [stage.data("front"), stage.data("end")]
    stage.notes["repair"] = stage.publish({"infra/gate.yaml": manifests(deployment("gate"))}, "infra", "apps", "last")


@about(a_dependency_fails_and_is_repaired)
def test_what_depends_on_a_failing_deployment_waits_until_it_is_repaired(stage: Stage) -> None:
    space = stage.namespace
    text = ready_of(stage.notes["infra"])[2]
    assert text.startswith("health check failed after ")
    assert text.endswith(f"failed early due to stalled resources: [Deployment/{space}/gate status: 'Failed']")
    assert condition(stage.notes["infra"], "Healthy") == "False"
    assert ready_of(stage.notes["apps"])[2] == f"dependency '{space}/infra' is not ready"
    assert ready_of(stage.notes["last"])[2] == f"dependency '{space}/apps' is not ready"
    assert stage.notes["meanwhile"] == [None, None]
    assert (stage.data("front"), stage.data("end")) == ({"key": "front"}, {"key": "end"})
    infra = stage.get("Kustomization", "infra")
    assert condition(infra, "Healthy") == "True"
    assert infra["status"]["lastAppliedRevision"] == stage.notes["repair"]


# --- drift, and a pass over what is as it should be


def somebody_edits(stage: Stage) -> None:
    files = {"app/settings.yaml": config_map("settings", {"colour": "red", "size": "big"}), "app/lost.yaml": config_map("lost")}
    revision = stage.commit(files)
    stage.source()
    stage.kustomization()
    stage.until_applied("app", revision)
    stage.api.delete("v1", "ConfigMap", "lost", stage.namespace)
    stage.notes["edited"] = stage.apply_as("somebody", yaml.safe_load(config_map("settings", {"colour": "green"})))["data"]
    stage.asked("app")
    stage.notes["after"], stage.notes["found"] = stage.data("settings"), stage.data("lost")
    stage.until_told("Kustomization", "app", "ReconciliationSucceeded", 2)
    stage.until_told("GitRepository", "fleet", "NewArtifact", 1)
    # By the answer to the second of two requests, all that the first led to is over.
    mark = stage.cluster.audit.mark() if stage.cluster.audit else 0
    before = stage.find("ConfigMap", "settings")
    stage.asked("app")
    stage.asked("app")
    stage.notes["asked"] = [(one.verb, one.resource, one.name) for one in stage.here(mark)] if stage.cluster.audit else None
    stage.notes["unmoved"] = before == stage.find("ConfigMap", "settings")


@about(somebody_edits)
def test_drift_is_put_back_at_a_requested_pass_and_the_event_says_who_and_what(stage: Stage) -> None:
    assert stage.notes["edited"] == {"colour": "green", "size": "big"}
    assert stage.notes["after"] == {"colour": "red", "size": "big"}
    (text,) = stage.texts("Kustomization", "app", "DriftCorrected")
    assert f"ConfigMap/{stage.namespace}/settings: /data/colour (changed by somebody)" in text
    assert "size" not in text
    assert stage.notes["found"] == {"key": "lost"}


@about(somebody_edits)
def test_a_requested_pass_over_what_is_as_it_should_be_costs_one_status_write(stage: Stage) -> None:
    if stage.notes["asked"] is None:
        pytest.skip("nobody counts requests on somebody else's cluster")
    assert stage.notes["asked"] == [("patch", "kustomizations/status", "app")] * 2
    assert stage.notes["unmoved"]


# --- suspend and resume


def all_is_suspended(stage: Stage) -> None:
    files = {"app/settings.yaml": config_map("settings", {"colour": "red"}), "witness/witness.yaml": config_map("witness")}
    stage.notes["first"] = stage.commit(files)
    stage.source()
    stage.kustomization()
    stage.kustomization("witness", "./witness")
    stage.until_applied("app", stage.notes["first"])
    stage.until_applied("witness", stage.notes["first"])
    # A Kustomization that is suspended applies neither a commit nor what was there before.
    stage.patch("Kustomization", "app", {"spec": {"suspend": True}})
    stage.api.merge_patch("v1", "ConfigMap", "settings", {"data": {"colour": "green"}}, stage.namespace)
    stage.notes["second"] = stage.publish({"app/more.yaml": config_map("more")}, "witness")
    status = stage.asked("app")["status"]
    stage.notes["suspended"] = status["lastAppliedRevision"], stage.data("settings"), stage.data("more")
    stage.patch("Kustomization", "app", {"spec": {"suspend": False}})
    stage.until_applied("app", stage.notes["second"])
    stage.notes["resumed"] = stage.data("settings"), stage.data("more")
    # A source that is suspended is not looked at, and its artifact is still good.
    stage.patch("GitRepository", "fleet", {"spec": {"suspend": True}})
    stage.commit({"app/more.yaml": config_map("more", {"key": "late"})})
    stage.request("GitRepository", "fleet")
    stage.notes["asked"] = stage.asked("app")["status"]["lastAppliedRevision"], stage.data("more")
    stage.patch("GitRepository", "fleet", {"spec": {"suspend": False}})
    stage.until_applied("app", stage.head)


@about(all_is_suspended)
def test_what_is_suspended_stays_as_it_is_until_it_is_resumed(stage: Stage) -> None:
    # The request is answered, by nothing but the answer.
    assert stage.notes["suspended"] == (stage.notes["first"], {"colour": "green"}, None)
    assert stage.notes["resumed"] == ({"colour": "red"}, {"key": "more"})
    assert stage.notes["asked"] == (stage.notes["second"], {"key": "more"})
    assert stage.data("more") == {"key": "late"}


# --- prune


def objects_leave_git(stage: Stage) -> None:
    kept = config_map("kept", annotations=DISABLED)
    stage.commit(
        {
            "app/gone.yaml": config_map("gone"), "app/kept.yaml": kept, "app/stays.yaml": config_map("stays"),
            "lax/left.yaml": config_map("left"), "lax/stays.yaml": config_map("stays-too"),
        }
    )  # fmt: skip
    stage.source()
    stage.kustomization()
    stage.kustomization("lax", "./lax", prune=False)
    for name in ("app", "lax"):
        stage.until_applied(name, stage.head)
    stage.notes["before"] = stage.inventory("app")
    stage.publish({"app/gone.yaml": None, "app/kept.yaml": None, "lax/left.yaml": None}, "app", "lax")
    stage.until_text("Kustomization", "app", "Progressing", "deleted")


@about(objects_leave_git)
def test_what_leaves_git_is_pruned_where_that_is_wanted(stage: Stage) -> None:
    space = stage.namespace
    assert stage.notes["before"] == [f"{space}_{name}__ConfigMap" for name in ("gone", "kept", "stays")]
    assert {name: stage.data(name) is not None for name in ("gone", "kept", "stays", "left", "stays-too")} == {
        "gone": False, "kept": True, "stays": True, "left": True, "stays-too": True,
    }  # fmt: skip
    assert stage.inventory("app") == [f"{space}_stays__ConfigMap"]
    assert stage.inventory("lax") == [f"{space}_stays-too__ConfigMap"]
    (text,) = [text for text in stage.texts("Kustomization", "app", "Progressing") if "deleted" in text]
    assert f"ConfigMap/{space}/gone deleted" in text.splitlines()
    assert "kept deleted" not in text
    assert "stays" not in text


# --- deletion policies

POLICIES: dict[str, dict[str, Any]] = {
    "mirror": {},
    "mirror-unpruned": {"prune": False},
    "orphan": {"deletionPolicy": "Orphan"},
    "delete": {"deletionPolicy": "Delete", "prune": False},
    "waiting": {"deletionPolicy": "WaitForTermination", "timeout": "5m"},
}


def kustomizations_are_deleted(stage: Stage) -> None:
    made = {f"{name}/object.yaml": config_map(name) for name in POLICIES}
    stage.commit({**made, "waiting/object.yaml": config_map("waiting", finalizers=[HOLD])})
    stage.source()
    for name, spec in POLICIES.items():
        stage.kustomization(name, f"./{name}", **spec)
    for name in POLICIES:
        stage.until_applied(name, stage.head)
    for name in POLICIES:
        stage.api.delete("kustomize.toolkit.fluxcd.io/v1", "Kustomization", name, stage.namespace)

    def ending() -> bool:
        found = stage.find("ConfigMap", "waiting")
        return found is not None and bool(found["metadata"].get("deletionTimestamp"))

    until(ending, "the held ConfigMap to be asked to go")
    for name in POLICIES:
        if name != "waiting":
            stage.until_gone("Kustomization", name)
    stage.notes["held"] = stage.find("Kustomization", "waiting") is not None
    stage.api.merge_patch("v1", "ConfigMap", "waiting", {"metadata": {"finalizers": None}}, stage.namespace)
    stage.until_gone("Kustomization", "waiting")


@about(kustomizations_are_deleted)
def test_the_deletion_policy_says_what_becomes_of_the_objects(stage: Stage) -> None:
    left = {name: stage.data(name) is not None for name in POLICIES}
    assert left == {"mirror": False, "mirror-unpruned": True, "orphan": True, "delete": False, "waiting": False}
    assert stage.notes["held"], "it has not waited for the end of its object"


# --- secrets


def secrets_are_encrypted(stage: Stage) -> None:
    age, pgp = age_key(), pgp_key("fleet")
    options = ("--encrypted-regex", "^(data|stringData)$")

    def secret(name: str) -> str:
        return manifests(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"word": f"open-{name}"}}
        )

    by_age = encrypted(secret("age"), "yaml", age=age, options=options).decode()
    by_pgp = encrypted(secret("pgp"), "yaml", pgp=pgp, options=options).decode()
    stage.notes["in git"] = by_age + by_pgp
    stage.commit({"age/secret.yaml": by_age, "pgp/secret.yaml": by_pgp})
    stage.source()
    for name in ("age", "pgp"):
        stage.kustomization(name, f"./{name}", decryption={"provider": "sops", "secretRef": {"name": f"key-{name}"}})
        stage.notes[name] = stage.until_failed(name, "BuildFailed", f"key-{name}")
    # The keys come late, and are found at once.
    for name, data in {"age": {"age.agekey": age.entry.decode()}, "pgp": {"pgp.asc": pgp.secret.decode()}}.items():
        meta = {"name": f"key-{name}", "labels": dict(WATCHED)}
        stage.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data})
        stage.until_applied(name, stage.head)


@pytest.mark.needs("gpg")
@about(secrets_are_encrypted)
def test_secrets_are_decrypted_with_age_and_with_openpgp(stage: Stage) -> None:
    assert "open-" not in stage.notes["in git"]
    for name in ("age", "pgp"):
        found = stage.find("Secret", name)
        assert found is not None
        assert found["data"] == {"word": base64.b64encode(f"open-{name}".encode()).decode()}
        assert "sops" not in found
    for word in ("open-", "AGE-SECRET-KEY", "PRIVATE KEY"):
        assert stage.served_by.says(word) == []


# --- variables


def variables_change(stage: Stage) -> None:
    meta = {"name": "cluster", "labels": dict(WATCHED)}
    stage.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"region": "north", "tier": "low"}})
    stage.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {"user": "ann"}})
    wanted = {"where": "${region}/${zone:=a}", "who": "${user}", "tier": "${tier}", "plain": "$${region}"}
    stage.commit({"app/settings.yaml": config_map("settings", wanted)})
    stage.source()
    sources = [{"kind": "ConfigMap", "name": "cluster"}, {"kind": "Secret", "name": "login"}]
    stage.kustomization(postBuild={"substitute": {"tier": "high"}, "substituteFrom": sources})
    stage.notes["revision"] = stage.head
    stage.until_applied("app", stage.notes["revision"])
    stage.notes["before"] = stage.data("settings")
    stage.api.merge_patch("v1", "ConfigMap", "cluster", {"data": {"region": "south"}}, stage.namespace)
    stage.until_data("settings", where="south/a", who="ann", tier="high", plain="${region}")


@about(variables_change)
def test_variables_come_from_the_cluster_and_their_change_is_applied_without_a_commit(stage: Stage) -> None:
    assert stage.notes["before"] == {"where": "north/a", "who": "ann", "tier": "high", "plain": "${region}"}
    stage.until_applied("app", stage.notes["revision"])


# --- who may what


def an_account_may_little(stage: Stage) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    stage.account("deployer", CONFIG_MAPS)
    stage.commit({"app/settings.yaml": config_map("settings"), "app/service.yaml": manifests(service)})
    stage.source()
    stage.kustomization(serviceAccountName="deployer")
    stage.notes["denied"] = stage.until_failed("app", "ReconciliationFailed", "forbidden")
    stage.notes["meanwhile"] = stage.find("Service", "web"), stage.data("settings")
    role = {"rules": [CONFIG_MAPS, SERVICES]}
    stage.api.merge_patch("rbac.authorization.k8s.io/v1", "Role", "deployer", role, stage.namespace)
    stage.request("Kustomization", "app")
    stage.until_applied("app", stage.head)


@about(an_account_may_little)
def test_a_service_account_applies_what_it_may_and_nothing_else(stage: Stage) -> None:
    text = ready_of(stage.notes["denied"])[2]
    assert f"Service/{stage.namespace}/web dry-run failed (Forbidden)" in text
    assert f'"system:serviceaccount:{stage.namespace}:deployer" cannot patch resource "services"' in text
    assert stage.notes["meanwhile"] == (None, None)
    assert stage.find("Service", "web") is not None
    assert stage.data("settings") == {"key": "settings"}


def tenants_without_an_account(stage: Stage) -> None:
    stage.commit({"app/settings.yaml": config_map("settings"), "own/own.yaml": config_map("own")})
    stage.source()
    stage.kustomization()
    stage.notes["denied"] = stage.until_failed("app", "ReconciliationFailed", "forbidden")
    stage.account("deployer", CONFIG_MAPS)
    stage.kustomization("own", "./own", serviceAccountName="deployer")
    stage.until_applied("own", stage.head)
    stage.notes["meanwhile"] = stage.data("settings")
    stage.account("tenant", CONFIG_MAPS)
    stage.request("Kustomization", "app")
    stage.until_applied("app", stage.head)


@about(tenants_without_an_account)
def test_who_names_no_account_has_that_of_tenants(stage: Stage) -> None:
    text = ready_of(stage.notes["denied"])[2]
    assert f'"system:serviceaccount:{stage.namespace}:tenant" cannot patch resource "configmaps"' in text
    assert stage.notes["meanwhile"] is None
    assert stage.data("settings") == {"key": "settings"}


def another_cluster(stage: Stage) -> None:
    there = stage.add_namespace()
    stage.notes["there"] = there
    stage.account("outpost")
    stage.allow("outpost", f"system:serviceaccount:{stage.namespace}:outpost", CONFIG_MAPS, namespace=there)
    path = stage.cluster.service_account_kubeconfig(stage.namespace, "outpost", stage.root / "outpost.kubeconfig")
    stage.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "outpost"}, "stringData": {"value": path.read_text()}}
    )
    stage.commit({"app/settings.yaml": config_map("settings")})
    stage.source()
    reference = {"secretRef": {"name": "outpost"}}
    stage.kustomization(kubeConfig=reference, targetNamespace=there, wait=True)
    stage.kustomization("here", kubeConfig=reference)
    stage.until_applied("app", stage.head)
    stage.notes["denied"] = stage.until_failed("here", "ReconciliationFailed", "forbidden")
    stage.notes["applied"] = stage.find("ConfigMap", "settings", there)
    stage.api.delete("kustomize.toolkit.fluxcd.io/v1", "Kustomization", "app", stage.namespace)
    stage.until_gone("Kustomization", "app")
    stage.until_gone("ConfigMap", "settings", there)


@about(another_cluster)
def test_another_cluster_is_reached_as_the_user_of_its_kubeconfig(stage: Stage) -> None:
    assert stage.notes["applied"]["data"] == {"key": "settings"}
    assert stage.data("settings") is None
    text = ready_of(stage.notes["denied"])[2]
    assert f'User "system:serviceaccount:{stage.namespace}:outpost" cannot patch resource "configmaps"' in text


# --- what we push


def an_image_is_pushed(stage: Stage) -> None:
    name = stage.namespace
    stage.registry.push_image(name, "1.0.0")
    marker = f'{{"$imagepolicy": "{name}:web"}}'
    line = f"  image: {stage.image(name)}:1.0.0 # {marker}\n"
    stage.commit({"app/web.yaml": f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: web\ndata:\n{line}"})
    stage.source()
    stage.kustomization()
    stage.create(image_repository("web", stage.image(name)), image_policy("web"), automation("web", "fleet"))
    stage.until_applied("app", stage.head)
    stage.until_ready("ImageUpdateAutomation", "web")
    stage.notes["before"], stage.notes["ours"] = stage.data("web"), stage.fleet.head()
    stage.registry.push_image(name, "1.1.0")
    stage.request("ImageRepository", "web")
    stage.until_data("web", image=f"{stage.image(name)}:1.1.0")
    stage.until_applied("app", stage.head)


@about(an_image_is_pushed)
def test_what_we_push_is_applied_without_anybody_asking(stage: Stage) -> None:
    assert stage.notes["before"] == {"image": f"{stage.image(stage.namespace)}:1.0.0"}
    assert len(stage.fleet.log()) == 2
    status = stage.get("GitRepository", "fleet")["status"]
    assert status["artifact"]["revision"] == stage.head
    assert "lastHandledReconcileAt" not in status
