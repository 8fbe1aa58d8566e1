"""The part of the fake GitHub that knows one GitHub App: it checks its signature and gives tokens that expire."""

from __future__ import annotations

import base64
import functools
import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.forges.http import Call, Refused, Reply

if TYPE_CHECKING:
    from tests.support.forges.github import GitHub

ID = "4711"
INSTALLATION = "8150"
LIFE = timedelta(hours=1)


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class App:
    """A GitHub App that is installed for the owner of the repository."""

    def __init__(self, forge: GitHub) -> None:
        self._forge = forge
        self._tokens: dict[str, datetime] = {}

    @property
    def secret(self) -> dict[str, bytes]:
        """Data of a Secret with the App."""
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        pem = _key().private_bytes(*form)
        return {
            "githubAppID": ID.encode(),
            "githubAppInstallationID": INSTALLATION.encode(),
            "githubAppPrivateKey": pem,
            "githubAppBaseURL": self._forge.api.url("").rstrip("/").encode(),
        }

    @property
    def issued(self) -> list[str]:
        """Tokens that were given, oldest first."""
        return list(self._tokens)

    def knows(self, token: str) -> bool:
        """Whether a token is good now."""
        return token in self._tokens and self._forge.now() < self._tokens[token]

    def answer(self, call: Call, token: str) -> Reply:
        """One call as the App: with its JSON web token."""
        self._check(call, token)
        if call.method == "GET" and call.path == f"/v3/orgs/{self._forge.owner}/installation":
            return self.installation(call)
        if call.method == "POST" and re.fullmatch(r"/v3/app/installations/\d+/access_tokens", call.path):
            return self.access_token(call)
        return Reply(404, {"message": "Not Found"})

    def installation(self, call: Call) -> Reply:
        """REST API endpoints for GitHub Apps, «Get an organization installation for the authenticated app»."""
        self._forge.query(call, ())
        return Reply(200, {"id": int(INSTALLATION), "app_id": int(ID), "account": {"login": self._forge.owner}})

    def access_token(self, call: Call) -> Reply:
        """REST API endpoints for GitHub Apps, «Create an installation access token for an app»."""
        if call.path.split("/")[4] != INSTALLATION:
            return Reply(404, {"message": "Not Found"})
        token = f"ghs_{len(self._tokens):036d}"
        self._tokens[token] = self._forge.now() + LIFE
        return Reply(201, {"token": token, "expires_at": self._tokens[token].strftime("%Y-%m-%dT%H:%M:%SZ")})

    def _check(self, call: Call, token: str) -> None:
        """«Generating a JSON Web Token (JWT) for a GitHub App»: RS256, begun in the past, good for ten minutes at most."""
        try:
            head, claims, signature = token.split(".")
            _key().public_key().verify(_decoded(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
            said: dict[str, Any] = json.loads(_decoded(claims))
        except (ValueError, InvalidSignature):
            raise Refused(Reply(401, {"message": "A JSON web token could not be decoded"})) from None
        now = self._forge.now().timestamp()
        if said["iss"] != ID or json.loads(_decoded(head)) != {"alg": "RS256", "typ": "JWT"} or said["exp"] - said["iat"] > 600:
            raise self._forge.problem(call, "claims of the JSON web token")
        if not said["iat"] <= now <= said["exp"]:
            raise Refused(Reply(401, {"message": "'Expiration time' claim ('exp') must be a numeric value in the future"}))


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
