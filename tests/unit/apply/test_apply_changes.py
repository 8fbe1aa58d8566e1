"""Change sets, the texts of failures, marks, and what is remembered."""

from __future__ import annotations

import random
from typing import Any

import pytest

from reconcile.api.kstatus import Status, Summary
from reconcile.apply import changeset
from reconcile.apply.changeset import Action, ApplyFailed, Change, ChangeSet, Drift, PruneFailed
from reconcile.apply.health import HealthCheckFailed
from reconcile.apply.memory import Known, Memory, seen_state
from reconcile.apply.owner import Marks, Owner
from reconcile.errors import ReconcileError, TimedOut
from reconcile.kube.errors import Denied, KindMissing, ObjectMissing, Refused, Target, Temporary, Unreachable, from_status
from reconcile.ports.cluster import Health, NotReady, Object, Reference
from reconcile.ports.stamps import Mark, Sight

ONE, ROLE = Reference("v1", "ConfigMap", "ns", "one"), Reference("rbac.authorization.k8s.io/v1", "ClusterRole", "", "r")
TARGET = Target("", "v1", "configmaps", "ns", "one")


def test_lines_are_those_of_flux() -> None:
    done = ChangeSet((Change(ROLE, Action.CREATED), Change(ONE, Action.UNCHANGED)))
    done += ChangeSet((Change(ONE, Action.CONFIGURED, (Drift("/data/k"),)), Change(ONE, Action.SKIPPED)))
    assert done.lines() == ["ClusterRole/r created", "ConfigMap/ns/one configured"]
    assert done.lines([Action.SKIPPED]) == ["ConfigMap/ns/one skipped"]
    assert done.references(without=[Action.SKIPPED]) == [ROLE, ONE, ONE]
    assert [change.action for change in done.drifted] == [Action.CONFIGURED]
    assert len(done) == 4


def test_a_failure_is_followed_by_what_was_completed() -> None:
    completed = ChangeSet((Change(ROLE, Action.CREATED), Change(ONE, Action.UNCHANGED)))
    assert (
        str(ApplyFailed(["Service/x dry-run failed: no"], completed)) == "Service/x dry-run failed: no\nClusterRole/r created\n"
    )
    assert str(ApplyFailed(["no"], ChangeSet())) == "no\n"
    many = str(ApplyFailed([f"no {number}" for number in range(12)], ChangeSet()))
    assert many.splitlines()[-3:] == ["no 8", "no 9", "and 2 more objects failed"]
    failed = PruneFailed(["a", "b"], ChangeSet(), [ONE])
    assert (str(failed), failed.left) == ("delete failed, errors: a;b;", (ONE,))


def status(code: int, message: str, reason: str = "", **details: Any) -> ReconcileError:
    return from_status({"code": code, "message": message, "reason": reason, "details": details}, "patch", TARGET)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (status(422, "spec: wrong", "Invalid"), Refused, "ConfigMap/ns/one dry-run failed (Invalid): spec: wrong"),
        (status(500, "failed to create typed patch object"), Temporary,
         "ConfigMap/ns/one dry-run failed: failed to create typed patch object"),
        (status(404, 'namespaces "ns" not found', "NotFound", name="ns"), ObjectMissing,
         'ConfigMap/ns/one not found: namespaces "ns" not found'),
        (status(403, 'admission webhook "w" denied the request: no', "Forbidden"), Denied,
         'ConfigMap/ns/one dry-run failed (Forbidden): admission webhook "w" denied the request: no'),
        (status(403, 'User "u" cannot patch resource "configmaps"', "Forbidden"), Denied,
         ('ConfigMap/ns/one dry-run failed (Forbidden): User "u" cannot patch resource "configmaps": missing RBAC rule '
         '{apiGroups: [""], resources: ["configmaps"], verbs: ["patch"]}')),
        (KindMissing('no matches for kind "X" in version "v1"'), KindMissing,
         'ConfigMap/ns/one dry-run failed: no matches for kind "X" in version "v1"'),
        (Unreachable("cannot be reached"), Unreachable, "ConfigMap/ns/one dry-run failed: cannot be reached"),
    ],
)  # fmt: skip
def test_texts_of_dry_runs(error: ReconcileError, kind: type[ReconcileError], text: str) -> None:
    assert isinstance(error, kind)
    assert changeset.dry_run_failure(ONE, error) == text


def test_health_in_flux_words() -> None:
    health = [
        Health(ONE, Summary(Status.IN_PROGRESS, "Available: 0/1")),
        Health(ONE, None),
        Health(ONE, Summary(Status.UNKNOWN, "no such key: x")),
        Health(ONE, None, "forbidden"),
        Health(ROLE, Summary(Status.NOT_FOUND, "not found")),
    ]
    failed = HealthCheckFailed(NotReady("timeout waiting for", health))
    assert str(failed) == (
        "timeout waiting for: [ConfigMap/ns/one status: 'InProgress', can't determine status for ConfigMap/ns/one, "
        "ConfigMap/ns/one status: 'Unknown': no such key: x, ConfigMap/ns/one status: 'Unknown': forbidden, "
        "ClusterRole/r status: 'NotFound']"
    )
    assert failed.details[0] == "ConfigMap/ns/one status: 'InProgress': Available: 0/1"
    stalled = HealthCheckFailed(NotReady("failed early due to stalled resources", [Health(ONE, Summary(Status.FAILED, "x"))]))
    assert str(stalled) == "failed early due to stalled resources: [ConfigMap/ns/one status: 'Failed']"
    assert isinstance(NotReady("x", []), TimedOut)


