"""A request that the ASGI application answers, in its place among those of the data plane.

No route of the application reads more than a short document. So a body is bounded here in bytes and seconds, whatever
the application reads of it; beyond that the connection is refused.

    the body        the answer                  next
    complete        complete                    the connection's next request
    still to come   complete                    the connection is closed, after lingering
    still to come   none, and it is late        the connection is refused (`RequestTooSlow`, `BodyTooLarge`)
    any             the application failed      500, or the connection is closed where the answer has begun
    any             the client is gone          `receive` returns `http.disconnect`, `send` drops what it gets
    any             asked for by HEAD           the same behind its head, which is all of it: a stream would not end
"""

import asyncio
from typing import Any

import structlog

from gateway.api.body import RequestBounds
from gateway.api.flow_control import HIGH_WATER_LIMIT
from gateway.api.request_head import RequestHead, brings_body
from gateway.api.response_head import LAST_CHUNK, STATUS_LINE, check_names, check_values, header_lines
from gateway.api.server_connection import ServerConnection
from gateway.core.errors import BodyTooLarge, GatewayError, InternalError, RequestTooSlow
from gateway.core.http.content_coding import HEADER, coding_of, unsupported

log = structlog.get_logger("fleetgate.connection")

MAX_BODY = 1024 * 1024
"""Bytes of a body for the application: a tenant's or a registration's document is a few kilobytes."""

_FAILED = "Internal error of the gateway: see its log."


class ClientStalled(Exception):
    """Raised by the application where its client does not read: the connection is aborted."""


class AsgiCycle:
    """One request: a `QueuedRequest` of its connection, and `receive` and `send` of its application."""

    def __init__(self, connection: ServerConnection, head: RequestHead, bounds: RequestBounds) -> None:
        """Raises BodyTooLarge where the head declares a body that is."""
        declared = head.headers.get(b"content-length", b"0").strip()
        if b"transfer-encoding" not in head.headers and int(declared) > MAX_BODY:
            raise _too_large()
        self.begun = self.started = self.response_complete = self.gone = False
        self.keep_alive = head.keep_alive
        self._connection = connection
        self._transport = connection.transport
        self._flow = connection.flow
        self._head = head
        self._is_head = head.method == "HEAD"
        self._body_timeout = bounds.body_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._body = bytearray()
        self._size = 0
        self._body_complete = False
        self._expects = head.expects
        self._received = asyncio.Event()
        """Set when there is something for `receive`."""
        self._writable = asyncio.Event()
        self._chunked = False
        self._remaining = 0
        """Bytes of the answer that its content-length still promises."""

    # Its place in the connection's queue

    def begin(self) -> None:
        self.begun = True
        connection = self._connection
        if not self._body_complete:
            self._timer = connection.loop.call_later(self._body_timeout, self._on_body_timeout)
        task = connection.loop.create_task(self._run())
        task.add_done_callback(connection.tasks.discard)
        connection.tasks.add(task)

    def proceed(self) -> None:
        """The application waits in `receive`."""

    def feed(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_BODY:
            raise _too_large()
        if self.response_complete:
            return
        self._body += piece
        if len(self._body) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        self._received.set()

    def end_of_body(self) -> None:
        self._stop_timer()
        if not self.response_complete:
            self._body_complete = True
            self._received.set()

    def on_gone(self) -> None:
        self._stop_timer()
        self.gone = True
        self._received.set()
        self._writable.set()

    def on_full(self) -> None:
        self._writable.clear()

    def on_writable(self) -> None:
        self._writable.set()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_body_timeout(self) -> None:
        self._timer = None
        self._connection.refuse(RequestTooSlow(f"The body did not arrive within {self._body_timeout:g} s."))

    # The application

    async def _run(self) -> None:
        try:
            await self._connection.app(self._scope(), self.receive, self.send)
            if not self.response_complete and not self.gone:
                raise RuntimeError("the application returned before its response was complete")
        except ClientStalled:
            self._transport.abort()
        except BaseException as error:  # also CancelledError: the client gets its answer
            log.error("asgi_failed", path=self._head.path, exc_info=error)
            if not self.started:
                await self._answer_failure()
            elif not self.response_complete:
                self._transport.close()

    async def _answer_failure(self) -> None:
        status, headers, body = self._connection.error_answer(InternalError(_FAILED))
        headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def _scope(self) -> dict[str, Any]:
        """HEAD is answered as GET, and its body left out here."""
        connection, head = self._connection, self._head
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.0" if head.old else "1.1",
            "server": connection.server,
            "client": connection.client,
            "scheme": connection.scheme,
            "root_path": connection.root_path,
            "headers": head.fields,
            "state": connection.app_state.copy(),
            "method": "GET" if self._is_head else head.method,
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
        }

    async def receive(self) -> dict[str, Any]:
        if self._expects and not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._expects = False
        if not self.gone and not self.response_complete:
            self._flow.resume_reading()
            await self._received.wait()
            self._received.clear()
        if self.gone or self.response_complete:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": not self._body_complete}

    async def send(self, message: Any) -> None:
        if self._flow.write_paused and not self.gone:
            await self._writable.wait()
        if self.gone or (self._is_head and self.response_complete):
            return
        expected = "http.response.body" if self.started else "http.response.start"
        if self.response_complete or message["type"] != expected:
            raise RuntimeError(f"unexpected ASGI message {message['type']!r}")
        if self.started:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            self._send_head(message["status"], [(name.lower(), value) for name, value in message.get("headers", ())])

    def _send_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        headers = [*self._connection.server_state.default_headers, *headers]
        check_names(headers)
        check_values(headers)
        chunked: bool | None = None
        remaining, says_close = 0, False
        for name, value in headers:
            if name == b"content-length" and chunked is None:
                chunked, remaining = False, int(value)
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                chunked, remaining = True, 0
            elif name == b"connection":
                says_close = says_close or b"close" in [token.strip() for token in value.lower().split(b",")]
        # An unread body would be parsed as the next request.
        self.keep_alive = self.keep_alive and not says_close and self._body_complete
        more = b"" if self.keep_alive or says_close else b"connection: close\r\n"
        if chunked is None and not self._is_head and status not in (204, 304):
            chunked = True
            more += b"transfer-encoding: chunked\r\n"
        self.started, self._expects = True, False
        self._chunked, self._remaining = bool(chunked), remaining
        self._transport.write(b"".join((STATUS_LINE[status], header_lines(headers), more, b"\r\n")))
        if self._is_head:
            self._finish()

    def _send_body(self, body: bytes, more: bool) -> None:
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self._transport.write(chunk if more else chunk + LAST_CHUNK)
        else:
            self._remaining -= len(body)
            if self._remaining < 0:
                raise RuntimeError("the body is longer than its content-length says")
            self._transport.write(body)
        if not more:
            if self._remaining:
                raise RuntimeError("the body is shorter than its content-length says")
            self._finish()

    def _finish(self) -> None:
        self.response_complete = True
        self._stop_timer()
        self._received.set()
        early = not self._body_complete
        if not early and not self.keep_alive:
            self._transport.close()
        self._connection.answered()
        if early:
            self._connection.close_after_answer()


def _too_large() -> GatewayError:
    return BodyTooLarge(f"The body is larger than {MAX_BODY} bytes, the most that this route accepts.")


def refuse_coded(head: RequestHead) -> None:
    """Raises `UnsupportedEncoding` where a body is compressed: the documents of admin routes are short."""
    coding = coding_of(head.fields) if HEADER in head.headers and brings_body(head) else None
    if coding is not None:
        raise unsupported(coding, taken=())
