"""The demonstration of canaries: a promotion and a rollback; it says what is wrong when it cannot, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.clusterlab import until
from tests.support.controlplane import Cluster
from tests.support.kubeapi import KubeApi

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "tests.support.canary_demo"]
SECONDS = 240.0
STOPPED = "Stopped; all processes have ended and the temporary folders are gone.\n"


class Demo:
    """The demonstration as a process with a temporary folder of its own."""

    def __init__(self, *arguments: str, environment: Mapping[str, str], terminal: int = subprocess.PIPE) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="d"))
        self.seen: list[str] = []
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments], cwd=ROOT, stdout=terminal, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environment, "TMPDIR": str(self.folder)},
        )  # fmt: skip

    def until_line(self, start: str) -> None:
        """Wait until it has printed a line that begins like this."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        for line in self.process.stdout:
            self.seen.append(line)
            if line.startswith(start):
                return
        raise AssertionError(f"no line begins with {start!r} in:\n{''.join(self.seen)}{self.process.stderr.read()}")

    def processes(self) -> dict[int, str]:
        """What runs with something of its folder on the command line."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().decode(errors="replace").replace("\0", " ")
            except OSError:
                continue
            if str(self.folder) in words:
                found[int(path.parent.name)] = words
        return found

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, output, errors; nothing of it may be left."""
        try:
            output, errors = self.process.communicate(timeout=SECONDS)
            assert list(self.folder.iterdir()) == []
            assert self.processes() == {}
        finally:
            self.close()
        return self.process.returncode, "".join([*self.seen, output or ""]), errors

    def close(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


Start = Callable[..., Demo]


def namespaces(api: KubeApi) -> list[str]:
    """Namespaces of demonstrations that nobody has asked to go."""
    found = api.list("v1", "Namespace")
    names = [body["metadata"]["name"] for body in found if "deletionTimestamp" not in body["metadata"]]
    return [name for name in names if name.startswith("canary-demo-")]


@pytest.fixture
def kubeconfig(workloads: Cluster) -> Iterator[str]:
    """A cluster to play on, on which no demonstration may be left."""
    yield str(workloads.kubeconfig)
    left = namespaces(workloads.api)
    for name in left:
        workloads.api.delete("v1", "Namespace", name, missing_ok=True)
    assert left == []


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts demonstrations that end with the test."""
    started: list[Demo] = []

    def begin(*arguments: str, terminal: int = subprocess.PIPE, **environment: str) -> Demo:
        started.append(Demo(*arguments, environment=environment, terminal=terminal))
        return started[-1]

    yield begin
    for demo in started:
        demo.close()


# --- to the end


def test_it_shows_a_promotion_and_a_rollback_with_prometheus_and_without(kubeconfig: str, start: Start) -> None:
    plays = [start("--kubeconfig", kubeconfig, *more) for more in ([], ["--stand-in", "--keep"])]  # side by side
    plays[1].until_line("5  Everything keeps running")
    plays[1].until_line("     less ")
    plays[1].process.send_signal(signal.SIGINT)
    ends = [play.end() for play in plays]
    for code, output, errors in ends:
        assert (code, errors) == (0, ""), output
        assert "\x1b" not in output
        check_promotion(output)
        check_rollback(output)
    assert re.search(r"^   judge +a small stand-in for Prometheus", ends[1][1], re.MULTILINE)
    assert "     kubectl -n canary-demo-" in ends[1][1]
    assert ends[1][1].endswith(STOPPED)
    judge = "Prometheus [0-9.]+" if shutil.which("prometheus") else "a small stand-in"
    assert re.search(rf"^   judge +{judge}", ends[0][1], re.MULTILINE)


def of(app: str, output: str) -> str:
    """What was said of one of the two."""
    return "\n".join(re.findall(rf"^   \d:\d\d  {app} +(.*)$", output, re.MULTILINE))


def in_order(text: str, *pieces: str) -> None:
    """All of these are there, one after the other."""
    at = -1
    for piece in pieces:
        found = text.find(piece, at + 1)
        assert found > at, f"{piece!r} is missing, or too early:\n{text}"
        at = found


def check_promotion(output: str) -> None:
    said = of("shop", output)
    in_order(said, "New revision detected!", *(f"canary weight {weight}" for weight in (10, 30, 60)), "Promotion completed!")
    in_order(
        said, "10 % to shop:2.0.0", "30 % to shop:2.0.0", "60 % to shop:2.0.0", "all to shop:2.0.0, ✓ request-success-rate 100"
    )
    assert "Halt" not in said
    assert said.splitlines()[-1].startswith("Succeeded, ")
    assert "   ✓ shop   promoted after 3 steps: shop:2.0.0 has all traffic\n" in output


def check_rollback(output: str) -> None:
    said = of("cart", output)
    in_order(said, "canary weight 10", "success rate 88.00% < 99%", "success rate 88.00% < 99%", "Rolling back", "Canary failed!")
    in_order(said, "10 % to cart:2.0.0", "✗ request-success-rate 88 (>= 99)", "failed checks 1 of 2", "all to cart:1.0.0")
    assert "canary weight 30" not in said
    assert said.splitlines()[-1].startswith("Failed, all to cart:1.0.0, ✗ request-success-rate 88 ")
    assert "   ✗ cart   rolled back: cart:1.0.0 has all traffic, as before\n" in output
    in_order(output, "$ imagebot canary explain cart -n canary-demo-", "success rate 88.00% < 99%", "imagebot canary retry cart")


def test_on_a_terminal_it_is_a_live_picture(kubeconfig: str, start: Start) -> None:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    demo = start("--kubeconfig", kubeconfig, "--speed", "fast", terminal=slave, TERM="xterm-256color", NO_COLOR="")
    os.close(slave)
    shown = bytearray()

    def until_shown(text: str) -> None:
        until(lambda: text.encode() in read(master, shown), f"{text!r} on the terminal", SECONDS)

    try:
        until_shown("next step in")
        until_shown("10 % to shop:2.0.0")
        demo.process.send_signal(signal.SIGINT)
        until_shown(STOPPED.strip())
        code, _, errors = demo.end()
    finally:
        os.close(master)
    assert (code, errors) == (130, "")
    assert "\x1b[33m━━━\x1b[0m\x1b[34m─" in shown.decode()
    assert "shop     Progressing, " not in shown.decode()


def read(master: int, shown: bytearray) -> bytearray:
    """What a terminal has shown by now."""
    with contextlib.suppress(BlockingIOError):
        shown += os.read(master, 1 << 20)
    return shown


# --- stopped


@pytest.mark.parametrize(
    ("number", "after", "code"),
    [(signal.SIGINT, "1  The stage", 130), (signal.SIGTERM, "2  Two Deployments", 143), (signal.SIGINT, "3  Both", 130)],
)
def test_it_cleans_up_when_it_is_stopped(number: signal.Signals, after: str, code: int, kubeconfig: str, start: Start) -> None:
    demo = start("--kubeconfig", kubeconfig)
    demo.until_line(after)
    time.sleep(0.2)
    demo.process.send_signal(number)
    ended, rest, errors = demo.end()
    assert (ended, errors) == (code, "")
    assert rest.endswith(STOPPED)


def test_killed_outright_it_takes_its_processes_along(workloads: Cluster, start: Start) -> None:
    demo = start("--kubeconfig", str(workloads.kubeconfig))
    try:
        demo.until_line("2  Two Deployments")
        assert demo.processes()
        demo.process.kill()
        until(lambda: not demo.processes() and not list(demo.folder.iterdir()), "the end of processes and folders")
        assert demo.end()[0] == -signal.SIGKILL
    finally:
        for name in namespaces(workloads.api):  # nobody is left who could
            workloads.api.delete("v1", "Namespace", name, missing_ok=True)


# --- what can be wrong


def test_a_service_that_ends_is_told(kubeconfig: str, start: Start) -> None:
    demo = start("--kubeconfig", kubeconfig, "--stand-in")
    demo.until_line("2  Two Deployments")
    (service,) = [pid for pid, words in demo.processes().items() if " reconcile run " in words]
    os.kill(service, signal.SIGKILL)
    code, _, errors = demo.end()
    assert code == 1
    assert errors.startswith("canary-demo: imagebot ended by itself with -9; the end of its log:\n{")


def test_a_cluster_that_does_not_answer_is_told(tmp_path: Path, start: Start) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(
        "{current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],"
        " clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}], users: [{name: u}]}"
    )
    code, output, errors = start("--kubeconfig", str(config)).end()
    assert (code, errors.splitlines()) == (1, ["canary-demo: the API server does not answer: [Errno 111] Connection refused"])
    assert output.endswith("1  The stage\n")


def test_without_go_it_says_what_is_missing(tmp_path: Path, start: Start) -> None:
    nothing = {"PATH": str(tmp_path), "IMAGEBOT_CACHE": str(tmp_path / "cache"), "KUBEBUILDER_ASSETS": ""}
    code, _, errors = start(**nothing).end()
    assert code == 1
    first, second = errors.splitlines()
    assert first.startswith("canary-demo: needs go: there is no Go on this machine")
    assert second.startswith("Install Go (https://go.dev/dl), or name a cluster for tests: make canary-demo DEMO='--kubeconfig")
