"""What a wait looks at, and when it ends: on a cluster of scripted answers and a clock that jumps."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from reconcile.api.kstatus import Status, Summary
from reconcile.errors import NotFound, ReconcileError, TimedOut
from reconcile.kube.waiting import LOOKS_AT_ONCE, Wait, selector_text
from reconcile.ports.cluster import NotReady, Object, Reference
from tests.support.clock import VirtualClock

READY, NOT, STALLED = ({"conditions": [{"type": t, "status": s, "message": "m"}]} for t, s in
                       (("Ready", "True"), ("Ready", "False"), ("Stalled", "True")))  # fmt: skip


def ref(name: str, api_version: str = "x.test/v1", kind: str = "Thing") -> Reference:
    return Reference(api_version, kind, "ns", name)


class Script:
    """Gives each object's answers one after the other, the last again and again; time passes by itself."""

    def __init__(self, **answers: Sequence[Any]) -> None:
        self.answers, self.looks, self.at_once, self.most = answers, Counter[str](), 0, 0

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        answers = self.answers[name]
        answer = answers[min(self.looks[name], len(answers) - 1)]
        self.looks[name] += 1
        if isinstance(answer, Exception):
            raise answer
        meta = {"namespace": namespace, "name": name}
        return {"apiVersion": api_version, "kind": kind, "metadata": meta, "status": answer}

    async def some(self, api_version: str, kind: str, namespace: str, selector: str, most: int) -> Sequence[Object]:
        raise AssertionError("these are no workloads")


class Jumping(VirtualClock):
    """A sleep is over at once."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)


async def wait(script: Script, *which: Any, timeout: float = 60, fail_fast: bool = False, healthy: Any = None) -> list[str]:
    done = await Wait(script, Jumping(), which, healthy).run(timeout, fail_fast=fail_fast)
    return [str(each.reference) for each in done]


async def test_what_is_current_costs_one_look() -> None:
    script = Script(a=[READY], b=[READY])
    assert await wait(script, ref("a"), ref("b"), ref("a")) == ["Thing/ns/a", "Thing/ns/b"]
    assert script.looks == {"a": 1, "b": 1}
    assert await wait(script) == []


async def test_only_what_is_not_current_is_looked_at_and_at_last_all_together() -> None:
    script = Script(a=[READY], b=[NOT, NOT, READY])
    await wait(script, ref("a"), ref("b"))
    assert script.looks == {"a": 2, "b": 4}


async def test_what_falls_back_is_waited_for_again() -> None:
    script = Script(a=[READY, NOT, READY], b=[NOT, READY])
    await wait(script, ref("a"), ref("b"))
    assert script.looks == {"a": 4, "b": 4}


async def test_missing_objects_and_failed_reads_are_looked_at_again() -> None:
    script = Script(a=[NotFound('things "a" not found'), ReconcileError("busy"), READY])
    await wait(script, ref("a"))
    assert script.looks == {"a": 3}


async def test_the_end_of_the_time_names_each_and_why() -> None:
    script = Script(a=[READY], b=[NOT], c=[NotFound("none")], d=[ReconcileError("busy")], e=[NOT, ReconcileError("busy")])
    with pytest.raises(TimedOut) as late:
        await wait(script, *map(ref, "abcde"), timeout=0.05)
    assert str(late.value) == (
        "timeout waiting for: [Thing/ns/b status: 'InProgress': m, Thing/ns/c status: 'NotFound': none, "
        "can't determine status for Thing/ns/d: busy, Thing/ns/e status: 'InProgress': busy]"
    )
    assert isinstance(late.value, NotReady)
    assert [each.reference.name for each in late.value.health] == ["b", "c", "d", "e"]


async def test_no_time_is_told_from_no_answer() -> None:
    with pytest.raises(NotReady, match=r"^timeout waiting for: \[can't determine status for Thing/ns/a\]$"):
        await wait(Script(a=[READY]), ref("a"), timeout=0)


async def test_it_ends_early_when_nothing_left_can_become_current() -> None:
    script = Script(a=[READY], b=[STALLED], c=[NOT, NOT, STALLED])
    with pytest.raises(NotReady) as stuck:
        await wait(script, *map(ref, "abc"))
    assert str(stuck.value) == (
        "failed early due to stalled resources: [Thing/ns/b status: 'Failed': m, Thing/ns/c status: 'Failed': m]"
    )
    assert script.looks == {"a": 1, "b": 3, "c": 3}


async def test_fail_fast_ends_with_the_first_failure() -> None:
    script = Script(b=[STALLED], c=[NOT])
    with pytest.raises(NotReady, match="failed early"):
        await wait(script, *map(ref, "bc"), fail_fast=True)
    assert script.looks == {"b": 1, "c": 1}


async def test_a_job_that_is_cleaned_up_after_its_end_may_be_gone() -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "ns"}}
    script = Script(j=[NotFound("none")])
    assert await wait(script, {**job, "spec": {"ttlSecondsAfterFinished": 0}}) == ["Job/ns/j"]
    for which in ({**job, "spec": {}}, Reference.of(job)):
        with pytest.raises(NotReady, match="'NotFound'"):
            await wait(script, which, timeout=0.02)


async def test_a_predicate_takes_the_place_of_the_rules() -> None:
    script = Script(a=[NOT])
    assert await wait(script, ref("a"), healthy=lambda _: Summary(Status.CURRENT)) == ["Thing/ns/a"]
    with pytest.raises(NotReady, match=r"\[Thing/ns/a status: 'Failed'\]"):
        await wait(script, ref("a"), healthy=lambda _: Summary(Status.FAILED))


async def test_few_objects_are_read_at_the_same_time() -> None:
    names = [f"n{number}" for number in range(40)]
    script = Script(**{name: [READY] for name in names})
    await wait(script, *map(ref, names))
    assert script.most == LOOKS_AT_ONCE


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({}, ""),
        ({"matchLabels": {"app": "a", "x/y": "z"}}, "app=a,x/y=z"),
        (
            {
                "matchLabels": {"a": "b"},
                "matchExpressions": [
                    {"key": "c", "operator": "In", "values": ["d", "e"]},
                    {"key": "f", "operator": "NotIn", "values": ["g"]},
                    {"key": "h", "operator": "Exists"},
                    {"key": "i", "operator": "DoesNotExist"},
                ],
            },
            "a=b,c in (d,e),f notin (g),h,!i",
        ),
    ],
)
def test_selector_text(selector: Any, text: str) -> None:
    assert selector_text(selector) == text
