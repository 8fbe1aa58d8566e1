"""Hook calls on real sockets: what is sent, what is a yes, what errors say, when calls are repeated, and that every call ends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from canary.api import Webhook
from canary.exported import Exported
from canary.hooks import MAX_ANSWER, MAX_TEXT, HookFailed, Hooks
from reconcile.runtime.metrics import Metrics
from tests.support.canary_posts import recorded, site
from tests.support.clock import VirtualClock
from tests.support.pki import Authority
from tests.support.webhooks import Receiver, Reply

GONE = "http://127.0.0.1:9"  # the discard port: nobody listens there


class EagerClock(VirtualClock):
    """Time that jumps over every pause; remembers them."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._passed += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> EagerClock:
    return EagerClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def hooks(clock: EagerClock, metrics: Metrics) -> AsyncIterator[Hooks]:
    made = Hooks(clock, Exported(metrics, "istio"))
    yield made
    await made.aclose()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as server:
        yield server


def hook(url: str, **more: object) -> Webhook:
    return Webhook.model_validate({"name": "gate", "url": url, **more})


async def failure(hooks: Hooks, asked: Webhook) -> str:
    with pytest.raises(HookFailed) as caught:
        await hooks.call(site(), asked, phase="Progressing", checksum="c1")
    return str(caught.value)


# --- what is sent


@pytest.mark.parametrize("story", [name for name, entry in recorded().items() if "hooks" in entry])
async def test_calls_are_the_recorded_ones(story: str, hooks: Hooks, receiver: Receiver) -> None:
    calls = recorded()[story]["hooks"]
    for call in calls:
        receiver.script(call["path"], Reply(call["answered"], b"no"))
        body = call["body"]
        asked = hook(f"{receiver.url}{call['path']}")
        try:
            await hooks.call(site(body["name"], body["namespace"]), asked, phase=body["phase"], checksum=body["checksum"])
            passed = True
        except HookFailed:
            passed = False
        assert passed == (call["answered"] <= 202)
    assert [
        {"method": r.method, "path": r.path, "headers": {"Content-Type": r.headers["content-type"]}, "body": r.data}
        for r in receiver.requests
    ] == [{key: call[key] for key in ("method", "path", "headers", "body")} for call in calls]


async def test_keys_come_in_the_order_of_gos_encoder(hooks: Hooks, receiver: Receiver) -> None:
    asked = hook(receiver.url, metadata={"zone": "b", "cmd": 'hey -z 1m "http://web/"'})
    await hooks.call(site(), asked, phase="Progressing", checksum="7d9f")
    assert receiver.requests[0].body.decode() == (
        '{"name":"web","namespace":"prod","phase":"Progressing","checksum":"7d9f",'
        '"metadata":{"cmd":"hey -z 1m \\"http://web/\\"","zone":"b"}}'
    )


async def test_metadata_without_entries_are_left_out(hooks: Hooks, receiver: Receiver) -> None:
    await hooks.call(site(), hook(receiver.url, metadata={}), phase="Progressing", checksum="c")
    assert "metadata" not in receiver.requests[0].data


async def test_headers_beyond_the_usual_ones_are_not_sent(hooks: Hooks, receiver: Receiver) -> None:
    await hooks.call(site(), hook(receiver.url), phase="Progressing", checksum="c")
    usual = {"host", "user-agent", "accept", "accept-encoding", "connection", "content-length"}
    assert set(receiver.requests[0].headers) - usual == {"content-type"}


async def test_events_carry_their_text_type_and_instant(hooks: Hooks, receiver: Receiver, clock: EagerClock) -> None:
    await hooks.event(site(), f"{receiver.url}/all", "Warning", "Halt advancement", phase="Progressing", checksum="c1")
    millis = str(int(clock.now().timestamp() * 1000))
    assert clock.now() == datetime(2026, 1, 1, tzinfo=UTC)
    assert receiver.requests[0].data == {
        "name": "web",
        "namespace": "prod",
        "phase": "Progressing",
        "checksum": "c1",
        "metadata": {"eventMessage": "Halt advancement", "eventType": "Warning", "timestamp": millis},
    }
    assert millis == "1767225600000"


