"""What goes wrong between a source and the cluster: it is said clearly, nothing else suffers, and the next change mends it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml

from tests.support.admission import DENIED, LABEL, HoldingWebhook, denying_policy
from tests.support.clusterlab import Replica, ready_of, until
from tests.support.controlplane import Cluster
from tests.support.gitopslab import SOURCE_V1, GitOpsLab, config_map, gitops_lab, manifests
from tests.support.hostile_artifacts import ENDLESS, HostileStore, hostile_artifacts, until_asked
from tests.support.kubeapi import Object

pytestmark = pytest.mark.slow

FLAGS = ("--feature-gates=ExternalArtifact=true", "--kube-api-qps=2000", "--kube-api-burst=2000", "--http-retry=0")
HELD = {"labels": {LABEL: "yes"}}
NEW = {"a": "new"}


@pytest.fixture(scope="module")
def lab(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitOpsLab]:
    namespace = f"gitops-faults-{secrets.token_hex(3)}"
    control_plane.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    with gitops_lab(control_plane, namespace, tmp_path_factory.mktemp("faults")) as made:
        yield made
    control_plane.api.delete("v1", "Namespace", namespace, missing_ok=True)


@pytest.fixture
def service(lab: GitOpsLab) -> Replica:
    """The service, running; started again when a test has ended it."""
    found = next((each for each in lab.replicas if each.name == "replica"), None)
    if found is not None and found.pid and found.name in lab.supervisor.pids and found.exit_code() is None:
        return found
    return lab.start(*FLAGS)


def repository(lab: GitOpsLab, name: str, files: Mapping[str, str], **spec: Any) -> Any:
    """A repository with a source of the same name."""
    made = lab.repository(f"{name}.git", files)
    lab.source(name, url=lab.git.url(f"{name}.git"), **spec)
    return made


def names(lab: GitOpsLab, prefix: str) -> set[str]:
    """The ConfigMaps whose names begin so."""
    found = (body["metadata"]["name"] for body in lab.api.list("v1", "ConfigMap", lab.namespace))
    return {name for name in found if name.startswith(prefix)}


def inventory(found: Object) -> set[str]:
    """Names of the objects of a Kustomization."""
    return {one["id"].split("_")[1] for one in ((found.get("status") or {}).get("inventory") or {}).get("entries") or []}


def text_of(found: Object) -> str:
    """The message of Ready."""
    return next(str(c["message"]) for c in found["status"]["conditions"] if c["type"] == "Ready")


# --- what a build and the API server refuse


def role(name: str) -> Object:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": []}


def map_of(name: str, **more: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more}


def annotated(name: str, size: int) -> Object:
    meta = {"name": name, "annotations": {"a": "x" * size}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {}}


@dataclass(frozen=True)
class Bad:
    """What a folder has besides `ok.yaml`, the reason of Ready, and what its message says."""

    files: Mapping[str, str]
    reason: str
    says: Sequence[str]


def unbuilt(files: Mapping[str, str], *says: str) -> Bad:
    return Bad(files, "BuildFailed", says)


def refused(says: Sequence[str], *objects: Object) -> Bad:
    return Bad({f"{chr(97 + at)}.yaml": yaml.safe_dump(body) for at, body in enumerate(objects)}, "ReconciliationFailed", says)


BAD: dict[str, Bad] = {
    "syntax": unbuilt(
        {"bad.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n bad: [\n"},
        "failed to decode Kubernetes YAML from syntax/bad.yaml: MalformedYAMLError: yaml: line 4: ",
    ),
    "kustomization": unbuilt(
        {"kustomization.yaml": "resources:\n- ok.yaml\n bad: [\n"}, "yaml: line 3: ", "kustomization/kustomization.yaml"
    ),
    "missing": unbuilt({"kustomization.yaml": "resources: [ok.yaml, gone.yaml]\n"}, "missing/gone.yaml: no such file"),
    "invalid": refused(("Not_A_Name dry-run failed (Invalid): ",), map_of("Not_A_Name"), map_of("invalid-neighbour")),
    "unknown": refused(
        ('no matches for kind "Widget" in version "example.com/v1"',),
        {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}},
    ),
    "immutable": refused(("immutable-fixed dry-run failed", "immutable"), map_of("immutable-fixed", data=NEW, immutable=True)),
    "policy": refused(
        ("policy-denied dry-run failed", "denied request: not here"),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "policy-denied", "labels": DENIED}},
    ),
    "quota": refused(("Secret/", "exceeded quota: few"), *(map_of(f"quota-{at}") | {"kind": "Secret"} for at in "abc")),
    "ending": refused(("ending-late", "because it is being terminated"), map_of("ending-late")),
    "large": refused(("large-one dry-run failed", "Too long"), map_of("large-one", data={"data": "x" * 3_000_000})),
    "huge": refused(("huge-one",), annotated("huge-one", 3_500_000)),
    "slow": refused(
        ("slow-one", "held.imagebot.test"),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "slow-one", **HELD}},
    ),
}


def crowded(lab: GitOpsLab) -> str:
    """A namespace that has room for two Secrets."""
    name = lab.add_namespace()
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"count/secrets": "2"}}}
    lab.create(quota, namespace=name)
    lab.api.wait("v1", "ResourceQuota", "few", lambda q: bool(q and (q.get("status") or {}).get("used")), name)
    return name


def ending(lab: GitOpsLab) -> str:
    """A namespace that is being deleted and never gone, as an object in it is held."""
    name = lab.add_namespace()
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["imagebot.test/held"]}}
    lab.create(held, namespace=name)
    lab.api.delete("v1", "Namespace", name)
    return name


@pytest.mark.timeout(150)
def test_what_is_refused_is_named_and_mended(lab: GitOpsLab, service: Replica) -> None:
    fixed = map_of("immutable-fixed", data={"a": "old"}, immutable=True)
    other = map_of("theirs", data={"shared": "them", "own": "them"})
    lab.create(fixed, {**fixed, "metadata": {"name": "forced-fixed"}})
    first = {
        name: lab.api.get("v1", "ConfigMap", f"{name}-fixed", lab.namespace)["metadata"]["uid"]
        for name in ("immutable", "forced")
    }
    lab.api.apply({**other, "metadata": {**other["metadata"], "namespace": lab.namespace}}, manager="another")
    elsewhere = {"quota": crowded(lab), "ending": ending(lab)}
    cluster_role = f"invalid-first-{lab.namespace}"
    files = {
        "invalid/role.yaml": yaml.safe_dump(role(cluster_role)),
        "forced/fixed.yaml": yaml.safe_dump(map_of("forced-fixed", data=NEW, immutable=True)),
        "theirs/map.yaml": config_map("theirs", {"shared": "us"}),
    }
    for folder, bad in BAD.items():
        if folder not in elsewhere:
            files[f"{folder}/ok.yaml"] = config_map(f"{folder}-ok")
        files |= {f"{folder}/{name}": text for name, text in bad.files.items()}
    with denying_policy(lab.api, lab.namespace), HoldingWebhook(lab.api, f"refused-{lab.namespace}", seconds=3) as webhook:
        until(lambda: webhook.asked(lab.namespace), "the webhook to be asked")
        webhook.holds = lambda operation, name: name == "slow-one"
        bare = repository(lab, "refused", files)
        for folder in BAD:
            place = elsewhere.get(folder, lab.namespace)
            again = {"retryInterval": "2s"} if folder == "slow" else {}
            lab.kustomization(folder, f"./{folder}", "refused", targetNamespace=place, **again)
        lab.kustomization("forced", "./forced", "refused", force=True)
        lab.kustomization("theirs", "./theirs", "refused")
        for folder, bad in BAD.items():
            found = lab.until_failed(folder, bad.reason, bad.says[0])
            message = text_of(found)
            assert all(text in message for text in bad.says), f"{folder}: {message[:2000]}"
            assert len(message) < 20_000, f"{folder}: a message of {len(message)} characters"
            assert "Traceback" not in message
        forced, theirs = lab.until_ready("Kustomization", "forced"), lab.until_ready("Kustomization", "theirs")
        assert inventory(forced) == {"forced-fixed"}
        assert inventory(theirs) == {"theirs"}
        webhook.release()
        check_refused(lab, first, cluster_role)
        # What is mended is applied, and what was applied before is known of: it goes with the Kustomization.
        gone = {
            f"{folder}/{name}": None
            for folder, bad in BAD.items()
            if folder not in {"slow", "quota", "ending"}
            for name in bad.files
        }
        room = {"quota/b.yaml": None, "quota/c.yaml": None, "ending/late.yaml": None, "invalid/role.yaml": None}
        bare.commit({**gone, **room, "ending/kustomization.yaml": b"resources: []\n"})
        revision = f"main@sha1:{bare.head()}"
        lab.request("GitRepository", "refused")
        for folder in BAD:
            lab.until_applied(folder, revision)
    assert names(lab, "slow-") == {"slow-ok", "slow-one"}
    assert names(lab, "invalid-") == {"invalid-ok"}
    until(lambda: lab.find("ClusterRole", cluster_role) is None, "the role of the failed apply to be pruned")
    assert {body["metadata"]["name"] for body in lab.api.list("v1", "Secret", elsewhere["quota"])} == {"quota-a"}
    lab.api.merge_patch("v1", "ConfigMap", "held", {"metadata": {"finalizers": None}}, elsewhere["ending"])


def check_refused(lab: GitOpsLab, first: Mapping[str, Any], cluster_role: str) -> None:
    """Nothing of a stage that is refused is written, stages before it are; nothing is deleted without `force`."""
    present = names(lab, "")
    for folder in ("syntax", "kustomization", "missing", "invalid", "unknown", "immutable", "policy", "large", "huge"):
        assert f"{folder}-ok" not in present, f"an object beside the refused one of {folder} was written"
    assert "invalid-neighbour" not in present
    assert lab.find("ClusterRole", cluster_role) is not None
    assert cluster_role in inventory(lab.get("Kustomization", "invalid"))
    fixed = {name: lab.api.get("v1", "ConfigMap", f"{name}-fixed", lab.namespace) for name in first}
    assert (fixed["immutable"]["metadata"]["uid"], fixed["immutable"]["data"]) == (first["immutable"], {"a": "old"})
    assert fixed["forced"]["metadata"]["uid"] != first["forced"]
    assert fixed["forced"]["data"] == {"a": "new"}
    assert lab.api.get("v1", "ConfigMap", "theirs", lab.namespace)["data"] == {"shared": "us", "own": "them"}
    assert {"quota-a", "quota-b", "quota-c"} >= inventory(lab.get("Kustomization", "quota")) >= {"quota-a"}


# --- artifacts of strangers


def test_artifacts_of_strangers(lab: GitOpsLab, service: Replica) -> None:
    with HostileStore() as store:
        given = hostile_artifacts(store)
        dripping = [f"drip-{number}" for number in range(6)]
        everyone = {**{name: one for name, one in given.items() if name != "drip"}, **dict.fromkeys(dripping, given["drip"])}
        for number, (name, (artifact, _)) in enumerate(everyone.items()):
            lab.create({"apiVersion": SOURCE_V1, "kind": "ExternalArtifact", "metadata": {"name": f"art-{name}"}, "spec": {}})
            if name.startswith("drip"):  # each has another address, so that none waits for the download of another
                store.goods[f"drip/{number}"] = ENDLESS
                artifact = {**artifact, "url": f"{artifact['url']}/{number}"}
            publish(lab, name, artifact)
        # All that drip first: they must not keep the others from being fetched.
        for name in sorted(everyone, key=lambda name: not name.startswith("drip")):
            lab.kustomization(
                f"art-{name}", "./app", sourceRef={"kind": "ExternalArtifact", "name": f"art-{name}"}, retryInterval="1s"
            )
        until_asked(store, "none")
        for name, (_, said) in given.items():
            if said:
                lab.until_failed(f"art-{name}", "ArtifactFailed", said)
        lab.until_ready("Kustomization", "art-link")
        assert names(lab, "art-") == {"art-link"}
        assert not Path("/etc/map.yaml").exists()
        assert not list(lab.root.rglob("art-escape.yaml"))
        check_nothing_escaped(lab)
        repository(lab, "beside", {"app/map.yaml": config_map("art-beside")})
        lab.kustomization("art-beside", "./app", "beside")
        lab.until_ready("Kustomization", "art-beside")
        store.ended.set()
        for name in everyone:
            publish(lab, name, store.artifact(f"{name.partition('-')[0]}-good", "main@2"))
        for name in everyone:
            lab.until_applied(f"art-{name}", "main@2")
        assert names(lab, "art-") == {f"art-{name}" for name in given} | {"art-beside"}


def check_nothing_escaped(lab: GitOpsLab) -> None:
    """No link is left below the folders of the service, and nothing lies beside what was unpacked."""
    unpacked = lab.replicas[0].folder / "storage" / "unpacked"
    assert unpacked.is_dir()
    assert not [path for path in unpacked.rglob("*") if path.is_symlink()]


def publish(lab: GitOpsLab, name: str, artifact: Object) -> None:
    """Write the status of an ExternalArtifact, as its producer does."""
    patch = {"status": {"artifact": artifact}}
    lab.api.merge_patch(SOURCE_V1, "ExternalArtifact", f"art-{name}", patch, lab.namespace, subresource="status")


# --- a Git server that hangs


def test_a_git_server_that_hangs(lab: GitOpsLab, service: Replica) -> None:
    bare = repository(lab, "hanging", {"app/map.yaml": config_map("hang-one")}, timeout="2s")
    lab.kustomization("hanging", "./app", "hanging")
    lab.until_ready("Kustomization", "hanging")
    applied = text_of(lab.get("Kustomization", "hanging"))
    ended = Event()

    def hang(handler: BaseHTTPRequestHandler) -> bool:
        if "/hanging.git/" not in handler.path:
            return False
        ended.wait(60)
        handler.close_connection = True
        return True

    lab.git.intercept = hang
    try:
        bare.commit({"app/map.yaml": config_map("hang-two").encode()})
        lab.request("GitRepository", "hanging")
        lab.until_failed("hanging", "GitOperationFailed", kind="GitRepository")
        # What was fetched before stays, and a look at it finds it all right.
        lab.handled("Kustomization", lab.request("Kustomization", "hanging"), "hanging")
        assert text_of(lab.until_ready("Kustomization", "hanging")) == applied
        assert names(lab, "hang-") == {"hang-one"}
    finally:
        lab.git.intercept = None
        ended.set()
    lab.request("GitRepository", "hanging")
    lab.until_applied("hanging", f"main@sha1:{bare.head()}")
    assert names(lab, "hang-") == {"hang-two"}


# --- what never ends, and what is many


def test_a_finalizer_that_never_ends_holds_up_nothing(lab: GitOpsLab, service: Replica) -> None:
    held = config_map("stuck-held", finalizers=["imagebot.test/held"])
    bare = repository(
        lab,
        "stuck",
        {"app/held.yaml": held, "app/other.yaml": config_map("stuck-other"), "app/kept.yaml": config_map("stuck-kept")},
    )
    lab.kustomization("stuck", "./app", "stuck")
    lab.until_ready("Kustomization", "stuck")
    bare.commit({"app/held.yaml": None, "app/other.yaml": None})
    lab.request("GitRepository", "stuck")
    found = lab.until_applied("stuck", f"main@sha1:{bare.head()}")
    assert inventory(found) == {"stuck-kept"}
    until(lambda: names(lab, "stuck-") == {"stuck-held", "stuck-kept"}, "the others to go")
    assert lab.api.get("v1", "ConfigMap", "stuck-held", lab.namespace)["metadata"]["deletionTimestamp"]
    # Wanted again while it is still going: it is made anew as soon as it is gone, whenever that is.
    lab.api.delete("kustomize.toolkit.fluxcd.io/v1", "Kustomization", "stuck", lab.namespace)
    lab.until_gone("Kustomization", "stuck")
    lab.api.merge_patch("v1", "ConfigMap", "stuck-held", {"metadata": {"finalizers": None}}, lab.namespace)
    until(lambda: not names(lab, "stuck-"), "all to go")


MANY = 1_000


def test_many_small_objects(lab: GitOpsLab, service: Replica) -> None:
    every = [map_of(f"many-{n:04}", data={"n": str(n)}) for n in range(MANY)]
    bare = repository(lab, "many", {"app/all.yaml": manifests(*every)})
    lab.kustomization("many", "./app", "many")
    # A thousand writes and as many dry runs: minutes where the machine has other things to do.
    until(lambda: ready_of(lab.get("Kustomization", "many"))[0] == "True", "all to be applied", seconds=150)
    found = lab.get("Kustomization", "many")
    assert inventory(found) == names(lab, "many-") == {body["metadata"]["name"] for body in every}
    mark = lab.cluster.audit.mark() if lab.cluster.audit is not None else 0
    every[500]["data"]["n"] = "changed"
    bare.commit({"app/all.yaml": manifests(*every[: MANY // 2 + 1]).encode()})
    lab.request("GitRepository", "many")
    until(lambda: str(bare.head()) in ready_of(lab.get("Kustomization", "many"))[2], "half of them to be pruned", seconds=150)
    found = lab.until_applied("many", f"main@sha1:{bare.head()}")
    assert len(inventory(found)) == MANY // 2 + 1
    until(lambda: len(names(lab, "many-")) == MANY // 2 + 1, "half of them to go", seconds=60)
    if lab.cluster.audit is not None:
        writes = [one for one in lab.writes(mark, service) if " configmaps many-" in one]
        applied = [one for one in writes if one.startswith("patch")]
        assert set(applied) == {"patch configmaps many-0500"}
        assert len(writes) - len(applied) == MANY // 2 - 1


# --- killed in the middle


def kill_while_held(lab: GitOpsLab, service: Replica, webhook: HoldingWebhook) -> None:
    """Ask for what was committed, and kill the service while the API server keeps one of its writes waiting."""
    lab.request("GitRepository", "killed")
    until(webhook.held.is_set, "a write to be held")
    service.kill()
    webhook.release()


def uid(lab: GitOpsLab, name: str) -> str:
    """Which object it is."""
    return str(lab.api.get("v1", "ConfigMap", name, lab.namespace)["metadata"]["uid"])


def test_killed_in_the_middle_of_an_apply_and_of_a_prune(lab: GitOpsLab, service: Replica) -> None:
    old = {f"app/{name}.yaml": config_map(f"kill-{name}", **HELD) for name in ("a", "b", "c")}
    with HoldingWebhook(lab.api, f"killed-{lab.namespace}", seconds=30) as webhook:
        until(lambda: webhook.asked(lab.namespace), "the webhook to be asked")
        bare = repository(lab, "killed", old)
        lab.kustomization("killed", "./app", "killed")
        lab.until_ready("Kustomization", "killed")
        # In the middle of an apply: some of it is written, one write hangs.
        webhook.holds = lambda operation, name: name == "kill-m" and operation == "CREATE"
        new = {f"app/{name}.yaml": config_map(f"kill-{name}", **HELD).encode() for name in ("d", "e", "m", "n", "o")}
        bare.commit({**new, "app/a.yaml": None})
        kill_while_held(lab, service, webhook)
        assert "kill-a" in names(lab, "kill-"), "something was pruned before everything was applied"
        # What it was about to write is known of, and goes when it is not wanted after all.
        bare.commit({"app/m.yaml": None, "app/d.yaml": None})
        lab.start(*FLAGS)
        lab.request("GitRepository", "killed")
        found = lab.until_applied("killed", f"main@sha1:{bare.head()}")
        wanted = {"kill-b", "kill-c", "kill-e", "kill-n", "kill-o"}
        assert inventory(found) == wanted
        until(lambda: names(lab, "kill-") == wanted, "what is wanted to be there, and nothing else")
        # In the middle of a prune.
        kept = {name: uid(lab, name) for name in ("kill-b", "kill-o")}
        webhook.held.clear()
        webhook.holds = lambda operation, name: operation == "DELETE" and name == "kill-e"
        bare.commit({f"app/{name}.yaml": None for name in ("c", "e", "n")})
        kill_while_held(lab, service, webhook)
        assert names(lab, "kill-") >= set(kept)
        lab.start(*FLAGS)
        found = lab.until_applied("killed", f"main@sha1:{bare.head()}")
        assert inventory(found) == set(kept)
        until(lambda: names(lab, "kill-") == set(kept), "the rest to go")
        assert {name: uid(lab, name) for name in kept} == kept
        lab.api.delete("kustomize.toolkit.fluxcd.io/v1", "Kustomization", "killed", lab.namespace)
        lab.until_gone("Kustomization", "killed")
        until(lambda: not names(lab, "kill-"), "all to go with the Kustomization")
