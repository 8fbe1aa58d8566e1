"""Traces of what we push: found by each name of a revision, also those of pushes that went out together, within a bound."""

from __future__ import annotations

from reconcile.runtime.bus import MOST_TRACES, TRACE, Bus, Pushed, trace_of, traced

URL = "https://git.test/fleet"


def test_a_trace_is_the_same_wherever_it_is_asked_for() -> None:
    assert trace_of("registry.test/web", "1.0.0") == trace_of("registry.test/web", "1.0.0")
    assert len({trace_of("registry.test/web", "1.0.0"), trace_of("registry.test/web", "1.0.1"), trace_of("web", "1.0.0")}) == 3
    assert len(trace_of("web", "1")) == 16


async def test_commits_that_go_out_together_are_all_behind_the_head() -> None:
    bus = Bus()
    bus.pushed(Pushed(URL, "main", "a" * 40, ("1",), "b" * 40))
    bus.pushed(Pushed(URL, "main", "b" * 40, ("2", "1"), "b" * 40))
    assert await bus.traces("a" * 40) == ("1",)
    assert await bus.traces("b" * 40) == ("1", "2")
    assert await bus.traces("c" * 40) == ()


async def test_metadata_takes_the_best_name_of_a_revision() -> None:
    bus = Bus()
    bus.pushed(Pushed(URL, "main", "a" * 40, ("1", "2")))
    assert await bus.metadata(f"main@sha1:{'a' * 40}") == {TRACE: "1,2"}
    assert await bus.metadata("latest@sha256:" + "0" * 64, f"main@sha1:{'a' * 40}") == {TRACE: "1,2"}
    assert await bus.metadata("latest@sha256:" + "0" * 64, None) == {}
    assert traced({TRACE: "1,2"}) == {"trace": ["1", "2"]}
    assert traced({}) == traced({TRACE: ""}) == {}


async def test_what_was_pushed_before_is_looked_up() -> None:
    bus = Bus()

    async def look(commit: str) -> tuple[str, ...]:
        return {"a" * 40: ("1",), "b" * 40: ("2",)}[commit]

    bus.lookup = look
    bus.pushed(Pushed(URL, "main", "b" * 40, ("3",)))
    assert await bus.traces("a" * 40) == ("1",)
    assert await bus.traces("b" * 40) == ("3",), "what this process knows is better than a status"


async def test_an_event_names_no_more_than_a_bound() -> None:
    bus = Bus()
    bus.pushed(Pushed(URL, "main", "a" * 40, tuple(map(str, range(MOST_TRACES + 1)))))
    assert (await bus.metadata("a" * 40))[TRACE].split(",") == list(map(str, range(MOST_TRACES)))


def test_one_subscriber_that_fails_keeps_nothing_from_the_others() -> None:
    bus = Bus()
    told: list[Pushed] = []

    def fail(_: Pushed) -> None:
        raise RuntimeError("boom")

    bus.on_push(fail)
    bus.on_push(told.append)
    bus.pushed(Pushed(URL, "main", "a" * 40))
    assert [one.commit for one in told] == ["a" * 40]