async def test_metadata_of_an_event_hook_yield_to_the_events_own(hooks: Hooks, receiver: Receiver) -> None:
    listener = hook(receiver.url, type="event", metadata={"eventType": "mine", "team": "shop"})
    await hooks.event(site(), listener, "Normal", "Advance", phase="Progressing", checksum="c1")
    assert receiver.requests[0].data["metadata"] == {
        "eventMessage": "Advance",
        "eventType": "Normal",
        "team": "shop",
        "timestamp": "1767225600000",
    }


# --- yes and no


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_answers_up_to_202_are_a_yes(status: int, hooks: Hooks, receiver: Receiver) -> None:
    receiver.default = Reply(status, b"anything")
    await hooks.call(site(), hook(receiver.url), phase="Progressing", checksum="c")
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [203, 206, 300, 304, 400, 403, 404, 409, 418, 501])
async def test_the_body_of_other_answers_is_the_error(status: int, hooks: Hooks, receiver: Receiver) -> None:
    receiver.default = Reply(status, b"" if status == 304 else b"not yet\r\nask Ann\n")
    assert await failure(hooks, hook(receiver.url, retries=2)) == ("" if status == 304 else "not yet\r\nask Ann\n")
    assert len(receiver.requests) == 1


async def test_an_empty_body_is_an_empty_error(hooks: Hooks, receiver: Receiver) -> None:
    receiver.default = Reply(403)
    assert await failure(hooks, hook(receiver.url)) == ""


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
async def test_the_body_of_a_retried_answer_is_lost(status: int, hooks: Hooks, receiver: Receiver, clock: EagerClock) -> None:
    receiver.default = Reply(status, b"never shown")
    assert await failure(hooks, hook(f"{receiver.url}/smoke")) == f"POST {receiver.url}/smoke giving up after 1 attempt(s)"
    assert clock.pauses == []


async def test_the_recorded_text_of_a_failing_check(hooks: Hooks, receiver: Receiver) -> None:
    receiver.default = Reply(500, b"no")
    text = await failure(hooks, hook(f"{receiver.url}/st-hook-pre-rollout-fails/smoke", type="pre-rollout"))
    messages = [message for _, message in recorded()["hook-pre-rollout-fails"]["events"]]
    prefix = "Halt web.st-hook-pre-rollout-fails advancement pre-rollout check smoke failed "
    assert messages.count(prefix + text.replace(receiver.url, "http://SINK")) == 2


# --- repetition


async def test_pauses_double_up_to_half_a_minute(hooks: Hooks, receiver: Receiver, clock: EagerClock) -> None:
    receiver.default = Reply(500)
    text = await failure(hooks, hook(receiver.url, retries=7))
    assert text == f"POST {receiver.url} giving up after 8 attempt(s)"
    assert clock.pauses == [1, 2, 4, 8, 16, 30, 30]
    assert len(receiver.requests) == 8


async def test_a_later_yes_counts(hooks: Hooks, receiver: Receiver, clock: EagerClock) -> None:
    receiver.script("/", Reply(503), Reply(hang_up=True))
    await hooks.call(site(), hook(receiver.url + "/", retries=3), phase="Progressing", checksum="c")
    assert len(receiver.requests) == 3
    assert clock.pauses == [1, 2]


async def test_a_later_no_is_its_own_text(hooks: Hooks, receiver: Receiver) -> None:
    receiver.script("/", Reply(500, b"lost"), Reply(403, b"closed"))
    assert await failure(hooks, hook(receiver.url + "/", retries=3)) == "closed"


