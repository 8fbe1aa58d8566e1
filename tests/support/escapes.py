"""What a tenant may try to get at what is not theirs: one row for each attempt, and what the tenant is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.support.gitopslab import config_map, manifests
from tests.support.gitrepo import Blob
from tests.support.kubeapi import Object

RBAC = "rbac.authorization.k8s.io"
BUILD, APPLY, ARTIFACT = "BuildFailed", "ReconciliationFailed", "ArtifactFailed"


@dataclass(frozen=True)
class World:
    """What an attempt may name.

    Attributes:
        tenant: Namespace of the tenant, where the ServiceAccount `tenant` is administrator.
        victim: Another one, with a Secret `password`, a ServiceAccount `power` that may do anything, a GitRepository `fleet`.
        url: A server that nobody may ask.
        git: Address of the repository of the victim.
        marker: A file that a program would make which nobody may run.
        kubeconfig: The service's own, which may do anything.
        token: A file with the token of that.
        server: Address of the API server.
        authority: Its certificate authority, in base64.
    """

    tenant: str
    victim: str
    url: str
    git: str
    marker: str
    kubeconfig: str
    token: str
    server: str
    authority: str


@dataclass(frozen=True)
class Attempt:
    """One attempt, made as a Kustomization of its name, with the folder of its name. Whatever must not come to be is `pwned-…`.

    Attributes:
        files: In the folder; a ConfigMap when there are none.
        reason: Of Ready; `True` when it becomes ready, as what was tried is without effect; `Progressing` when that is waited
            for in vain; empty when the API server refuses.
        said: In the message.
        spec: Of the Kustomization.
        objects: Made before, in the namespace of the tenant.
        annotations: Of the Kustomization.
    """

    name: str
    reason: str
    said: str
    files: Mapping[str, str | Blob] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    objects: tuple[Object, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, str | Blob]:
        """Its files by their path in the repository."""
        files = self.files or {"map.yaml": config_map(f"own-{self.name}")}
        return {f"{self.name}/{path}": text for path, text in files.items()}


def thing(kind: str, name: str, namespace: str = "", api: str = "v1", **more: Any) -> Object:
    """An object."""
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api, "kind": kind, "metadata": meta, **more}


def kustomization_file(**fields: Any) -> dict[str, str | Blob]:
    """A kustomization file beside a ConfigMap."""
    return {"kustomization.yaml": json.dumps({"resources": ["map.yaml"], **fields}), "map.yaml": config_map("own-map")}


def attempts(world: World) -> list[Attempt]:
    """All of them."""
    return [
        *sources(world),
        *configuration(world),
        *paths(world),
        *network(world),
        *programs(world),
        *identities(world),
        *remote(world),
        *objects(world),
        *injections(world),
        *bombs(world),
    ]


def sources(world: World) -> list[Attempt]:
    """Artifacts of others."""

    def source(**reference: str) -> dict[str, Any]:
        return {"sourceRef": {"kind": "GitRepository", **reference}}

    other = {"kind": "ExternalArtifact", "name": "theirs"}
    return [
        Attempt(
            "source-namespace",
            "AccessDenied",
            "cross-namespace references have been blocked",
            spec=source(name="fleet", namespace=world.victim),
        ),
        Attempt("source-slashes", ARTIFACT, "not found", spec=source(name=f"../{world.victim}/fleet")),
        Attempt("source-joined", ARTIFACT, "not found", spec=source(name=f"{world.victim}/fleet")),
        Attempt("source-external", "AccessDenied", "feature gate is disabled", spec={"sourceRef": other}),
        Attempt("source-external-namespace", "AccessDenied", "", spec={"sourceRef": {**other, "namespace": world.victim}}),
        Attempt("source-kind", "", "spec.sourceRef.kind", spec={"sourceRef": {"kind": "Secret", "name": "password"}}),
    ]


def configuration(world: World) -> list[Attempt]:
    """Secrets and ConfigMaps of others, by names that are more than names."""
    names = {
        "slashes": f"../../{world.victim}/secrets/password",
        "joined": f"{world.victim}/password",
        "dots": f"password.{world.victim}",
        "escaped": f"..%2f..%2f{world.victim}%2fsecrets%2fpassword",
        "query": f"password?namespace={world.victim}",
        "namespace-field": "password",
    }
    stolen = {"map.yaml": config_map("pwned-stolen", {"stolen": "${password}"})}
    found = []
    for how, name in names.items():
        reference = {"name": name, **({"namespace": world.victim} if how == "namespace-field" else {})}
        from_secret = {"postBuild": {"substituteFrom": [{"kind": "Secret", **reference}]}}
        from_map = {
            "postBuild": {"substituteFrom": [{"kind": "ConfigMap", **reference, "name": name.replace("secrets", "configmaps")}]}
        }
        decryption = {"decryption": {"provider": "sops", "secretRef": reference}}
        kubeconfig = {"kubeConfig": {"secretRef": reference}}
        found += [
            Attempt(f"variables-secret-{how}", BUILD, "substitute from", stolen, from_secret),
            Attempt(f"variables-map-{how}", BUILD, "substitute from", stolen, from_map),
            Attempt(f"keys-{how}", BUILD, "", spec=decryption),
            Attempt(f"kubeconfig-{how}", APPLY, "unable to read KubeConfig secret", spec=kubeconfig),
        ]
    return found


def paths(world: World) -> list[Attempt]:
    """Files outside the artifact."""
    nowhere = "kustomization path not found"
    link = Blob(b"/etc", "120000")
    up = "../" * 12
    generator = {"name": "pwned-file"}
    return [
        Attempt("path-above", ARTIFACT, nowhere, spec={"path": "./../../../../../../../../etc"}),
        Attempt("path-absolute", ARTIFACT, nowhere, spec={"path": "/etc"}),
        Attempt(
            "path-link", ARTIFACT, nowhere, {"etc": link, "map.yaml": config_map("own-path-link")}, {"path": "./path-link/etc"}
        ),
        Attempt("resource-above", BUILD, "", kustomization_file(resources=[f"{up}etc/passwd"])),
        Attempt(
            "resource-link",
            BUILD,
            "",
            {"kustomization.yaml": "resources: [link.yaml]\n", "link.yaml": Blob(world.kubeconfig.encode(), "120000")},
        ),
        Attempt("file-passwd", BUILD, "", kustomization_file(configMapGenerator=[{**generator, "files": [f"{up}etc/passwd"]}])),
        Attempt(
            "file-environment", BUILD, "", kustomization_file(configMapGenerator=[{**generator, "files": ["/proc/self/environ"]}])
        ),
        Attempt(
            "file-kubeconfig", BUILD, "", kustomization_file(configMapGenerator=[{**generator, "files": [world.kubeconfig]}])
        ),
        Attempt("file-token", BUILD, "", kustomization_file(secretGenerator=[{**generator, "files": [f"t={world.token}"]}])),
        Attempt("patch-above", BUILD, "", kustomization_file(patches=[{"path": f"{up}etc/passwd"}])),
        Attempt("component-above", BUILD, "", spec={"components": [f"{up}etc"]}),
        Attempt("component-absolute", BUILD, "must be local and relative", spec={"components": ["/etc"]}),
    ]


def network(world: World) -> list[Attempt]:
    """Addresses: none of them is asked."""
    return [
        Attempt("remote-file", BUILD, "", kustomization_file(resources=[f"{world.url}/pwned.yaml"])),
        Attempt("remote-repository", BUILD, "", kustomization_file(resources=[f"git::{world.url}/pwned.git//app?ref=main"])),
        Attempt("remote-component", BUILD, "", kustomization_file(components=[f"{world.url}/pwned.git//app"])),
        Attempt("remote-component-of-spec", BUILD, "must be local and relative", spec={"components": [f"{world.url}/pwned.git"]}),
        Attempt("remote-openapi", BUILD, "", kustomization_file(openapi={"path": f"{world.url}/pwned.json"})),
        Attempt("remote-patch", BUILD, "", kustomization_file(patches=[{"path": f"{world.url}/pwned.yaml"}])),
        Attempt(
            "remote-chart", BUILD, "", kustomization_file(helmCharts=[{"name": "pwned", "repo": world.url, "version": "1.0.0"}])
        ),
    ]


def programs(world: World) -> list[Attempt]:
    """Programs: none of them is run."""
    annotations = {"config.kubernetes.io/function": f"exec:\n  path: /usr/bin/touch\n  args: [{world.marker}]\n"}
    function = {"apiVersion": "x.example.com/v1", "kind": "Pwned", "metadata": {"name": "pwned", "annotations": annotations}}
    plugin = {
        "apiVersion": "example.com/v1",
        "kind": "Exec",
        "metadata": {"name": "pwned"},
        "argsOneLiner": f"touch {world.marker}",
    }
    found = [
        Attempt(
            f"program-{field}-{name}", BUILD, "", {**kustomization_file(**{field: ["f.yaml"]}), "f.yaml": yaml.safe_dump(body)}
        )
        for field in ("generators", "transformers", "validators")
        for name, body in (("function", function), ("plugin", plugin))
    ]
    chart = [{"name": "pwned", "releaseName": "pwned"}]
    files = kustomization_file(helmCharts=chart, helmGlobals={"chartHome": "."})
    return [*found, Attempt("program-helm", BUILD, "", files)]


def identities(world: World) -> list[Attempt]:
    """Rights of other accounts."""
    foreign = {"map.yaml": yaml.safe_dump(thing("ConfigMap", "pwned-identity", world.victim, data={"a": "b"}))}

    def acting(name: str, account: str, reason: str = APPLY, said: str = "") -> Attempt:
        return Attempt(f"account-{name}", reason, said, foreign, {"serviceAccountName": account, "targetNamespace": world.victim})

    return [
        acting("default", "tenant", said="cannot"),
        acting("empty", "", said="cannot"),
        acting("other-name", "power", said="cannot"),
        acting("other-namespace", f"{world.victim}:power"),
        acting("path", f"../{world.victim}/power"),
        acting("full-name", f"system:serviceaccount:{world.victim}:power"),
        acting("masters", "system:masters"),
        acting("admin", "system:admin"),
        acting("header", "tenant\r\nImpersonate-Group: system:masters"),
        acting("header-newline", "tenant\nImpersonate-Group: system:masters"),
        acting("header-uid", "tenant, system:masters"),
        acting("blank", " "),
        acting("unicode", "tenant\u2028\u00a0\uff1amasters"),
    ]


def remote(world: World) -> list[Attempt]:
    """Kubeconfigs that are more than an address and a credential."""
    foreign = {"map.yaml": yaml.safe_dump(thing("ConfigMap", "pwned-remote", world.victim, data={"a": "b"}))}
    cluster = {"server": world.server, "certificate-authority-data": world.authority}
    login = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": "/usr/bin/touch"}

    def kubeconfig(name: str, user: Object, said: str = "", **more: Any) -> Attempt:
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {**cluster, **more}}],
            "users": [{"name": "u", "user": user}],
        }
        secret = thing("Secret", f"remote-{name}", stringData={"value": json.dumps(body)})
        spec = {"kubeConfig": {"secretRef": {"name": f"remote-{name}"}}, "targetNamespace": world.victim}
        return Attempt(f"remote-{name}", APPLY, said, foreign, spec, (secret,))

    unchecked: dict[str, Any] = {"insecure-skip-tls-verify": True, "certificate-authority-data": ""}
    provider = {"name": "gcp", "config": {"cmd-path": "/usr/bin/touch", "cmd-args": world.marker}}
    return [
        kubeconfig("program", {"exec": {**login, "args": [world.marker]}}),
        kubeconfig("provider", {"auth-provider": provider}),
        kubeconfig("token-file", {"tokenFile": world.token}),
        kubeconfig("certificate-file", {"client-certificate": world.kubeconfig, "client-key": world.kubeconfig}),
        kubeconfig("as", {"as": "system:admin", "as-groups": ["system:masters"]}),
        kubeconfig("authority-file", {}, **{"certificate-authority": world.token, "certificate-authority-data": ""}),
        kubeconfig("unchecked", {}, **unchecked),
        kubeconfig("file-address", {}, server=f"file://{world.token}"),
        Attempt(
            "remote-path",
            APPLY,
            "",
            foreign,
            {"kubeConfig": {"secretRef": {"name": "remote-path"}}},
            (thing("Secret", "remote-path", stringData={"value": world.kubeconfig}),),
        ),
        Attempt(
            "remote-cloud",
            APPLY,
            "",
            foreign,
            {"kubeConfig": {"configMapRef": {"name": "remote-cloud"}}},
            (thing("ConfigMap", "remote-cloud", data={"provider": "generic", "address": world.server}),),
        ),
    ]


def objects(world: World) -> list[Attempt]:
    """Objects that the tenant may not make."""

    def wants(name: str, *bodies: Object, said: str = "cannot", **spec: Any) -> Attempt:
        return Attempt(f"object-{name}", APPLY, said, {"all.yaml": manifests(*bodies)}, {"targetNamespace": None, **spec})

    subject = [{"kind": "ServiceAccount", "name": "tenant", "namespace": world.tenant}]
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    admin = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"}
    rbac, hooks = f"{RBAC}/v1", "admissionregistration.k8s.io/v1"
    flux = {"interval": "1h", "prune": True, "path": "./", "sourceRef": {"kind": "GitRepository", "name": "fleet"}}
    items = [thing("ConfigMap", "own-list", world.tenant), thing("ConfigMap", "pwned-list", world.victim)]
    names = {"group": "pwned.example.com", "names": {"kind": "Pwned", "plural": "pwneds"}, "scope": "Cluster", "versions": []}
    return [
        wants("cluster-role", thing("ClusterRole", "pwned-role", api=rbac, rules=everything)),
        wants("cluster-binding", thing("ClusterRoleBinding", "pwned-binding", api=rbac, roleRef=admin, subjects=subject)),
        wants("namespace", thing("Namespace", "pwned-namespace")),
        wants(
            "namespace-of-victim",
            {**thing("Namespace", world.victim), "metadata": {"name": world.victim, "labels": {"pwned": "yes"}}},
        ),
        wants(
            "own-namespace", {**thing("Namespace", world.tenant), "metadata": {"name": world.tenant, "labels": {"pwned": "yes"}}}
        ),
        wants(
            "binding",
            thing("RoleBinding", "pwned-binding", world.tenant, rbac, roleRef=admin, subjects=subject),
            said="attempting to grant",
        ),
        wants("role", thing("Role", "pwned-role", world.tenant, rbac, rules=everything), said="attempting to grant"),
        wants("binding-elsewhere", thing("RoleBinding", "pwned-binding", "kube-system", rbac, roleRef=admin, subjects=subject)),
        wants("elsewhere", thing("ConfigMap", "pwned-map", world.victim)),
        wants("default", thing("ConfigMap", "pwned-map", "default")),
        wants("target", thing("ConfigMap", "pwned-target"), targetNamespace=world.victim),
        wants("secret", thing("Secret", "password", world.victim, stringData={"password": "pwned"})),
        wants("list", {"apiVersion": "v1", "kind": "List", "items": items}),
        wants(
            "definition", thing("CustomResourceDefinition", "pwneds.pwned.example.com", api="apiextensions.k8s.io/v1", spec=names)
        ),
        wants("webhook", thing("MutatingWebhookConfiguration", "pwned-hook", api=hooks, webhooks=[])),
        wants("node", thing("Node", "pwned-node")),
        wants(
            "volume",
            thing(
                "PersistentVolume",
                "pwned-volume",
                spec={"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/"}},
            ),
        ),
        wants(
            "kustomization",
            thing(
                "Kustomization",
                "pwned-app",
                world.victim,
                "kustomize.toolkit.fluxcd.io/v1",
                spec={**flux, "serviceAccountName": "power"},
            ),
        ),
        wants("name-path", thing("ConfigMap", f"../../{world.victim}/configmaps/pwned-path", world.tenant), said=""),
        wants("namespace-path", thing("ConfigMap", "pwned-path", f"{world.victim}/configmaps/x/.."), said=""),
        wants("version-path", thing("ConfigMap", "pwned-path", world.tenant, f"v1/namespaces/{world.victim}"), said=""),
        wants("forced", thing("ConfigMap", "settings", world.victim, data={"a": "pwned"}), force=True),
    ]


def injections(world: World) -> list[Attempt]:
    """Variables and metadata that turn into something else: applied with the tenant's rights all the same."""

    def variables(name: str, text: str, said: str, reason: str = APPLY, **values: str) -> Attempt:
        return Attempt(
            f"inject-{name}", reason, said, {"map.yaml": text}, {"targetNamespace": None, "postBuild": {"substitute": values}}
        )

    text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  namespace: {tenant}\ndata:\n  a: b\n".replace(
        "{tenant}", world.tenant
    )
    owner = {f"kustomize.toolkit.fluxcd.io/{field}": value for field, value in (("name", "app"), ("namespace", world.victim))}
    labelled = yaml.safe_dump({**thing("ConfigMap", "own-labelled"), "metadata": {"name": "own-labelled", "labels": owner}})
    notes = {"event.toolkit.fluxcd.io/revision": "pwned", "event.toolkit.fluxcd.io/padding": "x" * 200_000}
    document = f"x\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: pwned-doc\n  namespace: {world.victim}\n"
    return [
        variables(
            "metadata",
            text.replace("metadata:\n  name: x\n  namespace: " + world.tenant, "metadata:\n  name: x\n  namespace: ${m}"),
            "cannot",
            m=world.victim,
        ),
        variables("mapping", text.replace("  a: b", "  a: ${d}"), "", APPLY, d=f"{{namespace: {world.victim}}}"),
        variables(
            "kind",
            "apiVersion: ${api}\nkind: ${kind}\nmetadata:\n  name: pwned-kind\n",
            "cannot",
            api=f"{RBAC}/v1",
            kind="ClusterRole",
        ),
        variables("document", text.replace("name: x", "name: own-doc").replace("a: b", "a: ${d}"), "", "", d=document),
        variables("name", text.replace("name: x", "name: ${n}"), "", n=f"../../{world.victim}/configmaps/pwned-name"),
        Attempt("inject-owner", "True", "", {"map.yaml": labelled}),
        Attempt("inject-common-owner", "True", "", spec={"commonMetadata": {"labels": owner}}),
        Attempt("inject-event", "True", "", annotations=notes),
    ]


