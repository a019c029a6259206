"""TLS on the listeners: a connection is counted before its handshake. (asyncio would create the protocol after it.)

state        event                             next
accepted     one connection too many           aborted: an answer would need the handshake
accepted     -                                 handshake, for `ListenerSettings.headers_timeout` seconds
handshake    it fails, or takes too long       aborted
handshake    the server shuts down             aborted
handshake    it is complete                    a `GatewayProtocol` goes on, with what came in the meantime
"""

import asyncio
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.api.listener_settings import ListenerSettings
from gateway.api.protocol import GatewayProtocol


class TlsProtocol(asyncio.Protocol):
    """One connection up to the end of its handshake."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._protocol = GatewayProtocol(config, server_state, app_state, _loop)
        self._settings = cast(ListenerSettings, self._protocol.app_state["listener_settings"])
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        transport.pause_reading()  # uvloop begins to read all the same
        protocol = self._protocol
        if protocol.count_in(transport) is not None:
            self._give_up()
            return
        protocol.connections.add(cast(Any, self))  # for a shutdown
        task = protocol.loop.create_task(self._shake_hands(transport))
        protocol.tasks.add(task)
        task.add_done_callback(protocol.tasks.discard)
        protocol.loop.call_soon(protocol.loop.call_soon, self._hand_over)

    def _hand_over(self) -> None:
        """Hand the bytes that came early to the handshake's own protocol, after its `connection_made`."""
        handshake: Any = None if self._transport is None else self._transport.get_protocol()
        if handshake is None or handshake is self:
            return  # it was given up
        early, self._early = self._early, []
        for data in early:
            rest = memoryview(data)
            while rest:
                buffer = handshake.get_buffer(len(rest))
                size = min(len(buffer), len(rest))
                buffer[:size] = rest[:size]
                handshake.buffer_updated(size)
                rest = rest[size:]

    def shutdown(self) -> None:
        self._settings.on_shutdown()
        self._give_up()

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        protocol, listener_settings = self._protocol, self._settings
        assert listener_settings.tls is not None
        try:
            secured = await protocol.loop.start_tls(
                transport,
                self,
                listener_settings.tls,
                server_side=True,
                ssl_handshake_timeout=listener_settings.headers_timeout,
            )
        except (OSError, asyncio.CancelledError):  # ssl.SSLError and TimeoutError are OSErrors
            self._give_up()
            return
        protocol.connections.discard(cast(Any, self))
        if secured is None or self._lost:
            self._give_up()
            return
        secured.set_protocol(protocol)
        protocol.below = transport
        protocol.connection_made(secured)
        for data in self._early:
            protocol.data_received(data)
        self._early.clear()

    def _give_up(self) -> None:
        self._protocol.connections.discard(cast(Any, self))
        self._protocol.count_out()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    # Bytes that come in the loop's iterations before the handshake begins, and after it ended

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._give_up()
