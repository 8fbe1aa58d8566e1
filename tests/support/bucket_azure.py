"""The double of Azure Blob Storage: List Blobs and Get Blob with shared key, shared access signature or Entra token.

Entra's token endpoint and the metadata service of a machine are part of it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

import orjson
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from reconcile.ports.clock import Clock
from tests.support.bucket_gcs import unpadded
from tests.support.bucket_servers import Refused, Store, StoreServer
from tests.support.registry import Exchange

ACCOUNT = "devstoreaccount1"
KEY = base64.b64encode(b"the key of the account, 64 bytes in real life").decode()
SAS = "sv=2021-08-06&sr=c&sp=rl&se=2030-01-01T00%3A00%3A00Z&sig=c2lnbmF0dXJl%2FMTIz%2Bx%3D"
TENANT, CLIENT, SECRET = "tenant.example", "11111111-2222-3333-4444-555555555555", "the~client.secret"
TOKEN = "eyJ.of-the.application"
MANAGED = "eyJ.of-the.machine"


class AzureServer(StoreServer):
    """One container of one account, at `/devstoreaccount1` as emulators have it."""

    def __init__(self, store: Store, clock: Clock, *, container: str = "files", logins: tuple[str, ...] = ("key",)) -> None:
        """`logins` are those that may read: key, sas, token, managed, anonymous."""
        super().__init__(store)
        self.clock = clock
        self.container = container
        self.logins = logins
        self.certificate: x509.Certificate | None = None
        self.chain = False
        self.directories: set[str] = set()

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}/{ACCOUNT}"

    async def respond(self, exchange: Exchange) -> None:
        path = urlsplit(exchange.target).path
        if path == f"/{TENANT}/oauth2/v2.0/token":
            await self._entra(exchange)
        elif path == "/metadata/identity/oauth2/token":
            await self._metadata(exchange)
        else:
            await self._storage(exchange)

    # --- storage

    async def _storage(self, exchange: Exchange) -> None:
        parts = urlsplit(exchange.target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if exchange.headers.get("x-ms-version") != "2021-08-06":
            raise Refused("400 Bad Request", "InvalidHeaderValue", "The value for one of the HTTP headers is not correct")
        rest = self._authorize(exchange, query)
        account, container, *names = [unquote(part) for part in parts.path.removeprefix("/").split("/")]
        if account != ACCOUNT or container != self.container:
            raise Refused("404 Not Found", "ContainerNotFound", "The specified container does not exist.\nRequestId:1\nTime:2")
        if names:
            await self._get(exchange, "/".join(names), rest)
        else:
            await self._list(exchange, rest)

    def _authorize(self, exchange: Exchange, query: dict[str, str]) -> dict[str, str]:
        """What is left of the query; raises Refused."""
        shown = exchange.headers.get("authorization", "")
        signed = dict(parse_qsl(SAS))
        if shown.startswith("SharedKey ") and "key" in self.logins:
            self._check_shared_key(exchange, shown)
        elif signed.items() <= query.items() and "sas" in self.logins and not shown:
            return {name: value for name, value in query.items() if name not in signed}
        elif not (
            (shown == f"Bearer {TOKEN}" and "token" in self.logins)
            or (shown == f"Bearer {MANAGED}" and "managed" in self.logins)
            or (not shown and "sig" not in query and "anonymous" in self.logins)
        ):
            text = "Server failed to authenticate the request.\nRequestId:1"
            raise Refused("403 Forbidden", "AuthenticationFailed", text)
        return query

    def _check_shared_key(self, exchange: Exchange, shown: str) -> None:
        parts = urlsplit(exchange.target)
        headers = exchange.headers
        names = ("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date")
        names += ("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range")
        own = [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-")]
        resource = [f"/{ACCOUNT}{parts.path}"]
        for name, values in sorted(parse_qs(parts.query, keep_blank_values=True).items()):
            resource.append(f"{name.lower()}:{','.join(sorted(values))}")
        text = "\n".join([exchange.method, *(headers.get(name, "") for name in names), *own, *resource])
        digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        age = abs((parsedate_to_datetime(headers["x-ms-date"]) - self.clock.now()).total_seconds())
        if age > 900 or not hmac.compare_digest(shown, f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"):
            raise Refused("403 Forbidden", "AuthenticationFailed", "Server failed to authenticate the request.\nRequestId:1")

    async def _list(self, exchange: Exchange, query: dict[str, str]) -> None:
        if query.keys() - {"restype", "comp", "prefix", "marker", "maxresults"}:
            raise Refused("400 Bad Request", "InvalidQueryParameterValue", "Value for one of the query parameters is invalid")
        if (query.get("restype"), query.get("comp")) != ("container", "list"):
            raise Refused("400 Bad Request", "InvalidQueryParameterValue", "Value for one of the query parameters is invalid")
        self.store.counts["LIST"] += 1
        after = base64.b64decode(query.get("marker", ""), validate=True).decode()
        entries, last = self.store.select(query.get("prefix", ""), after, int(query.get("maxresults", "5000")))
        rows = "".join(
            f"<Blob>{_name(key)}<Properties><Etag>{entry.etag}</Etag><Content-Length>{len(entry.content)}</Content-Length>"
            f"<BlobType>BlockBlob</BlobType>{'<ResourceType>directory</ResourceType>' if key in self.directories else ''}"
            "</Properties></Blob>"
            for key, entry in entries
        )
        body = (
            '\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="http://x/" ContainerName="files">'
            f"<Blobs>{rows}</Blobs><NextMarker>{base64.b64encode(last.encode()).decode()}</NextMarker></EnumerationResults>"
        )
        await exchange.answer(body=body.encode(), Content_Type="application/xml")

    async def _get(self, exchange: Exchange, key: str, query: dict[str, str]) -> None:
        self.store.counts["GET"] += 1
        self.store.asked.append(key)
        found = self.store.objects.get(key)
        if query:
            raise Refused("400 Bad Request", "InvalidQueryParameterValue", "Value for one of the query parameters is invalid")
        if found is None:
            raise Refused("404 Not Found", "BlobNotFound", "The specified blob does not exist.\nRequestId:1")
        if exchange.headers.get("if-none-match") == f'"{found.etag}"':
            await exchange.send(b'HTTP/1.1 304 Not Modified\r\nETag: "%s"\r\n\r\n' % found.etag.encode())
            return
        headers = {"Content_Encoding": found.encoding} if found.encoding else {}
        await exchange.answer(body=found.content, ETag=f'"{found.etag}"', **headers)

    async def refuse(self, exchange: Exchange, refused: Refused) -> None:
        body = f"\ufeff<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message></Error>"
        await exchange.answer(refused.status, body.encode(), x_ms_error_code=refused.code, Content_Type="application/xml")

    # --- logins

    async def _entra(self, exchange: Exchange) -> None:
        self.store.counts["LOGIN"] += 1
        form = dict(parse_qsl(exchange.body.decode(), strict_parsing=True))
        wanted = {"grant_type": "client_credentials", "client_id": CLIENT, "scope": "https://storage.azure.com/.default"}
        if not wanted.items() <= form.items():
            raise Refused("400 Bad Request", "invalid_request", "AADSTS90014")
        if "client_assertion" in form:
            self._check_assertion(form)
        elif form.get("client_secret") != SECRET:
            raise Refused("401 Unauthorized", "invalid_client", "AADSTS7000215: Invalid client secret provided")
        await exchange.answer(body=orjson.dumps({"token_type": "Bearer", "expires_in": 3599, "access_token": TOKEN}))

    def _check_assertion(self, form: dict[str, str]) -> None:
        head, body, signature = form["client_assertion"].split(".")
        header, claims = orjson.loads(unpadded(head)), orjson.loads(unpadded(body))
        assert self.certificate is not None
        der = self.certificate.public_bytes(Encoding.DER)
        public = self.certificate.public_key()
        assert isinstance(public, rsa.RSAPublicKey)
        try:
            public.verify(unpadded(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise Refused("401 Unauthorized", "invalid_client", "AADSTS700027: signature") from None
        shown = [base64.b64decode(entry) for entry in header.get("x5c", [])]
        now = self.clock.now().timestamp()
        good = (
            form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            and unpadded(header["x5t#S256"]) == hashlib.sha256(der).digest()
            and claims["aud"] == f"http://{self.host}/{TENANT}/oauth2/v2.0/token"
            and claims["iss"] == claims["sub"] == CLIENT
            and claims["nbf"] <= now < claims["exp"]
            and (shown[:1] == [der] and len(shown) > 1 if self.chain else not shown)
        )
        if not good:
            raise Refused("401 Unauthorized", "invalid_client", "AADSTS700023: assertion")

    async def _metadata(self, exchange: Exchange) -> None:
        self.store.counts["LOGIN"] += 1
        query = dict(parse_qsl(urlsplit(exchange.target).query))
        wanted = {"api-version": "2018-02-01", "resource": "https://storage.azure.com/"}
        if exchange.headers.get("metadata") != "true" or not wanted.items() <= query.items() or "managed" not in self.logins:
            raise Refused("400 Bad Request", "invalid_request", "Identity not found")
        if query.get("client_id", CLIENT) != CLIENT:
            raise Refused("400 Bad Request", "invalid_request", "Identity not found")
        await exchange.answer(body=orjson.dumps({"access_token": MANAGED, "expires_in": "3599"}))


def _name(key: str) -> str:
    if all(character.isprintable() for character in key):
        return f"<Name>{escape(key)}</Name>"
    encoded = "".join(character if character.isalnum() else f"%{byte:02X}" for character in key for byte in character.encode())
    return f'<Name Encoded="true">{encoded}</Name>'
