"""What the reference controllers were seen to do: their inventories, change lists and failures, made by our own code again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconcile.apply import order
from reconcile.apply.changeset import Action, ApplyFailed, Change, ChangeSet, dry_run_failure
from reconcile.apply.inventory import Entry
from reconcile.kube.errors import Target, from_status
from reconcile.ports.cluster import Reference

FOLDER = Path(__file__).parents[2] / "facts" / "reconcile"
ID = re.compile(r"(\S*_\S+_\S*_[A-Za-z]+) (v[0-9][0-9a-z]*)")
LINE = re.compile(r"([A-Za-z]+)/(?:([^/ ]+)/)?([^/ ]+) (created|configured|deleted|skipped)")
GROUPS = {
    "Deployment": "apps/v1", "StatefulSet": "apps/v1", "Job": "batch/v1", "Role": "rbac.authorization.k8s.io/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1", "RoleBinding": "rbac.authorization.k8s.io/v1",
    "CustomResourceDefinition": "apiextensions.k8s.io/v1", "Kustomization": "kustomize.toolkit.fluxcd.io/v1",
}  # fmt: skip


def stories(name: str) -> Iterator[dict[str, Any]]:
    for entry in json.loads((FOLDER / f"{name}.json").read_text())["stories"]:
        if "observations" in entry["seen"]:
            yield entry


def texts(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        for value in found.values():
            yield from texts(value)
    elif isinstance(found, list):
        for value in found:
            yield from texts(value)
    elif isinstance(found, str):
        yield found


@pytest.mark.parametrize("name", ["apply", "health"])
def test_inventories(name: str) -> None:
    seen = {
        match.groups()
        for entry in stories(name)
        for text in texts(entry["seen"]["observations"])
        if (match := ID.fullmatch(text))
    }
    assert len(seen) >= 10
    for id_, version in seen:
        assert Entry.of(Entry(id_, version).reference) == Entry(id_, version)


@pytest.mark.parametrize("name", ["apply", "health"])
def test_change_lists(name: str) -> None:
    lists = 0
    for entry in stories(name):
        for _, _, _, message, *_ in entry["seen"]["posted"]:
            lines = [LINE.fullmatch(line) for line in message.split("\n")]
            found = [match for match in lines if match is not None]
            if len(found) != len(lines):
                continue
            lists += 1
            changes = ChangeSet(
                tuple(
                    Change(Reference(GROUPS.get(kind, "v1"), kind, namespace or "", name), Action(action))
                    for kind, namespace, name, action in (match.groups() for match in found)
                )
            )
            assert "\n".join(changes.lines(Action)) == message
            deleted = {Action.DELETED, Action.SKIPPED} & {change.action for change in changes}
            references = changes.references()
            assert references == (order.delete_order(references) if deleted else sorted(references, key=order.sort_key))
    assert lists >= 8


def test_the_text_of_a_run_that_failed_midway() -> None:
    entry = next(entry for entry in stories("apply") if entry["story"]["name"] == "partial-failure-then-removal")
    (message,) = {message for _, severity, _, message, *_ in entry["seen"]["posted"] if severity == "error"}
    said = message.split("(Invalid): ")[1].split("\n")[0]
    error = from_status({"code": 422, "reason": "Invalid", "message": said}, "patch", Target("", "v1", "services"))
    namespace = entry["story"]["name"]
    role = Reference("rbac.authorization.k8s.io/v1", "ClusterRole", "", namespace)
    failure = dry_run_failure(Reference("v1", "Service", namespace, "svc"), error)
    assert str(ApplyFailed([failure], ChangeSet((Change(role, Action.CREATED),)))) == message
