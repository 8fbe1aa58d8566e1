"""Our definitions beside Flux's on real API servers: what one takes the other takes, what one refuses the other refuses.

Flux's are on a second, bare control plane, since two definitions of one name cannot be in one cluster.
"""

from __future__ import annotations

import itertools
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
from tests.support.schema_cases import PLAIN, cases, example_of, least, sample
from tests.support.schema_sides import Side, bare_plane, table, tally

pytestmark = pytest.mark.slow

OURS = definitions(load_packages().scheme)
CRDS = REPOSITORY / "helm" / "crds"
SEED = REPOSITORY / "tests" / "seed"
BUCKETS = "buckets.source.toolkit.fluxcd.io"
HELM = "helmrepositories.source.toolkit.fluxcd.io"
EXTERNAL = "externalartifacts.source.toolkit.fluxcd.io"
KUSTOMIZATIONS = "kustomizations.kustomize.toolkit.fluxcd.io"
LDAP = {
    "provider": "ldap", "endpoint": "https://example.com/a", "secretRef": {"name": "a"}, "certSecretRef": {"name": "a"},
}  # fmt: skip
FIXED: dict[str, tuple[dict[str, Any], ...]] = {
    "gitrepositories.source.toolkit.fluxcd.io": ({"provider": "aws"},),
    BUCKETS: ({"sts": LDAP, "serviceAccountName": None}, {"provider": "aws", "sts": None, "secretRef": None}),
    HELM: ({"url": "https://example.com/a"},),
    KUSTOMIZATIONS: (
        {"kubeConfig": {"secretRef": {"name": "a", "key": "b"}}},
        {"kubeConfig": {"configMapRef": {"name": "a"}}},
    ),
}
"""What full examples need so that the rules hold; None leaves a field out."""
WRITTEN_OUT = {(HELM, "v1beta1"): ("timeout", "60s")}
"""Defaults of a dropped version that are in the code since."""
OPTIONAL = {"interval": "10m", "prune": False}
"""Fields of Kustomizations that Flux asks for and we do not, with our defaults."""
DROPPED = ("accessFrom", "gitImplementation", "patchesStrategicMerge", "patchesJson6902", "validation")
"""Fields that v1 does not have."""

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


def fixed(name: str, number: str) -> list[Object]:
    """What full examples need in a version."""
    fields = part(name, number, "spec")["properties"]
    return [{field: value for field, value in changes.items() if field in fields} for changes in FIXED.get(name, ())]


def extended(name: str, value: Any) -> Any:
    """A spec with what Flux asks for and we have a default for."""
    if name != KUSTOMIZATIONS or not isinstance(value, dict):
        return value
    return {**value, **{field: default for field, default in OPTIONAL.items() if value.get(field) is None}}


@pytest.mark.parametrize("name", flux_schemas.NAMES)
def test_specs_of_v1_are_taken_and_refused_alike_with_the_same_words(name: str, theirs: Side, ours: Side) -> None:
    group, kind = kind_of(name)
    tried, version = cases(part(name, "v1", "spec"), *fixed(name, "v1")), f"{group}/v1"
    found = [(c, theirs.ask_spec(version, kind, extended(name, c.value)), ours.ask_spec(version, kind, c.value)) for c in tried]
    assert [(case.name, a, b) for case, a, b in found if a != b] == []
    assert min(tally(found).values()) > (10 if name == EXTERNAL else 30), tally(found)


@pytest.mark.parametrize("left_out", [("prune",), ("interval",), ("interval", "prune")])
def test_what_flux_asks_for_in_a_kustomization_has_a_default(left_out: tuple[str, ...], theirs: Side, ours: Side) -> None:
    group, kind = kind_of(KUSTOMIZATIONS)
    spec = {name: value for name, value in least(part(KUSTOMIZATIONS, "v1", "spec")).items() if name not in left_out}
    refused, accepted = (side.ask_spec(f"{group}/v1", kind, spec) for side in (theirs, ours))
    assert refused[:2] == ("refused", 422)
    assert [f"spec.{name}: Required value" in refused[2] for name in OPTIONAL] == [name in left_out for name in OPTIONAL]
    assert accepted[0] == "accepted"
    assert {name: accepted[1][name] for name in left_out} == {name: OPTIONAL[name] for name in left_out}


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
    if ".source." in name and number == "v1beta1" and case.startswith(("interval is", "timeout is", "url is")):
        return "v1beta1 had no pattern, and refused a wrong text only when it was reconciled"
    if (name, number, case) == (HELM, "v1beta1", "least"):
        return "its url is a text without a pattern there"
    if git and number == "v1beta1" and case.startswith("verify"):
        return "v1beta1 did not ask for the keys"
    return None


@pytest.mark.parametrize(("name", "number"), flux_schemas.VERSIONS)
def test_specs_of_dropped_versions_are_taken_when_that_version_or_v1_took_them(
    name: str, number: str, theirs: Side, ours: Side
) -> None:
    group, kind = kind_of(name)
    wrong, counted = [], 0
    for case in cases(part(name, number, "spec"), *fixed(name, number)):
        old = theirs.ask_spec(f"{group}/{number}", kind, extended(name, case.value))
        mine = ours.ask_spec(f"{group}/{number}", kind, case.value)
        expected = old[0]
        if expected == "refused" and mine[0] == "accepted":
            expected = theirs.ask_spec(f"{group}/v1", kind, extended(name, without(DROPPED, case.value)))[0]
        counted += old[0] == "accepted"
        if mine[0] != expected and deliberate(name, number, case.name) is None:
            wrong.append((case.name, old, mine))
        elif mine[0] == old[0] == "accepted":
            # Only v1beta1 and v1beta2 filled in the library.
            left_out = WRITTEN_OUT.get((name, number))
            kept = {field: value for field, value in (without(DROPPED, old[1]) or {}).items() if (field, value) != left_out}
            assert kept.items() <= (mine[1] or {}).items(), case.name
    assert wrong == []
    assert counted > 30


