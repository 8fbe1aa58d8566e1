"""Keys and credentials for sops: from the entries of a Secret to an environment, files and OpenPGP keys. Pure.

The entries are those of Flux's kustomize-controller. What could make sops run a program or read a file of ours is refused: a
Secret is written by tenants, sops runs where the service's own credentials are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from reconcile.errors import Invalid, ReconcileError
from reconcile.git.pgpkey import summarize
from reconcile.yamlio import YamlError, load_documents

_AGE = re.compile(r"AGE-SECRET-KEY-(?:PQ-)?1[A-Z0-9]+\Z")
_ACCOUNTS: Final = ("service_account", "authorized_user")
_AWS: Final = {
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
}
_AZURE: Final = (
    {"tenantId": "AZURE_TENANT_ID", "clientId": "AZURE_CLIENT_ID", "clientSecret": "AZURE_CLIENT_SECRET"},
    {"tenantId": "AZURE_TENANT_ID", "clientId": "AZURE_CLIENT_ID", "clientCertificate": "AZURE_CLIENT_CERTIFICATE_PATH"},
    {"tenant": "AZURE_TENANT_ID", "appId": "AZURE_CLIENT_ID", "password": "AZURE_CLIENT_SECRET"},
    {"clientId": "AZURE_CLIENT_ID"},
)
_AMBIENT: Final = {
    "AWS": ("AWS_",),
    "AZURE": ("AZURE_", "IDENTITY_", "MSI_"),
    "GOOGLE": ("GOOGLE_", "GCE_METADATA_"),
}
_SURROUNDING: Final = ("PATH", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class KeyRefused(ReconcileError):
    """An entry of a Secret with keys cannot be used; the message never quotes it."""


@dataclass(slots=True)
class Keys:
    """What sops gets.

    Attributes:
        age: Identities, one a line.
        pgp: Armoured private keys by their entry's name.
        variables: Environment variables with credentials.
        files: Contents by the variable that is to name the file.
        secrets: Texts that must not appear in a message.
    """

    age: list[str] = field(default_factory=list)
    pgp: dict[str, bytes] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        """Nothing of the keys."""
        return f"Keys({len(self.age)} age, {len(self.pgp)} pgp)"

    def provides(self, provider: str) -> bool:
        """Whether there are credentials for `AWS`, `AZURE` or `GOOGLE`."""
        return any(name.startswith(provider) for name in (*self.variables, *self.files))


def parse_keys(data: Mapping[str, bytes], *, only_age: bool = False) -> Keys:
    """The keys in the entries of a Secret; entries that are none are passed over.

    Args:
        data: Its decoded `data`.
        only_age: Look at age identities alone, as for the Secret that serves everybody.

    Raises:
        KeyRefused: `failed to import '<entry>' data: …`.
    """
    keys = Keys()
    for name, value in sorted(data.items()):
        try:
            if name.endswith(".agekey"):
                _age(keys, _text(value))
            elif not only_age:
                _other(keys, name, value)
        except Invalid as error:
            raise KeyRefused(f"failed to import '{name}' data: {error}") from None
    return keys


def _other(keys: Keys, name: str, value: bytes) -> None:
    if name.endswith(".asc"):
        if not summarize(value).secret:
            raise Invalid("it holds no private key")
        keys.pgp[name] = value
    elif name == "sops.vault-token":
        _put(keys, "VAULT_TOKEN", _text(value).strip("\n"))
    elif name == "sops.aws-kms":
        _aws(keys, _mapping(value))
    elif name == "sops.azure-kv":
        _azure(keys, _mapping(value))
    elif name == "sops.gcp-kms":
        _google(keys, value)


def _text(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise Invalid("it is not UTF-8") from None
    if "\0" in text:
        raise Invalid("it has a NUL character")
    return text


def _put(keys: Keys, variable: str, value: str) -> None:
    keys.variables[variable] = value
    keys.secrets.append(value)


def _age(keys: Keys, text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        identity = line.strip()
        if not identity or identity.startswith("#"):
            continue
        if not _AGE.match(identity):
            # A plugin's identity would make sops run a program of its name.
            raise Invalid(f"line {number} is no age identity (AGE-SECRET-KEY-1… or AGE-SECRET-KEY-PQ-1…)")
        keys.age.append(identity)
        keys.secrets.append(identity)


def _mapping(value: bytes) -> Mapping[str, Any]:
    try:
        documents = load_documents(_text(value), "")
    except YamlError as error:
        raise Invalid(f"it is no YAML: line {error.line}") from None
    if len(documents) != 1 or not isinstance(documents[0][0], dict):
        raise Invalid("it is no mapping")
    return {key: str(part) for key, part in documents[0][0].items() if part is not None and not isinstance(part, (dict, list))}


def _aws(keys: Keys, given: Mapping[str, str]) -> None:
    missing = [name for name in ("aws_access_key_id", "aws_secret_access_key") if not given.get(name)]
    if missing:
        raise Invalid(f"it has no {missing[0]}")
    for name, variable in _AWS.items():
        if given.get(name):
            _put(keys, variable, given[name])


def _azure(keys: Keys, given: Mapping[str, str]) -> None:
    found = next((one for one in _AZURE if all(given.get(name) for name in one)), None)
    if found is None:
        raise Invalid(
            "it needs tenantId, clientId and clientSecret; or tenantId, clientId and clientCertificate; "
            "or tenant, appId and password; or clientId"
        )
    for name, variable in found.items():
        if name == "clientCertificate":
            keys.files[variable] = given[name].encode()
            keys.secrets.append(given[name])
        elif name in ("clientSecret", "password"):
            _put(keys, variable, given[name])
        else:
            keys.variables[variable] = given[name]
    if "clientCertificate" in found and given.get("clientCertificatePassword"):
        _put(keys, "AZURE_CLIENT_CERTIFICATE_PASSWORD", given["clientCertificatePassword"])
    if "clientCertificate" in found and given.get("clientCertificateSendChain", "").lower() in ("true", "1"):
        keys.variables["AZURE_CLIENT_SEND_CERTIFICATE_CHAIN"] = "true"
    if given.get("authorityHost"):
        keys.variables["AZURE_AUTHORITY_HOST"] = given["authorityHost"]


def _google(keys: Keys, value: bytes) -> None:
    try:
        given = json.loads(_text(value))
    except ValueError:
        raise Invalid("it is no JSON") from None
    kind = given.get("type") if isinstance(given, dict) else None
    if kind not in _ACCOUNTS:
        # External accounts name files and programs that Google's library would read and run.
        raise Invalid(f"it is no credential of type {' or '.join(_ACCOUNTS)}")
    keys.files["GOOGLE_APPLICATION_CREDENTIALS"] = value
    keys.secrets.extend(
        str(given[name]) for name in ("private_key", "private_key_id", "client_secret", "refresh_token") if name in given
    )


def process_environment(keys: Keys, home: str, surrounding: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a process of sops.

    Args:
        keys: Keys and credentials; `keys.files` are the caller's to put.
        home: The private home.
        surrounding: The service's own environment; of it count what leads to programs, proxies and certificates, and the login
            to a cloud for which there are no credentials in `keys`.
    """
    kept = {name: surrounding[name] for name in (*_SURROUNDING, *_CERTIFICATES) if name in surrounding}
    for provider, prefixes in _AMBIENT.items():
        if not keys.provides(provider):
            kept.update({name: value for name, value in surrounding.items() if name.startswith(prefixes)})
    # A person's logins to Azure, such as `az`, are no credentials of a service.
    kept["AZURE_TOKEN_CREDENTIALS"] = "prod"  # noqa: S105 - the name of a choice
    own = {"HOME": home, "XDG_CONFIG_HOME": home, "TMPDIR": home, "GNUPGHOME": f"{home}/gnupg", "LC_ALL": "C.UTF-8"}
    identities = {"SOPS_AGE_KEY": "\n".join(keys.age)} if keys.age else {}
    return {**kept, **own, **identities, **keys.variables}
