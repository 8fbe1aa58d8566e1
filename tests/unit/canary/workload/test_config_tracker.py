"""ConfigMaps and Secrets: checksums as Flagger's, copies, and few requests."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from canary.errors import Problem
from canary.settings import CanarySettings
from canary.workload.tracker import Tracker, checksum_of, fingerprint_of
from reconcile.errors import NotFound, ReconcileError
from reconcile.ports.cluster import Reference
from tests.support.canary_workloads import pod_spec, site_of
from tests.support.objects import MemoryObjects

CANARY_REF = {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "controller": True, "blockOwnerDeletion": True}
OUR_REF = {**CANARY_REF, "name": "web", "uid": "uid-of-web"}


def config(name: str, **parts: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "prod"}, **parts}


def secret(name: str, **parts: Any) -> dict[str, Any]:
    return {**config(name, **parts), "kind": "Secret"}


def using(*configs: str, secrets: tuple[str, ...] = (), optional: bool = False) -> dict[str, Any]:
    refs = [("configMapRef", name) for name in configs] + [("secretRef", name) for name in secrets]
    env = [{part: {"name": name, **({"optional": True} if optional else {})}} for part, name in refs]
    pod = pod_spec()
    pod["containers"][0]["envFrom"] = env
    return pod


def tracker(*found: dict[str, Any], **options: Any) -> tuple[Tracker, MemoryObjects]:
    objects = MemoryObjects(found)
    return Tracker(objects, CanarySettings(), **options), objects


def requests(objects: MemoryObjects) -> list[tuple[str, str, str]]:
    return [read for read in objects.reads if read[0] == "read"]


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        ({"a": "1", "b": "2"}, "21f76dfbfe6dfe21"),
        ({"b": "2", "a": "2"}, "d9d761d853591f9d"),
        ({"text": "a <b> & c"}, "e7960bafb81ec363"),
        ({"key": "azE="}, "cd40dc76ee521ed4"),
        (None, "74234e98afe7498f"),
    ],
)
def test_checksums_are_those_that_flagger_wrote(data: Any, checksum: str) -> None:
    assert checksum_of(data) == checksum
    assert fingerprint_of(config("a", data=data)).checksum == checksum


def test_texts_are_written_as_go_writes_them() -> None:
    go = rb'{"a":"\u2028\u2029' + "ä".encode() + rb'\u0001\n\b\"\\\u0026"}'
    assert checksum_of({"a": '\u2028\u2029ä\x01\n\b"\\&'}) == sha256(go).hexdigest()[:16]


async def test_binary_data_counts_where_there_is_any() -> None:
    plain, binary = config("a", data={"x": "1"}), config("a", data={"x": "1"}, binaryData={"raw": "AAEC"})
    other = config("a", data={"x": "1"}, binaryData={"raw": "AAED"})
    assert fingerprint_of(config("a", data={"x": "1"}, binaryData={})).checksum == fingerprint_of(plain).checksum
    assert len({fingerprint_of(each).checksum for each in (plain, binary, other)}) == 3


async def test_what_is_not_tracked_is_left_out() -> None:
    off = config("off", data={"a": "1"})
    off["metadata"]["annotations"] = {"flagger.app/config-tracking": "disabled"}
    on = config("on", data={"a": "1"})
    on["metadata"]["annotations"] = {"flagger.app/config-tracking": "enabled"}
    found = [
        off,
        on,
        secret("token", type="kubernetes.io/service-account-token"),
        secret("tls", type="kubernetes.io/tls"),
        secret("old"),
    ]
    made, objects = tracker(*found)
    sums = await made.checksums("prod", using("off", "on", secrets=("token", "tls", "old")))
    assert list(sums) == ["configmap/on", "secret/old", "secret/tls"]
    assert ("read", "ConfigMap", "off") not in objects.reads


async def test_an_unchanged_object_is_read_once() -> None:
    made, objects = tracker(config("a", data={"x": "1"}), secret("b", data={"y": "Mg=="}))
    pod = using("a", secrets=("b",))
    first = await made.checksums("prod", pod)
    for _ in range(3):
        assert await made.checksums("prod", pod) == first
    assert requests(objects) == [("read", "ConfigMap", "a"), ("read", "Secret", "b")]
    objects.change(Reference("v1", "ConfigMap", "prod", "a"), {"data": {"x": "2"}})
    second = await made.checksums("prod", pod)
    assert second["configmap/a"] != first["configmap/a"]
    assert len(requests(objects)) == 3


async def test_metadata_that_moves_is_no_change() -> None:
    made, objects = tracker(config("a", data={"x": "1"}))
    first = await made.checksums("prod", using("a"))
    objects.change(Reference("v1", "ConfigMap", "prod", "a"), {"metadata": {"labels": {"b": "c"}}})
    assert await made.checksums("prod", using("a")) == first


async def test_memory_is_bounded() -> None:
    made, objects = tracker(*(config(name, data={"x": name}) for name in "abc"), remembered=2)
    for name in "abca":
        await made.checksums("prod", using(name))
    assert [name for _, _, name in requests(objects)] == ["a", "b", "c", "a"]
    await made.checksums("prod", using("c"))
    assert len(requests(objects)) == 4


async def test_what_is_missing() -> None:
    made, _ = tracker()
    assert await made.checksums("prod", using("a", secrets=("b",), optional=True)) == {}
    both = using("a", optional=True)
    both["containers"][0]["envFrom"] += using("a")["containers"][0]["envFrom"]
    with pytest.raises(Problem) as caught:
        await made.checksums("prod", both)
    what = "configmap a.prod get query error: "
    assert str(caught.value) == f'GetTargetConfigs failed: {what}{what}configmaps "a" not found'


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("verb", ["stamp", "read"])
async def test_a_read_error_is_never_a_change(optional: bool, verb: str) -> None:
    made, objects = tracker(config("a", data={"x": "1"}))
    objects.fail[verb, "ConfigMap", "a"] = ReconcileError("the server is away")
    with pytest.raises(Problem, match="the server is away"):
        await made.checksums("prod", using("a", optional=optional))


async def test_an_object_that_goes_between_two_looks_is_missing() -> None:
    made, objects = tracker(config("a", data={"x": "1"}))
    objects.fail["read", "ConfigMap", "a"] = NotFound('configmaps "a" not found')
    assert await made.checksums("prod", using("a", optional=True)) == {}


async def test_copies() -> None:
    source = config("a", data={"x": "1"}, binaryData={"raw": "AAEC"}, immutable=True)
    source["metadata"] |= {"labels": {"team": "blue"}, "annotations": {"note": "1"}}
    made, objects = tracker(source, secret("b", data={"y": "Mg=="}, type="kubernetes.io/tls"))
    sums = await made.copy(site_of(), using("a", secrets=("b",)))
    assert sums == await made.checksums("prod", using("a", secrets=("b",)))
    for kind, name, rest in (
        ("ConfigMap", "a-primary", {"data": {"x": "1"}, "binaryData": {"raw": "AAEC"}}),
        ("Secret", "b-primary", {"data": {"y": "Mg=="}, "type": "kubernetes.io/tls"}),
    ):
        copy = objects.now(Reference("v1", kind, "prod", name))
        assert copy is not None
        assert copy["metadata"]["ownerReferences"] == [OUR_REF]
        assert not {"labels", "annotations"} & copy["metadata"].keys()
        assert {part: value for part, value in copy.items() if part not in {"apiVersion", "kind", "metadata"}} == rest
    assert await made.copied("prod", using("a", secrets=("b",)))
    objects.forget()
    await made.copy(site_of(), using("a", secrets=("b",)))
    assert objects.writes == []


async def test_labels_of_copies_follow_the_prefixes() -> None:
    source = config("a", data={"x": "1"})
    source["metadata"]["labels"] = {"team": "blue", "tier": "1"}
    made, objects = tracker(source)
    site = site_of(settings=CanarySettings(include_label_prefix=("te",)))
    await made.copy(site, using("a"))
    objects.change(Reference("v1", "ConfigMap", "prod", "a-primary"), {"metadata": {"labels": {"mine": "1"}}})
    objects.change(Reference("v1", "ConfigMap", "prod", "a"), {"data": {"x": None}})
    await made.copy(site, using("a"))
    copy = objects.now(Reference("v1", "ConfigMap", "prod", "a-primary"))
    assert copy is not None
    assert copy["metadata"]["labels"] == {"team": "blue", "mine": "1"}
    assert not copy.get("data")


async def test_a_copy_can_have_several_canaries() -> None:
    other = {**CANARY_REF, "name": "api", "uid": "uid-of-api"}
    older = {**CANARY_REF, "name": "web", "uid": "of-a-canary-that-is-gone"}
    copy = config("a-primary", data={"x": "1"})
    copy["metadata"]["ownerReferences"] = [other, older]
    made, objects = tracker(config("a", data={"x": "1"}), copy)
    await made.copy(site_of(), using("a"))
    found = objects.now(Reference("v1", "ConfigMap", "prod", "a-primary"))
    assert found is not None
    assert found["metadata"]["ownerReferences"] == [OUR_REF, {**other, "controller": False}]


@pytest.mark.parametrize(
    ("copy", "source"),
    [
        (config("a-primary", data={"x": "0"}, immutable=True), config("a", data={"x": "1"})),
        (secret("a-primary", data={"x": "MQ=="}, type="Opaque"), secret("a", data={"x": "MQ=="}, type="kubernetes.io/tls")),
    ],
)
async def test_a_copy_that_cannot_be_changed_is_made_anew(copy: dict[str, Any], source: dict[str, Any]) -> None:
    kind = source["kind"]
    made, objects = tracker(source, {**copy, "metadata": {**copy["metadata"], "annotations": {"note": "1"}}})
    pod = using("a") if kind == "ConfigMap" else using(secrets=("a",))
    await made.copy(site_of(), pod)
    assert objects.writes == [("delete", kind, "a-primary"), ("create", kind, "a-primary")]
    found = objects.now(Reference("v1", kind, "prod", "a-primary"))
    assert found is not None
    assert found["data"] == source["data"]
    assert found["metadata"]["annotations"] == {"note": "1"}
    assert found["metadata"]["ownerReferences"] == [OUR_REF]


async def test_an_immutable_copy_that_is_right_stays() -> None:
    copy = config("a-primary", data={"x": "1"}, immutable=True)
    copy["metadata"]["ownerReferences"] = [OUR_REF]
    made, objects = tracker(config("a", data={"x": "1"}), copy)
    await made.copy(site_of(), using("a"))
    assert objects.writes == []


async def test_a_lost_race_for_a_copy_is_run_again() -> None:
    made, objects = tracker(config("a", data={"x": "1"}), config("a-primary", data={"x": "0"}))
    which = Reference("v1", "ConfigMap", "prod", "a-primary")
    objects.before["ConfigMap", "a-primary"] = lambda: objects.change(which, {"metadata": {"labels": {"theirs": "1"}}})
    await made.copy(site_of(), using("a"))
    found = objects.now(which)
    assert found is not None
    assert found["data"] == {"x": "1"}
    assert found["metadata"]["labels"] == {"theirs": "1"}


async def test_a_refused_copy_names_it_and_not_its_content() -> None:
    made, objects = tracker(secret("a", data={"x": "c2VjcmV0"}))
    objects.fail["create", "Secret", "a-primary"] = ReconcileError("forbidden")
    with pytest.raises(Problem) as caught:
        await made.copy(site_of(), using(secrets=("a",)))
    assert str(caught.value) == "CreatePrimaryConfigs failed: secret a-primary.prod: forbidden"


@pytest.mark.parametrize(
    ("copy", "same"),
    [
        (None, False),
        (config("a-primary", data={"x": "1"}, binaryData={"raw": "AAEC"}), True),
        (config("a-primary", data={"x": "1"}), True),
        (config("a-primary", data={"x": "1"}, binaryData={"raw": "AAED"}), False),
        (config("a-primary", data={"x": "2"}, binaryData={"raw": "AAEC"}), False),
    ],
)
async def test_whether_copies_have_what_is_used(copy: dict[str, Any] | None, same: bool) -> None:
    source = config("a", data={"x": "1"}, binaryData={"raw": "AAEC"})
    made, _ = tracker(source, *([copy] if copy else []))
    assert await made.copied("prod", using("a")) is same
