"""What the chart renders, for every set of values in helm/ci."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from canary.options import settings_from, workers
from canary.settings import CanarySettings
from imagebot.hints.passing import POD_IP
from reconcile.app import load_packages
from reconcile.cli.gitops_flags import apply_settings, storage_settings
from reconcile.cli.service import run
from reconcile.cluster import lease_name
from reconcile.settings import ApplySettings, StorageSettings
from tests.support.chart import CHART, NAMESPACE, RIGHTS, VALUE_SETS, Helm, Object, Refused, container, of_kind, value_set
from tests.support.controlplane_build import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden" / "chart" / "default.yaml"

RIGHTS_OF_ALL = "ClusterRole=3 ClusterRoleBinding=1"
KINDS = {
    "default": f"{RIGHTS_OF_ALL} Deployment=1 NetworkPolicy=1 PodDisruptionBudget=1 "
    "Role=1 RoleBinding=1 Service=1 ServiceAccount=1",
    "ha": f"{RIGHTS_OF_ALL} ConfigMap=1 Deployment=1 NetworkPolicy=1 PodDisruptionBudget=1 PodMonitor=1 PrometheusRule=2 "
    "Role=1 RoleBinding=1 Service=1 ServiceAccount=1",
    "shards": f"{RIGHTS_OF_ALL} Deployment=3 NetworkPolicy=1 PodDisruptionBudget=3 PodMonitor=1 PrometheusRule=2 "
    "Role=1 RoleBinding=1 Service=1 ServiceAccount=1",
    "canary": f"{RIGHTS_OF_ALL} Deployment=1 NetworkPolicy=1 PodDisruptionBudget=1 "
    "Role=1 RoleBinding=1 Service=1 ServiceAccount=1",
    "gitops": "ClusterRole=3 ClusterRoleBinding=2 Deployment=1 NetworkPolicy=1 PodDisruptionBudget=1 "
    "Role=1 RoleBinding=1 Service=2 ServiceAccount=1",
    "tenants": f"{RIGHTS_OF_ALL} Deployment=1 NetworkPolicy=1 Role=1 RoleBinding=1 Service=2 ServiceAccount=1",
    "strict": "Deployment=1 NetworkPolicy=1 PodDisruptionBudget=1 Role=2 RoleBinding=2 Service=1 ServiceAccount=1",
    "minimal": "ClusterRole=1 ClusterRoleBinding=1 Deployment=1 ServiceAccount=1",
    "everything": "ClusterRole=2 ConfigMap=3 Deployment=2 NetworkPolicy=1 PersistentVolumeClaim=2 PodMonitor=1 PrometheusRule=2 "
    "Role=2 RoleBinding=2 Service=5 ServiceAccount=1",
}
"""How many objects of which kind each set makes."""

every_set = pytest.mark.parametrize("name", VALUE_SETS)


@every_set
def test_lint_finds_nothing(helm: Helm, name: str) -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm.run("lint", "--strict", str(CHART), *value_set(name))


@every_set
def test_objects_of_each_set(helm: Helm, name: str) -> None:
    objects = helm.objects(*value_set(name))
    assert " ".join(f"{kind}={count}" for kind, count in sorted(Counter(o["kind"] for o in objects).items())) == KINDS[name]
    identities = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
    assert len(set(identities)) == len(identities)


def test_default_rendering_is_the_recorded_one(helm: Helm) -> None:
    text = helm.template(*value_set("default"))
    if os.environ.get("IMAGEBOT_WRITE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "IMAGEBOT_WRITE_GOLDEN=1 records it anew"
    assert text == helm.template()


@every_set
def test_deployments_are_as_the_flux_commands_want_them(helm: Helm, name: str) -> None:
    objects = helm.objects(*value_set(name))
    for deployment in of_kind(objects, "Deployment"):
        labels, spec = deployment["metadata"]["labels"], deployment["spec"]
        pod = spec["template"]["metadata"]["labels"]
        assert (
            labels["app.kubernetes.io/part-of"]
            == pod["app.kubernetes.io/part-of"]
            == ("delivery" if name == "everything" else "flux")
        )
        assert spec["selector"]["matchLabels"].items() <= pod.items()
        assert container(deployment)["name"] == "manager"
        # Without a tag, if only beside a digest, `flux version` fails.
        assert ":" in container(deployment)["image"].rpartition("/")[2].partition("@")[0]
        # Kustomizations that are written for Flux patch arguments by their place.
        arguments = container(deployment)["args"]
        assert arguments[0] == "run"
        assert [a.partition("=")[0] for a in arguments[1:4]] == [
            "--events-addr",
            "--watch-all-namespaces",
            "--log-level",
        ]


@every_set
def test_the_program_takes_the_arguments(helm: Helm, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "packaged", tuple(load_packages().run_options))
    for deployment in of_kind(helm.objects(*value_set(name)), "Deployment"):
        command, *arguments = container(deployment)["args"]
        assert command == run.name
        options = run.make_context("run", list(arguments)).params
        assert options["directory"] is None
        assert (options["metrics_addr"], options["health_addr"], options["storage_path"]) == (":8080", ":9440", "/data")
        assert options["watch_all_namespaces"] is (name not in {"strict", "everything"})
        assert options["enable_leader_election"] is (name != "minimal")
        names = [argument.partition("=")[0] for argument in arguments if not argument.startswith("--override-manager=")]
        assert len(names) == len(set(names))
        assert options["kube_api_qps"] == (12.5 if name == "everything" else 100)
        assert options["kube_api_burst"] == (25 if name == "everything" else 500)


@every_set
def test_pods_can_do_no_more_than_they_need(helm: Helm, name: str) -> None:
    objects = helm.objects(*value_set(name))
    for deployment in of_kind(objects, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container(deployment)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert {m["mountPath"] for m in container(deployment)["volumeMounts"] if not m.get("readOnly")} == {"/data", "/tmp"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod)
    for account in of_kind(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@every_set
def test_selectors_find_the_pods_they_are_for(helm: Helm, name: str) -> None:
    objects = helm.objects(*value_set(name))
    pods = {d["metadata"]["name"]: d["spec"]["template"]["metadata"]["labels"] for d in of_kind(objects, "Deployment")}

    def found(labels: dict[str, str]) -> set[str]:
        return {pod for pod, own in pods.items() if labels.items() <= own.items()}

    for deployment in of_kind(objects, "Deployment"):
        own = {deployment["metadata"]["name"]}
        assert found(deployment["spec"]["selector"]["matchLabels"]) == own
        if name != "everything":  # which spreads by a label of its own
            spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
            assert [found(entry["labelSelector"]["matchLabels"]) for entry in spread] == [own] * len(spread)
    for budget in of_kind(objects, "PodDisruptionBudget"):
        assert found(budget["spec"]["selector"]["matchLabels"]) == {budget["metadata"]["name"]}
    for service in of_kind(objects, "Service"):
        own = service["metadata"]["name"].removesuffix("-artifacts").removesuffix("-hints")
        selected = found(service["spec"]["selector"])
        assert selected == ({own} if own != service["metadata"]["name"] else set(pods))
    for policy in of_kind(objects, "NetworkPolicy"):
        assert found(policy["spec"]["podSelector"]["matchLabels"]) == set(pods)
    for monitor in of_kind(objects, "PodMonitor"):
        assert found(monitor["spec"]["selector"]["matchLabels"]) == set(pods)


@every_set
def test_lease_role_names_the_leases_of_the_service(helm: Helm, name: str) -> None:
    objects = helm.objects(*value_set(name))
    expected = []
    for deployment in of_kind(objects, "Deployment"):
        arguments = dict(a.partition("=")[::2] for a in container(deployment)["args"])
        selector = arguments.get("--watch-label-selector", "")
        if "--enable-leader-election" in arguments:
            expected.append(lease_name(selector))
    rules = [rule for role in of_kind(objects, "Role") for rule in role["rules"] if "leases" in rule["resources"]]
    assert [rule.get("resourceNames") for rule in rules] == ([None, expected] if expected else [])
    assert [rule["verbs"] for rule in rules] == ([["create"], ["get", "patch", "update"]] if expected else [])
    alerts = [r for o in of_kind(objects, "PrometheusRule") for g in o["spec"]["groups"] for r in g["rules"]]
    leaders = [alert["expr"] for alert in alerts if alert["alert"] == "ImagebotNoLeader"]
    assert len(leaders) == (len(expected) if alerts else 0)
    assert all(f'name="{lease}"' in expr for lease, expr in zip(expected, leaders, strict=False))


def test_shards_divide_the_objects_without_rest(helm: Helm) -> None:
    arguments = [container(d)["args"] for d in of_kind(helm.objects(*value_set("shards")), "Deployment")]
    chosen = [a.partition("=")[2] for own in arguments for a in own if a.startswith("--watch-label-selector=")]
    assert chosen == ["!sharding.fluxcd.io/key", "sharding.fluxcd.io/key=a", "sharding.fluxcd.io/key=big"]


def test_strict_makes_nothing_outside_the_namespace_of_the_release(helm: Helm) -> None:
    objects = helm.objects(*value_set("strict"))
    assert {o["metadata"].get("namespace") for o in objects} == {NAMESPACE}
    assert {o["kind"] for o in objects if o["kind"] in RIGHTS} == {"ServiceAccount", "Role", "RoleBinding"}
    (deployment,) = of_kind(objects, "Deployment")
    assert "--watch-all-namespaces=false" in container(deployment)["args"]
    subjects = [subject for binding in of_kind(objects, "RoleBinding") for subject in binding["subjects"]]
    assert subjects == [{"kind": "ServiceAccount", "name": "imagebot", "namespace": NAMESPACE}] * 2


@pytest.mark.parametrize("secret", ["", "chats"])
def test_chats_are_named_by_the_secret_s_keys_alone(helm: Helm, secret: str) -> None:
    values = ("--set", f"controllers={{image,canary}},canary.secret={secret}")
    (deployment,) = of_kind(helm.objects(*values), "Deployment")
    found = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container(deployment)["env"][1:]}
    names = ["EVENT_WEBHOOK_URL", "SLACK_URL", "SLACK_TOKEN", "SLACK_PROXY_URL", "MSTEAMS_URL", "MSTEAMS_PROXY_URL"]
    assert found == {name: {"name": "chats", "key": name, "optional": True} for name in names if secret}
    known = {option.envvar for option in load_packages().run_options}
    assert set(names) <= known


def test_canary_options_are_given_when_it_runs(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "packaged", tuple(load_packages().run_options))
    deployments = of_kind(helm.objects(*value_set("everything")), "Deployment")
    for deployment in deployments:
        context = run.make_context("run", container(deployment)["args"][1:])
        settings = settings_from(run.values(context.params))
        assert settings == CanarySettings(
            mesh_provider="gatewayapi:v1",
            metrics_server="https://prometheus.monitoring:9090",
            selector_labels=("service",),
            include_label_prefix=("team", "example.com/"),
            enable_config_tracking=False,
            ingress_annotations_prefix="ingress.example.com",
            ingress_class="contour",
            cluster_name="east one",
            event_webhook="http://events.example.com/canary",
            slack_user="ship's cat",
            slack_channel="#releases",
        )
        assert workers(run.values(context.params)) == 4
    assert not [a for a in container(of_kind(helm.objects(), "Deployment")[0])["args"] if "mesh-provider" in a]


def test_image_automation_never_lists_secrets_and_creates_nothing_but_events_holds_and_leases(helm: Helm) -> None:
    seen: Counter[str] = Counter()
    for name in VALUE_SETS:
        objects = helm.objects(*value_set(name), "--set", "controllers={image}")
        roles = [o for o in objects if o["kind"] in {"Role", "ClusterRole"}]
        own = [role for role in roles if not any("aggregate-to" in label for label in role["metadata"]["labels"])]
        for rule in (rule for role in own for rule in role["rules"]):
            assert not {"*"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not {"deletecollection", "escalate", "bind", "impersonate"} & set(rule["verbs"])
            assert "delete" not in rule["verbs"] or rule["resources"] == ["imageholds"]
            if "secrets" in rule["resources"]:
                assert rule["verbs"] == ["get"]
            if "create" in rule["verbs"]:
                seen.update(rule["resources"])
    assert seen == {"events": 9, "imageholds": 9, "leases": 8}


def test_only_copies_holds_and_the_skipper_ingress_may_be_deleted(helm: Helm) -> None:
    both = (*value_set("everything"), "--set", "controllers={image,canary}")
    for values in (("--set", "controllers={canary}"), both):
        roles = [o for o in helm.objects(*values) if o["kind"] in {"Role", "ClusterRole"}]
        own = [role for role in roles if not any("aggregate-to" in label for label in role["metadata"]["labels"])]
        rules = [rule for role in own for rule in role["rules"]]
        for rule in rules:
            assert not {"*"} & {*rule["apiGroups"], *rule["verbs"]}
            # The resources of this group are the names of metrics.
            assert "*" not in rule["resources"] or rule["apiGroups"] == ["external.metrics.k8s.io"]
            assert not {"deletecollection", "escalate", "bind", "impersonate"} & set(rule["verbs"])
        deleted = {resource for rule in rules if "delete" in rule["verbs"] for resource in rule["resources"]}
        tracked = {"configmaps", "secrets"} if values[0] == "--set" else set()
        holds = set() if values[0] == "--set" else {"imageholds"}
        assert deleted == {"ingresses", "analyses"} | tracked | holds
        listed = {resource for rule in rules if "list" in rule["verbs"] for resource in rule["resources"]}
        assert listed & {"configmaps", "secrets"} == tracked


def test_options_of_sources_and_kustomizations_are_given_when_they_run(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "packaged", tuple(load_packages().run_options))
    deployments = of_kind(helm.objects(*value_set("everything")), "Deployment")
    for deployment in deployments:
        options = run.make_context("run", container(deployment)["args"][1:]).params
        name = deployment["metadata"]["name"]
        assert storage_settings(options) == StorageSettings(
            address=":9090",
            advertised=f"{name}-artifacts.{NAMESPACE}.svc.cluster.local.",
            retention_ttl=3600.0,
            retention_records=5,
            digest="sha512",
        )
        assert apply_settings(options) == ApplySettings(
            default_service_account="deployer",
            override_managers=("kubectl-edit", "old tool"),
            custom_stages=("example.com/Tenant", "/Secret"),
            sops_age_secret="age",
            watch_configs="team=web",
        )
    assert len(deployments) == 2
    plain = container(of_kind(helm.objects(), "Deployment")[0])
    assert [a for a in plain["args"] if "artifact" in a or "storage-a" in a or "configs" in a] == []
    assert [port["name"] for port in plain["ports"]] == ["http-prom", "healthz"]


def test_artifacts_are_fetched_from_who_has_them(helm: Helm) -> None:
    """Only the leader has them: a Service that finds several pods would lead to others, too."""
    for replicas, address in ((1, f"imagebot-artifacts.{NAMESPACE}.svc.cluster.local."), (2, "$(POD_IP):9090")):
        objects = helm.objects(*value_set("gitops"), "--set", f"replicas={replicas}")
        (deployment,) = of_kind(objects, "Deployment")
        assert f"--storage-adv-addr={address}" in container(deployment)["args"]
        fields = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container(deployment)["env"]}
        assert fields.get("POD_IP") == ("status.podIP" if replicas == 2 else None)
        services = {o["metadata"]["name"]: o["spec"]["ports"] for o in of_kind(objects, "Service")}
        (port,) = services["imagebot-artifacts"]
        assert (port["port"], port["targetPort"]) == (80, "artifacts")
        assert {"name": "artifacts", "containerPort": 9090, "protocol": "TCP"} in container(deployment)["ports"]
        (policy,) = of_kind(objects, "NetworkPolicy")
        doors = [[p["port"] for p in rule["ports"]] for rule in policy["spec"]["ingress"]]
        assert doors == [["http-prom"], ["artifacts"], ["healthz"]]


@pytest.mark.parametrize("sender", [None, {"ipBlock": {"cidr": "10.0.0.0/8"}}])
def test_pods_that_stand_by_may_pass_hints_on(helm: Helm, sender: Object | None) -> None:
    values = ["--set", "hints.enabled=true,networkPolicy.egress.restrict=true"]
    values += ["--set-json", f"hints.from={json.dumps([sender])}"] if sender else []
    objects = helm.objects(*values)
    (deployment,) = of_kind(objects, "Deployment")
    fields = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container(deployment)["env"]}
    assert fields[POD_IP] == "status.podIP"
    assert {"name": "hints", "containerPort": 9292, "protocol": "TCP"} in container(deployment)["ports"]
    (policy,) = of_kind(objects, "NetworkPolicy")
    ports = [{"port": "hints", "protocol": "TCP"}]
    (door,) = [rule for rule in policy["spec"]["ingress"] if rule["ports"] == ports]
    (way,) = [rule for rule in policy["spec"]["egress"] if rule["ports"] == ports]
    ours = {"podSelector": policy["spec"]["podSelector"]}
    assert way["to"] == [ours]
    assert door.get("from") == ([sender, ours] if sender else None)
    assert POD_IP not in str(helm.objects())


def bound(objects: list[Object], role: str) -> list[tuple[str, str | None]]:
    """The bindings of a role: kind and namespace of each."""
    bindings = [o for o in objects if o["kind"] in {"ClusterRoleBinding", "RoleBinding"} and o["roleRef"]["name"] == role]
    return [(binding["kind"], binding["metadata"].get("namespace")) for binding in bindings]


def verbs(objects: list[Object], group: str, resource: str) -> set[str]:
    """What the service's own roles allow."""
    roles = [o for o in objects if o["kind"] in {"Role", "ClusterRole"}]
    own = [role for role in roles if not any("aggregate-to" in label for label in role["metadata"]["labels"])]
    rules = [rule for role in own for rule in role["rules"]]
    return {verb for rule in rules if group in rule["apiGroups"] and resource in rule["resources"] for verb in rule["verbs"]}


