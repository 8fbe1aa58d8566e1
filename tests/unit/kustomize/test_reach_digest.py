"""The digest of what a build can read: it moves whenever the outcome of a build could, and with nothing else."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconcile.kustomize.build import Builder
from reconcile.kustomize.failure import BuildFailed
from reconcile.kustomize.reach import closure, reach
from tests.support.kustomize_builds import config_map, digests, kustomize, rendered, unpacked

KINDS = {
    "bases/web/kustomization.yaml": "resources: [a.yaml]\npatches: [{path: p.yaml}]\n",
    "bases/web/a.yaml": config_map("a"),
    "bases/web/p.yaml": config_map("a", k="v"),
    "bases/web/unused.yaml": config_map("u"),
    "prod/kustomization.yaml": """
resources: [../bases/web, ./plain]
components: [../components/c]
configMapGenerator:
- name: g
  files: [k=../texts/t.txt, 'direct.txt']
  envs: [x.env]
replacements: [{path: ../shared/replacements.yaml}]
""",
    "prod/plain/kustomization.yml": "resources: [b.yaml]\n",
    "prod/plain/b.yaml": config_map("b"),
    "prod/direct.txt": "d",
    "prod/x.env": "A=b",
    "texts/t.txt": "t",
    "texts/other.txt": "o",
    "shared/replacements.yaml": "[]",
    "components/c/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnamePrefix: c-\n",
    "plain/one.yaml": config_map("one"),
    "plain/readme.md": "text",
    "plain/sub/two.yml": config_map("two"),
    "plain/base/Kustomization": "resources: [../../bases/web]\n",
    "plugins/kustomization.yaml": "generators: [g.yaml]\n",
    "plugins/g.yaml": "",
}
READ = {
    "prod": {
        "prod/kustomization.yaml", "prod/plain/kustomization.yml", "prod/plain/b.yaml", "prod/direct.txt", "prod/x.env",
        "texts/t.txt", "shared/replacements.yaml", "components/c/kustomization.yaml", "bases/web/kustomization.yaml",
        "bases/web/a.yaml", "bases/web/p.yaml",
    },
    "plain": {
        "plain/one.yaml", "plain/sub/two.yml", "plain/base/Kustomization", "bases/web/kustomization.yaml", "bases/web/a.yaml",
        "bases/web/p.yaml",
    },
    "bases/web": {"bases/web/kustomization.yaml", "bases/web/a.yaml", "bases/web/p.yaml"},
    "texts": set(),
}  # fmt: skip


def digest_of(root: Path, files: dict[str, str], path: str) -> str:
    return reach(root, digests(files), path).digest


@pytest.mark.parametrize("path", READ)
def test_what_is_read_counts_and_nothing_else(tmp_path: Path, path: str) -> None:
    tree = unpacked(tmp_path, KINDS)
    found = closure(tree, path)
    assert (found.files, found.whole) == (READ[path], False)
    result = reach(tree.root, tree.files, path)
    assert (result.files, result.whole) == (len(READ[path]), False)
    for changed in KINDS:
        files = KINDS | {changed: KINDS[changed] + "\n#"}
        unpacked(tmp_path, files)
        assert (digest_of(tmp_path, files, path) != result.digest) == (changed in READ[path]), changed
        unpacked(tmp_path, KINDS)


@pytest.mark.parametrize(
    "text",
    [
        "generators: [x]",
        "transformers: ['a: b']",
        "validators: [x]",
        "helmCharts: [{name: x}]",
        "helmGlobals: {chartHome: x}",
        "helmChartInflationGenerator: [{chartName: x}]",
        "resources: [!!binary YS55YW1s]",
        "resources: [!own a.yaml]",
        "resources: !own [a.yaml]",
        "a: b: c",
        "- a",
        "resources: &x [*x]",
    ],
)
def test_what_cannot_be_known_counts_as_everything(tmp_path: Path, text: str) -> None:
    files = {"app/kustomization.yaml": text, "a/b/c": "1"}
    tree = unpacked(tmp_path, files)
    result = reach(tree.root, tree.files, "app")
    assert (result.whole, result.files) == (True, 2)
    assert digest_of(tmp_path, files | {"a/b/c": "2"}, "app") != result.digest
    assert digest_of(tmp_path, files | {"new": ""}, "app") != result.digest


@pytest.mark.parametrize("name", ["kustomization.yaml", "kustomization.yml", "Kustomization"])
def test_a_file_that_appears_where_a_name_points_counts(tmp_path: Path, name: str) -> None:
    files = {"app/kustomization.yaml": "resources: [../base, x.yaml]", "base/a.yaml": ""}
    before = digest_of(tmp_path, files, "app")
    unpacked(tmp_path, files | {f"base/{name}": ""})
    assert digest_of(tmp_path, files | {"app/x.yaml": ""}, "app") != before
    assert digest_of(tmp_path, files | {f"base/{name}": ""}, "app") != before
    assert digest_of(tmp_path, files | {f"app/{name}": "x"}, "app") != before


def test_numbers_name_files_too(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, {"kustomization.yaml": "resources: [1.10, 0x10]", "1.1": "", "16": "", "1.10": ""})
    assert closure(tree, "").files == {"kustomization.yaml", "1.1", "16", "1.10"}


def test_components_of_the_spec_are_read(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, KINDS)
    found = closure(tree, "bases/web", ["../../components/c", "../../../outside", "/abs", "gone"])
    assert found.files == READ["bases/web"] | {"components/c/kustomization.yaml"}
    assert reach(tree.root, tree.files, "bases/web", components=["../../components/c"]).files == 4


def test_references_in_a_circle_end(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, {"a/kustomization.yaml": "resources: [../b]", "b/kustomization.yaml": "resources: [../a, ., ..]"})
    assert closure(tree, "a").files == {"a/kustomization.yaml", "b/kustomization.yaml"}


def test_the_same_files_at_another_path_are_another_build(tmp_path: Path) -> None:
    files = {f"{name}/a.yaml": config_map("a") for name in ("x", "y")}
    assert digest_of(tmp_path, files, "x") != digest_of(tmp_path, files, "y")


def test_only_reached_kustomization_files_are_opened(tmp_path: Path) -> None:
    """The rest of a large artifact is not looked at: here it is not even on disk."""
    tree = unpacked(tmp_path, KINDS)
    files = dict(tree.files) | digests({f"other/{n}/kustomization.yaml": f"resources: [x{n}]" for n in range(10_000)})
    for name in KINDS:
        if not name.lower().rpartition("/")[2].startswith("kustomization"):
            (tmp_path / name).unlink()
    assert reach(tmp_path, files, "prod").files == len(READ["prod"])


# --- against real builds

FOLDERS = ("a", "b", "b/c", "d", "e")
LEAVES = ("m.yaml", "t.txt", "x.env", "p.yaml")


@st.composite
def kustomizations(draw: st.DrawFn, index: int) -> str:
    """A kustomization file for folder number `index`, which refers to later folders only."""
    here = FOLDERS[index]
    up = "../" * (here.count("/") + 1)
    later = [f"{up}{name}" for name in FOLDERS[index + 1 :]]
    lines = [f"namePrefix: {draw(st.sampled_from(['x-', 'y-']))}"]
    resources = draw(st.lists(st.sampled_from(["m.yaml", "./m.yaml", *later]), min_size=1, max_size=3, unique=True))
    lines.append(f"resources: [{', '.join(resources)}]")
    if draw(st.booleans()):
        source = draw(st.sampled_from(["t.txt", "k=t.txt", f"k={up}d/t.txt", f"{up}e/x.env"]))
        kind = draw(st.sampled_from(["configMapGenerator", "secretGenerator"]))
        lines.append(f"{kind}: [{{name: g{index}, files: ['{source}'], envs: [x.env]}}]")
    if draw(st.integers(0, 3)) == 0:
        lines.append(f"patches: [{{path: {draw(st.sampled_from(['p.yaml', f'{up}e/p.yaml']))}, target: {{kind: ConfigMap}}}}]")
    if draw(st.integers(0, 3)) == 0:
        lines.append(f"components: [{up}comp]")
    return "\n".join(lines) + "\n"


@st.composite
def trees(draw: st.DrawFn) -> dict[str, str]:
    files: dict[str, str] = {"comp/m.yaml": config_map("comp"), "comp/t.txt": "t"}
    files["comp/kustomization.yaml"] = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n" + draw(
        st.sampled_from(["resources: [m.yaml]\n", "nameSuffix: -c\n"])
    )
    for index, folder in enumerate(FOLDERS):
        if draw(st.integers(0, 5)):
            files[f"{folder}/kustomization.yaml"] = draw(kustomizations(index))
        files |= {
            f"{folder}/m.yaml": config_map(f"m{index}", k="1"),
            f"{folder}/t.txt": "text",
            f"{folder}/x.env": "K=v",
            f"{folder}/p.yaml": config_map("any", patched="1"),
        }
    return files


@st.composite
def changes(draw: st.DrawFn, files: dict[str, str]) -> dict[str, str]:
    """The same tree with one file changed, removed or added."""
    name = draw(st.sampled_from(sorted(files)))
    kind = draw(st.sampled_from(["change", "change", "remove", "add"]))
    if kind == "remove":
        return {path: text for path, text in files.items() if path != name}
    if kind == "add":
        folder = draw(st.sampled_from(FOLDERS))
        return files | {f"{folder}/{draw(st.sampled_from(['new.yaml', 'kustomization.yml']))}": config_map("new")}
    return files | {name: files[name].replace("1", "2").replace("text", "other").replace("K=v", "K=w").replace("x-", "z-")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_no_change_of_an_outcome_goes_unnoticed(data: st.DataObject) -> None:
    """Two builds each: with the whole tree in place, and after a change that the digest does not see."""
    before = data.draw(trees())
    after = data.draw(changes(before))
    path = data.draw(st.sampled_from(FOLDERS[:3]))
    with tempfile.TemporaryDirectory() as folder:
        one, two = unpacked(Path(folder) / "one", before), unpacked(Path(folder) / "two", after)
        same = reach(one.root, one.files, path).digest == reach(two.root, two.files, path).digest
        if same:
            assert asyncio.run(outcomes(Path(folder), one.root, one.files, path)) == asyncio.run(
                outcomes(Path(folder), two.root, two.files, path)
            )


async def outcomes(folder: Path, root: Path, files: object, path: str) -> list[object]:
    """What comes of a build that sees what is reached, which must be what comes of one that sees everything."""
    builder = Builder(folder / "work", program=kustomize())
    results: list[object] = []
    for whole in (False, True):
        tree = unpacked(root, {name: (root / name).read_text() for name in files})  # type: ignore[attr-defined]
        if whole:
            # A reference to a plugin that does nothing makes every file of the artifact visible.
            everything = {name: (root / name).read_text() for name in tree.files}
            name = f"{path}/kustomization.yaml"
            if name in everything:
                everything[name] += 'generators: ["apiVersion: builtin\\nkind: ConfigMapGenerator\\nmetadata: {name: none}\\n"]\n'
            tree = unpacked(folder / "whole", everything)
        try:
            objects = await rendered(builder, tree, path)
            results.append([one for one in objects if not one["metadata"]["name"].partition("none")[1]])
        except BuildFailed as error:
            results.append(str(error))
    builder.close()
    assert results[0] == results[1]
    return results
