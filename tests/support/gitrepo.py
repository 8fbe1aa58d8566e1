"""Bare repositories for tests, made with `git fast-import`, and a look into them with plain git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ENV = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": os.devnull,
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Human",
    "GIT_AUTHOR_EMAIL": "human@example.com",
    "GIT_COMMITTER_NAME": "Human",
    "GIT_COMMITTER_EMAIL": "human@example.com",
}


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of a test commit; a mode of 160000 takes a commit id as its content."""

    data: bytes
    mode: str = "100644"


Files = Mapping[str, bytes | Blob | None]


class BareRepository:
    """A bare repository on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, *, object_format: str = "sha1", settings: Mapping[str, str] | None = None) -> BareRepository:
        """A new one without commits; push options are advertised."""
        path.parent.mkdir(parents=True, exist_ok=True)
        argv = ["git", "init", "-q", "--bare", "--template=", f"--object-format={object_format}", "-b", "main", str(path)]
        subprocess.run(argv, env=ENV, check=True)
        repository = cls(path)
        fixed = {"receive.advertisePushOptions": "true", "gc.auto": "0", "receive.autogc": "false"}
        for key, value in {**fixed, **(settings or {})}.items():
            repository.git("config", key, value)
        return repository

    def git(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> str:
        """Run git here; its standard output without the last newline."""
        return self.raw(*arguments, stdin=stdin, check=check).decode("utf-8", "surrogateescape").removesuffix("\n")

    def raw(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> bytes:
        """Run git here; its standard output as it is."""
        env = {**ENV, "GIT_DIR": str(self.path)}
        done = subprocess.run(["git", *arguments], cwd=self.path, env=env, input=stdin, capture_output=True, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"git {arguments} failed: {done.stderr.decode()}")
        return done.stdout

    def commit(
        self,
        files: Files,
        *,
        branch: str = "main",
        message: str = "change",
        when: int = 1_700_000_000,
        start: str | None = None,
        force: bool = True,
    ) -> str:
        """A commit on `branch` (on `start` when the branch is new) with `files` set, or deleted where None; its id.

        Without `force` it fails, as a push does, when somebody else was quicker.
        """
        ref = f"refs/heads/{branch}"
        parent = self.head(branch) or start
        stream = [f"commit {ref}\ncommitter Human <human@example.com> {when} +0000\n".encode(), _data(message.encode())]
        if parent:
            stream.append(f"from {parent}\n".encode())
        for path, content in files.items():
            stream.append(_change(path, content))
        self.git("fast-import", "--quiet", *(["--force"] if force else []), stdin=b"".join(stream))
        head = self.head(branch)
        assert head is not None
        return head

    def tag(self, name: str, commit: str, *, annotated: bool = False) -> None:
        """A lightweight or annotated tag."""
        self.git("tag", *(["-a", "-m", name] if annotated else []), name, commit)

    def head(self, branch: str = "main") -> str | None:
        """The commit of a branch, None when there is none."""
        return self.git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", check=False) or None

    def file(self, path: str, commit: str = "main") -> bytes:
        """Content of a file."""
        return self.raw("cat-file", "blob", f"{commit}:{path}")

    def tree(self, commit: str = "main") -> dict[str, tuple[str, str]]:
        """Path to mode and object id, all of a commit."""
        found = {}
        for line in self.raw("ls-tree", "-r", "-z", commit).split(b"\0"):
            if line:
                head, _, path = line.partition(b"\t")
                mode, _, oid = head.decode().split()
                found[path.decode("utf-8", "surrogateescape")] = (mode, oid)
        return found

    def log(self, branch: str = "main") -> list[str]:
        """Commit ids, newest first."""
        return self.git("rev-list", f"refs/heads/{branch}").split()

    def hook(self, name: str, script: str) -> None:
        """Install a hook."""
        path = self.path / "hooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)

    def check(self) -> None:
        """Fail when an object is missing or broken."""
        self.git("fsck", "--strict", "--no-dangling")


def _data(data: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(data), data)


def _change(path: str, content: bytes | Blob | None) -> bytes:
    name = b'"' + b"".join(_quoted(byte) for byte in os.fsencode(path)) + b'"'
    if content is None:
        return b"D " + name + b"\n"
    blob = content if isinstance(content, Blob) else Blob(content)
    if blob.mode == "160000":
        return b"M 160000 " + blob.data + b" " + name + b"\n"
    return b"M " + blob.mode.encode() + b" inline " + name + b"\n" + _data(blob.data)


def _quoted(byte: int) -> bytes:
    return bytes([byte]) if 32 <= byte < 127 and byte not in b'"\\' else b"\\%03o" % byte


def processes_with(text: str) -> list[str]:
    """Command lines of the processes on this machine that have `text` in their arguments or environment, but for this one."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parts = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
        except OSError:
            continue
        if int(pid) != os.getpid() and text.encode() in b"".join(parts):
            found.append(parts[0].replace(b"\0", b" ").decode("utf-8", "replace"))
    return found


def manifests(count: int, marked: Sequence[int] | range = range(0)) -> dict[str, bytes]:
    """`count` small manifests in folders of ten; those numbered in `marked` hold an image marker."""
    files = {}
    chosen = set(marked)
    for number in range(count):
        mark = ' # {"$imagepolicy": "apps:app"}' if number in chosen else ""
        files[f"apps/team-{number // 100:03d}/app-{number // 10 % 10}/file-{number:05d}.yaml"] = (
            f"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: app-{number}\nspec:\n  image: example/app:1.0.0{mark}\n"
        ).encode()
    return files
