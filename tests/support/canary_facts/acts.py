"""What most stories have in common."""

from __future__ import annotations

from tests.support.canary_facts.recorder import Play, Story
from tests.support.kubeapi import Object

STORIES: dict[str, Play] = {}


def story(function: Play) -> Play:
    """Note a story under its name."""
    STORIES[function.__name__.removesuffix("_story").replace("_", "-")] = function
    return function


def start(s: Story, *objects: Object) -> None:
    """Create objects and wait for the end of the initialization."""
    s.apply(*objects)
    s.initialized()


def succeed(s: Story) -> None:
    """Release a revision and wait for its promotion."""
    s.release()
    promoted(s)
    s.phase("Succeeded")


def promoted(s: Story, times: int = 1) -> None:
    """Wait for a promotion, the first or a later one."""
    s.event("Promotion completed", times)
