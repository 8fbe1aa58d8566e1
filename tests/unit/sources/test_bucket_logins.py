"""Who reads buckets of Google and Azure: keys, certificates, signatures, the machine, nobody; and who is shown an identity."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, pkcs12
from cryptography.x509.oid import NameOID

from reconcile.errors import Failed, Invalid
from reconcile.registry.errors import CredentialError
from reconcile.sources.buckets.azure_entra import application
from reconcile.sources.buckets.azure_login import account_of, sas, string_to_sign
from reconcile.sources.buckets.client import BucketError, ObjectMissing
from reconcile.sources.buckets.trust import AMAZON, AZURE, GOOGLE, belongs_to
from tests.support.bucket_azure import CLIENT, KEY, SAS, SECRET, TENANT, AzureServer
from tests.support.bucket_gcs import GcsServer
from tests.support.bucket_servers import once, status
from tests.support.bucket_world import NAMESPACE, World, listed, world_of

# --- Google


@pytest.fixture
async def google() -> AsyncIterator[World]:
    async with world_of("gcp") as made:
        made.store.put("a.yaml", "one")
        yield made


async def test_a_token_is_asked_for_once_and_again_before_it_ends(google: World):
    access = google.access()
    for seconds, logins in ((0, 1), (2000, 1), (1000, 2)):
        google.clock.seconds += seconds
        async with access.opened(NAMESPACE, google.spec()) as client:
            assert await listed(client) == ["a.yaml"]
        assert google.store.counts["LOGIN"] == logins


async def test_the_metadata_server_gives_the_identity_of_the_machine(google: World):
    async with google.opened(secretRef=None) as client:
        assert await listed(client) == ["a.yaml"]
    assert [exchange.target.partition("?")[0] for exchange in google.server.exchanges] == [
        "/computeMetadata/v1/instance/service-accounts/default/token",
        "/storage/v1/b/files/o",
    ]


async def test_a_token_of_the_machine_is_not_shown_to_a_stranger(google: World):
    """The proxy stands for the stranger's host."""
    assert isinstance(google.server, GcsServer)
    google.server.public = True
    google.secrets.put("proxy", address=f"http://{google.server.host}")
    async with google.opened(secretRef=None, endpoint="storage.evil.example", proxySecretRef={"name": "proxy"}) as client:
        await listed(client)
    assert google.store.counts["LOGIN"] == 0
    assert all("authorization" not in exchange.headers for exchange in google.server.exchanges)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "invalid 'login' secret data: required fields 'serviceaccount'"),
        ({"serviceaccount": "{"}, "is not the JSON key of a service account"),
        ({"serviceaccount": "[]"}, "is not the JSON key of a service account"),
        (
            {"serviceaccount": orjson.dumps({"type": "external_account", "credential_source": {"file": "/etc/passwd"}})},
            "is not the JSON key of a service account",
        ),
    ],
)
async def test_secrets_of_google_that_do_not_fit(google: World, values: dict[str, str | bytes], message: str):
    google.secrets.put("login", **values)
    with pytest.raises(Failed, match=message) as caught:
        async with google.opened():
            pass
    assert caught.value.reason == "AuthenticationFailed"


async def test_an_object_whose_content_alone_is_missing_is_missing(google: World, tmp_path: Path):
    google.store.faults.append(once(status("404 Not Found"), part="alt=media", times=9))
    async with google.opened() as client:
        (entry,) = [entry async for page in client.pages("") for entry in page]
        with pytest.raises(ObjectMissing):
            await client.fetch(entry, tmp_path / "a", 100)
    assert (google.store.counts["LOOK"], google.store.counts["GET"]) == (1, 0)


# --- Azure


@pytest.fixture
async def azure() -> AsyncIterator[World]:
    async with world_of("azure") as made:
        made.store.put("a.yaml", "one")
        yield made


def server_of(world: World, *logins: str) -> AzureServer:
    assert isinstance(world.server, AzureServer)
    world.server.logins = logins
    return world.server


async def check(world: World, **fields: object) -> None:
    async with world.opened(**fields) as client:
        assert await listed(client, "a") == ["a.yaml"]
        assert (await client.read("a.yaml", 100)).content == b"one"


@pytest.mark.parametrize("text", [SAS, "?" + SAS, SAS + "\n"])
async def test_a_shared_access_signature_goes_with_every_request(azure: World, text: str):
    server_of(azure, "sas")
    azure.secrets.put("login", sasKey=text)
    await check(azure)


async def test_a_signature_may_be_part_of_the_endpoint(azure: World):
    server = server_of(azure, "sas")
    await check(azure, secretRef=None, endpoint=f"{server.endpoint}?{SAS}")


