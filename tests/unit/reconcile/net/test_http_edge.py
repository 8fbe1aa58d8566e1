"""Retries, proxies, TLS and the wording of network errors."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from imagebot.demo.registry import Registry
from reconcile.errors import Invalid, LimitExceeded, TimedOut
from reconcile.net.client import Limits, make_client
from reconcile.net.errors import AnswerTooLarge, ConnectFailed, NetworkError, NetworkTimedOut, TlsFailed
from reconcile.net.guard import BODY_LIMIT
from reconcile.net.proxy import Proxy, ProxyEnvironment, make_proxy, proxy_from_secret
from reconcile.net.retry import DEADLINE, IDEMPOTENT, RetryPolicy, RetryTransport, retry_after
from reconcile.net.tls import DEFAULT, Tls, tls_from_secret
from tests.support.registry import BareServer, Exchange, FakeClock

NO_PROXY = ProxyEnvironment()


class Script(httpx.AsyncBaseTransport):
    """Answers with statuses or errors in turn."""

    def __init__(self, *steps: int | Exception, **headers: str) -> None:
        self.steps = list(steps)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.closed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return httpx.Response(step, headers=self.headers, request=request)


def temporary() -> NetworkError:
    return NetworkError("GET", "http://a/", "EOF", temporary=True)


async def send(transport: Script, request: httpx.Request | None = None, **options) -> tuple[int, list[float]]:
    clock = FakeClock()
    retry = RetryTransport(transport, RetryPolicy(**options), clock, luck=lambda: 1.0)
    response = await retry.handle_async_request(request or httpx.Request("GET", "http://a/"))
    return response.status_code, clock.slept


@pytest.mark.parametrize("status", [408, 429, 499, 500, 502, 503, 504, 522])
async def test_temporary_statuses_are_tried_three_times(status):
    assert await send(Script(status, status, 200)) == (200, [1.1, 3.3000000000000003])
    assert await send(Script(status, status, status)) == (status, [1.1, 3.3000000000000003])


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 501])
async def test_other_statuses_are_answers(status):
    assert await send(Script(status)) == (status, [])


async def test_temporary_errors_are_tried_again_and_others_not():
    assert await send(Script(temporary(), 200)) == (200, [1.1])
    with pytest.raises(NetworkError, match="EOF"):
        await send(Script(temporary(), temporary(), temporary()))
    script = Script(ConnectFailed("GET", "http://a/", "refused"), 200)
    with pytest.raises(ConnectFailed):
        await send(script)
    assert len(script.steps) == 1


async def test_only_what_may_be_repeated_is_repeated():
    post = httpx.Request("POST", "http://a/", content=b"x")
    assert await send(Script(503), post) == (503, [])
    with pytest.raises(NetworkError):
        await send(Script(temporary()), post)
    marked = httpx.Request("POST", "http://a/", content=b"x", extensions={IDEMPOTENT: True})
    assert await send(Script(503, 200), marked) == (200, [1.1])


async def test_retry_after_replaces_the_wait_within_its_cap():
    assert await send(Script(503, 200, Retry_After="12")) == (200, [12.0])
    assert await send(Script(503, 200, Retry_After="Thu, 01 Jan 2026 00:00:09 GMT")) == (200, [9.0])
    assert await send(Script(503, 200, Retry_After="31")) == (503, [])
    assert await send(Script(503, 200, Retry_After="soon")) == (200, [1.1])


async def test_nobody_waits_beyond_the_deadline():
    request = httpx.Request("GET", "http://a/", extensions={DEADLINE: 1000.0 + 5})
    assert await send(Script(503, 200, Retry_After="4"), request) == (200, [4.0])
    request = httpx.Request("GET", "http://a/", extensions={DEADLINE: 1000.0 + 5})
    assert await send(Script(503, 200, Retry_After="6"), request) == (503, [])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
        ("9" * 400, 999999999.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("Thu, 32 Jan 2026 00:01:00 GMT", None),
        ("Fri, 31 Dec 999999 23:59:59 GMT", None),
    ],
)
def test_retry_after_header(text, seconds):
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert retry_after(httpx.Headers({"Retry-After": text.encode()}), now) == seconds


# --- proxies


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        ("", "reg.example", 443, False),
        ("*", "reg.example", 443, True),
        ("example", "reg.example", 443, True),
        ("reg.example", "reg.example", 443, True),
        ("reg.example", "a.reg.example", 443, True),
        (".example", "reg.example", 443, True),
        (".reg.example", "reg.example", 443, False),
        ("*.example", "reg.example", 443, True),
        ("eg.example", "reg.example", 443, False),
        ("reg.example:443", "reg.example", 443, True),
        ("reg.example:444", "reg.example", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "reg.example", 443, False),
        ("10.0.0.0/x", "10.1.2.3", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("[fd00::1]:443", "fd00::1", 443, True),
        ("fd00::1", "fd00::1", 443, True),
        ("a, b ,reg.EXAMPLE ", "REG.example", 443, True),
        ("", "localhost", 5000, True),
        ("", "127.0.0.1", 5000, True),
        ("", "::1", 5000, True),
    ],
)
def test_proxy_exceptions(no_proxy, host, port, direct):
    environment = ProxyEnvironment.read({"HTTPS_PROXY": "proxy.example:3128", "NO_PROXY": no_proxy})
    assert environment.choose("https", host, port) == (None if direct else "http://proxy.example:3128")
    assert environment.choose("http", host, port) is None


def test_proxy_variables():
    read = ProxyEnvironment.read
    assert read({"http_proxy": "http://a"}).http == "http://a"
    assert read({"HTTP_PROXY": "http://b", "http_proxy": "http://a"}).http == "http://b"
    assert read({"HTTP_PROXY": "http://b", "REQUEST_METHOD": "GET"}).http is None
    assert read({"ALL_PROXY": "socks5://c"}).https == "socks5://c"
    assert "secret" not in repr(read({"HTTPS_PROXY": "http://u:secret@c"}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "secret 'ns/p': key 'address' not found"),
        ({"address": b""}, "secret 'ns/p': proxy address is empty"),
        (
            {"address": b"ftp://a"},
            "secret 'ns/p': proxy URL must use one of the supported schemes (http, https, socks5), got 'ftp'",
        ),
        (
            {"address": b"proxy:3128"},
            "secret 'ns/p': proxy URL must use one of the supported schemes (http, https, socks5), got ''",
        ),
        ({"address": b"http://" + b"x" * 2048}, "secret 'ns/p': proxy URL exceeds maximum length of 2048 characters"),
        ({"address": b"http://"}, "secret 'ns/p': failed to parse proxy address: no host"),
        ({"address": b"\xff"}, "secret 'ns/p': proxy address is not UTF-8 text"),
    ],
)
def test_proxy_secrets_that_do_not_fit(data, message):
    with pytest.raises(Invalid) as caught:
        proxy_from_secret("ns/p", data)
    assert str(caught.value) == message


def test_proxy_secrets():
    proxy = proxy_from_secret("ns/p", {"address": b"http://p.example:3128\n", "username": b"u", "password": b"secret"})
    assert proxy == Proxy("http://p.example:3128", "u", "secret")
    assert make_proxy("http://u:secret@p.example:3128") == Proxy("http://p.example:3128", "u", "secret")
    assert "secret" not in repr(proxy)
    assert "secret" not in str(proxy.to_httpx().url)


async def test_a_request_goes_through_its_proxy_with_its_credentials():
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(body=b"via proxy")

    async with (
        BareServer(handler) as server,
        make_client(proxy=make_proxy(f"http://u:pw@{server.host}"), environment=NO_PROXY) as client,
    ):
        response = await client.get("http://reg.example/v2/")
        assert response.text == "via proxy"
        assert server.exchanges[0].target == "http://reg.example/v2/"
        assert server.exchanges[0].headers["proxy-authorization"] == "Basic dTpwdw=="


async def test_a_proxy_that_is_not_there():
    async with BareServer(lambda exchange: exchange.answer()) as server:
        host = server.host
    async with make_client(proxy=make_proxy(f"http://{host}"), environment=NO_PROXY) as client:
        with pytest.raises(ConnectFailed, match=rf'^Get "http://reg.example/": .*dial tcp {host}: connect: connection refused$'):
            await client.get("http://reg.example/")


# --- TLS


class Authority:
    """A throw-away certificate authority."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self.name, self.key).add_extension(x509.BasicConstraints(True, None), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        self.certificate = builder.add_extension(identifier, critical=False).sign(self.key, hashes.SHA256())

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int = 1) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        return (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=3))
            .not_valid_after(now + dt.timedelta(days=days))
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, folder, address: str = "127.0.0.1", days: int = 1):
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = self._builder(subject, key, days).add_extension(names, critical=False).add_extension(authority, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / "tls.key").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return folder / "tls.crt", folder / "tls.key"


