"""`imagebot get` on a folder: what a person and what a program is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from reconcile.cli.main import main
from reconcile.errors import Failed
from reconcile.yamlio import load_documents
from tests.support.bench import bench, manifest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def get(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["get", *arguments, "--dir", str(tmp_path / "manifests"), "--state", str(tmp_path / "state")])
        structlog.reset_defaults()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
async def objects(tmp_path: Path) -> None:
    """Two objects: one ready, one failed with a message made to spoil a terminal; and a third that nobody has looked at."""
    async with bench(tmp_path) as world:
        await world.declare(manifest("a", annotations={"answer": "y", "number": "1.10"}))
        await world.step()
        await world.declare(manifest("b", namespace="other"))
        world.reconciler.outcome = Failed("Broken", "it [red]broke[/nothing] \x1b[2J with\tan escape")
        await world.step((await world.store.list("ImageRepository", "other"))[0].key)
        await world.declare({
            "apiVersion": "image.toolkit.fluxcd.io/v1",
            "kind": "ImagePolicy",
            "metadata": {"name": "c", "namespace": "default"},
            "spec": {"imageRepositoryRef": {"name": "a"}, "policy": {"alphabetical": {}}},
        })  # fmt: skip


pytestmark = pytest.mark.usefixtures("objects")


def test_the_table_of_all_objects(get: Run) -> None:
    code, out, _ = get()
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["NAMESPACE", "KIND/NAME", "READY", "REASON", "AGE", "MESSAGE"]
    assert len(lines) == 4
    rows = {line.split()[1]: line.split() for line in lines[1:]}
    assert rows["ImageRepository/a"][2:4] == ["True", "Succeeded"]
    assert rows["ImageRepository/b"][2:4] == ["False", "Broken"]
    assert rows["ImagePolicy/c"][2] == "-"
    assert "all is well" in out


def test_a_message_from_outside_does_nothing_to_the_terminal(get: Run) -> None:
    for arguments in ((), ("imagerepositories",)):
        _, out, _ = get(*arguments)
        assert "it [red]broke[/nothing]" in out
        assert "\x1b" not in out


def test_json_is_a_list_with_status(get: Run) -> None:
    code, out, _ = get("-o", "json")
    found = json.loads(out)
    assert (code, found["apiVersion"], found["kind"]) == (0, "v1", "List")
    items = {item["metadata"]["name"]: item for item in found["items"]}
    assert sorted(items) == ["a", "b", "c"]
    assert items["a"]["status"]["conditions"][0]["message"] == "all is well"
    assert items["a"]["metadata"]["generation"] == items["a"]["status"]["observedGeneration"] == 1
    assert items["a"]["spec"] == {"image": "registry.example/a", "interval": "1m"}
    assert items["c"]["status"] == {"observedGeneration": -1}


def test_yaml_says_the_same_to_every_reader(get: Run) -> None:
    expected = json.loads(get("-o", "json")[1])
    out = get("-o", "yaml")[1]
    assert yaml.safe_load(out) == expected
    found: Any
    ((found, _),) = load_documents(out, "out")
    assert [i["metadata"] | {"annotations": None} for i in found["items"]] == [
        i["metadata"] | {"annotations": None} for i in expected["items"]
    ]


def test_names(get: Run) -> None:
    assert sorted(get("-o", "name")[1].splitlines()) == ["imagepolicy/c", "imagerepository/a", "imagerepository/b"]


@pytest.mark.parametrize(
    "words", [("imagerepository/a",), ("imgrepo/a",), ("ImageRepository", "a"), ("imagerepositories.image", "a")]
)
def test_one_object_is_named_in_many_ways(get: Run, words: tuple[str, ...]) -> None:
    code, out, _ = get(*words, "-o", "name")
    assert (code, out) == (0, "imagerepository/a\n")


def test_a_namespace_limits(get: Run) -> None:
    assert get("-n", "other", "-o", "name")[1] == "imagerepository/b\n"
    assert json.loads(get("-n", "nowhere", "-o", "json")[1])["items"] == []


def test_an_unknown_kind_is_answered_with_a_suggestion(get: Run) -> None:
    code, out, err = get("imagerepositry")
    assert code != 0
    assert out == ""
    assert 'no kind "imagerepositry" (did you mean "imagerepository"?)' in err


def test_an_unknown_object_is_an_error(get: Run) -> None:
    code, out, err = get("imagerepository/nobody")
    assert (code, out) == (1, "")
    assert '"nobody" not found' in err


def test_without_state_what_is_declared_is_shown_and_nothing_is_written(tmp_path: Path, get: Run) -> None:
    state = tmp_path / "state"
    for path in state.iterdir():
        path.unlink()
    state.rmdir()
    code, out, _ = get("-o", "json")
    found = json.loads(out)
    assert code == 0
    assert [item["status"] for item in found["items"]] == [{"observedGeneration": -1}] * 3
    assert not state.exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, get: Run) -> None:
    (tmp_path / "manifests").rename(tmp_path / "away")
    code, _, err = get()
    assert code == 1
    assert "is not a folder" in err
