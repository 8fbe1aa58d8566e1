"""`imagebot check DIRECTORY`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from imagebot.check.findings import RULES, Severity, count
from imagebot.check.run import Report, check_folder
from imagebot.check.sarif import as_sarif
from reconcile import __version__
from reconcile.app import load_packages
from reconcile.cli.check import check_cluster
from reconcile.cli.flags import HELP_NAMES
from reconcile.cli.output import clean, print_data
from reconcile.runtime.logs import configure

CLEAN, ERRORS, WARNINGS = 0, 1, 2

NO_DIRECTORY = "these options are for a folder with manifests: imagebot check DIRECTORY; for a cluster see imagebot check-cluster"

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


@click.command(context_settings=HELP_NAMES)
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.option(
    "--repository",
    "repositories",
    multiple=True,
    metavar="NAME=PATH",
    help="A checkout of the GitRepository NAME (or NAMESPACE/NAME), whose markers are checked too. May be repeated."
    "  [default: DIRECTORY, if it is one]",
)
@click.option("--strict", is_flag=True, help="Let warnings count: exit code 2 when there are warnings and no errors.")
@click.option(
    "--ignore",
    "ignored",
    multiple=True,
    type=click.Choice(list(RULES)),
    metavar="RULE",
    help="A rule to leave out. May be repeated.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json", "sarif"]), default="text", show_default=True)
def check(directory: Path | None, repositories: tuple[str, ...], strict: bool, ignored: tuple[str, ...], output: str) -> int:
    """Check the manifests in DIRECTORY, and the markers in checkouts of their repositories. Uses no network.

    Every finding has file, line, column, severity, rule, what is wrong and how to mend it. Exit code 0: no errors; 1: errors, or
    it could not be checked; 2: warnings, with --strict. With -o sarif the findings are a SARIF 2.1.0 log.

    Without DIRECTORY the cluster of the kubeconfig is checked, as `imagebot check-cluster` does.
    """
    if directory is None:
        if repositories or ignored or strict or output != "text":
            raise click.UsageError(NO_DIRECTORY)
        settings: dict[str, Any] = dict(HELP_NAMES)
        return int(check_cluster.main([], prog_name="imagebot check", standalone_mode=False, **settings) or 0)
    return check_directory(directory, repositories, ignored, strict=strict, output=output)


def check_directory(
    directory: Path, repositories: tuple[str, ...], ignored: tuple[str, ...], *, strict: bool, output: str
) -> int:
    """Check a folder and print the report; the exit code. Raises Invalid when it cannot be checked."""
    configure("none")
    report = check_folder(directory, load_packages().scheme, repositories, ignored)
    match output:
        case "json":
            print_data(as_data(report), "json")
        case "sarif":
            print_data(as_sarif(report.findings, __version__, Path.cwd()), "json")
        case _:
            _print(report)
    if count(report.findings, Severity.ERROR):
        return ERRORS
    return WARNINGS if strict and count(report.findings, Severity.WARNING) else CLEAN


def as_data(report: Report) -> dict[str, Any]:
    """The report as plain data."""
    found = [
        {
            "file": finding.path,
            **({"line": finding.line, "column": finding.column} if finding.line else {}),
            "severity": str(finding.level),
            "rule": finding.rule.id,
            **({"object": finding.subject} if finding.subject else {}),
            "message": finding.message,
            "mend": finding.advice,
        }
        for finding in report.findings
    ]
    return {
        "findings": found,
        "summary": {
            **{f"{severity}s": count(report.findings, severity) for severity in Severity},
            "files": report.files,
            "objects": report.objects,
            "checkouts": list(report.checkouts),
            "markers": report.markers,
        },
    }


def _print(report: Report) -> None:
    for finding in report.findings:
        level = click.style(str(finding.level), fg=_COLOURS[finding.level])
        subject = f"{finding.subject}: " if finding.subject else ""
        click.echo(f"{clean(finding.place)}: {level}: {clean(subject + finding.message)} [{finding.rule.id}]")
        click.echo(f"    {clean(finding.advice)}")
    if report.findings:
        click.echo()
    click.echo(summary(report))


def summary(report: Report) -> str:
    """One line: how much was looked at, and how many findings there are."""
    tally = Counter(finding.level for finding in report.findings)
    counts = ", ".join(_many(tally[severity], str(severity)) for severity in Severity if tally[severity]) or "nothing found"
    looked = f"{_many(report.objects, 'object')} in {_many(report.files, 'file')}"
    if report.checkouts:
        looked += f", {_many(report.markers, 'marker')} in {', '.join(report.checkouts)}"
    else:
        looked += "; no checkout, so no markers (see --repository)"
    return f"{counts}: {clean(looked)}"


def _many(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
