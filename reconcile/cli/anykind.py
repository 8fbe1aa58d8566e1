"""Kinds of anybody by the words of a command line: `deployment`, `deploy`, `deployments.apps`, `Deployment`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconcile.errors import Invalid, ReconcileError
from reconcile.kube.client import Client
from reconcile.kube.errors import Target
from reconcile.ports.cluster import Reference

FIRST = ("v1", "apps/v1", "batch/v1", "networking.k8s.io/v1")
"""API versions that are looked through before all others."""


@dataclass(frozen=True, slots=True)
class AnyKind:
    """A kind of a cluster."""

    api_version: str
    kind: str
    namespaced: bool

    def reference(self, namespace: str, name: str) -> Reference:
        """An object of it."""
        return Reference(self.api_version, self.kind, namespace if self.namespaced else "", name)


async def find_kind(client: Client, word: str) -> AnyKind:
    """The kind that a word means; its group may follow a dot.

    Raises:
        Invalid: There is none.
    """
    name, _, group = word.lower().partition(".")
    tried = set()
    for api_version in FIRST:
        tried.add(api_version)
        if found := _matching(await _resources(client, api_version), api_version, name, group):
            return found
    answer = await client.raw("/apis/")
    for entry in answer.get("groups") or ():
        if group and not str(entry.get("name")).startswith(group):
            continue
        for api_version in _preferred_first(entry):
            if api_version not in tried and (
                found := _matching(await _resources(client, api_version), api_version, name, group)
            ):  # fmt: skip
                return found
    raise Invalid(f'no kind "{word[:80]}" in this cluster: write one as kubectl has it, such as deploy or ingresses')


def _preferred_first(entry: Mapping[str, Any]) -> Iterable[str]:
    versions = [str(one["groupVersion"]) for one in entry.get("versions") or ()]
    preferred = (entry.get("preferredVersion") or {}).get("groupVersion")
    return sorted(versions, key=lambda version: version != preferred)


async def _resources(client: Client, api_version: str) -> Sequence[Mapping[str, Any]]:
    group, _, version = api_version.rpartition("/")
    try:
        answer = await client.get(Target(group, version, ""))
    except ReconcileError:
        return ()  # an aggregated API that does not answer must not hide the others
    return [entry for entry in answer.get("resources") or () if "/" not in str(entry.get("name"))]


def _matching(resources: Sequence[Mapping[str, Any]], api_version: str, name: str, group: str) -> AnyKind | None:
    own = api_version.rpartition("/")[0]
    if group and not own.startswith(group):
        return None
    for entry in resources:
        words = {str(entry.get("name")), str(entry.get("singularName") or ""), str(entry["kind"]).lower()}
        if name in words | set(entry.get("shortNames") or ()):
            return AnyKind(api_version, str(entry["kind"]), bool(entry.get("namespaced")))
    return None
