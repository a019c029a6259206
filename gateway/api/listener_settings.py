"""What the listeners' protocol is made for: the bounds that it holds, and the requests that it gives their turn."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.api.body import RequestBounds
from gateway.api.connection_bounds import ConnectionBounds
from gateway.api.cycle import Connection
from gateway.api.middleware import Middleware
from gateway.api.request_head import Endpoint, RequestHead


class QueuedRequest(Protocol):
    """A request in its place among those of its connection."""

    begun: bool
    keep_alive: bool

    @property
    def started(self) -> bool:
        """Whether its answer has begun."""

    def begin(self) -> None:
        """All requests before it have been answered."""

    def proceed(self) -> None:
        """More of what it was waiting for may have come."""

    def feed(self, piece: bytes) -> None:
        """A piece of its body."""

    def end_of_body(self) -> None: ...

    def lose(self) -> None:
        """The client closed the connection before the answer was complete."""

    def on_full(self) -> None:
        """More was written than the client takes now. Told within the write."""

    def on_writable(self) -> None:
        """What was written has gone out, after a write that was too much at once."""


class RequestHandler(Protocol):
    """What a connection hands its requests to: see `front`."""

    middleware: Middleware

    def find(self, head: RequestHead) -> Endpoint | None:
        """The endpoint that a request is for; None where it is not the data plane's."""

    def open(self, connection: Connection, route: Endpoint, head: RequestHead, body: bytes | None) -> QueuedRequest:
        """The request for `route` that has come on `connection`; `body` is None where it is still to come."""


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Bounds of the listeners: connections on the public one, bytes and seconds for a request's headers, seconds
    for a client to take something of what it was sent; and what is accepted of a body.

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