async def test_a_signature_does_not_show_in_errors(azure: World):
    server_of(azure, "key")
    azure.secrets.put("login", sasKey=SAS)
    async with azure.opened() as client:
        with pytest.raises(BucketError, match="the caller might lack sufficient permissions") as caught:
            await listed(client)
    assert "c2lnbmF0dXJl" not in str(caught.value)


async def test_a_client_secret_becomes_a_token(azure: World):
    server_of(azure, "token")
    azure.secrets.put("login", tenantId=TENANT, clientId=CLIENT, clientSecret=SECRET)
    await check(azure)
    assert azure.store.counts["LOGIN"] == 1


async def test_a_wrong_client_secret_is_told_without_it(azure: World):
    server_of(azure, "token")
    azure.secrets.put("login", tenantId=TENANT, clientId=CLIENT, clientSecret="mistaken")
    async with azure.opened() as client:
        with pytest.raises(CredentialError, match="AADSTS7000215") as caught:
            await listed(client)
    assert "mistaken" not in str(caught.value)


@pytest.mark.parametrize("form", ["pem", "pem with password", "pkcs12", "pkcs12 with password"])
@pytest.mark.parametrize("chain", [False, True])
async def test_a_client_certificate_becomes_a_token(azure: World, form: str, chain: bool):
    server = server_of(azure, "token")
    key, certificate, issuer = certificates()
    server.certificate, server.chain = certificate, chain
    password = b"p\xc3\xa4ss" if "password" in form else None
    locked = BestAvailableEncryption(password) if password else NoEncryption()
    if form.startswith("pem"):
        data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
        data += b"".join(entry.public_bytes(Encoding.PEM) for entry in (issuer, certificate))
    else:
        data = pkcs12.serialize_key_and_certificates(b"name", key, certificate, [issuer], locked)
    values = {"tenantId": TENANT, "clientId": CLIENT, "clientCertificate": data}
    values |= {"clientCertificatePassword": password} if password else {}
    values |= {"clientCertificateSendChain": "true"} if chain else {}
    azure.secrets.put("login", **values)
    await check(azure)


async def test_a_client_id_alone_is_a_managed_identity(azure: World):
    server_of(azure, "managed")
    azure.secrets.put("login", clientId=CLIENT)
    await check(azure)
    assert f"client_id={CLIENT}" in azure.server.exchanges[0].target


async def test_a_managed_identity_is_not_shown_to_a_stranger(azure: World):
    azure.secrets.put("login", clientId=CLIENT)
    with pytest.raises(Failed, match="only shown to Azure") as caught:
        async with azure.opened(endpoint="https://blob.evil.example"):
            pass
    assert caught.value.reason == "ClientError"
    assert azure.server.exchanges == []


async def test_the_machines_identity_is_used_without_a_secret(azure: World):
    server_of(azure, "managed")
    await check(azure, secretRef=None)


async def test_without_any_identity_what_is_public_can_be_read(azure: World):
    server_of(azure, "anonymous")
    access = azure.access()
    for _ in range(3):
        async with access.opened(NAMESPACE, azure.spec(secretRef=None)) as client:
            assert await listed(client) == ["a.yaml"]
    assert azure.store.counts["LOGIN"] == 1


async def test_an_identity_that_was_meant_and_fails_is_no_anonymous_one(azure: World):
    server_of(azure, "anonymous")
    azure.environment |= {"AZURE_CLIENT_ID": CLIENT, "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_SECRET": "mistaken"}
    async with azure.opened(secretRef=None) as client:
        with pytest.raises(CredentialError, match="AADSTS7000215"):
            await listed(client)


async def test_workload_identity_of_the_environment(azure: World):
    server_of(azure, "token")
    azure.environment |= {"AZURE_CLIENT_ID": CLIENT, "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_SECRET": SECRET}
    await check(azure, secretRef=None)


@pytest.mark.parametrize(
    ("values", "reason", "message"),
    [
        (
            {"tenantId": TENANT},
            "AuthenticationFailed",
            "requires a 'clientId' or 'accountKey' field, a combination of 'tenantId'",
        ),
        ({"accountKey": "not base64!"}, "ClientError", "the account key is not base64"),
        ({"sasKey": "no query"}, "ClientError", "unable to parse SAS token"),
        ({"tenantId": "a/b", "clientId": CLIENT, "clientSecret": "x"}, "AuthenticationFailed", "'tenantId' is not a tenant"),
        (
            {"tenantId": TENANT, "clientId": CLIENT, "clientSecret": "x", "authorityHost": "http://evil.example"},
            "AuthenticationFailed",
            "'authorityHost' is not an https URL",
        ),
        (
            {"tenantId": TENANT, "clientId": CLIENT, "clientCertificate": "x"},
            "AuthenticationFailed",
            "failed to parse client certificates",
        ),
    ],
)
async def test_secrets_of_azure_that_do_not_fit(azure: World, values: dict[str, str], reason: str, message: str):
    azure.secrets.put("login", **values)
    with pytest.raises(Failed, match=message) as caught:
        async with azure.opened():
            pass
    assert caught.value.reason == reason


