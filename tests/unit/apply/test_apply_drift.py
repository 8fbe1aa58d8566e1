"""Where live objects differ from what they should be, and what is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from reconcile.api.appliers import IgnoreRule, Selector
from reconcile.apply import drift, pointers
from reconcile.apply.changeset import Drift
from reconcile.errors import Invalid
from reconcile.ports.cluster import Object


def deployment(replicas: int = 1, images: tuple[str, ...] = ("a",), **metadata: Any) -> Object:
    spec = {"replicas": replicas, "containers": [{"name": f"c{n}", "image": image} for n, image in enumerate(images)]}
    named = {"name": "web", "namespace": "ns", **metadata}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named, "spec": spec}


def texts(live: Object, wanted: Object, *ignored: str) -> list[str]:
    return [pointers.text_of(path) for path in drift.drifted(live, wanted, [pointers.parse(each) for each in ignored])]


def test_what_counts_and_what_does_not() -> None:
    live = {**deployment(labels={"a": "1"}, annotations={"x/y": "1"}, generation=1, finalizers=["f"]), "status": {"x": 1}}
    assert texts(live, deployment(labels={"a": "1"}, annotations={"x/y": "1"}, resourceVersion="9")) == []
    assert texts(live, deployment(labels={"a": "2"}, annotations={})) == ["/metadata/annotations/x~1y", "/metadata/labels/a"]
    assert texts(deployment(3, ("a", "b")), deployment(1, ("a", "c"))) == ["/spec/containers/1/image", "/spec/replicas"]
    assert texts(deployment(1, ("a",)), deployment(1, ("a", "b"))) == ["/spec/containers"]
    assert texts({**deployment(), "data": {"a": True}}, {**deployment(), "data": {"a": 1}}) == ["/data/a"]
    assert texts({**deployment(), "data": {}}, deployment()) == ["/data"]


def test_ignored_fields_are_left_out() -> None:
    assert texts(deployment(3), deployment(1), "/spec/replicas") == []
    assert texts(deployment(3, ("a",)), deployment(1, ("b",)), "/spec/replicas") == ["/spec/containers/0/image"]
    assert texts(deployment(3), deployment(1), "") == []
    assert texts(deployment(1, ("a", "b", "c")), deployment(1, ("a", "y", "z")), "/spec/containers/1", "/spec/containers/2") == []
    # Nothing but an ignored field was in it.
    assert texts(deployment(), deployment(annotations={"a": "b"}), "/metadata/annotations/a") == []
    assert texts({**deployment(), "data": {"k": "v"}}, deployment(), "/data/k") == []
    assert texts({**deployment(), "data": {"k": "v", "l": "v"}}, deployment(), "/data/k") == ["/data"]


@pytest.mark.parametrize(
    ("target", "chosen"),
    [
        (None, True),
        (Selector(), True),
        (Selector(kind="Deployment", group="apps", version="v1"), True),
        (Selector(kind="Deploy"), False),  # anchored
        (Selector(kind="Deploy.*", name="w.b|x"), True),
        (Selector(namespace="other"), False),
        (Selector(label_selector="app in (x,y),!z"), True),
        (Selector(label_selector="app=z"), False),
        (Selector(annotation_selector="note"), True),
        (Selector(annotation_selector="note!=n"), False),
    ],
)
def test_targets(target: Selector | None, chosen: bool) -> None:
    found = deployment(labels={"app": "x"}, annotations={"note": "n"})
    ignored = drift.Ignored([IgnoreRule(paths=["/spec/replicas"], target=target)])
    assert ignored.paths(found) == ((("spec", "replicas"),) if chosen else ())


def test_every_rule_that_chooses_an_object_counts() -> None:
    rules = [
        IgnoreRule(paths=["/a", "/b"]),
        IgnoreRule(paths=["/b", "/c~1d"]),
        IgnoreRule(paths=["/x"], target=Selector(name="no")),
    ]
    assert drift.Ignored(rules).paths(deployment()) == (("a",), ("b",), ("c/d",))


@pytest.mark.parametrize("rule", [IgnoreRule(paths=["spec"]), IgnoreRule(paths=[], target=Selector(name="("))])
def test_a_rule_that_cannot_be_read_is_refused(rule: IgnoreRule) -> None:
    with pytest.raises(Invalid):
        drift.Ignored([rule])


def applied(manager: str, operation: str, owned: Any) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsV1": owned}


def test_ignored_fields_are_applied_as_they_are_or_not_at_all() -> None:
    path = [("spec", "replicas")]
    scaler = {"f:spec": {"f:replicas": {}}}
    beside = deployment(5, managedFields=[applied("scaler", "Apply", scaler)])
    assert drift.payload_beside(deployment(1), beside, path, "us")["spec"] == {"containers": deployment()["spec"]["containers"]}
    by_hand = deployment(5, managedFields=[applied("scaler", "Update", scaler), applied("us", "Apply", scaler)])
    assert drift.payload_beside(deployment(1), by_hand, path, "us") == deployment(5)
    assert drift.payload_beside(deployment(5), by_hand, path, "us") == deployment(5)
    gone = deployment(managedFields=[])
    del gone["spec"]["replicas"]
    assert "replicas" not in drift.payload_beside(deployment(1), gone, path, "us")["spec"]
    assert drift.payload_beside(deployment(1), by_hand, [()], "us") == deployment(1)


def test_who_changed_it_is_told_for_so_many_fields() -> None:
    live = {"metadata": {"managedFields": [applied("editor", "Update", {"f:data": {"f:a": {}}})]}, "data": {"a": 1}}
    assert drift.told(live, [("data", "a"), ("data", "b")], "us") == (Drift("/data/a", ("editor",)), Drift("/data/b"))
    assert len(drift.told(live, [("data", str(number)) for number in range(100)], "us")) == drift.MOST_PATHS


def test_pointers() -> None:
    data = {"a/b": {"c~d": [1, {"e": 2}]}}
    path = pointers.parse("/a~1b/c~0d/1/e")
    assert (path, pointers.text_of(path)) == (("a/b", "c~d", "1", "e"), "/a~1b/c~0d/1/e")
    assert pointers.value_at(data, path) == 2
    assert pointers.without(data, path) == {"a/b": {"c~d": [1, {}]}}
    assert pointers.replaced(data, path, 3) == {"a/b": {"c~d": [1, {"e": 3}]}}
    assert pointers.without(data, path[:3]) == {"a/b": {"c~d": [1]}}
    for absent in ("/x", "/a~1b/c~0d/2", "/a~1b/c~0d/01", "/a~1b/c~0d/-1", "/a~1b/c~0d/1/e/f"):
        steps = pointers.parse(absent)
        assert pointers.value_at(data, steps) is pointers.ABSENT
        assert pointers.without(data, steps) is data
        assert pointers.replaced(data, steps, 1) is data
