"""Models become structural schemas; what an API server would refuse is refused when it is made."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import ConfigDict, Field, ValidationError, WithJsonSchema

from imagebot.api import ALWAYS_WITHOUT_INTERVAL, IMAGE_POLICY, INTERVAL_WITHOUT_ALWAYS, ImagePolicySpec
from reconcile.api.crd import ANNOTATIONS, ServedKind, definition, definition_name, definitions, schema_of, validations
from reconcile.api.duration import Duration, GoDuration, ShortDuration
from reconcile.api.meta import ApiModel, CommonSpec, CommonStatus, LabelSelector
from reconcile.api.scheme import KindInfo, PrinterColumn
from reconcile.api.source import ACCOUNT_WITHOUT_CLOUD, GIT_REPOSITORY, GitRepositorySpec

TAGS = ["x"]


class Inner(ApiModel):
    """What the model says of itself."""

    name: str
    """A name."""
    size: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})] | None = None
    """Bytes."""


class Strategy(ApiModel):
    """How."""

    word: Literal["Only"] = "Only"
    """The only one."""
    path: str | None = None
    """Where."""


class Outer(ApiModel):
    """A model with one field of each form."""

    plain: str
    """Text."""
    maybe: Annotated[str, Field(max_length=5, pattern="^a")] | None = None
    """Text or nothing."""
    choice: Literal["a", "b"] = "b"
    """One of two."""
    inner: Inner
    """What the field says."""
    undescribed: Inner | None = None
    many: Annotated[list[Inner], Field(max_length=3)] | None = None
    """Several."""
    named: dict[str, Inner] | None = None
    """By name."""
    open: dict[str, Any] | None = None
    """Anything by name."""
    anything: Any = None
    """Anything."""
    how: Strategy = Strategy()
    """How it is done."""
    every: Duration = GoDuration("1h30m")
    """An interval."""
    limit: ShortDuration | None = None
    """A limit."""
    tags: list[str] = TAGS
    """Tags."""
    selector: LabelSelector | None = None
    """Which."""


def field(name: str) -> Any:
    return schema_of(Outer)["properties"][name]


def test_required_is_what_has_no_default() -> None:
    assert schema_of(Outer)["required"] == ["inner", "plain"]
    assert schema_of(Outer)["description"] == "A model with one field of each form."


def test_optional_is_left_out_of_the_type() -> None:
    assert field("maybe") == {"description": "Text or nothing.", "type": "string", "pattern": "^a", "maxLength": 5}


def test_choices_and_defaults() -> None:
    assert field("choice") == {"description": "One of two.", "type": "string", "enum": ["a", "b"], "default": "b"}
    assert field("tags")["default"] == ["x"]
    assert field("how")["default"] == {"word": "Only"}
    assert field("how")["properties"]["word"] == {
        "description": "The only one.", "type": "string", "enum": ["Only"], "default": "Only",
    }  # fmt: skip


def test_the_field_describes_and_the_model_only_where_it_does_not() -> None:
    assert field("inner")["description"] == "What the field says."
    assert field("undescribed")["description"] == "What the model says of itself."
    assert field("inner")["properties"]["size"] == {"description": "Bytes.", "type": "integer", "format": "int64", "minimum": 0}


def test_lists_and_maps_hold_whole_schemas() -> None:
    assert field("many")["maxItems"] == 3
    assert field("many")["items"] == field("undescribed") == field("named")["additionalProperties"]


def test_what_is_open_is_preserved() -> None:
    assert field("open") == {"description": "Anything by name.", "type": "object", "x-kubernetes-preserve-unknown-fields": True}
    assert field("anything") == {"description": "Anything.", "x-kubernetes-preserve-unknown-fields": True}


def test_durations_are_texts_with_a_pattern() -> None:
    assert field("every") == {
        "description": "An interval.", "type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$", "default": "1h30m",
    }  # fmt: skip
    assert field("limit")["pattern"] == r"^([0-9]+(\.[0-9]+)?(ms|s|m))+$"


def test_label_selectors_are_atomic() -> None:
    expressions = field("selector")["properties"]["matchExpressions"]
    assert field("selector")["x-kubernetes-map-type"] == "atomic"
    assert expressions["x-kubernetes-list-type"] == "atomic"
    assert expressions["items"]["properties"]["values"]["x-kubernetes-list-type"] == "atomic"
    assert "x-kubernetes-list-type" not in field("many")


def test_rules_of_a_model_are_in_its_schema() -> None:
    class Ruled(ApiModel):
        """Ruled."""

        model_config = ConfigDict(json_schema_extra=validations(("self.a == 'b'", "a must be b")))
        a: str

    assert schema_of(Ruled)["x-kubernetes-validations"] == [{"rule": "self.a == 'b'", "message": "a must be b"}]


def test_alternatives_of_a_model_are_in_its_schema() -> None:
    class Either(ApiModel):
        """Either."""

        model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["a"]}, {"not": {"anyOf": [{"required": ["a"]}]}}]})
        a: str | None = None

    assert schema_of(Either)["oneOf"] == [{"required": ["a"]}, {"not": {"anyOf": [{"required": ["a"]}]}}]


def test_a_number_or_a_text_has_its_own_keyword_and_no_type() -> None:
    class Port(ApiModel):
        """Port."""

        port: Annotated[int | str, WithJsonSchema({"x-kubernetes-int-or-string": True})]

    assert schema_of(Port)["properties"]["port"] == {"x-kubernetes-int-or-string": True}


class TypeInRule(ApiModel):
    """A rule that says more than which fields are there."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"not": {"properties": {"a": {"type": "string"}}}}]})
    a: str | None = None


class Node(ApiModel):
    """A tree."""

    children: list[Node] | None = None


