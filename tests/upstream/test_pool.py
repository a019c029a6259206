"""New connections: one that a node has closed, or spoken on, by the time that its waiter runs is none."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.core.errors import ConnectFailed
from gateway.upstream.pool import Pool
from tests.support.gateways import eventually

_RESET = struct.pack("ii", 1, 0)


@contextmanager
def accepting(said: bytes, closes: bool, resets: bool) -> Iterator[int]:
    """A server in a thread, so that it goes on while the loop is busy: what it does as soon as it has accepted."""
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            if said:
                connection.sendall(said)
            if resets:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            if not closes:
                over.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(
    ("said", "closes", "resets"),
    [(b"HTTP/1.1 503 Busy\r\n\r\n", False, False), (b"", True, False), (b"", True, True), (b"no", True, True)],
    ids=["it speaks unasked", "it closes", "it resets", "it speaks and resets"],
)
async def test_a_connection_that_ended_before_its_waiter_ran_is_none(said: bytes, closes: bool, resets: bool) -> None:
    with accepting(said, closes, resets) as port:
        connecting = asyncio.ensure_future(Pool(f"http://127.0.0.1:{port}").connect(30))
        for _ in range(2):  # the kernel connects
            await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 - the loop is busy meanwhile
        with pytest.raises(ConnectFailed):
            await connecting


async def test_a_connection_that_stands_can_be_used() -> None:
    with accepting(b"", False, False) as port:
        connection = await Pool(f"http://127.0.0.1:{port}").connect(30)
        assert connection.usable
        connection.abort()


async def test_a_kept_connection_that_the_node_closes_is_forgotten() -> None:
    """After a burst a pool would be full of closed ones, for as long as nobody asks for one."""
    peers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: peers.append(writer), "127.0.0.1", 0)
    async with server:
        pool = Pool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        kept = [await pool.connect(30) for _ in range(5)]
        for connection in kept:
            pool._keep(connection)
        await eventually(lambda: len(peers) == 5)
        for peer in peers:
            peer.close()
        await eventually(lambda: pool._idle == [])
        assert pool.acquire() is None
