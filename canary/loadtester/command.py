"""`imagebot loadtester`: what its options mean."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconcile.cli.flags import HELP_NAMES, apply, duration, go_bool
from reconcile.cli.target import has_kubeconfig
from reconcile.errors import Invalid
from reconcile.regexp import Regexp, RegexpError
from reconcile.runtime.logs import LEVELS, configure

if TYPE_CHECKING:
    from canary.loadtester.kinds import Allowed

LONGEST = 3600.0
"""Seconds that one task may take, if nothing else is said."""
MOST_AT_ONCE = 64
"""Tasks that may run at a time."""

_ONE_DASH = re.compile(r"-[a-z][a-z-]+(=.*)?", re.DOTALL)


class GoFlags(click.Command):
    """Takes flags with one dash as well, as programs in Go do: `-port=8080`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        return super().parse_args(ctx, [f"-{word}" if _ONE_DASH.fullmatch(word) else word for word in args])


def _options(command: Any) -> Any:
    file = click.Path(path_type=Path, dir_okay=False)
    return apply(
        command,
        click.option("--port", type=click.IntRange(0, 65535), default=9090, show_default=True, help="Where it answers."),
        click.option("--host", default="", metavar="ADDRESS", help="On which address of this machine.  [default: all]"),
        duration("--timeout", LONGEST, "Most time for one task."),
        click.option(
            "--concurrent", type=click.IntRange(1, MOST_AT_ONCE), default=MOST_AT_ONCE, show_default=True, help="Tasks at once."
        ),
        click.option(
            "--namespace-regexp", default="", metavar="REGEXP", help="Only Canaries of namespaces in which this is found."
        ),
        click.option("--state", type=file, help="File that keeps the gates over restarts.  [default: memory alone]"),
        click.option("--token-file", type=file, help="File with the token that who opens or closes a gate must show."),
        go_bool("--enable-shell", False, "Give commands to a shell: who can call may then run anything."),
        go_bool("--enable-helm", False, "Run helm."),
        click.option("--helm-commands", default="test", show_default=True, metavar="NAME,...", help="Its commands."),
        go_bool("--enable-kubectl", False, "Run kubectl."),
        click.option("--kubectl-commands", default="wait", show_default=True, metavar="NAME,...", help="Its commands."),
        click.option("--kubeconfig", default="", metavar="FILE", help="Kubeconfig.  [default: in-cluster, else KUBECONFIG]"),
        click.option("--context", "kube_context", default="", help="Context of the kubeconfig."),
        click.option("--log-level", type=click.Choice(list(LEVELS)), default="info", show_default=True),
        click.option(
            "--log-encoding", type=click.Choice(["json", "console"]), help="[default: console on a terminal, else json]"
        ),
        *(
            click.option(name, expose_value=False, hidden=True, help="Accepted from upstream's deployments, without effect.")
            for name in ("--zap-encoding", "--zap-replace-globals")
        ),
    )


@click.command(cls=GoFlags, context_settings=HELP_NAMES)
@_options
def loadtester(**options: Any) -> None:
    """Run the load tester that webhooks of Canaries call: gates, load over HTTP, and waiting for releases of Flux.

    Command lines of hey, wrk and curl are done by the built-in load generator. Shell, helm and kubectl are off until they are
    switched on.
    """
    # A web server and a load generator: only this command loads them.
    from canary.loadtester.service import Settings, run_service

    configure(options["log_level"], options["log_encoding"])
    host = f"[{options['host']}]" if ":" in options["host"] else options["host"]
    settings = Settings(
        address=f"{host}:{options['port']}",
        allowed=_allowed(options),
        longest=options["timeout"],
        concurrent=options["concurrent"],
        state=options["state"],
        token=options["token_file"],
    )
    releases = None
    if has_kubeconfig(options["kubeconfig"]):
        from canary.loadtester.cluster import ClusterReleases

        releases = ClusterReleases(options["kubeconfig"], options["kube_context"])
    asyncio.run(run_service(settings, releases))


def _allowed(options: dict[str, Any]) -> Allowed:
    from canary.loadtester.kinds import Allowed

    pattern = options["namespace_regexp"]
    try:
        namespaces = Regexp(pattern) if pattern else None
    except RegexpError as error:
        raise Invalid(f"--namespace-regexp: {error}") from error
    return Allowed(
        shell=options["enable_shell"],
        helm=_names(options["helm_commands"]) if options["enable_helm"] else frozenset(),
        kubectl=_names(options["kubectl_commands"]) if options["enable_kubectl"] else frozenset(),
        namespaces=namespaces,
    )


def _names(text: str) -> frozenset[str]:
    return frozenset(name for part in text.split(",") if (name := part.strip()))
