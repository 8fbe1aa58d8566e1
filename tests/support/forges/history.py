"""What a forge does to a bare repository: merges, squashes, rebases, refused pushes. Real commits by plain git."""

from __future__ import annotations

from tests.support.gitrepo import BareRepository


class MergeRefused(Exception):
    """The contents do not fit together."""


def contains(repository: BareRepository, commit: str, ancestor: str) -> bool:
    """Whether `ancestor` is `commit` or one of those before it."""
    return repository.git("rev-list", "--max-count=1", ancestor, f"^{commit}") == ""


def merged_tree(repository: BareRepository, ours: str, theirs: str) -> str:
    """The tree of both; raises MergeRefused."""
    lines = repository.git("merge-tree", "--write-tree", ours, theirs, check=False).splitlines()
    if len(lines) != 1:
        raise MergeRefused("conflict")
    return lines[0]


def commit_tree(repository: BareRepository, tree: str, parents: list[str], message: str) -> str:
    """A commit of `tree`."""
    flags = [flag for parent in parents for flag in ("-p", parent)]
    return repository.git("commit-tree", tree, *flags, stdin=message.encode())


def joined(repository: BareRepository, base: str, head: str, how: str, message: str) -> str:
    """The commit that brings `head` to `base` by merge, squash or rebase; raises MergeRefused."""
    if how == "merge":
        return commit_tree(repository, merged_tree(repository, base, head), [base, head], message)
    if how == "squash":
        return commit_tree(repository, merged_tree(repository, base, head), [base], message)
    assert how == "rebase", how
    for commit in repository.git("rev-list", "--reverse", "--no-merges", head, f"^{base}").split():
        base = _picked(repository, base, commit)
    return base


def _picked(repository: BareRepository, onto: str, commit: str) -> str:
    """`commit` on top of `onto`. Two commits on a common one stand for what git's newer versions take as --merge-base."""
    before = commit_tree(repository, repository.git("rev-parse", f"{commit}^^{{tree}}"), [], "before")
    ours = commit_tree(repository, repository.git("rev-parse", f"{onto}^{{tree}}"), [before], "ours")
    theirs = commit_tree(repository, repository.git("rev-parse", f"{commit}^{{tree}}"), [before], "theirs")
    tree = merged_tree(repository, ours, theirs)
    return commit_tree(repository, tree, [onto], repository.git("log", "-1", "--format=%B", commit) + "\n")


def move(repository: BareRepository, branch: str, commit: str, expected: str | None) -> None:
    """Move a branch from `expected` (None: it is new) to `commit`."""
    repository.git("update-ref", f"refs/heads/{branch}", commit, expected or "0" * len(commit))


def branches(repository: BareRepository) -> dict[str, str]:
    """Branch to its commit."""
    lines = repository.git("for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/heads").splitlines()
    return dict(line.rsplit(" ", 1) for line in lines)


def refuse_pushes(repository: BareRepository, branches_: dict[str, str]) -> None:
    """A hook that refuses pushes to the branches with the lines given for each, as the forge words them."""
    cases = []
    for branch, lines in sorted(branches_.items()):
        said = "\n".join(f"    echo '{line}' >&2" for line in lines.splitlines())
        cases.append(f"  refs/heads/{branch})\n{said}\n    exit 1;;")
    body = "\n".join(cases)
    repository.hook("pre-receive", f'while read -r old new ref; do\n  case "$ref" in\n{body}\n  esac\ndone\nexit 0\n')
