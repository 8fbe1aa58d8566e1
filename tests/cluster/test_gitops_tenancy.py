"""Attempts of a tenant to get out: on the running service, with the flags that installations for several tenants use.

Every attempt is one row of `tests.support.escapes`. What must not come to be has a name that begins with `pwned`; what must not
be read are words that nothing else has. At the end there is a tally: attempts, and escapes, of which there must be none.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.support.clusterlab import Replica, ready_of, until
from tests.support.controlplane import Cluster
from tests.support.escapes import RBAC, Attempt, World, attempts, thing
from tests.support.gitopslab import KUSTOMIZE, SOURCE_V1, GitOpsLab, config_map, gitops_lab
from tests.support.gitrepo import BareRepository, Blob
from tests.support.kubeapi import ApiError, Object

pytestmark = pytest.mark.slow

FLAGS = (
    "--no-cross-namespace-refs",
    "--default-service-account=tenant",
    "--no-remote-bases",
    "--kube-api-qps=2000",
    "--kube-api-burst=2000",
)
WATCHED = (
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "ServiceAccount"),
    ("v1", "Namespace"),
    ("v1", "Node"),
    ("v1", "PersistentVolume"),
    (f"{RBAC}/v1", "Role"),
    (f"{RBAC}/v1", "RoleBinding"),
    (f"{RBAC}/v1", "ClusterRole"),
    (f"{RBAC}/v1", "ClusterRoleBinding"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    (KUSTOMIZE, "Kustomization"),
    (SOURCE_V1, "GitRepository"),
)
"""Kinds that attempts are about."""


class Listener:
    """A server that nobody may ask; it counts those who do."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, name="listener", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        self._socket.close()


@dataclass
class Estate:
    """The installation: a tenant, a victim, and what is theirs."""

    lab: GitOpsLab
    service: Replica
    world: World
    listener: Listener
    bare: BareRepository
    words: tuple[str, ...]
    """What must not be seen outside the namespace of the victim."""

    def kustomization(self, name: str, **spec: Any) -> Object:
        """A Kustomization of the tenant, as a body."""
        wanted = {
            "interval": "1h",
            "prune": True,
            "path": f"./{name}",
            "sourceRef": {"kind": "GitRepository", "name": "own"},
            "targetNamespace": self.world.tenant,
            **spec,
        }
        body = {each: value for each, value in wanted.items() if value is not None}
        return thing("Kustomization", name, self.world.tenant, KUSTOMIZE, spec=body)

    def ready(self, name: str, kind: str = "Kustomization") -> tuple[str, str, str]:
        """Status, reason and message of Ready of an object of the tenant."""
        return ready_of(self.lab.find(kind, name, self.world.tenant) or {})

    def holdings(self) -> dict[str, Any]:
        """Everything that is not the tenant's, without what changes by itself."""
        found: dict[str, Any] = {}
        for api, kind in WATCHED:
            for body in self.lab.api.list(api, kind):
                meta = body["metadata"]
                if meta.get("namespace") in {self.world.victim, "kube-system", "default"} or "namespace" not in meta:
                    kept = {name: value for name, value in body.items() if name not in {"metadata", "status"}}
                    marks = {name: meta.get(name) for name in ("uid", "labels", "deletionTimestamp")}
                    found[f"{kind}/{meta.get('namespace', '')}/{meta['name']}"] = {**kept, **marks}
        return found

    def seen(self) -> str:
        """Everything that the tenant can read."""
        kinds = (*WATCHED, ("v1", "Event"))
        mine = [body for api, kind in kinds for body in self.lab.api.list(api, kind, self.world.tenant)]
        return json.dumps([body for body in mine if body["metadata"].get("namespace") == self.world.tenant])


