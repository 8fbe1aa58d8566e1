"""Other clusters, by kubeconfigs from Secrets: reached with what is in the file and nothing of ours.

As in the Flux controllers only the address, the trust and the credentials that the file itself holds survive: no files of our
disk, no login programs and no unchecked certificates unless the installation allows it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from reconcile.errors import Invalid
from reconcile.kube.client import Client, Fence
from reconcile.kube.cluster import KubeCluster
from reconcile.kube.connect import KubeSettings, connect
from reconcile.kube.limiter import Limiter
from reconcile.kube.metrics import KubeMetrics
from reconcile.ports.clock import Clock
from reconcile.yamlio import load_documents

MOST_CLUSTERS = 64
"""Clusters to which connections are kept."""
CONNECTIONS = 16

_CLUSTER = ("server", "tls-server-name", "certificate-authority-data", "proxy-url")
_USER = ("client-certificate-data", "client-key-data", "token", "username", "password")


def safe_kubeconfig(text: str, *, programs: bool = False, unchecked: bool = False) -> dict[str, Any]:
    """The current context of a kubeconfig with what may be used of it.

    Args:
        text: The kubeconfig, YAML or JSON.
        programs: Whether login programs may run.
        unchecked: Whether it may switch the check of certificates off.

    Raises:
        Invalid: It is no kubeconfig, or its current context names what it does not have.
    """
    documents = [document for document, _ in load_documents(text, "kubeconfig")]
    given = documents[0] if len(documents) == 1 and isinstance(documents[0], dict) else None
    if given is None:
        raise Invalid("the kubeconfig is not one YAML mapping")
    context = _named(given, "contexts", "context", str(given.get("current-context") or ""))
    cluster = _named(given, "clusters", "cluster", str(context.get("cluster") or ""))
    user = _named(given, "users", "user", str(context.get("user") or "")) if context.get("user") else {}
    if not isinstance(cluster.get("server"), str):
        raise Invalid("the kubeconfig does not say where the cluster is")
    kept = {name: cluster[name] for name in _CLUSTER if cluster.get(name)}
    if unchecked and cluster.get("insecure-skip-tls-verify"):
        kept["insecure-skip-tls-verify"] = True
    allowed = (*_USER, "exec") if programs else _USER
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "remote",
        "contexts": [{"name": "remote", "context": {"cluster": "remote", "user": "remote"}}],
        "clusters": [{"name": "remote", "cluster": kept}],
        "users": [{"name": "remote", "user": {name: user[name] for name in allowed if user.get(name)}}],
    }


def _named(given: Mapping[str, Any], many: str, one: str, name: str) -> Mapping[str, Any]:
    entries = given.get(many)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(one), dict):
            found: Mapping[str, Any] = entry[one]
            return found
    raise Invalid(f'the kubeconfig has no {one} named "{name}"')


class RemoteClusters:
    """Connections by content of a kubeconfig; those used longest ago are closed."""

    def __init__(self, clock: Clock, fence: Fence | None, metrics: KubeMetrics | None, *, qps: float, burst: int) -> None:
        self._clock, self._fence, self._metrics, self._qps, self._burst = clock, fence, metrics, qps, burst
        self._open: OrderedDict[str, tuple[KubeCluster, AsyncExitStack]] = OrderedDict()
        self._lock = asyncio.Lock()

    async def cluster(self, kubeconfig: Mapping[str, Any]) -> KubeCluster:
        """The cluster of a kubeconfig made by `safe_kubeconfig`; raises Invalid when it cannot be used."""
        raw = orjson.dumps(kubeconfig, option=orjson.OPT_SORT_KEYS)
        name = hashlib.sha256(raw).hexdigest()
        async with self._lock:
            if name not in self._open:
                self._open[name] = await self._connect(raw)
            self._open.move_to_end(name)
            while len(self._open) > MOST_CLUSTERS:
                _, (_, stack) = self._open.popitem(last=False)
                await stack.aclose()
            return self._open[name][0]

    async def _connect(self, raw: bytes) -> tuple[KubeCluster, AsyncExitStack]:
        stack = AsyncExitStack()
        settings = KubeSettings(qps=self._qps, burst=self._burst, connections=CONNECTIONS)
        with TemporaryDirectory(prefix="kubeconfig-") as folder:
            path = Path(folder) / "config"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(raw)  # JSON is YAML
            try:
                connection = await stack.enter_async_context(
                    connect(KubeSettings(str(path), qps=settings.qps, burst=settings.burst, connections=CONNECTIONS), self._clock)
                )
            except Invalid as error:
                raise Invalid(str(error).replace(str(path), "the kubeconfig")) from None
        client = Client(connection, Limiter(self._clock, self._qps, self._burst), self._metrics, fence=self._fence)
        return KubeCluster(client, self._clock), stack

    async def close(self) -> None:
        """Close all connections."""
        async with self._lock:
            while self._open:
                _, (_, stack) = self._open.popitem()
                await stack.aclose()
