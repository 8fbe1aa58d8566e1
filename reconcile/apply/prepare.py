"""Makes built objects ready to be applied: what Go's types would have done to them, common metadata, owner labels. Pure.

Flux passes kinds that Kubernetes brings through their Go types. Here the rules are spelled out that make a difference to what is
applied; fields that the types do not have are found by the API server (`undeclared`), which refuses them by name.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography import x509

from reconcile.apply.owner import Owner
from reconcile.errors import Invalid
from reconcile.ports.cluster import Object, Reference

CRD = ("apiextensions.k8s.io", "CustomResourceDefinition")
_TYPED_ROLES = frozenset({("rbac.authorization.k8s.io", "Role"), ("rbac.authorization.k8s.io", "ClusterRole")})
_TEXT_MAPS = frozenset({"data", "stringData", "binaryData", "matchLabels", "nodeSelector", "labels", "annotations"})
"""Maps of texts: a null in them is an empty text, not the absence of a field."""


def prepared(
    objects: Iterable[Object],
    owner: Owner,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> list[Object]:
    """The objects as they are applied; the given ones stay as they are.

    Args:
        objects: As they were built.
        owner: Whose labels each of them gets.
        labels: Set on each of them over its own.
        annotations: Likewise.

    Raises:
        Invalid: An object does not say what it is, or a label or annotation of one is no text; says which.
    """
    return [_prepared(each, owner, labels or {}, annotations or {}) for each in objects]


def _prepared(given: Object, owner: Owner, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Object:
    reference = Reference.of(given)
    found = normalized(given)
    metadata = dict(found["metadata"])
    metadata["labels"] = {**_texts(metadata, "labels", reference), **labels, **owner.labels}
    notes = {**_texts(metadata, "annotations", reference), **annotations}
    if notes:
        metadata["annotations"] = notes
    else:
        metadata.pop("annotations", None)
    return {**found, "metadata": metadata}


def _texts(metadata: Mapping[str, Any], field: str, reference: Reference) -> dict[str, str]:
    found = metadata.get(field)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Invalid(f"{reference} metadata.{field} is {_shown(found)}, not a map of texts")
    for name, value in found.items():
        if value is not None and not isinstance(value, str):
            one = field.removesuffix("s")
            raise Invalid(f"{reference} {one} {name!r} is {_shown(value)}, not a text: put its value in quotes")
    return {name: value or "" for name, value in found.items()}


def _shown(value: object) -> str:
    match value:
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "a map"


# --- what types do


def normalized(given: Object) -> Object:
    """An object as the API server gets it, without common metadata and owner.

    An object whose parts are of the wrong type stays as it is there, for the API server to judge.
    """
    key = group_kind(given)
    found = given if key == CRD else {name: value for name, value in given.items() if name != "status"}
    metadata = {name: value for name, value in found["metadata"].items() if name != "creationTimestamp"}
    found = {**found, "metadata": metadata}
    if key == CRD:
        return _with_sound_bundle(found)
    if not built_in(key[0]):
        return found
    found = _without_nulls(found)
    if key == ("", "Secret"):
        return _secret(found)
    if key == ("", "Service"):
        return _with_ports(found, ("spec",))
    path = _POD_SPECS.get(key)
    return found if path is None else _with_containers(found, path)


_POD_SPECS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): ("spec",),
    ("", "ReplicationController"): ("spec", "template", "spec"),
    **{("apps", kind): ("spec", "template", "spec") for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")},
    ("batch", "Job"): ("spec", "template", "spec"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template", "spec"),
}


def group_kind(found: Mapping[str, Any]) -> tuple[str, str]:
    """Group and kind of an object."""
    return str(found.get("apiVersion") or "").rpartition("/")[0], str(found.get("kind") or "")


def built_in(group: str) -> bool:
    """Whether a group is one of Kubernetes' own."""
    return "." not in group or (group.endswith(".k8s.io") and group.count(".") == 2)


