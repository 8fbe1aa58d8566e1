"""`imagebot canary status NAME`: everything about one Canary."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import click

from canary.api import Webhook
from canary.cli import show
from canary.cli.place import cluster_options, decoded, name_of, open_canaries, the_one
from canary.cli.view import RESTING, View, bar, countdown, ladder, progress, share, short, since, strategy_words, view_of, why
from canary.plan import HookType
from reconcile.api.scheme import Scheme
from reconcile.app import load_packages
from reconcile.cli.columns import age, present
from reconcile.cli.output import Format, print_data
from reconcile.cli.place import Place
from reconcile.cli.target import finish
from reconcile.redact import redact_url
from reconcile.runtime.logs import configure


@click.command("status")
@click.argument("name")
@click.option("--queries", is_flag=True, help="Show the queries of the metrics as they were asked.")
@cluster_options
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml", "name"]), default="text", show_default=True)
def status_command(name: str, queries: bool, place: Place, output: str) -> int:
    """Show everything about one Canary: strategy, ladder, checks, hooks, images, configuration.

    With -o json or yaml it prints the object.
    """
    configure("error")
    scheme = load_packages().scheme
    form: Format = "table" if output == "text" else output  # type: ignore[assignment]
    return finish(_status(scheme, name_of(scheme, name), place, queries, form))


async def _status(scheme: Scheme, name: str, place: Place, queries: bool, output: Format) -> int:
    async with open_canaries(place, scheme) as cluster:
        found = await the_one(cluster, name)
    if output != "table":
        print_data(found, output)
    else:
        print_details(view_of(decoded(scheme, found)), present(), queries=queries)
    return 0


def print_details(view: View, now: datetime, *, queries: bool = False) -> None:
    """Write all of a Canary to stdout."""
    status = view.canary.status
    head = f"Canary {view.name}  {view.phase.value or 'new'}"
    show.title(f"{head} {since(status.phase_since, now)}".rstrip(), show.COLOURS.get(view.phase))
    show.facts(standing(view, now))
    _checks(view, now, queries)
    _hooks(view)
    _alerts(view)
    _configs(view)


def standing(view: View, now: datetime) -> list[tuple[str, str]]:
    """How a Canary stands, as labels and texts."""
    canary, plan = view.canary, view.plan
    spec, status, target = canary.spec, canary.status, canary.spec.target_ref
    facts = [("why", why(view, now))]
    if view.phase not in RESTING:
        facts.append(("next step", _next(view, now)))
    facts += [
        ("target", f"{target.kind} {target.name}{_scaler(view)}"),
        ("provider", spec.provider or "that of the service"),
        ("strategy", strategy_words(view)),
        ("ladder", "" if plan.skip else ladder(view)),
        ("progress", f"{bar(share(view))} {progress(view)}" if view.phase not in RESTING or view.weight else ""),
        ("failed checks", f"{view.failed} of {plan.threshold} that end the run"),
        ("images", ", ".join(status.images or ())),
        ("revision", _revision(view)),
        ("not ready", since(status.not_ready_since, now)),
        ("no data", since(status.hold_since, now)),
        ("last failure", status.failure or ""),
        ("paused", view.paused),
        ("asked for", view.asked),
        ("deadlines", ", ".join(_deadlines(view))),
    ]
    return [(label, text) for label, text in facts if text]


def _next(view: View, now: datetime) -> str:
    left = countdown(view, now)
    return {"-": "", "due": "due now"}.get(left, f"in {left}")


def _scaler(view: View) -> str:
    scaler = view.canary.spec.autoscaler_ref
    return f", scaled by {scaler.kind} {scaler.name}" if scaler is not None else ""


def _revision(view: View) -> str:
    status = view.canary.status
    if not status.last_applied_spec:
        return ""
    if status.last_applied_spec == status.last_promoted_spec:
        return f"{status.last_applied_spec}, which the primary has"
    return f"{status.last_applied_spec}; the primary has {status.last_promoted_spec or 'none yet'}"


def _deadlines(view: View) -> Iterable[str]:
    plan = view.plan
    yield f"pods ready in {short(plan.deadline)}"
    if plan.gate_deadline is not None:
        yield f"gates open in {short(plan.gate_deadline)}"
    if plan.max_hold is not None:
        yield f"data in {short(plan.max_hold)}"


def _checks(view: View, now: datetime, queries: bool) -> None:
    checks, metrics = view.canary.status.checks or (), view.canary.spec.analysis.metrics or ()
    if not checks and not metrics:
        return
    click.echo()
    show.title("Checks")
    if not checks:
        show.line("  ", f"None of this run yet. Metrics: {', '.join(metric.name for metric in metrics)}.")
        return
    head = ("METRIC", "VALUE", "THRESHOLD", "VERDICT", "ASKED", "MESSAGE")
    rows = [
        (check.metric, check.value or "", check.threshold or "", check.verdict, age(check.time or "", now), check.message or "")
        for check in checks
    ]
    show.table(head, rows)
    if queries:
        for check in checks:
            click.echo()
            show.line(f"  {check.metric}: ", check.query or "the query could not be made")


def _hooks(view: View) -> None:
    hooks = view.canary.spec.analysis.webhooks or ()
    if not hooks:
        return
    click.echo()
    show.title("Gates and hooks")
    show.table(("HOOK", "WHEN", "ADDRESS"), [_hook(hook) for hook in hooks])


def _hook(hook: Webhook) -> tuple[str, str, str]:
    return hook.name, hook.type or HookType.ROLLOUT.value, redact_url(hook.url)


def _alerts(view: View) -> None:
    alerts = view.canary.spec.analysis.alerts or ()
    if not alerts:
        return
    click.echo()
    show.title("Alerts")
    namespace = view.canary.meta.namespace
    rows = [(a.name, a.severity or "info", f"{a.provider_ref.namespace or namespace}/{a.provider_ref.name}") for a in alerts]
    show.table(("ALERT", "FROM", "ALERTPROVIDER"), rows)


def _configs(view: View) -> None:
    configs = view.canary.status.tracked_configs
    if not configs:
        return
    click.echo()
    show.title("Tracked configuration")
    show.table(("OBJECT", "CHECKSUM"), sorted(configs.items()))
