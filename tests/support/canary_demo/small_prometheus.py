"""A stand-in for Prometheus, for machines without one: it answers the two built-in questions of a Canary, and no others.

It reads the page of an exporter each second, as Prometheus does, and computes rates over what it has read. By the Prometheus
HTTP API: `GET` or `POST /api/v1/query` with `query`; whatever it does not understand is answered with `bad_data`.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

from prometheus_client.parser import text_string_to_metric_families

KEPT = 120
"""Readings that are kept, one a second."""
MOST = 64 * 1024

Labels = Mapping[str, str]
SeriesName = tuple[str, frozenset[tuple[str, str]]]
Series = dict[SeriesName, float]

_RATE = r"sum\( rate\( (\w+){([^}]*)}\[(\d+)s\] \) \)"
_RATIO = re.compile(rf"{_RATE} / {_RATE} \* 100")
_QUANTILE = re.compile(rf"histogram_quantile\( ([\d.]+), {_RATE} by \(le\) \)")
_MATCHER = re.compile(r'\s*(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*,?')


@dataclass(frozen=True)
class Matcher:
    """A label matcher: the whole value has to fit, and a label that is not there is empty."""

    name: str
    pattern: re.Pattern[str]
    wanted: bool

    @classmethod
    def of(cls, name: str, operator: str, value: str) -> Self:
        """`name`, one of `=`, `!=`, `=~`, `!~`, and what is in the quotes."""
        return cls(name, re.compile(value if "~" in operator else re.escape(value)), operator[0] == "=")

    def fits(self, labels: Labels) -> bool:
        """Whether a series fits."""
        return (self.pattern.fullmatch(labels.get(self.name, "")) is not None) is self.wanted


class NotUnderstood(ValueError):
    """The query is of another form than the ones that are known."""


class SmallPrometheus:
    """Serves the answers on a loopback port; a context manager.

    Args:
        page: Gives the exporter's page, in the text format of Prometheus.
    """

    def __init__(self, page: Callable[[], str]) -> None:
        self._page = page
        self._readings: deque[tuple[float, Series]] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.05,), name="small prometheus", daemon=True),
            threading.Thread(target=self._read_on, name="scrapes", daemon=True),
        ]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join(10)
        self._server.server_close()

    def read(self, now: float) -> None:
        """Read the page, as of a moment in seconds."""
        found: Series = {}
        for family in text_string_to_metric_families(self._page()):
            for sample in family.samples:
                found[sample.name, frozenset(sample.labels.items())] = sample.value
        with self._lock:
            self._readings.append((now, found))

    def value(self, query: str, now: float) -> float | None:
        """The one number that a query gives at a moment, NaN included; None for an empty vector.

        Raises:
            NotUnderstood: The query is none of the known forms.
        """
        text = " ".join(query.split()).replace("{ ", "{").replace(" }", "}")
        if text == "vector(1)":
            return 1.0
        if found := _RATIO.fullmatch(text):
            good, everything = self._sums(found[1], found[2], found[3], now), self._sums(found[4], found[5], found[6], now)
            if not good or not everything:
                return None
            return _divided(sum(good.values()), sum(everything.values())) * 100
        if found := _QUANTILE.fullmatch(text):
            buckets = self._sums(found[2], found[3], found[4], now)
            return quantile(float(found[1]), {float(le): rate for le, rate in buckets.items()}) if buckets else None
        raise NotUnderstood("this is not Prometheus: only the built-in queries of Istio and vector(1) are answered")

    def _sums(self, name: str, matchers: str, window: str, now: float) -> dict[str, float]:
        """Rates a second by `le`; series without one are under an empty text."""
        wanted = [Matcher.of(*parts) for parts in _MATCHER.findall(matchers)]
        spans: dict[SeriesName, list[tuple[float, float]]] = {}
        with self._lock:
            readings = [(at, series) for at, series in self._readings if now - int(window) <= at <= now]
        for at, series in readings:
            for key, value in series.items():
                # Each series counts from where it begins: the first requests may have come within the window.
                spans.setdefault(key, []).append((at, value))
        sums: dict[str, float] = {}
        for (which, pairs), points in spans.items():
            labels = dict(pairs)
            if which == name and len(points) > 1 and all(matcher.fits(labels) for matcher in wanted):
                (began, first), (ended, last) = points[0], points[-1]
                le = labels.get("le", "")
                sums[le] = sums.get(le, 0.0) + (last - first) / (ended - began)
        return sums

    def _read_on(self) -> None:
        while not self._stopped.wait(1.0):
            self.read(time.monotonic())

    def answer(self, path: str, query: str) -> tuple[int, str]:
        """Status and body for a query."""
        if path != "/api/v1/query":
            return 404, _error("not_found", path)
        try:
            value = self.value(query, time.monotonic())
        except NotUnderstood as error:
            return 400, _error("bad_data", str(error))
        result = [] if value is None else [{"metric": {}, "value": [time.time(), _written(value)]}]
        return 200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply(urlsplit(self.path).query)

            def do_POST(self) -> None:
                self.reply(self.rfile.read(min(MOST, int(self.headers.get("Content-Length", "0")))).decode())

            def reply(self, form: str) -> None:
                query = parse_qs(form).get("query", [""])[0]
                status, body = server.answer(urlsplit(self.path).path, query)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler


def quantile(share: float, buckets: Mapping[float, float]) -> float:
    """`histogram_quantile` of cumulative buckets by upper bound, linear within a bucket; NaN without requests."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0 or not math.isinf(bounds[-1]):
        return math.nan
    rank, lower, below = share * total, 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return lower
            return round(lower + (bound - lower) * _divided(rank - below, buckets[bound] - below), 9)
        lower, below = bound, buckets[bound]
    return lower


def _divided(upper: float, lower: float) -> float:
    return upper / lower if lower else math.nan


def _written(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(value)


def _error(kind: str, text: str) -> str:
    return json.dumps({"status": "error", "errorType": kind, "error": text})
