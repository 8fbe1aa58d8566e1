"""Manifests become typed objects, or a message that a person can act on."""

from __future__ import annotations

from typing import Any

import pytest

from imagebot.api import IMAGE_POLICY, IMAGE_REPOSITORY, IMAGE_UPDATE_AUTOMATION
from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import MAX_PROBLEMS, Scheme, unknown_fields
from reconcile.api.source import GIT_REPOSITORY
from reconcile.errors import Invalid

GROUP = "image.toolkit.fluxcd.io"


@pytest.fixture
def scheme() -> Scheme:
    made = Scheme()
    for info in (GIT_REPOSITORY, IMAGE_REPOSITORY, IMAGE_POLICY, IMAGE_UPDATE_AUTOMATION):
        made.register(info)
    return made


def repository(scheme: Scheme, spec: Any, **more: Any) -> AnyResource:
    body = {"apiVersion": f"{GROUP}/v1", "kind": "ImageRepository", "metadata": {"name": "a"}, "spec": spec, **more}
    return scheme.decode(IMAGE_REPOSITORY, body)


GOOD = {"image": "registry.example/app", "interval": "1m"}


# --- kinds and versions


def test_documents_of_other_groups_are_not_ours(scheme: Scheme) -> None:
    assert scheme.find("apps/v1", "Deployment") is None
    assert scheme.find("v1", "ImageRepository") is None


@pytest.mark.parametrize("version", ["v1", "v1beta2", "v1beta1"])
def test_every_served_version_is_found(scheme: Scheme, version: str) -> None:
    assert scheme.find(f"{GROUP}/{version}", "ImagePolicy") is IMAGE_POLICY


def test_an_unknown_kind_is_named_with_the_one_that_was_meant(scheme: Scheme) -> None:
    with pytest.raises(Invalid) as caught:
        scheme.find(f"{GROUP}/v1", "ImagePolcy")
    assert str(caught.value) == f'no kind "ImagePolcy" in group "{GROUP}" (did you mean "ImagePolicy"?)'


def test_a_kind_of_another_group_is_unknown_in_this_one(scheme: Scheme) -> None:
    with pytest.raises(Invalid, match='no kind "GitRepository" in group "image'):
        scheme.find(f"{GROUP}/v1", "GitRepository")


def test_an_unknown_version_is_named_with_the_known_ones(scheme: Scheme) -> None:
    with pytest.raises(Invalid) as caught:
        scheme.find(f"{GROUP}/v2", "ImagePolicy")
    assert str(caught.value) == 'no version "v2" of ImagePolicy: use one of v1, v1beta2, v1beta1'


def test_a_kind_is_registered_once(scheme: Scheme) -> None:
    with pytest.raises(ValueError, match="twice"):
        scheme.register(IMAGE_POLICY)


@pytest.mark.parametrize(
    "word",
    [
        "ImagePolicy",
        "imagepolicy",
        "imagepolicies",
        "imgpol",
        "imagepol",
        "IMAGEPOLICIES",
        "imagepolicies.image",
        f"imagepolicy.{GROUP}",
    ],
)
def test_a_word_of_the_command_line_names_a_kind(scheme: Scheme, word: str) -> None:
    assert scheme.by_word(word) is IMAGE_POLICY


def test_an_unknown_word_is_answered_with_a_suggestion_and_all_kinds(scheme: Scheme) -> None:
    with pytest.raises(Invalid) as caught:
        scheme.by_word("imagepolicys")
    assert str(caught.value) == (
        'no kind "imagepolicys" (did you mean "imagepolicy"?): known are gitrepository, imagepolicy, imagerepository, '
        "imageupdateautomation"
    )


# --- values


def test_defaults_are_filled_in(scheme: Scheme) -> None:
    found = repository(scheme, GOOD)
    assert (found.spec.provider, found.spec.exclusion_list, found.spec.suspend) == ("generic", [r"^.*\.sig$"], None)
    assert (found.meta.generation, found.status.conditions) == (1, None)


def test_nulls_are_dropped_at_any_depth(scheme: Scheme) -> None:
    found = repository(
        scheme, {**GOOD, "timeout": None, "provider": None, "accessFrom": {"namespaceSelectors": [{"matchLabels": None}]}}
    )
    assert found.spec.provider == "generic"
    assert found.spec.access_from.namespace_selectors[0].match_labels is None
    assert found.to_dict()["spec"]["accessFrom"] == {"namespaceSelectors": [{}]}


def test_a_required_field_that_is_null_is_missing(scheme: Scheme) -> None:
    with pytest.raises(Invalid, match=r"^spec\.image: is required$"):
        repository(scheme, {**GOOD, "image": None})


TYPES = [
    ({"image": 5}, "spec.image: Input should be a valid string, not 5 (put it in quotes)"),
    ({"image": 1.10}, "spec.image: Input should be a valid string, not 1.1 (put it in quotes)"),
    ({"image": True}, "spec.image: Input should be a valid string, not true (put it in quotes)"),
    ({"image": ["a"]}, "spec.image: Input should be a valid string, not a list"),
    ({"suspend": "true"}, "spec.suspend: Input should be a valid boolean, not 'true'"),
    ({"suspend": 1}, "spec.suspend: Input should be a valid boolean, not 1"),
    ({"interval": 60}, "spec.interval: Input should be a valid string, not 60 (put it in quotes)"),
    ({"interval": "5 minutes"}, 'spec.interval: "5 minutes" is not a duration: write it like 30s, 5m or 1h30m'),
    ({"provider": "amazon"}, "spec.provider: Input should be 'generic', 'aws', 'azure' or 'gcp', not 'amazon'"),
    ({"exclusionList": "a"}, "spec.exclusionList: Input should be a valid list, not 'a'"),
    ({"exclusionList": ["a", 1]}, "spec.exclusionList[1]: Input should be a valid string, not 1 (put it in quotes)"),
    ({"secretRef": "pull"}, "spec.secretRef: Input should be a valid dictionary or instance of LocalReference, not 'pull'"),
    ({"secretRef": {}}, "spec.secretRef.name: is required"),
]


