"""Named points of the service at which a schedule kills or stops it.

The service knows nothing of them: in the forked child the functions named here are wrapped before it starts.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

When = Literal["before", "after"]
Act = Literal["kill", "kill tree", "stop"]

POINTS: dict[str, str] = {
    "scan": "imagebot.scan.controller:ImageRepositoryReconciler._scan",
    "choose": "imagebot.policy.controller:ImagePolicyReconciler._choose",
    "list": "reconcile.git.mirror:Mirror.ls_remote",
    "mirror": "reconcile.git.folder:Folder.prepare",
    "credentials": "reconcile.git.session:_askpass",
    "passphrase": "reconcile.git.sshkeys:write_private",
    "fetch": "reconcile.git.mirror:Mirror.fetch",
    "commit": "reconcile.git.mirror:Mirror.write_commit",
    "push": "reconcile.git.mirror:Mirror.push",
    "status": "reconcile.local.store:LocalStore._write_status",
    "transaction": "reconcile.local.database:replace",
    "row": "reconcile.local.database:Database.save",
    "event": "reconcile.local.database:Database.add_event",
    "end": "reconcile.git.mirrors:Mirrors.close",
}
"""From the name of a point to the function that it stands before or after. `transaction` lies between the statements of one
transaction, `credentials` between the files that one git process is given and their removal; `passphrase` is reached where there
is a key to sign with, while the key and its passphrase are on disk."""

REQUEST_POINTS: dict[str, str] = {
    "request noted": "imagebot.bot.requests.passing:Pass._note",
    "request pushed": "imagebot.bot.requests.act:Doer._push",
    "request opened": "imagebot.bot.requests.act:Doer._open",
}
"""Points that are reached only where changes are proposed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """What happens at a point, at the `nth` time that the service gets there: it is killed, killed with all that it started, or
    stopped (SIGSTOP) until it is told to go on."""

    point: str
    when: When = "before"
    act: Act = "kill"
    nth: int = 1


def install(stop: Stop, mark: Path) -> None:
    """Wrap the function of the point in this process; `mark` is written right before the process is killed or stopped."""
    module_name, _, path = (POINTS | REQUEST_POINTS)[stop.point].partition(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for part in parents:
        owner = getattr(owner, part)
    counter, guard = iter(range(1, 1 << 30)), threading.Lock()

    def here() -> None:
        with guard:
            number = next(counter)
        if number == stop.nth:
            mark.write_text(f"{stop.point} {stop.when}\n")
            _act(stop.act)

    setattr(owner, name, _wrapped(getattr(owner, name), stop.when, here))


def _wrapped(function: Callable[..., Any], when: When, here: Callable[[], None]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def slow(*args: Any, **more: Any) -> Any:
            if when == "before":
                here()
            result = await function(*args, **more)
            if when == "after":
                here()
            return result

        return slow

    @functools.wraps(function)
    def quick(*args: Any, **more: Any) -> Any:
        if when == "before":
            here()
        result = function(*args, **more)
        if when == "after":
            here()
        return result

    return quick


def _act(act: Act) -> None:
    if act == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    if act == "kill tree":
        for child in list(children(os.getpid())):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def children(pid: int) -> Iterator[int]:
    """Processes that `pid` has started, each of which leads a group of its own."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            yield from map(int, (task / "children").read_text().split())
