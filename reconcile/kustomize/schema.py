"""The fields of a kustomization file (kustomize 5), and how a text with other fields is made to fit them. Pure.

Flux reads the file of a Kustomization's path into these fields and writes it anew: what kustomize does not know is dropped
silently, names of fields count in any case, and a number where a text belongs (`newTag: 1.10`) becomes a text. kustomize itself,
which reads all other files, refuses all three.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

Shape = object
"""STRING, ANY, TEXTS (a map of texts), a list with the shape of its items, or a mapping with the shapes of its fields."""

STRING: Final = "string"
ANY: Final = "any"
TEXTS: Final = "texts"

_LONGEST_PLAIN: Final = 6
"""Exponents from here on are written as such."""

_GVK: Final[Mapping[str, Shape]] = {"group": STRING, "version": STRING, "kind": STRING}
_ID: Final[Mapping[str, Shape]] = {**_GVK, "name": STRING, "namespace": STRING}
_SELECTOR: Final[Mapping[str, Shape]] = {**_ID, "annotationSelector": STRING, "labelSelector": STRING}
_FIELD_SPEC: Final[Mapping[str, Shape]] = {**_GVK, "path": STRING, "create": ANY}
_FIELD_OPTIONS: Final[Mapping[str, Shape]] = {"delimiter": STRING, "index": ANY, "encoding": STRING, "create": ANY}
_PATCH: Final[Mapping[str, Shape]] = {
    "path": STRING,
    "patch": STRING,
    "target": _SELECTOR,
    "options": {"allowNameChange": ANY, "allowKindChange": ANY},
}
_IMAGE: Final[Mapping[str, Shape]] = {
    "name": STRING,
    "newName": STRING,
    "tagSuffix": STRING,
    "newTag": STRING,
    "digest": STRING,
}
_GENERATOR_OPTIONS: Final[Mapping[str, Shape]] = {
    "labels": TEXTS,
    "annotations": TEXTS,
    "disableNameSuffixHash": ANY,
    "immutable": ANY,
}
_GENERATOR: Final[Mapping[str, Shape]] = {
    "namespace": STRING,
    "name": STRING,
    "behavior": STRING,
    "literals": [STRING],
    "files": [STRING],
    "envs": [STRING],
    "env": STRING,
    "options": _GENERATOR_OPTIONS,
}
_HELM_CHART: Final[Mapping[str, Shape]] = {
    **dict.fromkeys(("name", "version", "repo", "releaseName", "namespace", "valuesFile", "valuesMerge", "kubeVersion"), STRING),
    **dict.fromkeys(("includeCRDs", "skipHooks", "skipTests", "debug", "devel", "valuesInline"), ANY),
    "additionalValuesFiles": [STRING],
    "apiVersions": [STRING],
    "nameTemplate": STRING,
}
_HELM_ARGUMENTS: Final[Mapping[str, Shape]] = {
    **dict.fromkeys(("chartName", "chartVersion", "chartRepoUrl", "chartHome", "chartRepoName", "helmBin", "helmHome"), STRING),
    **dict.fromkeys(("values", "valuesMerge", "releaseName", "releaseNamespace"), STRING),
    "valuesLocal": ANY,
    "extraArgs": [STRING],
}
_REPLACEMENT: Final[Mapping[str, Shape]] = {
    "path": STRING,
    "source": {**_ID, "fieldPath": STRING, "options": _FIELD_OPTIONS},
    "sourceValue": STRING,
    "targets": [{"select": _SELECTOR, "reject": [_SELECTOR], "fieldPaths": [STRING], "options": _FIELD_OPTIONS}],
}
_VARIABLE: Final[Mapping[str, Shape]] = {
    "name": STRING,
    "objref": {**_ID, "apiVersion": STRING},
    "fieldref": {"fieldPath": STRING},
}
KUSTOMIZATION: Final[Mapping[str, Shape]] = {
    "apiVersion": STRING,
    "kind": STRING,
    "metadata": {"name": STRING, "namespace": STRING, "labels": TEXTS, "annotations": TEXTS},
    "openapi": TEXTS,
    "namePrefix": STRING,
    "nameSuffix": STRING,
    "namespace": STRING,
    "commonLabels": TEXTS,
    "labels": [{"pairs": TEXTS, "includeSelectors": ANY, "includeTemplates": ANY, "fields": [_FIELD_SPEC]}],
    "commonAnnotations": TEXTS,
    "patchesStrategicMerge": [STRING],
    "patchesJson6902": [_PATCH],
    "patches": [_PATCH],
    "images": [_IMAGE],
    "imageTags": [_IMAGE],
    "replacements": [_REPLACEMENT],
    "replicas": [{"name": STRING, "count": ANY}],
    "vars": [_VARIABLE],
    "sortOptions": {"order": STRING, "legacySortOptions": {"orderFirst": [STRING], "orderLast": [STRING]}},
    "resources": [STRING],
    "components": [STRING],
    "crds": [STRING],
    "bases": [STRING],
    "configMapGenerator": [_GENERATOR],
    "secretGenerator": [{**_GENERATOR, "type": STRING}],
    "helmGlobals": {"chartHome": STRING, "configHome": STRING},
    "helmCharts": [_HELM_CHART],
    "helmChartInflationGenerator": [_HELM_ARGUMENTS],
    "generatorOptions": _GENERATOR_OPTIONS,
    "configurations": [STRING],
    "generators": [STRING],
    "transformers": [STRING],
    "validators": [STRING],
    "buildMetadata": [STRING],
}


def fitted(value: Any, shape: Shape = KUSTOMIZATION) -> Any:
    """`value` with the fields of `shape` only; what has another type is left for kustomize to refuse."""
    if isinstance(shape, Mapping):
        return _fields(value, shape) if isinstance(value, dict) else value
    if isinstance(shape, list):
        return [fitted(item, shape[0]) for item in value] if isinstance(value, list) else value
    if shape == STRING:
        return text_of(value)
    if shape == TEXTS and isinstance(value, dict):
        return {key: text_of(one) for key, one in value.items()}
    return value


def _fields(value: dict[str, Any], shape: Mapping[str, Shape]) -> dict[str, Any]:
    known = {name.lower(): name for name in shape}
    found: dict[str, Any] = {}
    for key, one in value.items():
        name = key if key in shape else known.get(key.lower())
        if name is not None and one is not None:
            found[name] = fitted(one, shape[name])
    return found


def text_of(value: Any) -> Any:
    """A scalar as Go's YAML reader puts it into a text field; anything else is left as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return _float_text(value) if isinstance(value, float) else value


def _float_text(value: float) -> str:
    """A float in the shortest form that reads back the same, as `strconv.FormatFloat(value, 'g', -1, 64)` writes it."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    sign, digits, power = Decimal(repr(value)).normalize().as_tuple()
    exponent = len(digits) + int(power) - 1
    minus = "-" if sign else ""
    figures = "".join(map(str, digits))
    if -4 <= exponent < _LONGEST_PLAIN:
        return f"{minus}{Decimal((0, digits, int(power))):f}"
    fraction = f".{figures[1:]}" if len(figures) > 1 else ""
    return f"{minus}{figures[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
