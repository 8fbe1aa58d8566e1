"""What is there: branches of the remote and whose they are, requests as the forge has them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from imagebot.bot.requests.ownership import Commit, is_ours, parse_commit
from imagebot.bot.requests.scene import Branch, is_live, is_over
from imagebot.pullrequests import PullRequestStatus
from reconcile.errors import NotFound
from reconcile.git.mirror import Mirror
from reconcile.git.types import HEADS, RemoteRefs
from reconcile.ports.forge import Forge, Request

MAX_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: the remote's references, and requests by number (None: there is no such request)."""

    refs: RemoteRefs
    requests: Mapping[int, Request | None]

    def head(self, branch: str) -> str | None:
        """Commit of a branch."""
        return self.refs.commit(HEADS + branch)

    def with_request(self, request: Request) -> Seen:
        """The same with a newer answer."""
        return replace(self, requests={**self.requests, request.number: request})


async def look(mirror: Mirror, forge: Forge, entries: Sequence[PullRequestStatus]) -> Seen:
    """Ask for every remembered request that may have changed, then for the branches: a merge that is seen is in them.

    One request for each that is open, or was closed by a person and has its branch still, and one `ls-remote`.
    """
    requests: dict[int, Request | None] = {}
    for entry in entries:
        if entry.number is not None and not is_over(entry) and entry.state != "Merged":
            requests[entry.number] = await _get(forge, entry)
    refs = await mirror.ls_remote()
    newest = {entry.branch: entry for entry in entries if entry.number is not None}
    for entry in newest.values():
        back = entry.state == "Closed" and refs.commit(HEADS + entry.branch) is not None
        if back and entry.number is not None and entry.number not in requests:
            requests[entry.number] = await _get(forge, entry)
    return Seen(refs, requests)


async def _get(forge: Forge, entry: PullRequestStatus) -> Request | None:
    assert entry.number is not None  # noqa: S101 - the caller looked
    try:
        return await forge.get(entry.number)
    except NotFound:
        # A forge that hides the repository from these credentials says the same; then this fails, too.
        await forge.find(entry.branch, entry.base)
        return None


class Owners:
    """Whose the heads of branches are; remembered, because a commit never changes."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, str, bool], bool] = OrderedDict()

    async def branches(
        self,
        mirror: Mirror,
        seen: Seen,
        entries: Sequence[PullRequestStatus],
        wanted: Iterable[str],
        *,
        automation: str,
        email: str,
        through_api: bool,
    ) -> dict[str, Branch]:
        """The branches that matter: those that entries and groups name, and those whose names are in their way."""
        named = {*wanted, *(entry.branch for entry in entries if not is_over(entry) or is_live(entry))}
        pushed = {(entry.branch, entry.head) for entry in entries if entry.head is not None}
        found: dict[str, Branch] = {}
        for ref in seen.refs.refs:
            branch = ref.removeprefix(HEADS)
            head = seen.head(branch)
            if branch == ref or head is None:
                continue
            if branch in named:
                ours = (branch, head) in pushed or await self._ours(mirror, head, automation, email, through_api=through_api)
                found[branch] = Branch(head, ours)
            elif any(branch.startswith(f"{name}/") or name.startswith(f"{branch}/") for name in named):
                found[branch] = Branch(head, ours=False)
        return found

    async def _ours(self, mirror: Mirror, head: str, automation: str, email: str, *, through_api: bool) -> bool:
        key = (head, automation, email, through_api)
        if key not in self._known:
            self._known[key] = is_ours(await read_commit(mirror, head), automation, email, through_api=through_api)
            while len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return self._known[key]


async def read_commit(mirror: Mirror, commit: str) -> Commit:
    """A commit of the remote, fetched where it is not there yet."""
    await mirror.fetch(commit)
    return parse_commit((await mirror.read([commit]))[commit])
