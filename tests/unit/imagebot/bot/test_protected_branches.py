"""Which refusals of a push mean that the branch takes requests alone: the words of the forges, and those of others."""

from __future__ import annotations

import pytest

from reconcile.git.errors import PushRejected

HOOK = "pre-receive hook declined"
GITHUB = "error: GH006: Protected branch update failed for refs/heads/main.\n"
RULES = (
    "error: GH013: Repository rule violations found for refs/heads/main.\nReview all repository rules at https://x/rules\n\n- "
)
DECLINED = "push declined due to repository rule violations"


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        ("protected branch hook declined", f"{GITHUB}error: Changes must be made through a pull request."),
        ("protected branch hook declined", f'{GITHUB}error: Required status check "ci" is expected.'),
        (
            "protected branch hook declined",
            f"{GITHUB}error: At least 1 approving review is required by reviewers with write access.",
        ),
        ("protected branch hook declined", f"{GITHUB}error: You're not authorized to push to this branch."),
        (DECLINED, f"{RULES}Changes must be made through a pull request."),
        (DECLINED, f"{RULES}Changes must be made through the merge queue"),
        (DECLINED, f"{RULES}Cannot update this protected ref."),
        (DECLINED, f'{RULES}Required status check "ci" is expected.'),
        (HOOK, "GitLab: You are not allowed to push code to protected branches on this project."),
        (HOOK, "GitLab: You are not allowed to force push code to protected branches on this project."),
        (HOOK, "Gitea: Not allowed to push to protected branch main"),
        (HOOK, "Forgejo: Not allowed to push to protected branch main"),
        (HOOK, "Branch refs/heads/main can only be modified through pull requests."),
        ("permission denied", "Permission denied to update branch main."),
        ("TF402455: Pushes to this branch are not permitted; you must use a pull request to update this branch.", ""),
    ],
)
def test_a_protected_branch(status: str, detail: str) -> None:
    assert PushRejected("x", status=status, detail=detail).protected


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (HOOK, "no commits on Fridays"),
        (HOOK, ""),
        (DECLINED, f"{RULES}Push cannot contain secrets"),
        (DECLINED, f"{RULES}Commits must have verified signatures."),
        ("protected branch hook declined", f"{GITHUB}error: Commits must have verified signatures."),
        (HOOK, "GitLab: Commit message does not follow the pattern '^[A-Z]'"),
        (HOOK, "GitLab: Push operation timed out"),
        (HOOK, "Gitea: branch main is protected from changing file deploy.yaml"),
        ("shallow update not allowed", ""),
    ],
)
def test_another_refusal(status: str, detail: str) -> None:
    assert not PushRejected("x", status=status, detail=detail).protected
