"""`ProxyCommand` for ssh: reach `host port` through an HTTP or SOCKS5 proxy. Run as a script with Python alone.

The proxy's URL, which may hold a password, is read from the file named first, never from the arguments.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import ssl
import struct
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

CONNECT_SECONDS = 30
HEAD_LIMIT = 16 * 1024


def _exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            raise OSError("the proxy closed the connection")
        data += piece
    return data


def socks5(stream: socket.socket, host: str, port: int, user: str, password: str) -> None:
    """RFC 1928 and 1929: connect by name, with user and password when there are any."""
    stream.sendall(b"\x05\x02\x00\x02" if user else b"\x05\x01\x00")
    method = _exactly(stream, 2)[1]
    if method == 2 and user:
        name, secret = user.encode(), password.encode()
        stream.sendall(b"\x01" + bytes([len(name)]) + name + bytes([len(secret)]) + secret)
        if _exactly(stream, 2)[1] != 0:
            raise OSError("the proxy refused the credentials")
    elif method != 0:
        raise OSError("the proxy wants another authentication")
    name = host.encode()
    stream.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port))
    _, status, _, kind = _exactly(stream, 4)
    if status != 0:
        raise OSError(f"the proxy refused the connection: code {status}")
    length = {1: 4, 4: 16}.get(kind) or _exactly(stream, 1)[0]
    _exactly(stream, length + 2)


def connect(stream: socket.socket, host: str, port: int, user: str, password: str) -> None:
    """RFC 9110 CONNECT, with basic credentials when there are any."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if user:
        head += "Proxy-Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() + "\r\n"
    stream.sendall(head.encode() + b"\r\n")
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += _exactly(stream, 1)
        if len(answer) > HEAD_LIMIT:
            raise OSError("the proxy's answer is too long")
    status = answer.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or status[1] != b"200":
        raise OSError("the proxy refused the connection: " + answer.split(b"\r\n", 1)[0].decode("latin-1"))


def pump(stream: socket.socket) -> None:
    """Copy standard input to the proxy and its bytes to standard output until the proxy is done."""
    reading = [0, stream.fileno()]
    while stream.fileno() in reading:
        ready, _, _ = select.select(reading, [], [])
        if 0 in ready:
            data = os.read(0, 65536)
            if data:
                stream.sendall(data)
            else:
                reading.remove(0)
                stream.shutdown(socket.SHUT_WR)
        if stream.fileno() in ready or (isinstance(stream, ssl.SSLSocket) and stream.pending()):
            data = stream.recv(65536)
            if not data:
                return
            while data:
                data = data[os.write(1, data) :]


def main(arguments: list[str]) -> int:
    """`FILE HOST PORT`; the exit status says whether the proxy could be used."""
    proxy = urlsplit(Path(arguments[0]).read_text(encoding="utf-8").strip())
    host, port = arguments[1], int(arguments[2])
    default = {"http": 80, "https": 443}.get(proxy.scheme, 1080)
    try:
        stream = socket.create_connection((proxy.hostname or "", proxy.port or default), CONNECT_SECONDS)
        if proxy.scheme == "https":
            stream = ssl.create_default_context().wrap_socket(stream, server_hostname=proxy.hostname)
        speak = socks5 if proxy.scheme.startswith("socks5") else connect
        speak(stream, host, port, unquote(proxy.username or ""), unquote(proxy.password or ""))
        stream.settimeout(None)
        pump(stream)
    except OSError as error:
        sys.stderr.write(f"kex_exchange_identification: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
