"""Commit messages that Flux's controller wrote, or its complaints, for templates over one and the same update."""

import json
from pathlib import Path

import pytest

from imagebot.bot.message import MessageError, render_message, validate_template
from imagebot.markers.changes import Change, Changed, FileChange, ObjectIdentity

CASES = json.loads(Path(__file__).with_name("messages.json").read_text("utf-8"))


def update(namespace: str) -> Changed:
    """The update that was recorded: a Deployment with two images, a ConfigMap, and a document without identity."""
    web = ObjectIdentity("apps/v1", "Deployment", "web", "prod")
    new = "ghcr.io/acme/web:1.2.0"
    return Changed(
        {
            "apps/web/a.yaml": (
                FileChange(web, Change("ghcr.io/acme/web:1.0.0", new, f"{namespace}:web"), 11),
                FileChange(web, Change("ghcr.io/acme/api:v2.0.0", "ghcr.io/acme/api:v2.10.0", f"{namespace}:api"), 13),
            ),
            "apps/web/sub/c.yaml": (
                FileChange(ObjectIdentity("v1", "ConfigMap", "cm"), Change("old", new, f"{namespace}:web"), 6),
            ),
            "root.yaml": (FileChange(ObjectIdentity(), Change("1.0.0", "1.2.0", f"{namespace}:web:tag"), 1),),
        }
    )


def test_all_recorded_templates_are_here():
    assert len(CASES) == 37
    assert sum("error" in case for case in CASES) == 9


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_message_is_the_one_flux_wrote(case):
    arguments = (case["template"], case["values"], case["namespace"], "auto", update(case["namespace"]))
    if "message" in case:
        assert render_message(*arguments) == case["message"]
        return
    with pytest.raises(MessageError) as caught:
        render_message(*arguments)
    assert str(caught.value) == case["error"]
    complaint = validate_template(case["template"])
    assert (complaint is not None) == case["error"].startswith("unable to create")
