"""Building the pinned Go programs: once, however many ask, and with the reason when it cannot be done."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.controlplane_build import KUBERNETES, REPOSITORY, Unavailable
from tests.support.programs import PROGRAMS, find_program

FAKE_GO = """#!/bin/sh
echo "$@" >> "$LOG"
[ -z "$BROKEN" ] || { echo "no such module"; exit 1; }
for word; do :; done
name=${word%@*}; name=${name%/v5}
sleep 0.3; mkdir -p "$GOBIN"; cp "$0" "$GOBIN/${name##*/}"
"""


@pytest.fixture
def fake_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Go that builds at once; yields the file in which it notes what it was asked to do."""
    (tmp_path / "go").write_text(FAKE_GO)
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("IMAGEBOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def test_built_once_however_many_ask(fake_go: Path) -> None:
    said: list[str] = []
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: find_program("helm", said.append), range(3)))
    assert len(set(found)) == 1
    assert found[0].name == "helm"
    assert os.access(found[0], os.X_OK)
    (line,) = fake_go.read_text().splitlines()
    assert line.startswith("install -trimpath -ldflags -s -w ")
    assert line.endswith(f" helm.sh/helm/v3/cmd/helm@{PROGRAMS['helm'].version}")
    assert f"k8sVersionMinor={KUBERNETES.split('.')[1]} " in line
    assert len(said) == 1
    assert [path.name for path in found[0].parent.iterdir()] == ["helm"]


def test_a_build_that_fails_says_why_and_can_be_tried_again(
    fake_go: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BROKEN", "1")
    with pytest.raises(Unavailable, match="no such module"):
        find_program("helm")
    assert programs.main() == 1
    assert "no such module" in capsys.readouterr().err
    monkeypatch.delenv("BROKEN")
    assert programs.main() == 0
    assert [line for line in capsys.readouterr().out.splitlines() if ": /" in line] == [
        f"{name}: {find_program(name)}" for name in PROGRAMS
    ]


def test_without_go_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMAGEBOT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"^needs go: .* to build helm v3"):
        find_program("helm")


@pytest.mark.parametrize("name", ["kustomize", "sops"])
def test_the_image_has_the_versions_that_are_tested(name: str) -> None:
    program = PROGRAMS[name]
    assert f"{program.package}@{program.version} " in (REPOSITORY / "Dockerfile").read_text().replace("\n", " ")
