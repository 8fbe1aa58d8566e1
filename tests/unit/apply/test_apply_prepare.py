"""What becomes of built objects before they are applied."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest

from reconcile.apply.owner import Owner
from reconcile.apply.prepare import normalized, prepared, undeclared
from reconcile.errors import Invalid
from reconcile.ports.cluster import Object

OWNER = Owner("app", "flux-system")
LABELS = {"kustomize.toolkit.fluxcd.io/name": "app", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
HEAD = "failed to create typed patch object (ns/web; apps/v1, Kind=Deployment): "


def config(**metadata: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "namespace": "ns", **metadata}}


def web(**container: Any) -> Object:
    spec = {"template": {"spec": {"containers": [{"name": "app", **container}]}}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "ns"}, "spec": spec}


def container_of(found: Object) -> Any:
    return found["spec"]["template"]["spec"]["containers"][0]


def test_owner_and_common_metadata_are_set_over_what_is_there() -> None:
    given = config(labels={"app": "x", "team": "old"}, annotations=None)
    before = copy.deepcopy(given)
    one, two = prepared([given, config()], OWNER, labels={"team": "new"}, annotations={"note": "n"})
    assert one["metadata"]["labels"] == {"app": "x", "team": "new", **LABELS}
    assert one["metadata"]["annotations"] == two["metadata"]["annotations"] == {"note": "n"}
    assert given == before
    assert "annotations" not in prepared([given], OWNER)[0]["metadata"]


def test_another_owner_has_labels_of_its_own() -> None:
    owner = Owner("app", "ns", "helm.toolkit.fluxcd.io")
    assert prepared([config()], owner)[0]["metadata"]["labels"] == {
        "helm.toolkit.fluxcd.io/name": "app",
        "helm.toolkit.fluxcd.io/namespace": "ns",
    }


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"labels": {"version": 1}}, "ConfigMap/ns/one label 'version' is the number 1, not a text: put its value in quotes"),
        ({"labels": {"on": True}}, "ConfigMap/ns/one label 'on' is the boolean true, not a text: put its value in quotes"),
        ({"annotations": {"a": ["x"]}}, "ConfigMap/ns/one annotation 'a' is a list, not a text: put its value in quotes"),
        ({"labels": "x"}, "ConfigMap/ns/one metadata.labels is a text, not a map of texts"),
    ],
)
def test_a_label_that_is_no_text_is_named(metadata: dict[str, Any], text: str) -> None:
    with pytest.raises(Invalid) as refused:
        prepared([config(**metadata)], OWNER)
    assert str(refused.value) == text


def test_status_and_creation_time_go_but_a_definition_keeps_its_status() -> None:
    found = normalized({**config(creationTimestamp=None), "status": {"x": 1}})
    assert found == config()
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x"}}
    assert normalized({**definition, "status": {"x": 1}})["status"] == {"x": 1}


def test_texts_of_a_secret_become_data() -> None:
    secret = {**config(), "kind": "Secret", "data": {"a": "MQ==", "b": "Mg=="}, "stringData": {"b": "zwei", "c": "ü"}}
    encoded = {"a": "MQ==", "b": base64.b64encode(b"zwei").decode(), "c": base64.b64encode("ü".encode()).decode()}
    assert normalized(secret) == {**config(), "kind": "Secret", "data": encoded}
    wrong = {**secret, "stringData": {"a": 1}}
    assert normalized(wrong) == wrong  # for the API server to judge


def test_ports_say_tcp_where_they_say_nothing() -> None:
    assert container_of(normalized(web(ports=[{"containerPort": 1}, {"containerPort": 1, "protocol": "UDP"}])))["ports"] == [
        {"containerPort": 1, "protocol": "TCP"},
        {"containerPort": 1, "protocol": "UDP"},
    ]
    service = {**config(), "kind": "Service", "spec": {"ports": [{"port": 80}]}}
    assert normalized(service)["spec"]["ports"] == [{"port": 80, "protocol": "TCP"}]
    first = web()
    first["spec"]["template"]["spec"]["initContainers"] = [{"name": "i", "ports": [{"containerPort": 1}]}]
    assert normalized(first) == first
    foreign = {**service, "apiVersion": "serving.knative.dev/v1"}
    assert normalized(foreign) == foreign


def test_nulls_are_fields_that_were_not_given() -> None:
    given = web(env=None, resources={"limits": None})
    given["spec"]["template"]["metadata"] = {"creationTimestamp": None, "labels": {"a": None}}
    found = normalized(given)
    assert container_of(found) == {"name": "app", "resources": {}}
    assert found["spec"]["template"]["metadata"] == {"labels": {"a": ""}}
    assert normalized({**config(), "data": {"a": None}})["data"] == {"a": ""}
    custom = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "x"}, "spec": {"a": None}}
    assert normalized(custom) == custom


@pytest.mark.parametrize(("bundle", "kept"), [("Cg==", False), ("not base64!", False), (None, False)])
def test_a_bundle_that_is_no_certificate_is_left_out(bundle: object, kept: bool) -> None:
    config_ = {"caBundle": bundle, "service": {"name": "s"}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "x"},
        "spec": {"conversion": {"strategy": "Webhook", "webhook": {"clientConfig": config_}}},
    }
    found = normalized(definition)["spec"]["conversion"]["webhook"]["clientConfig"]
    assert ("caBundle" in found, found["service"]) == (kept, {"name": "s"})


def test_fields_that_a_type_does_not_have_are_left_out_by_the_servers_words() -> None:
    given = web(foo=1, env=[{"name": "A", "value": "1", "bar": 2}])
    given["spec"]["replica"] = 3
    text = (
        f"{HEAD}errors:\n  .spec.replica: field not declared in schema\n"
        '  .spec.template.spec.containers[name="app"].foo: field not declared in schema\n'
        '  .spec.template.spec.containers[name="app"].env[name="A"].bar: field not declared in schema'
    )
    assert undeclared(given, text) == web(env=[{"name": "A", "value": "1"}])
    assert undeclared(given, f"{HEAD}.spec.replica: field not declared in schema") == web(
        foo=1, env=[{"name": "A", "value": "1", "bar": 2}]
    )
    assert given["spec"]["replica"] == 3


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD}.spec.replicas: expected numeric (int or float), got string",
        f"{HEAD}errors:\n  .spec.replica: field not declared in schema\n  .spec.replicas: expected numeric",
        f"{HEAD}.spec.nowhere: field not declared in schema",
        f'{HEAD}.spec.template.spec.containers[name="other"].foo: field not declared in schema',
        'Deployment.apps "web" is invalid: .spec.replica: field not declared in schema',
        HEAD,
        "",
    ],
)
def test_anything_else_is_refused_as_it_is(text: str) -> None:
    given = web(foo=1)
    given["spec"]["replica"] = 3
    assert undeclared(given, text) is None


def test_roles_and_kinds_of_others_keep_unknown_fields() -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "x"}, "rule": []}
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "x"}, "rule": []}
    for given in (role, widget):
        text = "failed to create typed patch object (ns/x; a/v1, Kind=X): .rule: field not declared in schema"
        assert undeclared(given, text) is None