@pytest.mark.parametrize(("status", "pauses"), [(429, [7]), (503, [7]), (500, [1])])
async def test_what_the_receiver_asks_for_is_waited(
    status: int, pauses: list[float], hooks: Hooks, receiver: Receiver, clock: EagerClock
) -> None:
    receiver.script("/", Reply(status, headers={"Retry-After": "7"}))
    await hooks.call(site(), hook(receiver.url + "/", retries=1), phase="Progressing", checksum="c")
    assert clock.pauses == pauses


async def test_a_receiver_cannot_make_a_call_wait_for_ever(hooks: Hooks, receiver: Receiver, clock: EagerClock) -> None:
    receiver.default = Reply(503, headers={"Retry-After": "86400"})
    assert await failure(hooks, hook(receiver.url, retries=5)) == f"POST {receiver.url} giving up after 1 attempt(s)"
    assert clock.pauses == []


async def test_endless_retries_end_within_the_hour(hooks: Hooks, receiver: Receiver, clock: EagerClock) -> None:
    receiver.default = Reply(500)
    text = await failure(hooks, hook(receiver.url, retries=1_000_000))
    assert sum(clock.pauses) < 3600
    assert text == f"POST {receiver.url} giving up after {len(receiver.requests)} attempt(s)"
    assert len(receiver.requests) > 100


async def test_without_a_listener_the_cause_is_behind(hooks: Hooks, clock: EagerClock) -> None:
    text = await failure(hooks, hook(GONE, retries=1))
    assert text == (f'POST {GONE} giving up after 2 attempt(s): Post "{GONE}": dial tcp 127.0.0.1:9: connect: connection refused')
    assert clock.pauses == [1]


@pytest.mark.parametrize("retries", [0, 2])
async def test_each_attempt_has_its_own_time(retries: int, hooks: Hooks, receiver: Receiver) -> None:
    receiver.default = Reply(hang=True)
    url = f"{receiver.url}/gate"
    text = await failure(hooks, hook(url, timeout="500ms", retries=retries))
    assert text == (
        f'POST {url} giving up after {retries + 1} attempt(s): Post "{url}": context deadline exceeded '
        "(Client.Timeout exceeded while awaiting headers)"
    )
    assert len(receiver.requests) == retries + 1


@pytest.mark.parametrize("status", [200, 403])
async def test_a_body_that_never_ends_is_no_yes(status: int, hooks: Hooks, receiver: Receiver) -> None:
    receiver.default = Reply(status, b"yes", hang_body=True)
    assert await failure(hooks, hook(receiver.url, timeout="200ms", retries=3)) == (
        "error reading body: context deadline exceeded (Client.Timeout or context cancellation while reading body)"
    )
    assert len(receiver.requests) == 1


async def test_a_body_cut_off_half_way_is_no_yes(hooks: Hooks, receiver: Receiver) -> None:
    receiver.default = Reply(200, b"yes, all is well", closes_after=5)
    assert await failure(hooks, hook(receiver.url)) == "error reading body: unexpected EOF"


# --- sizes and secrets


async def test_a_long_answer_is_cut_in_messages(hooks: Hooks, receiver: Receiver) -> None:
    receiver.default = Reply(404, b"x" * 5000)
    assert await failure(hooks, hook(receiver.url)) == "x" * (MAX_TEXT - 1) + "…"


@pytest.mark.parametrize("status", [200, 404])
async def test_no_more_than_the_beginning_of_an_answer_is_read(status: int, hooks: Hooks, receiver: Receiver) -> None:
    receiver.default = Reply(status, b"y" * (8 * MAX_ANSWER), closes_after=3 * MAX_ANSWER)  # to read on would be an error
    if status == 200:
        await hooks.call(site(), hook(receiver.url), phase="Progressing", checksum="c")
    else:
        assert await failure(hooks, hook(receiver.url)) == "y" * (MAX_TEXT - 1) + "…"
    assert len(receiver.requests) == 1


