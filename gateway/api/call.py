"""One client's request: its body read within bounds, its answer pushed without waking a task.

The relay pushes from the node's `data_received`, straight into the cycle of the client's connection (see
`cycle`). Where the client reads more slowly than the node writes, a push says so and the relay pauses the node;
the listener hears when the way is free again.
"""

import asyncio
import random
import re
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.api.cycle import EXTENSION, Cycle
from gateway.api.errors import id_headers, shape_error, whole_answer
from gateway.core.dialects import Dialect
from gateway.core.errors import BodyTooLarge, ClientGone, GatewayError, RequestTooSlow
from gateway.relay.downstream import ClientListener, Headers

Message = dict[str, Any]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 32 * 1024 * 1024


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The id that the client gave in `x-request-id`, if it can be logged as it is, else a new one.

    A new one has to be unique, not secret: 96 bits that cost no system call.
    """
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"req_{random.getrandbits(96):024x}"


def address_of(client: Any) -> str:
    """The address in an ASGI scope's `client`, a pair or None (a Unix socket has no address)."""
    return client[0] if client else "unknown"


class ClientCall:
    """The client's side of one request; the relay's `Downstream` and the pipeline's `Call`."""

    def __init__(
        self, scope: Message, receive: Any, send: Any, dialect: Dialect, max_body: int, timeout: float
    ) -> None:
        """`max_body` in bytes, `timeout` in seconds for the whole body to arrive."""
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.request_id = request_id_of(self.headers)
        self.listener: ClientListener | None = None
        self.gone = False
        self.status = 0
        # Taken out of the scope, and let go of at the end: a ring of references would be the garbage collector's.
        self._cycle: Cycle = scope["extensions"].pop(EXTENSION)
        self._client = scope["client"]
        self._receive = receive
        self._send = send
        self._dialect = dialect
        self._max_body = max_body
        self._timeout = timeout
        self._body_read = False
        self._stream = False
        self._lingers = False
        self._told: list[tuple[bytes, bytes]] = []
        self.push = self._cycle.write

    async def close(self) -> None:
        """The request is over, whatever its end."""
        if self._lingers:
            await self._linger()
            self.finish()
        self._cycle.on_gone = self._cycle.on_writable = None

    # The request

    @property
    def address(self) -> str:
        """Where the client is; behind trusted proxies, what they say of it."""
        return address_of(self._client)

    async def read_body(self) -> bytes:
        """The whole body; the client is watched from the moment it is there."""
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._max_body:
            raise self._too_large()
        body = self._cycle.take_body()
        if body is None:
            try:
                async with asyncio.timeout(self._timeout):
                    body = await self._collect()
            except TimeoutError:
                raise RequestTooSlow(f"The body did not arrive within {self._timeout:g} s.") from None
        if len(body) > self._max_body:
            raise self._too_large()
        self._body_read = True
        self._cycle.on_gone = self._lost
        self._cycle.on_writable = self._writable
        return body

    async def _collect(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ClientGone("The client closed its connection.")
            pieces.append(message["body"])
            size += len(pieces[-1])
            if size > self._max_body:
                raise self._too_large()
            if not message["more_body"]:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._max_body} bytes: send a shorter prompt.")

    def _lost(self) -> None:
        self.gone = True
        if self.listener is not None:
            self.listener.on_gone()

    def _writable(self) -> None:
        if self.listener is not None:
            self.listener.on_writable()

    # The answer

    @property
    def started(self) -> bool:
        return self.status != 0

    def tell(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Have these headers on the answer, whatever it will be: told before its head goes out."""
        self._told += headers

    def start(self, status: int, headers: Headers, stream: bool) -> None:
        """The head; `push` and `finish` follow. Goes through ASGI, so that middleware can add to it."""
        self.status = status
        self._stream = stream
        self._start_with(headers + id_headers(self.request_id) + self._told)

    def finish(self, data: bytes = b"") -> None:
        self._cycle.finish(data)

    def fail(self, error: GatewayError) -> None:
        """An error answer; in a stream that has begun an event; a plain answer that has begun is left cut off."""
        if self.gone or self._cycle.response_complete:
            return
        if self.status == 0:
            self._answer_error(error)
        elif self._stream:
            self.finish(self._dialect.error_event(shape_error(error, self.request_id)))

    def _answer_error(self, error: GatewayError) -> None:
        self.status, headers, body = whole_answer(error, self._dialect, self.request_id)
        self._start_with(headers + self._told)
        if self._body_read:
            self.finish(body)
        else:
            self.push(body)
            self._lingers = True

    async def _linger(self) -> None:
        """Take in and forget what still comes of an unwanted body, within bounds: closing on unread bytes would
        reset the connection, and the answer could be lost on its way (RFC 9112, section 9.6)."""
        size = 0
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while size < _LINGER_BYTES:
                    message = await self._receive()
                    size += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    def _start_with(self, headers: Headers) -> None:
        """Run ASGI's send to its end on the spot: a cycle only notes the head, and middleware does not wait."""
        sending = self._send({"type": "http.response.start", "status": self.status, "headers": headers})
        try:
            sending.send(None)
        except StopIteration:
            return
        sending.close()
        raise RuntimeError("sending the head of an answer had to wait")
