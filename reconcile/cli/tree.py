"""`imagebot tree kustomization NAME`: what a Kustomization has applied, and what the Kustomizations among that have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.meta import Key
from reconcile.app import load_packages
from reconcile.apply.inventory import Entry, references_of
from reconcile.cli.kindgroup import KindGroup, kustomization_name, name_of, one_namespace
from reconcile.cli.output import clean, print_data
from reconcile.cli.place import Object, Place
from reconcile.cli.target import APPLIED, finish, open_cluster_of, place_options
from reconcile.errors import NotFound
from reconcile.ports.cluster import Reference
from reconcile.runtime.logs import configure

MAX_KUSTOMIZATIONS = 1000
"""Kustomizations of one tree."""
FLUX = "toolkit.fluxcd.io"

Read = Callable[[Key], Awaitable[Object]]
"""Reads a Kustomization; raises NotFound."""


@dataclass(slots=True)
class Node:
    """An object, and what was applied by it."""

    reference: Reference
    below: list[Node] = field(default_factory=list)
    note: str = ""
    """Why there may be more below it than is shown."""


@click.group(cls=KindGroup)
def tree() -> None:
    """Show what objects have applied."""


@tree.command("kustomization")
@kustomization_name
@click.option("--compact", is_flag=True, help="Only objects of Flux's kinds.")
@place_options(folder=False, refusal=APPLIED)
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
def tree_kustomization(name: str, compact: bool, place: Place, output: str) -> int:
    """Show the objects that a Kustomization has applied, as a tree.

    Below a Kustomization that it has applied are the objects of that one. Kustomizations that are applied to another cluster are
    not followed there.
    """
    configure("error")
    one_namespace(place, "tree")
    return finish(_tree(name_of(name), place, output, compact=compact))


async def _tree(name: str, place: Place, output: str, *, compact: bool) -> int:
    async with open_cluster_of(place, load_packages().scheme) as cluster:

        async def read(key: Key) -> Object:
            return await cluster.read(KUSTOMIZATION, key)

        root = await grown(read, Key(cluster.namespace, name), compact=compact)
    if output == "text":
        for line in lines(root):
            click.echo(clean(line))
    else:
        print_data(as_data(root), "json" if output == "json" else "yaml")
    return 0


async def grown(read: Read, key: Key, *, compact: bool = False) -> Node:
    """The tree of a Kustomization, whose Kustomizations are read one after another, each once.

    Raises:
        NotFound: There is no such Kustomization. Of one further down that is said in its place.
    """
    found = await read(key)
    root = Node(Reference(KUSTOMIZATION.api_version, KUSTOMIZATION.kind, key.namespace, key.name))
    seen = {key}
    waiting = [(root, found)]
    while waiting:
        node, found = waiting.pop(0)
        for reference in applied_by(found):
            if compact and FLUX not in reference.group:
                continue
            child = Node(reference)
            node.below.append(child)
            inner = Key(reference.namespace, reference.name)
            if (reference.group, reference.kind) != (KUSTOMIZATION.group, KUSTOMIZATION.kind) or inner in seen:
                continue
            if (found.get("spec") or {}).get("kubeConfig"):
                child.note = "in another cluster"
                continue
            if len(seen) >= MAX_KUSTOMIZATIONS:
                child.note = f"not followed: more than {MAX_KUSTOMIZATIONS} Kustomizations"
                continue
            seen.add(inner)
            try:
                waiting.append((child, await read(inner)))
            except NotFound:
                child.note = "not found"
    return root


def applied_by(found: Object) -> list[Reference]:
    """The objects in the inventory of a Kustomization, in its order."""
    inventory = (found.get("status") or {}).get("inventory") or {}
    return references_of(Entry(str(one.get("id")), str(one.get("v"))) for one in inventory.get("entries") or ())[0]


def lines(node: Node) -> Iterator[str]:
    """The tree, drawn with lines."""
    yield _label(node)
    yield from _drawn(node.below, "")


def _drawn(nodes: Sequence[Node], indent: str) -> Iterator[str]:
    for number, node in enumerate(nodes, start=1):
        last = number == len(nodes)
        yield f"{indent}{'└── ' if last else '├── '}{_label(node)}"
        yield from _drawn(node.below, indent + ("    " if last else "│   "))


def _label(node: Node) -> str:
    return f"{node.reference} ({node.note})" if node.note else str(node.reference)


def as_data(node: Node) -> dict[str, Any]:
    """The tree as the flux command prints it as JSON."""
    which = node.reference
    resource = {"Namespace": which.namespace, "Name": which.name, "GroupKind": {"Group": which.group, "Kind": which.kind}}
    return {"resource": resource, **({"resources": [as_data(each) for each in node.below]} if node.below else {})}
