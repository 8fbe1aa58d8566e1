"""Fake forges on sockets: `with fake_forge("github", folder) as forge: …`."""

from __future__ import annotations

from pathlib import Path

from tests.support.forges.gitea import Gitea
from tests.support.forges.github import GitHub
from tests.support.forges.gitlab import GitLab
from tests.support.forges.history import MergeRefused
from tests.support.forges.interface import BOT, FakeForge, FakeRequest

PROVIDERS = ("github", "gitlab", "gitea")

__all__ = ["BOT", "PROVIDERS", "FakeForge", "FakeRequest", "GitHub", "GitLab", "Gitea", "MergeRefused", "fake_forge"]


def fake_forge(provider: str, folder: Path, owner: str = "acme", name: str = "fleet") -> FakeForge:
    """A forge with one empty repository below `folder`; start it, or use it with `with`."""
    kinds: dict[str, type[GitHub | GitLab | Gitea]] = {"github": GitHub, "gitlab": GitLab, "gitea": Gitea}
    return kinds[provider](folder, owner, name)
