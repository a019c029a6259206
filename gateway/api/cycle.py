"""uvicorn's side of one request, with a way to send that needs no coroutine.

Under load almost every ASGI `send` returns without waiting for anything; for a stream's events the coroutine
around it costs more than the write. So the data plane starts an answer through ASGI, middleware included, and
then hands its pieces straight to the cycle, from the node's `data_received`. A cycle is found in the request's
scope, as an ASGI extension (`EXTENSION`).

A head goes out together with the first piece of its body: one system call less for a plain answer, one packet
less before a stream's first event.
"""

import re
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

EXTENSION = "fleetgate.cycle"

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LAST_CHUNK = b"0\r\n\r\n"


class Cycle(RequestResponseCycle):
    """One request on one client connection.

    `on_gone` is called when the client closes the connection before its answer is complete, `on_writable` when
    what was written has gone out after a `write` that returned False.
    """

    on_gone: Callable[[], None] | None = None
    on_writable: Callable[[], None] | None = None
    _head: bytes = b""
    _until_close: bool = False
    """Neither chunks nor a length: HTTP/1.0 clients read until the connection closes."""

    def lose(self) -> None:
        """The client's connection is gone."""
        if not self.response_complete:
            self.disconnected = True
            self.message_event.set()
            if self.on_gone is not None:
                self.on_gone()

    def take_body(self) -> bytes | None:
        """The whole body where it has arrived, as it mostly has with the headers; else None: `receive` it."""
        if self.more_body or self.disconnected:
            return None
        body, self.body = bytes(self.body), bytearray()
        self.message_event.clear()
        return body

    async def send(self, message: Any) -> None:
        """ASGI's send. Waits for a slow client only with pieces of a body."""
        if not self.response_started:
            self._start(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        body = message.get("body", b"")
        if message.get("more_body", False):
            self.write(body)
        else:
            self.finish(body)

    def write(self, data: bytes) -> bool:
        """Send a piece of the body; False asks for no more until `on_writable`."""
        if self.disconnected or not data:
            return True
        if self.chunked_encoding:
            data = b"%b%x\r\n%b\r\n" % (self._head, len(data), data)
        else:
            self._count(data)
            data = self._head + data
        self._head = b""
        self.transport.write(data)
        return not self.flow.write_paused

    def finish(self, data: bytes) -> None:
        """Send the last piece of the body, which may be empty."""
        if self.disconnected:
            return
        if self.response_complete:
            raise RuntimeError("the response is complete")
        if self.scope["method"] == "HEAD":
            last = self._head
        elif self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            last = b"".join((self._head, chunk, _LAST_CHUNK))
        else:
            self._count(data)
            if self.expected_content_length:
                raise RuntimeError("the body is shorter than its content-length says")
            last = self._head + data
        self._head = b""
        if last:
            self.transport.write(last)
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _start(self, message: Any) -> None:
        """Render the head; it is kept until there is something of the body."""
        self.response_started = True
        self.waiting_for_100_continue = False
        status, headers = message["status"], message["headers"]
        self.chunked_encoding = status not in (204, 304) and self.scope["http_version"] != "1.0"
        self._until_close = not self.chunked_encoding
        closes = False
        for name, value in headers:
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = self._until_close = False
            elif name == b"connection":
                closes = value.lower() == b"close"
        # A body that nobody read would be taken for the next request, or keep the connection for ever.
        self.keep_alive = self.keep_alive and not closes and not self.more_body
        if _CONTROL.search(b"".join([value for _, value in headers])):
            raise RuntimeError("a response header has a control character in it")
        lines = [b"%b: %b\r\n" % pair for pair in self.default_headers]
        lines += [b"%b: %b\r\n" % pair for pair in headers]
        if self.chunked_encoding:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        self._head = b"".join((STATUS_LINE[status], *lines, b"\r\n"))

    def _count(self, data: bytes) -> None:
        if self._until_close or self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            return
        self.expected_content_length -= len(data)
        if self.expected_content_length < 0:
            raise RuntimeError("the body is longer than its content-length says")
