"""The pod template of the primary, made of the target's as Flagger makes it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from canary.site import Site
from canary.workload.revision import pair_checksum
from reconcile.api.jsondata import duplicate
from reconcile.ports.cluster import Object

SUFFIX = "-primary"
FLUX = "toolkit.fluxcd.io"
"""Labels and annotations with this in their name say what Flux does with the object that has them: they are never copied."""
FLAGGER_ID = "flagger-id"
"""Annotation of the primary's pods that is another one after each promotion."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_OF_THE_OBJECT_ITSELF = (LAST_APPLIED, "deployment.kubernetes.io/", "deprecated.daemonset.template.generation")
"""Annotations that kubectl and Kubernetes' controllers keep about one object; they would be wrong on a copy."""

_SOURCES = (("configMap", "ConfigMap"), ("secret", "Secret"))
_ENV = (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret"))
_ENV_FROM = (("configMapRef", "ConfigMap"), ("secretRef", "Secret"))


@dataclass(frozen=True, slots=True)
class ConfigUse:
    """One place in a pod spec that names a ConfigMap or Secret.

    Attributes:
        kind: ConfigMap or Secret.
        name: Of the object.
        optional: Whether pods start without it.
        holder: The part of the pod spec that has the name.
        field: Under which key.
    """

    kind: str
    name: str
    optional: bool
    holder: dict[str, Any]
    field: str

    @property
    def key(self) -> str:
        """As `status.trackedConfigs` has it: `configmap/NAME` or `secret/NAME`."""
        return f"{self.kind.lower()}/{self.name}"


def config_uses(pod_spec: Mapping[str, Any]) -> Iterator[ConfigUse]:
    """Every place that Flagger looks at: volumes with projected ones, and the environment of containers and init containers.

    Secrets for pulling images are none of them.
    """
    for volume in _items(pod_spec, "volumes"):
        yield from _uses(volume, _SOURCES, {"secret": "secretName"})
        for source in _items(volume.get("projected"), "sources"):
            yield from _uses(source, _SOURCES)
    for container in (*_items(pod_spec, "initContainers"), *_items(pod_spec, "containers")):
        for variable in _items(container, "env"):
            yield from _uses(variable.get("valueFrom"), _ENV)
        for source in _items(container, "envFrom"):
            yield from _uses(source, _ENV_FROM)


def _uses(parent: Any, kinds: Sequence[tuple[str, str]], fields: Mapping[str, str] | None = None) -> Iterator[ConfigUse]:
    for part, kind in kinds:
        holder = parent.get(part) if isinstance(parent, dict) else None
        field = (fields or {}).get(part, "name")
        if isinstance(holder, dict) and holder.get(field):
            yield ConfigUse(kind, holder[field], bool(holder.get("optional")), holder, field)


def _items(parent: Any, name: str) -> list[dict[str, Any]]:
    return (parent.get(name) or []) if isinstance(parent, dict) else []


def included(data: Mapping[str, str] | None, prefixes: Collection[str]) -> dict[str, str]:
    """The labels or annotations that the primary takes over (`-include-label-prefix`): `*` takes all, but never Flux's."""
    return {
        name: value
        for name, value in (data or {}).items()
        if FLUX not in name and any(prefix == "*" or (prefix and name.startswith(prefix)) for prefix in prefixes)
    }


def copied(data: Mapping[str, str] | None) -> dict[str, str]:
    """Labels or annotations as a copy gets them: without Flux's, and without what describes the original alone."""
    return {name: value for name, value in own(data).items() if not name.startswith(_OF_THE_OBJECT_ITSELF)}


def own(data: Mapping[str, str] | None) -> dict[str, str]:
    """Labels or annotations without Flux's."""
    return {name: value for name, value in (data or {}).items() if FLUX not in name}


def kept_by_controllers(data: Mapping[str, str] | None) -> dict[str, str]:
    """The annotations in which Kubernetes' controllers keep what they know of an object."""
    return {name: value for name, value in (data or {}).items() if name.startswith(_OF_THE_OBJECT_ITSELF[1:])}


def primary_labels(found: Object, site: Site) -> dict[str, str]:
    """The labels of the primary object, made of the target's."""
    labels = included((found.get("metadata") or {}).get("labels"), site.settings.include_label_prefix)
    return {**labels, site.label: site.primary_value}


def flagger_id(revision: str, configs: Mapping[str, str] | None) -> str:
    """The mark of the primary's pods, a UUID.

    Flagger takes a random one, so that every promotion rolls the pods. This one follows from what is promoted: other content
    rolls them, and a promotion that is repeated after a crash writes nothing.
    """
    return str(uuid5(NAMESPACE_URL, f"flagger.app/{pair_checksum(configs, revision)}"))


def primary_template(template: Object, site: Site, tracked: Collection[str], mark: str, *, spread: bool) -> Object:
    """The primary's pod template.

    Args:
        template: The target's.
        site: Names; `label` and `value` must be there.
        tracked: Keys (`configmap/NAME`) of what has a copy: its uses are renamed, others stay.
        mark: For the annotation `flagger-id`; empty for none.
        spread: Whether spread constraints and anti-affinity that mean the target shall mean the primary.
    """
    result = duplicate(template)
    meta = result.setdefault("metadata", {})
    meta["labels"] = {**own(meta.get("labels")), site.label: site.primary_value}
    annotations = own(meta.get("annotations"))
    annotations.pop(FLAGGER_ID, None)
    meta["annotations"] = {**annotations, FLAGGER_ID: mark} if mark else annotations
    pod_spec = result.setdefault("spec", {})
    for use in list(config_uses(pod_spec)):
        if use.key in tracked:
            use.holder[use.field] = use.name + SUFFIX
    if spread:
        for selector in _spreading_selectors(pod_spec):
            _point_to_primary(selector, site)
    return result


def unmarked(template: Object) -> Object:
    """A pod template without the mark of a promotion."""
    result = duplicate(template)
    ((result.get("metadata") or {}).get("annotations") or {}).pop(FLAGGER_ID, None)
    return result


def _spreading_selectors(pod_spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Label selectors by which pods keep away from each other."""
    away = (pod_spec.get("affinity") or {}).get("podAntiAffinity") or {}
    terms = [
        *_items(pod_spec, "topologySpreadConstraints"),
        *_items(away, "requiredDuringSchedulingIgnoredDuringExecution"),
        *(term.get("podAffinityTerm") or {} for term in _items(away, "preferredDuringSchedulingIgnoredDuringExecution")),
    ]
    for term in terms:
        if isinstance(term.get("labelSelector"), dict):
            yield term["labelSelector"]


def _point_to_primary(selector: dict[str, Any], site: Site) -> None:
    """As Flagger does it: it looks for the name of the target, and renames the first value of an expression only."""
    names = site.settings.selector_labels
    labels = selector.get("matchLabels") or {}
    for name, value in labels.items():
        if name in names and value == site.target:
            labels[name] = site.primary
    for expression in _items(selector, "matchExpressions"):
        values = expression.get("values") or []
        if expression.get("key") in names and site.target in values:
            values[values.index(site.target)] = site.primary
