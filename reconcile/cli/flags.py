"""Flags of `imagebot run`: those of cluster mode are upstream's, spelled and valued as upstream's deployments pass them.

Go's flags take `--name=false` for booleans and durations like `750ms`; so do these. Flags that old deployments pass and that mean
nothing here are accepted and hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from reconcile.api.duration import format_duration
from reconcile.cli.durations import DurationType
from reconcile.runtime.logs import LEVELS

Command = TypeVar("Command", bound=Callable[..., Any])


HELP_NAMES = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command: click keeps the help option of a command's first use, whatever its parent says later."""

DURATION = DurationType(most=10 * 365 * 24 * 3600.0)


def go_bool(name: str, default: bool, text: str, **more: Any) -> Callable[[Command], Command]:
    """A boolean flag that also takes a value: `--name`, `--name=true`, `--name=false`."""
    shown = f"{text}  [default: {str(default).lower()}]" if not more.get("hidden") else text
    return click.option(name, is_flag=False, flag_value=True, type=bool, default=default, metavar="[=BOOL]", help=shown, **more)


def duration(name: str, seconds: float, text: str, **more: Any) -> Callable[[Command], Command]:
    """A duration flag."""
    return click.option(name, type=DURATION, default=seconds, help=f"{text}  [default: {format_duration(seconds)}]", **more)


def apply(command: Command, *options: Callable[[Command], Command]) -> Command:
    """Put options on a command in the order in which they are to be shown."""
    for option in reversed(options):
        command = option(command)
    return command


def common_options(command: Command) -> Command:
    """Options of every way to run."""
    return apply(
        command,
        click.option("--concurrent", type=click.IntRange(1, 256), default=16, show_default=True, help="Passes at once per kind."),
        go_bool("--no-cross-namespace-refs", False, "Forbid references to other namespaces."),
        click.option("--feature-gates", default="", metavar="NAME=BOOL,...", help="Feature gates, as upstream's."),
        click.option("--log-level", type=click.Choice(list(LEVELS)), default="info", show_default=True),
        click.option(
            "--log-encoding", type=click.Choice(["json", "console"]), help="[default: console on a terminal, else json]"
        ),
    )


def local_options(command: Command) -> Command:
    """Options of local mode."""
    return apply(
        command,
        click.option("--state", type=click.Path(), help="Folder for status and caches.  [default: per user and DIRECTORY]"),
        click.option(
            "--docker-config/--no-docker-config",
            default=True,
            show_default=True,
            help="Use the docker login of the user for images without a pull secret (local mode).",
        ),
    )


def retry_options(command: Command) -> Command:
    """When what failed is tried again."""
    return apply(
        command,
        duration("--min-retry-delay", 0.75, "Delay after a first failure; it doubles."),
        duration("--max-retry-delay", 900.0, "Greatest delay between tries."),
        duration("--requeue-dependency", 30.0, "Delay before looking again for what was not there."),
    )


def cluster_options(command: Command) -> Command:
    """Options of cluster mode, under upstream's names."""
    return apply(
        command,
        click.option("--kubeconfig", default="", metavar="FILE", help="Kubeconfig.  [default: in-cluster, else KUBECONFIG]"),
        click.option("--context", "kube_context", default="", help="Context of the kubeconfig."),
        click.option(
            "--kubeconfig-service-mesh",
            default="",
            metavar="FILE",
            help="Kubeconfig of the cluster that holds the routing objects, if it is another one.",
        ),
        click.option(
            "--controllers", default="", metavar="NAME,...", help="Only these: image, canary, source, kustomize.  [default: all]"
        ),
        go_bool("--watch-all-namespaces", True, "Work in all namespaces; with false only in $RUNTIME_NAMESPACE."),
        click.option("--no-watch-all-namespaces", is_flag=True, hidden=True),
        click.option("--watch-label-selector", default="", metavar="SELECTOR", help="Only objects with these labels (a shard)."),
        click.option("--kube-api-qps", type=click.FloatRange(0.1), default=100.0, show_default=True, help="Requests a second."),
        click.option("--kube-api-burst", type=click.IntRange(1), default=500, show_default=True, help="Requests at once."),
        click.option("--events-addr", default="", metavar="URL", help="Where events are posted to as JSON."),
        click.option("--metrics-addr", default=":8080", show_default=True, help="Where /metrics answers; 0 for nowhere."),
        go_bool("--enable-leader-election", False, "Let only one of several replicas work."),
        duration("--leader-election-lease-duration", 35.0, "When others take over a lease that is not renewed."),
        duration("--leader-election-renew-deadline", 30.0, "When a leader that cannot renew stops."),
        duration("--leader-election-retry-period", 5.0, "Between two tries."),
        click.option("--storage-path", default="/data", show_default=True, type=click.Path(), help="Folder for caches."),
        *(
            click.option(name, expose_value=False, hidden=True, help="Accepted from upstream's deployments, without effect.")
            for name in (
                "--storage-value-log-file-size",
                "--storage-compression-threshold",
                "--gc-interval",
                "--leader-election-release-on-cancel",
                "--token-cache-max-size",
                "--token-cache-max-duration",
                "--ssh-kex-algos",
                "--ssh-hostkey-algos",
            )
        ),
    )  # fmt: skip