def _without_nulls(value: Any, name: str = "") -> Any:
    """Without fields that are null: to a type they are fields that were not given."""
    if isinstance(value, dict):
        if name in _TEXT_MAPS:
            return {key: "" if each is None else each for key, each in value.items()}
        return {key: _without_nulls(each, key) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _secret(found: Object) -> Object:
    texts, data = found.get("stringData"), found.get("data", {})
    if not isinstance(texts, dict) or not isinstance(data, dict) or not all(isinstance(each, str) for each in texts.values()):
        return found
    encoded = {name: base64.b64encode(text.encode("utf-8", "surrogatepass")).decode() for name, text in texts.items()}
    rest = {name: value for name, value in found.items() if name != "stringData"}
    return {**rest, "data": {**data, **encoded}} if data or encoded else rest


def _with_containers(found: Object, path: tuple[str, ...]) -> Object:
    def change(spec: Object) -> Object:
        containers = spec.get("containers")
        if not isinstance(containers, list):
            return spec
        return {**spec, "containers": [_ports_named(each) if isinstance(each, dict) else each for each in containers]}

    return _changed(found, path, change)


def _with_ports(found: Object, path: tuple[str, ...]) -> Object:
    return _changed(found, path, _ports_named)


def _ports_named(holder: Object) -> Object:
    """With TCP where a port says no protocol: it is a part of the port's key."""
    ports = holder.get("ports")
    if not isinstance(ports, list):
        return holder
    return {**holder, "ports": [{**p, "protocol": p.get("protocol") or "TCP"} if isinstance(p, dict) else p for p in ports]}


def _changed(found: Object, path: tuple[str, ...], change: Any) -> Object:
    if not path:
        changed: Object = change(found)
        return changed
    inner = found.get(path[0])
    return {**found, path[0]: _changed(inner, path[1:], change)} if isinstance(inner, dict) else found


def _with_sound_bundle(found: Object) -> Object:
    """A definition without the CA bundle of its conversion webhook when that is no certificate, as generators leave one."""
    at: Any = found
    for name in ("spec", "conversion", "webhook", "clientConfig"):
        at = at.get(name) if isinstance(at, dict) else None
    if not isinstance(at, dict) or "caBundle" not in at or _is_bundle(at["caBundle"]):
        return found
    path = ("spec", "conversion", "webhook", "clientConfig")
    return _changed(found, path, lambda config: {k: v for k, v in config.items() if k != "caBundle"})


def _is_bundle(value: object) -> bool:
    try:
        return bool(x509.load_pem_x509_certificates(base64.b64decode(str(value))))
    except (ValueError, binascii.Error):
        return False


# --- fields that a type does not have

_UNDECLARED = re.compile(r"^\s*(?:errors:\s*)?(?P<path>\.\S.*): field not declared in schema$")
_STEP = re.compile(r"\.(?P<field>[^.\[]+)|\[(?P<keys>[A-Za-z0-9_]+=[^\]]*)\]|\[(?P<index>[0-9]+)\]")
_KEY = re.compile(r'([A-Za-z0-9_]+)=("(?:[^"\\]|\\.)*"|[^,]*)')
_HEAD = re.compile(r"^failed to create typed patch object \([^)]*\): ")


def undeclared(desired: Object, message: str) -> Object | None:
    """The object without the fields that the API server does not know, by its own words; None when they say anything else.

    Kubernetes' own kinds only, but for roles: Flux drops what their Go types do not have without a word.
    """
    key = group_kind(desired)
    head = _HEAD.match(message)
    if head is None or not built_in(key[0]) or key in _TYPED_ROLES or key == CRD:
        return None
    found: Any = desired
    lines = [line for line in message[head.end() :].split("\n") if line.strip() not in {"", "errors:"}]
    for line in lines:
        match = _UNDECLARED.match(line)
        if match is None:
            return None
        found = _without(found, _steps(match["path"]))
        if found is None:
            return None
    return found if isinstance(found, dict) and lines else None


def _steps(path: str) -> list[str | int | dict[str, str]]:
    steps: list[str | int | dict[str, str]] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            return []
        at = match.end()
        if match["field"]:
            steps.append(match["field"])
        elif match["index"]:
            steps.append(int(match["index"]))
        else:
            steps.append({name: value.strip('"') for name, value in _KEY.findall(match["keys"])})
    return steps


def _without(value: Any, steps: list[str | int | dict[str, str]]) -> Any:
    """A copy without what is at the end of the steps; None when there is nothing."""
    if not steps:
        return None
    step, rest = steps[0], steps[1:]
    if isinstance(step, str):
        if not isinstance(value, dict) or step not in value:
            return None
        if not rest:
            return {name: each for name, each in value.items() if name != step}
        inner = _without(value[step], rest)
        return None if inner is None else {**value, step: inner}
    if not isinstance(value, list) or not rest:
        return None
    for index, each in enumerate(value):
        named = isinstance(step, dict) and isinstance(each, dict) and all(str(each.get(k)) == v for k, v in step.items())
        if index == step or named:
            inner = _without(each, rest)
            return None if inner is None else [*value[:index], inner, *value[index + 1 :]]
    return None
