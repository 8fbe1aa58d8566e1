"""What can be seen of a Canary from outside, in the shape in which it was recorded.

Pure functions of what the cluster and those who were called saw.
"""

from __future__ import annotations

import base64
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

from tests.support.history import Version
from tests.support.kubeapi import Object
from tests.support.webhooks import Received

COOKIES = ("sessionAffinityCookie", "previousSessionAffinityCookie", "primarySessionAffinityCookie")
CONTROLLERS_OWN = {"deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation"}
MASKS = (
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<uuid>"),
    (r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"\b10\.96\.\d+\.\d+\b", "<ip>"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
)

Record = dict[str, Any]


def state_of(version: Version) -> Object:
    """What a status says about the run."""
    if version.gone:
        return {"phase": "(deleted)", "canaryWeight": 0}
    status = version.body.get("status") or {}
    state = {
        "phase": status.get("phase", ""),
        **{key: status.get(key, 0) for key in ("canaryWeight", "failedChecks", "iterations")},
    }
    state |= {key: status.get(key) or None for key in ("lastAppliedSpec", "lastPromotedSpec")}
    state |= {key: status[key] for key in ("trackedConfigs", *COOKIES) if status.get(key)}
    if finalizers := version.body["metadata"].get("finalizers"):
        state["finalizers"] = finalizers
    return state


def condition_of(condition: Object) -> Object:
    """A condition without its times."""
    return {key: condition.get(key) for key in ("type", "status", "reason", "message")}


def event_of(body: Object) -> Object:
    """An event as posted, without its time."""
    metadata = {key: value for key, value in (body.get("metadata") or {}).items() if key != "timestamp"}
    event = {"phase": body.get("phase"), "type": metadata.pop("eventType", None), "message": metadata.pop("eventMessage", None)}
    return {**event, **({"metadata": metadata} if metadata else {})}


def kube_event_of(body: Object) -> Object:
    """An Event as stored, without its count."""
    source = (body.get("source") or {}).get("component") or body.get("reportingComponent")
    return {**{key: body.get(key) for key in ("type", "reason", "message")}, "source": source}


def request_of(received: Received) -> Object:
    """A request; of its headers those that a listener may depend on."""
    headers = {
        name: received.headers[name.lower()] for name in ("Content-Type", "Authorization") if name.lower() in received.headers
    }
    return {"method": received.method, "path": received.path, "headers": headers, "body": received.data}


def calls_of(hooks: list[Received]) -> list[Object]:
    """Calls of webhooks; checksums are numbered by first appearance."""
    calls = [{"hook": r.path.split("/")[2], **request_of(r), "answered": r.answered} for r in hooks]
    names = numbered([call["body"].get("checksum") for call in calls], "c{}")
    for call in calls:
        if "checksum" in call["body"]:
            call["body"]["checksum"] = names[call["body"]["checksum"]]
    return calls


def objects_of(versions: list[Version]) -> dict[str, list[Object]]:
    """By kind and name: the first version, then the changes."""
    found: dict[str, list[Object]] = defaultdict(list)
    for version in versions:
        body = version.body
        shown = {"deleted": True} if version.gone else shown_of(body)
        history = found[f"{body['kind']}.{body['apiVersion']}/{body['metadata']['name']}"]
        if not history or history[-1] != shown:
            history.append(shown)
    return {key: [history[0], *(changes(old, new) for old, new in pairwise(history))] for key, history in sorted(found.items())}


def shown_of(body: Object) -> Object:
    """An object without what the API server and its controllers add, and without what differs from run to run."""
    meta = body["metadata"]
    annotations = {key: value for key, value in (meta.get("annotations") or {}).items() if key not in CONTROLLERS_OWN}
    owners = [{key: value for key, value in ref.items() if key != "uid"} for ref in meta.get("ownerReferences", [])]
    shown = {"labels": meta.get("labels"), "annotations": annotations, "ownerReferences": owners}
    shown = {key: value for key, value in shown.items() if value}
    rest = {key: value for key, value in body.items() if key not in ("metadata", "status", "kind", "apiVersion")}
    shown |= cast(Object, json.loads(json.dumps(rest)))
    spec = shown.get("spec", {})
    for name in ("clusterIP", "clusterIPs"):
        if name in spec and "None" not in spec[name]:
            spec[name] = "<ip>"
    if body["kind"] == "Service" and "ports" in spec:
        spec["ports"].sort(key=lambda port: str(port.get("name")))
    if body["kind"] == "Secret":
        shown["data"] = {key: base64.b64decode(value).decode(errors="replace") for key, value in shown.get("data", {}).items()}
    return shown


def changes(old: Any, new: Any, path: str = "") -> Object:
    """What differs, by path; None for what is gone."""
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(key, old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(str(index), *both) for index, both in enumerate(zip(old, new, strict=True))]
    else:
        return {path or "/": new}
    return {at: value for key, a, b in pairs if a != b for at, value in changes(a, b, f"{path}/{key}").items()}


def changed_only(entries: list[Object]) -> list[Object]:
    """Without direct repetitions."""
    return [entry for index, entry in enumerate(entries) if index == 0 or entries[index - 1] != entry]


def numbered(values: list[str | None], pattern: str) -> dict[str, str]:
    """A name for each value, by first appearance."""
    return {value: pattern.format(number) for number, value in enumerate(dict.fromkeys(v for v in values if v), 1)}


def masked(record: Record, names: Mapping[str, str]) -> Record:
    """A record without what differs from run to run: `names` by value, and whatever looks like an address, a time or a UUID."""
    text = json.dumps(record)
    for value, name in names.items():
        text = text.replace(value, name)
    for pattern, name in MASKS:
        text = re.sub(pattern, name, text)
    return cast(Record, json.loads(text))
