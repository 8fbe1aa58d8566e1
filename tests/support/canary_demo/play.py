"""The chapters of the demonstration, in order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

import httpx
from rich.console import Group
from rich.live import Live
from rich.text import Text

from imagebot.demo.run import PAUSES
from imagebot.demo.show import INDENT, Screen
from imagebot.demo.tools import DemoFailed
from tests.support.kubeapi import ApiError, Object

from . import view
from .stage import APPS, BROKEN, FAILING, FIRST, FLAGGER, INTERVAL, ISTIO, NEXT, STEPS, Stage, built, facts, image
from .view import ENDED, Seen

LOOK = 0.4
"""Seconds between two looks at the cluster."""
SETTLING = 90.0
"""Seconds until the Canaries are initialized; one interval on an idle machine."""
RUNNING = 300.0
"""Seconds until both runs have ended; a minute on an idle machine."""
SILENCE = 30.0
"""Seconds for which the API server may not answer; on a busy machine it is slow at times."""


@dataclass(frozen=True)
class Options:
    """What the command was asked for. `speed` None: normal on a terminal, fast elsewhere."""

    kubeconfig: Path | None = None
    small: bool = False
    keep: bool = False
    speed: str | None = None


@dataclass(frozen=True)
class Told:
    """One event."""

    app: str
    kind: str
    text: str


Show = Callable[[Sequence[Seen], Sequence[Told]], None]


class Look:
    """Reads the cluster, and tells each event once."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._known: dict[str, int] = {}

    def now(self) -> list[Seen]:
        """The Canaries as they are; the exporter follows what they try."""
        stage = self._stage
        stage.check()
        found = {body["metadata"]["name"]: body for body in self._list(FLAGGER, "Canary")}
        routes = {body["metadata"]["name"]: body for body in self._list(ISTIO, "VirtualService")}
        workloads = {body["metadata"]["name"]: body for body in self._list("apps/v1", "Deployment")}
        seen = [view.seen(found[app], routes.get(app), workloads) for app in APPS if app in found]
        for one in seen:
            stage.serve(one.app, one.trying, one.weight or 0)
        return seen

    def news(self) -> list[Told]:
        """What was told since the last time; an event that came again is told again."""
        told = []
        for body in sorted(self._list("v1", "Event"), key=lambda body: int(body["metadata"]["resourceVersion"])):
            name, count = body["metadata"]["name"], int(body.get("count") or 1)
            if body["involvedObject"]["kind"] == "Canary" and self._known.get(name) != count:
                self._known[name] = count
                told.append(Told(body["involvedObject"]["name"], body["type"], body["message"]))
        return told

    def _list(self, version: str, kind: str) -> list[Object]:
        return self._stage.api.list(version, kind, self._stage.namespace)


class Board:
    """The live view on a terminal; elsewhere a line for each change."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._seen: Sequence[Seen] = ()
        self._latest: dict[str, str] = {}
        self._shown: dict[str, str] = {}
        self._began = time.monotonic()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Show it while inside; the last picture stays."""
        if not self._screen.terminal:
            yield
            return
        with Live(console=self._screen.console, get_renderable=self._picture, refresh_per_second=4):
            yield

    def _picture(self) -> Group:
        return view.board(self._seen, datetime.now(UTC))

    def show(self, seen: Sequence[Seen], news: Sequence[Told]) -> None:
        """What was seen and told at a moment."""
        self._seen = seen
        for told in news:
            self._line(told.app, Text(told.text, "" if told.kind == "Normal" else "red"))
        for one in seen:
            line, before = view.line(one), self._latest.get(one.app)
            # Not what is so in the middle of a step: a route is written a moment before the status.
            if not self._screen.terminal and line == before and line != self._shown.get(one.app):
                self._line(one.app, Text(f"  {line}"))
                self._shown[one.app] = line
            self._latest[one.app] = line

    def _line(self, app: str, text: Text) -> None:
        moment = view.clock(time.monotonic() - self._began)
        self._screen.line(Text.assemble((f"{moment}  ", "dim"), (app.ljust(view.APP), "bold"), text))


