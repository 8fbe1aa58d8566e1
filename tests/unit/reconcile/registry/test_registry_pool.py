"""Clients are shared where they may be, bounded, and polite to their registries."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from imagebot.demo.door import Account
from reconcile.net.proxy import Proxy
from reconcile.net.tls import Tls
from reconcile.registry.budget import Budget, BudgetPolicy
from reconcile.registry.errors import CredentialError, Paused
from reconcile.registry.keychain import Credential
from reconcile.registry.memory import Hosts
from reconcile.registry.names import parse_repository
from tests.support.registry import BareServer, Exchange, FakeClock, FixedKeychain, TestRegistry, make_pool

ANN, BOB = (FixedKeychain(Credential(name, "pw")) for name in ("ann", "bob"))


async def test_one_client_for_what_is_the_same():
    async with make_pool() as pool:
        one, other = parse_repository("a.example/x/y"), parse_repository("b.example/x/y")
        client = await pool.client(one)
        assert await pool.client(parse_repository("a.example/other/z")) is client
        different = [
            await pool.client(other),
            await pool.client(one, keychain=ANN),
            await pool.client(one, keychain=BOB),
            await pool.client(one, insecure=True),
            await pool.client(one, tls=Tls(ca=b"x")),
            await pool.client(one, proxy=Proxy("http://p")),
        ]
        assert len({id(entry) for entry in [client, *different]}) == 7
        assert await pool.client(one, keychain=FixedKeychain(Credential("ann", "pw"))) is different[1]
        assert len(pool) == 7


async def test_somebody_elses_token_is_not_used():
    account = Account("ann", "pw", scheme="bearer")
    async with TestRegistry(account=account) as registry, make_pool() as pool:
        registry.push_image("acme/app", "1.0.0")
        repository = registry.repository("acme/app")
        await (await pool.client(repository, keychain=ANN)).list_tags(repository)
        for keychain in (BOB, None):
            with pytest.raises(Exception, match="UNAUTHORIZED"):
                await (await pool.client(repository, keychain=keychain)).list_tags(repository)


async def test_the_pool_is_bounded_and_a_retired_client_still_works():
    async with TestRegistry() as registry, make_pool(max_clients=2) as pool:
        registry.push_image("acme/app", "1.0.0")
        repository = registry.repository("acme/app")
        first = await pool.client(repository)
        await first.list_tags(repository)
        for number in range(5):
            await pool.client(parse_repository(f"reg{number}.example/a/b"))
        assert len(pool) == 2
        assert first._http is None
        assert (await first.list_tags(repository)).tags == ("1.0.0",)
        assert first._http is None  # opened again for this, and closed again


async def test_a_client_in_use_is_not_closed_under_the_hands_of_its_user():
    release = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if exchange.target != "/v2/":
            await release.wait()
        await exchange.answer(body=b'{"tags":["v1"]}')

    async with BareServer(handler) as server, make_pool(max_clients=1) as pool:
        repository = server.repository("acme/app")
        client = await pool.client(repository)
        scan = asyncio.create_task(client.list_tags(repository))
        while not any("tags" in exchange.target for exchange in server.exchanges):
            await asyncio.sleep(0.01)
        await pool.client(parse_repository("reg.example/a/b"))
        release.set()
        assert (await scan).tags == ("v1",)
        assert client._http is None


async def test_an_unknown_provider():
    async with make_pool() as pool:
        with pytest.raises(CredentialError, match="no login for provider 'oracle'"):
            await pool.client(parse_repository("a.example/x/y"), provider="oracle")


def request(host: str = "reg.example") -> httpx.Request:
    return httpx.Request("GET", f"https://{host}/v2/")


async def test_no_more_than_so_many_requests_at_once_and_per_host():
    running: dict[str, int] = {}
    most: dict[str, int] = {}

    async def handler(exchange: Exchange) -> None:
        host = exchange.headers["host"]
        running[host] = running.get(host, 0) + 1
        most[host] = max(most.get(host, 0), running[host])
        await asyncio.sleep(0.01)
        running[host] -= 1
        await exchange.answer(body=b'{"tags":[]}')

    budget = Budget(BudgetPolicy(concurrency=3))
    async with BareServer(handler) as server, make_pool(budget=budget) as pool:
        repositories = [server.repository(f"acme/app{number}") for number in range(20)]
        client = await pool.client(repositories[0])
        await asyncio.gather(*(client.list_tags(repository) for repository in repositories))
        assert most == {server.host: 3}
        assert len(server.exchanges) == 21


async def test_the_rate_is_kept_after_the_burst():
    clock = FakeClock()
    budget = Budget(BudgetPolicy(rate=10, burst=5), clock)
    for _ in range(25):
        await budget.acquire(request())
        budget.release(request())
    assert clock.seconds - 1000 == pytest.approx(2.0)
    await budget.acquire(request("other.example"))
    assert clock.seconds - 1000 == pytest.approx(2.0)


async def test_a_short_pause_is_waited_for_and_a_long_one_is_an_error():
    clock = FakeClock()
    budget = Budget(BudgetPolicy(patience=30, longest_pause=600), clock)
    budget.pause("reg.example", 20)
    await budget.acquire(request())
    budget.release(request())
    assert clock.slept == [20.0]
    budget.pause("reg.example", 10**9)
    assert budget.paused("reg.example") == 600
    budget.pause("reg.example", 5)
    assert budget.paused("reg.example") == 600
    with pytest.raises(Paused, match="next request in 600s"):
        await budget.acquire(request())
    assert budget._hosts["reg.example"].users == 0
    assert budget.paused("elsewhere.example") == 0


async def test_a_cancelled_wait_gives_its_turn_back():
    budget = Budget(BudgetPolicy(concurrency=1))
    await budget.acquire(request())
    waiting = asyncio.create_task(budget.acquire(request()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    budget.release(request())
    async with asyncio.timeout(1):
        await budget.acquire(request())


async def test_hosts_are_forgotten_unless_paused_or_in_use():
    clock = FakeClock()
    budget = Budget(BudgetPolicy(hosts=3), clock)
    budget.pause("paused.example", 100)
    await budget.acquire(request("used.example"))
    for number in range(20):
        await budget.acquire(request(f"r{number}.example"))
        budget.release(request(f"r{number}.example"))
    assert len(budget._hosts) == 3
    assert {"paused.example", "used.example"} <= set(budget._hosts)
    busy = [request(f"busy{number}.example") for number in range(5)]
    for entry in busy:  # more at once than are remembered: none is forgotten while in use
        await budget.acquire(entry)
    for entry in busy:
        budget.release(entry)
    await budget.acquire(request("last.example"))
    assert len(budget._hosts) == 3


def test_what_is_known_about_hosts_is_bounded_and_ages():
    hosts = Hosts(max_entries=2)
    for number in range(5):
        hosts.learn_scheme(f"r{number}", "http", now=0.0)
        hosts.learn_page_size(f"r{number}", 100)
    assert hosts.scheme("r0", 1.0) is None
    assert hosts.scheme("r4", 1.0) == "http"
    assert hosts.scheme("r4", 3600.0) is None
    assert hosts.page_size("r0", 1000) == 1000
    assert hosts.page_size("r4", 1000) == 100
