"""Session affinity: cookies that bring a client back to the side that it was sent to first. Pure: randomness is an argument.

Follows Flagger: values are ten random letters, attributes stand in a fixed order, and a cookie whose run is over is deleted in
browsers by the route itself. Unlike there, what is live comes before what the status says, so a status that could not be written
changes nobody's cookie; and a cookie is deleted under the Domain and Path under which it was set, as RFC 6265 demands.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from string import ascii_letters

from canary.api import MAX_AGE, SessionAffinity
from canary.routing.base import Affinity

Rand = Callable[[int], int]
"""A random whole number from 0 to below the argument, as `secrets.randbelow`."""

LENGTH = 10
HEADER = "Set-Cookie"
DELETED = -1

_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")


def quoted(text: str) -> str:
    """`text` as part of a regular expression (RE2) that matches nothing else."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def fresh(name: str, rand: Rand) -> str:
    """A new cookie, as `name=value`."""
    return f"{name}={''.join(ascii_letters[rand(len(ascii_letters))] for _ in range(LENGTH))}"


def pattern(cookie: str) -> str:
    """The regular expression for `Cookie` headers that have a cookie, given as `name=value`."""
    name, _, value = cookie.partition("=")
    return f".*{quoted(name)}.*{quoted(value)}.*"


def session_header(cookie: str, wanted: SessionAffinity) -> str:
    """The `Set-Cookie` header that brings a client back to the canary."""
    return _header(cookie, wanted.max_age or MAX_AGE, wanted)


def primary_header(cookie: str, wanted: SessionAffinity, seconds: float) -> str:
    """The `Set-Cookie` header that keeps a client on the primary for `seconds`, the time between two steps."""
    return _header(cookie, int(seconds), wanted)


def deletion_header(cookie: str, wanted: SessionAffinity) -> str:
    """The `Set-Cookie` header that makes a browser forget a cookie."""
    return _header(cookie, DELETED, wanted)


def cookie_of(header: str) -> str:
    """The cookie that a `Set-Cookie` header sets, as `name=value`."""
    return header.partition(";")[0].strip()


def deletes(header: str) -> bool:
    """Whether a `Set-Cookie` header makes browsers forget the cookie."""
    return f"Max-Age={DELETED}" in (part.strip() for part in header.split(";"))


def kept(live: Affinity, status: Affinity) -> Affinity:
    """The cookies of a route whose weights stay: those that it has; from the status what it has lost."""
    return Affinity(_session(live, status), live.previous or status.previous, live.primary or status.primary)


def advanced(wanted: SessionAffinity, live: Affinity, status: Affinity, canary: int, rand: Rand) -> Affinity:
    """The cookies of a route that sends `canary` percent to the canary from now on; for the route and for the status.

    The first weight of a run makes a new session cookie, weight 0 makes it the one to be deleted. The cookie of the primary is
    made once. One whose name is not the one in the spec any more is made anew.
    """
    primary = live.primary or status.primary
    if canary == 0:
        return Affinity("", live.session or status.session or live.previous or status.previous, primary)
    session = _session(live, status)
    if not _named(session, wanted.cookie_name):
        session = fresh(wanted.cookie_name, rand)
    if wanted.primary_cookie_name and not _named(primary, wanted.primary_cookie_name):
        primary = fresh(wanted.primary_cookie_name, rand)
    return Affinity(session, live.previous or status.previous, primary)


def _session(live: Affinity, status: Affinity) -> str:
    # A route that deletes the cookie of the status has ended its run: only the status was not written.
    return live.session or (status.session if status.session != live.previous else "")


def _named(cookie: str, name: str) -> bool:
    return cookie.partition("=")[0] == name


def _header(cookie: str, max_age: int, wanted: SessionAffinity) -> str:
    parts = [cookie, f"Max-Age={max_age}"]
    parts += [f"Domain={wanted.domain}"] if wanted.domain else []
    parts += ["HttpOnly"] if wanted.http_only else []
    parts += ["Partitioned"] if wanted.partitioned else []
    parts += [f"Path={wanted.path}"] if wanted.path else []
    parts += [f"SameSite={wanted.same_site}"] if wanted.same_site else []
    parts += ["Secure"] if wanted.secure else []
    return "; ".join(parts)