@pytest.mark.parametrize("name", flux_schemas.NAMES)
def test_least_manifest_gets_the_same_defaults_in_every_version(name: str, ours: Side) -> None:
    group, kind = kind_of(name)
    spec = least(part(name, "v1", "spec"))
    answers = [ours.ask_spec(f"{group}/{number}", kind, spec) for number in ("v1", *flux_schemas.older(name))]
    assert answers[0][0] == "accepted"
    assert answers[1:] == answers[:-1]
    assert answers[0][2] == (None if name == EXTERNAL else {"observedGeneration": -1})


def stored_object(side: Side, name: str, number: str = "v1") -> Object:
    """An object with every field of spec and status set, stored on a side."""
    group, kind = kind_of(name)
    manifest = {
        "apiVersion": f"{group}/{number}", "kind": kind, "metadata": {"name": "one", "namespace": side.namespace},
        "spec": example_of(part(name, number, "spec"), next(iter(fixed(name, number)), {})),
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
    older = [f"{plural}.{number}.{group}" for number in flux_schemas.older(name)]
    words = [plural, *OURS[name]["spec"]["names"].get("shortNames", ()), *older]
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
    kinds = ("gitrepository", "ocirepository", "helmrepository", "bucket", "externalartifact")
    sources = {f"{kind}.source.toolkit.fluxcd.io/one" for kind in kinds}
    appliers = {"kustomization.kustomize.toolkit.fluxcd.io/one"}
    expected = {
        "fluxcd-images": images, "fluxcd-sources": sources, "fluxcd-appliers": appliers, "fluxcd": images | sources | appliers,
    }  # fmt: skip
    for category, wanted in expected.items():
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
        ("ocirepo.spec.verify.matchOIDCIdentity", "Who may have signed without a key; one that matches is enough."),
        ("buckets.spec.sts", "Where credentials for a limited time come from."),
        ("ks.spec.prune", "Extension: may be left out, and then nothing is deleted."),
        ("ks.status.appliedInputs", "Extension: digest of everything that the last successful run was made from."),
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


FLUX_REFUSES = [
    "kustomization-cross-namespace", "kustomization-infrastructure", "kustomization-other-teams-source",
    "kustomization-suspended", "kustomization-team",
]  # fmt: skip
"""Manifests of the chapter without `prune`, some without `interval` too."""


def test_the_chapters_sources_and_kustomizations_are_applied_as_written_under_strict_validation(ours: Side, theirs: Side) -> None:
    prefixes = ("bucket", "git", "gotk", "helm", "kustomization", "oci", "team")
    files = sorted(path for path in SEED.glob("*.yaml") if path.stem.startswith(prefixes))
    for side, name in itertools.product((ours, theirs), ("flux-system", "team-a", "apps")):
        side.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    refused = []
    for path in files:
        done = ours.cluster.kubectl("apply", "--validate=strict", "-f", str(path))
        assert "created" in done.stdout
        assert ("is deprecated, upgrade to v1" in done.stderr) == ("/v1beta2" in path.read_text())
        flux = theirs.cluster.kubectl("apply", "--validate=strict", "--dry-run=server", "-f", str(path), check=False)
        refused += [path.stem] if flux.returncode else []
        ours.cluster.kubectl("delete", "--wait=false", "-f", str(path))
    assert (len(files), refused) == (19, FLUX_REFUSES)


@pytest.mark.parametrize("before", ["v1", "v1beta2", "v1beta1"])
@pytest.mark.usefixtures("control_plane")
def test_objects_stored_under_fluxs_definitions_survive_ours(before: str, tmp_path: Path) -> None:
    with bare_plane(tmp_path) as plane:
        side = Side(plane, "default")
        stored = {}
        for name in flux_schemas.NAMES:
            if before not in ("v1", *flux_schemas.older(name)):
                continue
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
    for n, number in enumerate(("v1", *flux_schemas.older(name))):
        found = plane.api.get(f"{group}/{number}", kind, "one", "default")
        assert found["metadata"]["uid"] == old["metadata"]["uid"]
        assert was_spec.items() <= found["spec"].items()
        assert was_status.items() <= found["status"].items()
        change = {"sourceRef": {**was_spec["sourceRef"], "name": "other"}} if name == EXTERNAL else {"suspend": n % 2 == 0}
        changed = plane.api.merge_patch(f"{group}/{number}", kind, "one", {"spec": change}, "default")
        assert change.items() <= changed["spec"].items()


def without(names: Collection[str], value: Any) -> Any:
    """`value` without entries of these names, at any depth."""
    if isinstance(value, dict):
        return {key: without(names, inner) for key, inner in value.items() if key not in names}
    return [without(names, inner) for inner in value] if isinstance(value, list) else value
