"""Cloud logins against strict doubles of the documented endpoints, on loopback sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from reconcile.net.client import make_client
from reconcile.net.proxy import ProxyEnvironment
from reconcile.registry.cloud import Channels, LoginCache
from reconcile.registry.cloud_aws import Aws, AwsEndpoints
from reconcile.registry.cloud_azure import Azure, AzureEndpoints
from reconcile.registry.cloud_gcp import SCOPES, Gcp, GcpEndpoints
from reconcile.registry.errors import CredentialError
from reconcile.registry.keychain import Credential
from reconcile.registry.names import parse_repository
from reconcile.registry.pool import cloud_providers
from reconcile.registry.sigv4 import AwsKeys, sign
from tests.support.registry import BareServer, Exchange, FakeClock, make_pool

EXAMPLE = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("method", "url", "headers", "body", "signature"),
    [
        ("GET", "https://example.amazonaws.com/", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "https://example.amazonaws.com/", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "GET",
            "https://example.amazonaws.com/?Param2=value2&Param1=value1",
            {},
            b"",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "POST",
            "https://example.amazonaws.com/",
            {"Content-Type": "application/x-www-form-urlencoded"},
            b"Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
)
def test_signatures_equal_those_of_awss_published_test_suite(method, url, headers, body, signature):
    moment = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    signed = sign(
        EXAMPLE, method=method, url=url, headers=headers, body=body, region="us-east-1", service="service", moment=moment
    )
    assert signed["authorization"].endswith(f"Signature={signature}")
    assert signed["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, ")


def test_secrets_of_keys_do_not_show():
    assert "wJal" not in repr(EXAMPLE)


class Cloud:
    """Answers by method and path; a request nobody expects is a 418 and fails the test."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.unexpected: list[str] = []

    def on(self, key: str, answer: object) -> None:
        self.answers[key] = answer

    async def __call__(self, exchange: Exchange) -> None:
        answer = self.answers.get(f"{exchange.method} {urlsplit(exchange.target).path}")
        if callable(answer):
            answer = answer(exchange)
        if answer is None:
            self.unexpected.append(f"{exchange.method} {exchange.target}")
            await exchange.answer("418 I'm a teapot", b"unexpected")
        elif isinstance(answer, tuple):
            status, body = answer
            await exchange.answer(status, body)
        elif isinstance(answer, bytes):
            await exchange.answer(body=answer, Metadata_Flavor="Google")
        else:
            await exchange.answer(body=orjson.dumps(answer), Metadata_Flavor="Google")


@contextlib.asynccontextmanager
async def channels():
    async with make_client(environment=ProxyEnvironment()) as http, make_client(environment=ProxyEnvironment()) as direct:
        yield Channels(http, direct)


async def log_in(provider, registry):
    async with channels() as opened:
        return await provider.log_in(registry, opened)


def form(exchange: Exchange) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(exchange.body.decode(), strict_parsing=True).items()}


# --- AWS


def check_signature(exchange: Exchange, keys: AwsKeys, region: str, service: str, clock: FakeClock) -> None:
    headers = {name: exchange.headers[name] for name in ("content-type", "x-amz-target")}
    url = f"http://{exchange.headers['host']}{exchange.target}"
    wanted = sign(
        keys,
        method=exchange.method,
        url=url,
        headers=headers,
        body=exchange.body,
        region=region,
        service=service,
        moment=clock.now(),
    )
    assert exchange.headers["authorization"] == wanted["authorization"]
    assert exchange.headers["x-amz-date"] == wanted["x-amz-date"]
    assert exchange.headers.get("x-amz-security-token", "") == keys.session_token


def ecr_answer(clock: FakeClock, public: bool = False):
    token = base64.b64encode(b"AWS:the-password").decode()
    entry = {"authorizationToken": token, "expiresAt": clock.now().timestamp() + 43200}
    return {"authorizationData": entry if public else [entry]}


