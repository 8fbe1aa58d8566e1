"""Our definitions of Flagger's kinds beside Flagger's own on real API servers: both take, refuse and keep the same."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from canary.api import ALERT_PROVIDER, API_VERSION, CANARY, METRIC_TEMPLATE
from reconcile.api.crd import definition_name, definitions
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.errors import Invalid
from tests.support import flux_schemas
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.controlplane_build import REPOSITORY
from tests.support.schema_cases import Case, cases, sample
from tests.support.schema_sides import Side, Verdict, bare_plane, table, tally

pytestmark = pytest.mark.slow

KINDS = (CANARY, METRIC_TEMPLATE, ALERT_PROVIDER)
OURS = definitions(KINDS)
CRDS = REPOSITORY / "helm" / "crds"

Object = dict[str, Any]


@pytest.fixture(scope="module")
def flagger_plane(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Flagger's definitions; starts where the run has a cluster at all."""
    with bare_plane(tmp_path_factory.mktemp("programs")) as plane:
        for name in flux_schemas.FLAGGER:
            plane.api.install_crd(flux_schemas.today(name))
        yield plane


@pytest.fixture
def theirs(flagger_plane: ControlPlane) -> Side:
    """Flagger's side."""
    return Side(flagger_plane, "default")


@pytest.fixture
def ours(control_plane: Cluster, namespace: str) -> Side:
    """Our side."""
    for manifest in OURS.values():
        control_plane.api.install_crd(manifest)
    return Side(control_plane, namespace)


@pytest.fixture(scope="module")
def scheme() -> Scheme:
    """Our models."""
    found = Scheme()
    for info in KINDS:
        found.register(info)
    return found


def part(info: KindInfo, which: str) -> Object:
    """Flagger's schema of `spec` or `status`."""
    return dict(flux_schemas.schema(flux_schemas.today(definition_name(info))["spec"]["versions"][0])["properties"][which])


def manifest(side: Side, info: KindInfo, name: str = "one") -> Object:
    """An object with every field of the spec set."""
    meta = {"name": name, "namespace": side.namespace}
    return {"apiVersion": API_VERSION, "kind": info.kind, "metadata": meta, "spec": sample(part(info, "spec"))}


