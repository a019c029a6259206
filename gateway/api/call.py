"""One client's request, as the pipeline and the relay know it: its headers, its body, and the way of its answer.

The relay pushes from the node's `data_received`, straight into the client's connection (see `cycle`). Where the
client reads more slowly than the node writes, the listener is told, and pauses the node until it is told again.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gateway.api.cycle import Connection, Cycle, check_headers
from gateway.api.errors import error_headers, shape_error
from gateway.api.heads import Head, Route
from gateway.core.errors import BodyTooLarge, GatewayError
from gateway.relay.downstream import ClientListener, Headers

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The id that the client gave in `x-request-id`, if it can be logged as it is, else a new one.

    A new one has to be unique, not secret: 96 bits that cost no system call.
    """
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return "req_" + random.getrandbits(96).to_bytes(12, "big").hex()


@dataclass(slots=True)
class Bounds:
    """What is accepted of a client: bytes of a body and seconds for it to arrive. A reload replaces the values."""

    max_body: int
    body_timeout: float


class ClientCall(Cycle):
    """The client's side of one request; the relay's `Downstream` and the pipeline's `Call`."""

    listener: ClientListener | None = None
    _stream = False
    _told: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(
        self,
        connection: Connection,
        head: Head,
        body: bytes | None,
        route: Route,
        bounds: Bounds,
        begin: Callable[["ClientCall"], None],
    ) -> None:
        """`begin` is called when it is this request's turn on its connection."""
        super().__init__(connection, head, body)
        self.route = route
        self.request_id = request_id_of(head.headers)
        self._bounds = bounds
        self._begin = begin

    def begin(self) -> None:
        self.begun = True
        self._begin(self)

    @property
    def address(self) -> str:
        """Where the client is; behind trusted proxies, what they say of it."""
        return self.connection.address(self.head.fields)

    async def read_body(self) -> bytes:
        """The whole body; the client is watched from the moment it is there."""
        bounds = self._bounds
        if self._body is None:
            await self._wait_for_body(bounds.max_body, bounds.body_timeout)
        body = self._body
        if body is None or len(body) > bounds.max_body:
            raise BodyTooLarge(f"The body is larger than {bounds.max_body} bytes: send a shorter prompt.")
        self._body = b""
        return body

    def lose(self) -> None:
        super().lose()
        if self.listener is not None:
            self.listener.on_gone()

    def on_full(self) -> None:
        if self.listener is not None:
            self.listener.on_full()

    def on_writable(self) -> None:
        if self.listener is not None:
            self.listener.on_writable()

    @property
    def started(self) -> bool:
        return self.status != 0

    def tell(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Have these headers on the answer, whatever it will be: told before its head goes out."""
        self._told += tuple(headers)

    def start(self, status: int, headers: Headers, stream: bool) -> None:
        """The head; `push` and `finish` follow."""
        self._stream = stream
        self._begin_answer(status, headers)

    def fail(self, error: GatewayError) -> None:
        """An error answer; in a stream that has begun an event; a plain answer that has begun is left cut off."""
        if self.gone or self.response_complete:
            return
        if self.status == 0:
            shape = shape_error(error, self.request_id)
            body = self.route.dialect.error(shape)
            headers = error_headers(error, body)
            check_headers(headers)
            self._begin_answer(shape.status, headers)
            self._finish_and_linger(body)
        elif self._stream:
            self.finish(self.route.dialect.error_event(shape_error(error, self.request_id)))

    def close(self) -> None:
        """The request's story is over, whatever its end."""
        self.listener = None
        self._break_off()

    def _begin_answer(self, status: int, headers: Headers) -> None:
        if self._told:
            check_headers(list(self._told))
            headers = [*headers, *self._told]
        request_id = self.request_id.encode()
        self._render(status, headers, b"x-request-id: %b\r\nrequest-id: %b\r\n" % (request_id, request_id))