def aws(server: BareServer, clock: FakeClock, **environment: str) -> Aws:
    base = f"http://{server.host}"
    endpoints = AwsEndpoints(
        ecr=base + "/ecr/{region}", ecr_public=base + "/public", sts=base + "/sts/{region}", container=base, metadata=base
    )
    return Aws(environment, endpoints, clock)


async def test_aws_keys_of_the_environment():
    cloud, clock = Cloud(), FakeClock()
    cloud.on("POST /ecr/eu-west-1", ecr_answer(clock))
    async with BareServer(cloud) as server:
        provider = aws(server, clock, AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="SK", AWS_SESSION_TOKEN="ST")
        issued = await log_in(provider, ECR)
        assert issued.credential == Credential("AWS", "the-password")
        assert issued.life == 43200
        (exchange,) = server.exchanges
        assert exchange.headers["x-amz-target"] == "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
        assert exchange.headers["content-type"] == "application/x-amz-json-1.1"
        assert exchange.body == b"{}"
        check_signature(exchange, AwsKeys("AK", "SK", "ST"), "eu-west-1", "ecr", clock)


async def test_aws_public_registry():
    cloud, clock = Cloud(), FakeClock()
    cloud.on("POST /public", ecr_answer(clock, public=True))
    async with BareServer(cloud) as server:
        provider = aws(server, clock, AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="SK")
        assert (await log_in(provider, "public.ecr.aws")).credential == Credential("AWS", "the-password")
        assert server.exchanges[0].headers["x-amz-target"] == "SpencerFrontendService.GetAuthorizationToken"
        check_signature(server.exchanges[0], AwsKeys("AK", "SK"), "us-east-1", "ecr-public", clock)


STS_ANSWER = b"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult><Credentials>
    <AccessKeyId>AK2</AccessKeyId><SecretAccessKey>S/K+2&amp;</SecretAccessKey><SessionToken>ST2</SessionToken>
    <Expiration>2026-01-01T01:00:00Z</Expiration>
  </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


async def test_aws_web_identity(tmp_path):
    cloud, clock = Cloud(), FakeClock()
    cloud.on("POST /sts/eu-west-1", STS_ANSWER)
    cloud.on("POST /ecr/eu-west-1", ecr_answer(clock))
    (tmp_path / "token").write_text("the-web-identity\n")
    async with BareServer(cloud) as server:
        environment = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"), "AWS_ROLE_ARN": "arn:aws:iam::1:role/r"}
        await log_in(aws(server, clock, **environment), ECR)
        assert form(server.exchanges[0]) == {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": "arn:aws:iam::1:role/r",
            "RoleSessionName": "imagebot",
            "WebIdentityToken": "the-web-identity",
        }
        check_signature(server.exchanges[1], AwsKeys("AK2", "S/K+2&", "ST2"), "eu-west-1", "ecr", clock)


KEYS = {"AccessKeyId": "AK3", "SecretAccessKey": "SK3", "Token": "ST3", "Expiration": "2026-01-01T01:00:00Z"}


async def test_aws_container_credentials(tmp_path):
    cloud, clock = Cloud(), FakeClock()
    cloud.on("GET /v1/credentials", KEYS)
    cloud.on("POST /ecr/eu-west-1", ecr_answer(clock))
    (tmp_path / "token").write_text("pod-identity")
    async with BareServer(cloud) as server:
        environment = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{server.host}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
        }
        await log_in(aws(server, clock, **environment), ECR)
        assert server.exchanges[0].headers["authorization"] == "pod-identity"
        check_signature(server.exchanges[1], AwsKeys("AK3", "SK3", "ST3"), "eu-west-1", "ecr", clock)
        await log_in(aws(server, clock, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI="/v1/credentials"), ECR)
        assert not cloud.unexpected


