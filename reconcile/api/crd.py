"""CustomResourceDefinitions made from the models, so that what the API server checks and what we read cannot drift apart. Pure.

Every version of a kind that is served has one schema, a superset of what all of them had, and conversion strategy `None`. The
schema is structural (apiextensions.k8s.io/v1): references are written out, "or null" is left out, and a keyword that an API
server would refuse is an error here. What a model cannot say in Python it says in its `json_schema_extra`, CEL rules above all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.config import JsonDict
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from reconcile.api.duration import GoDuration
from reconcile.api.meta import LabelRequirement, LabelSelector
from reconcile.api.scheme import KindInfo, PrinterColumn

API_VERSION = "apiextensions.k8s.io/v1"
VALIDATIONS = "x-kubernetes-validations"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"

ANNOTATIONS = {"kustomize.toolkit.fluxcd.io/substitute": "disabled"}
"""Keeps Flux's variable substitution away from `${...}` in our descriptions and defaults."""

KEYWORDS = (
    "description", "type", "nullable", "enum", "format", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems",
    "maxItems", "default", "required", "oneOf", "properties", "items", "additionalProperties", PRESERVE, VALIDATIONS,
    INT_OR_STRING, "x-kubernetes-map-type", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
)  # fmt: skip
"""The keywords of a structural schema that our models may use, in the order they are written in."""

RULE_KEYWORDS = ("required", "not", "anyOf", "oneOf", "properties")
"""What the rules below a `oneOf` are made of: they say which fields are there, and nothing of what those are."""

STATUS_DEFAULT = {"observedGeneration": -1}
"""Until a controller has seen the object: readers of kstatus take it for in progress."""

API_VERSION_TEXT = "Group and version of the schema that this object is written in."
KIND_TEXT = "Name of the kind of this object; cannot be changed."


@dataclass(frozen=True, slots=True)
class ServedKind(KindInfo):
    """A kind with what only its CustomResourceDefinition needs."""

    description: str = ""
    """What an object of this kind is for: the first thing that `kubectl explain` prints."""
    older_columns: tuple[tuple[str, tuple[PrinterColumn, ...]], ...] = ()
    """Versions whose columns differ from `columns`, with theirs."""
    annotations: tuple[tuple[str, str], ...] = ()
    """Further annotations of the definition."""

    def columns_of(self, version: str) -> tuple[PrinterColumn, ...]:
        """The columns that `kubectl get` prints in this version."""
        return dict(self.older_columns).get(version, self.columns)


_ATOMIC = {LabelSelector}
_LISTS_ATOMIC = {LabelSelector, LabelRequirement}
"""Taken as a whole by server-side apply, as Kubernetes' own label selectors are: two halves would select something else."""


class _StructuralSchema(GenerateJsonSchema):
    """Pydantic's JSON schema without what a structural schema has no place for."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        # An API server drops nulls of fields that may not be null before it validates: "or null" is true of every field.
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        if found.get("default", ...) is None:
            del found["default"]
        return found

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        if schema["cls"] in _ATOMIC:
            found["x-kubernetes-map-type"] = "atomic"
        if schema["cls"] in _LISTS_ATOMIC:
            for part in found["properties"].values():
                if part.get("type") == "array":
                    part["x-kubernetes-list-type"] = "atomic"
        return found

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, GoDuration):
            return str(dft)
        if isinstance(dft, BaseModel):
            return dft.model_dump(by_alias=True, exclude_none=True, mode="json")
        return super().encode_default(dft)

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def validations(*rules: tuple[str, str]) -> JsonDict:
    """The `json_schema_extra` of a model with CEL rules; each is (rule, message when it does not hold)."""
    return {VALIDATIONS: [{"rule": rule, "message": message} for rule, message in rules]}


def without_default(schema: dict[str, Any]) -> None:
    """A `json_schema_extra` that keeps a default of ours out of the schema: an API server must not write what was left out."""
    schema.pop("default")


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The structural schema of a model, with its docstrings as descriptions.

    Raises:
        ValueError: The model uses something that a structural schema cannot say; the text has the path of the field.
    """
    found = model.model_json_schema(by_alias=True, schema_generator=_StructuralSchema)
    return _structural(found, found.get("$defs", {}), model.__name__)


