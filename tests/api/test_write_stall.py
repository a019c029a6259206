"""A client that reads is never taken for one that does not, however much waits for it; one that does not is let go."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from gateway.api.write_stall import WriteStallTimer

PATIENCE = 8.0
CHUNK = 64 * 1024


class Clock:
    """What the watch asks of its loop: time, which passes when the test says so."""

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, **_: Any) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(self._now + delay, callback, args, cast(Any, self))
        self._timers.append(timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._timers.remove(handle)

    def pass_by(self, seconds: float) -> None:
        end = self._now + seconds
        while due := sorted((timer for timer in self._timers if timer.when() <= end), key=asyncio.TimerHandle.when):
            self._now = due[0].when()
            self._timers.remove(due[0])
            due[0]._run()
        self._now = end


class Served(asyncio.Protocol):
    transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[Any, socket.socket]]:
    """The server's transport with more to send than the network takes, and the client's socket."""
    loop, served = asyncio.get_running_loop(), Served()
    server = await loop.create_server(lambda: served, "127.0.0.1", 0)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * CHUNK)
    client.setblocking(False)
    try:
        await loop.sock_connect(client, server.sockets[0].getsockname())
        while served.transport is None:
            await asyncio.sleep(0)
        while not served.transport.get_write_buffer_size():
            served.transport.write(b"x" * CHUNK)
            await asyncio.sleep(0.01)
        served.transport.write(b"x" * 4 * CHUNK)
        yield served.transport, client
    finally:
        client.close()
        served.transport.abort()
        server.close()


async def read_and_refill(transport: Any, client: socket.socket) -> None:
    """The client reads some, and as much as went out is written: what waits is as much as before."""
    before = transport.get_write_buffer_size()
    while transport.get_write_buffer_size() == before:
        await asyncio.get_running_loop().sock_recv(client, CHUNK)
        await asyncio.sleep(0)
    while missing := before - transport.get_write_buffer_size():  # some of it the network takes at once
        transport.write(b"x" * missing)
        await asyncio.sleep(0)


async def test_who_reads_is_kept_though_as_much_waits_as_before() -> None:
    async with connection() as (transport, client):
        clock = Clock()
        watch = WriteStallTimer(transport, cast(Any, clock), PATIENCE)
        watch.check()
        for _ in range(5):
            await read_and_refill(transport, client)
            clock.pass_by(PATIENCE)
            assert not transport.is_closing()
        clock.pass_by(2 * PATIENCE)
        assert transport.is_closing(), "from now on it read nothing"
        watch.stop()


@pytest.mark.parametrize("more", [0, CHUNK], ids=["silence", "more is written"])
async def test_who_reads_nothing_is_let_go(more: int) -> None:
    async with connection() as (transport, _):
        clock = Clock()
        WriteStallTimer(transport, cast(Any, clock), PATIENCE).check()
        for _ in range(4):
            transport.write(b"x" * more)
            clock.pass_by(PATIENCE / 4)
        await asyncio.sleep(0.05)  # what the client's kernel has still acknowledged is seen
        clock.pass_by(PATIENCE * 5 / 4)
        assert transport.is_closing()


async def test_what_went_out_whole_is_watched_no_more() -> None:
    async with connection() as (transport, client):
        clock = Clock()
        watch = WriteStallTimer(transport, cast(Any, clock), PATIENCE)
        watch.check()
        while transport.get_write_buffer_size():
            await asyncio.get_running_loop().sock_recv(client, CHUNK)
        clock.pass_by(10 * PATIENCE)
        assert not transport.is_closing()
        assert not clock._timers
