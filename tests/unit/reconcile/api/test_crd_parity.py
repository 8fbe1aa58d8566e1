"""Our schemas beside Flux's, keyword by keyword: what differs is listed here, and nothing else does."""

from __future__ import annotations

import pytest

from reconcile.api.crd import definitions
from reconcile.app import load_packages
from tests.support import flux_schemas
from tests.support.flux_schemas import flat, schema

OURS = definitions(load_packages().scheme)
STATUS = {".status.skipped", ".status.skipped[]", *(f".status.skipped[].{n}" for n in ("path", "line", "marker", "message"))}
TARGET = ("annotationSelector", "group", "kind", "labelSelector", "name", "namespace", "version")
JSON_PATCH = {
    ".spec.patchesJson6902", ".spec.patchesJson6902[]", ".spec.patchesJson6902[].patch", ".spec.patchesJson6902[].patch[]",
    *(f".spec.patchesJson6902[].patch[].{n}" for n in ("from", "op", "path", "value")),
    ".spec.patchesJson6902[].target", *(f".spec.patchesJson6902[].target.{n}" for n in TARGET),
}  # fmt: skip
ACCESS = {
    ".spec.accessFrom", ".spec.accessFrom.namespaceSelectors", ".spec.accessFrom.namespaceSelectors[]",
    ".spec.accessFrom.namespaceSelectors[].matchLabels", ".spec.accessFrom.namespaceSelectors[].matchLabels{}",
}  # fmt: skip

_REQUEST = (
    "provider", "secretRef", "secretRef.name", "address", "base", "when", "groupBy", "title", "body", "labels", "labels[]",
    "reviewers", "reviewers[]", "draft", "autoMerge", "maxOpen", "commitThrough",
)  # fmt: skip
_REQUESTED = (
    "group", "branch", "base", "number", "url", "state", "head", "baseCommit", "changes", "images", "images[]", "message",
    "updated",
)  # fmt: skip
AUTOMATION = {
    *(f".spec.git.commit.{n}" for n in ("trailers", "quietPeriod", "maxWait")), ".spec.update.onRevert",
    ".spec.git.push.pullRequest", *(f".spec.git.push.pullRequest.{n}" for n in _REQUEST), ".status.pendingSince",
    ".status.pendingUntil", ".status.pullRequests", ".status.pullRequests[]",
    *(f".status.pullRequests[].{n}" for n in _REQUESTED), ".status.observedForge", ".status.pushRefusedTime",
    *(f".status.observedForge.{n}" for n in ("provider", "secretRef", "secretRef.name", "address")),
}  # fmt: skip

ADDED = {
    "imagepolicies.image.toolkit.fluxcd.io": {
        ".spec.policy.alphabetical.filter", ".spec.downgrade", ".spec.minimumAge", ".spec.onMutation", ".status.observedRule",
        ".status.observedDigest", ".status.allowedDowngrade", ".status.firstSeen", ".status.firstSeen[]",
        *(f".status.firstSeen[].{n}" for n in ("tag", "digest", "time")),
    },
    "imagerepositories.image.toolkit.fluxcd.io": {
        ".spec.hint", ".spec.hint.type", ".spec.hint.secretRef", ".spec.hint.secretRef.name", ".status.hintPath",
        ".status.hintProblem",
    },
    "imageupdateautomations.image.toolkit.fluxcd.io": {".spec.policy", *STATUS, *AUTOMATION},
    # Fields of v1beta1 and v1beta2 that v1 dropped.
    "gitrepositories.source.toolkit.fluxcd.io": {*ACCESS, ".spec.gitImplementation"},
    "buckets.source.toolkit.fluxcd.io": ACCESS,
    "helmrepositories.source.toolkit.fluxcd.io": set[str](),
    "ocirepositories.source.toolkit.fluxcd.io": set[str](),
    "externalartifacts.source.toolkit.fluxcd.io": set[str](),
    "kustomizations.kustomize.toolkit.fluxcd.io": {
        ".spec.patchesStrategicMerge", ".spec.patchesStrategicMerge[]", *JSON_PATCH, ".spec.validation",
        ".status.appliedInputs", ".status.appliedState",
    },
}  # fmt: skip
"""Nodes that Flux's v1 does not have."""

CHANGED = {
    "kustomizations.kustomize.toolkit.fluxcd.io": {
        ".spec": {"required": ["sourceRef"]},
        ".spec.interval": {"default": "10m"},
        ".spec.prune": {"default": False},
    },
    # A default comes before what is required is looked for.
    "ocirepositories.source.toolkit.fluxcd.io": {".spec.verify": {"required": None}},
}
"""Keywords of Flux's v1 that are others with us; None is one that we do not have."""

