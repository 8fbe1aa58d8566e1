"""Canaries, MetricTemplates and AlertProviders in a folder of manifests: read and shown, but left alone: there is no traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from canary.api import API_VERSION
from tests.support.lab import Running, lab, obj

ANALYSIS: dict[str, Any] = {"interval": "1m", "threshold": 5, "stepWeight": 10, "gateDeadline": "1h"}
TEMPLATE = {"provider": {"type": "prometheus", "address": "http://127.0.0.1:1"}, "query": "up"}
OBJECTS = (
    obj(API_VERSION, "Canary", "web", {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                                       "service": {"port": 80}, "analysis": ANALYSIS}),
    obj(API_VERSION, "MetricTemplate", "errors", TEMPLATE),
    obj(API_VERSION, "AlertProvider", "chat", {"type": "slack", "address": "http://127.0.0.1:1"}),
)  # fmt: skip


async def untouched(running: Running) -> None:
    """All three are there, and nothing was written to them."""
    for body in OBJECTS:
        found = (await running.get(body["kind"], body["metadata"]["name"])).to_dict()
        assert found["spec"] == body["spec"]
        assert found["status"] == {}
        assert found["metadata"].get("finalizers", []) == []
        assert running.writes(body["kind"]) == 0


async def test_they_are_read_beside_image_objects_and_not_acted_upon(tmp_path: Path) -> None:
    async with lab(tmp_path) as world:
        world.registry.push_image("web", "1.0.0")
        world.declare(*OBJECTS)
        world.declare_app()
        async with world.start() as running:
            await running.until_ready("ImageUpdateAutomation", "web")
            await untouched(running)


async def test_a_single_pass_over_them_ends_well(tmp_path: Path) -> None:
    async with lab(tmp_path) as world:
        world.declare(*OBJECTS)
        done = await world.once()
        assert {kind for kind, _ in done.objects} == {body["kind"] for body in OBJECTS}
        assert (list(done.problems), done.outcomes, done.changed) == ([], {}, False)


@pytest.mark.parametrize("number", range(len(OBJECTS)))
async def test_one_that_an_api_server_would_refuse_is_reported(number: int, tmp_path: Path) -> None:
    body = OBJECTS[number]
    async with lab(tmp_path) as world:
        world.declare({**body, "spec": {**body["spec"], "unknownField": 1}})
        done = await world.once()
        assert ["unknown field spec.unknownField" in str(problem) for problem in done.problems] == [True]
        assert done.objects == {}
