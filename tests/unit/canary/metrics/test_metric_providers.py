"""Which provider is made for which type, what all share, and equal questions asked once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import httpx
import pytest

from canary.api import MetricProvider
from canary.metrics.base import ProviderConfig, Sample
from canary.metrics.flights import Flights
from canary.metrics.providers import MODULES, PROMETHEUS, Providers
from reconcile.errors import ReconcileError, TimedOut
from reconcile.net.proxy import ProxyEnvironment
from tests.support.prometheus import FakePrometheus, Raw

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def providers() -> Any:
    made = Providers(environment=ProxyEnvironment())
    yield made
    await made.aclose()


def test_each_type_of_the_schema_has_a_module() -> None:
    types = MetricProvider.model_json_schema()["properties"]["type"]["enum"]
    assert set(types) == {*MODULES, PROMETHEUS}


def test_no_backend_is_loaded_before_it_is_needed() -> None:
    loaded = "import sys, canary.metrics.checks; print([name for name in sys.modules if name.startswith('prometheus_api')])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Fixed:
    """What a module of a provider has."""

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config
        self.hangs = False

    async def query(self, text: str, interval: str, now: datetime) -> Sample:
        if self.hangs:
            await asyncio.Event().wait()
        return Sample(len(text) + len(interval), 2)

    async def online(self) -> None:
        await self.query("", "", NOW)


async def test_modules_are_loaded_with_the_first_of_their_type(providers: Providers, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("canary.metrics.datadog")
    module.Datadog = Fixed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "canary.metrics.datadog", module)
    described = MetricProvider.model_validate(
        {
            "type": "datadog",
            "address": "http://h",
            "region": "eu",
            "headers": {"B": ["1", "2"], "A": ["3"]},
            "insecureSkipVerify": True,
        }
    )
    config = providers.config(described, {"key": b"v"}, timeout=3.0)
    assert (config.region, config.headers, config.secret, config.timeout) == (
        "eu", (("A", ("3",)), ("B", ("1", "2"))), {"key": b"v"}, 3.0,
    )  # fmt: skip
    assert await providers.make(config).query("abc", "1m", NOW) == Sample(5, 2)
    assert config == providers.config(described, {"key": b"v"}, timeout=3.0)
    assert config != providers.config(described, {"key": b"w"}, timeout=3.0)
    assert hash(config) == hash(providers.config(described, {"key": b"v"}, timeout=3.0))
    assert "b'v'" not in repr(config)


async def test_an_unknown_type_is_taken_for_prometheus(providers: Providers) -> None:
    async with FakePrometheus() as backend:
        assert await providers.make(ProviderConfig("unheard-of", backend.url)).query("up", "", NOW) == Sample(1.0)


async def test_no_provider_is_waited_for_for_ever(providers: Providers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canary.metrics.providers.LONGEST", 0.05)
    module = ModuleType("canary.metrics.keptn")
    slow = Fixed(ProviderConfig("keptn"))
    slow.hangs = True
    module.Keptn = lambda config: slow  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "canary.metrics.keptn", module)
    for call in (providers.make(ProviderConfig("keptn")).query("x", "", NOW), providers.make(ProviderConfig("keptn")).online()):
        with pytest.raises(TimedOut, match="context deadline exceeded"):
            await call


async def test_the_shared_client_tries_once_and_follows_nobody(providers: Providers) -> None:
    async with FakePrometheus() as backend:
        config = providers.config(MetricProvider(type="datadog", address=backend.url))
        backend.replies["busy"] = "error500"
        backend.replies["away"] = Raw(302, headers={"Location": "/api/v1/query?query=up"})
        place = f"{backend.url}/api/v1/query"
        answers = [
            await config.http().get(place, params={"query": query}, headers={"DD-API-KEY": "k"}) for query in ("busy", "away")
        ]
        assert [answer.status_code for answer in answers] == [500, 302]
        assert len(backend.queries) == 2
        assert config.http() is config.http()
        insecure = providers.config(MetricProvider(type="graphite", address=backend.url, insecure_skip_verify=True))
        assert insecure.http() is not config.http()
        assert isinstance(insecure.http(), httpx.AsyncClient)
    with pytest.raises(ReconcileError, match="no HTTP client"):
        ProviderConfig("graphite").http()


class Questions:
    """Counts questions; each is answered when `answer` is called."""

    def __init__(self) -> None:
        self.asked = 0
        self.cancelled = 0
        self.answer = asyncio.Event()

    async def ask(self) -> int:
        self.asked += 1
        number = self.asked
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if number == 13:
            raise ReconcileError("unlucky")
        return number


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_equal_questions_share_one_answer() -> None:
    flights, questions = Flights[int](), Questions()
    tasks = [asyncio.create_task(flights.share(key, questions.ask)) for key in "aabab"]
    await settle()
    questions.answer.set()
    assert await asyncio.gather(*tasks) == [1, 1, 2, 1, 2]
    assert await flights.share("a", questions.ask) == 3


async def test_errors_are_shared_too() -> None:
    flights, questions = Flights[int](), Questions()
    questions.asked = 12
    tasks = [asyncio.create_task(flights.share("a", questions.ask)) for _ in range(2)]
    await settle()
    questions.answer.set()
    assert [str(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == ["unlucky", "unlucky"]
    assert questions.asked == 13


async def test_a_question_ends_with_the_last_who_waits() -> None:
    flights, questions = Flights[int](), Questions()
    tasks = [asyncio.create_task(flights.share("a", questions.ask)) for _ in range(3)]
    await settle()
    tasks[0].cancel()
    tasks[1].cancel()
    await settle()
    assert questions.cancelled == 0
    tasks[2].cancel()
    await settle()
    assert questions.cancelled == 1
    questions.answer.set()
    assert await flights.share("a", questions.ask) == 2  # a new one, not the one that ended


async def test_beyond_the_limit_each_asks_for_itself() -> None:
    flights, questions = Flights[int](limit=1), Questions()
    tasks = [asyncio.create_task(flights.share(key, questions.ask)) for key in "abb"]
    await settle()
    assert questions.asked == 3
    questions.answer.set()
    await asyncio.gather(*tasks)