@pytest.fixture(scope="module")
def estate(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    namespace, api = f"gitops-tenancy-{secrets.token_hex(3)}", control_plane.api
    api.create(thing("Namespace", namespace))
    listener = Listener()
    root = tmp_path_factory.mktemp("tenancy")
    binding = f"power-{namespace}"
    try:
        with gitops_lab(control_plane, namespace, root) as lab:
            yield settle(lab, listener, binding)
    finally:
        listener.close()
        api.delete(f"{RBAC}/v1", "ClusterRoleBinding", binding, missing_ok=True)
        api.delete("v1", "Namespace", namespace, missing_ok=True)


def settle(lab: GitOpsLab, listener: Listener, binding: str) -> Estate:
    """Tenant and victim, each with an account; the victim's objects are applied by the service."""
    tenant, victim = lab.add_namespace(), lab.add_namespace()
    rbac, role = f"{RBAC}/v1", {"apiGroup": RBAC, "kind": "ClusterRole", "name": "admin"}
    for namespace in (tenant, victim):
        subject = {"kind": "ServiceAccount", "name": "tenant", "namespace": namespace}
        lab.create(thing("ServiceAccount", "tenant"), namespace=namespace)
        lab.create(thing("RoleBinding", "tenant", api=rbac, roleRef=role, subjects=[subject]), namespace=namespace)
    lab.create(thing("ServiceAccount", "power"), namespace=victim)
    power = {"kind": "ServiceAccount", "name": "power", "namespace": victim}
    lab.api.create(thing("ClusterRoleBinding", binding, api=rbac, roleRef={**role, "name": "cluster-admin"}, subjects=[power]))
    password = f"word{secrets.token_hex(12)}"
    lab.create(thing("Secret", "password", stringData={"password": password, "value": password}), namespace=victim)
    lab.create(thing("ConfigMap", "password", data={"password": password}), namespace=victim)
    lab.create(thing("ConfigMap", "settings", data={"a": "theirs"}), namespace=victim)
    service = lab.start(*FLAGS, everywhere=True)
    config = yaml.safe_load(service.kubeconfig.read_text())
    token = lab.root / "token"
    token.write_text(config["users"][0]["user"]["token"])
    cluster = config["clusters"][0]["cluster"]
    fleet = {"url": lab.git.url("fleet.git"), "interval": "1h", "ref": {"branch": "main"}}
    lab.commit({"app/map.yaml": config_map("theirs-applied", {"a": "theirs"})})
    lab.create(thing("GitRepository", "fleet", api=SOURCE_V1, spec=fleet), namespace=victim)
    app = {"interval": "1h", "prune": True, "path": "./app", "sourceRef": {"kind": "GitRepository", "name": "fleet"}}
    lab.create(thing("Kustomization", "app", api=KUSTOMIZE, spec={**app, "targetNamespace": victim}), namespace=victim)
    lab.until_ready("Kustomization", "app", namespace=victim)
    world = World(
        tenant, victim, listener.url, lab.git.url("fleet.git"), str(lab.root / "marker"), str(service.kubeconfig), str(token),
        cluster["server"], cluster["certificate-authority-data"],
    )  # fmt: skip
    bare = BareRepository.create(lab.root / "git" / "own.git")
    return Estate(lab, service, world, listener, bare, (password, token.read_text(), "root:x:0:"))


def escapes(estate: Estate, before: dict[str, Any]) -> list[str]:
    """What has got out, in words."""
    after = estate.holdings()
    found = [f"made: {name}" for name in after.keys() - before.keys()]
    # What was on its way out before, such as the namespaces of other tests, may be gone by now.
    staying = {name: body for name, body in before.items() if not body["deletionTimestamp"]}
    found += [f"changed or deleted: {name}" for name, body in staying.items() if after.get(name) != body]
    seen = estate.seen()
    found += [f"a secret of others is seen: …{seen[max(0, at - 300) : at]}" for w in estate.words if (at := seen.find(w)) >= 0]
    found += ["a program was run"] if (estate.lab.root / "marker").exists() else []
    found += [f"{estate.listener.connections} connections"] if estate.listener.connections else []
    log = estate.service.log_path.read_text()
    found += ["a secret of others is in the log" for word in estate.words if word in log]
    return found


def made(estate: Estate, attempt: Attempt) -> str:
    """Make an attempt; what the API server says when it refuses."""
    body = estate.kustomization(attempt.name, **attempt.spec)
    body["metadata"]["annotations"] = dict(attempt.annotations)
    try:
        estate.lab.api.create(body)
    except ApiError as error:
        return error.message
    return ""


def told(estate: Estate, attempt: Attempt) -> bool:
    """Whether the tenant is told what is to be told."""
    status, reason, message = estate.ready(attempt.name)
    wanted = {"True": "True", "Progressing": "Unknown"}.get(attempt.reason, "False")
    return status == wanted and (wanted == "True" or reason == attempt.reason) and attempt.said in message


@pytest.mark.timeout(150)
def test_no_attempt_succeeds(estate: Estate) -> None:
    lab, world = estate.lab, estate.world
    rows = attempts(world)
    assert len({row.name for row in rows}) == len(rows)
    files: dict[str, str | Blob] = {"own/map.yaml": config_map("own-own")}
    for row in rows:
        files |= row.content
    estate.bare.commit({path: text if isinstance(text, Blob) else text.encode() for path, text in files.items()})
    url = lab.git.url("own.git")
    lab.create(
        thing("GitRepository", "own", api=SOURCE_V1, spec={"url": url, "interval": "1h", "ref": {"branch": "main"}}),
        namespace=world.tenant,
    )
    lab.create(thing("ExternalArtifact", "theirs", api=SOURCE_V1, spec={}), namespace=world.tenant)
    lab.api.create(estate.kustomization("own"))
    lab.until_ready("Kustomization", "own", namespace=world.tenant)
    before = estate.holdings()
    for row in rows:
        lab.create(*row.objects, namespace=world.tenant)
    refused = {row.name: message for row in rows if (message := made(estate, row))}
    waiting = [row for row in rows if row.name not in refused and row.reason]

    def settled() -> bool:
        waiting[:] = [row for row in waiting if not told(estate, row)]
        return not waiting

    untold = ""
    try:
        until(settled, "every attempt to be answered")
    except AssertionError:
        untold = "\n".join(f"{row.name}: {row.reason} {row.said!r}: {estate.ready(row.name)}"[:1500] for row in waiting)
    unexpected = [f"{row.name}: {refused[row.name]}" for row in rows if row.reason and row.name in refused]
    missed = [row.name for row in rows if row.reason == "" and row.said and row.said not in refused.get(row.name, "")]
    # A last look when everybody has been answered: the service is alive, and does what it is there for.
    lab.handled("Kustomization", lab.request("Kustomization", "own", namespace=world.tenant), "own", world.tenant)
    found = escapes(estate, before)
    print(f"{len(rows)} attempts, {len(found)} escapes; refused by the API server: {sorted(refused)}")
    assert found == []
    assert (untold, unexpected, missed) == ("", [], [])
    check_owners(estate)


def check_owners(estate: Estate) -> None:
    """Objects are of who applied them, whatever they say; events are those of the object, whatever it is annotated with."""
    for name, owner in (("own-labelled", "inject-owner"), ("own-inject-common-owner", "inject-common-owner")):
        labels = estate.lab.api.get("v1", "ConfigMap", name, estate.world.tenant)["metadata"]["labels"]
        assert labels["kustomize.toolkit.fluxcd.io/name"] == owner
        assert labels["kustomize.toolkit.fluxcd.io/namespace"] == estate.world.tenant
    events = [e for e in estate.lab.api.list("v1", "Event", estate.world.tenant) if e["involvedObject"]["name"] == "inject-event"]
    assert events
    revisions = {e["metadata"].get("annotations", {}).get("kustomize.toolkit.fluxcd.io/revision") for e in events}
    assert revisions == {f"main@sha1:{estate.bare.head()}"}


# --- sources


def hostile_sources(world: World, root: str) -> dict[str, tuple[Object, str]]:
    """Name → the spec of a GitRepository, and what is said: by the API server, or as the message of Ready."""
    own = {"url": world.git.replace("fleet.git", "own.git"), "interval": "1h", "timeout": "10s", "ref": {"branch": "main"}}
    touch = f"touch {world.marker}"
    return {
        "url-file": ({**own, "url": f"file://{root}/git/fleet.git"}, "spec.url"),
        "url-program": ({**own, "url": f"ext::sh -c {touch.replace(' ', '% ')}"}, "spec.url"),
        "url-option": ({**own, "url": f"ssh://-oProxyCommand={touch.replace(' ', '%20')}/x.git"}, ""),
        "branch-option": ({**own, "ref": {"branch": f"--upload-pack={touch}"}}, ""),
        "tag-option": ({**own, "ref": {"tag": f"--upload-pack={touch}"}}, ""),
        "name-option": ({**own, "ref": {"name": f"--upload-pack={touch}"}}, ""),
        "commit-option": ({**own, "ref": {"commit": f"--upload-pack={touch}"}}, ""),
        "secret-path": ({**own, "secretRef": {"name": f"../../{world.victim}/secrets/password"}}, ""),
        "include-namespace": ({**own, "include": [{"repository": {"name": f"{world.victim}/fleet"}}]}, ""),
        "include-above": (
            {**own, "include": [{"repository": {"name": "own"}, "fromPath": "../..", "toPath": "../../../pwned"}]},
            "",
        ),
        "submodule": ({**own, "ref": {"branch": "submodule"}, "recurseSubmodules": True}, ""),
        "proxy-path": ({**own, "proxySecretRef": {"name": f"../../{world.victim}/secrets/password"}}, ""),
    }


def test_sources_stay_inside(estate: Estate) -> None:
    lab, world = estate.lab, estate.world
    modules = f'[submodule "x"]\n\tpath = x\n\turl = file://{lab.root}/git/fleet.git\n'
    head = lab.fleet.head()
    assert head is not None
    estate.bare.commit({".gitmodules": modules.encode(), "x": Blob(head.encode(), "160000")}, branch="submodule")
    if lab.find("GitRepository", "own", world.tenant) is None:
        estate.bare.commit({"own/map.yaml": config_map("own-own").encode()})
        spec = {"url": lab.git.url("own.git"), "interval": "1h", "ref": {"branch": "main"}}
        lab.create(thing("GitRepository", "own", api=SOURCE_V1, spec=spec), namespace=world.tenant)
    before, rows, refused = estate.holdings(), hostile_sources(world, str(lab.root)), {}
    for name, (spec, _) in rows.items():
        try:
            lab.create(thing("GitRepository", name, api=SOURCE_V1, spec=spec), namespace=world.tenant)
        except ApiError as error:
            refused[name] = error.message
    for name, (_, said) in rows.items():
        if name in refused:
            assert said in refused[name], name
            continue
        until(lambda name=name: estate.ready(name, "GitRepository")[0] in {"True", "False"}, f"{name} to be answered")  # type: ignore[misc]
        status, _, message = estate.ready(name, "GitRepository")
        # A path that leads out of the artifact is clamped to it, as everywhere; all else is refused.
        assert status == ("True" if name == "include-above" else "False"), f"{name}: {message}"
        assert said in message, name
    found = escapes(estate, before)
    print(f"{len(rows)} attempts, {len(found)} escapes; refused by the API server: {sorted(refused)}")
    assert found == []
    assert not list(lab.root.rglob("pwned*"))


# --- inventories


def test_forged_inventories(estate: Estate) -> None:
    """Who writes the names of others into an inventory deletes nothing of theirs: not by a prune, and not by an end."""
    lab, world = estate.lab, estate.world
    owner = {"kustomize.toolkit.fluxcd.io/name": "somebody", "kustomize.toolkit.fluxcd.io/namespace": world.tenant}
    mine = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "of-somebody", "labels": owner}}
    lab.create(mine, thing("ConfigMap", "of-nobody"), namespace=world.tenant)
    foreign = {
        "victim": f"{world.victim}_theirs-applied__ConfigMap",
        "secret": f"{world.victim}_password__Secret",
        "system": "kube-system_kube-root-ca.crt__ConfigMap",
        "namespace": f"_{world.victim}__Namespace",
        "role": f"_cluster-admin_{RBAC}_ClusterRole",
        "path": f"{world.tenant}_..%2F..%2F{world.victim}__ConfigMap",
        "slashes": f"{world.tenant}_../../{world.victim}/configmaps/settings__ConfigMap",
        "unknown": "a_b_nosuch.example.com_Nope",
        "nonsense": "____",
        "somebody": f"{world.tenant}_of-somebody__ConfigMap",
        "nobody": f"{world.tenant}_of-nobody__ConfigMap",
    }
    estate.bare.commit(
        {f"forged-{name}/map.yaml": config_map(f"own-forged-{name}").encode() for name in foreign}, branch="forged"
    )
    spec = {"url": lab.git.url("own.git"), "interval": "1h", "ref": {"branch": "forged"}}
    lab.create(thing("GitRepository", "forged", api=SOURCE_V1, spec=spec), namespace=world.tenant)
    for name in foreign:
        lab.api.create(
            estate.kustomization(f"forged-{name}", sourceRef={"kind": "GitRepository", "name": "forged"}, retryInterval="1h")
        )
    for name in foreign:
        lab.until_ready("Kustomization", f"forged-{name}", namespace=world.tenant)
    before = estate.holdings()
    uids = {name: lab.api.get("v1", "ConfigMap", name, world.tenant)["metadata"]["uid"] for name in ("of-somebody", "of-nobody")}
    for name, entry in foreign.items():
        entries = [{"id": entry, "v": "v1"}]
        patch = {"status": {"inventory": {"entries": entries}}}
        lab.api.merge_patch(KUSTOMIZE, "Kustomization", f"forged-{name}", patch, world.tenant, subresource="status")
    for name in foreign:
        lab.handled(
            "Kustomization",
            lab.request("Kustomization", f"forged-{name}", namespace=world.tenant),
            f"forged-{name}",
            world.tenant,
        )
    for name in ("somebody", "nobody"):  # theirs to read, and not theirs by its labels
        lab.until_ready("Kustomization", f"forged-{name}", namespace=world.tenant)
    for name in ("victim", "secret", "system", "namespace"):
        status, reason, message = estate.ready(f"forged-{name}")
        assert (status, reason) == ("False", "PruneFailed"), f"{name}: {reason} {message}"
        assert "cannot" in message
    # What it has made itself, and what another one has, when it goes.
    for name, entry in foreign.items():
        patch = {"status": {"inventory": {"entries": [{"id": entry, "v": "v1"}]}}}
        lab.api.merge_patch(KUSTOMIZE, "Kustomization", f"forged-{name}", patch, world.tenant, subresource="status")
        lab.api.delete(KUSTOMIZE, "Kustomization", f"forged-{name}", world.tenant)
    for name in ("somebody", "nobody"):
        lab.until_gone("Kustomization", f"forged-{name}", world.tenant)

    def tried() -> bool:
        events = lab.api.list("v1", "Event", world.tenant)
        failed = {e["involvedObject"]["name"] for e in events if e["message"].startswith("pruning for deleted resource failed")}
        return failed >= {f"forged-{name}" for name in ("victim", "secret", "system", "namespace")}

    until(tried, "the others to have been tried")
    found = escapes(estate, before)
    print(f"{2 * len(foreign)} attempts, {len(found)} escapes")
    assert found == []
    assert {name: lab.api.get("v1", "ConfigMap", name, world.tenant)["metadata"]["uid"] for name in uids} == uids
