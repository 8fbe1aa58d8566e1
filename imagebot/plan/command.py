"""`imagebot plan DIRECTORY`."""

from __future__ import annotations

import asyncio
import textwrap
from pathlib import Path
from typing import Any

import click

from imagebot.plan.plan import CommitPlan, Plan, make_plan
from imagebot.plan.rehearsal import rehearsed
from imagebot.pullrequests import PullRequestStatus
from reconcile.app import load_packages
from reconcile.cli.flags import HELP_NAMES, common_options, local_options
from reconcile.cli.output import clean, print_data, print_rows
from reconcile.runtime.logs import configure
from reconcile.settings import LogSettings, Settings, parse_gates

UNCHANGED, FAILED, CHANGES = 0, 1, 2

WIDTH = 100
"""Most characters of a line with names, where they are not longer."""

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command(context_settings={"default_map": {"log_level": "none"}, **HELP_NAMES})
@click.argument("directory", type=click.Path(path_type=Path))
@common_options
@local_options
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--timeout", type=click.FloatRange(1), default=600.0, show_default=True, help="Most seconds for the scans.")
def plan(directory: Path, output: str, timeout: float, **options: Any) -> int:
    """Say what imagebot once DIRECTORY would do: what each policy chooses and why, each commit with its message and diff.

    Registries and repositories are read as in a real pass. Nothing is pushed, and no status is written.

    Exit code 0: nothing would be changed; 2: something would be changed; 1: an object failed, or no plan could be made.
    """
    settings = Settings(
        concurrent=options["concurrent"],
        no_cross_namespace_refs=options["no_cross_namespace_refs"],
        user_docker_config=options["docker_config"],
        gates=parse_gates(options["feature_gates"]),
        log=LogSettings(options["log_level"], options["log_encoding"]),
    )
    configure(settings.log.level, settings.log.encoding)
    state = Path(options["state"]) if options["state"] else None
    made = asyncio.run(_plan(directory, settings, state, timeout))
    if output == "json":
        print_data(as_data(made), "json")
    else:
        print_plan(made)
    if made.failed:
        return FAILED
    return CHANGES if made.changes else UNCHANGED


async def _plan(directory: Path, settings: Settings, state: Path | None, timeout: float) -> Plan:
    async with rehearsed(directory, load_packages(), settings, state, timeout=timeout) as rehearsal:
        return await make_plan(rehearsal)


def as_data(made: Plan) -> dict[str, Any]:
    """The plan as plain data."""
    return {
        "decisions": [
            {
                "policy": str(decision.policy),
                **({"image": decision.image} if decision.image else {}),
                **({"before": decision.before} if decision.before else {}),
                "why": decision.why,
                "failed": decision.failed,
            }
            for decision in made.decisions
        ],
        "automations": [_commit_data(commit) for commit in made.commits],
        "problems": list(made.problems),
        "changes": made.changes,
    }


def _commit_data(commit: CommitPlan) -> dict[str, Any]:
    data: dict[str, Any] = {"automation": str(commit.automation), "automations": [str(key) for key in commit.automations]}
    if commit.repository:
        data |= {"repository": commit.repository, "branch": commit.branch, "base": commit.base}
    if commit.request:
        data["pullRequest"] = commit.request
        data["groupBy"] = "policy" if commit.by_policy else "automation"
        data |= {name: text for name, text in (("policy", commit.policy), ("title", commit.title)) if text}
        shown = {"group", "branch", "number", "url", "state", "message"}
        data["requests"] = [entry.model_dump(mode="json", include=shown, exclude_none=True) for entry in commit.requests]
    if commit.message is not None:
        data["commit"] = {
            "message": commit.message,
            "signed": commit.signed,
            "files": [{"path": file.path, "diff": file.diff} for file in commit.files],
        }
    if commit.kept:
        data["kept"] = dict(commit.kept)
    data["skipped"] = [marker.model_dump(mode="json", exclude_none=True) for marker in commit.skipped]
    return data | {name: text for name, text in (("problem", commit.problem), ("note", commit.note)) if text}


