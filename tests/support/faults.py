"""A network that a test can break, between a gateway and a node; and the check that nothing is held afterwards.

async with broken_network(node.port) as network:
    ... gateway at network.url ...
    network.partition()      # nothing passes, nothing is told, no new connection comes about
    network.heal()
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

from tests.support.gateways import RunningGateway, eventually, running_gateway
from workers.fake import FakeNode

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Network:
    """A TCP proxy to one port of this machine. Each method says what happens from then on; `heal` ends it."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._walls: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._delay = 0.0
        self._pace = 0.0
        self._reset_after: int | None = None
        self.port = 0
        self.accepted = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """Connections that have not been closed by either end."""
        return len(self._open)

    # What may happen

    def hold(self) -> None:
        """A black hole: connections are taken and stay, and no byte passes either way."""
        self._flows.clear()

    async def partition(self) -> None:
        """As a cable that is cut: no byte passes, nobody is told, and whoever connects hears nothing at all."""
        self._flows.clear()
        await self._stop_listening()
        wall = socket.socket()
        wall.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wall.bind(("127.0.0.1", self.port))
        wall.listen(0)  # nobody accepts: once this queue is full, the kernel drops what knocks
        self._walls.append(wall)
        for _ in range(4):
            knocker = socket.socket()
            knocker.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                knocker.connect(("127.0.0.1", self.port))
            self._walls.append(knocker)

    def refuse(self) -> None:
        """After `partition`: whoever has knocked since is told that nobody listens."""
        for wall in self._walls:
            wall.close()
        self._walls.clear()

    async def heal(self) -> None:
        """Everything passes again; what waited goes on."""
        self._delay = self._pace = 0.0
        self._reset_after = None
        self.refuse()
        if self._server is None:
            await self._listen()
        self._flows.set()

    def half_open(self) -> None:
        """The node forgets its connections and the gateway is not told: what it sends is taken and lost."""
        self._flows.clear()

    def delay(self, seconds: float) -> None:
        """Every piece comes so much later."""
        self._delay = seconds

    def slow(self, bytes_per_second: float) -> None:
        self._pace = bytes_per_second

    def reset_after(self, size: int) -> None:
        """Connections end with a reset once so many more bytes of answers have passed on each."""
        self._reset_after = size

    def reset(self) -> None:
        """All open connections end with a reset, now."""
        for writer in tuple(self._open):
            _reset(writer)

    # How

    async def start(self) -> None:
        await self._listen()

    async def stop(self) -> None:
        await self.heal()
        await self._stop_listening()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        node_writer: asyncio.StreamWriter | None = None
        try:
            await self._flows.wait()
            node_reader, node_writer = await asyncio.open_connection("127.0.0.1", self._target)
            asking = asyncio.create_task(self._pump(reader, node_writer, None))
            answering = asyncio.create_task(self._pump(node_reader, writer, writer))
            try:
                await asyncio.wait((asking, answering), return_when=asyncio.FIRST_COMPLETED)
            finally:
                asking.cancel()
                answering.cancel()
                await asyncio.gather(asking, answering, return_exceptions=True)
        except ConnectionError:
            _reset(writer)  # as a port that nobody listens on
        finally:
            self._open.discard(writer)
            for end in (writer, node_writer):
                if end is not None:
                    end.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: asyncio.StreamWriter | None
    ) -> None:
        passed = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                if self._delay:
                    await asyncio.sleep(self._delay)
                if self._pace:
                    await asyncio.sleep(len(data) / self._pace)
                await self._flows.wait()
                if answers is not None and self._reset_after is not None:
                    left = self._reset_after - passed
                    if len(data) >= left:
                        writer.write(data[: max(0, left)])
                        await writer.drain()
                        _reset(answers)
                        return
                passed += len(data)
                writer.write(data)
                await writer.drain()


@contextlib.asynccontextmanager
async def broken_network(target: int) -> AsyncIterator[Network]:
    """A network to port `target`, whole to begin with."""
    network = Network(target)
    await network.start()
    try:
        yield network
    finally:
        await network.stop()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: Any = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()


@contextlib.asynccontextmanager
async def limited_gateway(*nodes: str, **settings: Any) -> AsyncIterator[RunningGateway]:
    """A gateway that reserves of a tenant's limits for every request, so that what is not given back shows."""
    async with running_gateway(*nodes, limits={"default": {"concurrent_requests": 10_000}}, **settings) as gateway:
        yield gateway


async def nothing_held(gateway: RunningGateway, *nodes: FakeNode) -> None:
    """Whatever way requests ended: no lease, reservation, exchange or connection in use, and no work on `nodes`.

    For a `limited_gateway`, since without limits nothing is reserved.
    """
    assert gateway.app.limiter is not None
    try:
        await eventually(lambda: not held(gateway, *nodes))
    except TimeoutError:
        raise AssertionError(f"still held: {held(gateway, *nodes)}") from None


def held(gateway: RunningGateway, *nodes: FakeNode) -> dict[str, int]:
    """What is still held of requests, by name; empty where nothing is."""
    app, groups = gateway.app, gateway.app.router.groups
    found = {
        "leases": sum(len(node.leases) for node in app.fleet.nodes),
        "in flight": sum(node.in_flight for node in app.fleet.nodes),
        "prompts": len(app.router.placement.pending),
        "waiting": app.queue.bounds.size,
        "waiting bytes": app.queue.bounds.held,
        "waiting tenants": len(app.queue.bounds.by_tenant),
        "waiting in order": sum(queue.order.size for queue in app.queue.queues.values()),
        "shared leases": sum(len(each.places.leases) for each in groups.all) if groups else 0,
        "reservations": 0 if app.limiter is None else len(app.limiter.live),
        "exchanges": app.relay.open_exchanges,
        "requests": len(gateway.server.server_state.tasks),
        "connections in use": sum(not connection.idle for node in nodes for connection in node.connections),
        "work on nodes": sum(node.running + node.waiting for node in nodes),
    }
    return {name: count for name, count in found.items() if count}