async def test_folders_of_a_hierarchical_namespace_are_no_objects(azure: World):
    azure.store.put("dir", "")
    azure.store.put("dir/a.yaml", "x")
    server_of(azure, "key").directories.add("dir")
    async with azure.opened() as client:
        assert await listed(client, "dir") == ["dir/a.yaml"]


@pytest.mark.parametrize(
    ("endpoint", "base", "name"),
    [
        ("https://acme.blob.core.windows.net", "https://acme.blob.core.windows.net", "acme"),
        ("https://acme.blob.core.windows.net/", "https://acme.blob.core.windows.net", "acme"),
        ("http://127.0.0.1:10000/devstoreaccount1/", "http://127.0.0.1:10000/devstoreaccount1", "devstoreaccount1"),
        ("http://azurite:10000/devstoreaccount1", "http://azurite:10000/devstoreaccount1", "devstoreaccount1"),
    ],
)
def test_accounts(endpoint: str, base: str, name: str):
    account = account_of(endpoint)
    assert (account.base, account.name) == (base, name)


@pytest.mark.parametrize("endpoint", ["acme.blob.core.windows.net", "ftp://acme", "https://", "https://[::1"])
def test_what_is_no_account(endpoint: str):
    with pytest.raises(Invalid):
        account_of(endpoint)


def test_what_a_shared_key_signs_is_what_azures_documentation_shows():
    headers = {"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-version": "2015-02-21"}
    url = "https://myaccount.blob.core.windows.net/mycontainer?restype=container&comp=metadata&timeout=20"
    assert string_to_sign("GET", url, headers, "myaccount") == (
        "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n"
        "/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
    )


def test_several_values_of_a_parameter_are_signed_in_the_order_of_their_texts():
    url = "https://myaccount.blob.core.windows.net/c?include=snapshots&include=metadata"
    assert string_to_sign("GET", url, {}, "myaccount").endswith("/myaccount/c\ninclude:metadata,snapshots")


def test_the_endpoints_query_goes_with_a_signature_that_says_nothing_else():
    assert sas(b"?sv=1&sig=a", "sv=2&extra=x").query == "sv=1&sig=a&extra=x"


def test_secrets_of_applications_do_not_show():
    data = {"tenantId": b"t", "clientId": b"c", "clientSecret": b"hush"}
    assert "hush" not in repr(application(data))
    assert KEY[:8] not in repr(sas(SAS.encode(), ""))


@pytest.mark.parametrize(
    ("url", "domains", "belongs"),
    [
        ("https://storage.googleapis.com", GOOGLE, True),
        ("https://STORAGE.googleapis.com.", GOOGLE, True),
        ("http://storage.googleapis.com", GOOGLE, False),
        ("https://googleapis.com.evil.example", GOOGLE, False),
        ("https://evilgoogleapis.com", GOOGLE, False),
        ("https://acme.blob.core.windows.net", AZURE, True),
        ("https://sts.eu-west-1.amazonaws.com/", AMAZON, True),
        ("https://vpce-1.sts.us-east-1.vpce.amazonaws.com", AMAZON, True),
        ("http://127.0.0.1:10000/devstoreaccount1", AZURE, True),
        ("https://10.0.0.1", AZURE, False),
        ("https://[::1", AZURE, False),
        ("", AZURE, False),
    ],
)
def test_who_is_shown_an_identity(url: str, domains: tuple[str, ...], belongs: bool):
    assert belongs_to(url, domains) is belongs


def certificates() -> tuple[rsa.RSAPrivateKey, x509.Certificate, x509.Certificate]:
    """A key, its certificate and the one above it."""
    key, issuer_key = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))

    def make(name: str, public: rsa.RSAPublicKey) -> x509.Certificate:
        start = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
        subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, "issuer"))
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start)
        return builder.not_valid_after(start + dt.timedelta(days=3650)).sign(issuer_key, hashes.SHA256())

    return key, make("leaf", key.public_key()), make("issuer", issuer_key.public_key())