def print_plan(made: Plan) -> None:
    """Write the plan to stdout for people; diffs begin at the margin, so that they can be taken as they are."""
    if made.decisions:
        click.secho("Decisions", bold=True)
        rows = [[str(d.policy), d.image or "none", d.before if d.before != d.image else "", d.why] for d in made.decisions]
        head = ["POLICY", "IMAGE", "BEFORE", "WHY"]
        if not any(row[2] for row in rows):
            head, rows = [head[0], head[1], head[3]], [[row[0], row[1], row[3]] for row in rows]
        print_rows(head, rows, indent=2)
    for commit in made.commits:
        click.echo()
        _print_commit(commit)
    if made.problems:
        click.echo()
        click.secho("Problems", bold=True)
        for problem in made.problems:
            click.echo(f"  {click.style('✗', fg='red')} {clean(problem)}")
    click.echo()
    click.echo(_summary(made))


def _print_commit(commit: CommitPlan) -> None:
    for line in _headed(commit):
        click.secho(line, bold=True)
    if commit.repository:
        branch = f"{commit.branch}/<policy>" if commit.by_policy and not commit.policy else commit.branch
        click.echo(f"  {clean(commit.repository)}, branch {clean(branch)}, on {commit.base[:12]}")
    if commit.request and commit.message is not None:
        click.echo(f"  by pull request into {clean(commit.request)}{f', for policy {commit.policy}' if commit.policy else ''}")
        for entry in commit.requests:
            about = [f"{entry.state.lower()}{_whose(entry, commit)}", entry.url, entry.message]
            click.echo(f"    {clean(', '.join(part for part in about if part))}")
        click.echo(f"  titled: {clean(commit.title)}")
    if commit.note or commit.problem:
        click.echo(f"  {clean(commit.note or commit.problem)}")
    elif commit.message is None:
        click.echo("  nothing to change")
    else:
        click.echo(f"  {'signed ' if commit.signed else ''}commit:")
        for line in clean(commit.message.rstrip()).splitlines():
            click.echo(f"    {line}".rstrip())
    for policy, reason in commit.kept.items():
        click.echo(f"  markers of policy {policy} are kept: {clean(reason)}")
    if commit.skipped:
        click.echo("  markers and files without effect:")
        rows = [[f"{s.path}:{s.line}" if s.line else s.path, s.marker or "", s.message] for s in commit.skipped]
        print_rows(["FILE", "MARKER", "WHY"], rows, indent=4)
    for file in commit.files:
        click.echo()
        for line in file.diff.removesuffix("\n").split("\n"):
            click.secho(_shown(line), fg=_COLOURS.get(line[:1]))


def _whose(entry: PullRequestStatus, commit: CommitPlan) -> str:
    """What a request is for, where it is not this one."""
    if entry.group == commit.policy:
        return ""
    return f" for policy {entry.group}" if entry.group else " for all policies"


def _headed(commit: CommitPlan) -> list[str]:
    """Who commits; lines of their own for the names of many. Names have hyphens, at which no line is broken."""
    names = ", ".join(str(key) for key in commit.automations)
    if len(commit.automations) == 1:
        return [f"ImageUpdateAutomation {names}"]
    text = f"ImageUpdateAutomations {names}"
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _shown(line: str) -> str:
    """A line of a diff as a terminal may have it; tabs and the end of a line of Windows stay."""
    text, end = (line[:-1], "\r") if line.endswith("\r") else (line, "")
    return "\t".join(clean(part) for part in text.split("\t")) + end


def _summary(made: Plan) -> str:
    commits = sum(commit.message is not None and not commit.request for commit in made.commits)
    proposed = sum(commit.message is not None and bool(commit.request) for commit in made.commits)
    files = sum(len(commit.files) for commit in made.commits)
    parts = [f"{_many(commits, 'commit')} would be pushed"] if commits else []
    parts += [f"{_many(proposed, 'commit')} would be proposed by pull requests"] if proposed else []
    done = f"{' and '.join(parts)}, with {_many(files, 'changed file')}" if parts else "nothing would be changed"
    return f"{done}; {_many(len(made.problems), 'problem')}" if made.problems else done


def _many(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
