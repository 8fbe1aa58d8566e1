"""The chart's objects before a real API server: taken as they are, and the rights they give are just those that are needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconcile.cluster import lease_name
from tests.support.chart import CHART, MONITORING, VALUE_SETS, Helm, grant, of_kind, revoke, value_set
from tests.support.controlplane import Cluster
from tests.support.kubeapi import APPLY_PATCH, ApiError, KubeApi, Object

pytestmark = pytest.mark.slow

IMAGE = "image.toolkit.fluxcd.io/v1"
LEASE = "coordination.k8s.io/v1"
KINDS = ("imagerepositories", "imagepolicies", "imageupdateautomations")


@pytest.fixture(scope="module")
def definitions(control_plane: Cluster) -> None:
    """Our custom resources, and those of the Prometheus operator."""
    for path in (*sorted((CHART / "crds").glob("*.yaml")), *sorted(MONITORING.glob("*.yaml"))):
        control_plane.api.install_crd(yaml.safe_load(path.read_text()))


@pytest.fixture
def neighbour(control_plane: Cluster, namespace: str) -> Iterator[str]:
    """Another namespace, of somebody else."""
    name = f"{namespace}-x"
    control_plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    control_plane.api.delete("v1", "Namespace", name, missing_ok=True)


def show(api: KubeApi, manifest: Object) -> None:
    """Server-side apply that changes nothing and puts up with no unknown field."""
    meta = manifest["metadata"]
    path = api.path(manifest["apiVersion"], manifest["kind"], meta.get("namespace"), meta["name"])
    params = {"fieldManager": "chart", "force": "true", "dryRun": "All", "fieldValidation": "Strict"}
    api.request("PATCH", path, manifest, content_type=APPLY_PATCH, **params)


def retry(probe: Callable[[], Any]) -> Any:
    """The probe's result, once it has one: a role takes a moment to become known to the API server."""
    end = time.monotonic() + 20
    while True:
        try:
            return probe()
        except ApiError as error:
            if error.code != 403 or time.monotonic() > end:
                raise
            time.sleep(0.05)


# --- the objects


@pytest.mark.parametrize("name", VALUE_SETS)
@pytest.mark.usefixtures("definitions")
def test_every_object_is_taken(control_plane: Cluster, helm: Helm, namespace: str, name: str) -> None:
    for manifest in helm.objects(*value_set(name), namespace=namespace):
        show(control_plane.api, manifest)


@pytest.mark.usefixtures("definitions")
def test_an_object_with_an_unknown_field_is_not(control_plane: Cluster, helm: Helm, namespace: str) -> None:
    seen = 0
    for manifest in helm.objects(*value_set("ha"), namespace=namespace):
        if "spec" in manifest:
            seen += 1
            with pytest.raises(ApiError, match="nonsense"):
                show(control_plane.api, {**manifest, "spec": {**manifest["spec"], "nonsense": 1}})
    assert seen == 7


