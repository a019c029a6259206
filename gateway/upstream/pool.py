"""The connections to one node: idle ones are kept, new ones are made; and the head of every request to it."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from gateway.core.errors import ConnectFailed, GatewayError, OutOfResources
from gateway.fleet.node_tls import tls_context
from gateway.telemetry.shortages import shortage_behind
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.node_head_cache import NodeHeadCache

IDLE_LIMIT: Final = 60.0
"""Seconds after which an idle connection is not used again (the node may have closed it sooner: see `attempts`)."""

MAX_IDLE: Final = 256
"""Idle connections kept to one node: more than one node serves at once."""

FORWARDED_HEADERS: Final = (
    b"accept",
    b"user-agent",
    b"anthropic-version",
    b"anthropic-beta",
)
"""Client headers that reach the node. All others stay here, above all those that steer vLLM's engine
(`X-Request-Id`, `X-Session-ID`, `X-data-parallel-rank`, `X-Vllm-Priority`) and the client's key. The trace context is
read, and written anew (`core/telemetry/trace_context.py`)."""


class Pool:
    """Last in, first out: the busiest connections stay warm, the surplus goes stale and is dropped."""

    def __init__(self, url: str, api_key: str | None = None, ca_file: str | None = None) -> None:
        """`url`: where the node listens, with a path before every other path where it has one.

        Raises as `connect` where the certificates cannot be read.
        """
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if secure else 80)
        try:
            self._tls = tls_context(ca_file) if secure else None
        except OSError as error:
            raise _not_connected(error) from None
        self._base_path = parts.path.rstrip("/")
        self._fixed_headers = _fixed_headers(parts.netloc.rpartition("@")[2], api_key)
        self._idle: list[UpstreamConnection] = []
        self._closed = False
        self._head_cache = NodeHeadCache()

    def head(self, method: str, path: str, headers: Mapping[bytes, bytes], length: int, trace: bytes = b"") -> bytes:
        """The head of a request whose body has `length` bytes; of the client's `headers` only the harmless ones.
        `trace`: the lines of its trace context."""
        parts = [f"{method} {self._base_path}{path} HTTP/1.1\r\n".encode(), self._fixed_headers]
        for name in FORWARDED_HEADERS:
            value = headers.get(name)
            if value is not None:
                parts += (name, b": ", value, b"\r\n")
        parts += (trace, b"content-length: %d\r\n\r\n" % length)
        return b"".join(parts)

    def acquire(self) -> UpstreamConnection | None:
        """An idle connection that is still good, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and time.monotonic() - connection.idle_since < IDLE_LIMIT:
                return connection
            connection.abort()
        return None

    async def connect(self, timeout: float) -> UpstreamConnection:
        """A new connection within `timeout` seconds. Raises `ConnectFailed`, and `OutOfResources` where this machine
        has no port, file or memory left for it."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self._keep, self._head_cache),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError:
            raise ConnectFailed(f"The connection to the node timed out after {timeout:g} s.") from None
        except OSError as error:  # ssl.SSLError is one
            raise _not_connected(error) from None
        if not connection.usable:  # by the time that its waiter was woken, something else was read: its end, mostly
            connection.abort()
            raise ConnectFailed("The connection to the node failed: the node closed it at once, or sent bytes first.")
        return connection

    def drop_idle(self) -> bool:
        """Close the idle connections; whether there were any."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()
        return bool(idle)

    def close(self) -> None:
        """Drop the idle connections; those in use close when their exchange ends."""
        self._closed = True
        self.drop_idle()

    def _keep(self, connection: UpstreamConnection) -> None:
        if not connection.usable:  # the node has closed it: after a burst most are, and would be kept for nothing
            if connection in self._idle:
                self._idle.remove(connection)
            return
        if self._closed or len(self._idle) >= MAX_IDLE:
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)


def _not_connected(error: OSError) -> GatewayError:
    cause = shortage_behind(error)
    if cause is None:
        return ConnectFailed(f"The connection to the node failed: {error.strerror or error}.")
    words = "The gateway cannot open another connection at the moment; retry."
    return OutOfResources(words, retry_after=1.0, cause=cause)


def _fixed_headers(host: str, api_key: str | None) -> bytes:
    lines: Iterable[str] = [f"host: {host}", "content-type: application/json", "accept-encoding: identity"]
    if api_key is not None:
        lines = [*lines, f"authorization: Bearer {api_key}"]
    return "".join(f"{line}\r\n" for line in lines).encode()
