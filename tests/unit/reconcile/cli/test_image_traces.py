"""What the objects on the way of an image say, and how words for a trace are read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import pytest

from reconcile.cli import imagetrace
from reconcile.cli.imagetrace import Step, containers, running, split_image
from reconcile.cli.trace import image_of, kustomization_section, owner_by_labels, section_lines, source_section, subject_of
from reconcile.ports.cluster import Reference

Object = dict[str, Any]
NOW = datetime(2030, 1, 1, tzinfo=UTC)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGE = "registry.test:5000/shop/web"


def thing(kind: str, spec: Object | None = None, **status: Any) -> Object:
    return {"kind": kind, "metadata": {"name": "web", "namespace": "apps"}, "spec": spec or {}, "status": status}


@pytest.mark.parametrize(
    ("words", "image"),
    [
        (["web:1.0"], ("web", "1.0")),
        ([f"{IMAGE}:1.0"], (IMAGE, "1.0")),
        ([f"{IMAGE}:1.0@sha256:{'a' * 64}"], (IMAGE, "1.0")),
        ([IMAGE], None),
        (["deployment/web"], None),
        (["clusterrole", "system:node"], None),
    ],
)
def test_words_that_are_an_image(words: list[str], image: tuple[str, str] | None) -> None:
    assert image_of(words) == image


def test_words_that_are_an_object() -> None:
    assert subject_of(["deploy/web"]) == subject_of(["deploy", "web"]) == ("deploy", "web")
    for words in (["web"], ["a/b/c"], ["a", "b", "c"], ["/web"], ["a/b", "c"]):
        with pytest.raises(click.UsageError, match="name one object"):
            subject_of(words)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("web", ("web", "")),
        ("registry.test:5000/web", ("registry.test:5000/web", "")),
        (f"{IMAGE}:1.0", (IMAGE, "1.0")),
        (f"{IMAGE}:1.0@sha256:00", (IMAGE, "1.0")),
    ],
)
def test_images_are_split(text: str, parts: tuple[str, str]) -> None:
    assert split_image(text) == parts


def test_a_policy_says_what_it_chose() -> None:
    event = {
        "involvedObject": {"kind": "ImagePolicy", "namespace": "apps", "name": "web"},
        "metadata": {},
        "lastTimestamp": "2030-01-01T00:00:00Z",
        "message": f"Latest image tag for {IMAGE} resolved to 2.0",
    }
    found = thing("ImagePolicy", latestRef={"name": IMAGE, "tag": "2.0"}, observedPreviousRef={"name": IMAGE, "tag": "1.0"})
    name = "ImagePolicy/apps/web"
    assert imagetrace.chosen(found, IMAGE, "2.0", [event]) == Step("chosen", name, "2030-01-01T00:00:00Z", f"{IMAGE}:2.0")
    replaced = Step("chosen", name, "", f"{IMAGE}:2.0, which replaced 1.0", done=False)
    assert imagetrace.chosen(found, IMAGE, "1.0") == replaced


def test_an_automation_a_source_and_a_kustomization_say_how_far_it_got() -> None:
    refs = {"web": {"name": IMAGE, "tag": "2.0"}}
    automation = thing("ImageUpdateAutomation", observedPolicies=refs, lastPushCommit=COMMIT, lastPushTime="2030-01-01T00:00:01Z")
    name = "ImageUpdateAutomation/apps/web"
    assert imagetrace.committed(automation, IMAGE, "2.0") == Step("committed", name, "2030-01-01T00:00:01Z", "last push 01234567")
    assert not imagetrace.committed(automation, IMAGE, "1.0").done

    source = thing("GitRepository", artifact={"revision": f"main@sha1:{COMMIT}", "lastUpdateTime": "2030-01-01T00:00:02Z"})
    step = Step("fetched", "GitRepository/apps/web", "2030-01-01T00:00:02Z", "main@sha1:01234567")
    assert imagetrace.fetched(source, COMMIT) == step
    assert imagetrace.fetched(source, "f" * 40).what == "main@sha1:01234567, not the commit of the last push"
    assert imagetrace.fetched(thing("GitRepository"), COMMIT).what == "nothing yet"

    revision = f"main@sha1:{COMMIT}"
    history = [{"metadata": {"revision": revision}, "firstReconciled": "2030-01-01T00:00:03Z"}]
    ready = [{"type": "Ready", "status": "False", "message": "no kustomization", "lastTransitionTime": "2030-01-01T00:00:09Z"}]
    applied = thing("Kustomization", lastAppliedRevision=revision, history=history, conditions=ready)
    assert imagetrace.applied(applied, COMMIT).time == "2030-01-01T00:00:03Z"
    assert imagetrace.applied(applied, COMMIT).what == "main@sha1:01234567; no kustomization"


def test_objects_run_an_image_or_another_tag_of_it() -> None:
    pod = {"containers": [{"name": "web", "image": f"{IMAGE}:2.0"}, {"name": "log", "image": "log:1"}], "initContainers": []}
    reference = Reference("batch/v1", "CronJob", "apps", "web")
    found = {"kind": "CronJob", "metadata": {"name": "web"}, "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}}
    assert [each["name"] for each in containers(found)] == ["web", "log"]
    assert [(step.done, step.what) for step in running(reference, found, IMAGE, "2.0", NOW)] == [(True, "container web, Current")]
    assert [(step.done, step.what) for step in running(reference, found, IMAGE, "1.0", NOW)] == [(False, "container web has 2.0")]
    assert list(running(reference, found, "other", "1.0", NOW)) == []
    assert containers({"kind": "ConfigMap", "data": {}}) == []


def test_owners_are_known_by_their_labels() -> None:
    labels = {"kustomize.toolkit.fluxcd.io/name": "app", "kustomize.toolkit.fluxcd.io/namespace": "flux"}
    helm = {"helm.toolkit.fluxcd.io/name": "app", "helm.toolkit.fluxcd.io/namespace": "flux"}
    for given, group in (({**helm, **labels}, "kustomize.toolkit.fluxcd.io"), (helm, "helm.toolkit.fluxcd.io")):
        found = owner_by_labels({"metadata": {"labels": given}})
        assert found is not None
        assert (found[0], str(found[1])) == (group, "flux/app")
    assert owner_by_labels({"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "app"}}}) is None


def test_sections_have_no_credentials_and_no_empty_lines() -> None:
    source = thing("GitRepository", {"url": "https://user:hush@git.test/x", "ref": {"branch": "main"}})
    lines = section_lines(source_section(source), 13)
    assert lines[:2] == ["GitRepository:  web", "Namespace:      apps"]
    assert lines[2:] == ["URL:            https://git.test/x", "Branch:         main", "Status:         Unknown"]
    suspended = kustomization_section(thing("Kustomization", {"suspend": True, "sourceRef": {}}))
    assert (suspended["Path"], suspended["Suspended"], suspended["Status"]) == ("./", "True", "Unknown")
