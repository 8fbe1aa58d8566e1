"""The forms of chats: as recorded from the real operator, and at the edges."""

from __future__ import annotations

from typing import Any

import pytest

from canary.alerts.payloads import FORMS, Level, Message, Voice, generic, hook_address, make_message
from canary.settings import CanarySettings
from reconcile.errors import Invalid
from tests.support.canary_posts import recorded, site

OPS = Voice("ops", "bot")
ANALYSES: dict[str, dict[str, Any]] = {
    "alerts-success": {"interval": "10s", "threshold": 3, "stepWeight": 50, "maxWeight": 50},
    "alerts-failure": {"interval": "10s", "threshold": 1, "stepWeights": [20, 50]},
    "alerts-kinds-failure": {
        "interval": "10s",
        "threshold": 1,
        "iterations": 2,
        "match": [{"headers": {"cookie": {"regex": "always"}}}],
    },
}
DETAILED = ("initialization completed.", "progressing canary analysis.")
SENT = [(story, i) for story in ANALYSES for i in range(len(recorded()[story]["alerts"]))]


def level_of(text: str) -> Level:
    if text.startswith("Failed"):
        return "error"
    return "warn" if "waiting" in text else "info"


def text_in(body: dict[str, Any]) -> str:
    if "cards" in body:
        text: str = body["cards"][0]["sections"][0]["widgets"][0]["textParagraph"]["text"]
        return text.removeprefix("<font color=#848484><strong>").removesuffix("</strong></font>")
    return str(body["attachments"][0]["text"] if "attachments" in body else body["sections"][0]["activityTitle"])


@pytest.mark.parametrize(("story", "number"), SENT)
def test_forms_are_the_recorded_ones(story: str, number: int) -> None:
    sent = recorded()[story]["alerts"][number]
    kind = sent["provider"].partition("/")[0]
    text = text_in(sent["body"])
    where = site("web", f"st-{story}", analysis=ANALYSES[story])
    message = make_message(where, text, level_of(text), details=text.endswith(DETAILED))
    assert FORMS.get(kind, FORMS["slack"])(message, OPS) == sent["body"]


def test_every_type_is_in_the_records() -> None:
    seen = {sent["provider"].partition("/")[0] for story, i in SENT for sent in [recorded()[story]["alerts"][i]]}
    assert seen >= set(FORMS) - {"generic"}


@pytest.mark.parametrize(
    ("analysis", "routing"),
    [
        ({"iterations": 10}, "Blue/Green"),
        ({"iterations": 10, "match": [{"headers": {"x": {"exact": "y"}}}]}, "A/B Testing"),
        ({"stepWeight": 10, "maxWeight": 40}, "Weight step: 10 max: 40"),
        ({"stepWeight": 10}, "Weight step: 10 max: 0"),
        ({"stepWeight": 10, "match": [{"headers": {"x": {"exact": "y"}}}]}, "Weight step: 10 max: 0"),
        ({"stepWeights": [5, 15, 40], "maxWeight": 60}, "Weight steps: 5,15,40 max: 60"),
        ({"stepWeight": 0}, None),
        ({"stepWeights": []}, None),
    ],
)
def test_the_plan_of_the_run_is_told(analysis: dict[str, Any], routing: str | None) -> None:
    where = site(
        analysis={"interval": "1m", "threshold": 0, **analysis},
        spec={"progressDeadlineSeconds": 90},
        settings=CanarySettings(cluster_name="blue"),
    )
    fields = make_message(where, "text", "info", details=True).fields
    assert fields[:4] == (
        ("Cluster", "blue"),
        ("Target", "Deployment/web.prod"),
        ("Failed checks threshold", "1"),
        ("Progress deadline", "90s"),
    )
    assert fields[4:] == ((("Traffic routing", routing),) if routing else ())


def test_without_details_only_the_cluster_is_told() -> None:
    assert make_message(site(), "text", "warn", details=False).fields == ()
    where = site(settings=CanarySettings(cluster_name="blue"))
    assert make_message(where, "text", "warn", details=False).fields == (("Cluster", "blue"),)


def test_programs_are_told_everything_under_its_own_name() -> None:
    where = site(settings=CanarySettings(cluster_name="blue"))
    assert generic(make_message(where, "Failed checks threshold reached 3", "error", details=False), Voice("", "")) == {
        "severity": "error",
        "message": "Failed checks threshold reached 3",
        "name": "web",
        "namespace": "prod",
        "fields": [{"name": "Cluster", "value": "blue"}],
        "metadata": {"kind": "Deployment", "target": "web", "cluster": "blue"},
    }


@pytest.mark.parametrize("kind", ["slack", "discord", "rocket"])
@pytest.mark.parametrize(("voice", "text"), [(Voice("", "bot"), "empty channel"), (Voice("ops", ""), "empty username")])
def test_chats_with_channels_need_both_names(kind: str, voice: Voice, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        FORMS[kind](Message("web", "prod", "text", "info"), voice)


@pytest.mark.parametrize(
    ("address", "posted_to"),
    [
        ("https://discord.com/api/webhooks/1/tok", "https://discord.com/api/webhooks/1/tok/slack"),
        ("https://discord.com/api/webhooks/1/tok/", "https://discord.com/api/webhooks/1/tok/slack"),
        ("https://discord.com/api/webhooks/1/tok/slack", "https://discord.com/api/webhooks/1/tok/slack"),
        ("https://discord.com/api/a%2Fb?wait=true", "https://discord.com/api/a%2Fb/slack?wait=true"),
        (" https://discord.com/api/webhooks/1/tok\n", "https://discord.com/api/webhooks/1/tok/slack"),
    ],
)
def test_discord_is_asked_in_slacks_form(address: str, posted_to: str) -> None:
    assert hook_address("discord", address) == posted_to


def test_other_addresses_stay_as_they_are() -> None:
    assert hook_address("slack", "https://hooks.slack.com/services/T/B/x?a=b") == "https://hooks.slack.com/services/T/B/x?a=b"


@pytest.mark.parametrize(
    "address", ["", "hooks.slack.com/services/T", "ftp://chat/secret", "http:///secret", "http://chat:secret/"]
)
def test_addresses_that_are_none_are_refused_without_naming_them(address: str) -> None:
    with pytest.raises(Invalid) as caught:
        hook_address("slack", address)
    assert "secret" not in str(caught.value)
