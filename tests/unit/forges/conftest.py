"""A repository on each fake forge, and clients that wait for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.forges import FakeForge, Gitea, GitHub, GitLab
from tests.support.gitrepo import BareRepository

BRANCH = "imagebot/podinfo"


def begin(repository: BareRepository) -> None:
    """A first commit."""
    repository.commit({"app.yaml": b"image: app:1\n"}, message="first")


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHub]:
    with GitHub(tmp_path) as fake:
        begin(fake.repository)
        yield fake
    assert fake.problems == []


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path, owner="acme/apps/eu") as fake:
        begin(fake.repository)
        yield fake
    assert fake.problems == []


@pytest.fixture
def gitea(tmp_path: Path) -> Iterator[Gitea]:
    with Gitea(tmp_path) as fake:
        begin(fake.repository)
        yield fake
    assert fake.problems == []


@pytest.fixture(params=["github", "gitlab", "gitea"])
def anyone(request: pytest.FixtureRequest) -> FakeForge:
    """Each of the three."""
    fake: FakeForge = request.getfixturevalue(request.param)
    return fake
