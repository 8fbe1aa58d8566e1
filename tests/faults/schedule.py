"""A schedule of faults, drawn from a seed: what a world looks like and what happens in it. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tests.faults.points import POINTS, Stop
from tests.faults.servers import GIT_FAULTS, REGISTRY_FAULTS

Layout = Literal["one", "parts", "overlap", "branch"]
Order = Literal["semver", "numerical"]

LAYOUTS: tuple[Layout, ...] = ("one", "parts", "overlap", "branch")
"""One automation for all; two that share a branch, each with its own folders; two that share branch and folders; one that pushes
to a branch of its own."""
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Push:
    """A tag is pushed."""

    image: int
    tag: str


@dataclass(frozen=True, slots=True)
class Delete:
    """A tag is removed from the registry, if it is there."""

    image: int
    tag: str


@dataclass(frozen=True, slots=True)
class Human:
    """A person commits: to another file, or to another line of a file of ours (`image`)."""

    number: int
    image: int | None = None


@dataclass(frozen=True, slots=True)
class Fill:
    """The disk of the state gets full, but for some bytes, until the start is over."""

    left: int = 0


Event = Push | Delete | Human | Fill


@dataclass(frozen=True, slots=True)
class Start:
    """The service is started, and what befalls it.

    Attributes:
        mode: one pass, or for long.
        registry: faults of the next requests to the registry.
        git: faults of the next requests to the Git server.
        stop: the point at which it is killed, or stopped until `during` has happened.
        killed_on_push: whether it is killed when its push reaches the server.
        moment: seconds after its start at which it is killed; None: it is not.
        during: what happens while it runs, or while it is stopped at its point.
        dwell: seconds for which a service that runs for long is left alone, before and after `during`.
        clock: seconds by which its clock is wrong.
        jump: seconds by which its clock jumps while it runs for long.
        deaf: whether names cannot be resolved.
        full: whether the disk of the state is full: bytes that are left, None for plenty.
        read_only: whether the state folder cannot be written.
        second: whether a second one is started on the same state meanwhile.
        awaited: whether it must bring Git up to date before it is told to end; for long only.
    """

    mode: Literal["once", "run"] = "once"
    registry: tuple[str, ...] = ()
    git: tuple[str, ...] = ()
    stop: Stop | None = None
    killed_on_push: bool = False
    moment: float | None = None
    during: tuple[Event, ...] = ()
    dwell: float = 0.3
    clock: float = 0.0
    jump: float = 0.0
    deaf: bool = False
    full: int | None = None
    read_only: bool = False
    second: bool = False
    awaited: bool = False

    def disturbance(self) -> str:
        """What is not as in an undisturbed start, in words."""
        plain = Start(self.mode)
        parts = [f"{name}={value}" for name in Start.__slots__ if (value := getattr(self, name)) != getattr(plain, name)]
        return ", ".join(parts) or "undisturbed"


Step = Event | Start


@dataclass(frozen=True, slots=True)
class Schedule:
    """A world and what happens in it.

    Attributes:
        name: to repeat it.
        layout: who writes where.
        images: the order in which each image's tags are compared.
        tags: the tags that each image has at the start.
        steps: what happens; afterwards all faults cease.
        settle: how the service then comes to rest.
        signed: whether commits are signed, with a key that has a passphrase.
        timeout: seconds that a scan may take.
    """

    name: str
    layout: Layout = "one"
    images: tuple[Order, ...] = ("semver",)
    tags: tuple[tuple[str, ...], ...] = (("1.0.0",),)
    steps: tuple[Step, ...] = ()
    settle: Literal["once", "run"] = "once"
    signed: bool = False
    timeout: int = 2


class _Tags:
    """Tags of one image as they come into being."""

    def __init__(self, order: Order, chance: random.Random) -> None:
        self._order = order
        self._chance = chance
        self._top = [1, 0, 0]
        self.all = [self._text()]

    def _text(self) -> str:
        return ".".join(map(str, self._top)) if self._order == "semver" else str(self._top[0])

    def push(self) -> str:
        kind = self._chance.choices(("higher", "lower", "other"), (6, 1, 1))[0]
        tag = f"{kind}-{len(self.all)}"
        if kind == "higher":
            place = self._chance.randrange(3) if self._order == "semver" else 0
            self._top = [*self._top[:place], self._top[place] + 1, *[0] * (2 - place)]
            tag = self._text()
        elif kind == "lower":
            tag = f"0.{len(self.all)}.0" if self._order == "semver" else f"0.{len(self.all)}"
        self.all.append(tag)
        return tag

    @property
    def top(self) -> str:
        return self._text()


class _Drawer:
    """Draws one schedule."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.images: tuple[Order, ...] = tuple(
            chance.choices(("semver", "numerical"), (3, 1))[0] for _ in range(chance.randint(1, 3))
        )
        self.tags = [_Tags(order, chance) for order in self.images]
        self.humans = 0

    def event(self) -> Event:
        image = self.chance.randrange(len(self.images))
        kind = self.chance.choices(("push", "delete", "other file", "same file"), (6, 2, 2, 2))[0]
        if kind == "push":
            return Push(image, self.tags[image].push())
        if kind == "delete":
            # Never the first one, so that there always is something to choose.
            tags = self.tags[image]
            return Delete(image, tags.top if len(tags.all) > 1 and tags.top != tags.all[0] else "absent")
        self.humans += 1
        return Human(self.humans, image if kind == "same file" else None)

    def events(self, most: int) -> tuple[Event, ...]:
        return tuple(self.event() for _ in range(self.chance.randint(0, most)))

    def start(self) -> Start:
        chance = self.chance
        kinds = ("point", "race", "moment", "on push", "registry", "git", "both", "run", "run killed", "run faults", "second")
        rare = ("clock", "deaf", "full", "read only", "jump")
        kind = chance.choices((*kinds, *rare), (*[3, 2, 2, 1, 3, 3, 1, 1, 1, 1, 0.5], *[1, 1, 1, 0.5, 0.5]))[0]
        match kind:
            case "point":
                return Start(stop=self.stop(chance.choice(("kill", "kill tree"))))
            case "race":
                points = ("scan", "choose", "fetch", "commit", "push", "push", "push", "status")
                stop = Stop(chance.choice(points), chance.choice(("before", "after")), "stop")
                return Start(stop=stop, during=(self.event(), *self.events(1)))
            case "moment":
                return Start(moment=round(chance.uniform(0.02, 0.7), 3))
            case "on push":
                return Start(killed_on_push=True)
            case "registry":
                return Start(registry=self.faults(REGISTRY_FAULTS))
            case "git":
                return Start(git=self.faults(GIT_FAULTS))
            case "both":
                return Start(registry=self.faults(REGISTRY_FAULTS), git=self.faults(GIT_FAULTS))
            case "run":
                return self.long()
            case "run killed":
                return self.long(moment=round(chance.uniform(0.3, 1.2), 3))
            case "run faults":
                return self.long(registry=self.faults(REGISTRY_FAULTS), git=self.faults(GIT_FAULTS))
            case "second":
                return self.long(second=True)
            case "clock":
                return Start(clock=chance.choice((-DAY, DAY, -3600.0, 3600.0)))
            case "jump":
                return self.long(jump=chance.choice((-DAY, DAY)))
            case "deaf":
                return Start(deaf=True)
            case "full":
                return Start(full=chance.choice((0, 4096, 16384, 65536, 131072, 200_000)))
            case _:
                return Start(read_only=True)

    def long(
        self,
        moment: float | None = None,
        registry: Sequence[str] = (),
        git: Sequence[str] = (),
        jump: float = 0.0,
        *,
        second: bool = False,
    ) -> Start:
        during = (self.event(), *self.events(2))
        dwell = round(self.chance.uniform(0.1, 0.6), 3)
        # A hook refuses for as long as the service lives: nothing can be brought up to date meanwhile.
        awaited = moment is None and self.chance.random() < 0.3 and "hook" not in git
        faults = {"registry": tuple(registry), "git": tuple(git)}
        return Start("run", **faults, moment=moment, during=during, dwell=dwell, jump=jump, second=second, awaited=awaited)

    def stop(self, act: Literal["kill", "kill tree"]) -> Stop:
        point = self.chance.choice(list(POINTS))
        most = (
            12
            if point in {"status", "transaction", "row"}
            else 3
            if point in {"list", "credentials", "event", "passphrase"}
            else 1
        )
        return Stop(point, self.chance.choice(("before", "after")), act, self.chance.randint(1, most))

    def faults(self, kinds: Sequence[str]) -> tuple[str, ...]:
        # Those that cost time come seldom, and once.
        first = self.chance.choices(kinds, [0.4 if kind == "hang" else 1.0 for kind in kinds])[0]
        if first == "hang":
            return (first,)
        return tuple([first] * self.chance.randint(1, 3))


def draw(seed: int, index: int) -> Schedule:
    """Schedule number `index` of a seed."""
    chance = random.Random(f"{seed}:{index}")
    drawer = _Drawer(chance)
    first = tuple((tags.top,) for tags in drawer.tags)
    steps: list[Step] = []
    for _ in range(chance.randint(2, 6)):
        steps.append(drawer.start() if chance.random() < 0.5 else drawer.event())
    if not any(isinstance(step, Start) for step in steps):
        steps.append(drawer.start())
    settle: Literal["once", "run"] = "run" if chance.random() < 0.12 else "once"
    layout, signed = chance.choice(LAYOUTS), chance.random() < 0.1
    return Schedule(f"{seed}:{index}", layout, drawer.images, first, tuple(steps), settle, signed)
