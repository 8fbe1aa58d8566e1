"""Where a command looks and what it is about: a folder or a cluster, kinds and names.

A command that shows something works on both: `--dir` names a folder, else a kubeconfig is looked for where kubectl and
controller-runtime look. Nothing of `kubernetes` is imported before a cluster is really asked.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from reconcile.api.duration import format_duration
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.cli.durations import DurationType
from reconcile.cli.place import Object, Objects, Place
from reconcile.errors import Invalid, TimedOut

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects

Result = TypeVar("Result")

PATIENCE = 60.0
"""Seconds that a command may take which only reads, or writes once."""

NOWHERE = (
    "there is neither a folder nor a cluster to look at: name the folder of your manifests with --dir, "
    "or a cluster with --kubeconfig, KUBECONFIG or ~/.kube/config"
)

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
MAX_NAME = 253


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind, or one object of it."""

    info: KindInfo
    name: str | None = None


DURATION = DurationType(least=0.001)
"""How long a command waits."""


APPLIED = (
    "Kustomizations are applied to clusters, never to a folder: "
    "leave --dir out, and name the cluster with --kubeconfig or --context."
)
"""Why a command that looks into what was applied takes no folder."""


def place_options(*, folder: bool = True, refusal: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options that say where to look; the command is given `place`.

    Without `folder`, `--dir` is refused with `refusal`, or because nothing is ever written to a folder.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_place(
            directory: Path | None, state: Path | None, kubeconfig: str, context: str, namespace: str | None, everywhere: bool,
            **options: Any,
        ) -> Any:  # fmt: skip
            if directory is not None and not folder:
                raise click.UsageError(
                    refusal
                    or f"the objects of {directory} are its files, which imagebot never writes: edit the manifest, and a service "
                    "that runs on the folder acts on it within two seconds."
                )
            if directory is not None and (kubeconfig or context):
                raise click.UsageError("--dir names a folder, --kubeconfig and --context a cluster: give one of the two.")
            if namespace is not None and everywhere:
                raise click.UsageError("--namespace and --all-namespaces exclude each other.")
            if namespace is not None and not _LABEL.fullmatch(namespace):
                raise Invalid(f'namespace must be a valid DNS label: "{namespace[:80]}"')
            return command(place=Place(directory, state, kubeconfig, context, namespace, everywhere), **options)

        path = click.Path(path_type=Path)
        options = [
            click.option("--dir", "directory", type=path, help="Look at this folder of manifests, not at a cluster.",
                         hidden=not folder),
            click.option("--state", type=path, help="Folder with the state. [default: per user and DIR]", hidden=not folder),
            click.option("--kubeconfig", default="", metavar="FILE", help="[default: KUBECONFIG, the pod's own, ~/.kube/config]"),
            click.option("--context", default="", metavar="NAME", help="Context of the kubeconfig. [default: its current one]"),
            click.option("-n", "--namespace", help="[default: that of the context; all of a folder]"),
            click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="All namespaces."),
        ]  # fmt: skip
        for option in reversed(options):
            with_place = option(with_place)
        return with_place

    return decorate


def open_objects(place: Place, scheme: Scheme) -> AbstractAsyncContextManager[Objects]:
    """The objects of a place, to be entered; raises Invalid when there is no such folder and no way to a cluster."""
    if place.directory is not None:
        from reconcile.cli.folder import open_folder

        return open_folder(scheme, place.directory, place.state, place.namespace)
    return open_cluster_of(place, scheme, NOWHERE)


def open_cluster_of(
    place: Place,
    scheme: Scheme,
    missing: str = "there is no kubeconfig: name one with --kubeconfig, KUBECONFIG or ~/.kube/config",
) -> AbstractAsyncContextManager[ClusterObjects]:
    """The objects of a cluster, to be entered; raises Invalid with `missing` when there is no way to one."""
    if not has_kubeconfig(place.kubeconfig):
        raise Invalid(missing)
    from reconcile.cli.cluster import open_cluster

    return open_cluster(place, scheme)


def has_kubeconfig(given: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether there is anything that may lead to a cluster."""
    if given or environment.get("KUBECONFIG") or "KUBERNETES_SERVICE_HOST" in environment:
        return True
    return (Path(environment.get("HOME", "~")).expanduser() / ".kube" / "config").is_file()


def finish(work: Coroutine[Any, Any, Result], seconds: float = PATIENCE) -> Result:
    """Run to the end of `work`; raises TimedOut after so many seconds."""

    async def bounded() -> Result:
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise TimedOut(f"not done after {format_duration(seconds)}: is the server very slow?") from None

    return asyncio.run(bounded())


# --- kinds and names


def subjects(scheme: Scheme, words: Sequence[str]) -> list[Subject]:
    """What words of a command line mean; no words are all kinds.

    `KIND`, `KIND NAME...`, `KIND/NAME...`, `KIND,KIND`, a category such as `all`, and the two words that the flux command uses
    (`image policy NAME`, `source git NAME`).

    Raises:
        Invalid: There is no such kind, or this cannot be a name.
        UsageError: The words do not fit together.
    """
    if any("/" in word for word in words):
        found = []
        for word in words:
            kind, _, name = word.partition("/")
            if not kind or not name:
                raise click.UsageError(f"{word}: give each as KIND/NAME, or one KIND and then names.")
            found.append(Subject(scheme.by_word(kind), _name(name)))
        return found
    infos, names = _kinds(scheme, words)
    if not names:
        return [Subject(info) for info in infos]
    return [Subject(info, _name(name)) for info in infos for name in names]


def one_subject(scheme: Scheme, words: Sequence[str]) -> tuple[KindInfo, str]:
    """The one object that words name; raises as `subjects`, and UsageError when it is not exactly one."""
    found = subjects(scheme, words)
    if len(found) != 1 or found[0].name is None:
        raise click.UsageError("name one object, as KIND/NAME or KIND NAME.")
    return found[0].info, found[0].name


def _kinds(scheme: Scheme, words: Sequence[str]) -> tuple[list[KindInfo], Sequence[str]]:
    if not words:
        return list(scheme), ()
    first, *rest = words
    if named := [info for word in first.split(",") for info in scheme if info.matches(word)]:
        if len(named) == len(first.split(",")):
            return named, rest
    elif category := [info for info in scheme if first.lower() in info.categories]:
        return category, rest
    elif group := [info for info in scheme if info.group.split(".")[0] == first.lower().removesuffix("s")]:
        if not rest or rest[0] == "all":
            return group, rest[1:]
        second = [info for info in group if _is_second_word(info, rest[0].lower())]
        if second:
            return second[:1], rest[1:]
        return [scheme.by_word(rest[0])], rest[1:]
    return [scheme.by_word(word) for word in first.split(",")], rest


def _is_second_word(info: KindInfo, word: str) -> bool:
    """Whether flux calls the kind so behind the word for its group: `repository` or `git`, also in the plural."""
    group = info.group.split(".")[0]
    names = (info.singular.removeprefix(group), info.plural.removeprefix(group))
    return len(word) > 2 and any(name.startswith((word, word.removesuffix("s"))) for name in names)


def _name(text: str) -> str:
    if len(text) > MAX_NAME or not _SUBDOMAIN.fullmatch(text):
        raise Invalid(f'"{text[:80]}" cannot be the name of an object: lower case letters, digits, "-" and "."')
    return text


def words_of(found: Object) -> str:
    """An object in words: `ImagePolicy apps/web`."""
    meta = found["metadata"]
    return f"{found['kind']} {meta.get('namespace', '')}/{meta['name']}"
