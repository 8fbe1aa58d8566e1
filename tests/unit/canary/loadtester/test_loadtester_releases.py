"""Waiting for HelmReleases and Kustomizations at an API server of the test's own: what becomes of each state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from canary.loadtester.cluster import ClusterReleases
from reconcile.runtime.server import serving
from tests.support.loadtesting import LOOPBACK, running

READY = {"type": "Ready", "status": "True", "observedGeneration": 2, "message": "Helm upgrade succeeded"}
FAILED = {"type": "Ready", "status": "False", "observedGeneration": 2, "message": "install retries exhausted"}
BUSY = {"type": "Reconciling", "status": "True", "observedGeneration": 2, "message": "Running 'upgrade' action"}


def release(*conditions: dict[str, Any], observed: int = 2) -> dict[str, Any]:
    meta = {"name": "my-app", "namespace": "production", "generation": 2}
    return {"metadata": meta, "spec": {}, "status": {"observedGeneration": observed, "conditions": list(conditions)}}


@dataclass
class FluxApi:
    """An API server with one object of each kind, in these states one after the other; the last one stays."""

    versions: dict[str, str] = field(
        default_factory=lambda: {"helm.toolkit.fluxcd.io": "v2", "kustomize.toolkit.fluxcd.io": "v1"}
    )
    states: list[dict[str, Any] | int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        parts = request.url.path.strip("/").split("/")
        served = self.versions.get(parts[1])
        if len(parts) == 2 and served:
            return JSONResponse({"kind": "APIGroup", "versions": [{"version": served}]})
        if len(parts) == 3 and parts[2] == served:
            return JSONResponse({"resources": [{"name": "helmreleases"}, {"name": "kustomizations"}]})
        if len(parts) < 4:
            return _status(404)
        self.asked.append(request.url.path)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return _status(state, name="my-app") if isinstance(state, int) else JSONResponse(state)


def _status(code: int, **details: str) -> Response:
    reason = {403: "Forbidden", 404: "NotFound", 500: "InternalError"}[code]
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": "no"}
    return JSONResponse({**body, "details": details}, code)


@asynccontextmanager
async def releases(api: FluxApi, folder: Path) -> AsyncIterator[ClusterReleases]:
    app = Starlette(routes=[Route("/{path:path}", api.answer)])
    async with serving(app, LOOPBACK) as url:
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "Secret0Token1Of2The3Test"}}],
        }
        (folder / "config").write_text(yaml.safe_dump(config))
        yield ClusterReleases(str(folder / "config"), "")


METADATA = {"name": "my-app", "namespace": "production"}


@pytest.mark.parametrize(
    ("states", "status", "text"),
    [
        ([release(READY)], 200, "Helm upgrade succeeded"),
        ([release(READY, observed=1), release(BUSY), 500, release(READY)], 200, "Helm upgrade succeeded"),
        ([release(FAILED)], 424, "HelmRelease production/my-app is not ready: install retries exhausted"),
        ([404], 404, "HelmRelease production/my-app not found"),
        ([403], 502, "HelmRelease production/my-app: "),
    ],
)
async def test_states_of_a_release(states: list[Any], status: int, text: str, tmp_path: Path) -> None:
    api = FluxApi(states=list(states))
    async with releases(api, tmp_path) as found, running(releases=found) as tester:
        answer = await tester.task(type="helmrelease", **METADATA)
        assert answer[0] == status
        assert answer[1].startswith(text)
    path = "/apis/helm.toolkit.fluxcd.io/v2/namespaces/production/helmreleases/my-app"
    assert api.asked == [path] * len(states)


@pytest.mark.parametrize("state", [release(READY, observed=1), release(BUSY), release()])
async def test_a_release_that_does_not_become_ready_in_time(state: dict[str, Any], tmp_path: Path) -> None:
    api = FluxApi(states=[state])
    async with releases(api, tmp_path) as found, running(releases=found) as tester:
        status, text = await tester.task(type="helmrelease", timeout="300ms", **METADATA)
        assert status == 424
        assert text.startswith("HelmRelease production/my-app was not done after 300ms: ")


@pytest.mark.parametrize("version", ["v2", "v2beta2", "v2beta1"])
async def test_the_version_that_is_served_is_used(version: str, tmp_path: Path) -> None:
    api = FluxApi({"helm.toolkit.fluxcd.io": version}, [release(READY)])
    async with releases(api, tmp_path) as found, running(releases=found) as tester:
        assert (await tester.task(type="helmrelease", **METADATA))[0] == 200
        status, text = await tester.task(type="kustomization", **METADATA)
        assert (status, "Flux's definition of Kustomization is not installed" in text) == (501, True)
    assert api.asked == [f"/apis/helm.toolkit.fluxcd.io/{version}/namespaces/production/helmreleases/my-app"]


async def test_a_kustomization(tmp_path: Path) -> None:
    api = FluxApi(states=[release({**READY, "message": "Applied revision: main@sha1:1"})])
    async with releases(api, tmp_path) as found, running(releases=found) as tester:
        assert await tester.task(type="kustomization", **METADATA) == (200, "Applied revision: main@sha1:1")
    assert api.asked == ["/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/production/kustomizations/my-app"]
