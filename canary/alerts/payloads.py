"""What chats are sent, each in its own form, with the texts, colours and keys of Flagger's notifiers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from canary.plan import deadline_of
from canary.site import Site
from reconcile.errors import Invalid

Level = Literal["info", "warn", "error"]
Payload = dict[str, Any]

_GOOD, _DANGER = "good", "danger"
_BLUE, _RED = "0076D7", "FF0000"
_GREY = "#848484"
_ICON = "https://flagger.app/favicon.png"


@dataclass(frozen=True, slots=True)
class Message:
    """One alert.

    Attributes:
        name: Of the Canary.
        namespace: Of the Canary.
        text: What happened.
        level: How bad it is.
        fields: Names and values that are shown below the text, in order.
        metadata: For receivers that are programs.
    """

    name: str
    namespace: str
    text: str
    level: Level
    fields: tuple[tuple[str, str], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """How chats name the Canary."""
        return f"{self.name}.{self.namespace}"

    @property
    def bad(self) -> bool:
        """Whether it is shown in red."""
        return self.level == "error"


@dataclass(frozen=True, slots=True)
class Voice:
    """Where in a chat something is said, and by whom."""

    channel: str
    username: str


def make_message(site: Site, text: str, level: Level, *, details: bool) -> Message:
    """The alert of a Canary; the cluster is shown when it has a name, the plan of the run with `details`."""
    cluster = site.settings.cluster_name
    fields = [("Cluster", cluster)] if cluster else []
    if details:
        fields += _plan(site)
    kind = site.spec.target_ref.kind
    metadata = [("kind", kind), ("target", site.target), *((("cluster", cluster),) if cluster else ())]
    return Message(site.name, site.namespace, text, level, tuple(fields), tuple(metadata))


def _plan(site: Site) -> list[tuple[str, str]]:
    spec, analysis = site.spec, site.spec.analysis
    threshold = analysis.threshold if analysis.threshold and analysis.threshold > 0 else 1
    fields = [
        ("Target", f"{spec.target_ref.kind}/{site.target}.{site.namespace}"),
        ("Failed checks threshold", str(threshold)),
        ("Progress deadline", f"{deadline_of(spec)}s"),
    ]
    # The top weight is shown as it stands in the manifest, 0 when it does not.
    top = analysis.max_weight or 0
    if analysis.iterations and analysis.iterations > 0:
        fields.append(("Traffic routing", "A/B Testing" if analysis.match else "Blue/Green"))
    elif analysis.step_weight and analysis.step_weight > 0:
        fields.append(("Traffic routing", f"Weight step: {analysis.step_weight} max: {top}"))
    elif analysis.step_weights:
        fields.append(("Traffic routing", f"Weight steps: {','.join(map(str, analysis.step_weights))} max: {top}"))
    return fields


def _attachment(message: Message, voice: Voice, colour: str) -> Payload:
    if not voice.username or not voice.channel:
        raise Invalid("empty channel" if voice.username else "empty username")
    return {
        "channel": voice.channel,
        "username": voice.username,
        "icon_url": "",
        "icon_emoji": ":rocket:",
        "attachments": [
            {
                "color": colour,
                "author_name": message.title,
                "text": message.text,
                "mrkdwn_in": ["text"],
                "fields": [{"title": name, "value": value, "short": False} for name, value in message.fields],
            }
        ],
    }


def slack(message: Message, voice: Voice) -> Payload:
    """For an incoming webhook or `chat.postMessage` of Slack, and for Discord's endpoint of the same form.

    Raises:
        Invalid: The channel or the name is empty.
    """
    return _attachment(message, voice, _DANGER if message.bad else _GOOD)


def rocket(message: Message, voice: Voice) -> Payload:
    """For an incoming webhook of Rocket.Chat; raises Invalid when the channel or the name is empty."""
    return _attachment(message, voice, f"#{_RED if message.bad else _BLUE}")


def msteams(message: Message, _: Voice) -> Payload:
    """For an incoming webhook of Microsoft Teams: a MessageCard."""
    section = {
        "activityTitle": message.text,
        "activitySubtitle": message.title,
        "facts": [{"name": name, "value": value} for name, value in message.fields],
    }
    return {
        "@type": "MessageCard",
        "@context": "http://schema.org/extensions",
        "themeColor": _RED if message.bad else _BLUE,
        "summary": message.title,
        "sections": [section],
    }


def gchat(message: Message, _: Voice) -> Payload:
    """For an incoming webhook of Google Chat: a card."""

    def widget(text: str) -> Payload:
        return {"widgets": [{"textParagraph": {"text": text}}]}

    def strong(text: str) -> str:
        return f"<font color={_GREY}><strong>{text}</strong></font>"

    header = {"title": "Flagger", "subtitle": message.title, "imageUrl": _ICON}
    sections = [widget(strong(message.text)), *(widget(f"{name}<br>{strong(value)}") for name, value in message.fields)]
    return {"cards": [{"header": header, "sections": sections}]}


def generic(message: Message, _: Voice) -> Payload:
    """For programs: everything under its own name."""
    return {
        "severity": message.level,
        "message": message.text,
        "name": message.name,
        "namespace": message.namespace,
        "fields": [{"name": name, "value": value} for name, value in message.fields],
        "metadata": dict(message.metadata),
    }


FORMS: Mapping[str, Callable[[Message, Voice], Payload]] = {
    "slack": slack,
    "discord": slack,
    "rocket": rocket,
    "msteams": msteams,
    "gchat": gchat,
    "generic": generic,
}
"""By type of AlertProvider."""


def hook_address(kind: str, address: str) -> str:
    """Where an alert is posted to: Discord takes Slack's form at a path that ends so.

    Raises:
        Invalid: The address is no URL of a web server; it is not named, as it is a secret.
    """
    try:
        url = httpx.URL(address.strip())
    except (httpx.InvalidURL, ValueError) as error:
        raise Invalid("the address is no URL") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise Invalid("the address is no http or https URL")
    if kind == "discord" and not url.path.rstrip("/").endswith("/slack"):
        raw_path, _, query = url.raw_path.decode("ascii").partition("?")
        url = url.copy_with(raw_path=f"{raw_path.rstrip('/')}/slack{'?' + query if query else ''}".encode("ascii"))
    return str(url)
