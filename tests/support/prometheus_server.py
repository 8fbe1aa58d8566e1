"""The real Prometheus, as a process: on a loopback port, with a folder that goes with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path

import httpx
import yaml

from tests.support.supervisor import Supervisor

NAME = "prometheus"


class PrometheusServer:
    """Scrapes targets each second; may be killed and started again, with the same address and data.

    Args:
        supervisor: Holds the process.
        folder: For configuration, data and log; made here.
        targets: host:port of what is scraped.
    """

    def __init__(self, supervisor: Supervisor, folder: Path, *targets: str, name: str = NAME) -> None:
        self._supervisor, self.folder, self._name = supervisor, folder, name
        folder.mkdir(parents=True)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "tests", "static_configs": [{"targets": list(targets)}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the process (again); it answers a moment later: see `ready`."""
        program = shutil.which("prometheus")
        assert program is not None, "prometheus is not installed"
        argv = [
            program, f"--config.file={self.folder / 'prometheus.yml'}", f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn",
        ]  # fmt: skip
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder)}
        self._supervisor.start(self._name, argv, env=env, log=self.folder / "log")

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=5.0, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def value(self, query: str) -> float | None:
        """The first value of an instant query, None without one."""
        found = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10.0, trust_env=False).json()
        result = found["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def kill(self) -> None:
        """End it at once, as a node that dies."""
        os.kill(self._supervisor.pids[self._name], signal.SIGKILL)
        self._supervisor.stop(self._name)
