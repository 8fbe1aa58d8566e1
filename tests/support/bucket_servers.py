"""Object stores for tests: what their doubles share, and the double of S3.

Each takes only what its service's documentation allows. The doubles of Google and Azure are in `bucket_gcs` and `bucket_azure`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from reconcile.ports.clock import Clock
from tests.support.registry import BareServer, Exchange, Handler

Fault = Callable[[Exchange], Awaitable[bool]]
"""May answer in the server's place: true when it did."""


@dataclass
class Stored:
    """An object as a store has it."""

    content: bytes
    etag: str
    generation: str
    encoding: str = ""


@dataclass
class Store:
    """Objects of one bucket, and what was asked for. `counts` has LIST, GET, LOOK (metadata alone) and LOGIN."""

    objects: dict[str, Stored] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)
    page: int = 1000
    faults: list[Fault] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _number: int = 0

    def put(self, key: str, content: bytes | str, *, etag: str = "", encoding: str = "") -> None:
        """Write an object: a new version, whose etag is new even where the content is not."""
        self._number += 1
        data = content.encode() if isinstance(content, str) else content
        made = etag or hashlib.md5(f"{self._number}:{key}".encode() + data, usedforsecurity=False).hexdigest()
        self.objects[key] = Stored(data, made, str(1_700_000_000_000_000 + self._number), encoding)

    def delete(self, key: str) -> None:
        """Remove an object."""
        del self.objects[key]

    def quiet(self) -> None:
        """Forget what was asked for."""
        self.counts.clear()
        self.asked.clear()

    def select(self, prefix: str, after: str, most: int) -> tuple[list[tuple[str, Stored]], str]:
        """One page of the list, and the last key of it where more follow."""
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        page = keys[: min(most, self.page)]
        return [(key, self.objects[key]) for key in page], page[-1] if len(keys) > len(page) else ""


class StoreServer:
    """An object store on a socket; use with `async with`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tls: ssl.SSLContext | None = None
        self._server = _Socket(self._handle, self)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.__aexit__(*exc)

    @property
    def host(self) -> str:
        return self._server.host

    @property
    def exchanges(self) -> list[Exchange]:
        return self._server.exchanges

    async def _handle(self, exchange: Exchange) -> None:
        for fault in list(self.store.faults):
            if await fault(exchange):
                return
        try:
            await self.respond(exchange)
        except Refused as refused:
            self.store.refused.append(f"{refused.status} {refused.code}: {refused.message}")
            await self.refuse(exchange, refused)

    async def respond(self, exchange: Exchange) -> None:
        raise NotImplementedError

    async def refuse(self, exchange: Exchange, refused: Refused) -> None:
        raise NotImplementedError


class _Socket(BareServer):
    def __init__(self, handler: Handler, owner: StoreServer) -> None:
        super().__init__(handler)
        self._owner = owner

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self._owner.tls)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self


class Refused(Exception):
    """The server answers with an error."""

    def __init__(self, status: str, code: str, message: str, **extra: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.extra = extra


def once(answer: Callable[[Exchange], Awaitable[None]], *, part: str = "", times: int = 1) -> Fault:
    """A fault that answers the first `times` requests whose target contains `part`."""
    left = times

    async def fault(exchange: Exchange) -> bool:
        nonlocal left
        if part not in exchange.target or left <= 0:
            return False
        left -= 1
        await answer(exchange)
        return True

    return fault


def status(line: str, **headers: str) -> Callable[[Exchange], Awaitable[None]]:
    """Answers with a bare status."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(line, b"", **headers)

    return answer


@dataclass(frozen=True)
class S3Keys:
    """Who may ask."""

    access: str = "AKIAIOSFODNN7EXAMPLE"
    secret: str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    token: str = ""