def definition(info: KindInfo) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind, as a manifest."""
    further = dict(info.annotations) if isinstance(info, ServedKind) else {}
    return {
        "apiVersion": API_VERSION,
        "kind": "CustomResourceDefinition",
        "metadata": {"name": definition_name(info), "annotations": {**ANNOTATIONS, **further}},
        "spec": {
            "group": info.group,
            "scope": "Namespaced",
            "names": _without_empty(
                kind=info.kind,
                listKind=f"{info.kind}List",
                plural=info.plural,
                singular=info.singular,
                shortNames=list(info.short_names),
                categories=list(info.categories),
            ),
            "conversion": {"strategy": "None"},
            "versions": [_version(info, name) for name in info.versions],
        },
    }


def definition_name(info: KindInfo) -> str:
    """The name of the definition, such as `imagepolicies.image.toolkit.fluxcd.io`."""
    return f"{info.plural}.{info.group}"


def definitions(kinds: Iterable[KindInfo]) -> dict[str, dict[str, Any]]:
    """The CustomResourceDefinitions of these kinds by name, sorted by name."""
    return {definition_name(info): definition(info) for info in sorted(kinds, key=definition_name)}


def _version(info: KindInfo, name: str) -> dict[str, Any]:
    storage = info.versions[0]
    deprecation = {
        "deprecated": True,
        "deprecationWarning": f"{name} {info.kind} is deprecated, upgrade to {storage}",
    }
    columns = info.columns_of(name) if isinstance(info, ServedKind) else info.columns
    return {
        "name": name,
        "served": True,
        "storage": name == storage,
        **({} if name == storage else deprecation),
        "additionalPrinterColumns": [_column(column) for column in columns],
        "schema": {"openAPIV3Schema": _object(info)},
        "subresources": {"status": {}},
    }


def _object(info: KindInfo) -> dict[str, Any]:
    description = info.description if isinstance(info, ServedKind) else ""
    return _without_empty(
        type="object",
        description=description,
        properties={
            "apiVersion": {"type": "string", "description": API_VERSION_TEXT},
            "kind": {"type": "string", "description": KIND_TEXT},
            "metadata": {"type": "object"},
            "spec": schema_of(info.spec),
            **_status(info),
        },
    )


def _status(info: KindInfo) -> dict[str, Any]:
    """The schema of the status: none for a status without fields, and a default only where there is a generation to observe."""
    if not info.status.model_fields:
        return {}
    default = {"default": dict(STATUS_DEFAULT)} if info.observes else {}
    return {"status": {**schema_of(info.status), **default}}


def _column(column: PrinterColumn) -> dict[str, Any]:
    return _without_empty(name=column.name, type=column.type, jsonPath=column.json_path, priority=column.priority)


def _without_empty(**entries: Any) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if value}


def _structural(schema: Mapping[str, Any], models: Mapping[str, Any], path: str, within: tuple[str, ...] = ()) -> dict[str, Any]:
    """`schema` with references written out and every keyword checked; `within` has the models that it is a part of."""
    found = dict(schema)
    while "$ref" in found:
        name = found.pop("$ref").removeprefix("#/$defs/")
        if name in within:
            raise ValueError(f"{path}: {name} contains itself, which a structural schema cannot say")
        within = (*within, name)
        # What the field says (its description, its default) comes before what the model says of itself.
        found = {**models[name], **found}
    found = {key: value for key, value in found.items() if key not in {"title", "$defs"}}
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if found.get("additionalProperties") is True:
        del found["additionalProperties"]
        found[PRESERVE] = True
    if "type" not in found and INT_OR_STRING not in found:
        if found.keys() - {"description", "default", PRESERVE}:
            raise ValueError(f"{path}: a structural schema needs one type, and this has {', '.join(sorted(found))}")
        found[PRESERVE] = True
    if unknown := found.keys() - set(KEYWORDS):
        raise ValueError(f"{path}: a structural schema has no {', '.join(sorted(unknown))}")
    for rule in found.get("oneOf", ()):
        _check_rule(rule, path)
    for key in ("items", "additionalProperties"):
        if key in found:
            found[key] = _structural(found[key], models, f"{path}[]", within)
    if "properties" in found:
        parts = found["properties"].items()
        found["properties"] = {name: _structural(part, models, f"{path}.{name}", within) for name, part in parts}
    if "required" in found:
        found["required"] = sorted(found["required"])
    # Copied, because a YAML writer makes an alias of what occurs twice.
    return deepcopy({key: found[key] for key in KEYWORDS if key in found})


def _check_rule(rule: Mapping[str, Any], path: str) -> None:
    if unknown := rule.keys() - set(RULE_KEYWORDS):
        raise ValueError(f"{path}: a rule below oneOf has no {', '.join(sorted(unknown))}")
    inner = [*rule.get("anyOf", ()), *rule.get("oneOf", ()), *rule.get("properties", {}).values()]
    for part in (*inner, *([rule["not"]] if "not" in rule else [])):
        _check_rule(part, path)
