"""`imagebot crds [KIND...]`: the CustomResourceDefinitions of our kinds, made from the models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import click
import orjson

from reconcile.api.crd import definitions
from reconcile.app import load_packages
from reconcile.errors import Invalid
from reconcile.yamlio import dump

HEADER = "# Made from the models by `imagebot crds`; change those instead.\n"

Definitions = Mapping[str, Mapping[str, Any]]


@click.command()
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Form of the answer.")
@click.option("--check", type=click.Path(path_type=Path), metavar="DIR", help="Fail if the files in DIR differ.")
@click.option("--write", type=click.Path(path_type=Path), metavar="DIR", help="Write one file each into DIR instead.")
def crds(kinds: tuple[str, ...], output: Literal["yaml", "json"], check: Path | None, write: Path | None) -> None:
    """Print the CustomResourceDefinitions of all kinds, or of those named, ready for kubectl apply."""
    if check and write:
        raise click.UsageError("--check and --write exclude each other.")
    scheme = load_packages().scheme
    found = definitions([scheme.by_word(word) for word in kinds] or scheme)
    if check:
        if problems := differences(found, check, all_of_it=not kinds):
            raise Invalid(f"{'; '.join(problems)}: run `imagebot crds --write {check}`")
    elif write:
        write.mkdir(parents=True, exist_ok=True)
        for name, text in files(found).items():
            (write / name).write_text(text, encoding="utf-8")
    elif output == "json":
        items = list(found.values())
        click.echo(orjson.dumps({"apiVersion": "v1", "kind": "List", "items": items}, option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo("---\n".join(as_yaml(manifest) for manifest in found.values()), nl=False)


def files(found: Definitions) -> dict[str, str]:
    """The texts of the files that hold these definitions, by file name."""
    return {f"{name}.yaml": HEADER + as_yaml(manifest) for name, manifest in found.items()}


def differences(found: Definitions, folder: Path, *, all_of_it: bool) -> list[str]:
    """What is not as generated in `folder`, one text per file; with `all_of_it` a file too many counts as well."""
    wanted = files(found)
    problems = []
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing in {folder}")
        elif path.read_text(encoding="utf-8") != text:
            problems.append(f"{name} is not what the models say")
    if all_of_it and folder.is_dir():
        present = sorted(path.name for path in folder.iterdir())
        problems += [f"{name} in {folder} belongs to no kind" for name in present if name not in wanted]
    return problems


def as_yaml(manifest: Mapping[str, Any]) -> str:
    """One manifest as YAML in the order it was made in, one line per value."""
    return dump(dict(manifest))
