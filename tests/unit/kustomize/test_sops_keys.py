"""From a Secret with keys to the environment of sops; what is refused; nothing of it in a message."""

import json

import pytest

from reconcile.kustomize.keys import KeyRefused, parse_keys, process_environment

IDENTITY = "AGE-SECRET-KEY-1WJPPZZCHMLDLVS6Q2R9M8XPL632RWXJFAWSJE9SCCSJ8S3J2V9ZQZH4GG3"
SURROUNDING = {
    "PATH": "/bin", "HOME": "/root", "HTTPS_PROXY": "http://proxy", "SSL_CERT_FILE": "/ca",
    "AWS_REGION": "eu", "AWS_PROFILE": "me", "AZURE_CLIENT_ID": "ours",
    "GOOGLE_APPLICATION_CREDENTIALS": "/ours", "SOPS_AGE_KEY_FILE": "/ours", "GNUPGHOME": "/ours",
    "VAULT_TOKEN": "ours", "SECRET": "x", "SOPS_AGE_KEY_CMD": "rm -rf /", "LD_PRELOAD": "x",
}  # fmt: skip
AMBIENT = {"AWS_REGION", "AWS_PROFILE", "AZURE_CLIENT_ID", "GOOGLE_APPLICATION_CREDENTIALS"}
OWN = {
    "PATH",
    "HOME",
    "HTTPS_PROXY",
    "SSL_CERT_FILE",
    "XDG_CONFIG_HOME",
    "TMPDIR",
    "GNUPGHOME",
    "LC_ALL",
    "AZURE_TOKEN_CREDENTIALS",
}


def environment(data):
    return process_environment(parse_keys(data), "/home", SURROUNDING)


def added(data):
    """What the entries add to an environment, and what they take away of the service's own logins."""
    with_keys, without = environment(data), environment({})
    return {k: v for k, v in with_keys.items() if without.get(k) != v}, set(without) - set(with_keys)


def test_without_keys_only_what_leads_out_and_the_clouds_logins():
    assert set(environment({})) == OWN | AMBIENT
    assert environment({})["HOME"] == "/home"
    assert environment({})["GNUPGHOME"] == "/home/gnupg"


def test_age():
    entry = f"# comment\n\n{IDENTITY}\r\n  {IDENTITY}  \n".encode()
    assert added({"x.agekey": entry, "ignored": b"x", "x.agekey.bak": b"x"}) == (
        {"SOPS_AGE_KEY": f"{IDENTITY}\n{IDENTITY}"},
        set(),
    )


def test_vault():
    assert added({"sops.vault-token": b"hvs.token\n"}) == ({"VAULT_TOKEN": "hvs.token"}, set())


def test_aws():
    text = b"aws_access_key_id: AKIA\naws_secret_access_key: secret\naws_session_token: 1234\n"
    assert added({"sops.aws-kms": text}) == (
        {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "1234"},
        {"AWS_REGION", "AWS_PROFILE"},
    )


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"tenantId": "t", "clientId": "c", "clientSecret": "s"}, {"TENANT_ID": "t", "CLIENT_ID": "c", "CLIENT_SECRET": "s"}),
        (
            {"tenant": "t", "appId": "c", "password": "s", "displayName": "d"},
            {"TENANT_ID": "t", "CLIENT_ID": "c", "CLIENT_SECRET": "s"},
        ),
        ({"clientId": "c"}, {"CLIENT_ID": "c"}),
        ({"clientId": "c", "authorityHost": "https://h"}, {"CLIENT_ID": "c", "AUTHORITY_HOST": "https://h"}),
        (
            {
                "tenantId": "t",
                "clientId": "c",
                "clientCertificate": "PEM",
                "clientCertificatePassword": "pw",
                "clientCertificateSendChain": True,
            },
            {"TENANT_ID": "t", "CLIENT_ID": "c", "CLIENT_CERTIFICATE_PASSWORD": "pw", "CLIENT_SEND_CERTIFICATE_CHAIN": "true"},
        ),
    ],
)  # fmt: skip
def test_azure(given, wanted):
    for text in (json.dumps(given), "\n".join(f"{key}: {json.dumps(value)}" for key, value in given.items())):
        found, gone = added({"sops.azure-kv": text.encode()})
        assert found == {f"AZURE_{name}": value for name, value in wanted.items()}
        assert gone == set()
    files = parse_keys({"sops.azure-kv": json.dumps(given).encode()}).files
    assert files == ({"AZURE_CLIENT_CERTIFICATE_PATH": b"PEM"} if "clientCertificate" in given else {})


def test_google():
    text = json.dumps({"type": "service_account", "private_key": "-----BEGIN"}).encode()
    assert added({"sops.gcp-kms": text}) == ({}, {"GOOGLE_APPLICATION_CREDENTIALS"})
    assert parse_keys({"sops.gcp-kms": text}).files == {"GOOGLE_APPLICATION_CREDENTIALS": text}


REFUSED = {
    "an age identity with a typing error": ("a.agekey", b"# x\nAGE-SECRET-KEY-1secret", "line 2 is no age identity"),
    "an identity that makes sops run a plugin": ("a.agekey", b"AGE-PLUGIN-SECRET-1QQQQ", "line 1 is no age identity"),
    "an SSH key": ("a.agekey", b"-----BEGIN OPENSSH PRIVATE KEY-----\nsecret", "line 1 is no age identity"),
    "bytes": ("a.agekey", b"\xff\xfesecret", "it is not UTF-8"),
    "a NUL": ("sops.vault-token", b"secret\0", "it has a NUL character"),
    "no armour": ("a.asc", b"secret", "no armored key found"),
    "half a credential": ("sops.aws-kms", b"aws_access_key_id: secret", "it has no aws_secret_access_key"),
    "no YAML": ("sops.aws-kms", b"a: 'secret", "it is no YAML: line 1"),
    "a list": ("sops.aws-kms", b"- secret", "it is no mapping"),
    "too little": ("sops.azure-kv", b"tenantId: secret", "it needs tenantId"),
    "no JSON": ("sops.gcp-kms", b"secret", "it is no JSON"),
    "an account that reads our files": (
        "sops.gcp-kms",
        b'{"type": "external_account", "credential_source": {"file": "/var/run/secrets/token"}, "x": "secret"}',
        "it is no credential of type service_account or authorized_user",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "why"), REFUSED.values(), ids=REFUSED)
def test_refused_without_quoting_it(name, data, why):
    with pytest.raises(KeyRefused) as raised:
        parse_keys({name: data})
    assert str(raised.value).startswith(f"failed to import '{name}' data: {why}")
    assert "secret\n" not in str(raised.value)
    assert "secret-" not in str(raised.value)
    assert data.decode("latin-1") not in str(raised.value)
    assert raised.value.__cause__ is None


def test_only_age_identities_of_the_shared_secret():
    keys = parse_keys({"a.agekey": IDENTITY.encode(), "b.asc": b"broken", "sops.vault-token": b"t"}, only_age=True)
    assert (keys.age, keys.pgp, keys.variables) == ([IDENTITY], {}, {})


def test_keys_are_not_printed():
    assert IDENTITY not in repr(parse_keys({"a.agekey": IDENTITY.encode()}))
