"""Kinds, names and places as people write them; how an object is doing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import structlog

from reconcile.app import load_packages
from reconcile.cli.folder import parse_selector
from reconcile.cli.main import EXIT_USAGE, main
from reconcile.cli.target import DURATION, has_kubeconfig, one_subject, subjects
from reconcile.cli.verdict import verdict
from reconcile.errors import Invalid

SCHEME = load_packages().scheme


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Commands direct the logs to the stderr of their test, which is closed afterwards."""
    yield
    structlog.reset_defaults()


REPOSITORY, POLICY, AUTOMATION, GIT = "ImageRepository", "ImagePolicy", "ImageUpdateAutomation", "GitRepository"
CANARY, TEMPLATE, ALERTS = "Canary", "MetricTemplate", "AlertProvider"
CANARIES = [(CANARY, None), (TEMPLATE, None), (ALERTS, None)]
SOURCES = [(kind, None) for kind in (GIT, "OCIRepository", "HelmRepository", "Bucket", "ExternalArtifact")]
IMAGES = [(REPOSITORY, None), (POLICY, None), (AUTOMATION, None), ("ImageHold", None)]
EVERYTHING = [*SOURCES, ("Kustomization", None), *CANARIES, *IMAGES]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("imgpol", [(POLICY, None)]),
        ("ImagePolicy.image.toolkit.fluxcd.io web", [(POLICY, "web")]),
        ("imgpol a b", [(POLICY, "a"), (POLICY, "b")]),
        ("imgpol/a iua/b", [(POLICY, "a"), (AUTOMATION, "b")]),
        ("imgrepo,imgpol", [(REPOSITORY, None), (POLICY, None)]),
        ("imgrepo,imgpol web", [(REPOSITORY, "web"), (POLICY, "web")]),
        ("image repository web", [(REPOSITORY, "web")]),
        ("images repositories", [(REPOSITORY, None)]),
        ("image policy web", [(POLICY, "web")]),
        ("image policies", [(POLICY, None)]),
        ("image update a b", [(AUTOMATION, "a"), (AUTOMATION, "b")]),
        ("image updates", [(AUTOMATION, None)]),
        ("image imgpol web", [(POLICY, "web")]),
        ("source git fleet", [(GIT, "fleet")]),
        ("source oci fleet", [("OCIRepository", "fleet")]),
        ("source helm charts", [("HelmRepository", "charts")]),
        ("sources", SOURCES),
        ("sources all", SOURCES),
        ("fluxcd-sources", SOURCES),
        ("ks apps", [("Kustomization", "apps")]),
        ("kustomizations", [("Kustomization", None)]),
        ("fluxcd-appliers", [("Kustomization", None)]),
        ("images", [(REPOSITORY, None), (POLICY, None), (AUTOMATION, None)]),
        ("images all", [(REPOSITORY, None), (POLICY, None), (AUTOMATION, None)]),
        ("fluxcd-images", [(REPOSITORY, None), (POLICY, None), (AUTOMATION, None)]),
        ("all", EVERYTHING),
        ("", EVERYTHING),
        ("canary web", [(CANARY, "web")]),
        ("canaries,metrictemplates", [(CANARY, None), (TEMPLATE, None)]),
        ("flagger", CANARIES),
        ("alertprovider.flagger.app chat", [(ALERTS, "chat")]),
    ],
)
def test_words(words: str, meant: list[tuple[str, str | None]]) -> None:
    assert [(subject.info.kind, subject.name) for subject in subjects(SCHEME, words.split())] == meant


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("imgpool", 'no kind "imgpool"'),
        ("imgpol,nothing", 'no kind "nothing"'),
        ("image nothing", 'no kind "nothing"'),
        ("imgpol Web", '"Web" cannot be the name of an object'),
        ("imgpol/a/b", '"a/b" cannot be the name of an object'),
        ("imgpol ..", '".." cannot be the name of an object'),
        (f"imgpol {'a' * 254}", "cannot be the name of an object"),
    ],
)
def test_bad_words(words: str, text: str) -> None:
    with pytest.raises(Invalid) as error:
        subjects(SCHEME, words.split())
    assert text in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("words", ["imgpol/a b", "imgpol/", "/a"])
def test_words_that_do_not_fit_together(words: str) -> None:
    with pytest.raises(click.UsageError):
        subjects(SCHEME, words.split())


@pytest.mark.parametrize("words", ["", "imgpol", "imgpol a b", "imgpol/a imgpol/b"])
def test_not_one_object(words: str) -> None:
    with pytest.raises(click.UsageError):
        one_subject(SCHEME, words.split())


