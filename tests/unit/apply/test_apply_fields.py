"""Field ownership: what is taken over from other managers, and who owns what."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.apply import fields
from reconcile.apply.pointers import parse
from reconcile.ports.cluster import Object

OURS = "kustomize-controller"
names = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', "v:1", "."])
sets = st.recursive(st.just({}), lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=12)


def paths(found: Any, at: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    return {at} | {path for name, inner in found.items() for path in paths(inner, (*at, name))}


def entry(manager: str, operation: str = "Update", owned: Any = None, **more: Any) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsV1": owned or {f"f:{manager}": {}}, **more}


@given(sets, sets)
def test_a_union_has_the_paths_of_both_and_no_other(one: Any, other: Any) -> None:
    assert paths(fields.union(one, other)) == paths(one) | paths(other)


def test_what_kubectl_and_we_updated_becomes_ours() -> None:
    entries = [
        entry("kubectl-client-side-apply", owned={"f:data": {".": {}, "f:a": {}}}),
        entry(OURS, "Apply", {"f:data": {"f:b": {}}}),
        entry(OURS, "Update", {"f:data": {"f:c": {}}}),
        entry("kubectl", "Apply", {"f:spec": {}}),
        entry("before-first-apply", owned={"f:d": {}}),
        entry("before-first-apply", "Apply"),
        entry("kubectl-edit", subresource="status"),
        entry("helm", owned={"f:e": {}}),
        entry("other"),
    ]
    taken = fields.taken_over(entries, OURS, ["helm"])
    assert taken is not None
    assert [(each["manager"], each["operation"]) for each in taken] == [
        (OURS, "Apply"), ("before-first-apply", "Apply"), ("kubectl-edit", "Update"), ("other", "Update"),
    ]  # fmt: skip
    owned = {"f:data": {".": {}, "f:a": {}, "f:b": {}, "f:c": {}}, "f:spec": {}, "f:d": {}, "f:e": {}}
    assert taken[0]["fieldsV1"] == owned
    assert fields.taken_over(taken, OURS, ["helm"]) is None


def test_without_an_entry_of_ours_the_first_one_becomes_it() -> None:
    taken = fields.taken_over([entry("kubectl-edit", time="t"), entry("kubectl"), entry("x")], OURS)
    assert taken is not None
    assert taken[-1] == entry(OURS, "Apply", {"f:kubectl-edit": {}, "f:kubectl": {}}, time="t")
    assert len(taken) == 2


def test_the_clean_up_is_one_patch_of_the_state_that_was_read() -> None:
    live: Object = {
        "metadata": {
            "resourceVersion": "7",
            "labels": {"fluxcd.io/sync-gc-mark": "x", "app": "y"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "a/b": "c"},
            "managedFields": [entry("other")],
        }
    }
    assert fields.clean_up(live, OURS) == [
        {"op": "remove", "path": "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration"},
        {"op": "remove", "path": "/metadata/labels/fluxcd.io~1sync-gc-mark"},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
    ]
    assert fields.clean_up({"metadata": {"resourceVersion": "7", "managedFields": [entry("other")]}}, OURS) == []
    assert fields.clean_up({"metadata": {}}, OURS) == []


def test_entries_of_other_versions_are_migrated() -> None:
    entries = [entry("a"), entry("b", apiVersion="v1beta1")]
    assert fields.migrated(entries, "v1") == [entry("a"), entry("b")]
    assert fields.migrated([entry("a")], "v1") is None


IMAGE: dict[str, Any] = {".": {}, "f:image": {}}
LIVE: Object = {
    "metadata": {
        "labels": {"app": "x"},
        "finalizers": ["a", "b"],
        "managedFields": [
            entry(
                OURS,
                "Apply",
                {"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:containers": {'k:{"name":"app"}': IMAGE}}},
            ),
            entry("editor", owned={"f:spec": {"f:containers": {'k:{"name":"side"}': {**IMAGE, "f:name": {}}}, "f:replicas": {}}}),
            entry("atomic", "Apply", {"f:spec": {"f:selector": {}}, "f:metadata": {"f:finalizers": {'v:"b"': {}}}}),
            entry("scaler", owned={"f:spec": {"f:replicas": {}}}, subresource="scale"),
            entry("places", owned={"f:spec": {"f:containers": {"i:1": {"f:args": {}}, "k:not json": {}}}}),
        ],
    },
    "spec": {
        "containers": [{"name": "app", "image": "1"}, {"name": "side", "image": "2"}],
        "selector": {"a": {"b": 1}},
        "replicas": 3,
    },
}


@pytest.mark.parametrize(
    ("pointer", "owners"),
    [
        ("/spec/replicas", ("editor",)),
        ("/spec/containers/1/image", ("editor",)),
        ("/spec/containers/0/image", ()),
        ("/spec/containers/1/args", ("places",)),
        ("/spec/containers/9/args", ()),
        ("/spec/selector/a/b", ("atomic",)),
        ("/metadata/finalizers/1", ("atomic",)),
        ("/metadata/finalizers/0", ()),
        ("/metadata/labels/app", ()),
        ("/spec/nothing", ()),
        ("/spec/containers", ("editor", "places")),
    ],
)
def test_who_owns_a_field(pointer: str, owners: tuple[str, ...]) -> None:
    assert fields.owners(LIVE, parse(pointer), without=OURS) == owners


def test_owners_of_one_operation() -> None:
    assert fields.owners(LIVE, parse("/metadata/labels/app")) == (OURS,)
    assert fields.owners(LIVE, parse("/metadata/labels/app"), operation="Update") == ()
