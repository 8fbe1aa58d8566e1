"""Commands for one kind: `imagebot tree kustomization NAME`, also as `ks NAME` and `kustomization/NAME`."""

from __future__ import annotations

from typing import Any

import click

from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.app import load_packages
from reconcile.cli.place import Place
from reconcile.cli.target import one_subject


class KindGroup(click.Group):
    """A verb with a command for each kind that it works on, which may be written in every way that kinds are."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:  # fmt: skip
        """The command of a kind. Raises UsageError with the kinds that there are."""
        kind, slash, name = args[0].partition("/")
        found = self.by_word(kind)
        if found is None:
            known = " or ".join(f"imagebot {self.name} {word} NAME" for word in self.commands)
            raise click.UsageError(f"{args[0]}: {self.name} does not work on that: write {known}.", ctx)
        return found.name, found, [*([name] if slash else []), *args[1:]]

    def by_word(self, word: str) -> click.Command | None:
        """The command of the kind that a word names."""
        if KUSTOMIZATION.matches(word):
            return self.commands.get(KUSTOMIZATION.singular)
        return self.commands.get(word)


def one_namespace(place: Place, verb: str) -> None:
    """Refuse `-A` where a command is about one object; raises UsageError."""
    if place.everywhere:
        raise click.UsageError(f"{verb} is about one object: name its namespace with -n.")


def name_of(word: str) -> str:
    """The name of a Kustomization as it was written; raises Invalid when none can have it."""
    return one_subject(load_packages().scheme, [KUSTOMIZATION.singular, word])[1]


def kustomization_name(command: Any) -> Any:
    """The argument NAME."""
    return click.argument("name", metavar="NAME")(command)
