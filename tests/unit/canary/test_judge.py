"""Verdicts and event texts."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary import judge as judging
from canary.api import Metric
from canary.judge import Bounds, Source, Subject, judge, shortest, threshold
from canary.metrics.base import NoValues, Sample, Verdict
from reconcile.errors import ReconcileError

RECORDED = json.loads((Path(__file__).parent / "metrics" / "recorded.json").read_text())
SUBJECT = Subject("web.ns", "web.ns", "istio")
INF = math.inf


def metric(name: str = "m", **fields: Any) -> Metric:
    return Metric.model_validate({"name": name, **fields})


RATE = metric("request-success-rate", thresholdRange={"min": 99})
DURATION = metric("request-duration", thresholdRange={"max": 500})
RATE_OLD = metric("request-success-rate", threshold=99)
DURATION_OLD = metric("request-duration", threshold=500)

FAILED_500 = (
    'error response: Status 500 Internal Server Error: {"status":"error","errorType":"internal","error":"scripted failure"}'
)


@pytest.mark.parametrize(
    ("story", "metric_", "source", "outcome"),
    [
        ("rollback-success-rate", RATE, Source.SUCCESS_RATE, [Sample(97.2)] * 2),
        ("recover-after-failed-checks", RATE, Source.SUCCESS_RATE, [Sample(10)] * 2),
        ("alerts-failure", RATE, Source.SUCCESS_RATE, [Sample(1)]),
        ("ab-rollback", RATE, Source.SUCCESS_RATE, [Sample(90)]),
        ("alerts-kinds-failure", RATE, Source.SUCCESS_RATE, [Sample(1)]),
        ("nginx-rollback", RATE, Source.SUCCESS_RATE, [NoValues()]),
        ("gatewayapi-rollback", DURATION, Source.DURATION, [Sample(900)]),
        ("old-thresholds", metric("cpu", threshold=5), Source.INLINE, [Sample(7.126), NoValues(), ReconcileError(FAILED_500)]),
    ],
)  # fmt: skip
def test_recorded_events(story: str, metric_: Metric, source: Source, outcome: list[Any]) -> None:
    subject = Subject(f"web.st-{story}", f"web.st-{story}", RECORDED[story]["provider"])
    assert [judge(metric_, source, each, subject).text for each in outcome] == RECORDED[story]["halts"]


def test_recorded_events_of_templates() -> None:
    subject = Subject("web.st", "web.st", "istio")
    errors = metric("errors", thresholdRange={"max": 1.5})
    saturation = metric("saturation", thresholdRange={"min": 0.5, "max": 90})
    assert judge(saturation, Source.TEMPLATE, Sample(0.25), subject).text == "Halt web.st advancement saturation 0.25 < 0.5"
    assert judge(errors, Source.TEMPLATE, Sample(7.1), subject).text == "Halt web.st advancement errors 7.10 > 1.5"
    nothing = judge(errors, Source.TEMPLATE, NoValues(), subject)
    assert nothing == (Verdict.NO_DATA, "Halt advancement no values found for custom metric: errors: no values found", None)


@pytest.mark.parametrize(
    ("metric_", "source", "value", "said"),
    [
        (RATE, Source.SUCCESS_RATE, 99, ""),
        (RATE, Source.SUCCESS_RATE, 98.996, "success rate 99.00% < 99%"),
        (RATE_OLD, Source.SUCCESS_RATE, 98, "success rate 98.00% < 99%"),
        (RATE_OLD, Source.SUCCESS_RATE, 100, ""),
        (metric("request-success-rate"), Source.SUCCESS_RATE, 0, ""),
        (metric("request-success-rate", thresholdRange={"max": 50}), Source.SUCCESS_RATE, 97.2, "success rate 97.20% > 50%"),
        (DURATION, Source.DURATION, 500.99, ""),
        (DURATION, Source.DURATION, 501, "request duration 501ms > 500ms"),
        (DURATION, Source.DURATION, 1515.9, "request duration 1.515s > 500ms"),
        (DURATION_OLD, Source.DURATION, 120_000, "request duration 2m0s > 500ms"),
        (metric("request-duration"), Source.DURATION, 0.9, ""),
        (metric("request-duration"), Source.DURATION, 1, "request duration 1ms > 0s"),
        (metric("request-duration", thresholdRange={"min": 10.7}), Source.DURATION, 9.9, "request duration 9ms < 10ms"),
        (metric("request-duration", thresholdRange={"max": 10.7}), Source.DURATION, 10.9, ""),
        (metric(threshold=5), Source.INLINE, 5, ""),
        (metric(threshold=5), Source.INLINE, 7.126, "m 7.13 > 5"),
        (metric(), Source.TEMPLATE, 0, ""),
        (metric(), Source.TEMPLATE, 0.001, "m 0.00 > 0"),
        (metric(thresholdRange={}), Source.TEMPLATE, 1e300, ""),
        (metric(threshold=1, thresholdRange={"max": 10}), Source.TEMPLATE, 5, ""),
        (metric(thresholdRange={"min": -1, "max": 0.00001}), Source.TEMPLATE, 1, "m 1.00 > 1e-05"),
        (metric(thresholdRange={"min": -1, "max": 1}), Source.TEMPLATE, -2, "m -2.00 < -1"),
        # what is infinite is beyond every bound
        (DURATION, Source.DURATION, INF, "request duration +Inf > 500ms"),
        (DURATION_OLD, Source.DURATION, INF, "request duration +Inf > 500ms"),
        (metric(threshold=5), Source.INLINE, INF, "m +Inf > 5"),
        (metric(thresholdRange={"max": 5}), Source.TEMPLATE, INF, "m +Inf > 5"),
        (metric(thresholdRange={"min": 5}), Source.TEMPLATE, -INF, "m -Inf < 5"),
        (RATE, Source.SUCCESS_RATE, -INF, "success rate -Inf% < 99%"),
        (RATE, Source.SUCCESS_RATE, INF, ""),
    ],
)  # fmt: skip
def test_one_value(metric_: Metric, source: Source, value: float, said: str) -> None:
    found = judge(metric_, source, Sample(value), SUBJECT)
    assert found.text == (f"Halt web.ns advancement {said}" if said else "")
    assert found.verdict is (Verdict.FAIL if said else Verdict.PASS)
    assert found.value == (math.trunc(value) if source is Source.DURATION and math.isfinite(value) else value)


@pytest.mark.parametrize("outcome", [None, NoValues(), Sample(math.nan)])
def test_all_kinds_of_nothing_are_the_same(outcome: Sample | Exception | None) -> None:
    words = "Halt advancement no values found for istio metric"
    assert judge(RATE, Source.SUCCESS_RATE, outcome, SUBJECT) == (
        Verdict.NO_DATA,
        f"{words} request-success-rate probably web.ns is not receiving traffic: running query failed: no values found",
        None,
    )
    assert judge(DURATION, Source.DURATION, outcome, SUBJECT).text == (
        f"{words} request-duration probably web.ns is not receiving traffic"
    )


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (Source.SUCCESS_RATE, "Prometheus query failed: running query failed: down"),
        (Source.DURATION, "Prometheus query failed: running query failed: down"),
        (Source.INLINE, "Prometheus query failed for m: down"),
        (Source.TEMPLATE, "Metric query failed for m: down"),
    ],
)
def test_errors_are_never_good(source: Source, text: str) -> None:
    chosen = metric(onNoData="Pass", minSamples=0)
    assert judge(chosen, source, ReconcileError("down"), SUBJECT, "Pass") == (Verdict.ERROR, text, None)


@pytest.mark.parametrize(
    ("own", "of_all", "verdict"),
    [
        (None, None, Verdict.NO_DATA),
        (None, "Hold", Verdict.NO_DATA),
        (None, "Fail", Verdict.NO_DATA),
        (None, "Pass", Verdict.PASS),
        ("Pass", "Fail", Verdict.PASS),
        ("Fail", "Pass", Verdict.NO_DATA),
    ],
)
def test_what_no_data_means_is_the_metrics_choice_before_the_analysis(own: Any, of_all: Any, verdict: Verdict) -> None:
    assert judge(metric(onNoData=own), Source.INLINE, None, SUBJECT, of_all).verdict is verdict


def test_too_few_samples_are_no_data_even_when_they_are_bad() -> None:
    few = metric(minSamples=3, threshold=1)
    found = judge(few, Source.TEMPLATE, Sample(9, count=2), SUBJECT)
    assert found == (Verdict.NO_DATA, "Halt advancement 2 of at least 3 samples found for metric: m", None)
    assert judge(few, Source.TEMPLATE, Sample(9, count=3), SUBJECT).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("series", "verdict", "value"),
    [
        ([1, 2, 3], Verdict.PASS, 3),
        ([1, 9, 3], Verdict.FAIL, 9),
        ([9, 8, 7], Verdict.FAIL, 7),  # all are bad: the one that Flagger shows
        ([3, 6, 7], Verdict.FAIL, 7),
        ([INF, 1], Verdict.FAIL, INF),
        ([1, math.nan, 3], Verdict.PASS, 3),
        ([1, math.nan], Verdict.NO_DATA, None),  # Flagger takes the last one, which has no value
        ([9, math.nan], Verdict.FAIL, 9),
    ],
)
def test_of_several_series_all_must_be_good(series: list[float], verdict: Verdict, value: float | None) -> None:
    found = judge(metric(thresholdRange={"min": 0, "max": 5}), Source.TEMPLATE, Sample.of(series), SUBJECT)
    assert (found.verdict, found.value) == (verdict, value)


@given(
    st.lists(st.floats(), max_size=6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_nothing_passes_that_breaks_a_bound(series: list[float], low: float, high: float) -> None:
    try:
        sample: Sample | NoValues = Sample.of(series)
    except NoValues as error:
        sample = error
    found = judge(metric(thresholdRange={"min": low, "max": high}), Source.INLINE, sample, SUBJECT)
    broken = any(value < low or value > high for value in series)
    assert (found.verdict is Verdict.FAIL) == broken
    assert (found.verdict is Verdict.PASS) == (not broken and bool(series) and not math.isnan(series[-1]))
    assert bool(found.text) == (found.verdict is not Verdict.PASS)


def test_several_series_without_a_value_are_no_values() -> None:
    with pytest.raises(NoValues):
        Sample.of([math.nan, math.nan])
    assert Sample.of([4.0]) == Sample(4.0)


@pytest.mark.parametrize(
    ("metric_", "source", "words"),
    [
        (RATE, Source.SUCCESS_RATE, ">= 99"),
        (DURATION, Source.DURATION, "<= 500ms"),
        (DURATION_OLD, Source.DURATION, "<= 500ms"),
        (metric(thresholdRange={"min": 0.5, "max": 90}), Source.TEMPLATE, "0.5..90"),
        (metric(thresholdRange={}), Source.TEMPLATE, "any"),
        (metric(), Source.INLINE, "<= 0"),
        (metric("request-success-rate"), Source.SUCCESS_RATE, ">= 0"),
    ],
)
def test_thresholds_in_words(metric_: Metric, source: Source, words: str) -> None:
    assert threshold(metric_, source) == words


def test_numbers_as_go_prints_them() -> None:
    numbers = (99, 99.0, 1.5, 0.0001, 0.00001, 1e20, 1e21, 10**22, -0.5, INF)
    assert [shortest(number) for number in numbers] == [
        "99", "99", "1.5", "0.0001", "1e-05", "100000000000000000000", "1e+21", "1e+22", "-0.5", "+Inf",
    ]  # fmt: skip


def test_bounds_include_themselves() -> None:
    both = Bounds(1, 2)
    assert [both.broken_by(value) for value in (0.9, 1, 2, 2.1)] == ["<", "", "", ">"]


def test_judging_imports_nothing_that_could_wait() -> None:
    tree = ast.parse(Path(judging.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported == {
        "__future__", "collections.abc", "dataclasses", "enum", "math", "typing", "canary.api", "canary.metrics.base",
        "canary.metrics.builtin", "reconcile.api.duration", "reconcile.gotemplate.strconv",
    }  # fmt: skip
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