async def test_aws_container_endpoint_elsewhere_is_refused():
    async with BareServer(Cloud()) as server:
        provider = aws(server, FakeClock(), AWS_CONTAINER_CREDENTIALS_FULL_URI="http://evil.example/keys")
        with pytest.raises(CredentialError, match=r"host 'evil.example' is not allowed without https"):
            await log_in(provider, ECR)
        assert not server.exchanges


async def test_aws_instance_metadata_version_2():
    cloud, clock = Cloud(), FakeClock()

    def wants_token(answer):
        def reply(exchange: Exchange):
            return answer if exchange.headers.get("x-aws-ec2-metadata-token") == "session" else ("401 Unauthorized", b"")

        return reply

    cloud.on(
        "PUT /latest/api/token", lambda e: b"session" if e.headers["x-aws-ec2-metadata-token-ttl-seconds"] == "300" else None
    )
    cloud.on("GET /latest/meta-data/iam/security-credentials/", wants_token(b"node-role"))
    cloud.on("GET /latest/meta-data/iam/security-credentials/node-role", wants_token(KEYS))
    cloud.on("POST /ecr/eu-west-1", ecr_answer(clock))
    async with BareServer(cloud) as server:
        await log_in(aws(server, clock), ECR)
        assert not cloud.unexpected
        check_signature(server.exchanges[-1], AwsKeys("AK3", "SK3", "ST3"), "eu-west-1", "ecr", clock)


async def test_aws_shared_credentials_file(tmp_path):
    cloud, clock = Cloud(), FakeClock()
    cloud.on("POST /ecr/eu-west-1", ecr_answer(clock))
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text("[ci]\naws_access_key_id = AK4\naws_secret_access_key = S%K4\n")
    async with BareServer(cloud) as server:
        await log_in(aws(server, clock, HOME=str(tmp_path), AWS_PROFILE="ci"), ECR)
        check_signature(server.exchanges[0], AwsKeys("AK4", "S%K4"), "eu-west-1", "ecr", clock)


async def test_aws_without_any_identity():
    async with BareServer(Cloud()) as server:
        with pytest.raises(CredentialError, match="no credentials in the environment"):
            await log_in(aws(server, FakeClock(), AWS_EC2_METADATA_DISABLED="true"), ECR)


async def test_aws_refusal_is_quoted_without_the_key():
    cloud, clock = Cloud(), FakeClock()
    body = b'{"__type":"AccessDeniedException","Message":"User is not authorized"}'
    cloud.on("POST /ecr/eu-west-1", ("400 Bad Request", body))
    async with BareServer(cloud) as server:
        with pytest.raises(CredentialError) as caught:
            await log_in(aws(server, clock, AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="very-secret"), ECR)
        assert "aws: GetAuthorizationToken" in str(caught.value)
        assert "User is not authorized" in str(caught.value)
        assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("registry", "endpoint"),
    [
        (ECR, "https://api.ecr.eu-west-1.amazonaws.com/"),
        ("1.dkr.ecr.cn-north-1.amazonaws.com.cn", "https://api.ecr.cn-north-1.amazonaws.com.cn/"),
        ("1.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "https://ecr-fips.us-gov-west-1.amazonaws.com/"),
        ("1.dkr-ecr.eu-west-1.on.aws", "https://ecr.eu-west-1.api.aws/"),
        ("1.dkr.ecr.eusc-de-east-1.amazonaws.eu", "https://api.ecr.eusc-de-east-1.amazonaws.eu/"),
        ("public.ecr.aws", "https://api.ecr-public.us-east-1.amazonaws.com/"),
    ],
)
def test_aws_endpoints(registry, endpoint):
    assert Aws({})._place(registry).endpoint == endpoint