@pytest.mark.parametrize(("spec", "message"), TYPES)
def test_a_wrong_value_is_named_with_its_path_and_what_is_expected(scheme: Scheme, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid) as caught:
        repository(scheme, GOOD | spec)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("spec", "shown"), [("x", "'x'"), ([], "a list"), ([1], "a list"), (0, "0"), (False, "false"), ("", "''")]
)
def test_a_spec_that_is_no_mapping_is_refused(scheme: Scheme, spec: Any, shown: str) -> None:
    with pytest.raises(Invalid) as caught:
        repository(scheme, spec)
    assert str(caught.value) == f"spec must be a mapping, not {shown}"


def test_labels_are_text(scheme: Scheme) -> None:
    with pytest.raises(Invalid, match=r"^metadata\.labels\.team: Input should be a valid string, not 5"):
        repository(scheme, GOOD, metadata={"name": "a", "labels": {"team": 5}})


def test_rules_across_fields_use_the_words_of_the_upstream_schema(scheme: Scheme) -> None:
    body = {"metadata": {"name": "a"}, "apiVersion": f"{GROUP}/v1"}
    spec = {"imageRepositoryRef": {"name": "r"}, "policy": {}, "digestReflectionPolicy": "Always"}
    with pytest.raises(Invalid) as caught:
        scheme.decode(IMAGE_POLICY, {**body, "spec": spec})
    assert str(caught.value) == "spec: spec.interval must be set when spec.digestReflectionPolicy is set to 'Always'"


# --- unknown fields


def test_unknown_fields_are_named_with_the_nearest_known_one(scheme: Scheme) -> None:
    with pytest.raises(Invalid) as caught:
        repository(scheme, {**GOOD, "intervall": "1m", "zzz": 1})
    assert str(caught.value) == 'unknown field spec.intervall (did you mean "interval"?); unknown field spec.zzz'


def test_unknown_fields_inside_objects_and_lists_are_found(scheme: Scheme) -> None:
    spec = {**GOOD, "secretRef": {"name": "s", "zzz": "x"}, "accessFrom": {"namespaceSelectors": [{}, {"matchLabel": {}}]}}
    with pytest.raises(Invalid) as caught:
        repository(scheme, spec)
    assert str(caught.value) == (
        "unknown field spec.secretRef.zzz; "
        'unknown field spec.accessFrom.namespaceSelectors[1].matchLabel (did you mean "matchLabels"?)'
    )


def test_the_python_name_of_a_field_is_no_field(scheme: Scheme) -> None:
    with pytest.raises(Invalid, match=r'unknown field spec\.secret_ref \(did you mean "secretRef"'):
        repository(scheme, {**GOOD, "secret_ref": {"name": "s"}})


def test_open_maps_take_any_key(scheme: Scheme) -> None:
    assert unknown_fields(KUSTOMIZATION.spec, {"patchesStrategicMerge": [{"anything": {"goes": 1}}]}) == []
    found = repository(scheme, {**GOOD, "accessFrom": {"namespaceSelectors": [{"matchLabels": {"any/key": "v"}}]}})
    assert found.spec.access_from.namespace_selectors[0].match_labels == {"any/key": "v"}


def test_without_strict_unknown_fields_are_pruned(scheme: Scheme) -> None:
    body = {"apiVersion": f"{GROUP}/v1", "metadata": {"name": "a"}, "spec": {**GOOD, "zzz": 1}}
    assert "zzz" not in scheme.decode(IMAGE_REPOSITORY, body, strict=False).to_dict()["spec"]


# --- bounds


def test_a_message_names_some_problems_and_counts_the_rest(scheme: Scheme) -> None:
    spec = {"url": "https://host/x", "interval": "1m", "sparseCheckout": list(range(5000))}
    with pytest.raises(Invalid) as caught:
        scheme.decode(GIT_REPOSITORY, {"apiVersion": "v", "metadata": {"name": "a"}, "spec": spec})
    assert str(caught.value).count("put it in quotes") == MAX_PROBLEMS
    assert str(caught.value).endswith(f"; and {5000 - MAX_PROBLEMS} more")


def test_a_hundred_thousand_unknown_fields_end_in_a_short_message(scheme: Scheme) -> None:
    with pytest.raises(Invalid) as caught:
        repository(scheme, GOOD | {f"field{n}" * 100: n for n in range(100_000)})
    assert len(str(caught.value)) < 3000


def test_a_huge_value_is_not_quoted(scheme: Scheme) -> None:
    with pytest.raises(Invalid) as caught:
        repository(scheme, {**GOOD, "suspend": "x" * 1_000_000, "image": [["y" * 1_000_000] * 1000]})
    assert len(str(caught.value)) < 500


def test_credentials_in_a_wrong_value_are_not_shown(scheme: Scheme) -> None:
    spec = {"url": "git://user:hunter2@host/x", "interval": "1m"}
    with pytest.raises(Invalid) as caught:
        scheme.decode(GIT_REPOSITORY, {"apiVersion": "v", "metadata": {"name": "a"}, "spec": spec})
    assert "git://host/x" in str(caught.value)
    assert "hunter2" not in str(caught.value)
