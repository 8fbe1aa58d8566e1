"""Which files an update looks at."""

from __future__ import annotations

import pytest

from imagebot.markers.files import is_candidate, under, update_root


@pytest.mark.parametrize("path", ["a.yaml", "a.yml", "d/e/a.yaml", ".hidden/a.yml", "Kustomization", "d/Kustomization", ".yaml"])
def test_looked_at(path: str) -> None:
    assert is_candidate(path)


@pytest.mark.parametrize(
    "path",
    ["a.YAML", "a.Yml", "a.json", "a.yaml.tpl", "kustomization", "Kustomization.txt", "yaml", "d.yaml/readme"],
)
def test_not_looked_at(path: str) -> None:
    assert not is_candidate(path)


@pytest.mark.parametrize(
    ("path", "root"),
    [
        (None, ""),
        ("", ""),
        (".", ""),
        ("./", ""),
        ("/", ""),
        ("./apps", "apps"),
        ("/apps/", "apps"),
        ("apps//web/.", "apps/web"),
        ("../..", ""),
        ("../../etc", "etc"),
        ("apps/../../web", "web"),
        ("apps/web/..", "apps"),
    ],
)
def test_update_root_stays_inside(path: str | None, root: str) -> None:
    assert update_root(path) == root


@pytest.mark.parametrize(
    ("path", "root", "relative"),
    [
        ("a.yaml", "", "a.yaml"),
        ("apps/web/a.yaml", "", "apps/web/a.yaml"),
        ("apps/web/a.yaml", "apps", "web/a.yaml"),
        ("apps/web/a.yaml", "apps/web/a.yaml", "a.yaml"),
        ("apps2/a.yaml", "apps", None),
        ("apps/we.yaml", "apps/we", None),
        ("a.yaml", "apps", None),
    ],
)
def test_under(path: str, root: str, relative: str | None) -> None:
    assert under(path, root) == relative
