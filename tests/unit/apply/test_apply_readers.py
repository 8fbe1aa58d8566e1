"""Health by expressions, in Flux's order and words."""

from __future__ import annotations

from typing import Any

import pytest

from reconcile.api.appliers import CustomHealthCheck
from reconcile.api.kstatus import Status
from reconcile.apply.readers import Readers, ReadyExpression
from reconcile.cel import CelError, EvaluationFailed
from reconcile.errors import Invalid
from reconcile.ports.cluster import Object

READY = "status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True')"


def check(current: str = "status.phase == 'ok'", *, kind: str | None = "Widget", **more: str) -> CustomHealthCheck:
    return CustomHealthCheck(api_version="example.com/v1", kind=kind, current=current, **more)


def widget(status: Any = None, kind: str = "Widget", **metadata: Any) -> Object:
    found = {"apiVersion": "example.com/v2", "kind": kind, "metadata": {"name": "x", "namespace": "ns", **metadata}}
    return found if status is None else {**found, "status": status}


ALL = check(
    in_progress="status.phase == 'busy'", failed="status.phase in ['bad', 'busy']", current="status.phase in ['ok', 'bad']"
)


@pytest.mark.parametrize(
    ("status", "metadata", "said"),
    [
        ({"phase": "ok"}, {}, Status.CURRENT),
        ({"phase": "busy"}, {}, Status.IN_PROGRESS),
        ({"phase": "bad"}, {}, Status.FAILED),
        ({"phase": "other"}, {}, Status.IN_PROGRESS),
        ({"phase": "ok", "observedGeneration": 1}, {"generation": 2}, Status.IN_PROGRESS),
        ({"phase": "ok", "observedGeneration": "1"}, {"generation": 2}, Status.CURRENT),
        ({"phase": "ok", "observedGeneration": 2}, {"generation": 2}, Status.CURRENT),
        ({}, {}, Status.UNKNOWN),
        (None, {}, Status.UNKNOWN),
    ],
)
def test_order_of_expressions(status: Any, metadata: dict[str, Any], said: Status) -> None:
    summary = Readers([ALL])(widget(status, **metadata))
    assert summary is not None
    assert summary.status is said


def test_an_expression_without_a_value_says_why() -> None:
    summary = Readers([check()])(widget({"conditions": []}))
    assert summary is not None
    assert summary.message == "failed to evaluate the CEL expression 'status.phase == 'ok'': no such key: phase"


def test_kinds_without_expressions_are_left_to_other_rules() -> None:
    readers = Readers([check(), check(READY, kind=None)])
    assert readers(widget({"conditions": [{"type": "Ready", "status": "True"}]}, kind="Gadget")).status is Status.CURRENT  # type: ignore[union-attr]
    assert readers({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}) is None
    assert Readers([check()])(widget(kind="Gadget")) is None
    assert (bool(Readers()), bool(readers)) == (False, True)


@pytest.mark.parametrize(
    ("checks", "text"),
    [
        (
            [check(), check("status.", kind="Gadget")],
            (
                "failed to create custom status evaluator for healthchecks[1]: failed to parse the expression Current: failed to "
                "parse the CEL expression 'status.': ERROR: <input>:1:8: Syntax error: no viable alternative at input '.'\n"
                " | status.\n | .......^"
            ),
        ),
        (
            [check(in_progress="a b")],
            (
                "failed to create custom status evaluator for healthchecks[0]: failed to parse the expression InProgress: failed "
                "to parse the CEL expression 'a b': ERROR: <input>:1:3: Syntax error: extraneous input 'b' expecting <EOF>\n"
                " | a b\n | ..^"
            ),
        ),
        ([check(), check()], "duplicate custom health check for Widget.example.com at healthchecks[1]"),
    ],
)
def test_expressions_that_cannot_be(checks: list[CustomHealthCheck], text: str) -> None:
    with pytest.raises(CelError) as refused:
        Readers(checks)
    assert str(refused.value) == text


def test_an_expression_is_bounded() -> None:
    with pytest.raises(CelError, match=r"healthchecks\[0\]: a CEL expression has 20000 characters"):
        Readers([check("x" * 20_000)])
    with pytest.raises(Invalid, match="a CEL expression has 20000 characters"):
        ReadyExpression("x" * 20_000)


def test_ready_expressions_see_both_objects() -> None:
    ready = ReadyExpression("self.metadata.name == 'x' && dep.status.phase == 'ok'")
    assert ready.holds(widget(), widget({"phase": "ok"}))
    assert not ready.holds(widget(), widget({"phase": "no"}))
    with pytest.raises(EvaluationFailed, match="no such key: status"):
        ready.holds(widget(), widget())
