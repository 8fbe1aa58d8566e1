"""The cluster of the tests that need one: one control plane for the whole run, one namespace for each test (a pytest plugin)."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Generator, Iterator

import pytest

from tests.support.controlplane import Cluster, ControlPlane, StartFailed, open_cluster
from tests.support.controlplane_build import Unavailable, find_programs

planes: list[ControlPlane] = []
"""The one that is running, for the report of a failure."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: the minutes that takes are not part of any test's time limit."""
    wanted = any("control_plane" in getattr(item, "fixturenames", ()) for item in session.items)
    if not wanted or session.config.option.collectonly or os.environ.get("IMAGEBOT_TEST_KUBECONFIG"):
        return
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    try:
        find_programs(lambda text: terminal.write_line(text) if terminal else None)
    except Unavailable:
        # The fixture says so, test by test.
        return


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the ends of the control plane's logs, and keeps the logs."""
    report = yield
    if report.failed and planes:
        planes[0].keep_logs()
        report.sections.append(("control plane", planes[0].log_tails()))
    return report


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """A cluster with us as administrator; without a way to have one the test is skipped, or fails if all tests are required."""
    try:
        cluster = open_cluster()
    except Unavailable as error:
        if {"all", "go", "cluster"} & set(os.environ.get("IMAGEBOT_TEST_REQUIRE", "").replace(",", " ").split()):
            pytest.fail(f"no control plane: {error}", pytrace=False)
        pytest.skip(f"no control plane: {error}")
    except StartFailed as error:
        pytest.fail(str(error), pytrace=False)
    with cluster:
        if isinstance(cluster, ControlPlane):
            planes.append(cluster)
        yield cluster
        planes.clear()


@pytest.fixture
def own_control_plane(control_plane: Cluster) -> ControlPlane:
    """The run's control plane, for tests that look at its audit log or its processes: skipped on somebody else's cluster."""
    if not isinstance(control_plane, ControlPlane):
        pytest.skip("IMAGEBOT_TEST_KUBECONFIG names a cluster that is not ours to look into")
    return control_plane


@pytest.fixture
def workloads(control_plane: Cluster) -> Cluster:
    """A cluster in which Deployments become Available: skipped with a bare API server."""
    if not control_plane.runs_workloads:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager, kube-scheduler and kwok: nothing runs there")
    return control_plane


@pytest.fixture
def namespace(control_plane: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, named for it; deleted afterwards, without waiting for its end."""
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")[:40].strip("-")
    name = f"{slug}-{secrets.token_hex(3)}"
    control_plane.api.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"imagebot.test/run": "true"}}}
    )
    yield name
    control_plane.api.delete("v1", "Namespace", name, missing_ok=True)
