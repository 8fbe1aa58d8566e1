"""Go programs that tests call by name, at pinned versions: each built once into a cache.

`python -m tests.support.programs` builds all of them, for machines that test without a network afterwards.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .controlplane_build import KUBERNETES, REPOSITORY, Unavailable, go_command, locked

_CHARTS = "helm.sh/helm/v3/pkg/chartutil"


@dataclass(frozen=True)
class GoProgram:
    """A command of a Go module at a version, and the variables that its own releases are linked with."""

    package: str
    version: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def ldflags(self) -> str:
        """For `go install`: no debugging tables, and the variables."""
        return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in self.variables.items())])


PROGRAMS = {
    # Without the variables it believes that clusters have Kubernetes 1.20, as no release of it does.
    "helm": GoProgram(
        "helm.sh/helm/v3/cmd/helm",
        "v3.22.0",
        {f"{_CHARTS}.k8sVersionMajor": "1", f"{_CHARTS}.k8sVersionMinor": KUBERNETES.split(".")[1]},
    ),
    "kustomize": GoProgram("sigs.k8s.io/kustomize/kustomize/v5", "v5.8.1"),
    "sops": GoProgram("github.com/getsops/sops/v3/cmd/sops", "v3.13.3"),
    "age": GoProgram("filippo.io/age/cmd/age", "v1.3.2"),
    "age-keygen": GoProgram("filippo.io/age/cmd/age-keygen", "v1.3.2"),
}
"""By the command's name."""


def cache_folder() -> Path:
    """Where built programs are kept: `programs` in `IMAGEBOT_CACHE`, or in `.cache` of the repository."""
    return Path(os.environ.get("IMAGEBOT_CACHE") or REPOSITORY / ".cache").absolute() / "programs"


def find_program(name: str, say: Callable[[str], None] = lambda _: None) -> Path:
    """The program of this name from `PROGRAMS`, built first if need be.

    Args:
        name: A key of `PROGRAMS`.
        say: Told, once, that a build begins: it takes minutes.

    Raises:
        Unavailable: There is no Go, or the build failed.
    """
    program = PROGRAMS[name]
    title = f"{name} {program.version}"
    # What it is linked with is part of what it is.
    digest = hashlib.sha256(program.ldflags.encode()).hexdigest()[:8]
    folder = cache_folder() / f"{name}@{program.version}-{digest}"
    target = folder / name
    if target.exists():
        return target
    go = shutil.which("go")
    if go is None:
        raise Unavailable(f"needs go: there is no Go on this machine to build {title} with")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f"{folder.name}.lock"):
        if not target.exists():
            say(f"building {title}: once, a few minutes on two cores")
            part = folder / "part"
            install = [go, "install", "-trimpath", "-ldflags", program.ldflags, f"{program.package}@{program.version}"]
            go_command(install, folder, {"GOBIN": str(part)}, what=title)
            (part / name).replace(target)
            part.rmdir()
    return target


def main() -> int:
    """Build every program that is not in the cache yet."""
    try:
        for name in PROGRAMS:
            print(f"{name}: {find_program(name, lambda text: print(text, flush=True))}")
    except (Unavailable, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
