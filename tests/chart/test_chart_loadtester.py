"""The load tester of the chart: off by default, found by its own Service alone, and with no right but to look at releases."""

from __future__ import annotations

from typing import Any

import pytest

from canary.loadtester.command import loadtester
from tests.support.chart import NAMESPACE, Helm, container, of_kind, value_set

ON = ("--set", "loadtester.enabled=true")


def only(objects: list[Any], kind: str) -> Any:
    (found,) = [o for o in of_kind(objects, kind) if o["metadata"]["labels"].get("app.kubernetes.io/component") == "loadtester"]
    return found


def test_it_is_off_by_default(helm: Helm) -> None:
    assert "loadtester" not in helm.template()


@pytest.mark.parametrize("name", ["default", "canary", "everything", "shards", "strict"])
def test_services_and_policies_find_only_their_own_pods(helm: Helm, name: str) -> None:
    objects = helm.objects(*value_set(name), *ON)
    pod = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for kind in ("Service", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor"):
        for found in of_kind(objects, kind):
            spec = found["spec"]
            chosen = spec.get("podSelector", spec.get("selector"))
            labels = chosen.get("matchLabels", chosen)
            assert (labels.items() <= pod.items()) is (found["metadata"]["name"] == "flagger-loadtester")
    for other in of_kind(objects, "Deployment"):
        if other is not only(objects, "Deployment"):
            service = only(objects, "Service")["spec"]["selector"]
            assert not service.items() <= other["spec"]["template"]["metadata"]["labels"].items()


def test_it_answers_where_webhooks_of_flagger_call(helm: Helm) -> None:
    objects = helm.objects(*ON, "--set", "loadtester.namespace=test")
    service = only(objects, "Service")
    assert (service["metadata"]["name"], service["metadata"]["namespace"]) == ("flagger-loadtester", "test")
    assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [(80, "http")]
    manager = container(only(objects, "Deployment"))
    assert [(port["name"], port["containerPort"]) for port in manager["ports"]] == [("http", 8080)]


def test_the_program_takes_the_arguments(helm: Helm) -> None:
    values = ["namespaceRegexp=^prod-", "existingClaim=gates", "tokenSecret=gates", "extraArgs={--enable-helm}", "timeout=30m"]
    objects = helm.objects(*ON, *[part for value in values for part in ("--set", f"loadtester.{value}")])
    manager = container(only(objects, "Deployment"))
    command, *arguments = manager["args"]
    assert command == loadtester.name
    options = loadtester.make_context("loadtester", list(arguments)).params
    assert (options["port"], options["timeout"], options["namespace_regexp"]) == (8080, 1800.0, "^prod-")
    assert (str(options["state"]), str(options["token_file"])) == ("/data/gates.json", "/token/token")
    assert (options["enable_helm"], options["enable_shell"]) == (True, False)
    assert {mount["mountPath"] for mount in manager["volumeMounts"]} == {"/tmp", "/data", "/token"}
    plain = container(only(helm.objects(*ON), "Deployment"))
    assert {mount["mountPath"] for mount in plain["volumeMounts"]} == {"/tmp"}
    assert not loadtester.make_context("loadtester", plain["args"][1:]).params["state"]


def test_its_pod_can_do_no_more_than_it_needs(helm: Helm) -> None:
    deployment = only(helm.objects(*ON), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert deployment["spec"]["replicas"] == 1
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container(deployment)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_its_rights_are_to_read_releases_by_name(helm: Helm) -> None:
    objects = helm.objects(*ON)
    role, binding = only(objects, "ClusterRole"), only(objects, "ClusterRoleBinding")
    assert [(rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in role["rules"]] == [
        (["helm.toolkit.fluxcd.io"], ["helmreleases"], ["get"]),
        (["kustomize.toolkit.fluxcd.io"], ["kustomizations"], ["get"]),
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "flagger-loadtester", "namespace": NAMESPACE}]
    assert only(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    assert only(objects, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True


def test_without_releases_it_has_no_rights_and_no_token(helm: Helm) -> None:
    objects = helm.objects(*ON, "--set", "loadtester.releases=false")
    assert only(objects, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    subjects = [s["name"] for o in objects if o["kind"].endswith("Binding") for s in o["subjects"]]
    assert "flagger-loadtester" not in subjects


def test_strictly_it_reads_only_the_namespace_of_the_release(helm: Helm) -> None:
    objects = helm.objects(*value_set("strict"), *ON)
    assert only(objects, "Role")["metadata"]["namespace"] == only(objects, "RoleBinding")["metadata"]["namespace"] == NAMESPACE
    assert of_kind(objects, "ClusterRole") == []


def test_only_the_operator_and_who_is_named_may_call(helm: Helm) -> None:
    objects = helm.objects(*ON, "--set", "loadtester.from[0].podSelector.matchLabels.app=ci")
    (rule,) = only(objects, "NetworkPolicy")["spec"]["ingress"]
    operator, ci = rule["from"]
    (service,) = [d for d in of_kind(objects, "Deployment") if d is not only(objects, "Deployment")]
    pod = service["spec"]["template"]["metadata"]["labels"]
    assert operator["podSelector"]["matchLabels"].items() <= pod.items()
    assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": NAMESPACE}
    assert ci == {"podSelector": {"matchLabels": {"app": "ci"}}}
