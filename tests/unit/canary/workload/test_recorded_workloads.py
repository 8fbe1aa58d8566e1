"""Recorded runs of Flagger, played again: the same objects, version by version, but where we differ on purpose."""

from __future__ import annotations

from typing import Any

import pytest

from canary.errors import Problem
from canary.site import Site
from canary.workload.autoscaler import make_scaler
from canary.workload.base import Scaler
from canary.workload.services import ensure_apex, ensure_backends, give_back_apex
from tests.support.canary_workloads import Stage, spec_of

CONFIGS = ("ConfigMap/settings", "ConfigMap/files", "ConfigMap/untracked", "Secret/keys")


async def start(stage: Stage) -> None:
    """What the first ticks of a Canary do to workloads and Services."""
    await stage.read_target()
    with stage.looking():
        await ensure_backends(stage.objects, stage.site)
    with stage.looking():
        await stage.workload.initialize(stage.site)
    with stage.looking():
        await ensure_apex(stage.objects, stage.site)
    with stage.looking():
        await stage.workload.scale_to_zero(stage.site)


async def run(stage: Stage) -> None:
    """What a run that succeeds does to workloads."""
    for step in (stage.workload.scale_from_zero, stage.workload.promote, stage.workload.scale_to_zero):
        with stage.looking():
            await step(stage.site)


def assert_as_recorded(stage: Stage, *but: str) -> None:
    keys = [key for key in stage.facts if key != "configs" and key not in but]
    assert {key: stage.seen(key) for key in keys} == {key: stage.expected(key) for key in keys}


@pytest.mark.parametrize("story", ["ab-kubernetes", "new-revision-mid-run", "gatewayapi-full-service"])
async def test_a_run_that_succeeds(story: str) -> None:
    service = {"apex": {"labels": {"kind": "apex"}, "annotations": {"note": "apex"}}} if "gateway" in story else {}
    stage = Stage(story, spec_of(service=service), "Deployment/web")
    await start(stage)
    stage.release("2")
    if story == "new-revision-mid-run":
        with stage.looking():
            await stage.workload.scale_from_zero(stage.site)
        stage.release("3")
    await run(stage)
    assert_as_recorded(stage)


async def test_a_run_that_fails() -> None:
    stage = Stage("rollback-success-rate", spec_of(), "Deployment/web")
    await start(stage)
    stage.release("2")
    for step in (stage.workload.scale_from_zero, stage.workload.scale_to_zero):
        with stage.looking():
            await step(stage.site)
    assert_as_recorded(stage)


async def test_another_selector_label_and_spreading() -> None:
    stage = Stage("init-other-label", spec_of(), "Deployment/web")
    await start(stage)
    assert (stage.site.label, stage.site.value) == ("name", "frontend")
    assert_as_recorded(stage)


async def test_a_config_that_comes_late() -> None:
    stage = Stage("init-missing-config", spec_of(), "Deployment/web")
    with pytest.raises(Problem) as caught:
        await start(stage)
    missing = 'configmap settings.st-init-missing-config get query error: configmaps "settings" not found'
    prefix = (
        "createPrimaryDeployment failed: GetTargetConfigs failed: configmap settings.st-init-missing-config get query error: "
    )
    assert str(caught.value) == prefix + missing
    assert ("create", "Deployment", "web-primary") not in stage.objects.writes
    stage.give("ConfigMap/settings")
    stage.look()
    await start(stage)
    assert await stage.workload.configs(stage.site) == stage.facts["configs"][0]
    assert_as_recorded(stage)


def without_binary(configs: Any) -> dict[str, str]:
    """What Flagger knows: its checksums leave `binaryData` out, ours beside them do not."""
    return {name: value for name, value in configs.items() if not name.endswith("#binaryData")}


