"""Our definitions beside Flux's on real API servers: what one takes the other takes, what one refuses the other refuses.

Flux's are on a second, bare control plane, since two definitions of one name cannot be in one cluster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconcile.api.crd import definitions
from reconcile.app import load_packages
from tests.support import flux_schemas
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.controlplane_build import REPOSITORY
from tests.support.schema_cases import PLAIN, cases, least, sample
from tests.support.schema_sides import Side, bare_plane, table, tally

pytestmark = pytest.mark.slow

OURS = definitions(load_packages().scheme)
CRDS = REPOSITORY / "helm" / "crds"
SEED = REPOSITORY / "tests" / "seed"
FIXED = {"gitrepositories.source.toolkit.fluxcd.io": {"provider": "aws"}}
"""What the full example needs so that the rules hold."""
DROPPED = ("accessFrom", "gitImplementation")
"""Fields that v1 does not have; they have no effect."""

Object = dict[str, Any]


@pytest.fixture(scope="module")
def flux_plane(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Flux's definitions with every version there ever was; starts where the run has a cluster at all."""
    with bare_plane(tmp_path_factory.mktemp("programs")) as plane:
        for name in flux_schemas.NAMES:
            plane.api.install_crd(flux_schemas.of_all_times(name))
        yield plane


@pytest.fixture
def theirs(flux_plane: ControlPlane) -> Side:
    """Flux's side."""
    return Side(flux_plane, "default")


@pytest.fixture
def ours(control_plane: Cluster, namespace: str) -> Side:
    """Our side."""
    for manifest in OURS.values():
        control_plane.api.install_crd(manifest)
    return Side(control_plane, namespace)


def kind_of(name: str) -> tuple[str, str]:
    """Group and kind of a definition."""
    spec = OURS[name]["spec"]
    return spec["group"], spec["names"]["kind"]


def part(name: str, number: str, which: str) -> Object:
    """Flux's schema of `spec` or `status` in a version."""
    return dict(flux_schemas.schema(flux_schemas.version(name, number))["properties"][which])


@pytest.mark.parametrize("name", flux_schemas.NAMES)
def test_specs_of_v1_are_taken_and_refused_alike_with_the_same_words(name: str, theirs: Side, ours: Side) -> None:
    group, kind = kind_of(name)
    tried = cases(part(name, "v1", "spec"), FIXED.get(name))
    found = [(c, theirs.ask_spec(f"{group}/v1", kind, c.value), ours.ask_spec(f"{group}/v1", kind, c.value)) for c in tried]
    assert [(case.name, a, b) for case, a, b in found if a != b] == []
    assert min(tally(found).values()) > 30, tally(found)


@pytest.mark.parametrize("name", flux_schemas.NAMES)
def test_statuses_of_v1_are_taken_and_refused_alike_with_the_same_words(name: str, theirs: Side, ours: Side) -> None:
    group, kind = kind_of(name)
    spec = least(part(name, "v1", "spec"))
    manifest = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": "case-of-status"}, "spec": spec}
    stored = [side.api.create({**manifest, "metadata": {"name": "one", "namespace": side.namespace}}) for side in (theirs, ours)]
    tried = cases(part(name, "v1", "status"))
    try:
        found = [(c, theirs.ask_status(stored[0], c.value), ours.ask_status(stored[1], c.value)) for c in tried]
    finally:
        theirs.api.delete(f"{group}/v1", kind, "one", "default")
    assert [(case.name, a, b) for case, a, b in found if a != b] == []
    assert min(tally(found).values()) > 30, tally(found)


def deliberate(name: str, number: str, case: str) -> str | None:
    """Why a case of a dropped version has another answer with us, None when it should not."""
    git = name.startswith("gitrepositories")
    if git and case.startswith("accessFrom"):
        return "an open map with us: it has no effect"
    if git and number == "v1beta1" and case.startswith(("interval is", "timeout is")):
        return "v1beta1 had no pattern, and refused a wrong duration only when it was reconciled"
    if git and number == "v1beta1" and case.startswith("verify"):
        return "v1beta1 did not ask for the keys"
    return None


