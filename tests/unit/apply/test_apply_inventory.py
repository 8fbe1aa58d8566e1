"""Inventory entries: Flux's ids, both ways."""

from __future__ import annotations

import pytest

from reconcile.apply.inventory import Entry, entries_of, merged, references_of, stale
from reconcile.errors import Invalid
from reconcile.ports.cluster import Reference

RBAC = "rbac.authorization.k8s.io/v1"
CASES = [
    (Reference("v1", "ConfigMap", "ns", "one"), "ns_one__ConfigMap", "v1"),
    (Reference("v1", "Namespace", "", "ns"), "_ns__Namespace", "v1"),
    (Reference("apps/v1", "Deployment", "ns", "web"), "ns_web_apps_Deployment", "v1"),
    (Reference(RBAC, "ClusterRole", "", "a:b:c"), "_a__b__c_rbac.authorization.k8s.io_ClusterRole", "v1"),
    (Reference(RBAC, "RoleBinding", "ns", "a:b"), "ns_a__b_rbac.authorization.k8s.io_RoleBinding", "v1"),
    (
        Reference("source.toolkit.fluxcd.io/v1beta2", "GitRepository", "ns", "a.b-c"),
        "ns_a.b-c_source.toolkit.fluxcd.io_GitRepository",
        "v1beta2",
    ),
]


@pytest.mark.parametrize(("reference", "id_", "version"), CASES)
def test_ids_both_ways(reference: Reference, id_: str, version: str) -> None:
    assert Entry.of(reference) == Entry(id_, version)
    assert Entry(id_, version).reference == reference


def test_a_name_may_hold_an_underscore() -> None:
    assert Entry("ns_a_b_rbac.authorization.k8s.io_Role", "v1").reference.name == "a_b"


@pytest.mark.parametrize("id_", ["", "ns", "ns_one", "ns_one_ConfigMap", "ns___ConfigMap", "ns_one__", "../x"])
def test_what_is_no_id_is_refused(id_: str) -> None:
    with pytest.raises(Invalid, match="inventory entry"):
        _ = Entry(id_, "v1").reference
    with pytest.raises(Invalid, match="names no object"):
        _ = Entry("ns_one__ConfigMap", "").reference


def test_what_left_the_set_is_told_by_id() -> None:
    old = entries_of(reference for reference, _, _ in CASES)
    new = [Entry(old[0].id, "v2"), *old[2:4]]
    assert stale(old, new) == [old[1], *old[4:]]
    assert stale(old, old) == []


def test_an_inventory_is_extended_and_never_shrinks() -> None:
    old = entries_of(reference for reference, _, _ in CASES[:2])
    more = entries_of(reference for reference, _, _ in CASES[1:3])
    assert merged(old, more) == [*old, more[1]]
    assert merged(old, [Entry(old[0].id, "v2")]) == [Entry(old[0].id, "v2"), old[1]]
    assert entries_of([CASES[0][0]] * 3) == [old[0]]


def test_what_cannot_be_read_is_set_aside() -> None:
    assert references_of([Entry("x", "v1"), Entry("ns_one__ConfigMap", "v1")]) == (
        [Reference("v1", "ConfigMap", "ns", "one")],
        [Entry("x", "v1")],
    )
