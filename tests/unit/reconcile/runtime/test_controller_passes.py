"""One object, one pass after the other: status, events, finalizers, suspension, requests, retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reconcile.api.conditions import MAX_MESSAGE
from reconcile.api.meta import FINALIZER, REQUESTED_AT, Key
from reconcile.errors import Conflict, Failed, NotFound, ReconcileError, Stalled, Waiting
from reconcile.ports.store import Change, ChangeType
from reconcile.runtime.outcome import Pending, Success
from reconcile.runtime.run import Run
from tests.support.bench import KEY, KIND, Bench, bench, manifest

TIMER = f"{KIND}/default/a"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


async def ready(world: Bench, **options: Any) -> None:
    """An object that has had a good pass."""
    await world.declare(manifest(**options))
    await world.step()
    world.sink.take()


# --- status


async def test_a_first_pass_adds_the_finalizer_and_ends_ready(world: Bench) -> None:
    await world.declare()
    await world.step()
    found = await world.get()
    assert found.meta.finalizers == [FINALIZER]
    assert world.conditions(found) == [("Ready", "True", "Succeeded", "all is well")]
    assert found.status.observed_generation == 1
    assert world.writes == 2  # the new generation is shown at once, then the end


async def test_a_new_generation_is_shown_before_the_work(world: Bench) -> None:
    seen = []

    async def look(run: Run) -> Success:
        seen.append(world.conditions(await world.get()))
        return Success("fine")

    world.reconciler.outcome = look
    await world.declare()
    await world.step()
    text = "processing object: new generation -1 -> 1"
    assert seen == [[("Reconciling", "True", "Progressing", text), ("Ready", "Unknown", "Progressing", text)]]


async def test_an_unchanged_pass_writes_nothing_and_says_nothing(world: Bench) -> None:
    await ready(world)
    before, writes = await world.get(), world.writes
    for _ in range(3):
        world.clock.advance(61)
        await world.step()
    assert await world.get() == before
    assert world.writes == writes
    assert world.sink.take() == []
    assert world.reconciler.runs == 4


async def test_a_repeated_failure_writes_once_and_says_it_once(world: Bench) -> None:
    await ready(world)
    world.reconciler.outcome = Failed("Broken", "it broke")
    await world.step()
    writes = world.writes
    assert world.sink.take() == [("Warning", "Broken", "it broke")]
    for _ in range(3):
        world.clock.advance(1000)
        await world.step()
    assert (world.writes, world.sink.take()) == (writes, [])
    assert (await world.get()).status.observed_generation == 1


async def test_a_stamp_is_written_only_with_other_news_or_when_due(world: Bench) -> None:
    moments = iter(range(100))
    due = False

    def stamped(run: Run) -> Success:
        run.stamp(lambda status: status.model_copy(update={"canonical_image_name": f"n{next(moments)}"}), due=due)
        return Success("fine")

    world.reconciler.outcome = stamped
    await ready(world)
    writes = world.writes
    await world.step()
    assert world.writes == writes
    due = True
    await world.step()
    assert world.writes == writes + 1


async def test_progress_is_written_when_asked_and_kept_when_the_pass_fails(world: Bench) -> None:
    await ready(world)

    async def half(run: Run) -> Success:
        await run.progress("scanning: reconcile requested", write=True)
        assert world.conditions(await world.get())[0] == ("Reconciling", "True", "Progressing", "scanning: reconcile requested")
        raise Failed("Broken", "it broke")

    world.reconciler.outcome = half
    await world.step()
    assert world.conditions(await world.get()) == [
        ("Reconciling", "True", "ProgressingWithRetry", "scanning: reconcile requested"),
        ("Ready", "False", "Broken", "it broke"),
    ]


async def test_pending_on_a_known_generation_writes_nothing(world: Bench) -> None:
    await ready(world)
    before = await world.get()
    world.reconciler.outcome = Pending("waiting")
    await world.step()
    assert await world.get() == before
    assert world.sink.take() == []


# --- retry


async def test_failures_back_off_and_a_success_resets_them(world: Bench) -> None:
    await world.declare()
    world.reconciler.outcome = Failed("Broken", "it broke")
    delays = []
    for _ in range(4):
        await world.step()
        delays.append(world.clock.due[TIMER])
    assert delays == [0.75, 1.5, 3.0, 6.0]
    world.reconciler.outcome = Success("fine", after=60.0)
    await world.step()
    assert world.clock.due == {TIMER: 60.0}
    world.reconciler.outcome = Failed("Broken", "it broke")
    await world.step()
    assert world.clock.due == {TIMER: 0.75}


@pytest.mark.parametrize(
    ("outcome", "due"),
    [
        (Waiting("DependencyNotReady", "not yet", 30.0), {TIMER: 30.0}),
        (Stalled("Broken", "it broke"), {}),
        (Success("fine"), {}),
        (Success("fine", after=0.0), {}),
        (Pending("waiting", after=5.0), {TIMER: 5.0}),
        (RuntimeError("bug"), {TIMER: 0.75}),
    ],
)
async def test_when_an_object_is_looked_at_again(world: Bench, outcome: Any, due: dict[str, float]) -> None:
    await world.declare()
    world.reconciler.outcome = outcome
    await world.step()
    assert world.clock.due == due


async def test_a_timer_puts_the_key_into_the_queue_and_a_pass_cancels_it(world: Bench) -> None:
    await ready(world)
    world.clock.advance(59)
    assert len(world.controller.queue) == 0
    world.clock.advance(1)
    assert len(world.controller.queue) == 1
    world.reconciler.outcome = Stalled("Broken", "it broke")
    world.clock.later(TIMER, 5, lambda: None)
    await world.step()
    assert world.clock.due == {}


async def test_in_a_single_pass_nothing_comes_back(tmp_path: Path) -> None:
    async with bench(tmp_path, retry=False) as world:
        await world.declare()
        world.reconciler.outcome = Failed("Broken", "it broke")
        await world.step()
        assert world.clock.due == {}
        assert isinstance(world.controller.outcomes[KEY], Failed)


# --- failures


async def test_an_unexpected_exception_is_an_error_event_and_is_retried(world: Bench) -> None:
    await world.declare()
    world.reconciler.outcome = ZeroDivisionError("https://u:hunter2@host")
    await world.step()
    text = "internal error: ZeroDivisionError: https://host"
    assert world.sink.take() == [("Warning", "Failed", text)]
    assert world.conditions(await world.get())[1] == ("Ready", "False", "Failed", text)
    assert world.clock.due == {TIMER: 0.75}
    assert world.value("controller_runtime_reconcile_panics_total", controller=KIND.lower()) == 1
    assert world.value("controller_runtime_reconcile_total", controller=KIND.lower(), result="error") == 1


async def test_a_cancelled_dependency_does_not_end_the_worker(world: Bench) -> None:
    async def joins(run: Run) -> Success:
        shared = asyncio.get_running_loop().create_future()
        shared.cancel()
        return await shared  # type: ignore[no-any-return]

    await world.declare()
    world.reconciler.outcome = joins
    await world.step()
    assert world.conditions(await world.get())[1][2] == "Failed"
    assert world.clock.due == {TIMER: 0.75}


async def test_a_cancelled_worker_ends(world: Bench) -> None:
    async def hangs(run: Run) -> Success:
        await asyncio.Event().wait()
        return Success("never")

    await world.declare()
    world.reconciler.outcome = hangs
    task = asyncio.create_task(world.step())
    while not world.reconciler.runs:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_store_that_fails_is_retried_and_counts_as_failed(world: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> Any:
        raise ReconcileError("the disk is full")

    await world.declare()
    monkeypatch.setattr(world.store, "write_status", broken)
    await world.step()
    assert world.clock.due == {TIMER: 0.75}
    assert str(world.controller.outcomes[KEY]) == "the disk is full"


async def test_what_is_kept_of_a_failure_does_not_keep_its_frames(world: Bench) -> None:
    async def fails(run: Run) -> Success:
        try:
            raise ValueError("inner")
        except ValueError as error:
            raise Failed("Broken", "outer") from error

    await world.declare()
    world.reconciler.outcome = fails
    await world.step()
    kept = world.controller.outcomes[KEY]
    assert isinstance(kept, Failed)
    assert kept.__traceback__ is None
    assert kept.__cause__ is not None
    assert kept.__cause__.__traceback__ is None


# --- conflicts


async def test_a_spec_edited_during_a_pass_keeps_the_generation_that_was_seen(world: Bench) -> None:
    await world.declare()

    async def edited(run: Run) -> Success:
        await world.declare(manifest(interval="2m"))
        return Success("fine")

    world.reconciler.outcome = edited
    await world.step()
    found = await world.get()
    assert (found.meta.generation, found.status.observed_generation) == (2, 1)
    assert found.status.conditions[0].observed_generation == 1
    assert world.value("imagebot_store_conflicts_total", kind=KIND) == 1


async def test_a_spec_edited_before_a_progress_write_is_not_taken_for_seen(world: Bench) -> None:
    await ready(world)
    specs = []

    async def edited(run: Run) -> Success:
        await world.declare(manifest(interval="2m", annotations={REQUESTED_AT: "later"}))
        await run.progress("half", write=True)
        specs.append(str(run.resource.spec.interval))
        return Success("fine")

    world.reconciler.outcome = edited
    await world.step()
    found = await world.get()
    assert specs == ["1m"]
    assert (found.meta.generation, found.status.observed_generation) == (2, 1)
    assert found.status.last_handled_reconcile_at is None  # the request came after the pass had begun
    world.reconciler.outcome = Success("fine")
    await world.step()
    found = await world.get()
    assert (found.status.observed_generation, found.status.last_handled_reconcile_at) == (2, "later")


async def test_endless_conflicts_end(world: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def contested(*_: Any) -> Any:
        nonlocal calls
        calls += 1
        raise Conflict("somebody was quicker")

    await ready(world)
    world.reconciler.outcome = Success("news")
    monkeypatch.setattr(world.store, "write_status", contested)
    await world.step()
    assert calls == 5
    assert world.clock.due == {TIMER: 0.75}


async def test_an_object_that_vanishes_during_its_pass_leaves_nothing(world: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: Any) -> Any:
        raise NotFound("gone")

    await ready(world)
    world.controller.outcomes.clear()
    world.reconciler.outcome = Failed("Broken", "it broke")
    monkeypatch.setattr(world.store, "write_status", gone)
    await world.step()
    assert world.sink.take() == []
    assert world.clock.due == {}
    assert world.controller.outcomes == {}


# --- requests and suspension


async def test_a_request_is_acknowledged_by_the_pass_that_it_started(world: Bench) -> None:
    await ready(world)
    await world.declare(manifest(annotations={REQUESTED_AT: "2026-01-01T00:00:00.123456789Z"}))
    await world.step()
    found = await world.get()
    assert found.status.last_handled_reconcile_at == "2026-01-01T00:00:00.123456789Z"
    assert found.meta.generation == 1


@pytest.mark.parametrize(("announces", "shown"), [(True, "Reconciling"), (False, "Ready")])
async def test_a_request_is_shown_at_once_where_the_kind_does_so(world: Bench, announces: bool, shown: str) -> None:
    await ready(world)
    world.reconciler.announces_requests = announces
    seen = []

    async def look(run: Run) -> Success:
        assert run.requested
        seen.append(world.conditions(await world.get())[0][0])
        return Success("all is well")

    world.reconciler.outcome = look
    await world.declare(manifest(annotations={REQUESTED_AT: "now"}))
    await world.step()
    assert seen == [shown]


async def test_a_failed_pass_acknowledges_too(world: Bench) -> None:
    await world.declare(manifest(annotations={REQUESTED_AT: "now"}))
    world.reconciler.outcome = Failed("Broken", "it broke")
    await world.step()
    assert (await world.get()).status.last_handled_reconcile_at == "now"


async def test_a_suspended_object_rests(world: Bench) -> None:
    await ready(world)
    before = (await world.get()).status
    await world.declare(manifest(suspend=True))
    await world.step()
    assert (await world.get()).status == before
    assert (world.reconciler.runs, world.clock.due, world.sink.take()) == (1, {}, [])
    assert world.value("gotk_suspend_status", kind=KIND, name="a", namespace="default") == 1
    await world.declare(manifest())
    await world.step()
    assert (world.reconciler.runs, (await world.get()).status.observed_generation) == (2, 3)


@pytest.mark.parametrize(("acknowledges", "handled"), [(True, "now"), (False, None)])
async def test_a_suspended_object_acknowledges_a_request_where_the_kind_does_so(
    world: Bench, acknowledges: bool, handled: str | None
) -> None:
    world.reconciler.acknowledges_suspended = acknowledges
    await world.declare(manifest(suspend=True, annotations={REQUESTED_AT: "now"}))
    await world.step()
    writes = world.writes
    await world.step()
    assert (await world.get()).status.last_handled_reconcile_at == handled
    assert (world.reconciler.runs, world.writes) == (0, writes)


# --- deletion


async def test_a_deleted_object_is_cleaned_up_and_goes(world: Bench) -> None:
    await ready(world)
    await world.withdraw()
    assert (await world.get()).meta.deletion_timestamp
    await world.step()
    with pytest.raises(NotFound):
        await world.get()
    assert (world.reconciler.gone, world.reconciler.runs, world.sink.take(), world.clock.due) == ([KEY], 1, [], {})


async def test_a_suspended_object_can_be_deleted(world: Bench) -> None:
    await ready(world, suspend=True)
    await world.withdraw()
    await world.step()
    with pytest.raises(NotFound):
        await world.get()


async def test_a_clean_up_that_fails_is_tried_again_before_the_object_goes(world: Bench) -> None:
    await ready(world)
    world.reconciler.removal_error = OSError("busy")
    await world.withdraw()
    await world.step()
    assert (await world.get()).meta.finalizers == [FINALIZER]
    assert world.clock.due == {TIMER: 0.75}
    world.reconciler.removal_error = None
    await world.step()
    with pytest.raises(NotFound):
        await world.get()


async def test_finalizers_of_others_stay(world: Bench) -> None:
    await world.declare()
    await world.store.write_finalizers(await world.get(), ["other.example/hold", FINALIZER])
    await world.withdraw()
    await world.step()
    assert (await world.get()).meta.finalizers == ["other.example/hold"]


async def test_nothing_is_kept_of_an_object_that_is_gone(world: Bench) -> None:
    await ready(world)
    held = await world.get()
    assert b'name="a"' in world.metrics.render()
    world.controller.failures[KEY] = 3
    world.reconciler.removal_error = OSError("busy")  # must not end the watch
    await world.controller.notice(Change(ChangeType.DELETED, held, held))
    assert b'name="a"' not in world.metrics.render()
    assert (world.controller.failures, world.controller.outcomes, world.clock.due) == ({}, {}, {})


async def test_a_pass_over_nothing_does_nothing(world: Bench) -> None:
    await world.step(Key("default", "nobody"))
    assert (world.reconciler.runs, world.clock.due) == (0, {})


# --- what wakes


async def test_what_wakes_an_object_and_what_does_not(world: Bench) -> None:
    watch = world.store.watch([KIND])

    async def woken() -> bool:
        await world.controller.notice(await anext(watch))
        asked = len(world.controller.queue) == 1
        if asked:
            world.controller.queue.done(await world.controller.queue.take())
        return asked

    await world.declare()
    assert await woken()  # creation
    await world.store.write_status(await world.get(), (await world.get()).status.model_copy(update={"observed_generation": 1}))
    assert not await woken()  # status
    await world.store.write_finalizers(await world.get(), [FINALIZER])
    assert not await woken()  # finalizers
    await world.declare(manifest(annotations={"x": "z"}))
    assert not await woken()  # annotations
    await world.declare(manifest(annotations={"x": "z", "reconcile.fluxcd.io/forceAt": "now"}))
    assert not await woken()
    await world.declare(manifest(annotations={REQUESTED_AT: "now"}))
    assert await woken()  # a request
    await world.declare(manifest(annotations={REQUESTED_AT: "now"}, interval="2m"))
    assert await woken()  # a new generation
    await world.withdraw()
    assert await woken()  # deletion
    await watch.aclose()  # type: ignore[attr-defined]


async def test_a_mapper_that_fails_wakes_everybody(world: Bench) -> None:
    for name in ("a", "b"):
        await world.declare(manifest(name))

    async def broken(change: Change) -> list[Key]:
        raise KeyError("bug")

    world.controller.watches["ImagePolicy"] = broken
    other = (await world.get()).__class__("v1", "ImagePolicy", (await world.get()).meta, None, None)
    await world.controller.notice(Change(ChangeType.ADDED, None, other))
    assert len(world.controller.queue) == 2


# --- events


async def test_a_first_success_is_told_with_the_message(world: Bench) -> None:
    await world.declare()
    await world.step()
    assert world.sink.take() == [("Normal", "Succeeded", "all is well")]


async def test_a_failure_is_told_once_then_another_one_then_the_recovery(world: Bench) -> None:
    await ready(world)
    for outcome, told in [
        (Failed("Broken", "it broke"), [("Warning", "Broken", "it broke")]),
        (Failed("Broken", "it broke"), []),
        (Failed("Broken", "it broke differently"), [("Warning", "Broken", "it broke differently")]),
        (Failed("Other", "it broke differently"), [("Warning", "Other", "it broke differently")]),
        (Stalled("Other", "it broke differently"), []),
        (Success("all is well"), [("Normal", "Succeeded", "all is well")]),
        (Success("all is well"), []),
    ]:
        world.reconciler.outcome = outcome
        await world.step()
        assert world.sink.take() == told


async def test_a_changed_message_is_news_unless_it_is_quiet(world: Bench) -> None:
    await ready(world)
    world.reconciler.outcome = Success("found 4 tags")
    await world.step()
    assert world.sink.take() == [("Normal", "Succeeded", "found 4 tags")]
    world.reconciler.outcome = Success("found 5 tags", quiet=True)
    await world.step()
    assert world.sink.take() == []


async def test_what_was_done_is_told_each_time(world: Bench) -> None:
    await ready(world)
    world.reconciler.outcome = Success("all is well", event="pushed commit 1\n\nupdated: x", metadata={"revision": "1"})
    for _ in range(2):
        await world.step()
        assert [e.metadata for e in world.sink.events] == [{"revision": "1"}]
        assert world.sink.take() == [("Normal", "Succeeded", "pushed commit 1\n\nupdated: x")]


async def test_a_very_long_message_is_told_and_written_once(world: Bench) -> None:
    await ready(world)
    for outcome in (Failed("Broken", "x" * (MAX_MESSAGE + 1)), Success("y" * (MAX_MESSAGE + 1))):
        world.reconciler.outcome = outcome
        await world.step()
        ((_, _, message),) = world.sink.take()
        assert len(message) == MAX_MESSAGE
        writes = world.writes
        await world.step()
        assert (world.sink.take(), world.writes) == ([], writes)


async def test_a_request_that_changed_nothing_is_answered_with_a_trace(world: Bench) -> None:
    await ready(world)
    world.reconciler.outcome = Success("all is well", trace="no change")
    await world.step()
    assert world.sink.take() == []
    await world.declare(manifest(annotations={REQUESTED_AT: "now"}))
    await world.step()
    assert world.sink.take() == [("Trace", "Succeeded", "no change")]


async def test_event_annotations_are_forwarded(world: Bench) -> None:
    await world.declare(
        manifest(annotations={"event.toolkit.fluxcd.io/team": "red", "event.toolkit.fluxcd.io/": "x", "other/team": "blue"})
    )
    await world.step()
    (event,) = world.sink.events
    assert event.metadata == {"event.toolkit.fluxcd.io/team": "red"}
    assert (event.controller, event.resource.key) == ("image-reflector-controller", KEY)


async def test_a_failure_that_survived_a_restart_is_not_told_again(tmp_path: Path) -> None:
    for told in (1, 0):
        async with bench(tmp_path) as world:
            await world.declare()
            world.reconciler.outcome = Failed("Broken", "it broke")
            await world.step()
            assert len(world.sink.take()) == told
