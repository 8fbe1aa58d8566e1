"""What an explanation reads around a Canary: from the objects of a world in which the real controller works."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from canary.cli.facts import Facts
from canary.cli.reading import ReadOnly, gather
from canary.cli.reasons import explain
from canary.cli.view import view_of
from canary.metrics.base import Verdict
from canary.phases import Phase
from canary.routing.base import Weights
from canary.settings import CanarySettings
from reconcile.kube.errors import Denied, Target
from reconcile.ports.cluster import Reference
from tests.support.canaryworld import INTERVAL, ISTIO, KEY, NAMESPACE, CanaryWorld, canary, canary_world, deployment

WEB = Reference("apps/v1", "Deployment", NAMESPACE, "web")
PRIMARY = Reference("apps/v1", "Deployment", NAMESPACE, "web-primary")
ROUTE = Reference(ISTIO, "VirtualService", NAMESPACE, "web")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CanaryWorld]:
    async with canary_world(tmp_path) as made:
        yield made


async def initialized(world: CanaryWorld, **more: Any) -> None:
    await world.declare(deployment(), canary(**more))
    await world.until(Phase.INITIALIZED)


async def facts_of(world: CanaryWorld) -> Facts:
    """The facts as a command would have them; reading writes nothing."""
    world.objects.forget()
    found = await world.store.get("Canary", KEY)
    facts = await gather(world.objects, view_of(found), CanarySettings(), (), world.clock.now())
    assert world.objects.writes == []
    return facts


def verdict(facts: Facts) -> str:
    return explain(facts)[0].text


async def test_a_canary_at_rest(world: CanaryWorld) -> None:
    await initialized(world)
    facts = await facts_of(world)
    assert (facts.changed, facts.same, facts.primary and facts.primary.ready) == (False, True, True)
    assert verdict(facts).startswith("Nothing is to be done")


async def test_each_object_is_read_once(world: CanaryWorld) -> None:
    await initialized(world)
    await facts_of(world)
    assert sorted(world.objects.reads) == sorted(set(world.objects.reads))


async def test_a_new_revision_that_nobody_has_seen(world: CanaryWorld) -> None:
    await initialized(world)
    world.release("2")
    assert (await facts_of(world)).changed is True


async def test_a_run_has_weights_and_pods(world: CanaryWorld) -> None:
    await initialized(world)
    world.release("2")
    await world.run(1.5 * INTERVAL)
    facts = await facts_of(world)
    assert (facts.live, facts.changed) == (Weights.at(20), False)
    world.pods.failed.add("web")
    world.pods.run()
    facts = await facts_of(world)
    assert facts.ready is not None
    assert (facts.ready.ready, facts.ready.retriable) == (False, False)


async def test_a_failed_run_is_not_changed_by_its_own_scaling(world: CanaryWorld) -> None:
    await initialized(world)
    world.measures.verdicts = [Verdict.FAIL]
    world.release("2")
    await world.until(Phase.FAILED)
    facts = await facts_of(world)
    assert facts.changed is False
    assert explain(facts)[1].text == "Halt web.test advancement errors 7.10 > 5."
    world.release("3")
    assert (await facts_of(world)).changed is True


async def test_a_target_that_is_gone(world: CanaryWorld) -> None:
    await initialized(world)
    world.objects.missing_kinds.clear()
    await world.objects.delete(WEB)
    facts = await facts_of(world)
    assert facts.target_problem == 'deployment web.test get query error: deployments.apps "web" not found'


async def test_routes_that_are_gone_and_definitions_that_are_missing(world: CanaryWorld) -> None:
    await initialized(world)
    await world.objects.delete(ROUTE)
    assert "not found" in (await facts_of(world)).routes_problem
    world.objects.missing_kinds.add((ISTIO, "VirtualService"))
    assert (await facts_of(world)).routes_problem


async def test_a_template_that_is_missing(world: CanaryWorld) -> None:
    await initialized(world, metrics=[{"name": "errors", "templateRef": {"name": "errors"}, "interval": "1m"}])
    assert (await facts_of(world)).missing_templates == ("test/errors (metric errors)",)


async def test_what_may_not_be_read_is_not_taken_for_a_fact(world: CanaryWorld) -> None:
    await initialized(world)
    denied = Denied("deployments.apps is forbidden", "get", Target("apps", "v1", "deployments"))
    world.objects.fail["read", "Deployment", "*"] = denied
    facts = await facts_of(world)
    assert (facts.target_problem, facts.changed, facts.target) == ("", None, None)
    assert len(facts.denied) == 1
    assert "forbidden" in facts.denied[0]


async def test_an_invalid_spec_is_told_in_the_words_of_the_service(world: CanaryWorld) -> None:
    await initialized(world)
    await world.declare(canary(spec={"service": None}))
    assert (await facts_of(world)).invalid.startswith("spec.service is missing")


async def test_nothing_can_be_written(world: CanaryWorld) -> None:
    reader = ReadOnly(world.objects)
    for work in (reader.create(deployment(), manager="x"), reader.patch(WEB, {"a": 1}, manager="x"), reader.delete(WEB)):
        with pytest.raises(RuntimeError, match="writes nothing"):
            await work
    assert world.objects.writes == []