class S3Server(StoreServer):
    """S3 with one bucket: ListObjectsV2 and GetObject, signatures of version 4 over headers; MinIO's token service at `/sts`."""

    def __init__(
        self, store: Store, clock: Clock, *, bucket: str = "files", keys: S3Keys | None = S3Keys(), region: str = "us-east-1"
    ) -> None:
        super().__init__(store)
        self.clock = clock
        self.bucket = bucket
        self.keys = keys
        self.region = region
        self.ldap: dict[str, str] = {}
        self.web_tokens: set[str] = set()
        self.expiration = "2030-01-01T00:00:00Z"
        self.hosts: list[str] = []

    async def respond(self, exchange: Exchange) -> None:
        parts = urlsplit(exchange.target)
        if parts.path == "/sts":
            await self._token(exchange)
            return
        self.hosts.append(exchange.headers["host"])
        if exchange.method != "GET" or exchange.body:
            raise Refused("405 Method Not Allowed", "MethodNotAllowed", "The specified method is not allowed")
        if self.keys is not None:
            verify_v4(exchange, self.keys, self.region, self.clock)
        elif "authorization" in exchange.headers:
            raise Refused("403 Forbidden", "InvalidAccessKeyId", "The key does not exist")
        path = parts.path
        virtual = exchange.headers["host"].startswith(f"{self.bucket}.")
        if not virtual:
            name, _, path = path.removeprefix("/").partition("/")
            if unquote(name) != self.bucket:
                raise Refused("404 Not Found", "NoSuchBucket", "The specified bucket does not exist")
            path = "/" + path
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if path == "/":
            await self._list(exchange, query)
        else:
            if query:
                raise Refused("501 Not Implemented", "NotImplemented", "A parameter is not implemented")
            await self._get(exchange, unquote(path[1:]))

    async def _list(self, exchange: Exchange, query: dict[str, str]) -> None:
        unknown = query.keys() - {"list-type", "prefix", "max-keys", "continuation-token", "encoding-type"}
        if unknown or query.get("list-type") != "2" or not 0 < int(query.get("max-keys", "1000")) <= 1000:
            raise Refused("400 Bad Request", "InvalidArgument", "Invalid Argument")
        after = ""
        if "continuation-token" in query:
            try:
                after = base64.b64decode(query["continuation-token"], validate=True).decode()
            except ValueError:
                raise Refused("400 Bad Request", "InvalidArgument", "The continuation token provided is incorrect") from None
        self.store.counts["LIST"] += 1
        entries, last = self.store.select(query.get("prefix", ""), after, int(query.get("max-keys", "1000")))
        encoded = query.get("encoding-type") == "url"

        def text(key: str) -> str:
            return quote(key, safe="/-_.*").replace("%20", "+") if encoded else escape(key)

        rows = "".join(
            f"<Contents><Key>{text(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{entry.etag}&quot;</ETag><Size>{len(entry.content)}</Size><StorageClass>STANDARD</StorageClass>"
            "<Owner><ID>1</ID></Owner></Contents>"
            for key, entry in entries
        )
        token = base64.b64encode(last.encode()).decode()
        more = f"<NextContinuationToken>{token}</NextContinuationToken>" if last else ""
        coding = "<EncodingType>url</EncodingType>" if encoded else ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{self.bucket}</Name><Prefix>{text(query.get('prefix', ''))}</Prefix><KeyCount>{len(entries)}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys>{coding}<IsTruncated>{str(bool(last)).lower()}</IsTruncated>{more}{rows}</ListBucketResult>"
        )
        await exchange.answer(body=body.encode(), Content_Type="application/xml")

    async def _get(self, exchange: Exchange, key: str) -> None:
        self.store.counts["GET"] += 1
        self.store.asked.append(key)
        found = self.store.objects.get(key)
        if found is None:
            raise Refused("404 Not Found", "NoSuchKey", "The specified key does not exist.")
        if exchange.headers.get("if-none-match") == f'"{found.etag}"':
            await exchange.send(b'HTTP/1.1 304 Not Modified\r\nETag: "%s"\r\n\r\n' % found.etag.encode())
            return
        headers = {"Content_Encoding": found.encoding} if found.encoding else {}
        await exchange.answer(body=found.content, ETag=f'"{found.etag}"', **headers)

    async def _token(self, exchange: Exchange) -> None:
        self.store.counts["LOGIN"] += 1
        form = dict(parse_qsl(exchange.body.decode(), strict_parsing=True))
        if exchange.method != "POST" or form.pop("Version", "") != "2011-06-15" or self.keys is None:
            raise Refused("400 Bad Request", "InvalidParameterValue", "An invalid or out-of-range value was supplied")
        action = form.pop("Action", "")
        if action == "AssumeRoleWithLDAPIdentity":
            allowed = form.keys() == {"LDAPUsername", "LDAPPassword"}
            allowed = allowed and self.ldap.get(form["LDAPUsername"]) == form["LDAPPassword"]
        elif action == "AssumeRoleWithWebIdentity":
            allowed = form.keys() == {"RoleArn", "RoleSessionName", "WebIdentityToken"}
            allowed = allowed and form["WebIdentityToken"] in self.web_tokens
        else:
            raise Refused("400 Bad Request", "InvalidAction", "The action is not valid")
        if not allowed:
            raise Refused("403 Forbidden", "AccessDenied", "Access Denied")
        keys = self.keys
        body = (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>'
            f"<AccessKeyId>{keys.access}</AccessKeyId><SecretAccessKey>{escape(keys.secret)}</SecretAccessKey>"
            f"<Expiration>{self.expiration}</Expiration><SessionToken>{escape(keys.token)}</SessionToken></Credentials>"
            f"</{action}Result></{action}Response>"
        )
        await exchange.answer(body=body.encode(), Content_Type="text/xml")

    async def refuse(self, exchange: Exchange, refused: Refused) -> None:
        extra = "".join(f"<{name}>{value}</{name}>" for name, value in refused.extra.items())
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}'
            f"</Message>{extra}<RequestId>4442587FB7D0A2F9</RequestId></Error>"
        )
        await exchange.answer(refused.status, body.encode(), Content_Type="application/xml")


