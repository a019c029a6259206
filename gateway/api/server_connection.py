"""What uvicorn expects of a protocol class, and what requests need of their connection.

uvicorn stays the server: sockets, lifespan, signals, worker processes. All that it and a connection know of each other:

    uvicorn's                                       used for
    config.http_protocol_class(config=,             one instance for each accepted connection; `_loop` is None but in
        server_state=, app_state=, _loop=)          tests
    config.loaded_app, config.root_path             ASGI requests
    config.timeout_keep_alive                       seconds that an idle connection is kept
    app_state                                       the lifespan's state, copied into each ASGI scope
    server_state.connections                        the open connections: at a shutdown `shutdown()` is called for each,
                                                    and the server waits until the set is empty
    server_state.tasks                              the tasks that a shutdown waits for; at its deadline
                                                    (`timeout_graceful_shutdown`) they are cancelled
    server_state.total_requests                     counted here, compared with `limit_max_requests`
    server_state.default_headers                    date and server, in front of each answer's headers: a new list each
                                                    second, so that comparing identities shows a change

Access logs and WebSockets are the protocol's to serve, and are not served here.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.api.flow_control import FlowControl
from gateway.api.request_head import Fields
from gateway.api.response_head import header_lines
from gateway.core.errors import GatewayError

Address = tuple[str, int]


class ServerConnection(asyncio.Protocol, ABC):
    """A client connection as uvicorn and its requests see it; `GatewayProtocol` serves it."""

    transport: asyncio.Transport
    flow: FlowControl

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.app: Any = config.loaded_app
        self.root_path = config.root_path
        self.timeout_keep_alive = config.timeout_keep_alive
        self.app_state = app_state
        self.server_state = server_state
        self.connections: set[Any] = cast(Any, server_state.connections)
        self.tasks: set[Any] = server_state.tasks
        self.loop = _loop or asyncio.get_running_loop()
        self.server: Address | None = None
        self.client: Address | None = None
        self.scheme = "http"
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._default_lines = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.connections.add(self)
        self.transport = transport
        self.server, self.client = own_address(transport), peer_address(transport)
        if transport.get_extra_info("sslcontext") is not None:
            self.scheme = "https"

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)

    @abstractmethod
    def shutdown(self) -> None:
        """Called once by uvicorn: close the connection, after the answer that is under way."""

    # What requests need

    def default_lines(self) -> bytes:
        """The header lines that every answer begins with."""
        headers = self.server_state.default_headers
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_lines = header_lines(headers)
        return self._default_lines

    @abstractmethod
    def address(self, fields: Fields) -> str:
        """Where the client is, for a request with these header fields."""

    @abstractmethod
    def unsent(self) -> int:
        """Bytes that wait to be sent to the client."""

    @abstractmethod
    def answered(self) -> None:
        """The first of the unanswered requests has its answer."""

    @abstractmethod
    def refuse(self, error: GatewayError) -> None:
        """Read nothing more; answer with `error` in place of the request whose body is arriving, and close."""

    @abstractmethod
    def error_answer(self, error: GatewayError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, headers and body of the answer that tells `error` on this listener."""

    @abstractmethod
    def close_after_answer(self) -> None:
        """A request was answered before its body was complete: read nothing more, and close."""


def own_address(transport: asyncio.Transport) -> Address | None:
    """The listener's address and port; None for a socket that has none."""
    return _address(transport, "sockname")


def peer_address(transport: asyncio.Transport) -> Address | None:
    """The peer's address and port; None where they are not known."""
    return _address(transport, "peername")


def _address(transport: asyncio.Transport, name: str) -> Address | None:
    try:
        found = transport.get_extra_info(name)
    except OSError:  # uvloop asks the socket, which may be closed
        return None
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) and len(found) >= 2 else None
