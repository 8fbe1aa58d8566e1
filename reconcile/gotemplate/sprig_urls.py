"""Sprig's urlParse and urlJoin, with the rules of Go's `net/url`."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from reconcile.gotemplate.failures import CallError
from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.strconv import quote
from reconcile.gotemplate.values import Map, kind_of, new_dict, to_bytes, to_text

URLS: Final = Family()

_UNRESERVED: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")
_KEPT: Final = {
    "path": _UNRESERVED | frozenset(b"$&+,/:;=@"),
    "user": _UNRESERVED | frozenset(b"$&+,;="),
    "fragment": _UNRESERVED | frozenset(b"$&+,/:;=?@!()*"),
    "host": _UNRESERVED | frozenset(b"!$&'()*+,;=:[]<>\""),
}
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9a-fA-F]{2})")
_USERINFO: Final = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")
_PARTS: Final = ("scheme", "host", "path", "query", "opaque", "fragment")


class _UrlError(Exception):
    pass


def _escape(text: str, mode: str) -> str:
    return "".join(chr(byte) if byte in _KEPT[mode] else f"%{byte:02X}" for byte in to_bytes(text))


def _unescape(text: str, mode: str) -> str:
    data = to_bytes(text)
    bad = _BAD_ESCAPE.search(data)
    if bad is not None:
        raise _UrlError(f"invalid URL escape {quote(to_text(data[bad.start() : bad.start() + 3]))}")
    if mode == "host":
        for found in re.finditer(rb"%([0-7][0-9a-fA-F])", data):
            if found[0] != b"%25":
                raise _UrlError(f"invalid URL escape {quote(found[0].decode())}")
        for byte in data:
            if byte < 0x80 and byte not in _KEPT["host"] and byte != 0x25:
                raise _UrlError(f"invalid character {quote(chr(byte))} in host name")
    return to_text(unquote_to_bytes(data))


def _scheme(text: str) -> tuple[str, str]:
    for at, char in enumerate(text):
        if char.isascii() and char.isalpha():
            continue
        if char == ":":
            if at == 0:
                raise _UrlError("missing protocol scheme")
            return text[:at].lower(), text[at + 1 :]
        if at == 0 or not (char in "+-." or (char.isascii() and char.isdigit())):
            break
    return "", text


def _host(text: str) -> str:
    port = ""
    if text.startswith("["):
        end = text.rfind("]")
        if end < 0:
            raise _UrlError("missing ']' in host")
        port = text[end + 1 :]
    elif ":" in text:
        port = text[text.rfind(":") :]
    if port and not re.fullmatch(r":[0-9]*", port):
        raise _UrlError(f"invalid port {quote(port)} after host")
    return _unescape(text, "host")


def _user(text: str) -> str:
    """The user information as Go writes it back."""
    if not _USERINFO.fullmatch(text):
        raise _UrlError("net/url: invalid userinfo")
    name, colon, password = text.partition(":")
    return _escape(_unescape(name, "user"), "user") + colon + _escape(_unescape(password, "user"), "user")


def _parse(raw: str) -> dict[str, object]:
    text, _, fragment = raw.partition("#")
    if any(ord(char) < 0x20 or char == "\x7f" for char in text):
        raise _UrlError("net/url: invalid control character in URL")
    parts: dict[str, object] = dict.fromkeys((*_PARTS, "hostname", "userinfo"), "")
    parts["fragment"] = _unescape(fragment, "fragment")
    if text == "*":
        return {**parts, "path": "*"}
    parts["scheme"], rest = _scheme(text)
    rest, _, parts["query"] = rest.partition("?")
    if not rest.startswith("/"):
        if parts["scheme"]:
            return {**parts, "opaque": rest}
        if ":" in rest.partition("/")[0]:
            raise _UrlError("first path segment in URL cannot contain colon")
    if rest.startswith("//") and (parts["scheme"] or not rest.startswith("///")):
        authority, slash, path = rest[2:].partition("/")
        rest = slash + path
        user, at, place = authority.rpartition("@")
        host = _host(place)
        parts["host"], parts["hostname"] = host, _hostname(host)
        parts["userinfo"] = _user(user) if at else ""
    return {**parts, "path": _unescape(rest, "path")}


def _hostname(host: str) -> str:
    if host.startswith("[") and "]" in host:
        return host[1 : host.index("]")]
    return host.partition(":")[0] if re.search(r":[0-9]*$", host) else host


@URLS.add("urlParse")
def _url_parse(text: str) -> Map:
    try:
        return new_dict(_parse(text))
    except _UrlError as error:
        raise CallError(f"unable to parse url: parse {quote(text)}: {error}") from None


def _part(value: Map, key: str) -> str:
    part = value.entries.get(key, "")
    if not isinstance(part, str):
        raise CallError(f"unable to parse {key} key, must be of type string, but {kind_of(part)} found")
    return part


@URLS.add("urlJoin")
def _url_join(value: Map) -> str:
    scheme, host, path, query, opaque, fragment = (_part(value, key) for key in _PARTS)
    info = _part(value, "userinfo")
    user = None
    if info:
        try:
            user = str(_parse(f"proto://{info}@host")["userinfo"])
        except _UrlError as error:
            raise CallError(f"unable to parse userinfo in dict: parse {quote(f'proto://{info}@host')}: {error}") from None
    out = f"{scheme}:" if scheme else ""
    if opaque:
        out += opaque
    else:
        if (scheme or host or user is not None) and (host or path or user is not None):
            out += "//" + ("" if user is None else f"{user}@") + _escape(host, "host")
        shown = "*" if path == "*" else _escape(path, "path")
        if shown and not shown.startswith("/") and host:
            out += "/"
        if not out and ":" in shown.partition("/")[0]:
            out += "./"
        out += shown
    return out + (f"?{query}" if query else "") + (f"#{_escape(fragment, 'fragment')}" if fragment else "")
