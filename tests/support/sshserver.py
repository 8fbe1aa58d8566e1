"""A real SSH server for tests: asyncssh in a thread of its own, running git on the bare repositories below a folder."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import threading
from pathlib import Path
from typing import Self

import asyncssh


class SshGitServer:
    """`with SshGitServer(root, authorized=[public key]) as server: server.url("app.git")`.

    `commands` records what clients ran, `logins` how often somebody authenticated.
    """

    def __init__(self, root: Path, *, authorized: list[str], user: str = "git") -> None:
        self.root = root.resolve()
        self.user = user
        self.authorized = authorized
        self.commands: list[str] = []
        self.logins = 0
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.port = 0
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="git-ssh", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def url(self, repository: str, user: str = "") -> str:
        """URL of a repository below the root."""
        return f"ssh://{user + '@' if user else ''}127.0.0.1:{self.port}/{repository}"

    def known_hosts(self, key: asyncssh.SSHKey | None = None) -> bytes:
        """The line a client needs; with `key` one for another server."""
        public = (key or self.host_key).export_public_key("openssh").decode().strip()
        return f"[127.0.0.1]:{self.port} {public}\n".encode()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        lines = "".join(f"{key.strip()}\n" for key in self.authorized)
        keys = asyncssh.import_authorized_keys(lines) if lines else None
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[self.host_key],
            server_factory=lambda: _Server(self, keys),
            process_factory=self._run,
            encoding=None,
            line_editor=False,
            allow_pty=False,
        )
        self.port = server.get_port()
        self._ready.set()
        await self._stop.wait()
        server.close()
        await server.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=5)

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        command = process.command or ""
        self.commands.append(command)
        words = shlex.split(command)
        if len(words) != 2 or words[0] not in ("git-upload-pack", "git-receive-pack"):
            process.stderr.write(b"only git is served here\n")
            process.exit(1)
            return
        folder = (self.root / words[1].lstrip("/")).resolve()
        env = {"PATH": os.environ["PATH"], "HOME": str(self.root), "LC_ALL": "C"}
        env |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
        protocol = process.env.get("GIT_PROTOCOL")
        if protocol:
            env["GIT_PROTOCOL"] = protocol
        child = await asyncio.create_subprocess_exec(
            words[0],
            str(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        # asyncssh's own redirection leaves coroutines behind that nobody awaits.
        feeding = asyncio.create_task(_feed(process.stdin, child.stdin))
        try:
            await asyncio.gather(_relay(child.stdout, process.stdout), _relay(child.stderr, process.stderr))
            process.exit(await child.wait())
        except (asyncssh.Error, OSError):
            # The client has gone.
            pass
        finally:
            # However it ended, also when the server is stopped meanwhile: nothing of the child stays open.
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            if child.returncode is None:
                child.kill()
            await asyncio.gather(child.stdout.read(), child.stderr.read(), child.wait(), return_exceptions=True)


async def _feed(source: asyncssh.SSHReader[bytes], target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    finally:
        target.close()


async def _relay(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()


class _Server(asyncssh.SSHServer):
    def __init__(self, owner: SshGitServer, keys: asyncssh.SSHAuthorizedKeys | None) -> None:
        self._owner = owner
        self._keys = keys
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        if username == self._owner.user and self._keys is not None and self._connection is not None:
            self._connection.set_authorized_keys(self._keys)
        return True

    def auth_completed(self) -> None:
        self._owner.logins += 1
