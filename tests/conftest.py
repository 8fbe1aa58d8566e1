"""Rules for every test: no home, no network beyond loopback, no leaked task, and no silent skip.

A test that needs a program or a package says so: `@pytest.mark.needs("docker-registry", "go")`. Where it is missing the test is
skipped, and the end of the run lists what was skipped and why. With IMAGEBOT_TEST_REQUIRE=all a skip is a failure.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.cluster_fixtures"]

# No test asserts a time: neither how long an example takes nor how long it takes to make one.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

REQUIRED = os.environ.get("IMAGEBOT_TEST_REQUIRE", "")

PLACES = ("/usr/sbin", "/sbin", "/usr/local/sbin")
CLEANED = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "KUBECONFIG", "SSH_AUTH_SOCK", "GNUPGHOME", "DOCKER_CONFIG")


def missing(program: str) -> str | None:
    """Why a need is not met, None when it is: programs are searched on PATH, then packages by import name."""
    if shutil.which(program) or any((Path(place) / program).exists() for place in PLACES):
        return None
    if importlib.util.find_spec(program.replace("-", "_")) is not None:
        return None
    return f"{program} is not installed"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Turn `needs` into skips."""
    for item in items:
        for mark in item.iter_markers("needs"):
            reasons = [reason for program in mark.args if (reason := missing(program)) is not None]
            if reasons and REQUIRED != "all":
                item.add_marker(pytest.mark.skip(reason="; ".join(reasons)))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With IMAGEBOT_TEST_REQUIRE=all every skip is a failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and REQUIRED == "all" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although IMAGEBOT_TEST_REQUIRE=all: {report.longrepr}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A table of what was skipped and why."""
    skipped: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped[reason.removeprefix("Skipped: ")] = skipped.get(reason.removeprefix("Skipped: "), 0) + 1
    if skipped:
        terminalreporter.section("skipped")
        for reason, count in sorted(skipped.items()):
            terminalreporter.write_line(f"{count:5d}  {reason}")


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder of its own and a clean environment for every test."""
    structlog.reset_defaults()  # what a command of an earlier test set up may write to a stream that is closed by now
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for name in CLEANED:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections of this process that leave the machine are refused."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])
            if not (host.startswith("127.") or host in {"::1", "localhost"}):
                raise OSError(101, f"tests may not connect to {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
async def no_leaked_task(request: pytest.FixtureRequest) -> Any:
    """A task that outlives its test is a failure."""
    before = asyncio.all_tasks()
    yield
    for _ in range(20):
        left = [t for t in asyncio.all_tasks() if t not in before and t is not asyncio.current_task() and not t.done()]
        if not left:
            return
        await asyncio.sleep(0.01)
    names = ", ".join(sorted(t.get_name() for t in left))
    pytest.fail(f"tasks are still running after the test: {names}")
