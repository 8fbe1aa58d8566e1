"""How a measurement becomes a verdict: the bounds of a metric, and the words of the event when a value is not within them.

Pure: values in, verdict and text out. Flagger's rules, with what slips through there caught:

* An infinite value is greater (or less) than any bound, a duration too.
* Of several series, all must be good. The value that is shown is Flagger's (the last one) while it speaks for all of them, else
  the worst.
* No value at all is one thing, whether nothing came, only NaN did, or fewer samples than `minSamples`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from canary.api import Metric, OnNoData
from canary.metrics.base import NoValues, Sample, Verdict
from canary.metrics.builtin import DURATION, SUCCESS_RATE
from reconcile.api.duration import format_duration
from reconcile.gotemplate.strconv import format_float

UNUSABLE = "Metric query failed for no usable metrics template and query were configured"
"""Of a metric that is not built in and has neither a query nor a template."""


class Source(StrEnum):
    """Where the query of a metric comes from; a metric may have two."""

    SUCCESS_RATE = SUCCESS_RATE
    DURATION = DURATION
    INLINE = "inline"
    TEMPLATE = "template"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom event texts speak of.

    Attributes:
        canary: `name.namespace` of the Canary.
        target: `name.namespace` of its target.
        provider: The provider word, see `canary.metrics.builtin.provider_word`.
    """

    canary: str
    target: str
    provider: str


class Judgement(NamedTuple):
    """What follows from a measurement: the text is empty when it is good, the value None when there is none."""

    verdict: Verdict
    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The values that are good, bounds included; durations are in milliseconds."""

    low: float | None = None
    high: float | None = None

    def broken_by(self, value: float) -> str:
        """`<` or `>` as the value is below or above, empty when it is good."""
        if self.low is not None and value < self.low:
            return "<"
        return ">" if self.high is not None and value > self.high else ""

    def words(self, unit: str = "") -> str:
        """The bounds for people: `>= 99`, `<= 500ms`, `0.5..90`; `any` without one."""
        low, high = (None if bound is None else f"{shortest(bound)}{unit}" for bound in (self.low, self.high))
        if low is not None and high is not None:
            return f"{low}..{high}"
        return f">= {low}" if low is not None else f"<= {high}" if high is not None else "any"


def bounds(metric: Metric, source: Source) -> Bounds:
    """The good values of a metric: of `thresholdRange` when there is one, else of `threshold`, which is 0 when there is none.

    `threshold` is the least good success rate and the greatest good value of everything else. Bounds of durations are cut to
    whole milliseconds.
    """
    if metric.threshold_range is not None:
        found = Bounds(metric.threshold_range.min, metric.threshold_range.max)
    elif source is Source.SUCCESS_RATE:
        found = Bounds(low=metric.threshold or 0)
    else:
        found = Bounds(high=metric.threshold or 0)
    if source is Source.DURATION:
        return Bounds(*(None if bound is None else math.trunc(bound) for bound in (found.low, found.high)))
    return found


def threshold(metric: Metric, source: Source) -> str:
    """The bounds of a metric in words."""
    return bounds(metric, source).words("ms" if source is Source.DURATION else "")


def judge(
    metric: Metric,
    source: Source,
    outcome: Sample | Exception | None,
    subject: Subject,
    on_no_data: OnNoData | None = None,
) -> Judgement:
    """What follows from what a query gave.

    Args:
        metric: As the manifest has it.
        source: Which of its queries it was.
        outcome: What came; durations in milliseconds. None and `NoValues` say that nothing did.
        subject: Whom the text speaks of.
        on_no_data: `analysis.onNoData`, for metrics that do not choose for themselves. `Pass` makes no data good. With `Hold`,
            `Fail` and nothing alike the verdict is NoData: whether it counts as a failed check is the machine's to say.
    """
    if isinstance(outcome, Exception) and not isinstance(outcome, NoValues):
        return Judgement(Verdict.ERROR, _query_failed(metric, source, outcome))
    least = metric.min_samples or 0
    if isinstance(outcome, Sample) and outcome.count < least:
        few = f"Halt advancement {outcome.count} of at least {least} samples found for metric: {metric.name}"
        return _no_data(metric, few, on_no_data)
    values = list(_values(outcome, source)) if isinstance(outcome, Sample) else []
    good = bounds(metric, source)
    worst = _worst(good, values)
    if worst is not None:
        return Judgement(Verdict.FAIL, _out_of_range(metric, source, good, worst, subject), worst)
    if not values or math.isnan(values[0]):
        return _no_data(metric, _nothing_found(metric, source, subject), on_no_data)
    return Judgement(Verdict.PASS, "", values[0])


def shortest(number: float) -> str:
    """A number in the least digits that say it, as Go's `%v` prints a float: `99`, `1.5`, `1e+21`, `+Inf`."""
    if isinstance(number, int) and abs(number) < 10**21:
        return str(number)
    magnitude = abs(float(number))
    plain = magnitude == 0 or 1e-4 <= magnitude < 1e21
    return format_float(float(number), "f" if plain else "e")


