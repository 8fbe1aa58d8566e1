"""The image manifests of the chapter are read as written, with nothing lost. The alphabetical one is commented out there."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconcile.api.resource import AnyResource
from reconcile.app import load_packages
from reconcile.yamlio import load_documents

FOLDER = Path(__file__).parent
NAMES = ("image-policy", "image-policy-alphabetical", "image-repository", "image-update-automation")


def read(name: str) -> AnyResource:
    scheme = load_packages().scheme
    path = FOLDER / f"{name}.yaml"
    ((body, _),) = load_documents(path.read_text(), path.name)
    info = scheme.find(body["apiVersion"], body["kind"])
    assert info is not None
    return scheme.decode(info, body, strict=True)


def test_these_are_all() -> None:
    assert sorted(path.stem for path in FOLDER.glob("image-*.yaml")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_strict_decoding_accepts_it(name: str) -> None:
    found = read(name)
    assert found.api_version in {"image.toolkit.fluxcd.io/v1beta1", "image.toolkit.fluxcd.io/v1beta2"}
    assert found.key.namespace == "flux-system"


def test_the_repository() -> None:
    spec = read("image-repository").spec
    assert (spec.image, float(spec.interval), spec.provider) == ("ghcr.io/company/my-app", 60.0, "generic")
    assert (spec.secret_ref.name, spec.cert_secret_ref.name) == ("registry-credentials", "ca-cert")


def test_the_policies() -> None:
    spec = read("image-policy").spec
    assert spec.policy.semver.range == ">=1.0.0 <2.0.0"
    assert (spec.filter_tags.pattern, spec.filter_tags.extract) == ("^v(?P<version>.*)$", "$version")
    alphabetical = read("image-policy-alphabetical").spec.policy.alphabetical
    assert (alphabetical.order, alphabetical.filter) == ("asc", "^staging-[a-f0-9]+$")


def test_the_automation_and_its_empty_policy() -> None:
    spec = read("image-update-automation").spec
    assert spec.policy is None
    assert spec.git.commit.signing_key.secret_ref.name == "flux-gpg-signing-key"
    assert "{{ range .Updated.Images -}}" in spec.git.commit.message_template
    assert (spec.git.checkout.ref.branch, spec.git.push.branch, spec.update.strategy) == ("main", "main", "Setters")
