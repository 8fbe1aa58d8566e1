"""What the kernel is asked to forbid: a thread and what it starts, and nobody else."""

from __future__ import annotations

import functools
import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from reconcile.kustomize.confine import Allowance, Program, environment, libraries
from reconcile.kustomize.landlock import Kernel, kernel, restrict_thread
from tests.support.kustomize_builds import NOTHING_FORBIDDEN, kustomize

pytestmark = pytest.mark.skipif(
    not (kernel().landlock and kernel().seccomp), reason="needs a kernel with Landlock and seccomp filters"
)


def in_thread(able: Kernel, readable: list[Path], work: Callable[[], object]) -> object:
    """What `work` gives in a restricted thread, or the error it raises."""
    result: list[object] = []

    def body() -> None:
        try:
            restrict_thread(able, readable, [])
            result.append(work())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return result[0]


def test_a_restricted_thread_reads_what_it_may(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    assert in_thread(kernel(), [inside], (inside / "a").read_text) == "1"
    assert isinstance(in_thread(kernel(), [inside], (tmp_path / "b").read_text), PermissionError)
    assert isinstance(in_thread(kernel(), [inside], lambda: os.listdir(tmp_path)), PermissionError)
    assert isinstance(in_thread(kernel(), [inside], lambda: (inside / "c").write_text("3")), PermissionError)
    assert isinstance(in_thread(kernel(), [inside], (inside / "a").unlink), PermissionError)
    assert isinstance(in_thread(kernel(), [inside], Path("/proc/self/environ").read_bytes), PermissionError)


def test_a_restricted_thread_has_no_sockets() -> None:
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
        assert isinstance(in_thread(kernel(), [], functools.partial(socket.socket, family)), PermissionError)
    assert isinstance(in_thread(kernel(), [], socket.socketpair), PermissionError)


def test_the_rest_of_the_process_is_free(tmp_path: Path) -> None:
    in_thread(kernel(), [], lambda: None)
    (tmp_path / "a").write_text("1")
    assert (tmp_path / "a").read_text() == "1"
    socket.socket().close()
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0


@pytest.mark.parametrize("able", [kernel(), Kernel(1, seccomp=False), Kernel(3, seccomp=False), Kernel(4, seccomp=True)], ids=str)
def test_older_kernels_get_what_they_know(tmp_path: Path, able: Kernel) -> None:
    assert isinstance(in_thread(able, [tmp_path], Path("/etc/passwd").read_text), PermissionError)


def test_a_kernel_that_can_forbid_nothing_is_borne() -> None:
    assert isinstance(in_thread(NOTHING_FORBIDDEN, [], Path("/etc/passwd").read_text), str)
    assert str(NOTHING_FORBIDDEN) == "no Landlock, no seccomp filter"


def test_the_program_starts_nothing_else(tmp_path: Path) -> None:
    """Another program cannot be run, even one that may be read."""
    shell = Path("/bin/sh").resolve()
    program = Program((str(shell), "-c", "/bin/true; echo $?; cat /etc/passwd"), tmp_path, Path("/usr"))
    done = program.run()
    assert done.stdout.split() == [b"126"]
    assert "Permission denied" in done.stderr


def test_only_the_environment_of_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    shell = Path("/bin/sh").resolve()
    done = Program((str(shell), "-c", "set"), tmp_path, tmp_path).run()
    names = {line.partition("=")[0] for line in done.stdout.decode().splitlines()}
    assert {"HOME", "TMPDIR"} <= names
    assert "AWS_SECRET_ACCESS_KEY" not in names
    assert environment(tmp_path, Allowance())["PATH"] == "/nonexistent"


def test_limits_are_set(tmp_path: Path) -> None:
    done = Program(
        (
            str(Path("/bin/sh").resolve()),
            "-c",
            "while ! [ $(ulimit -f) = 0 ]; do :; done; ulimit -f; ulimit -c; ulimit -d; ulimit -n",
        ),
        tmp_path,
        tmp_path,
        Allowance(memory=64 * 1024**2),
    ).run()
    assert done.stdout.split() == [b"0", b"0", b"65536", b"1024"]


def test_open_files_of_the_service_are_not_inherited(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    descriptor = os.open(secret, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        done = Program((str(Path("/bin/sh").resolve()), "-c", f"cat <&{descriptor}"), tmp_path, tmp_path).run()
    finally:
        os.close(descriptor)
    assert done.status != 0
    assert done.stdout == b""


def test_nobody_elses_finalizers_run_in_the_restricted_thread(tmp_path: Path) -> None:
    ran_in: list[str] = []

    class Cyclic:
        def __init__(self) -> None:
            self.own = self

        def __del__(self) -> None:
            ran_in.append(threading.current_thread().name)

    before = gc.get_threshold()
    gc.collect()
    garbage = [Cyclic() for _ in range(100)]
    gc.set_threshold(1)
    try:
        del garbage
        Program((str(kustomize()), "version"), tmp_path, tmp_path).run()
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert len(ran_in) == 100
    assert "confined" not in ran_in


def test_a_static_program_needs_no_libraries(tmp_path: Path) -> None:
    assert libraries(kustomize()) == []
    assert libraries(Path("/bin/sh").resolve())
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert libraries(script)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Program((str(tmp_path / "none"),), tmp_path, tmp_path).run()
