"""Helm for the tests of the chart: built once, before the first test."""

from __future__ import annotations

import os

import pytest

from tests.support.chart import Helm
from tests.support.controlplane_build import Unavailable
from tests.support.programs import find_program


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: the minutes that takes are not part of any test's time limit."""
    if session.config.option.collectonly or not any("helm" in getattr(item, "fixturenames", ()) for item in session.items):
        return
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    try:
        find_program("helm", lambda text: terminal.write_line(text) if terminal else None)
    except Unavailable:
        # The fixture says so, test by test.
        return


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm; without a way to have it the test is skipped, or fails if all tests are required."""
    try:
        return Helm(find_program("helm"), tmp_path_factory.mktemp("helm"))
    except Unavailable as error:
        if {"all", "go"} & set(os.environ.get("IMAGEBOT_TEST_REQUIRE", "").replace(",", " ").split()):
            pytest.fail(f"no helm: {error}", pytrace=False)
        pytest.skip(f"no helm: {error}")
