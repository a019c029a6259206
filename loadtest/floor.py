"""The floor: the least work a relay in Python can do, to compare the gateway with over time.

    python -m loadtest.floor --node 8000 --port 8080

Raw asyncio protocols on uvloop, httptools to find where messages end, a pool of kept connections, and bytes
passed on as they came. No routing, no checks, no limits, no counting, no errors worth the name: what a gateway
costs above this is what it does.
"""

import argparse
import asyncio
import contextlib
from collections import deque
from typing import cast

import httptools
import uvloop

HOST = "127.0.0.1"


class Upstream(asyncio.Protocol):
    """A connection to the node, lent to one client at a time."""

    def __init__(self, pool: deque["Upstream"]) -> None:
        """It returns to `pool` after each answer."""
        self._pool = pool
        self._client: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._whole = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The node has gone, and with it the answer."""
        if self._client:
            self._client.abort()
        if self in self._pool:
            self._pool.remove(self)

    def send(self, request: bytes, client: asyncio.Transport) -> None:
        """Pass `request` on; its answer goes to `client`."""
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self._whole = False
        if self._transport:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Pass the answer's bytes on; return to the pool at its end."""
        if not self._client:
            return
        self._client.write(data)
        self._parser.feed_data(data)
        if self._whole:
            self._client = None
            self._pool.append(self)

    def close(self) -> None:
        """Hang up."""
        self._client = None
        if self._transport:
            self._transport.abort()

    def on_message_complete(self) -> None:
        """httptools: the answer is whole."""
        self._whole = True


class Downstream(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, node: int, pool: deque[Upstream]) -> None:
        """`node` is the node's port."""
        self._node = node
        self._pool = pool
        self._parser = httptools.HttpRequestParser(self)
        self._request = b""
        self._transport: asyncio.Transport | None = None
        self._upstream: Upstream | None = None
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: so does the node's connection, if its answer may be under way."""
        if self._upstream and self._upstream not in self._pool:
            self._upstream.close()

    def data_received(self, data: bytes) -> None:
        """Gather the request's bytes."""
        self._request += data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport:
                self._transport.abort()

    def on_message_complete(self) -> None:
        """httptools: the request is whole; pass it on."""
        if self._pool:
            self._send(self._pool.pop())
        else:
            self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(lambda: Upstream(self._pool), HOST, self._node)
        self._send(upstream)

    def _send(self, upstream: Upstream) -> None:
        self._upstream = upstream
        request, self._request = self._request, b""
        if self._transport:
            upstream.send(request, self._transport)


async def serve(node: int, port: int) -> None:
    """Relay from `port` to `node` (both on 127.0.0.1) until cancelled."""
    pool: deque[Upstream] = deque()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Downstream(node, pool), HOST, port, backlog=2048)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Relay until told to stop."""
    parser = argparse.ArgumentParser(description="A bare relay, the floor of the micro-benchmark.")
    parser.add_argument("--node", type=int, required=True, help="the node's port")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(options.node, options.port))


if __name__ == "__main__":
    main()
