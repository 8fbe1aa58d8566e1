"""The table of sources and Kustomizations, and what --status-selector chooses."""

from __future__ import annotations

from typing import Any

import click
import pytest

from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.source import GIT_REPOSITORY, HELM_REPOSITORY
from reconcile.cli.revisions import origin_of, print_revisions, revision_of, short, status_selector

Object = dict[str, Any]
HASH = "0123456789abcdef0123456789abcdef01234567"


def thing(kind: str, name: str = "web", spec: Object | None = None, ready: str = "", message: str = "", **status: Any) -> Object:
    conditions = [{"type": "Ready", "status": ready, "message": message}] if ready else []
    meta = {"name": name, "namespace": "apps", "creationTimestamp": "2020-01-01T00:00:00Z"}
    return {"kind": kind, "metadata": meta, "spec": spec or {}, "status": {"conditions": conditions, **status}}


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (f"main@sha1:{HASH}", "main@sha1:01234567"),
        (f"stored artifact for revision 'main@sha1:{HASH}'", "stored artifact for revision 'main@sha1:01234567'"),
        ("sha256:" + "ab" * 32, "sha256:abababab"),
        ("sha512:" + "ab" * 64, "sha512:abababab"),
        (HASH[:-1], HASH[:-1]),
        ("ab" * 65, "ab" * 65),
        ("6.1.0", "6.1.0"),
    ],
)
def test_hashes_are_cut(text: str, cut: str) -> None:
    assert short(text) == cut


def test_revisions_and_origins() -> None:
    reference = {"kind": "OCIRepository", "name": "app"}
    applied = thing("Kustomization", spec={"sourceRef": reference}, lastAppliedRevision="1.0@sha256:x")
    assert (revision_of(applied), origin_of(applied)) == ("1.0@sha256:x", "OCIRepository/apps/app")
    assert origin_of(thing("Kustomization", spec={"sourceRef": {**reference, "namespace": "flux"}})) == "OCIRepository/flux/app"
    held = thing("GitRepository", spec={"url": "https://git.test/x"}, artifact={"revision": "main@sha1:1"})
    assert (revision_of(held), origin_of(held)) == ("main@sha1:1", "https://git.test/x")
    assert origin_of(thing("Bucket", spec={"bucketName": "b", "endpoint": "minio.test"})) == "minio.test/b"
    assert revision_of(thing("GitRepository")) == ""


def test_the_table_of_one_kind_and_of_several(capsys: pytest.CaptureFixture[str]) -> None:
    source = thing(
        "GitRepository", spec={"suspend": True}, ready="False", message=f"lost {HASH}", artifact={"revision": f"main@sha1:{HASH}"}
    )
    static = thing("HelmRepository", "charts", spec={"type": "oci", "url": "oci://r.test/charts"})
    fresh = thing("Kustomization", "app")
    print_revisions([GIT_REPOSITORY, HELM_REPOSITORY, KUSTOMIZATION], [source, static, fresh], namespaces=True, wide=False)
    rows = [line.split(maxsplit=5) for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["NAMESPACE", "NAME", "REVISION", "SUSPENDED", "READY", "MESSAGE"],
        ["apps", "gitrepository/web", "main@sha1:01234567", "True", "False", "lost 01234567"],
        ["apps", "helmrepository/charts", "False", "True", "Helm", "repository is Ready"],
        ["apps", "kustomization/app", "False", "False", "waiting", "to be reconciled"],
    ]
    print_revisions([GIT_REPOSITORY], [source], namespaces=False, wide=True)
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "REVISION", "SUSPENDED", "READY", "SOURCE", "AGE", "MESSAGE"]
    assert row.split()[:2] == ["web", f"main@sha1:{HASH}"]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", ["good", "bad", "fresh"]),
        ("ready=true", ["good"]),
        ("Ready=FALSE", ["bad"]),
        ("ready!=true", ["bad", "fresh"]),
        ("ready=unknown", ["fresh"]),
        ("Stalled=True", []),
    ],
)
def test_the_state_that_objects_are_chosen_by(text: str, chosen: list[str]) -> None:
    objects = [
        thing("GitRepository", "good", ready="True"),
        thing("GitRepository", "bad", ready="False"),
        thing("GitRepository", "fresh"),
    ]
    chooses = status_selector(text)
    assert [each["metadata"]["name"] for each in objects if chooses(each)] == chosen


@pytest.mark.parametrize("text", ["ready", "ready==true", "=true", "ready=true,stalled=true"])
def test_what_is_no_state(text: str) -> None:
    with pytest.raises(click.UsageError, match="such as ready=false"):
        status_selector(text)
