"""A storm's nodes, and what is done to them."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import cycle
from types import MappingProxyType
from typing import Any

import httpx

from tests.support.fake_process import FakeProcess, fake_process

STOPPED_SECONDS = 12.0
"""How long a stopped node stands still: longer than the gateway waits for a silent stream."""

_BREAKS: tuple[dict[str, Any], ...] = (
    {"kind": "reset", "part": 0.5},
    {"kind": "die", "part": 0.9},
    {"kind": "eof"},
    {"kind": "eof", "part": 0.3},
    {"kind": "error_event"},
    {"kind": "abort"},
    {"kind": "reset"},
)


class StormNode:
    """A fake node's process, at a port that it keeps over restarts. `harmed`: how often something was done to it."""

    def __init__(self, rate: float) -> None:
        self._flags = ("--rate", f"{rate:g}", "--tokens-per-event", "2", "--no-responses-store")
        self._stack = AsyncExitStack()
        self._process: FakeProcess | None = None
        self._port = 0
        self._restarting: asyncio.Task[None] | None = None
        self.harmed = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def up(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        node = await self._stack.enter_async_context(fake_process(*self._flags, port=self._port))
        self._port, self._process = node.port, node

    async def kill(self) -> None:
        """SIGKILL; it is started again in the background."""
        assert self._process is not None
        process, self._process = self._process, None
        self.harmed += 1
        await process.kill()
        await self._stack.aclose()
        self._restarting = asyncio.create_task(self.start())

    async def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds in the background."""
        assert self._process is not None
        process, self._process = self._process, None
        self.harmed += 1
        os.kill(process.pid, signal.SIGSTOP)
        self._restarting = asyncio.create_task(self._continue(process, seconds))

    async def _continue(self, process: FakeProcess, seconds: float) -> None:
        await asyncio.sleep(seconds)
        os.kill(process.pid, signal.SIGCONT)
        self._process = process

    async def set_faults(self, *faults: dict[str, Any]) -> None:
        """Exactly these faults, for the requests that come."""
        assert self._process is not None
        async with httpx.AsyncClient(timeout=30) as client:
            got = await client.post(f"{self._process.control}/fake/control", json={"faults": list(faults)})
            got.raise_for_status()
        self.harmed += 1

    async def restarted(self) -> None:
        """Wait until it is up again."""
        if self._restarting is not None:
            await self._restarting

    async def close(self) -> None:
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.gather(self._restarting, return_exceptions=True)
        with contextlib.suppress(ProcessLookupError):
            await self._stack.aclose()


def _next_up(nodes: Sequence[StormNode], turn: "cycle[StormNode]") -> StormNode | None:
    """The next node in turn that is up, unless it is the last one."""
    if sum(node.up for node in nodes) < 2:
        return None
    return next(node for node in turn if node.up)


async def kills(nodes: Sequence[StormNode], every: float) -> None:
    """One after the other is killed, and started again; one is always left."""
    turn = cycle(nodes)
    while True:
        await asyncio.sleep(every)
        if (node := _next_up(nodes, turn)) is not None:
            await node.kill()


async def stops(nodes: Sequence[StormNode], every: float) -> None:
    """One after the other stands still for a while, and goes on as if nothing had been; one always runs."""
    turn = cycle(nodes)
    while True:
        await asyncio.sleep(every)
        if (node := _next_up(nodes, turn)) is not None:
            await node.stop(STOPPED_SECONDS)


async def turns(nodes: Sequence[StormNode], every: float) -> None:
    """Each is killed as soon as the one before it is up again, at the most every `every` seconds."""
    for node in cycle(nodes):
        await asyncio.sleep(every)
        await node.kill()
        await node.restarted()


async def tears(nodes: Sequence[StormNode], every: float) -> None:
    """Streams that begin are reset within an event."""
    await _break(nodes, every, ({"kind": "reset", "part": 0.5},))


async def faults(nodes: Sequence[StormNode], every: float) -> None:
    """Streams that begin break off in every way there is."""
    await _break(nodes, every, _BREAKS)


async def _break(nodes: Sequence[StormNode], every: float, ways: Sequence[dict[str, Any]]) -> None:
    turn, way, chance = cycle(nodes), cycle(ways), random.Random(19)
    while True:
        await asyncio.sleep(every / len(nodes))
        after = chance.randrange(20, 50)
        if (node := next(turn)).up:
            with contextlib.suppress(httpx.TransportError):  # it has been killed meanwhile
                await node.set_faults({**next(way), "after": after, "next": 3})


async def mixed(nodes: Sequence[StormNode], every: float) -> None:
    """Nodes are killed, and the streams that begin in between are reset within an event."""
    await asyncio.gather(kills(nodes, every), tears(nodes, every))


async def nothing(nodes: Sequence[StormNode], every: float) -> None:
    """For comparison."""
    await asyncio.Event().wait()


Harm = Callable[[Sequence[StormNode], float], Coroutine[Any, Any, None]]
HARMS: Mapping[str, Harm] = MappingProxyType(
    {"none": nothing, "kill": kills, "turns": turns, "stop": stops, "tear": tears, "faults": faults, "mixed": mixed}
)
