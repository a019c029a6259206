"""A request that FastAPI answers: uvicorn's own cycle, taking its turn among those of the data plane.

No route of FastAPI's takes more than a short document, so its body is bounded in bytes and seconds here, whatever the
application reads of it; beyond that the connection is refused.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.api.body import RequestBounds
from gateway.api.request_head import RequestHead, brings_body
from gateway.core.errors import BodyTooLarge, GatewayError, RequestTooSlow
from gateway.core.http.content_coding import HEADER, coding_of, unsupported

MAX_BODY = 1024 * 1024
"""Bytes of a body for FastAPI: a tenant's or a registration's document is a few kilobytes."""


class AsgiCycle(RequestResponseCycle):
    """One request on one client connection: a `QueuedRequest` of its protocol. `start` runs the application with a
    cycle."""

    def __init__(
        self,
        start: Any,
        refuse: Callable[[GatewayError], None],
        leave: Callable[[], None],
        body_timeout: float,
        **parts: Any,
    ) -> None:
        """`refuse` ends the connection with an answer in this one's place, `leave` ends it behind this one's."""
        super().__init__(**parts)
        self.begun = False
        self._start = start
        self._refuse = refuse
        self._leave = leave
        self._body_timeout = body_timeout
        self._size = 0
        self._late: asyncio.TimerHandle | None = None

    @property
    def started(self) -> bool:
        return self.response_started

    def begin(self) -> None:
        self.begun = True
        if self.more_body:
            self._late = asyncio.get_running_loop().call_later(self._body_timeout, self._body_late)
        self._start(self)

    def proceed(self) -> None:
        """The application has been told by its event."""

    def feed(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_BODY:
            raise _too_large()
        if self.response_complete:
            return
        self.body += piece
        if len(self.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.message_event.set()

    def end_of_body(self) -> None:
        self._stop_timer()
        if not self.response_complete:
            self.more_body = False
            self.message_event.set()

    def lose(self) -> None:
        self._stop_timer()
        self.disconnected = True
        self.message_event.set()

    def _stop_timer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _body_late(self) -> None:
        self._late = None
        self._refuse(RequestTooSlow(f"The body did not arrive within {self._body_timeout:g} s."))

    def on_full(self) -> None:
        """uvicorn's flow control has told the application."""

    def on_writable(self) -> None:
        """uvicorn's flow control has told the application."""

    async def send(self, message: Any) -> None:
        """A body that nobody read would be taken for the next request, or keep the connection for ever."""
        if not self.response_started and self.more_body:
            self.keep_alive = False
        early = self.response_started and self.more_body and not message.get("more_body", False)
        if early:
            self.keep_alive = True  # else it would be closed at once, and bytes that are not read reset it
        await super().send(message)
        if early and self.response_complete:
            self._leave()


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {MAX_BODY} bytes: no route here takes so much.")


def refuse_coded(head: RequestHead) -> None:
    """Raises `UnsupportedEncoding` where a body is compressed: the documents of admin routes are short."""
    coding = coding_of(head.fields) if HEADER in head.headers and brings_body(head) else None
    if coding is not None:
        raise unsupported(coding, taken=())


def _run(protocol: HttpToolsProtocol, cycle: RequestResponseCycle, app: Any) -> None:
    """As uvicorn does, whose own method for it is private and younger than the versions that are served with."""
    task = protocol.loop.create_task(cycle.run_asgi(app))
    task.add_done_callback(protocol.tasks.discard)
    protocol.tasks.add(task)


def asgi_turn(
    protocol: HttpToolsProtocol,
    head: RequestHead,
    bounds: RequestBounds,
    answered: Callable[[], None],
    refuse: Callable[[GatewayError], None],
    leave: Callable[[], None],
) -> AsgiCycle:
    """What uvicorn does with complete headers, with our kind of cycle and without its options.

    Raises BodyTooLarge where the head declares a body that is. HEAD is answered as GET, without the body.
    """
    declared = head.headers.get(b"content-length", b"0").strip()
    if b"transfer-encoding" not in head.headers and int(declared) > MAX_BODY:
        raise _too_large()
    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.0" if head.old else "1.1",
        "server": protocol.server,
        "client": protocol.client,
        "scheme": protocol.scheme,
        "root_path": protocol.root_path,
        "headers": head.fields,
        "state": protocol.app_state.copy(),
        "method": head.method,
        "path": head.path,
        "raw_path": head.raw_path,
        "query_string": head.query,
    }
    app: Any = _as_get(protocol.app) if head.method == "HEAD" else protocol.app
    return AsgiCycle(
        start=lambda cycle: _run(protocol, cycle, app),
        refuse=refuse,
        leave=leave,
        body_timeout=bounds.body_timeout,
        scope=scope,
        transport=protocol.transport,
        flow=protocol.flow,
        logger=protocol.logger,
        access_logger=protocol.access_logger,
        access_log=False,
        default_headers=protocol.server_state.default_headers,
        message_event=asyncio.Event(),
        expect_100_continue=head.expects,
        keep_alive=head.keep_alive,
        on_response=answered,
    )


def _as_get(app: Any) -> Any:
    """`app` for a HEAD: it makes the answer to a GET, whose body uvicorn's cycle leaves out."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "method": "GET"}, receive, send)

    return answer
