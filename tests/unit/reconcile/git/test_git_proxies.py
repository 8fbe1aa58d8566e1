"""Git through proxies: HTTP and SOCKS5, with and without a password, for http and for ssh."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import pytest

from imagebot.demo.gitserver import GitServer
from reconcile.git.auth import GitCredentials
from reconcile.git.errors import GitError
from reconcile.git.mirrors import Mirrors
from tests.support.gitrepo import BareRepository
from tests.support.sshserver import SshGitServer


@dataclass
class Proxy:
    """Speaks HTTP (CONNECT and plain) and SOCKS5 on one port; notes where it was asked to go."""

    user: str = ""
    password: str = ""
    port: int = 0
    targets: list[str] = field(default_factory=list)
    refused: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(1)
            await (self._socks(reader, writer) if first == b"\x05" else self._http(first, reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _http(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = first + await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        if self.user and f"Basic {token}".encode() not in head:
            self.refused += 1
            writer.write(
                b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="p"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
            )
            await writer.drain()
            return
        host, _, port = (target if method == "CONNECT" else target.split("/")[2]).rpartition(":")
        self.targets.append(f"{host}:{port}")
        if method == "CONNECT":
            await self._splice(reader, writer, host, int(port), b"HTTP/1.1 200 OK\r\n\r\n", b"")
        else:
            path = "/" + target.split("/", 3)[3]
            # One request per connection: the next one would name the server again.
            head = head.replace(target.encode(), path.encode(), 1).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
            await self._splice(reader, writer, host, int(port), b"", head)

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        wanted = 2 if self.user else 0
        writer.write(bytes([5, wanted if wanted in methods else 255]))
        if wanted not in methods:
            self.refused += 1
            return
        if wanted == 2:
            await reader.readexactly(1)
            name, secret = [await reader.readexactly((await reader.readexactly(1))[0]) for _ in range(2)]
            good = (name.decode(), secret.decode()) == (self.user, self.password)
            writer.write(b"\x01" + bytes([not good]))
            if not good:
                self.refused += 1
                return
        _, _, _, kind = await reader.readexactly(4)
        size = 4 if kind == 1 else (await reader.readexactly(1))[0]
        address = await reader.readexactly(size)
        host = ".".join(map(str, address)) if kind == 1 else address.decode()
        (port,) = struct.unpack(">H", await reader.readexactly(2))
        self.targets.append(f"{host}:{port}")
        await self._splice(reader, writer, host, port, b"\x05\x00\x00\x01\0\0\0\0\0\0", b"")

    async def _splice(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, answer: bytes, ahead: bytes
    ) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port)
        writer.write(answer)
        far_writer.write(ahead)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
                target.write_eof()

        try:
            await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        finally:
            far_writer.close()


@asynccontextmanager
async def proxy(user: str = "", password: str = "") -> AsyncIterator[Proxy]:
    made = Proxy(user, password)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await asyncio.sleep(0.05)


@pytest.fixture
async def mirrors(tmp_path: Path) -> AsyncIterator[Mirrors]:
    BareRepository.create(tmp_path / "srv" / "app.git").commit({"a": b"1"})
    made = Mirrors(tmp_path / "state")
    yield made
    await made.close()


@pytest.mark.parametrize("scheme", ["http", "socks5"])
@pytest.mark.parametrize("userinfo", ["", "us%40er:p%2Fw@"])
@pytest.mark.parametrize("transport", ["http", "ssh"])
async def test_a_proxy_is_used(mirrors: Mirrors, tmp_path: Path, scheme: str, userinfo: str, transport: str) -> None:
    async with proxy("us@er" if userinfo else "", "p/w") as middle:
        address = f"{scheme}://{userinfo}127.0.0.1:{middle.port}"
        if transport == "http":
            with GitServer(tmp_path / "srv") as server:
                refs = await mirrors.mirror(server.url("app.git"), GitCredentials(proxy=address)).ls_remote()
                port = server.port
        else:
            key = asyncssh.generate_private_key("ssh-ed25519")
            with SshGitServer(tmp_path / "srv", authorized=[key.export_public_key("openssh").decode()]) as server:
                identity = key.export_private_key("openssh")
                credentials = GitCredentials(ssh_key=identity, known_hosts=server.known_hosts(), proxy=address)
                refs = await mirrors.mirror(server.url("app.git"), credentials).ls_remote()
                port = server.port
        assert "refs/heads/main" in refs.refs
        assert set(middle.targets) == {f"127.0.0.1:{port}"}


@pytest.mark.parametrize("scheme", ["http", "socks5"])
@pytest.mark.parametrize("transport", ["http", "ssh"])
async def test_a_proxy_that_refuses_is_an_error_without_its_password(
    mirrors: Mirrors, tmp_path: Path, scheme: str, transport: str
) -> None:
    async with proxy("user", "right-password") as middle:
        address = f"{scheme}://user:wrong-password@127.0.0.1:{middle.port}"
        key = asyncssh.generate_private_key("ssh-ed25519")
        with SshGitServer(tmp_path / "srv", authorized=[]) as ssh, GitServer(tmp_path / "srv") as http:
            if transport == "http":
                mirror = mirrors.mirror(http.url("app.git"), GitCredentials(proxy=address))
            else:
                identity = key.export_private_key("openssh")
                mirror = mirrors.mirror(
                    ssh.url("app.git"), GitCredentials(ssh_key=identity, known_hosts=ssh.known_hosts(), proxy=address)
                )
            with pytest.raises(GitError) as error:
                await mirror.ls_remote()
        assert "wrong-password" not in str(error.value) + error.value.detail
        assert middle.refused >= 1
        assert middle.targets == []
