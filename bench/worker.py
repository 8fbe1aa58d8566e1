"""The service in a process of its own, told over stdin when to look at its folder: its CPU and memory are measured alone."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from reconcile.app import local_service
from reconcile.runtime.logs import configure
from reconcile.settings import Settings


async def main(folder: Path, state: Path) -> None:
    configure("error", "console")
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with local_service(folder, settings=Settings(user_docker_config=False), state=state) as service:
        print("ready", flush=True)
        while (line := (await reader.readline()).decode().strip()) not in {"", "end"}:
            if line == "sync":
                await service.store.sync()
            elif line == "drain":
                await service.manager.drained(0.1)
            print("ok", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
