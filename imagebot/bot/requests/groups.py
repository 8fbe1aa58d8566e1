"""What requests bring: all that a job found, or that of each policy alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from imagebot.bot.job import Job
from imagebot.bot.requests.act import Group
from imagebot.bot.requests.body import Told, policies_of
from imagebot.bot.requests.scene import Due
from imagebot.bot.update import Update
from imagebot.bot.writer import Ground


async def groups_of(job: Job, ground: Ground, rules: Mapping[str, str], *, by_policy: bool) -> dict[str, Group]:
    """The groups of what a job found last, by name; none where nothing is due.

    Args:
        job: has looked at the ground.
        ground: head of the branch to merge into.
        rules: of the policies, by name, for people.
        by_policy: whether each policy is a group; else there is one, named "".

    Raises:
        Stalled, Failed, GitError: as `Job.build`.
    """
    if not job.latest.edits:
        return {}
    if not by_policy:
        return {"": _group("", job, job.latest, rules)}
    found: dict[str, Group] = {}
    for policy in policies_of(job.resource.key.namespace, job.latest.changed):
        if policy in job.refs:
            alone = job.alone(policy)
            found[policy] = _group(policy, alone, await alone.update(ground), rules)
    return found


def _group(name: str, job: Job, update: Update, rules: Mapping[str, str]) -> Group:
    git, key = job.resource.spec.git, job.resource.key
    assert git is not None  # noqa: S101 - who asks for requests has it
    policies = [policy for policy in policies_of(key.namespace, update.changed) if policy in job.refs]
    images = tuple(f"{policy}: {job.refs[policy]}" for policy in policies)
    lines = sorted({f"{change.setter}\0{change.new_value}" for change in update.changed.changes()})
    changes = "sha256:" + hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    values = git.commit.message_template_values or {}
    told = Told(key.namespace, key.name, update.changed, job.refs, rules, values, changes)
    full = {(key.namespace, policy): str(ref) for policy, ref in job.refs.items()}
    return Group(job, update, Due(name, changes, images), told, job.message(update.changed, full))
