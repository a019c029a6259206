"""A proxy before a Redis that answers some commands by itself: for errors that no test can have from a real one.

async with resp_proxy(redis) as proxy:
    proxy.swap = lambda command: b"-TRYAGAIN Multiple keys\\r\\n" if command[0] == b"EVALSHA" else None
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import hiredis

from tests.support.redis import RedisServer

Swap = Callable[[list[bytes]], bytes | None]
SETUP = (b"HELLO", b"AUTH", b"SELECT", b"CLIENT")
"""What a connection begins with."""


@dataclass(slots=True)
class RespProxy:
    """`swap` is given each command, and returns the raw reply that takes the place of Redis' own, or None."""

    redis_port: int
    port: int = 0
    swap: Swap = lambda _: None
    meanwhile: Callable[[list[bytes]], Awaitable[None] | None] | None = None
    """Is given each command, and may do something before that goes on."""
    asked: list[list[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def strike(self, reply: bytes, *but: bytes) -> None:
        """Answer everything with `reply`, but connections' setup and the commands `but`."""
        self.swap = lambda command: None if command[0].upper() in (*SETUP, *but) else reply

    def heal(self) -> None:
        self.swap = lambda _: None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind, ahead = await asyncio.open_connection("127.0.0.1", self.redis_port)
        except OSError:  # it is gone
            writer.close()
            return
        commands, buffer = hiredis.Reader(), b""
        try:
            while data := await reader.read(65_536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    assert isinstance(command, list)
                    self.asked.append(command)
                    if self.meanwhile is not None and (work := self.meanwhile(command)) is not None:
                        await work
                    told = self.swap(command)
                    if told is None:
                        ahead.write(hiredis.pack_command(tuple(command)))
                        while (end := _end(buffer, 0)) is None:
                            if not (more := await behind.read(65_536)):
                                return
                            buffer += more
                        told, buffer = buffer[:end], buffer[end:]
                    writer.write(told)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
            ahead.close()


def _end(data: bytes, at: int) -> int | None:
    """Where the reply that begins at `at` ends; None where it is not all there."""
    line = data.find(b"\r\n", at)
    if line < 0:
        return None
    kind, end = data[at : at + 1], line + 2
    if kind not in b"$=*%~>" or data[at + 1 : line] == b"-1":
        return end
    count = int(data[at + 1 : line])
    if kind in b"$=":
        return end + count + 2 if len(data) >= end + count + 2 else None
    for _ in range(2 * count if kind == b"%" else count):
        after = _end(data, end)
        if after is None:
            return None
        end = after
    return end


@contextlib.asynccontextmanager
async def resp_proxy(redis: RedisServer) -> AsyncIterator[RespProxy]:
    """One that listens; its open connections are cut at the end."""
    proxy = RespProxy(redis.port)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
