"""Settings of the listeners: the bounds of connections, and the handler of their requests."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.api.body import RequestBounds
from gateway.api.connection_bounds import ConnectionBounds
from gateway.api.middleware import Middleware
from gateway.api.queued_request import QueuedRequest
from gateway.api.request_head import Endpoint, RequestHead
from gateway.api.server_connection import ServerConnection


class RequestHandler(Protocol):
    """The part of the `Dispatcher` that connections call."""

    middleware: Middleware

    def find(self, head: RequestHead) -> Endpoint | None:
        """The endpoint that a request is for; None where it is not the data plane's."""

    def find_played(self, head: RequestHead) -> Endpoint | None:
        """The same for a request on the admin listener."""

    def open(
        self, connection: ServerConnection, endpoint: Endpoint, head: RequestHead, body: bytes | None
    ) -> QueuedRequest:
        """The request for `endpoint` that has come on `connection`; `body` is None where it is still to come."""


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Bounds of the listeners: connections, bytes and seconds of a request's headers, bodies; `client_stall` is seconds
    in which a client must read something of what it was sent.

    `on_shutdown` is called once for every connection that is open when the server begins to shut down.
    """

    admin_port: int | None
    connections: ConnectionBounds
    admin_connections: ConnectionBounds
    max_headers: int
    headers_timeout: float
    client_stall: float
    bounds: RequestBounds
    tls: ssl.SSLContext | None
    dispatcher: RequestHandler
    on_shutdown: Callable[[], None]
