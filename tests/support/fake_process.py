"""A fake node in a process of its own: for what only a process can suffer."""

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

WORKER = Path(sys.executable).parent / "fleetgate-worker"


@dataclass(frozen=True, slots=True)
class FakeProcess:
    """Where it listens, and its process."""

    url: str
    control: str
    port: int
    process: Process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def fake_process(*arguments: str, port: int = 0) -> AsyncIterator[FakeProcess]:
    """Listening when this begins; killed at its end where it has not gone before."""
    process = await asyncio.create_subprocess_exec(
        WORKER, "fake", "--port", str(port), *arguments, stdout=PIPE, stderr=DEVNULL
    )
    try:
        assert process.stdout is not None
        said = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        yield FakeProcess(said["url"], said["control"], said["port"], process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