@pytest.mark.parametrize("number", flux_schemas.OLDER)
@pytest.mark.parametrize("name", flux_schemas.NAMES)
def test_specs_of_dropped_versions_are_taken_when_that_version_or_v1_took_them(
    name: str, number: str, theirs: Side, ours: Side
) -> None:
    group, kind = kind_of(name)
    wrong, counted = [], 0
    for case in cases(part(name, number, "spec")):
        old, mine = (side.ask_spec(f"{group}/{number}", kind, case.value) for side in (theirs, ours))
        expected = old[0]
        if expected == "refused" and mine[0] == "accepted":
            expected = theirs.ask_spec(f"{group}/v1", kind, without(DROPPED, case.value))[0]
        counted += old[0] == "accepted"
        if mine[0] != expected and deliberate(name, number, case.name) is None:
            wrong.append((case.name, old, mine))
        elif mine[0] == old[0] == "accepted":
            # Only v1beta1 and v1beta2 filled in the library.
            assert (without(DROPPED, old[1]) or {}).items() <= (mine[1] or {}).items(), case.name
    assert wrong == []
    assert counted > 30


@pytest.mark.parametrize("name", flux_schemas.NAMES)
def test_least_manifest_gets_the_same_defaults_in_every_version(name: str, ours: Side) -> None:
    group, kind = kind_of(name)
    spec = least(part(name, "v1", "spec"))
    answers = [ours.ask_spec(f"{group}/{number}", kind, spec) for number in ("v1", *flux_schemas.OLDER)]
    assert answers[0][0] == "accepted"
    assert answers[1:] == answers[:-1]
    assert answers[0][2] == {"observedGeneration": -1}


def stored_object(side: Side, name: str, number: str = "v1") -> Object:
    """An object with every field of spec and status set, stored on a side."""
    group, kind = kind_of(name)
    manifest = {
        "apiVersion": f"{group}/{number}", "kind": kind, "metadata": {"name": "one", "namespace": side.namespace},
        "spec": sample(part(name, number, "spec")) | (FIXED.get(name, {}) if number == "v1" else {}),
    }  # fmt: skip
    stored = side.api.create(manifest)
    status = {"status": sample(part(name, number, "status"))}
    return side.api.merge_patch(stored["apiVersion"], kind, "one", status, side.namespace, subresource="status")


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", flux_schemas.NAMES)
def test_kubectl_get_prints_what_it_prints_for_flux(name: str, wide: bool, theirs: Side, ours: Side) -> None:
    plural, group = name.split(".", 1)
    kind = kind_of(name)[1]
    sides, options = (theirs, ours), ["-o", "wide"] if wide else []
    for side in sides:
        stored_object(side, name)
    words = [plural, *OURS[name]["spec"]["names"]["shortNames"], f"{plural}.v1beta2.{group}", f"{plural}.v1beta1.{group}"]
    try:
        for word in words:
            printed = [side.cluster.kubectl("get", word, "-n", side.namespace, *options) for side in sides]
            flux, mine = (table(done.stdout) for done in printed)
            if word.startswith("imagepolicies.v1beta1"):
                # Flux's column has the text that no controller writes any more.
                assert (flux, mine) == ([["NAME", "LATESTIMAGE"], ["one"]], [["NAME", "LATESTIMAGE"], ["one", PLAIN]])
            else:
                assert mine == flux
                assert len(mine) == 2
            warning = f"Warning: {word.split('.')[1]} {kind} is deprecated, upgrade to v1\n" if "." in word else ""
            assert printed[1].stderr == warning
    finally:
        theirs.api.delete(f"{group}/v1", kind, "one", "default")


