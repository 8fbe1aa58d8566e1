"""`imagebot canary watch [NAME]`: Canaries as they go; a live table on a terminal, elsewhere a line for each change."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from canary.api import CANARY
from canary.cli.place import cluster_options, decoded, name_of, open_canaries, readable, the_one
from canary.cli.show import COLOURS
from canary.cli.view import RESTING, View, bar, countdown, ladder, progress, share, view_of, why
from canary.metrics.base import Verdict
from canary.options import DEFAULTS
from canary.phases import Phase
from canary.site import CanaryResource
from reconcile.api.duration import format_duration
from reconcile.api.meta import Key
from reconcile.api.scheme import Scheme
from reconcile.app import load_packages
from reconcile.cli.columns import age, present
from reconcile.cli.output import Object, clean, say
from reconcile.cli.place import Place
from reconcile.cli.target import DURATION, PATIENCE, finish
from reconcile.errors import TimedOut
from reconcile.ports.clock import SystemClock
from reconcile.runtime.logs import configure

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects

LOOK, LOOK_AT_ALL = 1.0, 2.0
"""Seconds between two looks at one Canary, at all of a place."""
FRAME = 0.5
"""Seconds between two frames of the live table."""
FOREVER = 10 * 365 * 86400.0
HEAD = ("NAME", "PHASE", "PROGRESS", "", "FAILED", "NEXT", "WHY")
SHORT_BAR = 20
VERDICT = 3
"""Column of the verdict among those of a check."""
PASSED = frozenset({Phase.SUCCEEDED, Phase.INITIALIZED})


@click.command("watch")
@click.argument("name", required=False)
@click.option("--timeout", type=DURATION, default=None, help="Most time to watch. [default: for ever]")
@cluster_options
def watch_command(name: str | None, timeout: float | None, place: Place) -> int:
    """Watch Canaries: weights, checks, and the time to the next step.

    With NAME it ends with the run. Exit code 0: it has succeeded, or there is none; 1: it has failed, or did not end in time.
    """
    configure("error")
    scheme = load_packages().scheme
    wanted = name_of(scheme, name) if name else None
    return finish(_watch(scheme, wanted, place, timeout), (timeout or FOREVER) + PATIENCE)


async def _watch(scheme: Scheme, name: str | None, place: Place, timeout: float | None) -> int:
    async with open_canaries(place, scheme) as cluster:
        key = None
        if name is not None:
            meta = (await the_one(cluster, name))["metadata"]
            key = Key(meta["namespace"], meta["name"])
        try:
            async with asyncio.timeout(timeout):
                return await _Watch(cluster, scheme, key).run()
        except TimeoutError:
            if key is None:
                return 0
            raise TimedOut(f"the run of Canary {key} has not ended after {format_duration(timeout or math.inf)}") from None


class _Watch:
    """Looks again and again, and shows what it sees."""

    def __init__(self, cluster: ClusterObjects, scheme: Scheme, key: Key | None) -> None:
        self._cluster, self._scheme, self._key = cluster, scheme, key
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._shown: dict[str, str] = {}
        self._trouble = ""
        self._begun = False
        self._note = ""

    async def run(self) -> int:
        """To the end of the run; without a name, to the end of the time."""
        if not self._console.is_terminal:
            return await self._follow(None)
        with Live(console=self._console, auto_refresh=False, vertical_overflow="visible") as live:
            return await self._follow(live)

    async def _follow(self, live: Live | None) -> int:
        found: list[Object] = []
        looked = -math.inf
        while True:
            now = asyncio.get_running_loop().time()
            if now - looked >= (LOOK_AT_ALL if self._key is None else LOOK):
                found, looked = await self._look(found), now
                if self._key is not None and found and (code := await self._ended(found[0])) is not None:
                    self._draw(live, found)
                    return code
            self._draw(live, found)
            await asyncio.sleep(FRAME)

    async def _look(self, before: list[Object]) -> list[Object]:
        """What there is now; what there was, while the server cannot be reached."""
        from reconcile.kube.errors import Temporary, Unreachable

        try:
            if self._key is not None:
                found = [await self._cluster.read(CANARY, self._key)]
            else:
                found = await self._cluster.all_of(CANARY)
        except (Temporary, Unreachable) as error:
            if not before:
                raise
            self._trouble = str(error)
            return before
        self._trouble = ""
        return found

    async def _ended(self, found: Object) -> int | None:
        """The exit code when the run has ended; None while there is one, or one is about to begin."""
        view = view_of(decoded(self._scheme, found))
        if view.phase not in RESTING:
            self._begun, self._note = True, ""
            return None
        if self._begun or not await self._about_to_begin(view):
            return 0 if view.phase in PASSED else 1
        if not self._note:
            self._note = "the target has changed: its run is about to begin"
            if not self._console.is_terminal:
                say("◎", self._note)
        return None

    async def _about_to_begin(self, view: View) -> bool:
        """Whether the target has moved since the service looked: a run that somebody waits for has not begun yet."""
        from canary.cli.reading import gather
        from reconcile.kube.objects import KubeObjects

        async with KubeObjects(self._cluster.client, SystemClock()) as objects:
            facts = await gather(objects, view, DEFAULTS, (), present())
        return bool(facts.changed) and not view.canary.spec.suspend and not facts.invalid

    # --- showing

    def _draw(self, live: Live | None, found: Sequence[Object]) -> None:
        if live is not None:
            parts = screen(
                readable(self._scheme, found), present(), namespaces=not self._cluster.namespaced, one=self._key is not None
            )
            if not found:
                parts.append(Text(f"no Canaries {self._cluster.where}"))
            if self._note:
                parts.append(Text(f"◎ {self._note}", style="yellow"))
            if self._trouble:
                parts.append(Text(f"✗ {clean(self._trouble)}", style="red"))
            live.update(Group(*parts), refresh=True)
            return
        for each, read in readable(self._scheme, found):
            key = f"{each['metadata']['namespace']}/{each['metadata']['name']}"
            mark = read if isinstance(read, str) else signature(view_of(read))
            if self._shown.get(key) != mark:
                self._shown[key] = mark
                now = present()
                text = f"not valid: {read}" if isinstance(read, str) else change(view_of(read), now)
                click.echo(f"{now:%H:%M:%S}  {key}  {clean(text)}")


def screen(
    found: Sequence[tuple[Object, CanaryResource | str]], now: datetime, *, namespaces: bool, one: bool
) -> list[Table | Text]:
    """The live table; below that of one Canary its ladder and its checks. Pure."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in (*(["NAMESPACE"] if namespaces else []), *HEAD):
        table.add_column(head, no_wrap=head != "WHY", overflow="fold")
    parts: list[Table | Text] = [table]
    for each, read in found:
        cells = [Text(str(each["metadata"]["namespace"]))] if namespaces else []
        if isinstance(read, str):
            name = Text(str(each["metadata"]["name"]))
            table.add_row(*cells, name, *[Text("-")] * (len(HEAD) - 2), Text(f"not valid: {clean(read)}", style="red"))
            continue
        view = view_of(read)
        table.add_row(*cells, *_cells(view, now))
        if one:
            parts += _below(view, now)
    return parts