@pytest.mark.parametrize(
    ("provider", "registry", "text"),
    [
        ("aws", "ghcr.io", "invalid AWS registry: 'ghcr.io'. must match "),
        ("aws", f"{ECR}.evil.example", "invalid AWS registry"),
        ("aws", f"{ECR}:5000", "invalid AWS registry"),
        ("aws", "1.dkr.ecr.a/b.amazonaws.com", "invalid AWS registry"),
        ("azure", "ghcr.io", "invalid Azure registry: 'ghcr.io'. must match "),
        ("azure", "x.azurecr.io.evil.example", "invalid Azure registry"),
        ("gcp", "ghcr.io", "invalid GCP registry: 'ghcr.io'. must match "),
        ("gcp", "eu-docker.pkg.dev.evil.example", "invalid GCP registry"),
    ],
)
def test_hosts_that_do_not_fit_their_provider(provider, registry, text):
    with pytest.raises(CredentialError) as caught:
        cloud_providers({})[provider].key(registry)
    assert text in str(caught.value)


# --- Azure


def jwt(**claims: object) -> str:
    parts = ({"alg": "none"}, claims, {})
    return ".".join(base64.urlsafe_b64encode(orjson.dumps(part)).rstrip(b"=").decode() for part in parts)


def azure(server: BareServer, clock: FakeClock, **environment: str) -> Azure:
    base = f"http://{server.host}"
    return Azure(environment, AzureEndpoints(base, base + "/{registry}/oauth2/exchange", base), clock)


@pytest.mark.parametrize(
    ("registry", "resource"), [("acme.azurecr.io", "management.azure.com"), ("acme.azurecr.cn", "management.chinacloudapi.cn")]
)
async def test_azure_workload_identity(tmp_path, registry, resource):
    cloud, clock = Cloud(), FakeClock()
    cloud.on("POST /tenant-1/oauth2/v2.0/token", {"access_token": "entra", "expires_in": 3600})
    refresh = jwt(exp=clock.now().timestamp() + 10800)
    cloud.on(f"POST /{registry}/oauth2/exchange", {"refresh_token": refresh})
    (tmp_path / "token").write_text("federated")
    async with BareServer(cloud) as server:
        environment = {
            "AZURE_CLIENT_ID": "client-1",
            "AZURE_TENANT_ID": "tenant-1",
            "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"),
        }
        issued = await log_in(azure(server, clock, **environment), registry)
        assert issued.credential == Credential("00000000-0000-0000-0000-000000000000", refresh)
        assert issued.life == 10800
        assert form(server.exchanges[0]) == {
            "grant_type": "client_credentials",
            "client_id": "client-1",
            "scope": f"https://{resource}/.default",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": "federated",
        }
        assert form(server.exchanges[1]) == {"grant_type": "access_token", "service": registry, "access_token": "entra"}


async def test_azure_managed_identity():
    cloud, clock = Cloud(), FakeClock()

    def metadata(exchange: Exchange):
        query = {name: values[0] for name, values in parse_qs(urlsplit(exchange.target).query).items()}
        wanted = {"api-version": "2018-02-01", "resource": "https://management.azure.com/", "client_id": "client-1"}
        return {"access_token": "entra"} if exchange.headers.get("metadata") == "true" and query == wanted else None

    cloud.on("GET /metadata/identity/oauth2/token", metadata)
    cloud.on("POST /acme.azurecr.io/oauth2/exchange", {"refresh_token": jwt(exp=clock.now().timestamp() + 60)})
    async with BareServer(cloud) as server:
        assert (await log_in(azure(server, clock, AZURE_CLIENT_ID="client-1"), "acme.azurecr.io")).life == 60
        assert not cloud.unexpected


async def test_azure_refusal():
    cloud, clock = Cloud(), FakeClock()
    cloud.on(
        "GET /metadata/identity/oauth2/token",
        ("400 Bad Request", b'{"error":"invalid_request","error_description":"Identity not found"}'),
    )
    async with BareServer(cloud) as server:
        with pytest.raises(
            CredentialError,
            match=r"azure: managed identity: GET .*: unexpected status code 400: invalid_request: Identity not found",
        ):
            await log_in(azure(server, clock), "acme.azurecr.io")