@pytest.fixture(scope="module")
def authority():
    return Authority("test authority")


async def test_a_private_authority_is_added_to_the_trusted_ones(authority, tmp_path):
    tls = tls_from_secret("ns/s", {"ca.crt": authority.pem})
    async with Registry(certificate=authority.issue(tmp_path)) as registry:
        async with make_client(tls=tls, environment=NO_PROXY) as client:
            assert (await client.get(f"{registry.url}/v2/")).status_code == 200
        async with make_client(environment=NO_PROXY) as client:
            with pytest.raises(TlsFailed) as caught:
                await client.get(f"{registry.url}/v2/")
        assert str(caught.value) == (
            f'Get "{registry.url}/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority'
        )


@pytest.mark.parametrize(
    ("address", "days", "text"),
    [("127.0.0.2", 1, "not valid for this IP address"), ("127.0.0.1", -1, "certificate has expired or is not yet valid")],
)
async def test_certificates_that_do_not_fit(authority, tmp_path, address, days, text):
    async with (
        Registry(certificate=authority.issue(tmp_path, address, days)) as registry,
        make_client(tls=Tls(ca=authority.pem), environment=NO_PROXY) as client,
    ):
        with pytest.raises(TlsFailed, match=text):
            await client.get(f"{registry.url}/v2/")


