"""What the demonstration prints: on a terminal with colour, elsewhere the same lines as plain text."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

INDENT = "   "
WIDTH = 11
"""Columns for the name of what has happened."""
MARGIN = 2
"""Columns between the cells of a table."""


class Screen:
    """Prints to stdout; nothing else does."""

    def __init__(self) -> None:
        """Looks once whether stdout is a terminal."""
        self.terminal = sys.stdout.isatty()
        # Elsewhere nothing may be folded: somebody may want to search the output.
        self.console = Console() if self.terminal else Console(width=10_000, color_system=None, force_terminal=False)

    def line(self, text: Text | str = "", style: str = "") -> None:
        """One line, indented; long ones are left to the terminal."""
        shown = Text(text, style) if isinstance(text, str) else text
        self.console.print(Text(INDENT) + shown if shown.plain else shown, soft_wrap=True, highlight=False)

    def title(self, text: str) -> None:
        """The first line."""
        self.console.print(Text(text, "bold"), soft_wrap=True)

    def chapter(self, number: int, text: str) -> None:
        """Heading of a chapter."""
        self.console.print()
        self.console.print(Text(f"{number}  {text}", "bold cyan"), soft_wrap=True)

    def facts(self, rows: Sequence[tuple[str, Text | str]]) -> None:
        """Names and values in two columns."""
        width = max(len(name) for name, _ in rows) + MARGIN
        for name, value in rows:
            self.line(Text.assemble((name.ljust(width), "dim"), value))

    def done(self, name: str, text: str) -> None:
        """Something that has happened."""
        self.line(Text.assemble(("✓ ", "green"), (name.ljust(WIDTH), "bold"), text))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Text | str]]) -> None:
        """A small table."""
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, MARGIN, 0, 0))
        for name in header:
            table.add_column(name, no_wrap=True)
        for row in rows:
            table.add_row(*row)
        with self.console.capture() as captured:
            self.console.print(table)
        for line in captured.get().splitlines():
            self.console.print(Text(INDENT) + Text.from_ansi(line.rstrip()), soft_wrap=True, highlight=False)

    def diff(self, text: str) -> None:
        """A unified diff."""
        for line in text.splitlines():
            self.line(Text(line, _diff_style(line)))

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A spinner while inside, on a terminal only."""
        if not self.terminal:
            yield
            return
        with self.console.status(f"{text} …"):
            yield


def _diff_style(line: str) -> str:
    if line.startswith(("diff ", "index ", "--- ", "+++ ")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def marked(line: str) -> Text:
    """A line of a manifest with its marker in another colour."""
    value, separator, marker = line.partition(" # ")
    return Text.assemble(value, (separator + marker, "magenta"))
