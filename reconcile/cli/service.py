"""`imagebot run [DIR]` and `imagebot once DIR`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from reconcile.api import conditions as cond
from reconcile.app import Registry, Service, load_packages, local_service, run_local
from reconcile.cli.flags import HELP_NAMES, cluster_options, common_options, local_options, retry_options
from reconcile.cli.gitops_flags import apply_options, apply_settings, storage_options, storage_settings
from reconcile.cli.output import Format, as_list, clean, print_data, print_table
from reconcile.cli.packaged import PackagedCommand
from reconcile.errors import Invalid
from reconcile.runtime.logs import configure
from reconcile.runtime.outcome import Success
from reconcile.settings import LogSettings, RetrySettings, ServerSettings, Settings, parse_gates

UNCHANGED, FAILED, CHANGED = 0, 1, 2

LOCAL_ADDRESS, CLUSTER_ADDRESS = "127.0.0.1:9440", ":9440"


def _settings(options: dict[str, Any], packages: Mapping[str, Any] | None = None) -> Settings:
    retry = RetrySettings()
    return Settings(
        concurrent=options["concurrent"],
        no_cross_namespace_refs=options["no_cross_namespace_refs"],
        user_docker_config=options.get("docker_config", False),
        gates=parse_gates(options["feature_gates"]),
        retry=RetrySettings(
            options.get("min_retry_delay", retry.least),
            options.get("max_retry_delay", retry.greatest),
            options.get("requeue_dependency", retry.requeue_dependency),
        ),
        log=LogSettings(options["log_level"], options["log_encoding"]),
        server=ServerSettings(options.get("health_addr") or ""),
        storage=storage_settings(options),
        apply=apply_settings(options, os.environ.get("RUNTIME_NAMESPACE", "")),
        packages=packages or {},
    )


@click.command(cls=PackagedCommand, context_settings=HELP_NAMES)
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@common_options
@local_options
@click.option(
    "--health-addr", help="Where /healthz and /readyz answer; '' for nowhere.  [default: 127.0.0.1:9440, in a cluster :9440]"
)
@retry_options
@cluster_options
@storage_options
@apply_options
def run(directory: Path | None, **options: Any) -> None:
    """Run the service until it is stopped.

    With DIRECTORY: on the manifests in that folder, without a cluster; /metrics answers beside /healthz. Without: in cluster
    mode, on the custom resources of the API server that the pod or the kubeconfig names.
    """
    if options["health_addr"] is None:
        options["health_addr"] = LOCAL_ADDRESS if directory is not None else CLUSTER_ADDRESS
    settings = _settings(options, run.values(options))
    configure(settings.log.level, settings.log.encoding or (None if directory is not None else "json"))
    if directory is not None:
        asyncio.run(_run(directory, _state(options), settings))
    else:
        asyncio.run(_run_cluster(settings, options))


def _state(options: dict[str, Any]) -> Path | None:
    return Path(options["state"]) if options["state"] else None


async def _run_cluster(settings: Settings, options: dict[str, Any]) -> None:
    # The Kubernetes client is large: only this mode pays for it.
    from reconcile.cluster import RUNTIME_NAMESPACE, ClusterSettings, run_cluster
    from reconcile.kube.connect import KubeSettings
    from reconcile.kube.lease import LeaseTimes

    namespace = ""
    if options["no_watch_all_namespaces"] or not options["watch_all_namespaces"]:
        namespace = os.environ.get(RUNTIME_NAMESPACE, "")
        if not namespace:
            raise Invalid(f"--watch-all-namespaces=false needs the environment variable {RUNTIME_NAMESPACE}")
    try:
        lease = LeaseTimes(
            options["leader_election_lease_duration"],
            options["leader_election_renew_deadline"],
            options["leader_election_retry_period"],
        )
    except ValueError as error:
        raise Invalid(f"--leader-election-*: {error}") from error
    cluster = ClusterSettings(
        kube=KubeSettings(
            kubeconfig=options["kubeconfig"],
            context=options["kube_context"],
            qps=options["kube_api_qps"],
            burst=options["kube_api_burst"],
        ),
        mesh_kubeconfig=options["kubeconfig_service_mesh"],
        storage=_storage(options),
        namespace=namespace,
        selector=options["watch_label_selector"],
        events_address=options["events_addr"],
        metrics_address=options["metrics_addr"],
        health_address=options["health_addr"],
        leader_election=options["enable_leader_election"],
        lease=lease,
        groups=tuple(name.strip() for name in options["controllers"].split(",") if name.strip()),
    )
    await run_cluster(settings, cluster, load_packages(), _stop_signal())


def _storage(options: dict[str, Any]) -> Path:
    return Path(options["storage_path"]).absolute()


def _stop_signal() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _run(directory: Path, state: Path | None, settings: Settings) -> None:
    stop = _stop_signal()
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


@click.command(context_settings={"default_map": {"log_level": "none"}, **HELP_NAMES})
@click.argument("directory", type=click.Path(path_type=Path))
@common_options
@local_options
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
    return asyncio.run(_once(directory, _state(options), settings, registry, options["output"], options["timeout"], console))


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


def _indented(text: str) -> str:
    """A text of several lines of which none passes for one of ours."""
    return clean(text).replace("\n", "\n    ")


def _summary(service: Service, console: Console) -> None:
    for problem in service.store.problems:
        console.print(f"[red]✗[/] {escape(clean(problem))}", highlight=False, soft_wrap=True)
    for controller in service.controllers:
        for key, outcome in sorted(controller.outcomes.items()):
            name = f"{controller.kind} {key}"
            effect = controller.effects.get(key)
            if effect is not None and effect.event:
                console.print(
                    f"[green]✓[/] {escape(_indented(f'{name}: {effect.event.rstrip()}'))}", highlight=False, soft_wrap=True
                )
            if not isinstance(outcome, Success):
                reason = getattr(outcome, "reason", cond.FAILED)
                text = getattr(outcome, "message", str(outcome))
                console.print(f"[red]✗[/] {escape(_indented(f'{name}: {reason}: {text}'))}", highlight=False, soft_wrap=True)
