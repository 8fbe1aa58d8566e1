"""The hint in an ImageRepository: who tells of pushes, and the secret by which they are known. All Extensions; data only."""

from __future__ import annotations

from typing import Literal

from reconcile.api.meta import ApiModel, LocalReference

HintType = Literal[
    "acr",
    "cdevents",
    "distribution",
    "dockerhub",
    "ecr",
    "generic-hmac",
    "github",
    "gitlab",
    "harbor",
    "nexus",
    "quay",
]


class HintSpec(ApiModel):
    """Who tells of pushes of the image."""

    type: HintType
    """Kind of the sender, which says how it proves itself and what it sends."""
    secret_ref: LocalReference
    """Secret with `token`, at least 16 bytes that nobody can guess: the path is made of it, and senders sign or show it."""