async def test_a_client_certificate_is_shown(authority, tmp_path):
    certificate, key = authority.issue(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.pem.decode())
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        peer = writer.get_extra_info("peercert")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + (b"seen" if peer else b"none"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        data = {"caFile": authority.pem, "certFile": certificate.read_bytes(), "keyFile": key.read_bytes()}
        async with make_client(tls=tls_from_secret("ns/s", data), environment=NO_PROXY) as client:
            assert (await client.get(f"https://127.0.0.1:{port}/")).text == "seen"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "secret 'ns/s' must contain either 'ca.crt' or both 'tls.crt' and 'tls.key'"),
        ({"tls.crt": b"x"}, "secret 'ns/s' contains 'tls.crt' but missing 'tls.key'"),
        ({"tls.key": b"x"}, "secret 'ns/s' contains 'tls.key' but missing 'tls.crt'"),
        ({"ca.crt": b"x"}, "failed to parse CA certificate"),
        ({"ca.crt": "ü".encode()}, "failed to parse CA certificate"),
        ({"tls.crt": b"x", "tls.key": b"secret-key"}, "failed to parse TLS certificate and key: "),
    ],
)
def test_tls_secrets_that_do_not_fit(data, message):
    with pytest.raises(Invalid) as caught:
        tls_from_secret("ns/s", data)
    assert str(caught.value).startswith(message)
    assert "secret-key" not in str(caught.value)


def test_tls_values_are_keys_and_keep_their_secret(authority, tmp_path):
    certificate, key = authority.issue(tmp_path)
    one, two = (Tls(authority.pem, certificate.read_bytes(), key.read_bytes()) for _ in range(2))
    assert {one: 1}[two] == 1
    assert "PRIVATE" not in repr(one)
    assert DEFAULT.context() is Tls().context()
    assert one.context() is two.context()  # built once, however often an object is looked at


# --- errors and limits


async def test_an_http_server_asked_by_https():
    async with Registry() as registry, make_client(environment=NO_PROXY) as client:
        with pytest.raises(TlsFailed, match="http: server gave HTTP response to HTTPS client"):
            await client.get(f"https://{registry.host}/v2/")


async def test_a_name_that_does_not_resolve():
    async with make_client(environment=NO_PROXY, retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(ConnectFailed, match=r'^Get "https://nowhere.invalid/": dial tcp: lookup nowhere.invalid: '):
            await client.get("https://nowhere.invalid/")


async def test_time_outs_are_ours():
    async def handler(exchange: Exchange) -> None:
        await asyncio.sleep(30)

    async with (
        BareServer(handler) as server,
        make_client(timeout=0.05, retry=RetryPolicy(attempts=1), environment=NO_PROXY) as client,
    ):
        with pytest.raises(NetworkTimedOut, match="context deadline exceeded") as caught:
            await client.get(f"http://{server.host}/")
        assert isinstance(caught.value, TimedOut)


async def test_limits_are_per_client_and_per_request():
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(body=b"x" * 100)

    async with BareServer(handler) as server, make_client(limits=Limits(body=99), environment=NO_PROXY) as client:
        with pytest.raises(AnswerTooLarge) as caught:
            await client.get(f"http://{server.host}/")
        assert isinstance(caught.value, LimitExceeded)
        request = client.build_request("GET", f"http://{server.host}/", extensions={BODY_LIMIT: 100})
        assert len((await client.send(request)).content) == 100


async def test_who_we_are_and_nothing_of_the_home_folder(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("default login ann password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with BareServer(lambda exchange: exchange.answer()) as server, make_client(environment=NO_PROXY) as client:
        await client.get(f"http://{server.host}/")
        headers = server.exchanges[0].headers
        assert headers["user-agent"].startswith("imagebot/")
        assert headers["accept-encoding"] == "gzip"
        assert "authorization" not in headers


def test_errors_keep_no_secret():
    error = NetworkError("GET", "https://u:secret-word@a/?token=secret-word", "Authorization: Basic c2VjcmV0LXdvcmQ=")
    assert "secret-word" not in str(error)
    assert "c2VjcmV0" not in str(error)
