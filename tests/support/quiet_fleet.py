"""Many nodes in this process that only answer probes, and count what they are asked."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from loadtest.quiet_nodes import HOST, Question


@dataclass(slots=True)
class QuietNode:
    """One node. `asked`: requests by path, `paths`: by how it is written; `status`: of everything but metrics; `model`:
    what it serves."""

    started: float
    busy: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    paths: Counter[str] = field(default_factory=Counter)
    status: int = 200
    model: str = "nemotron-3-ultra"
    silent: bool = False
    """It takes requests, and answers none."""
    filters: bool = True
    """Its metrics can be asked for by name."""
    holds: frozenset[str] = frozenset()
    """Paths that it does not answer."""
    connections: set[asyncio.Transport] = field(default_factory=set)
    server: asyncio.Server | None = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def listen(self) -> None:
        """Begin, or begin again at the same port."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: _Counted(self), HOST, self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    def die(self) -> None:
        """Stop listening, and cut what is open."""
        if self.server is not None:
            self.server.close()
        for transport in list(self.connections):
            transport.abort()

    async def replace(self, model: str) -> None:
        """Another process, with another model, at the same port."""
        self.die()
        self.started += 1000.0
        self.model = model
        await self.listen()


class _Counted(Question):
    def __init__(self, node: QuietNode) -> None:
        super().__init__(node.started, node.busy, node.filters)
        self._node = node

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._transport is not None
        self._node.connections.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self._node.connections.discard(self._transport)

    def on_message_complete(self) -> None:
        node, path = self._node, self._path.decode().partition("?")[0].rstrip("/")
        node.asked[path] += 1
        node.paths[self._path.decode()] += 1
        self._busy = node.busy
        if node.silent or path in node.holds:
            return
        if node.status != 200 and path != "/metrics":
            assert self._transport is not None
            self._transport.write(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % node.status)
            return
        super().on_message_complete()

    def _body(self) -> bytes | None:
        body = super()._body()
        if self._path == b"/v1/models" and body is not None:
            return body.replace(b"nemotron-3-ultra", self._node.model.encode())
        return body


@contextlib.asynccontextmanager
async def quiet_fleet(count: int) -> AsyncIterator[list[QuietNode]]:
    """`count` nodes at free ports."""
    nodes = [QuietNode(time.time()) for _ in range(count)]
    try:
        for node in nodes:
            await node.listen()
        yield nodes
    finally:
        for node in nodes:
            node.die()