NOT_KEPT = {
    ".status.latestImage",  # an image as one text, before latestRef
    ".status.contentConfigChecksum",
    ".status.url",
    ".status.artifact.checksum",
    ".status.includedArtifacts[].checksum",
}
"""Nodes of dropped versions that we do not have: status that no controller writes any more."""


@pytest.mark.parametrize("name", flux_schemas.NAMES)
def test_v1_is_fluxs_v1_and_the_extensions(name: str) -> None:
    ours = flat(schema(OURS[name]["spec"]["versions"][0]))
    theirs = flat(schema(flux_schemas.version(name, "v1")))
    assert ours.keys() - theirs.keys() == ADDED[name]
    for path, changes in CHANGED.get(name, {}).items():
        theirs[path] = {key: value for key, value in {**theirs[path], **changes}.items() if value is not None}
    assert {path: node for path, node in ours.items() if path in theirs} == theirs


@pytest.mark.parametrize(("name", "number"), flux_schemas.VERSIONS)
def test_every_field_of_a_dropped_version_is_still_there(name: str, number: str) -> None:
    ours = flat(schema(OURS[name]["spec"]["versions"][0]))
    old = flat(schema(flux_schemas.version(name, number)))
    assert old.keys() - ours.keys() <= NOT_KEPT
    assert [path for path in old.keys() & ours.keys() if old[path].get("type") != ours[path].get("type")] == []


@pytest.mark.parametrize("name", flux_schemas.NAMES)
def test_names_scope_and_subresources_are_fluxs(name: str) -> None:
    ours, theirs = OURS[name], flux_schemas.today(name)
    assert ours["spec"]["names"] == theirs["spec"]["names"]
    assert (ours["spec"]["group"], ours["spec"]["scope"]) == (theirs["spec"]["group"], theirs["spec"]["scope"])
    assert all(entry["subresources"] == {"status": {}} for entry in ours["spec"]["versions"])


@pytest.mark.parametrize(("name", "number"), [*((name, "v1") for name in flux_schemas.NAMES), *flux_schemas.VERSIONS])
def test_columns_of_every_version_are_fluxs(name: str, number: str) -> None:
    ours = next(entry for entry in OURS[name]["spec"]["versions"] if entry["name"] == number)["additionalPrinterColumns"]
    theirs = flux_schemas.version(name, number)["additionalPrinterColumns"]
    if (name, number) == ("imagepolicies.image.toolkit.fluxcd.io", "v1beta1"):
        theirs[0]["jsonPath"] = ".status.latestRef.tag"  # status.latestImage is not written any more: the column would be empty
    assert ours == theirs


@pytest.mark.parametrize("name", flux_schemas.NAMES)
def test_all_versions_have_one_schema_and_v1_is_stored(name: str) -> None:
    versions, older = OURS[name]["spec"]["versions"], flux_schemas.older(name)
    assert [(entry["name"], entry["served"], entry["storage"]) for entry in versions] == [
        ("v1", True, True), *((number, True, False) for number in older),
    ]  # fmt: skip
    assert all(entry["schema"] == versions[0]["schema"] for entry in versions)
    assert OURS[name]["spec"]["conversion"] == {"strategy": "None"}
    kind = OURS[name]["spec"]["names"]["kind"]
    warnings = [entry.get("deprecationWarning") for entry in versions]
    assert warnings == [None, *(f"{number} {kind} is deprecated, upgrade to v1" for number in older)]


@pytest.mark.parametrize("name", flux_schemas.NAMES)
def test_every_field_is_described_and_extensions_say_so(name: str) -> None:
    ours = flat(schema(OURS[name]["spec"]["versions"][0]), prose=True)
    fields = {path: node for path, node in ours.items() if not path.endswith(("[]", "{}", ".metadata"))}
    assert [path for path, node in fields.items() if not node.get("description")] == []
    marked = {path for path, node in fields.items() if node["description"].startswith("Extension:")}
    dropped = {path for path, node in fields.items() if node["description"].startswith("Accepted from old manifests")}
    inside = {path for path in ADDED[name] for outer in marked | dropped if path.startswith((f"{outer}[]", f"{outer}."))}
    assert marked | dropped | inside == ADDED[name]
    other = {path for path, keywords in CHANGED.get(name, {}).items() if "default" in keywords}
    assert {path for path, node in fields.items() if ". Extension: " in node["description"]} == other


def test_flux_does_not_substitute_in_them() -> None:
    assert {d["metadata"]["annotations"]["kustomize.toolkit.fluxcd.io/substitute"] for d in OURS.values()} == {"disabled"}