# --- opting out


def marked(**marks: str) -> Object:
    return {"metadata": {"annotations": {f"kustomize.toolkit.fluxcd.io/{name}": value for name, value in marks.items()}}}


def labelled(**marks: str) -> Object:
    return {"metadata": {"labels": marked(**marks)["metadata"]["annotations"]}}


@pytest.mark.parametrize(
    ("desired", "live", "skipped"),
    [
        ({}, None, False),
        ({}, {}, False),
        (marked(reconcile="DISABLED"), None, True),
        (labelled(reconcile="disabled"), None, True),
        (marked(reconcile="no"), {}, False),
        ({}, marked(reconcile="disabled"), True),
        ({}, labelled(ssa="ignore"), True),
        (marked(ssa="Ignore"), None, True),
        (marked(ssa="IfNotPresent"), None, False),
        (marked(ssa="IfNotPresent"), {}, True),
        ({}, marked(ssa="IfNotPresent"), False),
        (marked(ssa="Merge"), {}, False),
    ],
)
def test_who_is_skipped(desired: Object, live: Object | None, skipped: bool) -> None:
    assert Marks().skipped(desired, live) is skipped


def test_who_is_kept_forced_and_merged() -> None:
    marks = Marks()
    assert [marks.kept(each) for each in (marked(prune="Disabled"), labelled(ssa="Ignore"), marked(ssa="Merge"), {})] == [
        True, True, False, False,
    ]  # fmt: skip
    assert (marks.forced(marked(force="enabled"), None), marks.forced({}, labelled(force="Enabled"))) == (True, True)
    assert (marks.forced(marked(force="true"), {}), marks.merges({}, marked(ssa="merge"))) == (False, True)
    owner = Owner("app", "ns")
    assert owner.owns({"metadata": {"labels": {**owner.labels, "x": "y"}}})
    assert not owner.owns({"metadata": {"labels": {**owner.labels, "kustomize.toolkit.fluxcd.io/namespace": "other"}}})
    assert not owner.owns({"metadata": {"labels": None}})


# --- marks and memory


def found(**metadata: Any) -> Object:
    return {"metadata": {"uid": "u", "resourceVersion": "1", "labels": {"a": "b"}, **metadata}}


def test_a_mark_moves_with_what_somebody_wants_and_with_nothing_else() -> None:
    mark = Mark.of(found(generation=1))
    same = found(generation=1, resourceVersion="9", managedFields=[{}], finalizers=["x"])
    same["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "2"}
    assert Mark.of(same) == mark
    others = [
        found(generation=2),
        found(generation=1, uid="v"),
        found(generation=1, labels={}),
        found(generation=1, annotations={"a": "b"}),
    ]
    others += [found(), found(generation=1, deletionTimestamp="t")]
    assert len({mark, *map(Mark.of, others)}) == 7
    assert Mark.of(found()) != Mark.of(found(resourceVersion="2"))


def known(version: str) -> Known:
    return Known("p", Mark.of(found(resourceVersion=version)), Action.UNCHANGED)


def test_a_state_is_the_same_for_whoever_sees_the_same() -> None:
    sets = Memory().of(Owner("app", "ns"))
    references = [Reference("v1", "ConfigMap", "ns", f"c{number}") for number in range(5)]
    for number, reference in enumerate(references[:4]):
        sets.put(reference, known(str(number)))
    assert sets.state(references) == ""  # of one nothing is known
    sets.put(references[4], Known("p", None, Action.SKIPPED))  # nobody's that we could see
    state = sets.state(references)
    seen = [
        (each, Sight.NONE if held is None or held.mark is None else held.mark) for each in references if (held := sets.get(each))
    ]
    assert seen_state(random.Random(1).sample(seen, 5)) == state != ""
    assert seen_state([*seen[:4], (references[4], Sight.UNKNOWN)]) == ""
    assert seen_state([(references[0], Sight.NONE), *seen[1:]]) != state
    assert seen_state(seen[:4]) != state


def test_what_left_the_set_is_forgotten_and_memory_is_bounded() -> None:
    memory = Memory(most=10)
    for owner in range(5):
        sets = memory.of(Owner("app", str(owner)))
        for number in range(4):
            sets.put(Reference("v1", "ConfigMap", "ns", str(number)), known("1"))
    memory.of(Owner("app", "4"))
    assert [len(memory.of(Owner("app", str(owner)))) for owner in (4, 3, 0)] == [4, 4, 0]
    sets = memory.of(Owner("app", "4"))
    sets.keep([Reference("v1", "ConfigMap", "ns", "1"), Reference("v1", "ConfigMap", "ns", "other")])
    assert len(sets) == 1
    sets.forget(Reference("v1", "ConfigMap", "ns", "1"))
    assert len(sets) == 0
    memory.forget(Owner("app", "3"))
    assert len(memory.of(Owner("app", "3"))) == 0
