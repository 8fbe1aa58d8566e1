"""API servers with one side's definitions each, asked the same: what they take, what they refuse, what kubectl prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.controlplane import Cluster, ControlPlane
from tests.support.controlplane_build import Programs, Unavailable, find_programs
from tests.support.kubeapi import ApiError, KubeApi
from tests.support.schema_cases import Case

BARE = ("etcd", "kube-apiserver", "kubectl")

Object = dict[str, Any]
Verdict = tuple[Any, ...]


@contextmanager
def bare_plane(folder: Path) -> Iterator[ControlPlane]:
    """A control plane of etcd and API server alone: enough for schemas."""
    try:
        programs = find_programs()
    except Unavailable as error:
        pytest.skip(f"no second control plane: {error}")
    for name in BARE:
        if path := programs.find(name):
            (folder / name).symlink_to(path)
    with ControlPlane(Programs(folder)) as plane:
        yield plane


@dataclass(frozen=True)
class Side:
    """One API server with definitions of our kinds, asked without anything being kept."""

    cluster: Cluster
    namespace: str

    @property
    def api(self) -> KubeApi:
        """Its API as administrator."""
        return self.cluster.api

    def ask_spec(self, api_version: str, kind: str, value: Any) -> Verdict:
        """What comes of creating an object with this spec."""
        body = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "case"}, "spec": value}
        return self._ask("POST", self.api.path(api_version, kind, self.namespace), body)

    def ask_status(self, existing: Object, value: Any) -> Verdict:
        """What comes of giving an object that exists this status."""
        path = self.api.path(existing["apiVersion"], existing["kind"], self.namespace, existing["metadata"]["name"], "status")
        return self._ask("PUT", path, {**existing, "status": value})

    def _ask(self, method: str, path: str, body: Object) -> Verdict:
        try:
            answer = self.api.request(method, path, body, dryRun="All", fieldValidation="Strict")
        except ApiError as error:
            return "refused", error.code, error.message
        return "accepted", answer.get("spec"), answer.get("status")


def table(text: str) -> list[list[str]]:
    """What kubectl printed, as cells; ages are left out."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    age = rows[0].index("AGE") if "AGE" in rows[0] else None
    return [[cell for n, cell in enumerate(row) if n != age] for row in rows]


def tally(found: list[tuple[Case, Verdict, Verdict]]) -> dict[str, int]:
    """How many cases Flux's side accepted and refused."""
    words = [theirs[0] for _, theirs, _ in found]
    return {word: words.count(word) for word in ("accepted", "refused")}
