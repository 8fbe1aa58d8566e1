"""Who is sent which alert, with what, and that no chat can hold up or break anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import structlog.testing

from canary.alerts import notifier
from canary.alerts.notifier import Alerts
from canary.alerts.payloads import Level
from canary.api import API_VERSION, AlertProviderSpec, AlertProviderStatus
from canary.exported import Exported
from canary.settings import CanarySettings
from canary.site import Site
from reconcile.api.meta import Key, ObjectMeta
from reconcile.api.resource import AnyResource, Resource
from reconcile.errors import NotFound
from reconcile.ports.store import Secret
from reconcile.runtime.metrics import Metrics
from tests.support.canary_posts import recorded, site
from tests.support.webhooks import Receiver, Reply


class Shelf:
    """The part of a Store that alerts read."""

    def __init__(self) -> None:
        self.providers: dict[Key, AnyResource] = {}
        self.secrets: dict[Key, Secret] = {}

    def provider(self, name: str, namespace: str = "prod", **spec: Any) -> None:
        meta = ObjectMeta(name=name, namespace=namespace)
        model = AlertProviderSpec.model_validate({"type": "slack", **spec})
        self.providers[meta.key] = Resource(API_VERSION, "AlertProvider", meta, model, AlertProviderStatus())

    def keep(self, name: str, data: Mapping[str, bytes], namespace: str = "prod") -> None:
        key = Key(namespace, name)
        self.secrets[key] = Secret(key, "Opaque", data)

    async def get(self, kind: str, key: Key) -> AnyResource:
        assert kind == "AlertProvider"
        if key not in self.providers:
            raise NotFound(f'alertproviders.flagger.app "{key.name}" not found')
        return self.providers[key]

    async def secret(self, key: Key) -> Secret:
        if key not in self.secrets:
            raise NotFound(f'secrets "{key.name}" not found')
        return self.secrets[key]


class Bed:
    """Alerts, what they read, who hears them, and what was logged."""

    def __init__(self, chat: Receiver, log: list[Any]) -> None:
        self.shelf, self.metrics, self.chat, self.log = Shelf(), Metrics(), chat, log
        self.alerts = Alerts(self.shelf, Exported(self.metrics, "istio"))  # type: ignore[arg-type]

    async def send(self, where: Site, text: str = "text", level: Level = "info") -> None:
        await self.alerts.send(where, text, level, details=False)

    @property
    def lost(self) -> float | None:
        return self.metrics.registry.get_sample_value("imagebot_canary_lost_alerts_total", {"canary": "prod/web"})

    @property
    def errors(self) -> dict[str, str]:
        """Logged failures by the name of the entry."""
        return {line["alert"]: line["error"] for line in self.log if line["event"] == "alert could not be sent"}


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    with structlog.testing.capture_logs() as log:
        async with Receiver() as chat:
            yield Bed(chat, log)


def alerting(*entries: tuple[str, str | None], settings: CanarySettings | None = None) -> Site:
    """A Canary with entries of (name of provider, severity)."""
    alerts = [
        {"name": f"to-{name}", "providerRef": {"name": name}, **({} if severity is None else {"severity": severity})}
        for name, severity in entries
    ]
    return site(analysis={"interval": "10s", "threshold": 1, "stepWeight": 10, "alerts": alerts}, settings=settings)


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("info", ["/empty", "/info", "/unset"]),
        ("warn", ["/empty", "/info", "/unset", "/warn"]),
        ("error", ["/empty", "/error", "/info", "/unset", "/warn"]),
    ],
)
async def test_severities_choose_who_is_told(level: Level, told: list[str], bed: Bed) -> None:
    entries = {"info": "info", "warn": "warn", "error": "error", "empty": "", "unset": None}
    for name in entries:
        bed.shelf.provider(name, address=f"{bed.chat.url}/{name}")
    await bed.send(alerting(*entries.items()), level=level)
    assert sorted(bed.chat.paths) == told
    assert bed.errors == {}


@pytest.mark.parametrize("story", ["alerts-failure", "alerts-kinds-failure"])
async def test_a_recorded_error_is_sent_as_it_was(story: str, bed: Bed) -> None:
    sent = [alert for alert in recorded()[story]["alerts"] if "Failed checks threshold reached" in json.dumps(alert["body"])]
    namespace, entries = f"st-{story}", []
    for alert in sent:
        kind, name = alert["provider"].partition("/")[0], alert["path"].removesuffix("/slack").rpartition("/")[2]
        where = {"address": f"{bed.chat.url}{alert['path'].removesuffix('/slack')}"}
        if "Authorization" in alert["headers"]:
            token = alert["headers"]["Authorization"].removeprefix("Bearer ")
            bed.shelf.keep("hook", {"address": where.pop("address").encode(), "token": token.encode()}, namespace)
            where = {"secretRef": {"name": "hook"}}  # type: ignore[dict-item]
        known = kind if kind in {"msteams", "discord", "rocket", "gchat"} else "slack"
        bed.shelf.provider(name, namespace, type=known, channel="ops", username="bot", **where)
        entries.append({"name": name, "severity": "error", "providerRef": {"name": name}})
    analysis = {"interval": "10s", "threshold": 1, "stepWeights": [20, 50], "alerts": entries}
    await bed.send(site("web", namespace, analysis=analysis), "Failed checks threshold reached 1", "error")

    def order(alert: dict[str, Any]) -> str:
        return str(alert["path"])

    shown = {"content-type": "Content-Type", "authorization": "Authorization"}
    got = [
        {
            "method": request.method,
            "path": request.path,
            "headers": {shown[name]: value for name, value in request.headers.items() if name in shown},
            "body": request.data,
        }
        for request in bed.chat.requests
    ]
    wanted = [{key: alert[key] for key in ("method", "path", "headers", "body")} for alert in sent]
    assert sorted(got, key=order) == sorted(wanted, key=order)


async def test_names_have_defaults(bed: Bed) -> None:
    bed.shelf.provider("ops", address=bed.chat.url)
    await bed.send(alerting(("ops", "info")))
    body = bed.chat.requests[0].data
    assert (body["channel"], body["username"]) == ("general", "flagger")


async def test_canaries_without_alerts_speak_in_the_chat_of_the_service(bed: Bed) -> None:
    slack = CanarySettings(slack_url=f"{bed.chat.url}/slack", slack_token="t0ken", slack_channel="ops")
    teams = CanarySettings(slack_url=f"{bed.chat.url}/slack", slack_channel="ops", msteams_url=f"{bed.chat.url}/teams")
    await bed.send(alerting(settings=slack), level="info")
    await bed.send(alerting(settings=teams), level="error")
    await bed.send(alerting(settings=CanarySettings()), level="error")
    first, second = bed.chat.requests
    assert (first.path, first.headers["authorization"], first.data["username"]) == ("/slack", "Bearer t0ken", "flagger")
    assert (second.path, second.data["@type"]) == ("/teams", "MessageCard")
    assert bed.errors == {}


async def test_alerts_of_its_own_replace_the_chat_of_the_service(bed: Bed) -> None:
    settings = CanarySettings(msteams_url=f"{bed.chat.url}/teams")
    bed.shelf.provider("ops", address=f"{bed.chat.url}/ops")
    await bed.send(alerting(("ops", "error"), settings=settings), level="warn")
    assert bed.chat.paths == []  # the only entry wants errors, and it replaces the other all the same
    await bed.send(alerting(("ops", "error"), settings=settings), level="error")
    assert bed.chat.paths == ["/ops"]


async def test_a_chat_of_the_service_without_a_channel_is_told_so(bed: Bed) -> None:
    await bed.send(alerting(settings=CanarySettings(slack_url=bed.chat.url)))
    assert bed.errors == {"of the service": "empty channel"}


async def test_tokens_go_to_slack_only(bed: Bed) -> None:
    for kind in ("slack", "rocket"):
        bed.shelf.keep(kind, {"address": f"{bed.chat.url}/{kind}\n".encode(), "token": b"t0ken\n"})
        bed.shelf.provider(kind, type=kind, secretRef={"name": kind})
        await bed.send(alerting((kind, "info")))
    slack, rocket = bed.chat.requests
    assert slack.headers["authorization"] == "Bearer t0ken"
    assert "authorization" not in rocket.headers


async def test_providers_of_other_namespaces_are_read_there(bed: Bed) -> None:
    bed.shelf.keep("hook", {"address": f"{bed.chat.url}/shared".encode()}, "shared")
    bed.shelf.provider("ops", "shared", secretRef={"name": "hook"})
    alerts = [{"name": "ops", "providerRef": {"name": "ops", "namespace": "shared"}}]
    analysis = {"interval": "10s", "threshold": 1, "stepWeight": 10, "alerts": alerts}
    await bed.send(site(analysis=analysis))
    await bed.send(site(analysis=analysis, settings=CanarySettings(no_cross_namespace_refs=True)))
    assert bed.chat.paths == ["/shared"]
    assert bed.errors == {"ops": "can't access alert provider ops.shared, cross-namespace references are blocked"}


async def test_alerts_pass_through_the_proxy_of_their_provider(bed: Bed) -> None:
    bed.shelf.provider("ops", address="http://chat.example.test/hook", proxy=bed.chat.url.replace("//", "//ann:s3cret@"))
    await bed.send(alerting(("ops", "info")))
    (request,) = bed.chat.requests
    assert request.path == "http://chat.example.test/hook"
    assert request.headers["proxy-authorization"] == "Basic YW5uOnMzY3JldA=="


async def test_one_chat_that_fails_keeps_nobody_else_from_being_told(bed: Bed) -> None:
    gone = "http://127.0.0.1:9/s3cret-hook"
    bed.shelf.provider("good", address=f"{bed.chat.url}/good")
    bed.shelf.provider("refusing", address=f"{bed.chat.url}/refusing")
    bed.shelf.provider("gone", address=gone)
    bed.shelf.provider("odd", address="s3cret-hook")
    bed.shelf.provider("no-secret", secretRef={"name": "absent"})
    bed.shelf.provider("no-address", secretRef={"name": "empty"})
    bed.shelf.provider("no-text", secretRef={"name": "binary"})
    bed.shelf.provider("no-proxy", address=bed.chat.url, proxy="gopher://proxy")
    bed.shelf.keep("empty", {"token": b"s3cret-token"})
    bed.shelf.keep("binary", {"address": b"\xff\xfe"})
    bed.chat.script("/refusing", Reply(404, b"no such hook: s3cret-hook"))
    names = ["missing", "refusing", "gone", "odd", "no-secret", "no-address", "no-text", "no-proxy", "good"]
    await bed.send(alerting(*((name, "info") for name in names)))
    assert sorted(bed.chat.paths) == ["/good", "/refusing"]
    assert bed.errors == {
        "to-missing": 'alertproviders.flagger.app "missing" not found',
        "to-refusing": "slack: status 404",
        "to-gone": "slack: dial tcp 127.0.0.1:9: connect: connection refused",
        "to-odd": "the address is no http or https URL",
        "to-no-secret": 'secrets "absent" not found',
        "to-no-address": "alert provider no-address.prod: secret empty has no key address",
        "to-no-text": "the Secret of the alert provider is not text",
        "to-no-proxy": "proxy URL must use one of the supported schemes (http, https, socks5), got 'gopher'",
    }
    assert bed.lost == 8
    assert "s3cret" not in str(bed.log)


async def test_what_slack_refuses_with_a_friendly_status_is_no_success(bed: Bed) -> None:
    bed.shelf.keep("hook", {"address": f"{bed.chat.url}/api".encode(), "token": b"t0ken"})
    bed.shelf.provider("ops", secretRef={"name": "hook"})
    bed.chat.script("/api", Reply(200, b'{"ok":false,"error":"not_in_channel"}'), Reply(200, b'{"ok":true,"channel":"C1"}'))
    await bed.send(alerting(("ops", "info")))
    assert bed.errors == {"to-ops": "slack: not_in_channel"}
    await bed.send(alerting(("ops", "info")))
    assert bed.lost == 1


async def test_chats_that_hang_are_given_up_side_by_side(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "TIMEOUT", 0.2)
    names = [f"slow-{i}" for i in range(6)]
    for name in names:
        bed.shelf.provider(name, address=f"{bed.chat.url}/{name}")
        bed.chat.script(f"/{name}", Reply(hang=True))
    sending = asyncio.create_task(bed.send(alerting(*((name, "info") for name in names))))
    await bed.chat.received(6)
    assert bed.chat.most_open == 6
    await sending
    assert set(bed.errors.values()) == {"slack: no answer within 0s"}
    assert bed.lost == 6


async def test_many_alerts_wait_for_each_other_but_not_for_ever(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "LONGEST", 0.3)
    bed.alerts = Alerts(bed.shelf, Exported(Metrics(), "istio"), slots=2)  # type: ignore[arg-type]
    bed.chat.default = Reply(hang=True)
    names = [f"slow-{i}" for i in range(5)]
    for name in names:
        bed.shelf.provider(name, address=f"{bed.chat.url}/{name}")
    await bed.send(alerting(*((name, "info") for name in names)))
    assert len(bed.chat.requests) == 2
    assert set(bed.errors.values()) == {"not sent within 0s"}
    assert len(bed.errors) == 5


async def test_redirects_to_strangers_do_not_get_the_alert(bed: Bed) -> None:
    async with Receiver() as stranger:
        target = stranger.url.replace("127.0.0.1", "localhost")
        bed.chat.default = Reply(307, headers={"Location": f"{target}/elsewhere"})
        bed.shelf.provider("ops", address=f"{bed.chat.url}/hook")
        await bed.send(alerting(("ops", "info")))
        assert stranger.requests == []
    assert bed.errors == {"to-ops": "slack: redirect of a POST to another host refused: localhost"}
