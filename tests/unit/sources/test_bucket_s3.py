"""S3: signatures of Amazon's published examples, addresses, regions, styles, certificates, token services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconcile.errors import Failed, Invalid, Stalled
from reconcile.registry.errors import CredentialError
from reconcile.registry.sigv4 import AwsKeys, sign
from reconcile.sources.buckets.client import BadAnswer, BucketError
from reconcile.sources.buckets.s3 import EMPTY_SHA256
from reconcile.sources.buckets.s3_endpoint import place_of
from tests.support.bucket_servers import S3Keys, S3Server, once, signature_v4, status
from tests.support.bucket_world import NAMESPACE, World, listed, world_of
from tests.support.registry import Exchange

MIB = 1024 * 1024
EXAMPLE = S3Keys()
MOMENT = datetime(2013, 5, 24, tzinfo=UTC)

PUBLISHED = [
    ("/test.txt", {"range": "bytes=0-9"}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
    ("/?lifecycle", {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    ("/?max-keys=2&prefix=J", {}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
]
"""Requests and signatures in "Signature Calculations for the Authorization Header" of the Amazon S3 API reference."""


@pytest.mark.parametrize(("target", "headers", "signature"), PUBLISHED)
def test_signatures_equal_those_of_amazons_examples_for_s3(target: str, headers: dict[str, str], signature: str):
    signed = sign(
        AwsKeys(EXAMPLE.access, EXAMPLE.secret),
        method="GET",
        url=f"https://examplebucket.s3.amazonaws.com{target}",
        headers={**headers, "x-amz-content-sha256": EMPTY_SHA256},
        body=b"",
        region="us-east-1",
        service="s3",
        moment=MOMENT,
    )
    assert signed["authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize(("target", "headers", "signature"), PUBLISHED)
def test_the_double_signs_as_amazon_does(target: str, headers: dict[str, str], signature: str):
    sent = {**headers, "host": "examplebucket.s3.amazonaws.com", "x-amz-content-sha256": EMPTY_SHA256}
    sent["x-amz-date"] = "20130524T000000Z"
    found = signature_v4("GET", target, sent, sorted(sent), EMPTY_SHA256, sent["x-amz-date"], "us-east-1", EXAMPLE.secret)
    assert found == signature


@pytest.mark.parametrize(
    ("endpoint", "region", "url", "signed"),
    [
        ("s3.amazonaws.com", None, "https://files.s3.amazonaws.com", "us-east-1"),
        ("s3.amazonaws.com", "eu-west-1", "https://files.s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("s3.eu-west-1.amazonaws.com", None, "https://files.s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("s3-eu-west-1.amazonaws.com", None, "https://files.s3-eu-west-1.amazonaws.com", "eu-west-1"),
        (
            "s3.dualstack.us-gov-west-1.amazonaws.com",
            None,
            "https://files.s3.dualstack.us-gov-west-1.amazonaws.com",
            "us-gov-west-1",
        ),
        ("s3.cn-north-1.amazonaws.com.cn", None, "https://files.s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        (
            "bucket.vpce-0a1b2c-3d.s3.eu-central-1.vpce.amazonaws.com",
            None,
            "https://files.bucket.vpce-0a1b2c-3d.s3.eu-central-1.vpce.amazonaws.com",
            "eu-central-1",
        ),
        ("oss-cn-hangzhou.aliyuncs.com", None, "https://files.oss-cn-hangzhou.aliyuncs.com", "us-east-1"),
        ("minio.example.com:9000", None, "https://minio.example.com:9000/files", "us-east-1"),
        ("minio.example.com:443", "here", "https://minio.example.com/files", "here"),
        ("https://minio.example.com", "", "https://minio.example.com/files", "us-east-1"),
        ("s3.amazonaws.com.evil.example", None, "https://s3.amazonaws.com.evil.example/files", "us-east-1"),
        ("[::1]:9000", None, "https://[::1]:9000/files", "us-east-1"),
    ],
)
def test_where_buckets_are(endpoint: str, region: str | None, url: str, signed: str):
    place = place_of(endpoint, "files", region=region, insecure=False)
    assert (place.url, place.region) == (url, signed)


def test_a_bucket_with_dots_is_asked_by_path_where_there_are_certificates():
    assert place_of("s3.amazonaws.com", "a.b", region=None, insecure=False).url == "https://s3.amazonaws.com/a.b"
    assert place_of("s3.amazonaws.com", "a.b", region=None, insecure=True).url == "http://a.b.s3.amazonaws.com"
    assert place_of("s3.amazonaws.com", "Old_Name", region=None, insecure=False).url == "https://s3.amazonaws.com/Old_Name"


@pytest.mark.parametrize(
    ("endpoint", "bucket", "region"),
    [
        ("", "files", None),
        ("host/path", "files", None),
        ("host?x=1", "files", None),
        ("user:secret@host", "files", None),
        ("http://host", "files", None),
        ("ftp://host", "files", None),
        ("[::1", "files", None),
        ("host", "", None),
        ("host", "../other", None),
        ("host", "a/b", None),
        ("host", "a..b", None),
        ("s3.amazonaws.com", "evil.example/", None),
        ("host", "files", "eu\r\nx"),
        ("host", "files", "eu/../x"),
    ],
)
def test_what_is_no_place(endpoint: str, bucket: str, region: str | None):
    with pytest.raises(Invalid) as caught:
        place_of(endpoint, bucket, region=region, insecure=False)
    assert "secret" not in str(caught.value)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with world_of("generic") as made:
        made.store.put("a.yaml", "one")
        yield made


def s3(world: World) -> S3Server:
    assert isinstance(world.server, S3Server)
    return world.server


async def test_a_bucket_in_another_region_is_found_with_one_more_request(world: World, tmp_path: Path):
    s3(world).region = "eu-north-1"
    async with world.opened() as client:
        assert await listed(client) == ["a.yaml"]
        assert len(world.server.exchanges) == 2
        assert await listed(client) == ["a.yaml"]
    assert len(world.server.exchanges) == 3
    async with world.opened(region="eu-north-1") as client:
        await listed(client)
    assert len(world.server.exchanges) == 4


async def test_a_service_that_names_region_after_region_is_not_followed(world: World):
    regions = iter(["eu-a-1", "eu-b-1", "eu-c-1"])

    async def moved(exchange: Exchange) -> None:
        await exchange.answer("301 Moved Permanently", x_amz_bucket_region=next(regions), Location="http://127.0.0.1:1/")

    world.store.faults.append(once(moved, times=9))
    async with world.opened() as client:
        with pytest.raises(BucketError, match="301"):
            await listed(client)
    assert len(world.server.exchanges) == 2


async def test_a_redirect_is_not_followed(world: World):
    world.store.faults.append(once(status("302 Found", Location="http://127.0.0.1:1/stolen")))
    async with world.opened() as client:
        with pytest.raises(BucketError, match="302 Found"):
            await listed(client)


async def test_virtual_hosted_style_through_a_proxy(world: World, tmp_path: Path):
    """The double is the proxy: it sees the host that Amazon would be asked by, and checks the signature for it."""
    world.secrets.put("proxy", address=f"http://{world.server.host}", username="me", password="through")
    async with world.opened(
        endpoint="s3.eu-west-3.amazonaws.com", proxySecretRef={"name": "proxy"}, region="us-east-1"
    ) as client:
        assert await listed(client) == ["a.yaml"]
        (entry,) = [entry async for page in client.pages("") for entry in page]
        await client.fetch(entry, tmp_path / "a", MIB)
    assert (tmp_path / "a").read_text() == "one"
    assert set(s3(world).hosts) == {"files.s3.eu-west-3.amazonaws.com"}
    assert world.server.exchanges[0].headers["proxy-authorization"].startswith("Basic ")


async def test_a_public_bucket_needs_no_login(world: World):
    s3(world).keys = None
    async with world.opened(secretRef=None) as client:
        assert await listed(client) == ["a.yaml"]
    assert "authorization" not in world.server.exchanges[0].headers


async def test_a_list_that_goes_round_in_a_circle_ends(world: World):
    async def circle(exchange: Exchange) -> None:
        more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>"
        await exchange.answer(body=b"<ListBucketResult>" + more + b"</ListBucketResult>")

    world.store.faults.append(once(circle, times=99))
    async with world.opened() as client:
        with pytest.raises(BadAnswer, match="circle"):
            await listed(client)
    assert len(world.server.exchanges) == 2


# --- credentials


async def test_ldap_users_get_keys_once_for_many_passes(world: World):
    server = s3(world)
    server.keys = S3Keys("temporary", "made-for-ldap", "session-token")
    server.ldap["jane"] = "p&ss wörd"
    world.secrets.put("ldap", username="jane", password="p&ss wörd")
    sts = {"provider": "ldap", "endpoint": f"http://{server.host}/sts", "secretRef": {"name": "ldap"}}
    access = world.access()
    for _ in range(3):
        async with access.opened(NAMESPACE, world.spec(secretRef=None, sts=sts)) as client:
            assert await listed(client) == ["a.yaml"]
    assert world.store.counts["LOGIN"] == 1


async def test_keys_for_ldap_users_are_made_anew_before_they_end(world: World):
    server = s3(world)
    server.keys = S3Keys("temporary", "made-for-ldap", "session-token")
    server.expiration = "2026-01-01T00:15:00Z"
    server.ldap["jane"] = "pass"
    world.secrets.put("ldap", username="jane", password="pass")
    sts = {"provider": "ldap", "endpoint": f"http://{server.host}/sts", "secretRef": {"name": "ldap"}}
    access = world.access()
    for seconds, logins in ((0, 1), (600, 1), (200, 2)):
        world.clock.seconds += seconds
        async with access.opened(NAMESPACE, world.spec(secretRef=None, sts=sts)) as client:
            await listed(client)
        assert world.store.counts["LOGIN"] == logins


async def test_a_wrong_ldap_password_is_told_without_it(world: World):
    s3(world).ldap["jane"] = "right"
    world.secrets.put("ldap", username="jane", password="mistaken")
    sts = {"provider": "ldap", "endpoint": f"http://{s3(world).host}/sts", "secretRef": {"name": "ldap"}}
    async with world.opened(secretRef=None, sts=sts) as client:
        with pytest.raises(CredentialError, match=r"AssumeRoleWithLDAPIdentity: POST .* 403: .*Access Denied") as caught:
            await listed(client)
    assert "mistaken" not in str(caught.value)


async def test_a_web_identity_becomes_keys_at_the_token_service_of_the_spec(world: World, tmp_path: Path):
    server = s3(world)
    server.keys = S3Keys("temporary", "made-for-a-role", "session-token")
    (tmp_path / "token").write_text("the.projected.token")
    server.web_tokens.add("the.projected.token")
    world.environment |= {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token")}
    sts = {"provider": "aws", "endpoint": f"http://{server.host}/sts"}
    async with world.opened(provider="aws", secretRef=None, sts=sts) as client:
        assert await listed(client) == ["a.yaml"]
    assert world.store.counts["LOGIN"] == 1


async def test_keys_of_the_environment(world: World):
    world.environment |= {"AWS_ACCESS_KEY_ID": EXAMPLE.access, "AWS_SECRET_ACCESS_KEY": EXAMPLE.secret}
    async with world.opened(provider="aws", secretRef=None) as client:
        assert await listed(client) == ["a.yaml"]


@pytest.mark.parametrize(
    "endpoint", ["https://sts.evil.example", "http://sts.amazonaws.com", "https://amazonaws.com.evil.example"]
)
async def test_the_identity_of_this_service_is_only_shown_to_amazon(world: World, endpoint: str):
    with pytest.raises(Stalled, match="would be shown the identity") as caught:
        async with world.opened(provider="aws", secretRef=None, sts={"provider": "aws", "endpoint": endpoint}):
            pass
    assert caught.value.reason == "InvalidSTSConfiguration"
    assert world.server.exchanges == []


@pytest.mark.parametrize("endpoint", ["https://[::1", "http://"])
async def test_an_address_of_a_token_service_that_is_none(world: World, endpoint: str):
    world.secrets.put("ldap", username="jane", password="x")
    sts = {"provider": "ldap", "endpoint": endpoint, "secretRef": {"name": "ldap"}}
    with pytest.raises(Stalled, match="failed to parse STS endpoint") as caught:
        async with world.opened(secretRef=None, sts=sts):
            pass
    assert caught.value.reason == "URLInvalid"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accesskey": "a"}, "invalid 'login' secret data: required fields 'accesskey' and 'secretkey'"),
        ({}, "invalid 'login' secret data: required fields 'accesskey' and 'secretkey'"),
        ({"accesskey": "a", "secretkey": b"\xff"}, "secret 'apps/login': a value is not UTF-8 text"),
        (None, "failed to get secret 'apps/login': secrets \"login\" not found"),
    ],
)
async def test_secrets_that_do_not_fit(world: World, values: dict[str, str | bytes] | None, message: str):
    del world.secrets.values["login"]
    if values is not None:
        world.secrets.put("login", **values)
    with pytest.raises(Failed) as caught:
        async with world.opened():
            pass
    assert (caught.value.reason, caught.value.message) == ("AuthenticationFailed", message)


async def test_an_address_that_is_none_is_an_error_of_the_client(world: World):
    with pytest.raises(Failed) as caught:
        async with world.opened(endpoint="host/path"):
            pass
    assert caught.value.reason == "ClientError"
