"""One fault at a time, each in a world of its own, and what the service says of it."""

from __future__ import annotations

import pytest

from tests.faults.points import POINTS, Stop, When
from tests.faults.runner import carry_out
from tests.faults.schedule import DAY, Delete, Fill, Human, Push, Schedule, Start
from tests.faults.servers import GIT_FAULTS, REGISTRY_FAULTS
from tests.faults.world import Result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first test waits for all worlds

USED = (Start(), Push(0, "1.1.0"))
"""A service that has worked, and something new to do."""


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """Every world of this module; several at once, since each mostly waits."""
    points = [
        Schedule(f"point:{point}:{when}", steps=(Start(stop=Stop(point, when, "kill tree")),), signed=point == "passphrase")
        for point in POINTS
        for when in ("before", "after")
    ]
    faults = [Schedule(f"registry:{kind}", steps=(*USED, Start(registry=(kind,)))) for kind in REGISTRY_FAULTS]
    faults += [Schedule(f"git:{kind}", steps=(*USED, Start(git=(kind,)))) for kind in GIT_FAULTS]
    schedules = [
        *points,
        *faults,
        *(Schedule(f"clock:{days}", steps=(Start(), _jump(days))) for days in (-1, 1)),
        Schedule(
            "second",
            steps=(
                Start(),
                Start("run", during=(Push(0, "1.1.0"),), second=True, awaited=True),
            ),
        ),
        Schedule("on push", steps=(*USED, Start(killed_on_push=True))),
        Schedule("answer lost", steps=(*USED, Start(git=("answer lost",) * 8))),
        Schedule("race", steps=(*USED, Start(stop=Stop("push", "before", "stop"), during=(Human(1, 0), Human(2))))),
        Schedule("full:fetch", steps=(*USED, Human(1), _filled("fetch"))),
        Schedule("full:row", steps=(*USED, _filled("row"))),
        Schedule("full:transaction", steps=(*USED, _filled("transaction"))),
        Schedule("full:start", steps=(*USED, Start(full=0))),
        Schedule("full:first", steps=(Start(full=0),)),
        Schedule("read-only", steps=(*USED, Start(read_only=True))),
        Schedule("name", steps=(*USED, Start(deaf=True)), timeout=20),
        *(
            Schedule(f"short:{kind}", tags=(("1.0.0", "1.1.0"),), steps=_shortened(kind))
            for kind in ("truncated", "cut", "stale")
        ),
    ]
    return {result.schedule.name: result for result in carry_out(schedules)}


def _jump(days: int) -> Start:
    return Start("run", jump=days * DAY, dwell=1.0, during=(Push(0, "1.1.0"),), awaited=True)


def _filled(point: str) -> Start:
    return Start(stop=Stop(point, "before", "stop"), during=(Fill(0),))


def _shortened(kind: str) -> tuple[Start | Push | Delete, ...]:
    """A list that is shorter than before, for a service that runs and for one that is started anew with its tags forgotten."""
    late = Start("run", registry=(kind,) * 3, dwell=1.2)
    return (Start(), Start(registry=(kind,) * 3), late, Start(registry=(kind,) * 3))


def good(result: Result) -> Result:
    assert result.judgement.findings == ()
    return result


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_each_point_is_reached_and_survived(results: dict[str, Result], point: str, when: When) -> None:
    assert good(results[f"point:{point}:{when}"]).facts.ran[0].code == -9


@pytest.mark.parametrize("kind", REGISTRY_FAULTS)
def test_each_fault_of_the_registry_is_met_and_survived(results: dict[str, Result], kind: str) -> None:
    assert good(results[f"registry:{kind}"]).faults[f"registry {kind}"] == 1


@pytest.mark.parametrize("kind", GIT_FAULTS)
def test_each_fault_of_the_git_server_is_met_and_survived(results: dict[str, Result], kind: str) -> None:
    assert good(results[f"git:{kind}"]).faults[f"git {kind}"] == 1


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_jumps_stops_no_scan_and_starts_no_flood(results: dict[str, Result], days: int) -> None:
    result = good(results[f"clock:{days}"])
    assert result.judgement.due == 2
    scans = result.requests["tags"]
    assert 3 <= scans <= 2 * result.seconds + 10, f"{scans} scans with an interval of a second in {result.seconds:.1f} s"


def test_a_second_one_says_so_and_stops_and_the_first_goes_on(results: dict[str, Result]) -> None:
    result = good(results["second"])
    second = next(ran for ran in result.facts.ran if ran.what == "the second")
    assert second.code == 1
    assert "already works with this state" in second.said
    assert result.judgement.due == 2


def test_a_push_that_arrived_is_not_made_again(results: dict[str, Result]) -> None:
    for name in ("on push", "answer lost"):
        assert good(results[name]).judgement.commits == 2


def test_a_person_who_is_quicker_loses_nothing(results: dict[str, Result]) -> None:
    result = good(results["race"])
    assert result.facts.ran[1].code == 2
    assert result.judgement.commits == 2


@pytest.mark.parametrize("moment", ["fetch", "row", "transaction", "start", "first"])
def test_a_full_disk_is_named_and_then_forgotten(results: dict[str, Result], moment: str) -> None:
    result = good(results[f"full:{moment}"])
    disturbed = result.facts.ran[0 if moment == "first" else 1]
    assert disturbed.code == 1
    assert any(text in disturbed.said for text in ("disk is full", "make room on its disk", "No space left"))
    assert "move it away" not in disturbed.said


def test_a_state_folder_that_cannot_be_written_is_named(results: dict[str, Result]) -> None:
    ran = good(results["read-only"]).facts.ran[1]
    assert ran.code == 1
    assert "cannot keep state in" in ran.said
    assert "Permission denied" in ran.said


def test_a_name_that_cannot_be_resolved_is_named(results: dict[str, Result]) -> None:
    ran = good(results["name"]).facts.ran[1]
    assert ran.code == 1
    assert "lookup localhost" in ran.said or "name resolution" in ran.said


@pytest.mark.parametrize("kind", ["truncated", "cut", "stale"])
def test_a_list_that_is_shorter_than_before_leads_to_no_downgrade(results: dict[str, Result], kind: str) -> None:
    result = good(results[f"short:{kind}"])
    assert [commit.writes for commit in result.facts.branch] == [{("apps/alpha/deploy.yaml", "alpha"): "1.1.0"}]
    assert result.faults[f"registry {kind}"] >= 3