class TwoTypes(ApiModel):
    """Two types."""

    value: int | str


class Exclusive(ApiModel):
    """A keyword that is a number in JSON Schema and a boolean in a structural one."""

    value: Annotated[int, Field(gt=0)]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Node, r"Node.children\[\]: Node contains itself"),
        (TwoTypes, r"TwoTypes.value: a structural schema needs one type, and this has anyOf"),
        (Exclusive, r"Exclusive.value: a structural schema has no exclusiveMinimum"),
        (TypeInRule, r"TypeInRule: a rule below oneOf has no type"),
    ],
)
def test_what_a_structural_schema_cannot_say_is_an_error(model: type[ApiModel], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schema_of(model)


def test_a_plain_kind_makes_a_small_definition() -> None:
    column = PrinterColumn("Wide", ".spec.suspend", "boolean", 1)
    info = KindInfo("example.org", "Thing", "things", ("v2", "v1"), CommonSpec, CommonStatus, columns=(column,))
    made = definition(info)
    assert made["metadata"]["name"] == definition_name(info) == "things.example.org"
    assert made["spec"]["names"] == {"kind": "Thing", "listKind": "ThingList", "plural": "things", "singular": "thing"}
    new, old = made["spec"]["versions"]
    assert new["additionalPrinterColumns"] == [{"name": "Wide", "type": "boolean", "jsonPath": ".spec.suspend", "priority": 1}]
    assert "deprecated" not in new
    assert old["deprecationWarning"] == "v1 Thing is deprecated, upgrade to v2"
    assert new["schema"]["openAPIV3Schema"]["properties"]["status"]["default"] == {"observedGeneration": -1}
    assert "required" not in new["schema"]["openAPIV3Schema"]


def test_a_kind_may_have_annotations_of_its_own_and_a_status_that_observes_nothing() -> None:
    class Blind(CommonStatus):
        """Blind."""

        observed_generation: ClassVar[None] = None  # type: ignore[misc]

    class Nothing(Blind):
        """Nothing."""

        conditions: ClassVar[None] = None  # type: ignore[misc]
        last_handled_reconcile_at: ClassVar[None] = None  # type: ignore[misc]

    made = {
        status: definition(
            ServedKind("example.org", "Thing", "things", ("v1",), CommonSpec, status, annotations=(("example.com/keep", "yes"),))
        )
        for status in (CommonStatus, Blind, Nothing)
    }
    assert made[Blind]["metadata"]["annotations"] == {**ANNOTATIONS, "example.com/keep": "yes"}
    fields = {s: m["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] for s, m in made.items()}
    assert fields[CommonStatus]["status"]["default"] == {"observedGeneration": -1}
    assert "default" not in fields[Blind]["status"]
    assert "observedGeneration" not in fields[Blind]["status"]["properties"]
    assert "status" not in fields[Nothing]


def test_older_columns_are_per_version() -> None:
    column, other = PrinterColumn("New", ".spec.new"), PrinterColumn("Old", ".spec.old")
    info = ServedKind(
        "example.org", "Thing", "things", ("v2", "v1"), CommonSpec, CommonStatus, columns=(column,),
        older_columns=(("v1", (other,)),), description="A thing.",
    )  # fmt: skip
    assert [version["additionalPrinterColumns"][0]["name"] for version in definition(info)["spec"]["versions"]] == ["New", "Old"]
    assert definition(info)["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["description"] == "A thing."


def test_definitions_are_sorted_and_share_nothing() -> None:
    found = definitions([IMAGE_POLICY, GIT_REPOSITORY])
    assert list(found) == ["gitrepositories.source.toolkit.fluxcd.io", "imagepolicies.image.toolkit.fluxcd.io"]
    first, second, _ = found["imagepolicies.image.toolkit.fluxcd.io"]["spec"]["versions"]
    first["schema"]["openAPIV3Schema"]["properties"]["spec"]["required"].clear()
    assert second["schema"]["openAPIV3Schema"]["properties"]["spec"]["required"] == ["imageRepositoryRef", "policy"]
    assert definition(IMAGE_POLICY)["spec"]["versions"][0]["schema"] == second["schema"]


POLICY = {"imageRepositoryRef": {"name": "a"}, "policy": {}}
REPOSITORY = {"url": "https://example.com/a", "interval": "1m"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, None),
        ({"interval": "1m"}, INTERVAL_WITHOUT_ALWAYS),
        ({"digestReflectionPolicy": "Always"}, ALWAYS_WITHOUT_INTERVAL),
        ({"digestReflectionPolicy": "Always", "interval": "1m"}, None),
        ({"digestReflectionPolicy": "IfNotPresent", "interval": "1m"}, INTERVAL_WITHOUT_ALWAYS),
        ({"digestReflectionPolicy": "IfNotPresent"}, None),
    ],
)
def test_the_model_of_a_policy_checks_what_the_rules_check(more: dict[str, Any], message: str | None) -> None:
    assert refusal(ImagePolicySpec, POLICY | more) == message


@pytest.mark.parametrize("provider", [None, "generic", "github", "aws", "azure"])
@pytest.mark.parametrize("account", [None, "robot"])
def test_the_model_of_a_git_repository_checks_what_the_rule_checks(provider: str | None, account: str | None) -> None:
    given = {"provider": provider, "serviceAccountName": account}
    wrong = account is not None and provider not in {"aws", "azure"}
    assert refusal(GitRepositorySpec, REPOSITORY | given) == (ACCOUNT_WITHOUT_CLOUD if wrong else None)


def refusal(model: type[CommonSpec], spec: dict[str, Any]) -> str | None:
    try:
        model.model_validate(spec)
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return None