@pytest.mark.parametrize("token", ["x", "a.b.c", jwt(exp="soon"), jwt()])
async def test_azure_refresh_token_without_expiry(token):
    cloud, clock = Cloud(), FakeClock()
    cloud.on("GET /metadata/identity/oauth2/token", {"access_token": "entra"})
    cloud.on("POST /acme.azurecr.io/oauth2/exchange", {"refresh_token": token})
    async with BareServer(cloud) as server:
        with pytest.raises(CredentialError, match="no readable expiry"):
            await log_in(azure(server, clock), "acme.azurecr.io")


# --- Google


def gcp(server: BareServer, clock: FakeClock, **environment: str) -> Gcp:
    return Gcp(environment, GcpEndpoints(f"http://{server.host}/token", f"http://{server.host}"), clock)


METADATA = "/computeMetadata/v1/instance/service-accounts/default/token"


async def test_gcp_metadata_server():
    cloud, clock = Cloud(), FakeClock()
    cloud.on(
        f"GET {METADATA}",
        lambda e: {"access_token": "T", "expires_in": 1800} if e.headers.get("metadata-flavor") == "Google" else None,
    )
    async with BareServer(cloud) as server:
        issued = await log_in(gcp(server, clock), "europe-docker.pkg.dev")
        assert issued.credential == Credential("oauth2accesstoken", "T")
        assert issued.life == 1800
        assert parse_qs(urlsplit(server.exchanges[0].target).query) == {"scopes": [SCOPES.replace(" ", ",")]}


async def test_gcp_metadata_answer_of_somebody_else():
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(body=b'{"access_token":"T"}')

    async with BareServer(handler) as server:
        with pytest.raises(CredentialError, match="does not come from a metadata server"):
            await log_in(gcp(server, FakeClock()), "gcr.io")


