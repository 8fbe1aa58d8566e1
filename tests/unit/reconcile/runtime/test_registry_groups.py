"""Groups of controllers: which run, and which kinds they need followed."""

from __future__ import annotations

import pytest

from reconcile.app import Registry, load_packages
from reconcile.errors import Invalid


def test_only_the_kinds_of_the_chosen_groups_are_followed() -> None:
    registry = load_packages()
    image, canary = registry.followed(["image"]), registry.followed(["canary"])
    assert image == ["GitRepository", "ImageRepository", "ImagePolicy", "ImageUpdateAutomation", "ImageHold"]
    assert sorted(canary) == ["AlertProvider", "Canary", "MetricTemplate"]
    assert set(registry.followed(["image", "canary"])) == {*image, *canary}
    source, kustomize = registry.followed(["source"]), registry.followed(["kustomize"])
    assert source == ["GitRepository", "OCIRepository", "HelmRepository", "Bucket", "ExternalArtifact"]
    assert kustomize == ["GitRepository", "OCIRepository", "Bucket", "ExternalArtifact", "Kustomization"]
    assert set(registry.followed()) == {*image, *canary, *source, *kustomize} == set(registry.scheme.kinds)


def test_a_group_that_does_not_say_what_it_reads_reads_all() -> None:
    registry = load_packages()
    del registry.reads["image"]
    assert registry.followed(["image"]) == list(registry.scheme.kinds)


def test_a_group_that_is_not_there_is_refused() -> None:
    with pytest.raises(Invalid, match="no controllers named 'toaster'; there are: canary, image, kustomize, source"):
        load_packages().chosen(["image", "toaster"])
    assert Registry().chosen() == []
