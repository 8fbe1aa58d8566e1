"""Building a folder of this machine: where its root is, what counts as a file of it, and the command without a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import yaml

from reconcile.app import load_packages
from reconcile.cli.building import from_file, opened, root_of
from reconcile.cli.main import EXIT_USAGE, main
from reconcile.errors import Invalid
from tests.support.programs import find_program

SPEC = {
    "interval": "1h",
    "path": "./apps/web",
    "prune": True,
    "targetNamespace": "shop",
    "sourceRef": {"kind": "GitRepository", "name": "fleet"},
    "commonMetadata": {"labels": {"team": "shop"}},
    "decryption": {"provider": "sops", "secretRef": {"name": "keys"}},
    "postBuild": {"substitute": {"tier": "gold"}, "substituteFrom": [{"kind": "ConfigMap", "name": "vars"}]},
}
CIPHER = "ENC[AES256_GCM,data:zzz,iv:zzz,tag:zzz,type:str]"


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work tree with one application."""
    monkeypatch.setenv("PATH", f"{find_program('kustomize').parent}{os.pathsep}{os.environ['PATH']}")
    root = tmp_path / "fleet"
    (root / ".git").mkdir(parents=True)
    write(root, "apps/web/settings.yaml", {"kind": "ConfigMap", "data": {"tier": "${tier}", "more": "${more:=none}"}})
    write(root, "apps/web/login.yaml", {"kind": "Secret", "data": {"password": CIPHER}, "sops": {"mac": CIPHER}})
    write(root, "apps/base/base.yaml", {"kind": "ConfigMap"})
    body = {"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": {"name": "web"}, "spec": SPEC}
    (root / "web.yaml").write_text(f"{yaml.safe_dump({'kind': 'Other'})}---\n{yaml.safe_dump(body)}")
    return root


def write(root: Path, path: str, body: dict[str, object]) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    named = {"apiVersion": "v1", "metadata": {"name": Path(path).stem}, **body}
    (root / path).write_text(yaml.safe_dump(named))


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def test_the_root_is_the_work_tree(repository: Path) -> None:
    assert root_of(repository / "apps/web", "./other") == (repository, "apps/web")
    assert root_of(repository, "./apps/web") == (repository, "")


def test_without_a_work_tree_the_path_of_the_spec_leads_there(tmp_path: Path) -> None:
    (tmp_path / "x/apps/web").mkdir(parents=True)
    assert root_of(tmp_path / "x/apps/web", "./apps/web") == (tmp_path / "x", "apps/web")
    assert root_of(tmp_path / "x/apps/web", "./apps/other") == (tmp_path / "x/apps/web", "")
    assert root_of(tmp_path / "x/apps/web", None) == (tmp_path / "x/apps/web", "")
    with pytest.raises(Invalid, match="is not a folder"):
        root_of(tmp_path / "none", None)


def test_files_are_those_of_an_artifact(repository: Path) -> None:
    (repository / ".git/config").write_text("")
    (repository / "link.yaml").symlink_to(repository / "web.yaml")
    (repository / "logo.png").write_text("")
    assert set(opened(repository, ()).files) == {
        "web.yaml", "apps/base/base.yaml", "apps/web/settings.yaml", "apps/web/login.yaml",
    }  # fmt: skip
    (repository / "apps/.sourceignore").write_text("base/\n")
    assert set(opened(repository, ("login.yaml",)).files) == {
        "web.yaml", "logo.png", "apps/.sourceignore", "apps/web/settings.yaml",
    }  # fmt: skip


def test_the_kustomization_of_a_file(repository: Path) -> None:
    scheme = load_packages().scheme
    found = from_file(scheme, repository / "web.yaml", "web", None, "default")
    assert (found.key.namespace, found.spec.path) == ("default", "./apps/web")
    with pytest.raises(Invalid, match="has no Kustomization api"):
        from_file(scheme, repository / "web.yaml", "api", None, "default")
    with pytest.raises(Invalid, match=r"web\.yaml cannot be read"):
        from_file(scheme, repository / "apps/web.yaml", "web", None, "default")
    (repository / "web.yaml").write_text((repository / "web.yaml").read_text().replace("targetNamespace", "targetNamespaces"))
    with pytest.raises(Invalid, match=r"web\.yaml:\d+: unknown field spec.targetNamespaces"):
        from_file(scheme, repository / "web.yaml", "web", None, "default")


def test_a_dry_run_prints_what_would_be_applied(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, file = str(repository / "apps/web"), str(repository / "web.yaml")
    assert run("build", "ks", "web", "--path", path, "--kustomization-file", file, "--dry-run", "-n", "flux") == 0
    out, err = capsys.readouterr()
    login, settings = yaml.safe_load_all(out)
    assert err == ""
    assert settings["data"] == {"tier": "gold", "more": "none"}
    assert settings["metadata"]["namespace"] == "shop"
    owner = {"kustomize.toolkit.fluxcd.io/name": "web", "kustomize.toolkit.fluxcd.io/namespace": "flux"}
    assert settings["metadata"]["labels"] == {"team": "shop", **owner}
    assert login["data"] == {"password": "KipTT1BTKio="}
    assert "sops" not in login


def test_a_build_that_fails_names_the_file(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "apps/web/broken.yaml").write_text("kind: [\n")
    path, file = str(repository / "apps/web"), str(repository / "web.yaml")
    words = ("build", "kustomization/web", "--path", path, "--kustomization-file", file, "--dry-run")
    assert run(*words) == 1
    assert "broken.yaml" in capsys.readouterr().err
    assert run(*words, "--ignore-paths", "broken.yaml") == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("build ks web --path . --dry-run", "name the file that defines the Kustomization with --kustomization-file"),
        ("build ks web", "Missing option '--path'"),
        ("build deployment web --path .", "write imagebot build kustomization NAME"),
        ("diff ks web --path . -A", "diff is about one object: name its namespace with -n"),
        ("diff ks web --path . --dir .", "Kustomizations are applied to clusters, never to a folder: leave --dir out"),
        ("tree deployment web", "write imagebot tree kustomization NAME"),
        ("tree ks", "Missing argument 'NAME'"),
        ("trace web", "as KIND/NAME or KIND NAME, or an image with its tag"),
        ("reconcile imagepolicy web --with-source", "--with-source is for Kustomizations"),
        ("get sources --status-selector ready", "such as ready=false or ready!=true"),
    ],
)
def test_wrong_use_is_answered_with_what_to_do(words: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words.split()) == EXIT_USAGE
    assert text in " ".join(capsys.readouterr().err.split())


def test_without_a_cluster_a_build_says_how_to_do_without(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", "ks", "web", "--path", ".") == 1
    assert "--kustomization-file FILE --dry-run" in capsys.readouterr().err
    assert run("diff", "ks", "web", "--path", ".") == 2