def test_kubectl_lists_by_category(ours: Side) -> None:
    for name in flux_schemas.NAMES:
        stored_object(ours, name)
    images = {"imagepolicy.image.toolkit.fluxcd.io/one", "imagerepository.image.toolkit.fluxcd.io/one",
              "imageupdateautomation.image.toolkit.fluxcd.io/one"}  # fmt: skip
    sources = {"gitrepository.source.toolkit.fluxcd.io/one"}
    for category, wanted in (("fluxcd-images", images), ("fluxcd-sources", sources), ("fluxcd", images | sources)):
        printed = ours.cluster.kubectl("get", category, "-n", ours.namespace, "-o", "name").stdout
        assert {line for line in printed.split() if line.endswith("/one")} == wanted


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("imagepolicies", "An ImagePolicy chooses one of the tags that an ImageRepository found."),
        ("imgpol.spec.policy.alphabetical.filter", "Extension: only tags that match this regular expression take part."),
        ("imagerepositories.spec.exclusionList", "Tags that match any of these regular expressions are dropped."),
        ("imageupdateautomations.status.skipped", "Extension: markers and files that the last run could not use"),
        ("gitrepositories.spec.url", "Address of the repository: http, https or ssh."),
    ],
)
def test_kubectl_explains(field: str, text: str, ours: Side) -> None:
    def explained() -> bool:
        done = ours.cluster.kubectl("explain", field, check=False)
        return text in " ".join(done.stdout.split())

    # The server publishes the schema for explanations a moment after it serves the kind.
    until(explained)


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.2)


def test_the_chapters_manifests_are_applied_as_written_under_strict_validation(ours: Side, theirs: Side) -> None:
    files = sorted(SEED.glob("image-*.yaml"))
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "flux-system"}}
    for side in (ours, theirs):
        side.api.apply(namespace)
    results = {}
    for path in files:
        done = ours.cluster.kubectl("apply", "--validate=strict", "-f", str(path))
        assert "created" in done.stdout
        assert "is deprecated, upgrade to v1" in done.stderr
        flux = theirs.cluster.kubectl("apply", "--validate=strict", "--dry-run=server", "-f", str(path), check=False)
        results[path.stem] = flux.returncode == 0
        ours.cluster.kubectl("delete", "-f", str(path))
    assert [name for name, accepted in results.items() if not accepted] == ["image-policy-alphabetical"]
    # kubectl leaves out the null of the automation's `policy`; other clients send it.
    automation = yaml.safe_load((SEED / "image-update-automation.yaml").read_text())
    asked = [side.ask_spec(automation["apiVersion"], automation["kind"], automation["spec"]) for side in (theirs, ours)]
    assert asked[0][0] == "refused"
    assert 'unknown field "spec.policy"' in asked[0][2]
    assert asked[1][0] == "accepted"
    assert "policy" not in asked[1][1]


@pytest.mark.parametrize("before", ["v1", "v1beta2", "v1beta1"])
@pytest.mark.usefixtures("control_plane")
def test_objects_stored_under_fluxs_definitions_survive_ours(before: str, tmp_path: Path) -> None:
    with bare_plane(tmp_path) as plane:
        side = Side(plane, "default")
        stored = {}
        for name in flux_schemas.NAMES:
            plane.api.install_crd(flux_schemas.stored_as(name, before))
            stored[name] = stored_object(side, name, before)
        plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
        for name, old in stored.items():
            plane.api.install_crd(OURS[name])
            check_survivor(plane, name, old)
            definition = plane.api.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)
            assert set(definition["status"]["storedVersions"]) == {"v1", before}


LOST = {"latestImage", "contentConfigChecksum", "checksum"}
"""Status of dropped versions that no controller writes any more."""


def check_survivor(plane: ControlPlane, name: str, old: Object) -> None:
    """The object is there in every version, as it was, and can be changed in each."""
    group, kind = kind_of(name)
    was_spec, was_status = without(LOST, old["spec"]), without(LOST, old["status"])
    was_spec.pop("suspend", None)
    if name.startswith("gitrepositories"):
        was_status.pop("url", None)
    for n, number in enumerate(("v1", *flux_schemas.OLDER)):
        found = plane.api.get(f"{group}/{number}", kind, "one", "default")
        assert found["metadata"]["uid"] == old["metadata"]["uid"]
        assert was_spec.items() <= found["spec"].items()
        assert was_status.items() <= found["status"].items()
        suspend = n % 2 == 0
        patch = {"spec": {"suspend": suspend}}
        assert plane.api.merge_patch(f"{group}/{number}", kind, "one", patch, "default")["spec"]["suspend"] == suspend


def without(names: Collection[str], value: Any) -> Any:
    """`value` without entries of these names, at any depth."""
    if isinstance(value, dict):
        return {key: without(names, inner) for key, inner in value.items() if key not in names}
    return [without(names, inner) for inner in value] if isinstance(value, list) else value