@pytest.mark.parametrize(("text", "seconds"), [("5m", 300.0), ("1h30m", 5400.0), ("500ms", 0.5), ("90", 90.0), ("0.5", 0.5)])
def test_durations(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-5m", "25h", "soon", "1.2.3", "5 m"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(click.UsageError):
        DURATION.convert(text, None, None)


# --- places


def test_where_a_cluster_may_be(tmp_path: Path) -> None:
    assert not has_kubeconfig("", {"HOME": str(tmp_path)})
    assert has_kubeconfig("x", {"HOME": str(tmp_path)})
    assert has_kubeconfig("", {"HOME": str(tmp_path), "KUBECONFIG": "x"})
    assert has_kubeconfig("", {"HOME": str(tmp_path), "KUBERNETES_SERVICE_HOST": "x"})
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube/config").touch()
    assert has_kubeconfig("", {"HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["get"], 1, "neither a folder nor a cluster"),
        (["suspend", "imgpol/a"], 1, "no kubeconfig: name one with --kubeconfig"),
        (["get", "--kubeconfig", "does-not-exist"], 1, "does-not-exist"),
        (["get", "--dir", ".", "--context", "a"], EXIT_USAGE, "give one of the two"),
        (["get", "-n", "a", "-A"], EXIT_USAGE, "exclude each other"),
        (["get", "-n", "A b"], 1, 'namespace must be a valid DNS label: "A b"'),
        (["get", "imgpol/a", "-l", "a=b", "--dir", "."], EXIT_USAGE, "exclude each other"),
        (["resume", "imgpol", "a", "--all"], EXIT_USAGE, "names and --all exclude each other"),
        (["resume", "imgpol"], EXIT_USAGE, "name the objects, or say --all"),
        (["reconcile", "imgpol"], EXIT_USAGE, "name one object"),
    ],
)
def test_what_is_refused(arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (code, "")
    assert text in err
    assert code != 1 or err.count("\n") == 1


def test_a_kubeconfig_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("", "[]", "a: [", "clusters: 5\ncurrent-context: x\n"):
        path = tmp_path / "kubeconfig"
        path.write_text(text)
        with pytest.raises(SystemExit) as ended:
            main(["get", "--kubeconfig", str(path)])
        _, err = capsys.readouterr()
        assert ended.value.code == 1
        assert str(path) in err


# --- selectors of a folder


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a in (b, c),d", {"a": "c", "d": ""}, True),
        ("a notin (b),!d", {"a": "c", "d": ""}, False),
        (" a = b , x.example/c ", {"a": "b", "x.example/c": "1"}, True),
        ("a=", {"a": ""}, True),
    ],
)
def test_selectors(selector: str, labels: dict[str, str], matches: bool) -> None:
    assert parse_selector(selector)(labels) is matches


@pytest.mark.parametrize("selector", ["a in", "a in (b", "=b", "a b", "a=b c", ",,", "(a)"])
def test_bad_selectors(selector: str) -> None:
    with pytest.raises(Invalid, match="is not a label selector"):
        parse_selector(selector)


# --- how an object is doing


def status(*conditions: tuple[str, str, str, int], observed: int = 1) -> dict[str, Any]:
    return {
        "conditions": [
            {"type": kind, "status": value, "reason": reason, "message": f"{kind}!", "observedGeneration": generation}
            for kind, value, reason, generation in conditions
        ],
        "observedGeneration": observed,
    }


READY, FAILED, RETRY = ("Ready", "True", "Succeeded", 2), ("Ready", "False", "Failure", 2), "ProgressingWithRetry"


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ({}, "progressing"),
        ({"observedGeneration": -1}, "progressing"),
        (status(READY, observed=2), "current"),
        (status(("Ready", "True", "Succeeded", 1), observed=1), "progressing"),
        (status(("Reconciling", "True", "Progressing", 2), READY, observed=2), "progressing"),
        (status(("Reconciling", "True", RETRY, 2), FAILED, observed=1), "failed"),
        (status(("Reconciling", "True", "Progressing", 2), FAILED, observed=1), "progressing"),
        (status(("Reconciling", "True", RETRY, 1), ("Ready", "False", "Failure", 1), observed=-1), "progressing"),
        (status(("Stalled", "True", "Bad", 2), FAILED, observed=2), "failed"),
        (status(("Stalled", "True", "Bad", 1), ("Ready", "False", "Bad", 1), observed=1), "progressing"),
        (status(("Ready", "Unknown", "Progressing", 2), observed=2), "progressing"),
        (status(observed=2), "progressing"),
    ],
)
def test_verdicts(given: dict[str, Any], state: str) -> None:
    assert verdict({"metadata": {"generation": 2}, "status": given}).state == state
