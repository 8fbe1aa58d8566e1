"""The double of Google Cloud Storage: JSON API with access tokens, tokens for service accounts, the metadata server."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from reconcile.ports.clock import Clock
from tests.support.bucket_servers import Refused, Store, StoreServer
from tests.support.registry import Exchange

TOKEN = "ya29.of-the-service-account"
AMBIENT = "ya29.of-this-machine"
EMAIL = "reader@project.iam.gserviceaccount.com"


class GcsServer(StoreServer):
    """One bucket at `/storage/v1`, tokens at `/token`, this machine's identity at `/computeMetadata`."""

    def __init__(self, store: Store, clock: Clock, *, bucket: str = "files", public: bool = False) -> None:
        super().__init__(store)
        self.clock = clock
        self.bucket = bucket
        self.public = public
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def service_account(self) -> bytes:
        """The JSON key of an account that may read."""
        pem = self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return orjson.dumps(
            {
                "type": "service_account",
                "client_email": EMAIL,
                "private_key_id": "key-1",
                "private_key": pem.decode(),
                "token_uri": f"http://{self.host}/token",
            }
        )

    async def respond(self, exchange: Exchange) -> None:
        parts = urlsplit(exchange.target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.path == "/token":
            await self._token(exchange)
        elif parts.path.startswith("/computeMetadata/"):
            await self._metadata(exchange, parts.path)
        else:
            await self._storage(exchange, parts.path, query)

    async def _storage(self, exchange: Exchange, path: str, query: dict[str, str]) -> None:
        authorization = exchange.headers.get("authorization", "")
        if not (authorization in {f"Bearer {TOKEN}", f"Bearer {AMBIENT}"} or (self.public and not authorization)):
            raise Refused("401 Unauthorized", "authError", "Invalid Credentials")
        names = path.split("/")
        if exchange.method != "GET" or names[:4] != ["", "storage", "v1", "b"] or names[5:6] != ["o"] or len(names) > 7:
            raise Refused("404 Not Found", "notFound", "Not Found")
        if unquote(names[4]) != self.bucket:
            raise Refused("404 Not Found", "notFound", "The specified bucket does not exist.")
        if len(names) == 6:
            await self._list(exchange, query)
        elif query.get("alt") == "media":
            await self._media(exchange, unquote(names[6]), query)
        else:
            await self._look(exchange, unquote(names[6]), query)

    async def _list(self, exchange: Exchange, query: dict[str, str]) -> None:
        if query.keys() - {"prefix", "pageToken", "maxResults", "fields"}:
            raise Refused("400 Bad Request", "invalidParameter", "Unknown parameter")
        self.store.counts["LIST"] += 1
        after = base64.b64decode(query.get("pageToken", ""), validate=True).decode()
        entries, last = self.store.select(query.get("prefix", ""), after, int(query.get("maxResults", "1000")))
        document: dict[str, Any] = {}
        if entries:
            document["items"] = [self._resource(key) for key, _ in entries]
        if last:
            document["nextPageToken"] = base64.b64encode(last.encode()).decode()
        await exchange.answer(body=orjson.dumps(document), Content_Type="application/json; charset=UTF-8")

    async def _look(self, exchange: Exchange, key: str, query: dict[str, str]) -> None:
        self.store.counts["LOOK"] += 1
        if query.keys() - {"fields", "generation"}:
            raise Refused("400 Bad Request", "invalidParameter", "Unknown parameter")
        self._find(key, query)
        await exchange.answer(body=orjson.dumps(self._resource(key)), Content_Type="application/json; charset=UTF-8")

    async def _media(self, exchange: Exchange, key: str, query: dict[str, str]) -> None:
        self.store.counts["GET"] += 1
        self.store.asked.append(key)
        if query.keys() - {"alt", "generation"}:
            raise Refused("400 Bad Request", "invalidParameter", "Unknown parameter")
        found = self._find(key, query)
        headers = {"Content_Encoding": found.encoding} if found.encoding else {}
        await exchange.answer(body=found.content, ETag=found.etag, X_Goog_Generation=found.generation, **headers)

    def _find(self, key: str, query: dict[str, str]) -> Any:
        found = self.store.objects.get(key)
        if found is None or query.get("generation", found.generation) != found.generation:
            raise Refused("404 Not Found", "notFound", f"No such object: {self.bucket}/{key}")
        return found

    def _resource(self, key: str) -> dict[str, str]:
        found = self.store.objects[key]
        return {"name": key, "etag": found.etag, "size": str(len(found.content)), "generation": found.generation}

    async def _token(self, exchange: Exchange) -> None:
        self.store.counts["LOGIN"] += 1
        form = dict(parse_qsl(exchange.body.decode(), strict_parsing=True))
        header, claims, signature = form["assertion"].split(".")
        try:
            self.key.public_key().verify(unpadded(signature), f"{header}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise Refused("400 Bad Request", "invalid_grant", "Invalid JWT Signature.") from None
        document = orjson.loads(unpadded(claims))
        now = self.clock.now().timestamp()
        good = (
            orjson.loads(unpadded(header)) == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
            and form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
            and document["iss"] == EMAIL
            and document["aud"] == f"http://{self.host}/token"
            and "cloud-platform" in document["scope"]
            and document["iat"] <= now < document["exp"] <= document["iat"] + 3600
        )
        if not good:
            raise Refused("400 Bad Request", "invalid_grant", "Invalid JWT")
        await exchange.answer(body=orjson.dumps({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}))

    async def _metadata(self, exchange: Exchange, path: str) -> None:
        self.store.counts["LOGIN"] += 1
        if exchange.headers.get("metadata-flavor") != "Google" or not path.endswith("/service-accounts/default/token"):
            raise Refused("403 Forbidden", "forbidden", "Missing required header: Metadata-Flavor")
        await exchange.answer(body=orjson.dumps({"access_token": AMBIENT, "expires_in": 3599}), Metadata_Flavor="Google")

    async def refuse(self, exchange: Exchange, refused: Refused) -> None:
        error = {"code": int(refused.status[:3]), "message": refused.message, "errors": [{"reason": refused.code}]}
        await exchange.answer(refused.status, orjson.dumps({"error": error}), Content_Type="application/json; charset=UTF-8")


def unpadded(text: str) -> bytes:
    """Content of base64url text without padding, as JSON web tokens have it."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
