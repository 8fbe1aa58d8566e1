"""The Canary of the chapter (`tests/seed`), with the hook that the chapter adds to it."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.support.kubeapi import Object

FOLDER = Path(__file__).parents[1] / "seed"


def seed_canary() -> Object:
    """The manifest as written, and the webhook of the fragment beside its own."""
    body: Object = yaml.safe_load((FOLDER / "canary.yaml").read_text())
    fragment: Object = yaml.safe_load((FOLDER / "canary-helmrelease.yaml").read_text())
    body["spec"]["analysis"]["webhooks"] += fragment["spec"]["analysis"]["webhooks"]
    return body
