"""Who refers to whom: kept up to date from changes, in the order in which they came."""

from __future__ import annotations

from typing import Any

from reconcile.api.meta import Key
from reconcile.ports.store import Change, ChangeType
from reconcile.runtime.index import Referrers
from tests.support.kustomizations import kustomization


def index() -> Referrers[str]:
    return Referrers(lambda resource: [one.name for one in resource.spec.depends_on or ()])


def note(made: Referrers[str], name: str, *targets: str, type_: ChangeType = ChangeType.ADDED, **more: Any) -> None:
    made.note(Change(type_, None, kustomization(name, dependsOn=[{"name": target} for target in targets], **more)))


def of(made: Referrers[str], target: str) -> list[str]:
    return [key.name for key in made.of(target)]


def test_it_follows_what_objects_refer_to() -> None:
    made = index()
    note(made, "a", "x", "y", "x")
    note(made, "b", "x")
    assert (of(made, "x"), of(made, "y"), of(made, "z")) == (["a", "b"], ["a"], [])
    note(made, "a", "z", type_=ChangeType.MODIFIED)
    assert (of(made, "x"), of(made, "y"), of(made, "z")) == (["b"], [], ["a"])
    note(made, "b", "x", type_=ChangeType.DELETED)
    note(made, "a", type_=ChangeType.MODIFIED)
    assert (of(made, "x"), of(made, "z")) == ([], [])


def test_a_change_of_something_else_does_not_move_an_object_to_the_end() -> None:
    made = index()
    for name in ("a", "b", "c"):
        note(made, name, "x")
    note(made, "a", "x", type_=ChangeType.MODIFIED, generation=2)
    assert of(made, "x") == ["a", "b", "c"]
    note(made, "a", "y", type_=ChangeType.MODIFIED)
    note(made, "a", "x", type_=ChangeType.MODIFIED)
    assert of(made, "x") == ["b", "c", "a"]


def test_an_object_made_anew_is_one_object() -> None:
    made = index()
    note(made, "a", "x")
    note(made, "a", "x", type_=ChangeType.DELETED)
    note(made, "a", "x")
    assert made.of("x") == [Key("apps", "a")]