def verify_v4(exchange: Exchange, keys: S3Keys, region: str, clock: Clock) -> None:
    """Check a request's signature as S3 does; raises Refused. Written apart from the code that signs."""
    scheme, _, rest = exchange.headers.get("authorization", "").partition(" ")
    if scheme != "AWS4-HMAC-SHA256":
        raise Refused("403 Forbidden", "AccessDenied", "Access Denied.")
    fields = dict(part.strip().split("=", 1) for part in rest.split(","))
    access, day, where, service, end = fields["Credential"].split("/")
    if access != keys.access:
        raise Refused("403 Forbidden", "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    if where != region:
        text = f"The authorization header is malformed; the region '{where}' is wrong; expecting '{region}'"
        raise Refused("400 Bad Request", "AuthorizationHeaderMalformed", text, Region=region)
    stamp = exchange.headers["x-amz-date"]
    now = clock.now().strftime("%Y%m%dT%H%M%SZ")
    if (service, end) != ("s3", "aws4_request") or stamp[:8] != day or stamp[:11] != now[:11]:
        raise Refused("403 Forbidden", "RequestTimeTooSkewed", "The difference between the times is too large.")
    names = fields["SignedHeaders"].split(";")
    needed = {"host"} | {name for name in exchange.headers if name.startswith("x-amz-")}
    hashed = exchange.headers.get("x-amz-content-sha256", "")
    if names != sorted(names) or not needed <= set(names) or hashed != hashlib.sha256(exchange.body).hexdigest():
        raise Refused("403 Forbidden", "AccessDenied", "There were headers present in the request which were not signed")
    if exchange.headers.get("x-amz-security-token", "") != keys.token:
        raise Refused("403 Forbidden", "InvalidToken", "The provided token is malformed or otherwise invalid.")
    wanted = signature_v4(exchange.method, exchange.target, exchange.headers, names, hashed, stamp, region, keys.secret)
    if not hmac.compare_digest(wanted, fields["Signature"]):
        text = "The request signature we calculated does not match the signature you provided."
        raise Refused("403 Forbidden", "SignatureDoesNotMatch", text)


def signature_v4(
    method: str, target: str, headers: Mapping[str, str], names: list[str], hashed: str, stamp: str, region: str, secret: str
) -> str:
    """The signature of a request, by the text of Amazon's "Signature Version 4 signing process" for S3."""
    parts = urlsplit(target)
    # S3 encodes the decoded path once, and never takes parts like '..' out of it.
    path = quote(unquote(parts.path, errors="surrogateescape"), safe="/~", errors="surrogateescape") or "/"
    pairs = sorted((quote(n, safe="~"), quote(v, safe="~")) for n, v in parse_qsl(parts.query, keep_blank_values=True))
    query = "&".join(f"{name}={value}" for name, value in pairs)
    lines = [method, path, query, *(f"{name}:{headers[name].strip()}" for name in names), "", ";".join(names), hashed]
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