def test_kustomizations_are_applied_with_all_rights_unless_that_is_switched_off(helm: Helm) -> None:
    everywhere = helm.objects(*value_set("gitops"))
    assert bound(everywhere, "cluster-admin") == [("ClusterRoleBinding", None)]
    assert verbs(everywhere, "", "serviceaccounts") == {"get"}
    here = helm.objects(*value_set("gitops"), "--set", "watchAllNamespaces=false")
    assert bound(here, "cluster-admin") == [("RoleBinding", NAMESPACE)]
    strict = helm.objects(*value_set("gitops"), "--set", "rbac.strict=true")
    assert (bound(strict, "cluster-admin"), bound(strict, "admin")) == ([], [("RoleBinding", NAMESPACE)])
    tenants = helm.objects(*value_set("tenants"))
    assert (bound(tenants, "cluster-admin"), bound(tenants, "admin")) == ([], [])
    assert verbs(tenants, "", "serviceaccounts") == {"get", "impersonate"}
    for controllers in ("image", "canary", "source"):
        objects = helm.objects("--set", f"controllers={{{controllers}}}")
        assert bound(objects, "cluster-admin") == []
        assert "impersonate" not in verbs(objects, "", "serviceaccounts")


@pytest.mark.parametrize(
    ("values", "given"),
    [
        ("clusterAdmin=true", False),
        ("clusterAdmin=false", True),
        ("clusterAdmin=true,kustomize.defaultServiceAccount=deployer", True),
    ],
)
def test_editors_of_a_namespace_get_no_rights_through_kustomizations(helm: Helm, values: str, given: bool) -> None:
    objects = helm.objects("--set", f"controllers={{kustomize}},kustomize.{values}")
    edit = [o["rules"] for o in of_kind(objects, "ClusterRole") if o["metadata"]["name"].endswith("-edit")]
    assert [[rule["resources"] for rule in rules] for rules in edit] == ([[["kustomizations"]]] if given else [])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("replicas=two", "at '/replicas': got string, want integer"),
        ("replicas=-1", "at '/replicas': minimum: got -1, want 0"),
        ("replica=3", "additional properties 'replica' not allowed"),
        ("image.sha=x", "at '/image': additional properties 'sha' not allowed"),
        ("image.digest=sha256:12", "at '/image/digest': 'sha256:12' does not match pattern"),
        ("image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'"),
        ("logLevel=loud", "at '/logLevel': value must be one of"),
        ("leaderElection.leaseDuration=35", "at '/leaderElection/leaseDuration': "),
        ("featureGates.GitMagic=true", "GitMagic"),
        ("featureGates.GitShallowClone=maybe", "at '/featureGates/GitShallowClone': got string, want boolean"),
        ("eventsAddr=notification-controller", "at '/eventsAddr': "),
        ("controllers[0]=toaster", "at '/controllers/0': value must be"),
        ("shards[0].key=Big", "at '/shards/0/key': "),
        ("shards[0].name=a", "missing property 'key'"),
        ("networkPolicy.egress.ports[0]=70000", "at '/networkPolicy/egress/ports/0': maximum: got 70,000, want 65,535"),
        ("source.artifactDigest=md5", "at '/source/artifactDigest': value must be one of"),
        ("source.artifactRecords=0", "at '/source/artifactRecords': minimum: got 0, want 1"),
        ("kustomize.applyStageKinds[0]=Tenant", "at '/kustomize/applyStageKinds/0': "),
        ("storage.tmpLimit=lots", "at '/storage/tmpLimit': "),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm: Helm, values: str, message: str) -> None:
    with pytest.raises(Refused) as refused:
        helm.template("--set", values)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("leaderElection.enabled=false", "leaderElection.enabled is false, and imagebot has 2 replicas: all of them would write"),
        ("storage.persistence.enabled=true", "storage.persistence.enabled needs replicas: 1"),
        ("caBundle.configMap=a,caBundle.secret=b", "caBundle: either configMap or secret, not both"),
        ("shards[0].key=a,shards[1].key=a", "shards: the key of imagebot-a is there twice"),
        ("serviceAccount.create=false", "serviceAccount.name must name the ServiceAccount that is there"),
        ("extraArgs[0]=--watch-label-selector=a=b", "extraArgs: --watch-label-selector=a=b is set by the chart"),
        ("extraArgs[0]=--storage-adv-addr=here", "extraArgs: --storage-adv-addr=here is set by the chart"),
    ],
)
def test_contradictions_are_refused_with_a_reason(helm: Helm, values: str, message: str) -> None:
    with pytest.raises(Refused) as refused:
        helm.template("--set", values)
    assert message in str(refused.value)


def test_the_packaged_chart_renders_the_same_and_brings_the_crds(helm: Helm, tmp_path: Path) -> None:
    helm.run("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.iterdir()
    shown = helm.run("show", "all", str(package))
    assert "kind: CustomResourceDefinition" in shown
    assert helm.template("--values", str(CHART / "ci" / "default.yaml")) == helm.run(
        "template", "imagebot", str(package), "--namespace", NAMESPACE
    )
