"""Where the commands find their Canaries: in a cluster, never in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from canary.api import CANARY
from canary.site import CanaryResource
from reconcile.api.scheme import Scheme
from reconcile.cli.place import Object, Place
from reconcile.cli.reconcile import only
from reconcile.cli.target import one_subject, open_cluster_of, place_options
from reconcile.errors import Invalid

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects

IN_A_CLUSTER = "a Canary shifts traffic between the workloads of a cluster"
NO_FOLDER = f"{IN_A_CLUSTER}, so there is none in a folder: leave --dir out, and name the cluster with --kubeconfig or --context."
NO_CLUSTER = f"{IN_A_CLUSTER}, and there is no kubeconfig: name one with --kubeconfig, KUBECONFIG or ~/.kube/config"


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which cluster and namespace; the command is given `place`. `--dir` is refused with the reason."""

    @wraps(command)
    def on_a_cluster(place: Place, **options: Any) -> Any:
        if place.directory is not None:
            raise click.UsageError(NO_FOLDER)
        return command(place=place, **options)

    decorated = place_options()(on_a_cluster)
    for option in getattr(decorated, "__click_params__", ()):
        if isinstance(option, click.Option) and {"--dir", "--state"} & set(option.opts):
            option.hidden = True
    return decorated


def open_canaries(place: Place, scheme: Scheme) -> AbstractAsyncContextManager[ClusterObjects]:
    """The cluster of a place, to be entered; raises Invalid when there is no way to one."""
    return open_cluster_of(place, scheme, NO_CLUSTER)


def name_of(scheme: Scheme, word: str) -> str:
    """The name that a word of the command line means: `web`, or `canary/web` as kubectl prints it; raises Invalid."""
    kind, slash, _ = word.partition("/")
    if slash and not CANARY.matches(kind):
        raise Invalid(f"{word} is no Canary: name one, as NAME or canary/NAME")
    return one_subject(scheme, [word if slash else f"canary/{word}"])[1]


async def the_one(cluster: ClusterObjects, name: str) -> Object:
    """The Canary of this name as it was read; raises NotFound, and Invalid when several namespaces have one."""
    return await only(cluster, CANARY, name)


def decoded(scheme: Scheme, found: Object) -> CanaryResource:
    """A Canary with its types; raises Invalid with what is wrong in it."""
    return scheme.decode(CANARY, found, strict=False)


def readable(scheme: Scheme, found: Sequence[Object]) -> list[tuple[Object, CanaryResource | str]]:
    """Each Canary beside itself with its types, or beside what is wrong in it."""
    result: list[tuple[Object, CanaryResource | str]] = []
    for each in found:
        try:
            result.append((each, decoded(scheme, each)))
        except Invalid as error:
            result.append((each, str(error)))
    return result