async def test_gcp_service_account_key(tmp_path):
    cloud, clock = Cloud(), FakeClock()
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    def token(exchange: Exchange):
        sent = form(exchange)
        assert sent["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        head, body, signature = sent["assertion"].split(".")
        decode = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))  # noqa: E731
        key.public_key().verify(decode(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        assert orjson.loads(decode(head)) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
        now = int(clock.now().timestamp())
        url = f"http://{exchange.headers['host']}/token"
        assert orjson.loads(decode(body)) == {"iss": "bot@acme", "scope": SCOPES, "aud": url, "iat": now, "exp": now + 3600}
        return {"access_token": "T", "expires_in": 3599}

    cloud.on("POST /token", token)
    async with BareServer(cloud) as server:
        document = {"type": "service_account", "client_email": "bot@acme", "private_key_id": "k1", "private_key": pem.decode()}
        file = tmp_path / "key.json"
        file.write_bytes(orjson.dumps(document | {"token_uri": f"http://{server.host}/token"}))
        issued = await log_in(gcp(server, clock, GOOGLE_APPLICATION_CREDENTIALS=str(file)), "gcr.io")
        assert issued.credential.password == "T"


async def test_gcp_workload_identity_federation(tmp_path):
    cloud, clock = Cloud(), FakeClock()
    (tmp_path / "subject").write_text('{"value": "the-subject"}')

    def exchange_token(exchange: Exchange):
        assert form(exchange) == {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": "//iam.example/pool",
            "scope": SCOPES,
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token": "the-subject",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        }
        return {"access_token": "federated", "expires_in": 3600}

    def impersonate(exchange: Exchange):
        assert exchange.headers["authorization"] == "Bearer federated"
        assert orjson.loads(exchange.body) == {"scope": SCOPES.split(), "lifetime": "3600s"}
        return {"accessToken": "T", "expireTime": "2026-01-01T00:30:00Z"}

    cloud.on("POST /sts", exchange_token)
    cloud.on("POST /impersonate", impersonate)
    async with BareServer(cloud) as server:
        document = {
            "type": "external_account",
            "audience": "//iam.example/pool",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"http://{server.host}/sts",
            "credential_source": {
                "file": str(tmp_path / "subject"),
                "format": {"type": "json", "subject_token_field_name": "value"},
            },
        }
        file = tmp_path / "external.json"
        file.write_bytes(orjson.dumps(document))
        provider = gcp(server, clock, GOOGLE_APPLICATION_CREDENTIALS=str(file))
        assert (await log_in(provider, "gcr.io")).credential.password == "federated"
        file.write_bytes(orjson.dumps(document | {"service_account_impersonation_url": f"http://{server.host}/impersonate"}))
        issued = await log_in(provider, "gcr.io")
        assert issued.credential.password == "T"
        assert issued.life == 1800


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", "is not JSON"),
        (b"[]", "unknown type 'None'"),
        (b'{"type":"odd"}', "unknown type 'odd'"),
        (b'{"type":"service_account","client_email":"a","private_key":"x"}', "the private key cannot be read"),
        (b'{"type":"service_account","client_email":"a"}', "has no 'private_key'"),
        (b'{"type":"external_account","token_url":"ftp://x"}', "is not an https URL"),
    ],
)
async def test_gcp_credentials_files_that_do_not_fit(tmp_path, content, text):
    file = tmp_path / "key.json"
    file.write_bytes(content)
    async with BareServer(Cloud()) as server:
        with pytest.raises(CredentialError, match=text):
            await log_in(gcp(server, FakeClock(), GOOGLE_APPLICATION_CREDENTIALS=str(file)), "gcr.io")
        assert not server.exchanges


# --- the cache


class Counting:
    name = "counting"

    def __init__(self, life: float) -> None:
        self.life, self.logins = life, 0

    def key(self, registry: str) -> str:
        return registry

    async def log_in(self, registry, channels):
        from reconcile.registry.cloud import Issued

        self.logins += 1
        await asyncio.sleep(0)
        return Issued(Credential("u", f"{registry}-{self.logins}"), self.life)


async def test_logins_are_kept_for_four_fifths_of_their_life_and_at_most_an_hour():
    for life, until in ((1000.0, 800.0), (43200.0, 3600.0)):
        clock = FakeClock()
        cache, provider = LoginCache(clock=clock), Counting(life)
        await asyncio.gather(*(cache.credential(provider, "a", channels) for _ in range(5)))
        clock.seconds += until - 1
        await cache.credential(provider, "a", channels)
        assert provider.logins == 1
        clock.seconds += 1
        await cache.credential(provider, "a", channels)
        assert provider.logins == 2
        assert not cache._locks


async def test_the_login_cache_is_bounded():
    cache, provider = LoginCache(max_entries=3, clock=FakeClock()), Counting(1000.0)
    for number in range(10):
        await cache.credential(provider, f"r{number}", channels)
    assert len(cache) == 3


async def test_a_host_that_does_not_fit_shows_when_the_client_is_used():
    async with make_pool(providers=cloud_providers({})) as pool:
        repository = parse_repository("127.0.0.1:1/acme/app")
        client = await pool.client(repository, provider="aws")

        async def handler(exchange: Exchange) -> None:
            await exchange.answer(body=b'{"tags":[]}')

        async with BareServer(handler) as server:
            repository = server.repository("acme/app")
            client = await pool.client(repository, provider="aws")
            with pytest.raises(CredentialError, match="invalid AWS registry"):
                await client.list_tags(repository)


async def test_an_unreachable_metadata_service_is_a_credential_error():
    async with BareServer(Cloud()) as server:
        base = f"http://{server.host}"
    provider = Gcp({}, GcpEndpoints(base, base), FakeClock())
    with pytest.raises(CredentialError, match=r"gcp login: Get .*connection refused"):
        await LoginCache().credential(provider, "gcr.io", channels)
