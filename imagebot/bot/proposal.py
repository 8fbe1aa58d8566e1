"""What a pass over an automation would commit. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from imagebot.api import ImageRef
from imagebot.bot.source import Source
from imagebot.bot.update import Update
from imagebot.bot.writer import Built, Ground
from reconcile.git.mirror import Mirror


@dataclass(frozen=True, slots=True)
class Proposal:
    """A commit that was made in a mirror and pushed nowhere.

    Attributes:
        source: where would be pushed to.
        mirror: where the commit is.
        refs: the policies that count, with their choices.
        ground: what it is built on; `ground.base` is its parent.
        built: the commit, None when nothing is to be changed, and its message.
        update: the edits, and the markers that could not be used.
        request: branch that the commit would be proposed for by a pull request; empty: it would be pushed.
        kept: policies that are left to people, who set their markers, with the reason; they are not among `refs`.
    """

    source: Source
    mirror: Mirror
    refs: Mapping[str, ImageRef]
    ground: Ground
    built: Built
    update: Update
    request: str = ""
    kept: Mapping[str, str] = field(default_factory=dict)
