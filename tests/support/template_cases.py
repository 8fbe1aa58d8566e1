"""Templates with what Go's `text/template` and Sprig make of them, and the update that they are about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imagebot.bot.message import MessageError, render_message
from imagebot.markers.changes import Change, Changed, FileChange, ObjectIdentity

FILE = Path(__file__).resolve().parents[1] / "golden" / "gotemplate" / "cases.json"
CASES: list[dict[str, Any]] = json.loads(FILE.read_text("utf-8"))
VALUES = {"cluster": "prod-1", "region": "eu"}

_WEB = ObjectIdentity("apps/v1", "Deployment", "web", "prod")
CHANGED = Changed({
    "a.yaml": (
        FileChange(ObjectIdentity(), Change("1.0.0", "1.1.0", "apps:web:tag"), 2),
        FileChange(_WEB, Change("web:1.0.0", "web:1.1.0", "apps:web"), 7),
        FileChange(_WEB, Change("api:v2", "api:v3", "apps:api"), 9),
    ),
    "b/c.yaml": (FileChange(ObjectIdentity("v1", "ConfigMap", "cm"), Change("old", "web:1.1.0", "apps:web"), 6),),
})  # fmt: skip


def ours(template: str) -> str:
    """The message, or the error without what Flux puts in front.

    Raises:
        RemovedField: the template uses one.
    """
    try:
        return render_message(template, VALUES, "apps", "upd", CHANGED)
    except MessageError as error:
        return str(error).partition("from spec: ")[2]
