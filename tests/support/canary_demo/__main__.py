"""`python -m tests.support.canary_demo`: play it, and take everything down however it ends."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

import httpx

from imagebot.demo.run import PAUSES
from imagebot.demo.show import Screen
from reconcile.errors import ReconcileError
from tests.support.controlplane import StartFailed
from tests.support.controlplane_build import Unavailable
from tests.support.kubeapi import ApiError

from .play import Options, Play


class Stopped(BaseException):
    """Somebody asked for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def stop(number: int, _: object) -> None:
    """The first SIGINT or SIGTERM ends the play; while things are taken down there is nothing more to stop."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def main(arguments: list[str] | None = None) -> int:
    """Show a canary that succeeds and one that is rolled back, live, on a Kubernetes control plane for tests."""
    parser = argparse.ArgumentParser(prog="make canary-demo", description=main.__doc__)
    parser.add_argument("--keep", action="store_true", help="go on until Ctrl-C, with commands to look around and release more")
    parser.add_argument(
        "--speed", choices=list(PAUSES), help="pauses for reading (default: normal on a terminal, fast elsewhere)"
    )
    parser.add_argument("--stand-in", action="store_true", help="do without Prometheus also where it is installed")
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE",
        help="play on this cluster, which is to be one for tests: definitions of kinds are put into it and stay",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    logging.disable(logging.ERROR)
    screen = Screen()
    play = Play(Options(given.kubeconfig, given.stand_in, given.keep, given.speed), screen)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        play.perform()
    except Stopped as stopped:
        screen.line()
        screen.title("Stopped; all processes have ended and the temporary folders are gone.")
        return 0 if play.finished else 128 + stopped.number
    except Unavailable as error:
        print(f"canary-demo: {error}", file=sys.stderr)
        print(
            "Install Go (https://go.dev/dl), or name a cluster for tests: make canary-demo DEMO='--kubeconfig FILE'",
            file=sys.stderr,
        )
        return 1
    except httpx.HTTPError as error:
        print(f"canary-demo: the API server does not answer: {error}", file=sys.stderr)
        return 1
    except (StartFailed, ReconcileError, ApiError, LookupError, OSError) as error:
        print(f"canary-demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
