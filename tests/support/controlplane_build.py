"""The programs of the test bed's control plane: found in a folder, or built once with Go into a cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "tests" / "controlplane"
KUBERNETES = "1.35.4"
KWOK = "v0.8.0"
ROLES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
"""What the binary of `SOURCE` can be, by the name it is called by."""
BUILD_SECONDS = 3600
"""A cold build takes six minutes on two cores; this is for machines that are far slower."""


class Unavailable(Exception):
    """There can be no control plane on this machine; the text says why, for people."""


@dataclass(frozen=True)
class Programs:
    """A folder with programs by their usual names."""

    folder: Path

    def find(self, name: str) -> Path | None:
        """The program of this name, if it is there."""
        path = self.folder / name
        return path if os.access(path, os.X_OK) else None

    def __getitem__(self, name: str) -> str:
        path = self.find(name)
        if path is None:
            raise Unavailable(f"there is no program {name} in {self.folder}")
        return str(path)


def find_programs(say: Callable[[str], None] = lambda _: None) -> Programs:
    """The programs of `KUBEBUILDER_ASSETS`, or ours, built first if need be.

    Args:
        say: Told, once, that a build begins: it takes minutes.

    Raises:
        Unavailable: The named folder lacks etcd or kube-apiserver; or there is no Go; or the build failed.
    """
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        programs = Programs(Path(assets))
        for name in ("etcd", "kube-apiserver"):
            if not programs.find(name):
                raise Unavailable(f"KUBEBUILDER_ASSETS is {assets}, which has no program {name}")
        return programs
    programs = Programs(cache_folder() / source_digest())
    if not all(programs.find(name) for name in (*ROLES, "kwok")):
        _build(programs.folder, say)
    return programs


def cache_folder() -> Path:
    """Where built programs are kept: `controlplane` in `IMAGEBOT_CACHE`, or in `.cache` of the repository."""
    return Path(os.environ.get("IMAGEBOT_CACHE") or REPOSITORY / ".cache").absolute() / "controlplane"


def source_digest() -> str:
    """What the programs are made of, in sixteen hexadecimal digits."""
    digest = hashlib.sha256(KWOK.encode())
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((SOURCE / name).read_bytes())
    return digest.hexdigest()[:16]


def _build(target: Path, say: Callable[[str], None]) -> None:
    go = shutil.which("go")
    if go is None:
        raise Unavailable(
            "needs go: there is no Go on this machine to build the control plane with, and KUBEBUILDER_ASSETS is not set"
        )
    target.mkdir(parents=True, exist_ok=True)
    with locked(target.parent / "build.lock"):
        programs = Programs(target)
        if not programs.find("controlplane"):
            say("building the Kubernetes control plane for the tests: once, about six minutes on two cores")
            package, major, minor = "k8s.io/component-base/version", *KUBERNETES.split(".")[:2]
            version = f"-X {package}.gitVersion=v{KUBERNETES} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
            part = target / "controlplane.part"
            build = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {version}", "-o", str(part), "."]
            go_command(build, SOURCE, {})
            part.replace(target / "controlplane")
        if not programs.find("kwok"):
            say("building kwok, which plays the nodes: once, about two minutes on two cores")
            part = target / "part"
            install = [go, "install", "-trimpath", "-ldflags", "-s -w", f"sigs.k8s.io/kwok/cmd/kwok@{KWOK}"]
            go_command(install, target, {"GOBIN": str(part)})
            (part / "kwok").replace(target / "kwok")
            part.rmdir()
        for role in ROLES:
            if not programs.find(role):
                (target / role).symlink_to("controlplane")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, against other processes that would build the same."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def go_command(argv: list[str], folder: Path, more: dict[str, str], *, what: str = "the control plane") -> None:
    """Run a build with Go in a folder, gently: other work goes first.

    Raises:
        Unavailable: It failed; the text has the end of what it printed.
    """
    env = {**os.environ, "CGO_ENABLED": "0", **more}
    # A group of its own, because go starts compilers and linkers that are to end with it.
    with subprocess.Popen(
        ["nice", "-n", "10", *argv], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    ) as process:
        try:
            output, _ = process.communicate(timeout=BUILD_SECONDS)
        except BaseException:
            os.killpg(process.pid, 9)
            raise
    if process.returncode:
        raise Unavailable(f"{' '.join(argv[:2])} of {what} failed:\n{output.decode(errors='replace')[-4000:]}")