def _cells(view: View, now: datetime) -> list[Text]:
    colour = COLOURS.get(view.phase, "")
    failed = "red" if view.failed and view.failed >= view.plan.threshold - 1 else ""
    return [
        Text(view.canary.meta.name),
        Text(view.phase.value or "-", style=colour),
        Text(bar(share(view), SHORT_BAR), style=colour),
        Text(progress(view)),
        Text(f"{view.failed}/{view.plan.threshold}", style=failed),
        Text(countdown(view, now)),
        Text(clean(why(view, now))),
    ]


def _below(view: View, now: datetime) -> list[Table | Text]:
    parts: list[Table | Text] = [Text()]
    if not view.plan.skip and view.phase not in RESTING:
        parts.append(Text(f"steps  {ladder(view)}"))
    checks = view.canary.status.checks or ()
    if checks:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for head in ("CHECK", "VALUE", "THRESHOLD", "VERDICT", "ASKED"):
            table.add_column(head, no_wrap=True)
        for check in checks:
            style = "green" if check.verdict == Verdict.PASS else "red"
            shown = (check.metric, check.value or "-", check.threshold or "", check.verdict, f"{age(check.time or '', now)} ago")
            table.add_row(*(Text(clean(cell), style=style if n == VERDICT else "") for n, cell in enumerate(shown)))
        parts.append(table)
    return parts


def signature(view: View) -> str:
    """What makes a new line where there is no terminal: not the time that passes. Pure."""
    status, spec = view.canary.status, view.canary.spec
    checks = [(check.metric, check.verdict) for check in status.checks or ()]
    waits = [bool(moment) for moment in (status.not_ready_since, status.hold_since, status.gate_since)]
    return repr((view.phase, progress(view), view.failed, checks, waits, view.paused, view.asked, spec.suspend))


def change(view: View, now: datetime) -> str:
    """How a Canary stands, in one line: phase, progress, failed checks, checks that did not pass, and what it waits for."""
    parts = [f"{view.phase.value or 'new':<16}", f"{progress(view):>5}"]
    if view.phase not in RESTING:
        parts.append(f"failed {view.failed}/{view.plan.threshold}")
        bad = [check for check in view.canary.status.checks or () if check.verdict != Verdict.PASS]
        parts += [f"{check.metric} {check.value or check.verdict} (wanted {check.threshold})" for check in bad]
    text = why(view, now)
    return "  ".join([*parts, text] if text else parts).rstrip()
