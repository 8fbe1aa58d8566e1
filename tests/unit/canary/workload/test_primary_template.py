"""The primary's pod template: names, labels, references and spreading."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary.settings import CanarySettings
from canary.workload.podtemplate import (
    config_uses,
    copied,
    flagger_id,
    included,
    primary_labels,
    primary_template,
    unmarked,
)
from tests.support.canary_workloads import deployment, pod_spec, site_of

POD: dict[str, Any] = {
    "imagePullSecrets": [{"name": "pull"}],
    "initContainers": [{"name": "init", "envFrom": [{"secretRef": {"name": "keys", "optional": True}}]}],
    "containers": [
        {
            "name": "app",
            "envFrom": [{"configMapRef": {"name": "settings"}}],
            "env": [
                {"name": "PLAIN", "value": "1"},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a", "optional": True}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "b"}}},
            ],
        }
    ],
    "volumes": [
        {"name": "a", "configMap": {"name": "files"}},
        {"name": "b", "secret": {"secretName": "certs"}},
        {
            "name": "c",
            "projected": {"sources": [{"secret": {"name": "keys"}}, {"configMap": {"name": "files"}}, {"downwardAPI": {}}]},
        },
        {"name": "d", "emptyDir": {}},
    ],
}


def names(pod: Any) -> list[tuple[str, bool]]:
    return [(use.key, use.optional) for use in config_uses(pod)]


def test_every_place_that_names_configuration_is_found() -> None:
    assert names(POD) == [
        ("configmap/files", False),
        ("secret/certs", False),
        ("secret/keys", False),
        ("configmap/files", False),
        ("secret/keys", True),
        ("configmap/settings", True),
        ("secret/keys", False),
        ("configmap/settings", False),
    ]


@pytest.mark.parametrize("pod", [{}, {"volumes": None, "containers": None}, {"volumes": [{"secret": {}}, {"projected": None}]}])
def test_sparse_pods_name_none(pod: Any) -> None:
    assert names(pod) == []


def test_what_is_tracked_is_renamed_and_nothing_else() -> None:
    template = {"metadata": {}, "spec": deepcopy(POD)}
    made = primary_template(template, site_of(), {"configmap/settings", "secret/keys"}, "mark", spread=True)
    assert [key for key, _ in names(made["spec"])] == [
        "configmap/files",
        "secret/certs",
        "secret/keys-primary",
        "configmap/files",
        "secret/keys-primary",
        "configmap/settings-primary",
        "secret/keys-primary",
        "configmap/settings-primary",
    ]
    assert made["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert template["spec"] == POD


def test_labels_and_annotations() -> None:
    meta = {
        "labels": {"app": "web", "tier": "1", "kustomize.toolkit.fluxcd.io/name": "apps"},
        "annotations": {"note": "1", "flagger-id": "theirs", "helm.toolkit.fluxcd.io/x": "y"},
    }
    made = primary_template({"metadata": meta, "spec": pod_spec()}, site_of(), (), "mark", spread=True)
    assert made["metadata"] == {"labels": {"app": "web-primary", "tier": "1"}, "annotations": {"note": "1", "flagger-id": "mark"}}
    assert unmarked(made)["metadata"]["annotations"] == {"note": "1"}


def selector(value: str, key: str = "app") -> dict[str, Any]:
    return {"matchLabels": {key: value}, "matchExpressions": [{"key": key, "operator": "In", "values": ["x", value, value]}]}


def spreading(value: str, key: str = "app") -> dict[str, Any]:
    return {
        "topologySpreadConstraints": [{"labelSelector": selector(value, key)}, {"topologyKey": "zone"}],
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}},
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": selector(value, key)}]},
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": selector(value, key)}],
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": {"labelSelector": selector(value, key)}}
                ],
            },
        },
    }


def test_spreading_that_means_the_target_means_the_primary() -> None:
    made = primary_template({"spec": pod_spec(**spreading("web"))}, site_of(), (), "", spread=True)["spec"]
    wanted = {"matchLabels": {"app": "web-primary"}}
    wanted["matchExpressions"] = [{"key": "app", "operator": "In", "values": ["x", "web-primary", "web"]}]  # type: ignore[assignment]
    affinity = made["affinity"]
    assert made["topologySpreadConstraints"] == [{"labelSelector": wanted}, {"topologyKey": "zone"}]
    assert affinity["podAntiAffinity"] == {
        "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": wanted}],
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {"labelSelector": wanted}}],
    }
    assert affinity["podAffinity"] == spreading("web")["affinity"]["podAffinity"]


@pytest.mark.parametrize(("value", "key", "spread"), [("other", "app", True), ("web", "tier", True), ("web", "app", False)])
def test_other_spreading_stays(value: str, key: str, spread: bool) -> None:
    pod = pod_spec(**spreading(value, key))
    assert primary_template({"spec": pod}, site_of(), (), "", spread=spread)["spec"] == pod


@pytest.mark.parametrize(
    ("prefixes", "taken"),
    [
        ((), set()),
        (("",), set()),
        (("*",), {"app", "app.kubernetes.io/name", "team"}),
        (("app.kubernetes.io",), {"app.kubernetes.io/name"}),
        (("te", "toolkit", "kustomize"), {"team"}),
    ],
)
def test_prefixes_choose_what_the_primary_takes_over(prefixes: tuple[str, ...], taken: set[str]) -> None:
    labels = {"app": "web", "app.kubernetes.io/name": "web", "team": "blue", "kustomize.toolkit.fluxcd.io/name": "apps"}
    assert included(labels, prefixes).keys() == taken
    found = {"metadata": {"labels": labels}}
    site = site_of(settings=CanarySettings(include_label_prefix=prefixes))
    assert primary_labels(found, site) == {**{name: labels[name] for name in taken}, "app": "web-primary"}


def test_a_copy_has_no_annotations_that_describe_the_original() -> None:
    annotations = {
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "deployment.kubernetes.io/revision": "7",
        "kustomize.toolkit.fluxcd.io/prune": "disabled",
        "note": "1",
    }
    assert copied(annotations) == {"note": "1"}


def test_the_mark_moves_with_template_and_configuration_only() -> None:
    base = flagger_id("456789bcdf45", {"configmap/a": "1"})
    assert flagger_id("456789bcdf45", {"configmap/a": "1"}) == base
    assert len({base, flagger_id("456789bcdf46", {"configmap/a": "1"}), flagger_id("456789bcdf45", {"configmap/a": "2"})}) == 3


NAMES = st.sampled_from(["a", "b", "c", "a-primary"])
KINDS = st.sampled_from([("configMapRef", "configmap"), ("secretRef", "secret")])
USES = st.lists(st.tuples(KINDS, NAMES), max_size=6)


@settings(max_examples=60)
@given(USES, st.sets(st.sampled_from(["configmap/a", "configmap/b", "secret/a", "secret/c"])))
def test_names_get_one_suffix_however_often_it_is_done(uses: list[tuple[tuple[str, str], str]], tracked: set[str]) -> None:
    env = [{part: {"name": name}} for (part, _), name in uses]
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "envFrom": env}]}}
    once = primary_template(template, site_of(), tracked, "m", spread=True)
    wanted = [name + "-primary" if f"{kind}/{name}" in tracked else name for (_, kind), name in uses]
    assert [use.name for use in config_uses(once["spec"])] == wanted
    assert primary_template(once, site_of(), tracked, "m", spread=True) == once


LABELS = st.dictionaries(
    st.sampled_from(["app", "name", "app.kubernetes.io/name", "tier"]),
    st.sampled_from(["web", "web-primary", "front"]),
    min_size=1,
)


@settings(max_examples=60)
@given(LABELS, st.sampled_from(["app", "name"]), st.sampled_from(["web", "web-primary", "front"]))
def test_the_primary_never_selects_pods_of_the_canary(labels: dict[str, str], label: str, value: str) -> None:
    site = site_of(label=label, value=value)
    template = deployment(labels={**labels, label: value})["spec"]["template"]
    ours = primary_template(template, site, (), "", spread=True)["metadata"]["labels"]
    theirs = template["metadata"]["labels"]
    assert ours[label] == site.primary_value
    assert theirs[label] != site.primary_value
    assert ours[label] != site.value