async def test_credentials_of_a_url_are_sent_and_not_shown(hooks: Hooks, receiver: Receiver) -> None:
    receiver.default = Reply(500)
    url = receiver.url.replace("http://", "http://ann:s3cret@") + "/gate?token=t0psecret"
    text = await failure(hooks, hook(url))
    assert text == f"POST {receiver.url}/gate?token=***** giving up after 1 attempt(s)"
    assert receiver.requests[0].headers["authorization"] == "Basic YW5uOnMzY3JldA=="
    down = await failure(hooks, hook(f"{GONE.replace('//', '//ann:s3cret@')}/gate"))
    assert down.startswith(f'POST {GONE}/gate giving up after 1 attempt(s): Post "{GONE}/gate": ')


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (
            "gate.prod/open",
            'POST gate.prod/open giving up after 1 attempt(s): Post "gate.prod/open": unsupported protocol scheme ""',
        ),
        ("ftp://gate/", 'POST ftp://gate/ giving up after 1 attempt(s): Post "ftp://gate/": unsupported protocol scheme "ftp"'),
        ("http:///open", 'POST http:///open giving up after 1 attempt(s): Post "http:///open": http: no Host in request URL'),
    ],
)
async def test_urls_that_lead_nowhere_fail_like_a_call(url: str, text: str, hooks: Hooks, clock: EagerClock) -> None:
    assert await failure(hooks, hook(url, retries=3)) == text
    assert clock.pauses == []


@pytest.mark.parametrize("url", ["http://gate:port/", "http://[::1/", "http://gate/\x7f"])
async def test_urls_that_are_none_fail_like_a_call(url: str, hooks: Hooks) -> None:
    assert (await failure(hooks, hook(url))).startswith(f'parse "{url}": ')


async def test_a_timeout_that_is_none_fails_like_a_call(hooks: Hooks, receiver: Receiver) -> None:
    assert (await failure(hooks, hook(receiver.url, timeout="10sec"))).startswith('time: invalid duration "10sec"')
    assert receiver.requests == []


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_these_redirects_are_followed_by_get(status: int, hooks: Hooks, receiver: Receiver) -> None:
    receiver.script("/old", Reply(status, headers={"Location": "/new"}))
    await hooks.call(site(), hook(f"{receiver.url}/old"), phase="Progressing", checksum="c")
    last = receiver.requests[-1]
    assert (last.method, last.path, last.body) == ("GET", "/new", b"")
    assert "content-type" not in last.headers


@pytest.mark.parametrize("status", [307, 308])
async def test_these_redirects_repeat_the_call_on_another_host(status: int, hooks: Hooks, receiver: Receiver) -> None:
    async with Receiver() as other:
        receiver.script("/old", Reply(status, headers={"Location": f"{other.url}/new"}))
        url = receiver.url.replace("http://", "http://ann:s3cret@")
        await hooks.call(site(), hook(f"{url}/old"), phase="Progressing", checksum="c")
        (last,) = other.requests
        assert (last.method, last.path, last.body) == ("POST", "/new", receiver.requests[0].body)
        assert last.headers["content-type"] == "application/json"
        assert last.headers["host"] == other.url.removeprefix("http://")
        assert "authorization" in receiver.requests[0].headers
        assert "authorization" not in last.headers


async def test_the_answer_behind_a_redirect_is_the_answer(hooks: Hooks, receiver: Receiver) -> None:
    receiver.script("/old", Reply(302, headers={"Location": "/new"}))
    receiver.script("/new", Reply(404, b"nothing here"))
    assert await failure(hooks, hook(f"{receiver.url}/old")) == "nothing here"


async def test_a_ring_of_redirects_is_left_once(hooks: Hooks, receiver: Receiver, clock: EagerClock) -> None:
    receiver.default = Reply(307, headers={"Location": "/ring"})
    text = await failure(hooks, hook(f"{receiver.url}/ring", retries=2))
    shown = f"{receiver.url}/ring"
    assert text == f'POST {shown} giving up after 1 attempt(s): Post "{shown}": stopped after 10 redirects'
    assert len(receiver.requests) == 10


