"""`imagebot crds`: what is printed, written, compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from reconcile.api.crd import definitions
from reconcile.app import load_packages
from reconcile.cli.main import EXIT_USAGE, main

MADE = definitions(load_packages().scheme)
POLICIES = "imagepolicies.image.toolkit.fluxcd.io"


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["crds", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_all_kinds_are_printed_as_documents(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    text = capsys.readouterr().out
    assert list(yaml.safe_load_all(text)) == list(MADE.values())
    assert "&id" not in text


@pytest.mark.parametrize("word", ["imgpol", "ImagePolicy", "imagepolicies", POLICIES])
def test_one_kind_by_any_of_its_names(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(word, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"apiVersion": "v1", "kind": "List", "items": [MADE[POLICIES]]}


def test_an_unknown_kind_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("imagepolicy", "imagepolice") == 1
    assert 'no kind "imagepolice" (did you mean "imagepolicy"?)' in capsys.readouterr().err


def test_written_files_pass_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--write", tmp_path / "new" / "crds") == 0
    assert {path.name for path in (tmp_path / "new" / "crds").iterdir()} == {f"{name}.yaml" for name in MADE}
    assert run("--check", tmp_path / "new" / "crds") == 0
    assert capsys.readouterr().out == ""


def test_the_check_names_every_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--write", tmp_path)
    first, second, *_ = sorted(tmp_path.iterdir())
    first.unlink()
    second.write_text(second.read_text().replace("^.*\\.sig$", "^.*\\.att$").replace("Tags", "Labels") + "# edited\n")
    (tmp_path / "stray.yaml").write_text("")
    assert run("--check", tmp_path) == 1
    told = capsys.readouterr().err
    for part in (
        f"{first.name} is missing",
        f"{second.name} is not what the models say",
        "stray.yaml in",
        "imagebot crds --write",
    ):
        assert part in told


def test_the_check_of_one_kind_does_not_mind_others(tmp_path: Path) -> None:
    run("--write", tmp_path)
    assert run("--check", tmp_path, "imgpol") == 0


def test_check_and_write_exclude_each_other(tmp_path: Path) -> None:
    assert run("--write", tmp_path, "--check", tmp_path) == EXIT_USAGE
    assert list(tmp_path.iterdir()) == []
