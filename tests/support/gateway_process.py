"""`fleetgate serve` as an operator starts it: a process of its own on free ports, watched from outside."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.gateways import eventually

STARTED_SECONDS = 90.0
"""Three Python processes that start at once on a busy machine take half a minute."""

FLEETGATE = Path(sys.executable).parent / "fleetgate"
_LISTENS = re.compile(r"listens on (https?://\S+)")
_ADMIN = re.compile(r"admin and metrics on (https?://\S+)")


@dataclass(slots=True)
class GatewayProcess:
    """A running gateway; `lines` is what it has written to stderr so far."""

    process: Process
    _stderr: asyncio.StreamReader
    _pipe: asyncio.ReadTransport
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self._found(_LISTENS)

    @property
    def admin_url(self) -> str:
        return self._found(_ADMIN)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def events(self, name: str) -> list[dict[str, Any]]:
        """The JSON log lines whose event is `name`."""
        parsed = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [line for line in parsed if line["event"] == name]

    def workers(self) -> list[int]:
        """The process ids of its worker processes, where it has some."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in _command_line(pid)]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop_reading(self) -> None:
        """Close the end of its stderr that is read, as a log's reader does that has died."""
        self._pipe.close()

    async def ended(self, seconds: float = 60.0) -> int:
        """Its exit status; fails where it has not ended within `seconds`."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    async def ready(self, model: str | None = None) -> None:
        """Wait until a node is ready (every worker is asked, on connections of their own)."""
        query = "" if model is None else f"?model={model}"
        async with asyncio.timeout(STARTED_SECONDS):
            in_a_row = 0
            while in_a_row < 5:
                with contextlib.suppress(httpx.HTTPError):
                    async with httpx.AsyncClient(verify=False) as client:
                        good = (await client.get(f"{self.url}/ready{query}")).status_code == 200
                        in_a_row = in_a_row + 1 if good else 0
                        if good:
                            continue
                await asyncio.sleep(0.05)

    def _found(self, pattern: re.Pattern[str]) -> str:
        return next(match.group(1) for line in self.lines if (match := pattern.search(line)))

    async def _read(self) -> None:
        async for line in self._stderr:
            self.lines.append(line.decode().rstrip("\n"))


def _command_line(pid: str) -> bytes:
    """Empty for a process that has ended since it was listed."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@contextlib.asynccontextmanager
async def gateway_process(
    *arguments: str | Path, ready: bool = True, under: Sequence[str] = (), **variables: str
) -> AsyncIterator[GatewayProcess]:
    """Serve with `arguments` on free ports; whatever is left of it at the end is killed. `under`: a command that
    becomes what is behind it, as `env` does."""
    ours, its = os.pipe()
    stderr = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stderr), os.fdopen(ours, "rb")
    )
    process = await asyncio.create_subprocess_exec(
        *(*under, str(FLEETGATE)),
        *("serve", "--port", "0", "--admin-port", "0"),
        *map(str, arguments),
        env={**os.environ, "FLEETGATE_HEALTH__INTERVAL": "0.1", "FLEETGATE_LISTEN__HOSTS": '["*"]', **variables},
        stdout=DEVNULL,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    gateway = GatewayProcess(process, stderr, pipe)
    reading = asyncio.create_task(gateway._read())
    try:
        await eventually(lambda: any(_ADMIN.search(line) for line in gateway.lines) or reading.done(), STARTED_SECONDS)
        if ready:
            await gateway.ready()
        yield gateway
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: the workers are in it, and nobody else
        await process.wait()
        await asyncio.wait({reading}, timeout=10)
        pipe.close()  # who still holds the other end has left the session
        await reading
