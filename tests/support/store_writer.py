"""A process that writes to a local state until it is killed, saying what has been acknowledged.

Usage: python -m tests.support.store_writer FOLDER STATE
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from reconcile.local.database import Database
from reconcile.local.files import Folder
from reconcile.local.store import LocalStore
from reconcile.ports.clock import SystemClock
from tests.support.bench import KEY, KIND, all_kinds


async def write(folder: Path, state: Path) -> None:
    scheme = all_kinds()
    async with LocalStore(Folder(folder, scheme), Database(state), scheme, SystemClock()) as store:
        resource = await store.get(KIND, KEY)
        number = int(resource.status.canonical_image_name or 0)
        while True:
            number += 1
            status = resource.status.model_copy(update={"canonical_image_name": str(number)})
            resource = await store.write_status(resource, status)
            print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), Path(sys.argv[2])))
