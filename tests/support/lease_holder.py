"""A process that competes for a lease, and while it leads does work that the API server can see; for tests that freeze it.

`python -m tests.support.lease_holder KUBECONFIG NAMESPACE NAME DURATION RENEW RETRY` prints what happens to it, one word a line:
`leading`, `wrote` after each write, `refused` when the fence stopped a write, `cancelled` when its body was cancelled, `lost` at
its end.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from reconcile.kube.errors import LeaseLost, Target
from reconcile.kube.lease import KubeLease, LeaseTimes
from reconcile.ports.clock import SystemClock
from tests.support.kube import open_client

PERIOD = 0.25
"""Seconds between two writes."""


async def main(kubeconfig: str, namespace: str, name: str, *times: str) -> None:
    """Compete, lead, work; ends when the lease is lost."""
    async with open_client(Path(kubeconfig)) as client:
        lease = KubeLease(client, namespace, SystemClock(), name="contended", holder=name, times=LeaseTimes(*map(float, times)))
        client.fence = lease.require
        try:
            async with lease.hold():
                print("leading", flush=True)
                await _work(client, Target("", "v1", "configmaps", namespace, name))
        except LeaseLost:
            print("lost", flush=True)


async def _work(client: object, target: Target) -> None:
    count = 0
    try:
        while True:
            count += 1
            await client.merge_patch(target, {"data": {"count": str(count)}}, manager="test")  # type: ignore[attr-defined]
            print("wrote", flush=True)
            await asyncio.sleep(PERIOD)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise
    except LeaseLost:
        print("refused", flush=True)
        raise


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
