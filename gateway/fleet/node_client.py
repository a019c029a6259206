"""The gateway's own requests to a node: probes, trials, canaries. Answers are bounded in bytes, and by the callers in
seconds. Every failure is a `NodeRequestError` or a TimeoutError.

A node costs one kept connection and a few strings: an `httpx.AsyncClient` is 100 KB, and 400 µs a request.
"""

import asyncio
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gateway.core.json_text import dump
from gateway.fleet.node_connection import ConnectionClosed, NodeConnection, NodeReply, NodeRequestError, NodeUnreachable
from gateway.fleet.node_spec import NodeSpec
from gateway.fleet.node_tls import tls_context

__all__ = ["ConnectionClosed", "NodeClient", "NodeReply", "NodeRequestError", "NodeUnreachable"]

SURE_SECONDS = 1.0
"""How long a kept connection is trusted with a request that is not sent twice: nodes close theirs after 5 s."""


class PendingReply(NamedTuple):
    """A request that is under way. `waiter` is done once its reply has come, or it has failed."""

    connection: NodeConnection
    waiter: "asyncio.Future[NodeReply]"


class NodeClient:
    """Asks one node. It decompresses nothing, follows no redirect and keeps no cookies.

    One connection is kept; what is asked at the same time gets others, which are closed afterwards. `reconnected`: how
    often there was none to be kept: a node that closes its connections may have begun anew.
    """

    __slots__ = ("_base_path", "_fixed_headers", "_host", "_kept", "_port", "_secure", "_spec", "closed", "reconnected")

    def __init__(self, spec: NodeSpec) -> None:
        parts = urlsplit(spec.url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._base_path = parts.path.rstrip("/")
        self._spec = spec
        lines = [f"host: {parts.netloc.rpartition('@')[2]}", "accept-encoding: identity"]
        if spec.api_key:
            lines.append(f"authorization: Bearer {spec.api_key}")
        self._fixed_headers = "".join(f"{line}\r\n" for line in lines).encode()
        self._kept: NodeConnection | None = None
        self.closed = False
        self.reconnected = 0

    async def get(self, path: str) -> NodeReply:
        """Asked again over a new connection where the kept one turns out to be closed."""
        connection, is_kept = await self._connection(None)
        try:
            return await self._exchange(connection, self._request("GET", path, None))
        except ConnectionClosed as error:
            if not (is_kept and error.unheard):
                raise
        connection = await self._connect()
        return await self._exchange(connection, self._request("GET", path, None))

    def begin_get(self, path: str) -> "PendingReply | None":
        """Ask over the kept connection, without waiting; None where there is none."""
        kept = self._kept
        if kept is None or not kept.usable:
            return None
        self._kept = None
        return PendingReply(kept, kept.ask(self._request("GET", path, None), asyncio.get_running_loop()))

    def end_get(self, pending: "PendingReply", now: float) -> NodeReply | None:
        """The reply that has come by `now`, loop time; None where the request failed, or nothing has come yet: it is
        given up."""
        waiter = pending.waiter
        if not waiter.done() or waiter.exception() is not None:
            pending.connection.abort()
            return None
        self._keep(pending.connection, now)
        return waiter.result()

    async def post(self, path: str, body: dict[str, Any], seconds: float | None = None) -> NodeReply:
        """Sent once, and answered within `seconds`; None where the caller bounds the time."""
        async with asyncio.timeout(seconds):
            connection, _ = await self._connection(SURE_SECONDS)
            return await self._exchange(connection, self._request("POST", path, dump(body)))

    def close(self) -> None:
        """Close the kept connection, and keep none from now on."""
        self.closed = True
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.abort()

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        start = f"{method} {self._base_path}{path} HTTP/1.1\r\n".encode()
        if body is None:
            return b"%b%b\r\n" % (start, self._fixed_headers)
        framing = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        return b"%b%b%b\r\n%b" % (start, self._fixed_headers, framing, body)

    async def _connection(self, seconds: float | None) -> tuple[NodeConnection, bool]:
        """The kept connection, if it was used within `seconds`, or a new one; and whether it is the kept one."""
        kept, self._kept = self._kept, None
        if kept is not None and kept.usable:
            if seconds is None or asyncio.get_running_loop().time() - kept.idle_since < seconds:
                return kept, True
            kept.abort()
        return await self._connect(), False

    async def _connect(self) -> NodeConnection:
        self.reconnected += 1
        try:
            tls = tls_context(self._spec.ca_file) if self._secure else None
            _, connection = await asyncio.get_running_loop().create_connection(
                NodeConnection, self._host, self._port, ssl=tls, server_hostname=self._host if tls else None
            )
        except (OSError, UnicodeError) as error:  # ssl.SSLError is one, and a name that can be no host's the other
            raise NodeUnreachable(str(error) or type(error).__name__) from error
        if not connection.usable:  # closed by the time that its waiter was woken
            connection.abort()
            raise ConnectionClosed("the node closed the connection before it was asked", unheard=True)
        return connection

    async def _exchange(self, connection: NodeConnection, request: bytes) -> NodeReply:
        try:
            reply = await connection.ask(request, asyncio.get_running_loop())
        except BaseException:
            connection.abort()  # also where nobody waits for the answer any more
            raise
        self._keep(connection, asyncio.get_running_loop().time())
        return reply

    def _keep(self, connection: NodeConnection, now: float) -> None:
        if self._kept is None and not self.closed and connection.usable:
            connection.idle_since = now
            self._kept = connection
        else:
            connection.abort()