async def test_changes_of_configs() -> None:
    stage = Stage("config-change", spec_of(), "Deployment/web", *CONFIGS)
    await start(stage)
    seen = [await stage.workload.configs(stage.site)]
    for kind, name, data in (("ConfigMap", "settings", {"a": "2"}), ("Secret", "keys", {"key": "azI="})):
        stage.change(kind, name, {"data": data})
        seen.append(await stage.workload.configs(stage.site))
        await run(stage)
    stage.change("ConfigMap", "untracked", {"data": {"z": "2"}})
    assert await stage.workload.configs(stage.site) == seen[-1]
    assert list(map(without_binary, seen)) == list(map(without_binary, stage.facts["configs"]))
    assert stage.seen("ConfigMap/files-primary")[0].pop("binaryData") == {"raw": "AAEC"}
    assert_as_recorded(stage, "ConfigMap/files-primary")


async def test_a_change_of_a_config_in_a_run() -> None:
    stage = Stage("config-change-mid-run", spec_of(), "Deployment/web", *CONFIGS)
    await start(stage)
    stage.release("2")
    with stage.looking():
        await stage.workload.scale_from_zero(stage.site)
    stage.change("ConfigMap", "files", {"data": {"text": "new"}})
    await run(stage)
    made, *changes = stage.seen("ConfigMap/files-primary")
    expected, *expected_changes = stage.expected("ConfigMap/files-primary")
    assert made == {**expected, "binaryData": {"raw": "AAEC"}}
    assert changes == expected_changes
    assert_as_recorded(stage, "ConfigMap/files-primary")


def scaler_of(site: Site, stage: Stage) -> Scaler:
    scaler = make_scaler(site, stage.objects)
    assert scaler is not None
    return scaler


async def test_a_scaled_object() -> None:
    ref = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "web"}
    stage = Stage("scaled-object", spec_of(autoscalerRef=ref), "Deployment/web", "ScaledObject/web")
    await start(stage)
    scaler = scaler_of(stage.site, stage)
    for step in (scaler.initialize, scaler.pause):
        with stage.looking():
            await step(stage.site)
    stage.release("2")
    workload = stage.workload
    run = (scaler.resume, workload.scale_from_zero, workload.promote, scaler.promote, scaler.pause, workload.scale_to_zero)
    for each in run:
        with stage.looking():
            await each(stage.site)
    assert_as_recorded(stage)


@pytest.mark.parametrize("story", ["delete-revert-kubernetes", "delete-mid-run-revert"])
async def test_a_target_that_is_given_back(story: str) -> None:
    stage = Stage(story, spec_of(revertOnDeletion=True), "Deployment/web")
    await start(stage)
    if story == "delete-mid-run-revert":
        stage.release("2")
        with stage.looking():
            await stage.workload.scale_from_zero(stage.site)
    with stage.looking():
        await stage.workload.give_back(stage.site)
    with stage.looking():
        await give_back_apex(stage.objects, stage.site)
    assert_as_recorded(stage)


async def test_a_service_that_is_given_back() -> None:
    stage = Stage("delete-revert-istio", spec_of(revertOnDeletion=True), "Deployment/web", "Service/web")
    await start(stage)
    with stage.looking():
        await stage.workload.give_back(stage.site)
    with stage.looking():
        await give_back_apex(stage.objects, stage.site)
    taken, adopted, given_back = stage.seen("Service/web")
    assert [taken, adopted] == stage.expected("Service/web")[:2]
    # Flagger leaves its annotations behind.
    assert given_back == {**stage.expected("Service/web")[2], "/annotations": None}
    assert_as_recorded(stage, "Service/web")


async def test_what_is_there_is_neither_written_nor_asked_for_again() -> None:
    stage = Stage("config-change", spec_of(), "Deployment/web", *CONFIGS)
    await start(stage)
    stage.release("2")
    await run(stage)
    stage.objects.forget()
    for _ in range(2):
        await ensure_backends(stage.objects, stage.site)
        await stage.workload.initialize(stage.site)
        await ensure_apex(stage.objects, stage.site)
        await stage.workload.configs(stage.site)
        await stage.workload.same_as_primary(stage.site)
        await stage.workload.scale_to_zero(stage.site)
    assert stage.objects.writes == []
    assert [read for read in stage.objects.reads if read[0] == "read"] == []
