"""`python -m tests.faults`: random schedules of faults against the real service, judged one by one."""

from __future__ import annotations

import argparse
import sys
import time

from tests.faults.runner import carry_out
from tests.faults.schedule import draw
from tests.faults.tally import Tally, told


def main() -> int:
    """Run, print, and say by the exit code whether anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="how many schedules")
    parser.add_argument("--seed", type=int, default=1, help="what they are drawn from")
    parser.add_argument("--workers", type=int, default=4, help="how many at once")
    parser.add_argument("--only", metavar="SEED:INDEX", help="this one alone")
    parser.add_argument("--keep", action="store_true", help="leave the world of --only on disk, and show its logs")
    given = parser.parse_args()
    if given.only:
        seed, _, index = given.only.partition(":")
        schedules = [draw(int(seed), int(index))]
    else:
        schedules = [draw(given.seed, index) for index in range(given.runs)]
    tally, begin = Tally(), time.monotonic()
    for result in carry_out(schedules, given.workers, keep=given.keep and bool(given.only)):
        tally.add(result)
        if result.judgement.findings:
            print(told(result), flush=True)
        if given.only and given.keep:
            for ran in result.facts.ran:
                print(f"--- {ran.mode}, {ran.what}: {ran.code}\n{ran.said}")
            print(f"kept in {result.kept}")
        if tally.schedules % 50 == 0:
            spent = time.monotonic() - begin
            print(f"{tally.schedules} of {len(schedules)}, {len(tally.failed)} failed, {spent:.0f} s", flush=True)
    print(tally.table(time.monotonic() - begin))
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
