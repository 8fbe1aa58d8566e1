"""Our templates against the recorded answers of Go's `text/template` with Sprig: same output, same error text."""

import pytest

from imagebot.bot.message import RemovedField
from tests.support.template_cases import CASES, ours


def test_there_are_many_cases():
    assert len(CASES) > 600
    assert sum("error" in case for case in CASES) > 250


@pytest.mark.parametrize("number", range(len(CASES)))
def test_template_gives_what_go_gave(number):
    case = CASES[number]
    wanted = case.get("error", case.get("output"))
    try:
        assert ours(case["template"]) == wanted
    except RemovedField:
        assert "can't evaluate field ImageResult in type update.Result" in wanted
