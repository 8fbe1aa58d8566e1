"""`imagebot run DIR` and `imagebot once DIR`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape

from reconcile.api import conditions as cond
from reconcile.app import Registry, Service, load_packages, local_service, run_local
from reconcile.cli.output import Format, as_list, print_data, print_table
from reconcile.runtime.logs import LEVELS, configure
from reconcile.runtime.outcome import Success
from reconcile.settings import LogSettings, RetrySettings, ServerSettings, Settings, parse_gates

UNCHANGED, FAILED, CHANGED = 0, 1, 2

Command = TypeVar("Command", bound=Callable[..., Any])


def service_options(command: Command) -> Command:
    """Options common to `run` and `once`; each is also read from IMAGEBOT_<COMMAND>_<OPTION>."""
    for option in reversed(
        [
            click.argument("directory", type=click.Path(path_type=Path)),
            click.option("--state", type=click.Path(path_type=Path), help="Folder for status and caches. [default: per user and DIR]"),
            click.option("--concurrent", type=click.IntRange(1, 256), default=16, show_default=True, help="Passes at once per kind."),
            click.option("--no-cross-namespace-refs", is_flag=True, help="Forbid references to other namespaces."),
            click.option("--docker-config/--no-docker-config", default=True, show_default=True,
                         help="Use the docker login of the user for images without a pull secret."),
            click.option("--feature-gates", default="", metavar="NAME=BOOL,...", help="Feature gates, as upstream's."),
            click.option("--log-level", type=click.Choice(list(LEVELS)), default="info", show_default=True),
            click.option("--log-encoding", type=click.Choice(["json", "console"]), help="[default: console on a terminal, else json]"),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def _settings(options: dict[str, Any]) -> Settings:
    return Settings(
        concurrent=options["concurrent"],
        no_cross_namespace_refs=options["no_cross_namespace_refs"],
        user_docker_config=options["docker_config"],
        gates=parse_gates(options["feature_gates"]),
        retry=RetrySettings(options.get("min_retry_delay", 0.75), options.get("max_retry_delay", 900.0)),
        log=LogSettings(options["log_level"], options["log_encoding"]),
        server=ServerSettings(options.get("health_addr", "")),
    )


@click.command()
@service_options
@click.option(
    "--health-addr", default="127.0.0.1:9440", show_default=True, help="Where /healthz, /readyz, /metrics answer; '' for nowhere."
)
@click.option(
    "--min-retry-delay", type=click.FloatRange(0.01), default=0.75, show_default=True, help="Seconds after a first failure."
)
@click.option(
    "--max-retry-delay", type=click.FloatRange(0.01), default=900.0, show_default=True, help="Most seconds between tries."
)
def run(directory: Path, **options: Any) -> None:
    """Run the service on the manifests in DIRECTORY until it is stopped."""
    settings = _settings(options)
    configure(settings.log.level, settings.log.encoding)
    asyncio.run(_run(directory, options["state"], settings))


async def _run(directory: Path, state: Path | None, settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with local_service(directory, settings=settings, state=state) as service:
        click.echo(_banner(directory, service), err=True)
        work = asyncio.create_task(run_local(service), name="service")
        halt = asyncio.create_task(stop.wait(), name="signals")
        await asyncio.wait({work, halt}, return_when=asyncio.FIRST_COMPLETED)
        halt.cancel()
        if work.done():
            work.result()
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


def _banner(directory: Path, service: Service) -> str:
    where = f", health and metrics at {service.url}" if service.url else ""
    return f"imagebot runs on {directory}{where}; process {os.getpid()}, end it with Ctrl-C"


@click.command(context_settings={"default_map": {"log_level": "none"}})
@service_options
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml", "name"]), default="table", show_default=True)
@click.option("--timeout", type=click.FloatRange(1), default=600.0, show_default=True, help="Most seconds for the whole pass.")
def once(directory: Path, **options: Any) -> int:
    """Make one pass over the manifests in DIRECTORY: scan, choose, commit, push; then end.

    Exit code 0: all is well and nothing was to be changed; 2: something was changed (a commit was pushed); 1: an object failed.
    """
    settings = _settings(options)
    console = Console(stderr=True)
    configure(settings.log.level, settings.log.encoding)
    registry = load_packages()
    return asyncio.run(_once(directory, options["state"], settings, registry, options["output"], options["timeout"], console))


async def _once(
    directory: Path, state: Path | None, settings: Settings, registry: Registry, output: Format, timeout: float, console: Console
) -> int:
    async with local_service(directory, registry=registry, settings=settings, state=state, retry=False) as service:
        with console.status(f"one pass over {directory} …") if console.is_terminal else nullcontext():
            try:
                async with asyncio.timeout(timeout):
                    await service.manager.drained()
            except TimeoutError:
                raise click.ClickException(f"the pass was not done after {timeout:g} s; see --timeout") from None
        resources = [r for info in registry.scheme for r in await service.store.list(info.kind)]
        if output == "table":
            print_table(resources)
        else:
            print_data(as_list(resources), output)
        _summary(service, console)
        outcomes = [(c, key, o) for c in service.controllers for key, o in c.outcomes.items()]
        failed = service.store.problems or any(not isinstance(o, Success) for _, _, o in outcomes)
        if failed:
            return FAILED
        return CHANGED if any(controller.effects for controller in service.controllers) else UNCHANGED


def _summary(service: Service, console: Console) -> None:
    for problem in service.store.problems:
        console.print(f"[red]✗[/] {escape(str(problem))}", highlight=False, soft_wrap=True)
    for controller in service.controllers:
        for key, outcome in sorted(controller.outcomes.items()):
            name = f"{controller.kind} {key}"
            effect = controller.effects.get(key)
            if effect is not None and effect.event:
                console.print(f"[green]✓[/] {escape(f'{name}: {effect.event.rstrip()}')}", highlight=False, soft_wrap=True)
            if not isinstance(outcome, Success):
                reason = getattr(outcome, "reason", cond.FAILED)
                text = getattr(outcome, "message", str(outcome))
                console.print(f"[red]✗[/] {escape(f'{name}: {reason}: {text}')}", highlight=False, soft_wrap=True)
