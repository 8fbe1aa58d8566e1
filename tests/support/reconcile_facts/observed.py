"""What a record says of objects and events."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterable
from typing import Any

import httpx

from tests.support.kubeapi import Object

OWN = "tests"
"""The field manager of the player."""
CALLED = {"kube-controller-manager": "controller-manager"}
"""The name of a manager is that of the program's file, which had another name when the facts were recorded."""
RECORDER = "rig"
"""The field manager of the recorder."""


def foreign(body: Object) -> bool:
    """Whether an object belongs to the stage: made by the player, touched by nobody else."""
    managers = {entry["manager"] for entry in body["metadata"].get("managedFields", [])}
    return managers == {OWN} and "look" not in (body["metadata"].get("labels") or {})


def managers_of(body: Object) -> list[str]:
    """Who owns fields, and how."""
    found = set()
    for entry in body["metadata"].get("managedFields", []):
        name = RECORDER if entry["manager"] == OWN else CALLED.get(entry["manager"], entry["manager"])
        found.add("/".join(filter(None, (name, entry["operation"], entry.get("subresource")))))
    return sorted(found)


def object_of(body: Object) -> dict[str, Any]:
    """An object that was applied: all but its status, without what the API server makes up."""
    meta = body["metadata"]
    labels = dict(meta.get("labels") or {})
    seen = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    notes = {key: value for key, value in (meta.get("annotations") or {}).items() if not key.startswith("deployment.kube")}
    if body["kind"] == "Job":
        seen["spec"].pop("selector", None)
        inner = seen["spec"]["template"]["metadata"].get("labels", {})
        for key in [key for key in inner if "controller-uid" in key]:
            inner.pop(key)
        labels = {key: value for key, value in labels.items() if "controller-uid" not in key}
    if body["kind"] == "Service":
        for key in ("clusterIP", "clusterIPs"):
            seen["spec"].pop(key, None)
    return {"labels": labels, "annotations": notes, "managers": managers_of(body), **seen}


def status_of(body: Object) -> dict[str, Any]:
    """A source or a Kustomization: its status, finalizers and generation, and the files in its artifact."""
    status = dict(body.get("status") or {})
    conditions = [f"{c['type']}={c['status']} {c['reason']}: {c['message']}" for c in status.pop("conditions", [])]
    artifact, history, inventory = status.pop("artifact", None), status.pop("history", None), status.pop("inventory", None)
    status.pop("includedArtifacts", None)
    seen = {
        "conditions": conditions,
        "finalizers": body["metadata"].get("finalizers", []),
        "generation": body["metadata"]["generation"],
        **status,
        "managers": managers_of(body),
    }
    if artifact:
        seen["artifact"] = {
            "revision": artifact["revision"],
            "keys": sorted(artifact),
            "metadata": artifact.get("metadata"),
            "files": sorted(files_of(artifact["url"])),
        }
    if history:
        seen["history"] = [[entry["lastReconciledStatus"], entry.get("metadata")] for entry in history]
    if inventory is not None:
        seen["inventory"] = [f"{entry['id']} {entry['v']}" for entry in inventory.get("entries", [])]
    return seen


def files_of(url: str) -> list[str]:
    """The files in an artifact, as it is served."""
    answer = httpx.get(url, timeout=30.0, trust_env=False).raise_for_status()
    with tarfile.open(fileobj=io.BytesIO(answer.content), mode="r:gz") as archive:
        return [member.name + ("" if member.isreg() else " ->") for member in archive.getmembers() if not member.isdir()]


def stored_event(event: Object) -> list[str] | None:
    """An Event about an object of ours; None for others."""
    about = event["involvedObject"]
    if not about.get("apiVersion", "").split("/")[0].endswith("toolkit.fluxcd.io"):
        return None
    component = (event.get("source") or {}).get("component") or event.get("reportingComponent", "")
    return [f"{about['kind']}/{about['name']}", event["type"], event["reason"], event["message"], component]


def posted_event(event: Object) -> list[Any]:
    """An event as it was sent to the receiver of events."""
    about, metadata = event["involvedObject"], dict(event.get("metadata") or {})
    for key in metadata:
        if key.endswith("/token"):
            metadata[key] = "TOKEN"
    kind = f"{about['kind']}/{about['name']}"
    return [kind, event["severity"], event["reason"], event["message"], metadata, event["reportingController"]]


def distinct(rows: Iterable[Any]) -> list[Any]:
    """Each row once, in order of its first appearance."""
    return list({json.dumps(row, sort_keys=True): row for row in rows}.values())


def namespace_of(posted: bytes) -> str:
    """Whom an event that was sent is about; empty when it is none."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(posted)["involvedObject"]["namespace"])
    return ""