def restrict(cluster: Cluster, namespace: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
    cluster.api.merge_patch("v1", "Namespace", namespace, {"metadata": {"labels": labels}})


def pod_of(deployment: Object) -> Object:
    template = deployment["spec"]["template"]
    meta = {"name": "pod", "namespace": deployment["metadata"]["namespace"], "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_pods_pass_the_restricted_standard(control_plane: Cluster, helm: Helm, namespace: str, name: str) -> None:
    restrict(control_plane, namespace)
    for deployment in of_kind(helm.objects(*value_set(name), namespace=namespace), "Deployment"):
        control_plane.api.create(pod_of(deployment), dry_run=True)


@pytest.mark.parametrize("field", ["allowPrivilegeEscalation", "capabilities"])
def test_the_standard_would_refuse_less(control_plane: Cluster, helm: Helm, namespace: str, field: str) -> None:
    restrict(control_plane, namespace)
    (deployment,) = of_kind(helm.objects(namespace=namespace), "Deployment")
    pod = pod_of(deployment)
    del pod["spec"]["containers"][0]["securityContext"][field]
    with pytest.raises(ApiError, match='violates PodSecurity "restricted:latest"'):
        control_plane.api.create(pod, dry_run=True)


def test_notes_say_what_was_installed(control_plane: Cluster, helm: Helm) -> None:
    def notes(*arguments: str) -> str:
        return helm.notes(control_plane.kubeconfig, *arguments)

    assert "is in namespace imagebot-system as deployment/imagebot." in notes()
    assert "in all namespaces.\n" in notes()
    assert not any(text in notes() for text in ("no cluster-wide", "one replica", "Helm does not upgrade"))
    assert "in namespace imagebot-system only.\nIt has no cluster-wide rights." in notes(*value_set("strict"))
    assert "as deployment/imagebot, deployment/imagebot-a, deployment/imagebot-big." in notes(*value_set("shards"))
    assert "There is one replica at most" in notes(*value_set("minimal"))
    assert "ServiceAccount imagebot needs the rights of" in notes("--set", "rbac.create=false")
    assert 'job="imagebot-system/imagebot"' in notes("--set", "prometheusRule.enabled=true")


# --- the rights


@pytest.fixture
def granted(control_plane: Cluster, helm: Helm, namespace: str, definitions: None) -> Iterator[Callable[..., KubeApi]]:
    """Makes the rights of a release in the test's namespace; returns the API as the service sees it."""
    made: list[Object] = []
    users: list[KubeApi] = []

    def make(*arguments: str, user: str = "imagebot") -> KubeApi:
        made.extend(grant(control_plane, helm, namespace, *arguments))
        users.append(control_plane.as_service_account(namespace, user))
        return users[-1]

    yield make
    for user in users:
        user.close()
    revoke(control_plane, made)


def rules(api: KubeApi, namespace: str) -> set[tuple[str, str, str, str]]:
    """All that a user may do in a namespace, as (group, resource, name, verb)."""
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    status = api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", body)["status"]
    assert not status["incomplete"]
    return {
        (group, resource, name, verb)
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


def own_rules(cluster: Cluster, api: KubeApi, namespace: str) -> set[tuple[str, str, str, str]]:
    """The same, without what every user may do."""
    cluster.api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": namespace}})
    with cluster.as_service_account(namespace, "nobody") as nobody:
        return rules(api, namespace) - rules(nobody, namespace)


def assert_rules(cluster: Cluster, api: KubeApi, namespace: str, wanted: set[tuple[str, str, str, str]]) -> None:
    """These rights and no others; new roles take a moment to become known to the API server."""
    end = time.monotonic() + 20
    while (found := own_rules(cluster, api, namespace)) != wanted and time.monotonic() < end:
        time.sleep(0.1)
    assert found == wanted


def expected(*parts: tuple[str, tuple[str, ...], str]) -> set[tuple[str, str, str, str]]:
    return {(group, kind, "", verb) for group, kinds, verbs in parts for kind in kinds for verb in verbs.split()}


OBJECTS = expected(
    ("image.toolkit.fluxcd.io", KINDS, "get list watch patch update"),
    ("image.toolkit.fluxcd.io", tuple(f"{kind}/status" for kind in KINDS), "get patch update"),
    ("image.toolkit.fluxcd.io", tuple(f"{kind}/finalizers" for kind in KINDS), "update"),
    ("imagebot.dev", ("imageholds",), "create delete get list patch watch"),
    ("", ("events",), "create patch"),
)
REFERENCES = expected(
    ("source.toolkit.fluxcd.io", ("gitrepositories",), "get list watch"),
    ("", ("namespaces", "secrets", "serviceaccounts"), "get"),
)


MADE = "get list watch create patch"
CANARY = expected(
    ("flagger.app", ("canaries",), "get list watch patch"),
    ("flagger.app", ("canaries/status",), "get patch"),
    ("flagger.app", ("canaries/finalizers",), "update"),
    ("flagger.app", ("metrictemplates", "alertproviders"), "get list watch"),
    ("", ("events",), "create patch"),
    ("", ("services",), MADE),
    ("", ("configmaps", "secrets"), f"{MADE} delete"),
    ("apps", ("deployments", "daemonsets"), MADE),
    ("autoscaling", ("horizontalpodautoscalers",), MADE),
    ("keda.sh", ("scaledobjects",), MADE),
    ("serving.knative.dev", ("services",), "get list watch patch"),
    ("serving.knative.dev", ("revisions",), "get list watch"),
    ("networking.k8s.io", ("ingresses",), f"{MADE} delete"),
    ("gateway.networking.k8s.io", ("httproutes",), MADE),
    ("networking.istio.io", ("virtualservices", "destinationrules"), MADE),
    ("appmesh.k8s.aws", ("virtualnodes", "virtualrouters", "virtualservices"), MADE),
    ("split.smi-spec.io", ("trafficsplits",), MADE),
    ("projectcontour.io", ("httpproxies",), MADE),
    ("gateway.solo.io", ("routetables",), MADE),
    ("gloo.solo.io", ("upstreams",), MADE),
    ("traefik.io", ("traefikservices",), MADE),
    ("apisix.apache.org", ("apisixroutes",), MADE),
    ("kuma.io", ("trafficroutes",), MADE),
    ("external.metrics.k8s.io", ("*",), "get list"),
    ("metrics.keptn.sh", ("keptnmetrics",), "get"),
    ("metrics.keptn.sh", ("analyses",), "get create delete"),
)


SOURCES = ("gitrepositories", "ocirepositories", "helmrepositories", "buckets")
SOURCE = expected(
    ("source.toolkit.fluxcd.io", SOURCES, "get list watch patch update"),
    ("source.toolkit.fluxcd.io", tuple(f"{kind}/status" for kind in SOURCES), "get patch update"),
    ("source.toolkit.fluxcd.io", tuple(f"{kind}/finalizers" for kind in SOURCES), "update"),
    ("source.toolkit.fluxcd.io", ("externalartifacts",), "get list watch"),
    ("", ("secrets", "serviceaccounts", "configmaps"), "get"),
    ("", ("events",), "create patch"),
)
KUSTOMIZE = expected(
    ("kustomize.toolkit.fluxcd.io", ("kustomizations",), "get list watch patch update"),
    ("kustomize.toolkit.fluxcd.io", ("kustomizations/status",), "get patch update"),
    ("kustomize.toolkit.fluxcd.io", ("kustomizations/finalizers",), "update"),
    ("source.toolkit.fluxcd.io", ("gitrepositories", "ocirepositories", "buckets", "externalartifacts"), "get list watch"),
    ("", ("secrets", "configmaps"), "get list watch"),
    ("", ("events",), "create patch"),
)
EVERYTHING = expected(("*", ("*",), "*"))


def leases(*names: str) -> set[tuple[str, str, str, str]]:
    group = "coordination.k8s.io"
    return {(group, "leases", "", "create"), *((group, "leases", n, verb) for n in names for verb in ("get", "patch", "update"))}


def test_rights_by_default(control_plane: Cluster, granted: Callable[..., KubeApi], namespace: str, neighbour: str) -> None:
    service = granted()
    assert_rules(control_plane, service, namespace, OBJECTS | REFERENCES | leases("imagebot-leader-election"))
    assert_rules(control_plane, service, neighbour, OBJECTS | REFERENCES)


def test_rights_of_progressive_delivery(
    control_plane: Cluster, granted: Callable[..., KubeApi], namespace: str, neighbour: str
) -> None:
    service = granted(*value_set("canary"))
    assert_rules(control_plane, service, neighbour, CANARY)
    assert_rules(control_plane, service, namespace, CANARY | leases("imagebot-leader-election"))


def test_rights_of_both_without_tracking(control_plane: Cluster, granted: Callable[..., KubeApi], neighbour: str) -> None:
    service = granted("--set", "controllers={image,canary},canary.configTracking=false")
    untracked = {rule for rule in CANARY if rule[1] not in {"configmaps", "secrets"}}
    assert_rules(control_plane, service, neighbour, untracked | OBJECTS | REFERENCES)


def test_rights_of_sources(control_plane: Cluster, granted: Callable[..., KubeApi], namespace: str, neighbour: str) -> None:
    service = granted("--set", "controllers={source}")
    assert_rules(control_plane, service, neighbour, SOURCE)
    assert_rules(control_plane, service, namespace, SOURCE | leases("imagebot-leader-election"))


def test_rights_of_kustomizations(control_plane: Cluster, granted: Callable[..., KubeApi], neighbour: str) -> None:
    service = granted("--set", "controllers={kustomize}")
    assert_rules(control_plane, service, neighbour, KUSTOMIZE | EVERYTHING)


def test_rights_of_tenants_kustomizations_are_those_of_their_accounts(
    control_plane: Cluster, granted: Callable[..., KubeApi], namespace: str, neighbour: str
) -> None:
    service = granted(*value_set("tenants"))
    speaking = expected(("", ("serviceaccounts",), "impersonate"))
    assert_rules(control_plane, service, neighbour, SOURCE | KUSTOMIZE | speaking)
    refuse('create resource "configmaps"', lambda: service.create(variables(neighbour)))
    tenant = {"name": "tenant", "namespace": neighbour}
    control_plane.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": tenant})
    rbac = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": tenant,
        "subjects": [{"kind": "ServiceAccount", **tenant}], "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "edit"},
    }  # fmt: skip
    control_plane.api.create(binding)
    service.http.headers["Impersonate-User"] = f"system:serviceaccount:{neighbour}:tenant"
    assert retry(lambda: service.create(variables(neighbour)))["metadata"]["name"] == "variables"
    refuse('create resource "configmaps"', lambda: service.create(variables(namespace)))
    service.http.headers["Impersonate-User"] = "somebody"
    refuse('impersonate resource "users"', lambda: service.get("v1", "ConfigMap", "variables", neighbour))


def variables(namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "variables", "namespace": namespace},
        "data": {"a": "b"},
    }


def test_rights_in_strict_mode(control_plane: Cluster, granted: Callable[..., KubeApi], namespace: str, neighbour: str) -> None:
    service = granted("--set", "rbac.strict=true")
    assert_rules(control_plane, service, namespace, OBJECTS | REFERENCES | leases("imagebot-leader-election"))
    for elsewhere in (neighbour, "default", "kube-system"):
        assert_rules(control_plane, service, elsewhere, set())


def test_rights_without_all_namespaces(
    control_plane: Cluster, granted: Callable[..., KubeApi], namespace: str, neighbour: str
) -> None:
    service = granted("--set", "watchAllNamespaces=false,leaderElection.enabled=false,replicas=1")
    assert_rules(control_plane, service, namespace, OBJECTS | REFERENCES)
    assert_rules(control_plane, service, neighbour, set())


def test_rights_of_shards(control_plane: Cluster, granted: Callable[..., KubeApi], namespace: str) -> None:
    service = granted(*value_set("shards"))
    key = "sharding.fluxcd.io/key"
    names = [lease_name(selector) for selector in (f"!{key}", f"{key}=a", f"{key}=big")]
    assert_rules(control_plane, service, namespace, OBJECTS | REFERENCES | leases(*names))


def policy(namespace: str, name: str = "web") -> Object:
    spec = {"imageRepositoryRef": {"name": "web"}, "policy": {"alphabetical": {}}}
    return {"apiVersion": IMAGE, "kind": "ImagePolicy", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def secret(namespace: str) -> Object:
    meta = {"name": "login", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"password": "hidden"}}


def refuse(what: str, action: Callable[[], Any]) -> None:
    """The server refuses for want of rights, and names what is missing."""
    with pytest.raises(ApiError) as refused:
        action()
    assert (refused.value.code, refused.value.reason) == (403, "Forbidden")
    assert f"cannot {what}" in refused.value.message


def test_the_service_can_do_its_work_and_nothing_else(
    control_plane: Cluster, granted: Callable[..., KubeApi], namespace: str, neighbour: str
) -> None:
    admin, service = control_plane.api, granted()
    for place in (namespace, neighbour):
        admin.create(policy(place))
        admin.create(secret(place))
        assert retry(lambda place=place: service.get(IMAGE, "ImagePolicy", "web", place))["spec"]["policy"] == {
            "alphabetical": {"order": "asc"}
        }
        status = {"status": {"observedGeneration": 1}}
        service.merge_patch(IMAGE, "ImagePolicy", "web", status, place, subresource="status")
        service.merge_patch(IMAGE, "ImagePolicy", "web", {"metadata": {"finalizers": ["finalizers.fluxcd.io"]}}, place)
        service.merge_patch(IMAGE, "ImagePolicy", "web", {"metadata": {"finalizers": []}}, place)
        assert service.get("v1", "Secret", "login", place)["data"] == {"password": "aGlkZGVu"}
        assert service.get("v1", "Namespace", place)["metadata"]["name"] == place
        service.create(event(place))
    assert {entry["metadata"]["namespace"] for entry in service.list(IMAGE, "ImagePolicy")} >= {namespace, neighbour}
    assert service.list("source.toolkit.fluxcd.io/v1", "GitRepository") is not None

    lease = {"apiVersion": LEASE, "kind": "Lease", "metadata": {"name": "imagebot-leader-election", "namespace": namespace}}
    service.create(lease)
    service.merge_patch(LEASE, "Lease", "imagebot-leader-election", {"spec": {"holderIdentity": "one"}}, namespace)
    other = {**lease, "metadata": {"name": "other", "namespace": namespace}}
    admin.create(other)
    refuse('patch resource "leases"', lambda: service.merge_patch(LEASE, "Lease", "other", {"spec": {}}, namespace))
    refuse('delete resource "leases"', lambda: service.delete(LEASE, "Lease", "imagebot-leader-election", namespace))
    abroad = {**lease, "metadata": {"name": "imagebot-leader-election", "namespace": neighbour}}
    refuse('create resource "leases"', lambda: service.create(abroad))

    for place in (namespace, neighbour):
        refuse('list resource "secrets"', lambda place=place: service.list("v1", "Secret", place))
        refuse('create resource "secrets"', lambda place=place: service.create(secret(place)))
        refuse('delete resource "imagepolicies"', lambda place=place: service.delete(IMAGE, "ImagePolicy", "web", place))
        refuse('create resource "imagepolicies"', lambda place=place: service.create(policy(place, "new")))
        refuse('list resource "pods"', lambda place=place: service.list("v1", "Pod", place))
        refuse('list resource "configmaps"', lambda place=place: service.list("v1", "ConfigMap", place))
        refuse('get resource "deployments"', lambda place=place: service.get("apps/v1", "Deployment", "imagebot", place))
        refuse('create resource "serviceaccounts/token"', lambda place=place: service.token(place, "default"))
    refuse('list resource "namespaces"', lambda: service.list("v1", "Namespace"))
    refuse('list resource "secrets"', lambda: service.list("v1", "Secret"))
    crds = "apiextensions.k8s.io/v1"
    refuse('list resource "customresourcedefinitions"', lambda: service.list(crds, "CustomResourceDefinition"))
    refuse('list resource "clusterroles"', lambda: service.list("rbac.authorization.k8s.io/v1", "ClusterRole"))


def event(namespace: str) -> Object:
    about = {"apiVersion": IMAGE, "kind": "ImagePolicy", "name": "web", "namespace": namespace}
    meta = {"name": "web.1", "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": meta,
        "involvedObject": about,
        "reason": "Succeeded",
        "message": "ok",
    }


def test_strict_mode_reads_and_writes_nothing_elsewhere(
    control_plane: Cluster, granted: Callable[..., KubeApi], namespace: str, neighbour: str
) -> None:
    admin, service = control_plane.api, granted("--set", "rbac.strict=true")
    for place in (namespace, neighbour):
        admin.create(policy(place))
        admin.create(secret(place))
    assert retry(lambda: service.get("v1", "Secret", "login", namespace))["data"] == {"password": "aGlkZGVu"}
    assert service.get("v1", "Namespace", namespace)["metadata"]["name"] == namespace
    service.merge_patch(IMAGE, "ImagePolicy", "web", {"status": {"observedGeneration": 1}}, namespace, subresource="status")
    assert len(service.list(IMAGE, "ImagePolicy", namespace)) == 1

    refuse('get resource "secrets"', lambda: service.get("v1", "Secret", "login", neighbour))
    refuse('get resource "namespaces"', lambda: service.get("v1", "Namespace", neighbour))
    refuse('get resource "imagepolicies"', lambda: service.get(IMAGE, "ImagePolicy", "web", neighbour))
    refuse('list resource "imagepolicies"', lambda: service.list(IMAGE, "ImagePolicy"))
    refuse('create resource "events"', lambda: service.create(event(neighbour)))
    patch = {"metadata": {"labels": {"a": "b"}}}
    refuse('patch resource "imagepolicies"', lambda: service.merge_patch(IMAGE, "ImagePolicy", "web", patch, neighbour))
    status = {"status": {"observedGeneration": 1}}
    refuse(
        'patch resource "imagepolicies/status"',
        lambda: service.merge_patch(IMAGE, "ImagePolicy", "web", status, neighbour, subresource="status"),
    )
    refuse('create resource "serviceaccounts/token"', lambda: service.token(namespace, "default"))


def test_people_with_the_role_edit_may_change_image_objects_and_those_with_view_may_see_them(
    control_plane: Cluster, granted: Callable[..., KubeApi], namespace: str
) -> None:
    admin = control_plane.api
    granted()
    rbac = "rbac.authorization.k8s.io"
    for role in ("edit", "view"):
        meta = {"name": role, "namespace": namespace}
        admin.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        subjects = [{"kind": "ServiceAccount", "name": role, "namespace": namespace}]
        ref = {"apiGroup": rbac, "kind": "ClusterRole", "name": role}
        admin.create({"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": meta, "subjects": subjects, "roleRef": ref})
    with (
        control_plane.as_service_account(namespace, "edit") as editor,
        control_plane.as_service_account(namespace, "view") as viewer,
    ):
        retry(lambda: editor.create(policy(namespace)))
        assert [entry["metadata"]["name"] for entry in retry(lambda: viewer.list(IMAGE, "ImagePolicy", namespace))] == ["web"]
        refuse('delete resource "imagepolicies"', lambda: viewer.delete(IMAGE, "ImagePolicy", "web", namespace))
        editor.delete(IMAGE, "ImagePolicy", "web", namespace)


def test_kubeconfig_of_the_service_works_with_kubectl(
    control_plane: Cluster, granted: Callable[..., KubeApi], namespace: str, tmp_path: Path
) -> None:
    granted()
    config = control_plane.service_account_kubeconfig(namespace, "imagebot", tmp_path / "kubeconfig")

    def can(*words: str) -> str:
        return control_plane.kubectl("auth", "can-i", *words, kubeconfig=config, check=False).stdout.strip()

    assert can("list", "imagepolicies.image.toolkit.fluxcd.io", "-A") == "yes"
    assert can("list", "secrets", "-A") == "no"
