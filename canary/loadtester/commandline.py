"""Command lines of hey, wrk and curl as loads: what people's webhooks say, done by the built-in generator. Pure.

Defaults are those of the programs: hey 200 requests by 50 workers, `-q` for each worker, no certificate checked; wrk 10
connections for 10 seconds, no certificate checked; curl one request.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence

from canary.loadtester.load import ANY, NONE, Load, duration, number, whole
from canary.loadtester.payload import Refused
from canary.loadtester.words import Grammar, Options, split

HINT = "start the load tester with --enable-shell to run it in a shell"


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


HEY = Grammar(
    "hey",
    values=_same("n", "c", "q", "z", "m", "H", "t", "A", "d", "T", "U", "a", "host", "cpus"),
    switches=_same("h2", "disable-compression", "disable-keepalive", "disable-redirects"),
)
WRK = Grammar(
    "wrk",
    values={
        **_same("c", "d", "t", "H", "R"),
        "T": "timeout",
        "connections": "c",
        "duration": "d",
        "threads": "t",
        "header": "H",
        "rate": "R",
        "timeout": "timeout",
    },
    switches={"L": "latency", "latency": "latency", "U": "latency", "u_latency": "latency"},
)
CURL = Grammar(
    "curl",
    values={
        **_same("X", "H", "A", "u", "m", "o", "b", "e", "connect-timeout", "data-raw"),
        "d": "data",
        "data": "data",
        "data-ascii": "data",
        "data-binary": "data",
        "request": "X",
        "header": "H",
        "user-agent": "A",
        "user": "u",
        "max-time": "m",
        "output": "o",
        "cookie": "b",
        "referer": "e",
    },
    switches={
        **_same("f", "k", "I"),
        **dict.fromkeys(("s", "S", "v", "i", "g", "silent", "show-error", "verbose", "include", "http1.1"), "quiet"),
        "fail": "f",
        "insecure": "k",
        "head": "I",
    },
)


def translate(command: str) -> Load:
    """The load that a command line asks for.

    Raises:
        Refused: It is not one of hey, wrk or curl, or has options that the generator does not know; the text says which and that
            `--enable-shell` would run it.
    """
    try:
        program, *words = split(command)
        name = program.rpartition("/")[2]
        reader = _READERS.get(name)
        if reader is None:
            raise Refused(400, f"{name[:40]!r} is none of the load generators that are built in (hey, wrk, curl)")
        return reader(words)
    except Refused as error:
        raise Refused(error.status, f"{error}; {HINT}") from error


def _hey(words: Sequence[str]) -> Load:
    given = HEY.read_go(words)
    workers = whole(given.last("c", "50"), "hey -c")
    headers = [_header(text, "hey -H") for text in given.all("H")]
    _add(headers, "Content-Type", given.last("T", "text/html"))
    _add(headers, "Accept", given.last("A"))
    _add(headers, "User-Agent", given.last("U"))
    _add(headers, "Host", given.last("host"))
    if given.has("a"):
        _add(headers, "Authorization", _basic(given.last("a"), "hey -a"))
    if given.has("disable-compression"):
        _add(headers, "Accept-Encoding", "identity")
    requests = whole(given.last("n", "200"), "hey -n")
    return Load(
        url=_url(given, "hey"),
        method=given.last("m", "GET").upper(),
        headers=tuple(headers),
        body=given.last("d").encode("utf-8", "replace"),
        concurrency=workers if given.has("z") else min(workers, requests),
        rate=number(given.last("q", "0"), "hey -q") * workers,
        requests=0 if given.has("z") else requests,
        seconds=duration(given.last("z"), "hey -z") if given.has("z") else 0.0,
        timeout=number(given.last("t", "20"), "hey -t"),
        keep_alive=not given.has("disable-keepalive"),
        check_tls=False,
        budget=ANY,
    )


def _wrk(words: Sequence[str]) -> Load:
    given = WRK.read_posix(words)
    headers = [_header(text, "wrk -H") for text in given.all("H")]
    _add(headers, "Accept-Encoding", "identity")
    return Load(
        url=_url(given, "wrk"),
        headers=tuple(headers),
        concurrency=whole(given.last("c", "10"), "wrk -c"),
        rate=number(given.last("R", "0"), "wrk -R"),
        seconds=_wrk_time(given.last("d", "10s"), "wrk -d"),
        timeout=_wrk_time(given.last("timeout", "2s"), "wrk --timeout"),
        check_tls=False,
        budget=ANY,
    )


def _curl(words: Sequence[str]) -> Load:
    given = CURL.read_posix(words)
    if given.last("o", "/dev/null") != "/dev/null":
        raise Refused(400, "curl: there is no file to write to but /dev/null")
    if any(text.startswith("@") for text in given.all("data")):
        raise Refused(400, "curl: there is no file to send")
    data = [value for name, value in given.given if name in {"data", "data-raw"}]
    headers = [_header(text, "curl -H") for text in given.all("H")]
    _add(headers, "User-Agent", given.last("A"))
    _add(headers, "Referer", given.last("e"))
    _add(headers, "Accept-Encoding", "identity")
    if given.has("b"):
        if "=" not in given.last("b"):
            raise Refused(400, "curl: there is no file to read cookies from")
        _add(headers, "Cookie", given.last("b"))
    if given.has("u"):
        _add(headers, "Authorization", _basic(given.last("u"), "curl -u"))
    if data:
        _add(headers, "Content-Type", "application/x-www-form-urlencoded")
    url = _url(given, "curl")
    return Load(
        url=url if "://" in url else f"http://{url}",
        method=given.last("X", "POST" if data else "HEAD" if given.has("I") else "GET").upper(),
        headers=tuple(headers),
        body="&".join(data).encode("utf-8", "replace"),
        requests=1,
        timeout=number(given.last("m", "0"), "curl -m"),
        check_tls=not given.has("k"),
        expect="[123].." if given.has("f") else "...",
        budget=NONE,
        shows_body=not given.has("o"),
    )


_READERS: Mapping[str, Callable[[Sequence[str]], Load]] = {"hey": _hey, "wrk": _wrk, "curl": _curl}


def _url(given: Options, program: str) -> str:
    if not given.rest:
        raise Refused(400, f"{program}: there is no URL")
    if len(given.rest) > 1 and program != "hey":  # what follows the URL hey itself leaves unread
        raise Refused(400, f"{program}: one URL at a time")
    return given.rest[0]


def _header(text: str, what: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise Refused(400, f"{what}: {name[:40]!r} is not a header such as 'Name: value'")
    return name.strip(), value.strip()


def _add(headers: list[tuple[str, str]], name: str, value: str) -> None:
    """Add a header that is not there yet and has a value."""
    if value and not any(there.lower() == name.lower() for there, _ in headers):
        headers.append((name, value))


def _basic(text: str, what: str) -> str:
    if ":" not in text:
        raise Refused(400, f"{what}: give user:password")
    return f"Basic {base64.b64encode(text.encode('utf-8', 'replace')).decode()}"


def _wrk_time(text: str, what: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9})([smh]?)", text)
    if not found:
        raise Refused(400, f"{what}: {text[:40]!r} is not a time such as 30s, 2m or 1h")
    return duration(f"{found[1]}{found[2] or 's'}", what)
