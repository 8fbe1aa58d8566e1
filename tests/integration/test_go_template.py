"""Go's own `text/template` with Sprig says what the golden file says, and has the functions that ours has."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from reconcile.gotemplate import SPRIG
from tests.support.template_cases import CASES, VALUES

pytestmark = [pytest.mark.needs("go"), pytest.mark.slow]

SOURCE = Path(__file__).with_name("go") / "template"
LEFT_OUT = {
    "bcrypt", "htpasswd", "genPrivateKey", "genCA", "genCAWithKey", "genSelfSignedCert", "genSelfSignedCertWithKey",
    "genSignedCert", "genSignedCertWithKey", "buildCustomCert", "toDate", "mustToDate", "mustDateModify", "must_date_modify",
    "unixEpoch",
}  # fmt: skip


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The reference program, built from the modules of its go.sum."""
    target = tmp_path_factory.mktemp("go") / "template"
    go = shutil.which("go")
    assert go is not None
    done = subprocess.run(
        [go, "build", "-o", str(target), "."], cwd=SOURCE, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return target


def test_go_gives_the_recorded_answers(program):
    questions = json.dumps([{"template": case["template"], "values": VALUES} for case in CASES])
    done = subprocess.run([program], input=questions, capture_output=True, text=True, timeout=60, check=True)
    answers = json.loads(done.stdout)
    assert len(answers) == len(CASES)
    for case, answer in zip(CASES, answers, strict=True):
        output = base64.b64decode(answer["output"] or "").decode("utf-8", "replace")
        given = {"error": answer["error"]} if answer["error"] else {"output": output}
        assert {"template": case["template"], **given} == case


def test_functions_are_those_that_flux_allows(program):
    listed = subprocess.run([program, "functions"], capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert set(SPRIG) == set(listed) - LEFT_OUT