def _values(sample: Sample, source: Source) -> Iterator[float]:
    """Flagger's value first, then the extremes of all."""
    for value in (sample.value, *(sample.extremes or ())):
        yield value if source is not Source.DURATION or not math.isfinite(value) else float(math.trunc(value))


def _worst(good: Bounds, values: list[float]) -> float | None:
    """The value that fails: the first of `values` when all fail, else the one that does; None when none does."""
    bad = [value for value in values if not math.isnan(value) and good.broken_by(value)]
    if not bad:
        return None
    return bad[0] if len(bad) == sum(not math.isnan(value) for value in values) else bad[-1]


def _no_data(metric: Metric, text: str, on_no_data: OnNoData | None) -> Judgement:
    chosen = metric.on_no_data or on_no_data
    return Judgement(Verdict.PASS, "") if chosen == "Pass" else Judgement(Verdict.NO_DATA, text)


def _nothing_found(metric: Metric, source: Source, subject: Subject) -> str:
    said = "Halt advancement no values found for"
    match source:
        case Source.SUCCESS_RATE | Source.DURATION:
            text = f"{said} {subject.provider} metric {metric.name} probably {subject.target} is not receiving traffic"
            return f"{text}: running query failed: {NoValues()}" if source is Source.SUCCESS_RATE else text
        case Source.INLINE:
            return f"{said} metric: {metric.name}"
        case Source.TEMPLATE:
            return f"{said} custom metric: {metric.name}: {NoValues()}"


def _query_failed(metric: Metric, source: Source, error: Exception) -> str:
    match source:
        case Source.SUCCESS_RATE | Source.DURATION:
            return f"Prometheus query failed: running query failed: {error}"
        case Source.INLINE:
            return f"Prometheus query failed for {metric.name}: {error}"
        case Source.TEMPLATE:
            return f"Metric query failed for {metric.name}: {error}"


def _out_of_range(metric: Metric, source: Source, good: Bounds, value: float, subject: Subject) -> str:
    sign = good.broken_by(value)
    bound = good.low if sign == "<" else good.high
    assert bound is not None  # noqa: S101 - there is no sign without a bound
    match source:
        case Source.SUCCESS_RATE:
            what = f"success rate {_fixed(value)}% {sign} {shortest(bound)}%"
        case Source.DURATION:
            what = f"request duration {_milliseconds(value)} {sign} {_milliseconds(bound)}"
        case _:
            what = f"{metric.name} {_fixed(value)} {sign} {shortest(bound)}"
    return f"Halt {subject.canary} advancement {what}"


def _fixed(value: float) -> str:
    return format_float(value, "f", 2)


def _milliseconds(value: float) -> str:
    return format_duration(value / 1000) if math.isfinite(value) else shortest(value)
