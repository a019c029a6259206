"""One client's request over ASGI: its body read within bounds, its answer pushed without waking a task.

The relay pushes from the node's `data_received`; a push runs ASGI's `send` by hand (see `stepping`). Where a
send has to wait, because the client reads more slowly than the node writes, further pushes queue up behind it
(at most what the node's connection had read already, since a refused push pauses it), and the listener hears
when the way is free again.
"""

import asyncio
import random
import re
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any

from gateway.api.errors import id_headers, shape_error, whole_answer
from gateway.api.stepping import await_rest, finish_later
from gateway.core.dialects import Dialect
from gateway.core.errors import BodyTooLarge, ClientGone, GatewayError, RequestTooSlow
from gateway.relay.exchange import ClientListener, Headers

Message = dict[str, Any]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 256 * 1024


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The id that the client gave in `x-request-id`, if it can be logged as it is, else a new one.

    A new one has to be unique, not secret: 96 bits that cost no system call.
    """
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"req_{random.getrandbits(96):024x}"


class AsgiCall:
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
        self._receive = receive
        self._send = send
        self._dialect = dialect
        self._max_body = max_body
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._body_read = False
        self._stream = False
        self._finished = False
        self._sending = False
        self._queue: deque[Message] = deque()
        self._flushed: asyncio.Future[None] | None = None

    # The request

    async def read_body(self) -> bytes:
        """The whole body; the client is watched from the moment it is there."""
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._max_body:
            raise self._too_large()
        receiving = self._receive()
        try:
            awaited = receiving.send(None)
        except StopIteration as stop:
            message = stop.value
            if message["type"] == "http.request" and not message.get("more_body", False):
                body = self._checked(message["body"])  # it came with the headers: nothing to wait for
            else:
                body = await self._within_time(self._collect(message))
        else:
            body = await self._within_time(self._collect(None, receiving, awaited))
        self._body_read = True
        self._watch()
        return body

    async def _within_time(self, collecting: Coroutine[Any, Any, bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                return await collecting
        except TimeoutError:
            raise RequestTooSlow(f"The body did not arrive within {self._timeout:g} s.") from None

    async def _collect(self, message: Message | None, receiving: Any = None, awaited: Any = None) -> bytes:
        """All pieces of the body. The first `message` is there already, or still to come from `receiving`."""
        pieces: list[bytes] = []
        size = 0
        if message is None:
            message = await await_rest(receiving, awaited)
        while True:
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ClientGone("The client closed its connection.")
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._max_body:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(pieces)
            message = await self._receive()

    def _checked(self, body: bytes) -> bytes:
        if len(body) > self._max_body:
            raise self._too_large()
        return body

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._max_body} bytes: send a shorter prompt.")

    def _watch(self) -> None:
        receiving = self._receive()
        try:
            awaited = receiving.send(None)
        except StopIteration as stop:
            self._heard(stop.value, None)
        else:
            finish_later(receiving, awaited, self._loop, self._heard)

    def _heard(self, message: Message | None, error: BaseException | None) -> None:
        if error is None and message is not None and message["type"] != "http.disconnect":
            self._watch()
        elif not self._finished:
            self._lost()

    def _lost(self) -> None:
        self.gone = True
        self._queue.clear()
        if self.listener is not None:
            self.listener.on_gone()

    # The answer

    def start(self, status: int, headers: Headers) -> None:
        self.status = status
        self._stream = any(
            name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers
        )
        start = {"type": "http.response.start", "status": status, "headers": headers + id_headers(self.request_id)}
        self._put(start)

    def push(self, data: bytes) -> bool:
        return self._put({"type": "http.response.body", "body": data, "more_body": True})

    def finish(self, data: bytes = b"") -> None:
        if not self._finished:
            self._finished = True
            self._put({"type": "http.response.body", "body": data, "more_body": False})

    async def fail(self, error: GatewayError) -> None:
        """An error answer; in a stream that has begun an event; a plain answer that has begun is left cut off."""
        if self.gone or self._finished:
            return
        if self.status == 0:
            await self._answer_error(error)
        elif self._stream:
            self.push(self._dialect.error_event(shape_error(error, self.request_id)))
            self.finish()
            await self.flush()

    async def _answer_error(self, error: GatewayError) -> None:
        status, headers, body = whole_answer(error, self._dialect, self.request_id)
        if not self._body_read:
            headers.append((b"connection", b"close"))
        self.status = status
        self._put({"type": "http.response.start", "status": status, "headers": headers})
        if not self._body_read:
            self.push(body)
            await self._linger()
            body = b""
        self.finish(body)
        await self.flush()

    async def _linger(self) -> None:
        """Take in a little of the body that was not wanted: closing on unread bytes would reset the connection,
        and the answer could be lost on its way (RFC 9112, section 9.6)."""
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

    async def flush(self) -> None:
        if self._sending and not self.gone:
            self._flushed = self._loop.create_future()
            await self._flushed

    # Sending

    def _put(self, message: Message) -> bool:
        """Send now where that needs no waiting; True says that it was."""
        if self.gone:
            return True
        if self._sending:
            self._queue.append(message)
            return False
        sending = self._send(message)
        try:
            awaited = sending.send(None)
        except StopIteration:
            return True
        except Exception:  # noqa: BLE001 - a server that cannot send has lost its client
            self._lost()
            return True
        self._sending = True
        finish_later(sending, awaited, self._loop, self._sent)
        return False

    def _sent(self, _: None, error: BaseException | None) -> None:
        """A send that had to wait is through: the queue goes next, and at its end the node may go on."""
        self._sending = False
        if error is not None:
            self._lost()
        while self._queue and not self._sending:
            self._put(self._queue.popleft())
        if self._sending:
            return
        if self.listener is not None and not self.gone:
            self.listener.on_writable()
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)
