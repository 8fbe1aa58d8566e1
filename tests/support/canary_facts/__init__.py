"""The recorded stories of Canaries: each function of `runs` and `routes` drives one Canary through one situation.

The target is always `web`. Waits are on what is observed, so the number of steps does not depend on the machine. Where we differ
on purpose from what was recorded a story waits for either.
"""

from __future__ import annotations

from tests.support.canary_facts import routes, runs
from tests.support.canary_facts.acts import STORIES

__all__ = ["STORIES", "routes", "runs"]