def bombs(world: World) -> list[Attempt]:
    """What would take all the time or memory there is."""
    ten = "[0,1,2,3,4,5,6,7,8,9]"
    turns = "true"
    for name in "abcdefgh":
        turns = f"{ten}.all({name}, {turns})"
    growth = "'aaaaaaaaaa'" + ".replace('a', 'aaaaaaaaaa')" * 20 + " != ''"
    ready = {"dependsOn": [{"name": "own", "readyExpr": turns}]}
    grown = {"dependsOn": [{"name": "own", "readyExpr": growth}]}
    awaited = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "own-bomb-health", "namespace": world.tenant}]

    def health(name: str, text: str) -> Attempt:
        expression = {"apiVersion": "v1", "kind": "ConfigMap", "current": text}
        spec = {"healthChecks": awaited, "healthCheckExprs": [expression]}
        return Attempt(name, "Progressing", "", {"map.yaml": config_map("own-bomb-health")}, spec)

    aliases = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    yaml_bomb = f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: pwned-yaml\n{aliases}"
    large = "x" * 100_000
    doubled = "".join("${v//x/${v}}" for _ in range(20))
    glob = {"v": "a" * 50_000, "p": "*a" * 200 + "b"}
    return [
        Attempt("bomb-turns", "DependencyNotReady", "", spec=ready),
        Attempt("bomb-growth", "DependencyNotReady", "", spec=grown),
        health("bomb-health", turns),
        health("bomb-health-growth", growth),
        Attempt(
            "bomb-long-expression",
            "InvalidCELExpression",
            "",
            spec={"dependsOn": [{"name": "own", "readyExpr": "true" + " && true" * 2000}]},
        ),
        Attempt("bomb-aliases", BUILD, "", {"map.yaml": yaml_bomb}),
        Attempt(
            "bomb-variables",
            BUILD,
            "",
            {"map.yaml": config_map("pwned-bomb", {"a": doubled})},
            {"postBuild": {"substitute": {"v": large}}},
        ),
        Attempt(
            "bomb-glob",
            APPLY,
            "Too long",
            {"map.yaml": config_map("pwned-glob", {"a": "${v##${p}}" * 50})},
            {"postBuild": {"substitute": glob}},
        ),
        Attempt("bomb-pattern", "True", "", spec={"ignore": [{"paths": ["/data/a"], "target": {"name": "(a+)+$"}}]}),
        Attempt("bomb-nested", BUILD, "", {"map.yaml": "a: " + "[" * 100_000}),
    ]
