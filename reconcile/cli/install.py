"""`imagebot install --export`: the objects of an installation, for those who do not use Helm.

The objects are those of the chart with its default values; they are kept beside this file as `installation.yaml`, which a test
compares with what the chart renders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from reconcile.api.crd import definitions
from reconcile.app import load_packages
from reconcile.errors import Invalid
from reconcile.yamlio import dump, load_documents

RENDERED = Path(__file__).with_name("installation.yaml")
NAMESPACE = "imagebot-system"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@click.command()
@click.option("--export", "export", is_flag=True, help="Print the objects; piping them to kubectl is left to you.")
@click.option("-n", "--namespace", default=NAMESPACE, show_default=True, help="Namespace to install into; it is printed, too.")
@click.option("--image", default="", metavar="REF", help="Container image.  [default: that of the chart]")
@click.option("--no-crds", is_flag=True, help="Leave the CustomResourceDefinitions out.")
def install(export: bool, namespace: str, image: str, no_crds: bool) -> None:
    """Print the objects of an installation with the chart's default values.

    \b
      imagebot install --export | kubectl apply --server-side -f -
    """
    if not export:
        raise click.UsageError("say --export: the objects are printed, `kubectl apply` installs them; or use the Helm chart")
    if not _NAME.fullmatch(namespace):
        raise Invalid(f"{namespace!r} is no name of a namespace: lower case letters, digits and '-', at most 63")
    click.echo("---\n".join(dump(body) for body in objects(namespace, image, crds=not no_crds)), nl=False)


def objects(namespace: str, image: str = "", *, crds: bool = True) -> Iterator[dict[str, Any]]:
    """The Namespace, the definitions, then the chart's objects, in an order in which they can be applied."""
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    if crds:
        yield from definitions(load_packages().scheme).values()
    # The namespace is also part of the names of what belongs to no namespace: as text it is replaced everywhere.
    text = RENDERED.read_text(encoding="utf-8").replace(NAMESPACE, namespace)
    for body, _ in load_documents(text, RENDERED.name):
        if body["kind"] == "Deployment" and image:
            for container in body["spec"]["template"]["spec"]["containers"]:
                container["image"] = image
        yield body
