"""What a load led to: counts, statuses, errors and latencies, in bounded room however many requests there are. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MAX_KINDS = 20
"""Different error texts that are kept apart."""
OTHER = "other"

_LEAST, _STEP = 0.000_05, 1.02
_MOST_BUCKETS = 1024


class Latencies:
    """A histogram of seconds whose quantiles are right within two per cent, from 50 µs to hours."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.total = self.most = 0.0

    def add(self, seconds: float) -> None:
        """Count one request."""
        ratio = max(seconds, _LEAST) / _LEAST
        self._buckets[min(_MOST_BUCKETS, math.ceil(math.log(ratio, _STEP)))] += 1
        self.count += 1
        self.total += seconds
        self.most = max(self.most, seconds)

    def quantile(self, share: float) -> float:
        """The seconds that this share of the requests did not exceed; 0 without requests."""
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= share * self.count:
                return min(self.most, _LEAST * _STEP**bucket)
        return 0.0

    def shown(self) -> dict[str, float]:
        """Milliseconds, by what they are."""
        quantiles = {f"p{share}": self.quantile(share / 100) for share in (50, 90, 95, 99)}
        mean = self.total / self.count if self.count else 0.0
        return {name: round(1000 * value, 3) for name, value in {"mean": mean, **quantiles, "max": self.most}.items()}


@dataclass
class Summary:
    """One load, while it runs and when it is done.

    Attributes:
        requests: Made, whatever came of them.
        errors: Of those, without an answer or with a status that is not right.
        statuses: Answers by status.
        failures: Requests without an answer by what happened; at most `MAX_KINDS` texts.
        latencies: Of all that were answered, to the end of the body.
        late: Requests that began later than the rate asks for, because all workers were busy.
        late_seconds: By how much, in total.
        missed: Requests that the rate asks for and that were not made in time at all.
        received: Bytes of answers that were read.
        seconds: How long it took.
        sample: Beginning of the last answer.
    """

    requests: int = 0
    errors: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)
    late: int = 0
    late_seconds: float = 0.0
    missed: int = 0
    received: int = 0
    seconds: float = 0.0
    sample: bytes = b""

    def failed(self, text: str) -> None:
        """Count a request without an answer."""
        known = text in self.failures or len(self.failures) < MAX_KINDS
        self.failures[text if known else OTHER] += 1
        self.errors += 1

    def shown(self) -> dict[str, Any]:
        """As data for people and programs."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "seconds": round(self.seconds, 3),
            "requestsPerSecond": round(self.requests / self.seconds, 2) if self.seconds else 0.0,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "failures": dict(self.failures.most_common()),
            "latencyMilliseconds": self.latencies.shown(),
            "late": self.late,
            "lateSeconds": round(self.late_seconds, 3),
            "missed": self.missed,
            "bytesRead": self.received,
        }
