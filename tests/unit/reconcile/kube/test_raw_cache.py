"""Objects of anybody in memory, between list, watch and our own writes; and what the server is asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from reconcile.api.meta import Key
from reconcile.kube.cache import LAST_APPLIED
from reconcile.kube.client import open_client
from reconcile.kube.connect import KubeSettings
from reconcile.kube.objects import KubeObjects
from reconcile.kube.rawcache import AnyKind, Bodies, Stamps
from reconcile.ports.clock import SystemClock
from reconcile.ports.cluster import Reference

KIND = AnyKind("apps/v1", "Deployment")


def body(name: str = "a", version: int = 10, *, uid: str = "", **metadata: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "ns", "uid": uid or f"u-{name}", "resourceVersion": str(version), **metadata}
    return {"metadata": meta, "spec": {"v": version}}


class Told:
    def __init__(self) -> None:
        self.names: list[str] = []

        self.status_only: list[bool] = []

    def __call__(self, info: AnyKind, key: Key, status_only: bool) -> None:
        self.names.append(key.name)
        self.status_only.append(status_only)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def cache(told: Told) -> Bodies:
    made = Bodies(KIND, KIND.label, told)
    made.begin()
    made.page("apps/v1", [body()])
    made.end("10")
    told.names.clear()
    return made


def versions(cache: Bodies) -> dict[str, str]:
    return {orjson.loads(found.text)["metadata"]["name"]: found.version for found in cache.all()}


def test_items_of_a_list_know_their_kind_and_have_no_bookkeeping(cache: Bodies) -> None:
    cache.changed(body(version=11, managedFields=[{"manager": "x"}], annotations={LAST_APPLIED: "{}"}))
    found = cache.get(Key("ns", "a"))
    assert found is not None
    whole = orjson.loads(found.text)
    assert (whole["apiVersion"], whole["kind"], whole["spec"]) == ("apps/v1", "Deployment", {"v": 11})
    assert "managedFields" not in whole["metadata"]
    assert whole["metadata"]["annotations"] == {LAST_APPLIED: "{}"}


def test_what_we_made_is_there_before_the_watch_tells(cache: Bodies, told: Told) -> None:
    cache.wrote(body("new", 12), known="10")
    assert versions(cache) == {"a": "10", "new": "12"}
    cache.changed(body("new", 12))
    assert told.names == ["new"]


def test_an_answer_that_comes_after_the_object_s_end_does_not_bring_it_back(cache: Bodies, told: Told) -> None:
    # Made as version 12, deleted by somebody as 13, both told by the watch before the answer was read.
    cache.changed(body("new", 12))
    cache.deleted(body("new", 13))
    cache.wrote(body("new", 12), known="13")
    assert (versions(cache), told.names) == ({"a": "10"}, ["new", "new"])


def test_what_was_made_while_a_list_was_under_way_stays(cache: Bodies, told: Told) -> None:
    cache.begin()
    cache.page("apps/v1", [body()])
    cache.wrote(body("new", 25), known="")
    cache.end("20")
    assert (versions(cache), told.names) == ({"a": "10", "new": "25"}, ["new"])


def test_what_was_made_and_deleted_before_the_list_was_read_is_gone(cache: Bodies) -> None:
    cache.begin()
    cache.wrote(body("new", 15), known="")
    cache.page("apps/v1", [body()])
    cache.end("20")
    assert versions(cache) == {"a": "10"}


def test_a_late_answer_about_an_earlier_object_of_the_name_changes_nothing(cache: Bodies) -> None:
    cache.changed(body(version=14, uid="second"))
    cache.wrote(body(version=12, uid="first"), known="11")
    assert versions(cache) == {"a": "14"}


def test_what_we_deleted_is_gone_whatever_the_watch_still_tells(cache: Bodies, told: Told) -> None:
    cache.ended(Key("ns", "a"), "u-a")
    cache.changed(body(version=11))
    cache.deleted(body(version=12))
    assert (versions(cache), told.names) == ({}, ["a"])
    cache.changed(body(version=13, uid="second"))
    assert versions(cache) == {"a": "13"}


def test_the_end_of_another_object_of_the_name_is_not_the_end_of_this_one(cache: Bodies) -> None:
    cache.ended(Key("ns", "a"), "somebody-else")
    assert versions(cache) == {"a": "10"}


def test_a_status_is_told_from_what_somebody_wants(cache: Bodies, told: Told) -> None:
    told.status_only.clear()
    before = body(version=10)
    same = {**body(version=11), "spec": before["spec"]}
    cache.changed({**same, "status": {"ready": 1}})
    cache.changed({**same, "metadata": {**same["metadata"], "resourceVersion": "12", "managedFields": [{"manager": "x"}]}})
    assert told.status_only == [True, True]
    cache.changed({**same, "metadata": {**same["metadata"], "resourceVersion": "13", "labels": {"l": "1"}}})
    cache.changed(body(version=14, uid="another"))
    cache.deleted(body(version=15, uid="another"))
    assert told.status_only == [True, True, False, False, False, False]


def test_stamps_hold_no_content(told: Told) -> None:
    cache = Stamps(AnyKind("v1", "Secret"), "Secret", told)
    cache.begin()
    secret = {**body(annotations={LAST_APPLIED: '{"data":"c2VjcmV0"}', "a": "1"}), "data": {"password": "c2VjcmV0"}}
    cache.page("v1", [secret])
    cache.end("10")
    held = cache.get(Key("ns", "a"))
    assert held is not None
    assert (held.uid, held.version, held.annotations) == ("u-a", "10", {"a": "1"})
    assert "c2VjcmV0" not in repr(held)


async def test_content_of_secrets_is_never_asked_for(tmp_path: Path) -> None:
    accepted: dict[str, str] = {}
    watching = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v1":
            resources = [{"name": name, "kind": kind, "namespaced": True} for name, kind in RESOURCES]
            return web.json_response({"resources": resources})
        verb = "watch" if "watch" in request.query else "list"
        accepted[f"{verb} {request.path}"] = request.headers["Accept"]
        if verb == "watch":
            response = web.StreamResponse()
            await response.prepare(request)
            if len([key for key in accepted if key.startswith("watch")]) == len(RESOURCES):
                watching.set()
            await asyncio.Event().wait()
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})

    RESOURCES = [("secrets", "Secret"), ("configmaps", "ConfigMap"), ("services", "Service")]
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        config = tmp_path / "kubeconfig"
        cluster = {"name": "x", "cluster": {"server": str(server.make_url("")).rstrip("/")}}
        context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
        users = [{"name": "x", "user": {"token": "t"}}]
        config.write_text(yaml.safe_dump({"clusters": [cluster], "contexts": [context], "users": users, "current-context": "x"}))
        settings = KubeSettings(kubeconfig=str(config))
        async with (
            open_client(settings, SystemClock(), environment={}) as client,
            KubeObjects(client, SystemClock()) as objects,
        ):
            for _, kind in RESOURCES:
                assert await objects.stamp(Reference("v1", kind, "ns", "a")) is None
            async with asyncio.timeout(10):
                await watching.wait()
    whole = "application/json"
    form = "application/json;as={};g=meta.k8s.io;v=v1"
    assert accepted == {
        "list /api/v1/secrets": form.format("PartialObjectMetadataList"),
        "watch /api/v1/secrets": form.format("PartialObjectMetadata"),
        "list /api/v1/configmaps": form.format("PartialObjectMetadataList"),
        "watch /api/v1/configmaps": form.format("PartialObjectMetadata"),
        "list /api/v1/services": whole,
        "watch /api/v1/services": whole,
    }
