"""The node's listeners, and what a test may do to it; `serve_fake` is the way in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from secrets import compare_digest

from workers.fake.door import meet_faults
from workers.fake.errors import Refusal
from workers.fake.faults import Fault
from workers.fake.http1 import Connection, Exchange
from workers.fake.node import Node
from workers.fake.routes import CONTROL, refuse, route, stream_break, wrong_method
from workers.fake.settings import FakeSettings
from workers.fake.stats import Seen, Stats
from workers.fake.wire import answer_json

_GUARDED = ("/v1", "/v2", "/inference")


class FakeNode:
    """A running fake node: where it listens, and what a test may do to it."""

    def __init__(self, settings: FakeSettings) -> None:
        self.settings = settings
        self.node = Node(settings, self.crash)
        self.node.on_faults = self._mind_faults
        self.connections: set[Connection] = set()
        self._controllers: set[Connection] = set()
        self.node.count_connections = lambda: len(self.connections)
        self.port = settings.port
        self.control_port = 0
        self.exited = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._control: asyncio.Server | None = None
        self._reopen: asyncio.TimerHandle | None = None

    @property
    def url(self) -> str:
        """The node's base URL, without a slash at the end."""
        return f"http://{self.settings.host}:{self.port}"

    @property
    def control_url(self) -> str:
        """Where `/fake/*` is always answered, also while the node refuses or hangs."""
        return f"http://{self.settings.host}:{self.control_port}"

    # what a test may do
    def set_faults(self, *faults: Fault) -> None:
        """Puts exactly these faults in force; none heals the node."""
        self.node.faults.set(*faults)
        self.node.on_faults()

    def crash(self) -> None:
        """Everything ends at once: the listener closes, all connections are cut, the cache is lost."""
        self._close_listener()
        for connection in list(self.connections):
            connection.transport.abort()
        self.node.engine.cache.clear()
        self.exited.set()

    async def restart(self) -> None:
        """Listens again on the same port, with an empty cache and no faults."""
        self.node.faults.set()
        self.exited.clear()
        await self._listen()

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        return len(self.node.engine.running)

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self.node.engine.waiting)

    @property
    def aborted(self) -> int:
        """Requests whose client left, or that a fault ended."""
        return self.node.engine.aborted

    @property
    def last(self) -> Seen | None:
        """The last request, probes included; `stats.recent` holds some before it."""
        return self.node.stats.recent[-1] if self.node.stats.recent else None

    @property
    def stats(self) -> Stats:
        """The requests seen."""
        return self.node.stats

    # listeners
    async def open(self) -> None:
        """Starts listening; `port` and `control_port` are known afterwards."""
        loop = asyncio.get_running_loop()
        self._control = await loop.create_server(
            lambda: Connection(self._serve, self._controllers), self.settings.host, 0
        )
        self.control_port = self._control.sockets[0].getsockname()[1]
        await self._listen()
        self._mind_faults()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        if self._server is None:
            self._server = await loop.create_server(
                lambda: Connection(self._serve, self.connections), self.settings.host, self.port, backlog=4096
            )
            self.port = self._server.sockets[0].getsockname()[1]

    def _close_listener(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _mind_faults(self) -> None:
        self.node.clock.hold(self.node.faults.first("wedge") is not None)
        refuse = self.node.faults.first("refuse")
        if self._reopen is not None:
            self._reopen.cancel()
            self._reopen = None
        if refuse is None:
            self.node.spawn(self._listen())
            return
        self._close_listener()
        for connection in [c for c in self.connections if c.idle]:
            connection.transport.close()
        if refuse.seconds > 0:
            self._reopen = asyncio.get_running_loop().call_later(refuse.seconds, self._stop_refusing)

    def _stop_refusing(self) -> None:
        self.node.faults.drop("refuse")
        self._mind_faults()

    async def close(self) -> None:
        """Ends everything: listeners, connections, running requests."""
        if self._reopen is not None:
            self._reopen.cancel()
        self._close_listener()
        if self._control is not None:
            self._control.close()
        open_ones = [*self.connections, *self._controllers]
        tasks = [c.task for c in open_ones if c.task is not None]
        for connection in open_ones:
            connection.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.node.settle()

    # one request
    async def _serve(self, exchange: Exchange) -> None:
        control = CONTROL.get(exchange.path)
        if control is not None:
            return await control(self.node, exchange)
        self.node.stats.request(exchange)
        method, serve, scope = route(exchange, self.node.settings.pooling)
        exchange.stream_error = stream_break(exchange.path, self.node.settings)
        exchange.faults = self.node.faults.take(exchange.path, scope)
        try:
            if exchange.faults and await meet_faults(self.node, exchange):
                return None
            self._admit(exchange)
            if serve is None:
                return answer_json(exchange, {"detail": "Not Found"}, 404)
            if method != exchange.method:
                return wrong_method(exchange, method)
            await serve(self.node, exchange)
        except Refusal as refusal:
            refuse(exchange, refusal, self.node.settings)
        return None

    def _admit(self, exchange: Exchange) -> None:
        key = self.settings.api_key
        if key is None or not exchange.path.startswith(_GUARDED):
            return
        scheme, _, given = exchange.header(b"authorization").partition(" ")
        same = compare_digest(sha256(given.encode()).digest(), sha256(key.encode()).digest())
        if scheme.lower() != "bearer" or not same:
            raise Refusal(401, "Unauthorized")


@asynccontextmanager
async def serve_fake(settings: FakeSettings | None = None) -> AsyncIterator[FakeNode]:
    """A fake node on the running loop, on a free port unless the settings name one."""
    fake = FakeNode(settings or FakeSettings())
    await fake.open()
    try:
        yield fake
    finally:
        await fake.close()
