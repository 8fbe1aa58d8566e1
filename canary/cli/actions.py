"""`imagebot canary promote|rollback|retry|pause|resume NAME`: what a person asks of a run.

Requests and pauses are annotations of the Canary, so GitOps tools and other programs can make them too. A request is carried
out once: its text has a mark of time, and the controller notes the text that it has handled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from canary.api import CANARY
from canary.cli.place import cluster_options, decoded, name_of, open_canaries, the_one
from canary.cli.view import RUNNING, View, view_of
from canary.cli.wishes import DOING, PASSIVE, refusal, settled_otherwise, taken_up
from canary.seen import Wish
from canary.tick import ACTION, PAUSE
from reconcile.api.duration import format_duration
from reconcile.api.scheme import Scheme
from reconcile.app import load_packages
from reconcile.cli.output import say
from reconcile.cli.place import Object, Place
from reconcile.cli.reconcile import now_nano
from reconcile.cli.target import DURATION, PATIENCE, finish
from reconcile.errors import Invalid, TimedOut
from reconcile.runtime.logs import configure

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects

LOOK = 0.5
"""Seconds between two looks at a Canary that is waited for."""


def _wish_command(wish: Wish, text: str) -> click.Command:
    def command(name: str, place: Place, wait: bool, timeout: float) -> int:
        configure("error")
        scheme = load_packages().scheme
        return finish(_ask(scheme, name_of(scheme, name), wish, place, timeout if wait else 0.0), timeout + PATIENCE)

    command.__doc__ = text
    decorated: Callable[..., Any] = cluster_options(command)
    decorated = click.option("--timeout", type=DURATION, default="5m", show_default=True, help="Most time to wait.")(decorated)
    decorated = click.option("--wait", is_flag=True, help="Wait until the service has carried it out.")(decorated)
    return click.command(wish.value)(click.argument("name")(decorated))


promote = _wish_command(
    Wish.PROMOTE,
    """Promote a revision without the rest of its analysis; a run that waits at its start gate is let in.

    Gates count as open. The pods must still be ready.
    """,
)
rollback = _wish_command(
    Wish.ROLLBACK,
    """End a run: all traffic goes to the primary, and the phase is Failed.

    The target keeps its revision: put the one before into it, or the next change starts a run again.
    """,
)
retry = _wish_command(
    Wish.RETRY,
    """Start a failed run again, also when the target has not changed since.""",
)


async def _ask(scheme: Scheme, name: str, wish: Wish, place: Place, timeout: float) -> int:
    async with open_canaries(place, scheme) as cluster:
        found = await the_one(cluster, name)
        view = view_of(decoded(scheme, found))
        if reason := refusal(view, wish):
            raise Invalid(f"Canary {view.name} cannot be {PASSIVE[wish]}: {reason}")
        asked = f"{wish.value} {now_nano()}"
        say("►", f"{DOING[wish]} Canary {name} in {view.canary.meta.namespace} namespace")
        # Tied to what was looked at: the phase may have moved meanwhile, and the request would mean something else then.
        await _annotate(cluster, view, {ACTION: asked}, version=found)
        if not timeout:
            say("✔", "Canary annotated, the service does it with its next step")
            return 0
        say("◎", "waiting for the service")
        return await _wait(cluster, scheme, view, wish, asked, timeout)


async def _wait(cluster: ClusterObjects, scheme: Scheme, view: View, wish: Wish, asked: str, timeout: float) -> int:
    key = view.canary.key
    try:
        async with asyncio.timeout(timeout):
            while True:
                view = view_of(decoded(scheme, await cluster.read(CANARY, key)))
                if done := taken_up(view, wish, asked):
                    say("✔", f"Canary {view.name}: {done}")
                    return 0
                if ended := settled_otherwise(view, wish):
                    say("✗", f"Canary {view.name}: {ended}")
                    return 1
                await asyncio.sleep(LOOK)
    except TimeoutError:
        raise TimedOut(
            f"Canary {key} was not handled after {format_duration(timeout)}, the phase is {view.phase.value}; "
            f"what it waits for is told by: imagebot canary explain {key.name} -n {key.namespace}"
        ) from None


async def _annotate(
    cluster: ClusterObjects, view: View, annotations: dict[str, str | None], *, version: Object | None = None
) -> None:
    metadata: Object = {"annotations": annotations}
    if version is not None:
        metadata["resourceVersion"] = version["metadata"]["resourceVersion"]
    await cluster.patch(CANARY, view.canary.key, {"metadata": metadata})


# --- pauses


@click.command()
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="Why; it stands in the status and in Events.")
@cluster_options
def pause(name: str, reason: str, place: Place) -> int:
    """Hold a run at its present weight: checks go on, and failing ones still roll it back, but it takes no step.

    Where no run is under way, the next one is held at its start.
    """
    configure("error")
    scheme = load_packages().scheme
    return finish(_pause(scheme, name_of(scheme, name), reason.strip() or "by imagebot canary pause", place))


async def _pause(scheme: Scheme, name: str, reason: str, place: Place) -> int:
    async with open_canaries(place, scheme) as cluster:
        view = view_of(decoded(scheme, await the_one(cluster, name)))
        if view.canary.meta.deletion_timestamp:
            raise Invalid(f"Canary {view.name} is being deleted")
        await _annotate(cluster, view, {PAUSE: reason})
        if view.phase in RUNNING:
            say("✔", f"Canary {view.name} is held where it is: {reason}")
        else:
            say("✔", f"Canary {view.name} is paused: {reason}; no step is under way, the next run is held at its start")
        return 0


@click.command()
@click.argument("name")
@cluster_options
def resume(name: str, place: Place) -> int:
    """Let a paused run go on with its next step."""
    configure("error")
    scheme = load_packages().scheme
    return finish(_resume(scheme, name_of(scheme, name), place))


async def _resume(scheme: Scheme, name: str, place: Place) -> int:
    async with open_canaries(place, scheme) as cluster:
        view = view_of(decoded(scheme, await the_one(cluster, name)))
        paused = PAUSE in view.canary.meta.annotations
        if paused:
            await _annotate(cluster, view, {PAUSE: None})
        say("✔", f"Canary {view.name} {'goes on' if paused else 'was not paused'}")
        if view.canary.spec.suspend:
            meta = view.canary.meta
            say("◎", f"it is suspended besides; end that with: imagebot resume canary {meta.name} -n {meta.namespace}")
        return 0