async def test_a_redirect_to_nowhere_is_an_answer(hooks: Hooks, receiver: Receiver) -> None:
    receiver.default = Reply(302, b"moved, but where?")
    assert await failure(hooks, hook(receiver.url)) == "moved, but where?"


async def test_a_redirect_to_another_scheme_is_refused(hooks: Hooks, receiver: Receiver) -> None:
    receiver.default = Reply(302, headers={"Location": "file:///etc/passwd"})
    text = await failure(hooks, hook(receiver.url, retries=2))
    assert text.endswith('unsupported protocol scheme "file"')
    assert len(receiver.requests) == 1


# --- TLS


@pytest.fixture
async def strangers(tmp_path: Path) -> AsyncIterator[Receiver]:
    certificate, key = Authority().server(["127.0.0.1"])
    pair = tmp_path / "pair.pem"
    pair.write_bytes(certificate + key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair)
    async with Receiver(context) as server:
        yield server


async def test_certificates_of_strangers_are_refused_once(hooks: Hooks, strangers: Receiver, clock: EagerClock) -> None:
    text = await failure(hooks, hook(strangers.url, retries=2))
    assert text.startswith(f'POST {strangers.url} giving up after 1 attempt(s): Post "{strangers.url}": tls: failed to verify')
    assert clock.pauses == []


async def test_disable_tls_takes_any_certificate(hooks: Hooks, strangers: Receiver) -> None:
    await hooks.call(site(), hook(strangers.url, disableTLS=True), phase="Progressing", checksum="c")
    assert len(strangers.requests) == 1
    await failure(hooks, hook(strangers.url))  # what one hook allows, the next does not inherit
    assert len(strangers.requests) == 1


# --- many at once


async def test_calls_are_bounded_and_events_have_room_of_their_own(
    clock: EagerClock, metrics: Metrics, receiver: Receiver
) -> None:
    hooks = Hooks(clock, Exported(metrics, "istio"), slots=2)
    receiver.script("/gate", *[Reply(hang=True)] * 5)
    calls = [
        asyncio.create_task(hooks.call(site(), hook(f"{receiver.url}/gate", timeout="600s"), phase="Waiting", checksum="c"))
        for _ in range(5)
    ]
    await receiver.received(2)
    await hooks.event(site(), f"{receiver.url}/events", "Normal", "told meanwhile", phase="Waiting", checksum="c")
    assert receiver.paths == ["/gate", "/gate", "/events"]
    assert metrics.registry.get_sample_value("imagebot_canary_webhooks_waiting") == 3
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert metrics.registry.get_sample_value("imagebot_canary_webhooks_waiting") == 0
    await hooks.call(site(), hook(f"{receiver.url}/free"), phase="Waiting", checksum="c")  # every place was given back
    await hooks.aclose()


async def test_time_and_failures_are_counted(hooks: Hooks, metrics: Metrics, receiver: Receiver) -> None:
    receiver.script("/", Reply(403))
    await failure(hooks, hook(receiver.url + "/", type="confirm-rollout"))
    await hooks.call(site(), hook(receiver.url + "/", type="confirm-rollout"), phase="Waiting", checksum="c")
    await hooks.call(site(), hook(receiver.url + "/"), phase="Progressing", checksum="c")
    value = metrics.registry.get_sample_value
    assert value("imagebot_canary_webhook_seconds_count", {"type": "confirm-rollout"}) == 2
    assert value("imagebot_canary_webhook_seconds_count", {"type": "rollout"}) == 1
    labels = {"canary": "prod/web"}
    assert value("imagebot_canary_webhook_failures_total", {**labels, "type": "confirm-rollout"}) == 1
    assert value("imagebot_canary_webhook_failures_total", {**labels, "type": "rollout"}) == 0


def test_recorded_hooks_are_there() -> None:
    assert sum(len(entry.get("hooks", ())) for entry in recorded().values()) == 14
