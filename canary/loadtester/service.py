"""Puts the load tester together and runs it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from canary.loadtester.gates import Gates
from canary.loadtester.kinds import KINDS, Allowed, Workshop
from canary.loadtester.measures import Measures
from canary.loadtester.releases import Releases
from canary.loadtester.server import Parts, make_app, read_token
from canary.loadtester.tasks import RUNNING, WAITING, Tasks
from reconcile.errors import Invalid
from reconcile.ports.clock import Clock, SystemClock
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.server import serving


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options say.

    Attributes:
        address: To listen on, as `HOST:PORT`.
        allowed: What callers may have done.
        longest: Seconds that one task may take.
        concurrent: Tasks that run at a time.
        waiting: Tasks that wait for their turn; more are refused.
        state: File that keeps the gates, None for memory alone.
        token: File with the token for opening and closing gates, None for anybody.
    """

    address: str
    allowed: Allowed
    longest: float
    concurrent: int = RUNNING
    waiting: int = WAITING
    state: Path | None = None
    token: Path | None = None


@asynccontextmanager
async def load_tester(settings: Settings, releases: Releases | None, clock: Clock) -> AsyncIterator[str]:
    """The load tester while it serves; gives its URL. At the end every task is ended, with all it started.

    Raises:
        Invalid: The address cannot be listened on, the file of gates or the token cannot be read.
    """
    metrics = Metrics()
    measures = Measures(metrics)
    measures.announce(KINDS)
    gates = Gates(settings.state)
    measures.show_gates(gates)
    if settings.token is not None and not read_token(settings.token):
        raise Invalid(f"--token-file: {settings.token} has no token in it, or cannot be read")
    workshop = Workshop(settings.allowed, measures, clock, settings.longest, releases)
    bounds = {"running": settings.concurrent, "waiting": settings.waiting}
    async with aclosing(Tasks(clock, measures, settings.longest, **bounds)) as tasks:
        parts = Parts(metrics, measures, gates, tasks, workshop, settings.token)
        async with serving(make_app(parts), settings.address) as url:
            yield url


async def run_service(settings: Settings, releases: Releases | None) -> None:
    """Serve until SIGINT or SIGTERM; raises as `load_tester`."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with load_tester(settings, releases, SystemClock()) as url:
        click.echo(f"the load tester answers at {url}", err=True)
        await stop.wait()