@pytest.mark.parametrize("info", KINDS, ids=lambda info: info.kind)
def test_specs_are_taken_and_refused_alike_with_the_same_words(info: KindInfo, theirs: Side, ours: Side, scheme: Scheme) -> None:
    tried = cases(part(info, "spec"))
    if len(tried) > ENOUGH and os.environ.get("IMAGEBOT_TEST_FACTS") != "all":
        tried = tried[:: -(-len(tried) // ENOUGH)]
    kind = info.kind
    found = [(c, theirs.ask_spec(API_VERSION, kind, c.value), ours.ask_spec(API_VERSION, kind, c.value)) for c in tried]
    unlike = [(case.name, a, b) for case, a, b in found if in_order(a) != in_order(b)]
    # Flagger asks for the fields of an entry at the list: an object in the place of the list lacks two things there, not one.
    assert [name for name, a, b in unlike if a[:2] != b[:2] or name != "service.mirror is {}"] == []
    assert min(tally(found).values()) > 25, tally(found)
    misread = [case.name for case, _, answer in found if reads(scheme, info, answer, case) != (answer[0] == "accepted")]
    assert [name for name in misread if not deliberate(name)] == []


ENOUGH = 1000
"""Cases of one kind that are asked of both definitions, evenly spread; all of them with IMAGEBOT_TEST_FACTS=all."""
OUR_WORDS = {'"generic"', '"signalfx"'}
"""What our enumerations have beside Flagger's."""


def in_order(answer: Verdict) -> Verdict:
    """An answer with its words in order: an API server names missing fields in the order in which the schema requires them."""
    if answer[0] != "refused":
        return answer
    return (*answer[:2], sorted(word for word in re.split(r"[,\[\] ]+", answer[2]) if word not in OUR_WORDS))


def reads(scheme: Scheme, info: KindInfo, answer: Verdict, case: Case) -> bool:
    """Whether our model reads what the API server made of a case, or the case itself when that was refused."""
    spec = answer[1] if answer[0] == "accepted" else case.value
    try:
        scheme.decode(info, {"apiVersion": API_VERSION, "kind": info.kind, "metadata": {"name": "one"}, "spec": spec})
    except Invalid:
        return False
    return True


NUMBERS_OF_GO = (
    "port", "progressDeadlineSeconds", "iterations", "threshold", "maxWeight", "stepWeight", "stepWeights.0",
    "stepWeightPromotion", "mirrorWeight", "primaryReadyThreshold", "canaryReadyThreshold", "retries", "maxAge",
)  # fmt: skip
"""Integers in Go that the schema calls numbers: Flagger cannot read a fraction there either."""


def deliberate(name: str) -> bool:
    """Whether our model may judge a case otherwise than an API server does."""
    field, _, what = name.partition(" is ")
    if what == "1.5":
        return field.endswith(NUMBERS_OF_GO)
    # Wrong where Flagger's schema does not ask, or beyond the bounds of numbers that only API servers have.
    without_backend = ("0 is {}", "0 with the least", "0.backendRef is None", "0.backendRef is missing")
    not_asked = {"all of it is None", *(f"service.mirror.{case}" for case in without_backend)}
    return name in not_asked or what in {str(n) for n in (2**31, 2**63 - 1, 2**63, -(2**63))}


def test_statuses_of_a_canary_are_taken_and_refused_alike_with_the_same_words(theirs: Side, ours: Side) -> None:
    stored = [side.api.create(manifest(side, CANARY)) for side in (theirs, ours)]
    tried = cases(part(CANARY, "status"))
    try:
        found = [(c, theirs.ask_status(stored[0], c.value), ours.ask_status(stored[1], c.value)) for c in tried]
    finally:
        theirs.api.delete(API_VERSION, "Canary", "one", "default")
    assert [(case.name, a, b) for case, a, b in found if in_order(a) != in_order(b)] == []
    assert min(tally(found).values()) > 30, tally(found)


@pytest.mark.parametrize("info", [METRIC_TEMPLATE, ALERT_PROVIDER], ids=lambda info: info.kind)
def test_what_has_no_status_keeps_none(info: KindInfo, theirs: Side, ours: Side) -> None:
    for side in (theirs, ours):
        stored = side.api.create(manifest(side, info))
        try:
            answer = side.ask_status(stored, {"conditions": []})
            assert (answer[0], 'unknown field "status"' in answer[2]) == ("refused", True)
        finally:
            side.api.delete(API_VERSION, info.kind, "one", side.namespace)


def test_a_new_canary_has_no_status(ours: Side) -> None:
    assert "status" not in ours.api.create(manifest(ours, CANARY))


EXTENSIONS: Object = {
    "onNoData": "Hold", "maxHold": "10m", "onFail": "Hold", "gateDeadline": "24h", "knownGoodRevisions": 10,
    "metrics": [{"name": "a", "minSamples": 0, "onNoData": "Pass"}],
}  # fmt: skip
WRONG: tuple[Object, ...] = (
    {"onNoData": "hold"}, {"maxHold": "1 day"}, {"maxHold": 60}, {"onFail": "Stop"}, {"gateDeadline": "x"},
    {"knownGoodRevisions": 11}, {"knownGoodRevisions": -1}, {"knownGoodRevisions": 1.5},
    {"metrics": [{"name": "a", "minSamples": -1}]}, {"metrics": [{"name": "a", "onNoData": ""}]},
)  # fmt: skip


def test_extensions_are_taken_and_checked(ours: Side, scheme: Scheme) -> None:
    spec = manifest(ours, CANARY)["spec"]
    answer = ours.ask_spec(API_VERSION, "Canary", {**spec, "analysis": spec["analysis"] | EXTENSIONS})
    assert answer[0] == "accepted", answer
    assert EXTENSIONS.items() <= answer[1]["analysis"].items()
    for wrong in WRONG:
        case = Case(str(wrong), {**spec, "analysis": spec["analysis"] | wrong})
        answer = ours.ask_spec(API_VERSION, "Canary", case.value)
        assert (answer[0], reads(scheme, CANARY, answer, case)) == ("refused", False), wrong


def test_fields_of_ours_in_the_status_are_kept_and_lists_bounded(ours: Side) -> None:
    stored = ours.api.create(manifest(ours, CANARY))
    check = {"metric": "errors", "query": "up", "value": "99.5", "threshold": ">= 99", "verdict": "passed", "message": "", "time":
             "2024-01-02T03:04:05Z"}  # fmt: skip
    time = "2024-01-02T03:04:05Z"
    status = {
        "phase": "Progressing", "checks": [check] * 32, "phaseSince": time, "nextStepTime": time, "notReadySince": time,
        "holdSince": time, "targetGeneration": 4, "knownGood": ["a"] * 10,
        "lastHandledAction": "promote@1", "lastHandledReconcileAt": "1", "failure": "too slow",
        "trackedBinary": {"configmap/a#binaryData": "1f"}, "images": ["web=web:1.2"],
    }  # fmt: skip
    assert ours.ask_status(stored, status)[2] == status
    assert ours.ask_status(stored, status | {"checks": [check] * 33})[0] == "refused"
    assert ours.ask_status(stored, status | {"knownGood": ["a"] * 11})[0] == "refused"


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("info", KINDS, ids=lambda info: info.kind)
def test_kubectl_get_prints_what_it_prints_for_flagger(info: KindInfo, wide: bool, theirs: Side, ours: Side) -> None:
    for side in (theirs, ours):
        side.api.create(manifest(side, info))
        if info is CANARY:
            status = {"status": sample(part(CANARY, "status")) | {"phase": "Progressing"}}
            side.api.merge_patch(API_VERSION, "Canary", "one", status, side.namespace, subresource="status")
    try:
        for word in (info.singular, info.plural, f"{info.plural}.flagger.app"):
            options = ["-o", "wide"] if wide else []
            flagger, mine = (table(s.cluster.kubectl("get", word, "-n", s.namespace, *options).stdout) for s in (theirs, ours))
            assert mine == flagger
            assert len(mine) == 2
        if info is CANARY:
            assert mine[1][:3] == ["one", "Progressing", "1"]
    finally:
        theirs.api.delete(API_VERSION, info.kind, "one", "default")


def test_objects_stored_under_flaggers_definitions_survive_ours(tmp_path: Path, control_plane: Cluster) -> None:
    assert control_plane is not None
    with bare_plane(tmp_path) as plane:
        side, stored = Side(plane, "default"), {}
        for info in KINDS:
            plane.api.install_crd(flux_schemas.today(definition_name(info)))
            stored[info.kind] = side.api.create(manifest(side, info))
        status = {"status": sample(part(CANARY, "status"))}
        stored["Canary"] = side.api.merge_patch(API_VERSION, "Canary", "one", status, "default", subresource="status")
        plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
        for info in KINDS:
            plane.api.install_crd(OURS[definition_name(info)])
            found = plane.api.get(API_VERSION, info.kind, "one", "default")
            assert without_versions(found) == without_versions(stored[info.kind])
        suspended = plane.api.merge_patch(API_VERSION, "Canary", "one", {"spec": {"suspend": True}}, "default")
        assert suspended["spec"] == stored["Canary"]["spec"] | {"suspend": True}


def without_versions(found: Object) -> Object:
    """An object without what API servers count and note."""
    found = deepcopy(found)
    for name in ("resourceVersion", "managedFields"):
        found["metadata"].pop(name, None)
    return found
