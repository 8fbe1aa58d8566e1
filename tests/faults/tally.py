"""Adds results up and prints them. Pure, but for the clock of who calls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.faults.schedule import Start
from tests.faults.world import Result

JUDGED = ("lost", "doubled", "downgrade", "human", "damage", "leftover", "leak", "crash", "unsettled")


@dataclass
class Tally:
    """What many schedules came to."""

    schedules: int = 0
    starts: int = 0
    kills: int = 0
    due: int = 0
    commits: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    failed: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count a result."""
        self.schedules += 1
        self.starts += len(result.facts.ran)
        self.kills += result.kills
        self.due += result.judgement.due
        self.commits += result.judgement.commits
        self.faults += result.faults
        self.found.update(finding.kind for finding in result.judgement.findings)
        if result.judgement.findings:
            self.failed.append(result)

    def table(self, seconds: float) -> str:
        """The tally as text."""
        rows = [
            ("schedules", self.schedules),
            ("starts of the service", self.starts),
            ("killed with SIGKILL", self.kills),
            *sorted(self.faults.items()),
            ("changes due, in Git once", self.due),
            ("commits", self.commits),
            *((kind, self.found[kind]) for kind in JUDGED),
            ("seconds", round(seconds)),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {count:>7}" for name, count in rows)


def told(result: Result) -> str:
    """A failed schedule: its steps, the findings, and how to repeat it."""
    lines = [f"schedule {result.schedule.name}: {result.schedule.layout}, {', '.join(result.schedule.images)}"]
    lines += [
        f"    {f'{step.mode}: {step.disturbance()}' if isinstance(step, Start) else step}" for step in result.schedule.steps
    ]
    lines += [f"  {finding.kind}: {finding.text}" for finding in result.judgement.findings]
    lines.append(f"  repeat: python -m tests.faults --only {result.schedule.name} --keep")
    if result.kept:
        lines.append(f"  kept in {result.kept}")
    return "\n".join(lines)
