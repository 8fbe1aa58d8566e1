"""Sends alerts to chats: to those that a Canary names, or to the one of the service when it names none.

A chat is no part of a rollout: one that is slow, gone or misconfigured is logged and counted, the others are told.
Addresses of chats are secrets, so they are never shown, nor are the answers that may repeat them.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

import orjson

from canary.alerts.payloads import FORMS, Level, Message, Voice, hook_address, make_message
from canary.api import AlertProviderSpec, AlertRef
from canary.exported import Exported
from canary.settings import CanarySettings
from canary.site import Site
from reconcile.api.meta import Key
from reconcile.errors import Invalid, ReconcileError
from reconcile.net.client import Limits, make_client
from reconcile.net.errors import NetworkError
from reconcile.net.proxy import make_proxy
from reconcile.net.retry import RetryPolicy
from reconcile.ports.store import Store
from reconcile.redact import redact
from reconcile.runtime.logs import get_logger

log = get_logger("canary alerts")

KIND = "AlertProvider"
TIMEOUT = 5.0
"""Seconds of one post."""
PACE = 0.02
"""Seconds after which the next receiver is told while the one before has not answered yet."""
LONGEST = 15.0
"""Seconds of one alert with all its receivers."""
SLOTS = 64
"""Posts at a time."""
MAX_ANSWER = 16 * 1024
DEFAULT_CHANNEL, DEFAULT_USERNAME = "general", "flagger"

_REFUSED = re.compile(rb'^\s*\{"ok":\s?false,\s?"error":\s?"([a-z_]{1,64})"')
"""What Slack's API answers, with status 200, to what it does not take."""
_ORDER: dict[str, int] = {"info": 0, "warn": 1, "error": 2}


class AlertFailed(ReconcileError):
    """An alert did not reach its chat; the text has no secrets."""


@dataclass(frozen=True, slots=True)
class Chat:
    """Where an alert goes; what is secret does not show in `repr`."""

    kind: str
    voice: Voice
    address: str = field(repr=False)
    token: str = field(default="", repr=False)
    proxy: str = field(default="", repr=False)


def is_told(entry: AlertRef, level: Level) -> bool:
    """Whether an entry of `analysis.alerts` gets an alert of this level; one without a severity gets all, as the manual says."""
    return _ORDER[level] >= _ORDER[entry.severity or "info"]


def chat_of_service(settings: CanarySettings) -> Chat | None:
    """The chat for Canaries without alerts of their own: Teams goes before Slack."""
    if settings.msteams_url:
        return Chat("msteams", Voice("", ""), settings.msteams_url, proxy=settings.msteams_proxy_url)
    if settings.slack_url:
        voice = Voice(settings.slack_channel, settings.slack_user)
        return Chat("slack", voice, settings.slack_url, settings.slack_token, settings.slack_proxy_url)
    return None


class Alerts:
    """Sends alerts; one instance per service."""

    def __init__(self, store: Store, exported: Exported, *, slots: int = SLOTS) -> None:
        self._store, self._exported = store, exported
        self._slots = asyncio.Semaphore(slots)

    async def send(self, site: Site, message: str, severity: Level, *, details: bool) -> None:
        """Tell every receiver, in the order of the manifest and side by side; never fails, and ends within `LONGEST`.

        Args:
            site: The Canary.
            message: In Flagger's words where it has some.
            severity: Decides who is told and the colour.
            details: Whether the plan of the run is shown too.
        """
        until = asyncio.get_running_loop().time() + LONGEST
        alert = make_message(site, message, severity, details=details)
        entries = [entry for entry in site.spec.analysis.alerts or () if is_told(entry, severity)]
        if not site.spec.analysis.alerts:
            await self._tell(site, None, alert, until)
        async with asyncio.TaskGroup() as group:
            for entry in entries:
                task = group.create_task(self._tell(site, entry, alert, until))
                await asyncio.wait({task}, timeout=PACE)

    async def _tell(self, site: Site, entry: AlertRef | None, alert: Message, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                chat = chat_of_service(site.settings) if entry is None else await self._chat(site, entry)
                if chat is None:
                    return
                async with self._slots:
                    await _post(chat, alert)
        except TimeoutError:
            problem = f"not sent within {LONGEST:.0f}s"
        except ReconcileError as error:
            problem = str(error)
        else:
            self._exported.alert(site, lost=False)
            return
        self._exported.alert(site, lost=True)
        name = "of the service" if entry is None else entry.name
        log.error("alert could not be sent", canary=alert.title, alert=name, severity=alert.level, error=problem)

    async def _chat(self, site: Site, entry: AlertRef) -> Chat:
        """The chat that an entry names; raises ReconcileError when its AlertProvider or what that needs is not there."""
        ref = entry.provider_ref
        key = Key(ref.namespace or site.namespace, ref.name)
        if site.settings.no_cross_namespace_refs and key.namespace != site.namespace:
            raise AlertFailed(f"can't access alert provider {key.name}.{key.namespace}, cross-namespace references are blocked")
        spec: AlertProviderSpec = (await self._store.get(KIND, key)).spec
        address, token = spec.address or "", ""
        if spec.secret_ref is not None:
            secret = await self._store.secret(Key(key.namespace, spec.secret_ref.name))
            if "address" not in secret.data:
                raise AlertFailed(f"alert provider {key.name}.{key.namespace}: secret {spec.secret_ref.name} has no key address")
            address, token = (_text(secret.data.get(name, b"")) for name in ("address", "token"))
        voice = Voice(spec.channel or DEFAULT_CHANNEL, spec.username or DEFAULT_USERNAME)
        return Chat(spec.type or "", voice, address, token if spec.type == "slack" else "", spec.proxy or "")


async def _post(chat: Chat, alert: Message) -> None:
    """Send one alert; raises ReconcileError, never with the address in its text."""
    form = FORMS.get(chat.kind)
    if form is None:
        raise AlertFailed(f"{chat.kind!r} is no type of alert provider")
    body, url = form(alert, chat.voice), hook_address(chat.kind, chat.address)
    headers = {"Content-Type": "application/json"}
    if chat.token:
        headers["Authorization"] = f"Bearer {chat.token}"
    try:
        proxy = make_proxy(chat.proxy) if chat.proxy else None
        client = make_client(proxy=proxy, retry=RetryPolicy(attempts=1), limits=Limits(body=MAX_ANSWER, connections=1))
        async with client, asyncio.timeout(TIMEOUT):
            answer = await client.post(url, content=orjson.dumps(body), headers=headers, timeout=None)
    except TimeoutError as error:
        raise AlertFailed(f"{chat.kind}: no answer within {TIMEOUT:.0f}s") from error
    except NetworkError as error:
        raise AlertFailed(f"{chat.kind}: {redact(error.detail, (chat.address, chat.token))}") from None
    if not 200 <= answer.status_code <= 299:
        raise AlertFailed(f"{chat.kind}: status {answer.status_code}")
    if chat.token and (refused := _REFUSED.search(answer.content)):
        raise AlertFailed(f"{chat.kind}: {refused[1].decode()}")


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise Invalid("the Secret of the alert provider is not text") from error
