"""The kustomization file that a build begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.kustomize.documents import load_all
from reconcile.kustomize.failure import BuildFailed
from reconcile.kustomize.generate import generate
from reconcile.kustomize.schema import text_of
from reconcile.kustomize.tree import Tree
from tests.support.kustomize_builds import config_map, spec_of, unpacked

HEAD = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}


def generated(tree: Tree, path: str = "", **fields: Any) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(generate(tree, path, spec_of(**fields)).content)
    return result


def existing(root: Path, text: str, **fields: Any) -> dict[str, Any]:
    return generated(unpacked(root, {"kustomization.yaml": text}), **fields)


# --- without a file


def test_manifests_of_a_folder_are_listed_in_the_order_of_a_walk(tmp_path: Path) -> None:
    names = ["b.yaml", "a/z.yml", "a-b.yaml", "a.yaml", "a/deep/er/x.yaml", "Z.yaml", "n.json", "readme.txt", ".hidden/h.yaml"]
    tree = unpacked(tmp_path, {f"deploy/{name}": config_map("x") for name in names} | {"elsewhere.yaml": config_map("y")})
    assert generated(tree, "deploy") == {
        **HEAD,
        "resources": ["./.hidden/h.yaml", "./Z.yaml", "./a/deep/er/x.yaml", "./a/z.yml", "./a-b.yaml", "./a.yaml", "./b.yaml"],
    }


@pytest.mark.parametrize("name", ["kustomization.yaml", "kustomization.yml", "Kustomization"])
def test_a_folder_inside_with_a_kustomization_file_is_not_entered(tmp_path: Path, name: str) -> None:
    tree = unpacked(tmp_path, {f"b/{name}": "", "b/c/x.yaml": "", "b/y.yaml": "", "a.yaml": "", "c/d/z.yaml": ""})
    made = generate(tree, "", spec_of())
    assert json.loads(made.content)["resources"] == ["./a.yaml", "./b", "./c/d/z.yaml"]
    assert made.manifests == frozenset({"a.yaml", "c/d/z.yaml"})


def test_a_folder_named_like_a_kustomization_file_is_none(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, {"Kustomization/a.yaml": "", "b/kustomization.yaml/c.yaml": ""})
    assert generated(tree)["resources"] == ["./Kustomization/a.yaml", "./b/kustomization.yaml/c.yaml"]


def test_nothing_found_is_a_namespace_and_no_object(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, {"deploy/readme.txt": "nothing"})
    assert generated(tree, "deploy") == {**HEAD, "namespace": "_placeholder"}
    assert generated(tree, "deploy", targetNamespace="prod")["namespace"] == "prod"


def test_the_file_is_written_beside_the_manifests(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, {"a/b/x.yaml": ""})
    assert generate(tree, "a/b", spec_of()).path == "a/b/kustomization.yaml"
    assert generate(tree, "", spec_of()).path == "kustomization.yaml"


# --- with a file


def test_the_first_of_the_known_names_is_the_base(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, {"Kustomization": "namePrefix: c-", "kustomization.yml": "namePrefix: b-"})
    made = generate(tree, "", spec_of())
    assert (made.path, json.loads(made.content)["namePrefix"], made.manifests) == ("kustomization.yml", "b-", None)


def test_spec_replaces_names_and_appends_lists(tmp_path: Path) -> None:
    text = "resources: [a.yaml]\nnamespace: old\nnamePrefix: old-\npatches: [{path: p.yaml}]\ncomponents: [c]\n"
    fields = {
        "targetNamespace": "new",
        "namePrefix": "pre-",
        "nameSuffix": "-post",
        "patches": [{"patch": "x", "target": {"kind": "A", "labelSelector": "a=b"}}, {"patch": "y"}],
        "components": ["../d"],
        "buildMetadata": ["transformerAnnotations"],
    }
    assert existing(tmp_path, text, **fields) == {
        **HEAD,
        "resources": ["a.yaml"],
        "namespace": "new",
        "namePrefix": "pre-",
        "nameSuffix": "-post",
        "patches": [{"path": "p.yaml"}, {"patch": "x", "target": {"kind": "A", "labelSelector": "a=b"}}, {"patch": "y"}],
        "components": ["c", "../d"],
        "buildMetadata": ["transformerAnnotations"],
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "crds: []\n", "resources:\n", "resources: []\nbuildMetadata: [x]\n"])
def test_a_file_without_resources_asks_for_origins(tmp_path: Path, text: str) -> None:
    assert existing(tmp_path, text)["buildMetadata"] == ["originAnnotations"]
    assert existing(tmp_path, text, buildMetadata=["transformerAnnotations"])["buildMetadata"] == ["transformerAnnotations"]


def test_a_file_with_resources_keeps_its_metadata(tmp_path: Path) -> None:
    assert existing(tmp_path, "resources: [a]\nbuildMetadata: [managedByLabel]\n")["buildMetadata"] == ["managedByLabel"]


IMAGES = [
    ([{"name": "a", "newTag": "1"}], {"name": "a", "newName": "b"}, [{"name": "a", "newTag": "1", "newName": "b"}]),
    ([{"name": "a", "newTag": "1"}], {"name": "a", "newTag": "2"}, [{"name": "a", "newTag": "2", "digest": ""}]),
    ([{"name": "a", "newTag": "1"}], {"name": "a", "digest": "sha256:x"}, [{"name": "a", "newTag": "", "digest": "sha256:x"}]),
    ([{"name": "a", "digest": "d"}], {"name": "a", "newTag": "2"}, [{"name": "a", "newTag": "2", "digest": ""}]),
    ([{"name": "a"}], {"name": "b", "newTag": "2"}, [{"name": "a"}, {"name": "b", "newTag": "2"}]),
    ([], {"name": "b"}, [{"name": "b"}]),
]


@pytest.mark.parametrize(("before", "wanted", "after"), IMAGES)
def test_images_are_merged_by_name(tmp_path: Path, before: Any, wanted: Any, after: Any) -> None:
    assert existing(tmp_path, json.dumps({"resources": ["a"], "images": before}), images=[wanted])["images"] == after


def test_what_kustomize_does_not_know_is_dropped_at_any_depth(tmp_path: Path) -> None:
    text = """
    resources: [a.yaml]
    unknown: 1
    Images: [{name: a, NEWTAG: "1", colour: red}]
    patches: [{path: p.yaml, why: because, target: {kind: A, shape: round}, options: {allowNameChange: true, x: y}}]
    configMapGenerator: [{name: c, files: [f], options: {labels: {any: thing}, z: 1}}]
    commonLabels: {any: thing}
    """
    assert existing(tmp_path, text) == {
        **HEAD,
        "resources": ["a.yaml"],
        "images": [{"name": "a", "newTag": "1"}],
        "patches": [{"path": "p.yaml", "target": {"kind": "A"}, "options": {"allowNameChange": True}}],
        "configMapGenerator": [{"name": "c", "files": ["f"], "options": {"labels": {"any": "thing"}}}],
        "commonLabels": {"any": "thing"},
    }


def test_numbers_become_texts_where_texts_belong(tmp_path: Path) -> None:
    text = "resources: [a]\nimages: [{name: a, newTag: 1.10}]\ncommonLabels: {a: 1, b: yes, c: 0x10}\nreplicas: [{count: 3}]"
    data = existing(tmp_path, text)
    assert data["images"] == [{"name": "a", "newTag": "1.1"}]
    assert data["commonLabels"] == {"a": "1", "b": "true", "c": "16"}
    assert data["replicas"] == [{"count": 3}]


GO_FLOATS = [
    (1.1, "1.1"), (2.0, "2"), (1e5, "100000"), (999999.0, "999999"), (1e6, "1e+06"), (1234567.5, "1.2345675e+06"),
    (123456.75, "123456.75"), (1e-4, "0.0001"), (1e-5, "1e-05"), (1.5e-7, "1.5e-07"), (1e21, "1e+21"), (1.5e300, "1.5e+300"),
    (-2.5, "-2.5"), (0.0, "0"), (-0.0, "-0"), (float("inf"), "+Inf"), (float("-inf"), "-Inf"), (float("nan"), "NaN"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), GO_FLOATS)
def test_floats_are_written_as_go_writes_them(value: float, text: str) -> None:
    assert text_of(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_written_as_go_does_reads_back_the_same(value: float) -> None:
    assert float(text_of(value)) == value


def test_of_a_key_set_twice_the_last_one_counts_and_of_documents_the_first(tmp_path: Path) -> None:
    assert existing(tmp_path, "resources: [a]\nnamePrefix: a-\nnamePrefix: b-\n---\nnamePrefix: c-\n")["namePrefix"] == "b-"


def test_anchors_and_merges_are_followed(tmp_path: Path) -> None:
    text = "resources: [a]\ncommonLabels: &l {a: b}\ncommonAnnotations: {<<: *l, c: d}\n"
    assert existing(tmp_path, text)["commonAnnotations"] == {"a": "b", "c": "d"}


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_survives(text: str) -> None:
    patched = generate(Tree(Path("/nonexistent"), {}), "", spec_of(patches=[{"patch": text}])).content.decode()
    assert load_all(patched)[0]["patches"][0]["patch"] == text


# --- errors


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, {"a.yaml": config_map("a")})
    with pytest.raises(BuildFailed) as caught:
        generate(tree, "a.yaml", spec_of())
    place = "a.yaml/kustomization.yaml: not a directory"
    assert str(caught.value) == f"open {place} remove {place}"


BROKEN = [
    ("a:\n  - b\n c: d\n", "yaml: line 3: did not find expected key in File: deploy/kustomization.yaml"),
    ("a: b: c\n", "yaml: line 1: mapping values are not allowed in this context in File: deploy/kustomization.yaml"),
    ("a: [", "yaml: line 1: did not find expected node content in File: deploy/kustomization.yaml"),
    ("a: *b\n", "yaml: line 1: alias *b refers to no finished value in File: deploy/kustomization.yaml"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_file_that_is_no_yaml_is_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    tree = unpacked(tmp_path, {"deploy/kustomization.yaml": text})
    with pytest.raises(BuildFailed) as caught:
        generate(tree, "deploy", spec_of())
    assert str(caught.value) == f"error converting YAML to JSON: {message}"


def test_a_file_that_is_a_list(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"while decoding JSON: kustomization\.yaml is no mapping"):
        existing(tmp_path, "- a\n")


NOT_LOCAL = ["git::https://x", "gh:a/b", "ssh://a", "http://a", "https://a/b", "git@github.com:a/b", "github.com/a/b", "/abs"]


@pytest.mark.parametrize("component", NOT_LOCAL)
@pytest.mark.parametrize("ignore", [True, False])
def test_components_must_be_local_and_relative(tmp_path: Path, component: str, ignore: bool) -> None:
    with pytest.raises(BuildFailed) as caught:
        existing(tmp_path, "resources: [a]", components=["ok", component], ignoreMissingComponents=ignore)
    assert str(caught.value) == f"component path '{component}' must be local and relative"


def test_missing_components_are_left_out_only_when_asked(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, {"base/kustomization.yaml": "resources: [a]", "comp/kustomization.yaml": ""})
    components = ["../comp", "../gone", "./gone"]
    assert generated(tree, "base", components=components)["components"] == components
    assert generated(tree, "base", components=components, ignoreMissingComponents=True)["components"] == ["../comp"]