class Play:
    """One performance."""

    def __init__(self, options: Options, screen: Screen) -> None:
        self.screen = screen
        self.finished = False
        """Whether everything has been shown and only `--keep` goes on."""
        self._options = options
        self._pause = PAUSES[options.speed or ("normal" if screen.terminal else "fast")]

    def perform(self) -> None:
        """All chapters; raises what goes wrong."""
        began = time.monotonic()
        self.screen.title("imagebot canary demo: one new revision is promoted, another one is taken back")
        self.screen.line(f"About a minute and a half: steps are {INTERVAL} seconds apart, which is the least.")
        self.screen.chapter(1, "The stage")
        with built(self._options.kubeconfig, small=self._options.small, say=self._say) as stage:
            self._show_stage(stage)
            look = Look(stage)
            self._set_up(stage, look)
            self._watch(stage, look)
            self._outcome(stage, look.now())
            self._end(time.monotonic() - began)
            if self._options.keep:
                self.finished = True
                self._stay(stage, look)

    def _say(self, text: str) -> None:
        self.screen.line(f"{text} …")

    def _show_stage(self, stage: Stage) -> None:
        self.screen.facts(facts(stage))
        with self.screen.waiting("starting imagebot run --controllers canary"):
            stage.start_service()
        self.screen.line()
        self.screen.done("started", "imagebot run --controllers canary, as a process of its own")
        self._breathe()

    def _set_up(self, stage: Stage, look: Look) -> None:
        self.screen.chapter(2, f"Two Deployments in revision {FIRST}, each with a Canary")
        stage.create_apps()
        with self.screen.waiting("the Canaries set themselves up"):
            self._until(look, lambda seen: len(seen) == len(APPS) and all(one.phase == "Initialized" for one in seen), SETTLING)
        for app in APPS:
            self.screen.done("set up", f"{app}: {app}-primary serves, and the VirtualService {app} says so")
        look.news()
        self._breathe()

    def _watch(self, stage: Stage, look: Look) -> None:
        self.screen.chapter(3, f"Both get revision {NEXT}; cart's answers {FAILING * 100:g} % of its requests with an error")
        for app in APPS:
            stage.release(app, NEXT)
        if self.screen.terminal:
            self.screen.line("Bars: all traffic as the route divides it; thick is the new revision's share.", "dim")
            self.screen.line()
        board = Board(self.screen)
        with board.opened():
            self._until(look, lambda seen: all(one.phase in ENDED and one.trying != image(one.app, FIRST) for one in seen),
                        RUNNING, board.show)  # fmt: skip
        self._breathe()

    def _outcome(self, stage: Stage, seen: Sequence[Seen]) -> None:
        self.screen.chapter(4, "What came of it")
        for one in seen:
            good = image(one.app, NEXT) != BROKEN
            wanted = ("Succeeded", image(one.app, NEXT)) if good else ("Failed", image(one.app, FIRST))
            if (one.phase, one.serving) != wanted or one.weight:
                raise DemoFailed(f"{one.app} did not end as it should: {view.line(one)}, {one.serving} serves")
            if good:
                told = f"promoted after {len(STEPS)} steps: {view.short(one.serving)} has all traffic"
                self.screen.line(Text.assemble((f"✓ {one.app.ljust(view.APP)}", "green"), told))
            else:
                told = f"rolled back: {view.short(one.serving)} has all traffic, as before"
                self.screen.line(Text.assemble((f"✗ {one.app.ljust(view.APP)}", "red"), told))
        self.screen.line()
        self._explain(stage, view.app_of(BROKEN))

    def _explain(self, stage: Stage, app: str) -> None:
        """What the command says; its list of events has been seen above."""
        command = ("canary", "explain", app)
        self.screen.line(f"$ imagebot {' '.join(command)} -n {stage.namespace}", "dim")
        said = "\n".join(takewhile(lambda line: line != "Last events", stage.imagebot(*command)))
        for line in said.rstrip().splitlines():
            for part in view.folded(line, self.screen.console.width - len(INDENT)):
                self.screen.line(part)

    def _end(self, seconds: float) -> None:
        self.screen.line()
        self.screen.title(f"Done in {seconds:.0f} s.")
        if not self._options.keep:
            self.screen.line("To look around in it, and to release more: make canary-demo DEMO=--keep")

    def _stay(self, stage: Stage, look: Look) -> None:
        self.screen.chapter(5, "Everything keeps running until Ctrl-C. In another terminal:")
        for what, command in hints(stage):
            self.screen.line(Text(what, "dim"))
            self.screen.line(Text(f"  {command}"))
        board = Board(self.screen)
        with board.opened():
            self._until(look, lambda _: False, None, board.show)

    def _until(self, look: Look, reached: Callable[[list[Seen]], bool], seconds: float | None,
               show: Show = lambda _seen, _news: None) -> None:  # fmt: skip
        """Look again and again until something is reached.

        Raises:
            DemoFailed: It was not after `seconds`, or the API server did not answer for a while.
        """
        began = answered = time.monotonic()
        seen: list[Seen] = []
        while not (seen and reached(seen)):
            time.sleep(LOOK if seen else 0)
            try:
                seen = look.now()
                show(seen, look.news())
                answered = time.monotonic()
            except (ApiError, httpx.TransportError) as error:
                if time.monotonic() - answered > SILENCE:
                    raise DemoFailed(f"the API server has stopped to answer: {error}") from error
            if seconds is not None and time.monotonic() - began > seconds:
                raise DemoFailed("\n  ".join([f"waited {seconds:g} s in vain:", *(f"{s.app}: {view.line(s)}" for s in seen)]))
        time.sleep(LOOK)  # events come a moment after the status that they are about
        show(seen, look.news())

    def _breathe(self) -> None:
        time.sleep(self._pause)


def hints(stage: Stage) -> list[tuple[str, str]]:
    """What to look at, and commands for it."""
    where = f"-n {stage.namespace}"
    folders = [str(folder) for folder in (Path(sys.executable).parent, stage.programs) if folder]
    return [
        ("first", f"export KUBECONFIG={stage.cluster.kubeconfig} PATH={':'.join(folders)}:$PATH"),
        ("a revision of cart without the error", f"kubectl {where} set image deployment/cart app={image('cart', '2.0.1')}"),
        (f"the broken one again ({view.short(BROKEN)})", f"kubectl {where} set image deployment/cart app={BROKEN}"),
        ("a live view", f"imagebot canary watch {where}"),
        ("what can be done", f"imagebot canary explain cart {where}"),
        ("the objects", f"kubectl {where} get canaries,deployments,services,virtualservices"),
        ("the service's log", f"less {stage.log('imagebot')}"),
    ]
