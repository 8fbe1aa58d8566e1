"""What the fields of Flagger's kinds are made of: numbers as its schemas have them, texts, and rules on which fields go together.

Flagger's schemas say `number` where Go has an integer. So do ours, since an API server must take what it took; a fraction where
Go wants an integer is refused here, by a message that names the field, when the object is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from reconcile.api.meta import ApiModel


def _whole(value: Any) -> Any:
    """An integral float as the integer that it is: JSON does not tell 5.0 from 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PydanticCustomError("number_type", "Input should be a finite number")
    return value


def _int_or_string(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("int_or_string_type", "Input should be an integer or a string")
    return value


WholeNumber = Annotated[int, BeforeValidator(_whole), WithJsonSchema({"type": "number"})]
"""An integer that the schema calls a number; 5.0 is 5, and 5.5 is refused."""

Number = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]
"""A finite number; what was written without a fraction stays an integer."""

Int32 = Annotated[int, Field(json_schema_extra={"format": "int32"})]
"""An integer of 32 bits."""

PortNumber = Annotated[int, Field(ge=1, le=65535, json_schema_extra={"format": "int32"})]
"""A TCP port."""

IntOrString = Annotated[int | str, PlainValidator(_int_or_string), WithJsonSchema({"x-kubernetes-int-or-string": True})]
"""A number or a text, such as the number or the name of a port."""

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""An instant in RFC 3339."""

Period = Annotated[str, Field(pattern=r"^[0-9]+(m|s)")]
"""A length of time as Flagger's schema checks it: the pattern has no end, so `1m30s` passes, and so does what is no duration."""


DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""A DNS label, such as a namespace."""

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
ApiGroup = Annotated[str, Field(max_length=253, pattern=rf"^$|^{_SUBDOMAIN}$")]
"""A group of Kubernetes' API; empty for the core group."""
KindName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")]
"""Name of a kind of Kubernetes' API."""
SectionName = Annotated[str, Field(min_length=1, max_length=253, pattern=rf"^{_SUBDOMAIN}$")]
"""Name of a part of an object, such as a listener."""
ObjectName = Annotated[str, Field(min_length=1, max_length=253)]
"""Name of an object."""


def plain(model: BaseModel) -> dict[str, Any]:
    """A model as plain data with camelCase keys: what was written in the manifest, and nothing that was left out."""
    return model.model_dump(by_alias=True, exclude_unset=True, exclude_none=True, mode="json")


def required(*names: str) -> JsonDict:
    """The rule that these fields (camelCase) are there."""
    return {"required": list(names)}


def none_of(*names: str) -> JsonDict:
    """The rule that none of these fields (camelCase) is there."""
    return {"not": {"anyOf": [required(name) for name in names]}}


def _with_rules(schema: JsonDict, model: type[Any]) -> None:
    schema["oneOf"] = [dict(rule) for rule in model.ONE_OF]


class Ruled(ApiModel):
    """Base of models with rules of which exactly one must hold: the `oneOf` of the schema, checked here as an API server does."""

    model_config = ConfigDict(json_schema_extra=_with_rules)

    ONE_OF: ClassVar[Sequence[JsonDict]] = ()
    """The rules, in JSON Schema."""
    RULE: ClassVar[str] = ""
    """What the message says when it is not one."""

    @model_validator(mode="after")
    def _one_rule_holds(self) -> Self:
        data = {info.alias or name: getattr(self, name) for name, info in type(self).model_fields.items()}
        present = {name: value for name, value in data.items() if value is not None}
        if sum(_holds(rule, present) for rule in self.ONE_OF) != 1:
            raise ValueError(self.RULE)
        return self


class Defaulted(ApiModel):
    """Base of models whose defaults an API server writes into the object: they count as written."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        defaults = {
            info.alias or name: info.default
            for name, info in cls.model_fields.items()
            if not info.is_required() and info.default is not None and name not in data
        }
        return defaults | data


def _holds(rule: Mapping[str, Any], data: Any) -> bool:
    """Whether a rule of JSON Schema made of required, not, anyOf, oneOf and properties holds of an object."""
    if isinstance(data, BaseModel):
        data = plain(data)
    checks = [
        all(name in data for name in rule.get("required", ())),
        "not" not in rule or not _holds(rule["not"], data),
        "anyOf" not in rule or any(_holds(part, data) for part in rule["anyOf"]),
        "oneOf" not in rule or sum(_holds(part, data) for part in rule["oneOf"]) == 1,
        *(_holds(part, data[name]) for name, part in rule.get("properties", {}).items() if name in data),
    ]
    return all(checks)
