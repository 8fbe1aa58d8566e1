"""Flagger's flags on `imagebot run`, under Flagger's names and with its defaults, and the settings that they make.

For credentials and addresses of chats the environment beats the flag, as in Flagger; there they are in no process list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from canary.settings import CanarySettings

DEFAULTS = CanarySettings()
WORKERS = 64
"""Ticks at once. They mostly wait for webhooks and metrics backends, and one that waits costs next to nothing."""


class _EnvironmentFirst(click.Option):
    """An option whose environment variable beats what the command line says; an empty variable is none."""

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        # Not our own `resolve_envvar_value`, which also knows a name made of the program's.
        value = click.Parameter.resolve_envvar_value(self, ctx)
        return (value, ParameterSource.ENVIRONMENT) if value else super().consume_value(ctx, opts)


def _text(name: str, default: str, text: str, *, metavar: str = "TEXT") -> click.Option:
    return click.Option([name], default=default, metavar=metavar, help=text, show_default=bool(default))


def _from_environment(name: str, variable: str, text: str, *, metavar: str = "URL") -> click.Option:
    return _EnvironmentFirst([name], default="", metavar=metavar, envvar=variable, show_envvar=True, help=text)


OPTIONS: list[click.Option] = [
    _text("--mesh-provider", DEFAULTS.mesh_provider, "Traffic provider of Canaries that name none."),
    _text("--metrics-server", DEFAULTS.metrics_server, "Prometheus of Canaries that name none.", metavar="URL"),
    _text(
        "--selector-labels",
        ",".join(DEFAULTS.selector_labels),
        "Labels by which targets select their pods, the preferred one first.",
        metavar="LABEL,...",
    ),
    _text(
        "--include-label-prefix",
        "",
        "Prefixes of labels and annotations that generated workloads take over; * for all.",
        metavar="PREFIX,...",
    ),
    click.Option(
        ["--enable-config-tracking"],
        is_flag=False,
        flag_value=True,
        type=bool,
        default=DEFAULTS.enable_config_tracking,
        metavar="[=BOOL]",
        help="Copy ConfigMaps and Secrets for the primary, and follow their changes.  [default: true]",
    ),
    _text("--ingress-annotations-prefix", DEFAULTS.ingress_annotations_prefix, "Prefix of the annotations for ingress-nginx."),
    _text("--ingress-class", "", "Class of generated HTTPProxies."),
    _from_environment("--event-webhook", "EVENT_WEBHOOK_URL", "Where events of Canaries are posted to."),
    _from_environment("--slack-url", "SLACK_URL", "Incoming webhook of Slack, or its API."),
    _from_environment("--slack-token", "SLACK_TOKEN", "Token for the API of Slack.", metavar="TOKEN"),
    _from_environment("--slack-proxy-url", "SLACK_PROXY_URL", "Proxy on the way to Slack."),
    _text("--slack-user", DEFAULTS.slack_user, "Who speaks in Slack."),
    _text("--slack-channel", "", "Where to speak in Slack."),
    _from_environment("--msteams-url", "MSTEAMS_URL", "Incoming webhook of Microsoft Teams; wins over Slack."),
    _from_environment("--msteams-proxy-url", "MSTEAMS_PROXY_URL", "Proxy on the way to Microsoft Teams."),
    _text("--cluster-name", "", "Name of this cluster, for alerts."),
    click.Option(
        ["--canary-workers"], type=click.IntRange(1, 256), default=WORKERS, show_default=True, help="Canaries looked at at once."
    ),
]
"""Options that this package brings to `imagebot run`."""


def settings_from(values: Mapping[str, Any], *, no_cross_namespace_refs: bool = False) -> CanarySettings:
    """The settings that these values make.

    Args:
        values: Of the options by Python name (`mesh_provider`); what is missing has its default.
        no_cross_namespace_refs: As the whole service has it.
    """
    lists = {name: _parts(values[name]) for name in ("selector_labels", "include_label_prefix") if name in values}
    plain = {name: value for name, value in values.items() if name in CanarySettings.__slots__ and name not in lists}
    return CanarySettings(**{**plain, **lists, "no_cross_namespace_refs": no_cross_namespace_refs})


def workers(values: Mapping[str, Any]) -> int:
    """How many Canaries are looked at at once."""
    return int(values.get("canary_workers", WORKERS))


def _parts(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))
