"""What becomes of a forked launcher: the service, as `imagebot`, in an environment that a schedule has prepared."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.faults.points import Stop, install

HOST = "localhost"
"""Name under which the service knows the registry; the only one that its resolver answers."""

_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION = 0x20080522


@dataclass(frozen=True, slots=True)
class Start:
    """How the service is started.

    Attributes:
        arguments: of `imagebot`.
        log: where both outputs go.
        folder: where it is started.
        environment: all variables that it has.
        stop: the point at which it is killed or stopped.
        mark: what is written when it gets there.
        deaf: while this file exists, no name can be resolved.
        clock: seconds by which its clock differs; the signal SIGUSR2 adds `jump` to that.
        jump: see `clock`.
        file_size: bytes that a file may have at most, for a disk that is full; 0: no bound.
        humble: without the right of root to write where the mode of a folder forbids it.
    """

    arguments: tuple[str, ...]
    log: str
    folder: str
    environment: dict[str, str] = field(default_factory=dict)
    stop: Stop | None = None
    mark: str = ""
    deaf: str = ""
    clock: float = 0.0
    jump: float = 0.0
    file_size: int = 0
    humble: bool = False

    @classmethod
    def of(cls, document: dict[str, Any]) -> Start:
        """Back from JSON."""
        stop = Stop(**document["stop"]) if document["stop"] else None
        return cls(**{**document, "arguments": tuple(document["arguments"]), "stop": stop})


def become(start: Start) -> int:
    """Run the service to its end in this process; the exit code."""
    os.setsid()
    os.chdir(start.folder)
    os.environ.clear()
    os.environ.update(start.environment)
    _outputs(start.log)
    _resolver(start.deaf)
    _clock(start)
    if start.stop is not None:
        install(start.stop, Path(start.mark))
    if start.humble:
        _humble()
    if start.file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (start.file_size, start.file_size))
    from reconcile.cli.main import main

    try:
        main(list(start.arguments))
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _outputs(log: str) -> None:
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.closerange(3, 1024)


def _resolver(deaf: str) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name == HOST:
            if deaf and Path(deaf).exists():
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return real("127.0.0.1", port, *args, **more)
        return real(host, port, *args, **more)

    socket.getaddrinfo = resolve


def _clock(start: Start) -> None:
    """Another date for all that look at one: the service's Clock and the scheduler."""
    if not start.clock and not start.jump:
        return
    from apscheduler.schedulers import base

    from reconcile.ports.clock import SystemClock

    shift = [timedelta(seconds=start.clock)]

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + shift[0]

    real = SystemClock.now
    SystemClock.now = lambda self: real(self) + shift[0]  # type: ignore[method-assign]
    base.datetime = Shifted

    def jump(*_: object) -> None:
        shift[0] += timedelta(seconds=start.jump)

    signal.signal(signal.SIGUSR2, jump)


def _humble() -> None:
    """Let the mode of a folder count for root as it does for others, in this process and in all that it starts."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for number in range(3):
        sets[number] &= ~(1 << _CAP_DAC_OVERRIDE | 1 << _CAP_DAC_READ_SEARCH) & 0xFFFFFFFF
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")
