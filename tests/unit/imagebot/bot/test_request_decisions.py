"""What becomes of pull requests, decided from plain data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from imagebot.bot.requests.decide import decide
from imagebot.bot.requests.scene import MAX_ENTRIES, Act, Branch, Decision, Do, Due, Say, Scene, bounded, branch_of, declines
from imagebot.pullrequests import PullRequestStatus
from reconcile.ports.forge import Request, RequestState

P = "imagebot/apps/web"
OPEN = RequestState.OPEN


def due(group: str = "", changes: str = "new", images: tuple[str, ...] = ("web: web:2",)) -> Due:
    return Due(group, changes, images)


def entry(state: str = "Open", number: int | None = 1, **fields: Any) -> PullRequestStatus:
    given = {"group": "", "branch": P, "base": "main", "head": "h1", "base_commit": "b1", "changes": "new"}
    if number is not None:
        given |= {"number": number, "url": f"http://forge/{number}"}
    return PullRequestStatus.model_construct(**{"state": state, **_BLANK, **given, **fields})


_BLANK: dict[str, Any] = dict.fromkeys(("number", "url", "head", "base_commit", "changes", "images", "message", "updated"))


def request(number: int = 1, state: RequestState = OPEN, head: str = "h1", branch: str = P, **fields: Any) -> Request:
    return Request(number, f"http://forge/{number}", state, branch, "main", head, "title", "body", **fields)


def scene(*entries: PullRequestStatus, dues: tuple[Due, ...] = (due(),), **fields: Any) -> Scene:
    given: dict[str, Any] = {
        "base": "main",
        "base_commit": "b1",
        "prefix": P,
        "by_policy": False,
        "branches": {P: Branch("h1", ours=True)} if entries else {},
        "requests": {e.number: request(e.number) for e in entries if e.number is not None},
        "found": {P: None},
    }
    return Scene(**{**given, "dues": {each.group: each for each in dues}, "entries": entries, **fields})


def done(decision: Decision) -> list[tuple[Do, int]]:
    return [(act.do, act.slot) for act in decision.acts]


def states(decision: Decision) -> list[str]:
    return [e.state for e in decision.entries]


# --- opening


def test_what_is_due_is_pushed_and_opened() -> None:
    decision = decide(scene())
    assert decision.acts == (Act(Do.PUSH, 0, None), Act(Do.OPEN, 0))
    assert states(decision) == ["Pending"]


def test_nothing_is_opened_before_the_branch_was_looked_up() -> None:
    decision = decide(scene(found={}))
    assert (decision.acts, decision.entries, decision.lookups) == ((), (), (P,))


def test_an_open_request_that_is_not_remembered_is_taken_over() -> None:
    decision = decide(scene(found={P: request(7)}, branches={P: Branch("h1", ours=True)}))
    assert done(decision) == [(Do.PUSH, 0), (Do.UPDATE, 0)]
    assert (decision.entries[0].number, decision.entries[0].state) == (7, "Open")


def test_an_open_request_with_commits_of_people_is_not_taken_over() -> None:
    decision = decide(scene(found={P: request(7)}, branches={P: Branch("h1", ours=False)}))
    assert done(decision) == [(Do.COMMENT, 0)]
    assert states(decision) == ["Foreign"]


def test_a_closed_request_that_is_not_remembered_still_declines() -> None:
    closed = request(7, RequestState.CLOSED)
    decision = decide(scene(found={P: closed}, known={7: "new"}))
    assert (decision.acts, states(decision)) == ((), ["Closed"])
    decision = decide(scene(found={P: closed}, known={7: "other"}))
    assert decision.acts == (Act(Do.PUSH, 1, None), Act(Do.OPEN, 1, declined=7))
    decision = decide(scene(found={P: closed}))  # a person's own request, of that name
    assert done(decision) == [(Do.PUSH, 0), (Do.OPEN, 0)]


def test_a_branch_of_somebody_else_is_not_overwritten() -> None:
    decision = decide(scene(branches={P: Branch("x", ours=False)}))
    assert (decision.acts, states(decision)) == ((), ["Foreign"])
    assert "not ours" in (decision.entries[0].message or "")


@pytest.mark.parametrize("other", [f"{P}/api", "imagebot/apps", "imagebot"])
def test_a_branch_in_the_way_is_named(other: str) -> None:
    decision = decide(scene(branches={other: Branch("x", ours=False)}))
    assert (decision.acts, states(decision)) == ((), ["Pending"])
    assert f"'{other}' is in the way" in (decision.entries[0].message or "")


def test_beyond_the_limit_requests_wait() -> None:
    dues = tuple(due(name) for name in ("a", "b", "c"))
    lookups = decide(scene(dues=dues, by_policy=True, found={}, max_open=2))
    assert lookups.lookups == (f"{P}/a", f"{P}/b")
    found = dict.fromkeys(lookups.lookups)
    decision = decide(scene(dues=dues, by_policy=True, found=found, max_open=2))
    assert done(decision) == [(Do.PUSH, 0), (Do.OPEN, 0), (Do.PUSH, 1), (Do.OPEN, 1)]
    assert states(decision) == ["Pending", "Pending", "Waiting"]


# --- keeping up to date


def test_an_open_request_in_order_costs_nothing() -> None:
    assert decide(scene(entry())) == Decision((), (entry(),))


@pytest.mark.parametrize(
    "change",
    [{"base_commit": "b2"}, {"dues": {"": due(changes="newer")}}, {"renew": True}, {"branches": {P: Branch("h0", ours=True)}}],
)
def test_a_change_renews_branch_and_text(change: dict[str, Any]) -> None:
    decision = decide(replace(scene(entry()), **change))
    assert done(decision) == [(Do.PUSH, 0), (Do.UPDATE, 0)]
    assert decision.acts[0].head == (change.get("branches") or {P: Branch("h1", ours=True)})[P].head


def test_commits_of_people_are_commented_on_once() -> None:
    people = {P: Branch("theirs", ours=False)}
    first = decide(scene(entry(), branches=people))
    assert first.acts == (Act(Do.COMMENT, 0, say=Say.FOREIGN),)
    second = decide(scene(*first.entries, branches=people, base_commit="b2"))
    assert (second.acts, states(second)) == ((), ["Foreign"])
    third = decide(scene(*second.entries))
    assert states(third) == ["Open"]


def test_merges_are_asked_for_once_for_each_head() -> None:
    first = decide(scene(entry(), auto_merge=True))
    assert (done(first), first.soon) == ([(Do.MERGE, 0)], True)
    settled = decide(scene(entry(), auto_merge=True, merging={1: "h1"}))
    assert (settled.acts, settled.soon) == ((), False)
    late = decide(scene(entry(), auto_merge=True, requests={1: request(head="h0")}))
    assert (late.acts, late.soon) == ((), True)
    assert decide(scene(entry(), auto_merge=True, requests={1: request(draft=True)})).acts == ()


# --- the end


def test_a_merged_request_is_cleared_away() -> None:
    merged = {1: request(state=RequestState.MERGED)}
    decision = decide(scene(entry(), dues=(), requests=merged))
    assert (decision.acts, states(decision)) == ((Act(Do.DELETE, 0, "h1"),), ["Merged"])
    people = decide(scene(entry(), dues=(), requests=merged, branches={P: Branch("x", ours=False)}))
    assert (people.acts, people.entries[0].head) == ((), None)


def test_a_merge_that_the_base_does_not_show_yet_opens_nothing() -> None:
    decision = decide(scene(entry(), requests={1: request(state=RequestState.MERGED)}))
    assert (done(decision), decision.again) == ([(Do.DELETE, 0)], True)


def test_after_a_merge_other_changes_get_a_new_request() -> None:
    merged = {1: request(state=RequestState.MERGED)}
    decision = decide(scene(entry(), dues=(due(changes="newer"),), requests=merged))
    assert decision.acts == (Act(Do.PUSH, 1, "h1"), Act(Do.OPEN, 1))
    assert decision.entries[0].head is None


@pytest.mark.parametrize("answer", [request(state=RequestState.CLOSED), None])
def test_a_closed_request_declines_until_there_are_other_changes(answer: Request | None) -> None:
    first = decide(scene(entry(images=["web: web:2"]), requests={1: answer}))
    assert (first.acts, states(first)) == ((), ["Closed"])
    moved = decide(scene(*first.entries, requests={1: answer}, base_commit="b2"))
    assert moved.acts == ()
    newer = due(changes="newer", images=("web: web:3",))
    decision = decide(scene(*first.entries, requests={1: answer}, dues=(newer,)))
    assert decision.acts == (Act(Do.PUSH, 1, "h1"), Act(Do.OPEN, 1, declined=1))


def test_a_part_of_what_was_declined_is_declined_too() -> None:
    closed = entry("Closed", images=["api: api:2", "web: web:2"])
    assert declines(closed, due(changes="other", images=("web: web:2",)))
    assert not declines(closed, due(changes="other", images=("web: web:3",)))
    cut = entry("Closed", images=[f"p{n}: i" for n in range(50)])
    assert not declines(cut, due(changes="other", images=("p1: i",)))


def test_a_request_opened_again_goes_on() -> None:
    decision = decide(scene(entry("Closed", message="declined")))
    assert (decision.acts, states(decision), decision.entries[0].message) == ((), ["Open"], None)


def test_without_its_branch_a_request_is_closed_and_declined() -> None:
    decision = decide(scene(entry(), branches={}))
    assert (done(decision), states(decision)) == ([(Do.CLOSE, 0)], ["Closed"])
    assert done(decide(scene(*decision.entries, branches={}))) == [(Do.CLOSE, 0)], "also when we were ended before it was closed"
    unneeded = decide(scene(*decision.entries, branches={}, dues=()))
    assert (done(unneeded), unneeded.entries[0].head) == ([(Do.CLOSE, 0)], "h1")
    closed = entry("Closed", head=None, changes="new")
    assert done(decide(scene(closed, branches={}))) == [], "whoever opens it again without a branch has it open"


@pytest.mark.parametrize("commit", ["b1", "b0"])
def test_a_branch_that_was_put_back_to_its_base_is_as_good_as_none(commit: str) -> None:
    branches = {P: Branch(commit, ours=False)}
    decision = decide(scene(entry(base_commit="b0"), branches=branches))
    assert (done(decision), states(decision)) == ([(Do.CLOSE, 0)], ["Closed"])
    declined = entry("Closed", head=None, changes="old", images=["web: web:1"], base_commit="b0")
    decision = decide(scene(declined, branches=branches, requests={}))
    assert decision.acts == (Act(Do.PUSH, 1, commit), Act(Do.OPEN, 1, declined=1))


@pytest.mark.parametrize(
    ("change", "retitle"),
    [({"base_commit": "b2"}, False), ({"dues": (due(changes="newer"),)}, True), ({"renew": True}, True)],
)
def test_a_title_is_set_with_other_changes_alone(change: dict[str, Any], retitle: bool) -> None:
    assert [act.retitle for act in decide(scene(entry(), **change)).acts if act.do is Do.UPDATE] == [retitle]


def test_groups_that_wait_for_room_come_first() -> None:
    dues = tuple(due(name) for name in ("api", "job", "web"))
    merged = entry("Merged", group="api", branch=f"{P}/api", head=None, changes="old")
    waiting = [entry("Waiting", None, group=name, branch=f"{P}/{name}", head=None) for name in ("web", "job")]
    decision = decide(scene(merged, *waiting, dues=dues, by_policy=True, branches={}, requests={}, found={}, max_open=2))
    assert decision.lookups == (f"{P}/web", f"{P}/job")


def test_nothing_left_to_change_closes_the_request_and_deletes_the_branch() -> None:
    decision = decide(scene(entry(), dues=()))
    assert decision.acts == (Act(Do.COMMENT, 0, say=Say.NOTHING_LEFT), Act(Do.CLOSE, 0), Act(Do.DELETE, 0, "h1"))
    assert states(decision) == ["Superseded"]


def test_a_closing_that_was_interrupted_is_finished_without_a_second_comment() -> None:
    noted = entry("Superseded")
    assert done(decide(scene(noted, dues=()))) == [(Do.CLOSE, 0), (Do.DELETE, 0)]
    closed = {1: request(state=RequestState.CLOSED)}
    assert done(decide(scene(noted, dues=(), requests=closed))) == [(Do.DELETE, 0)]
    back = decide(scene(noted))
    assert (back.acts, states(back)) == ((), ["Open"])


def test_other_groups_supersede_and_make_way() -> None:
    dues = (due("api"), due("web"))
    found = dict.fromkeys([f"{P}/api", f"{P}/web"])
    decision = decide(scene(entry(), dues=dues, by_policy=True, found=found))
    assert done(decision)[0] == (Do.DELETE, 0)
    assert done(decision)[-2:] == [(Do.COMMENT, 0), (Do.CLOSE, 0)]
    assert decision.acts[-2].say is Say.SUPERSEDED
    assert states(decision) == ["Superseded", "Pending", "Pending"]


def test_another_base_supersedes_without_deleting_the_branch_that_goes_on() -> None:
    decision = decide(scene(entry(), base="release"))
    assert done(decision) == [(Do.PUSH, 1), (Do.OPEN, 1), (Do.COMMENT, 0), (Do.CLOSE, 0)]


def test_what_waited_for_nothing_any_more_is_dropped() -> None:
    decision = decide(scene(entry("Waiting", None, head=None), dues=(), branches={}))
    assert (decision.acts, decision.entries[0].head, decision.entries[0].state) == ((), None, "Superseded")


def test_without_requests_in_the_spec_all_are_closed() -> None:
    decision = decide(scene(entry(), dues=(), off=True, base=""))
    assert [act.say for act in decision.acts] == [Say.OFF, Say.NOTHING, Say.NOTHING]
    people = decide(scene(entry("Foreign"), dues=(), off=True, branches={P: Branch("x", ours=False)}))
    assert people.acts == ()


def test_history_is_bounded_and_what_lives_stays() -> None:
    live = [entry(number=n) for n in range(1, 31)]
    history = [entry("Merged", number=100 + n, head=None) for n in range(40)]
    kept = bounded([*history, *live])
    assert len(kept) == MAX_ENTRIES
    assert [e.number for e in kept if e.state == "Open"] == list(range(1, 31))
    assert kept[0].number == 120


def test_the_branch_of_a_policy_is_a_name_that_git_takes() -> None:
    assert branch_of(P, "") == P
    assert branch_of(P, "web") == f"{P}/web"
    assert branch_of(P, "web.lock") == f"{P}/web.lock-"
