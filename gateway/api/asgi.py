"""A request that FastAPI answers: uvicorn's own cycle, taking its turn among those of the data plane."""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.api.heads import Head


class AsgiCycle(RequestResponseCycle):
    """One request on one client connection: a `Turn` of its protocol. `start` runs the application with a cycle."""

    def __init__(self, start: Any, **parts: Any) -> None:
        super().__init__(**parts)
        self.begun = False
        self._start = start

    @property
    def started(self) -> bool:
        return self.response_started

    def begin(self) -> None:
        self.begun = True
        self._start(self)

    def proceed(self) -> None:
        """The application has been told by its event."""

    def feed(self, piece: bytes) -> None:
        if self.response_complete:
            return
        self.body += piece
        if len(self.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.message_event.set()

    def end_of_body(self) -> None:
        if not self.response_complete:
            self.more_body = False
            self.message_event.set()

    def lose(self) -> None:
        self.disconnected = True
        self.message_event.set()

    def on_full(self) -> None:
        """uvicorn's flow control has told the application."""

    def on_writable(self) -> None:
        """uvicorn's flow control has told the application."""

    async def send(self, message: Any) -> None:
        """A body that nobody read would be taken for the next request, or keep the connection for ever."""
        if not self.response_started and self.more_body:
            self.keep_alive = False
        await super().send(message)


def asgi_turn(protocol: HttpToolsProtocol, head: Head, answered: Callable[[], None]) -> AsgiCycle:
    """What uvicorn does with complete headers, with our kind of cycle and without its options."""
    scope: Any = {
        "type": "http",
        "asgi": {"version": protocol.asgi_version, "spec_version": "2.3"},
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
    return AsgiCycle(
        start=lambda cycle: protocol._start_asgi_task(cycle, protocol.app),
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
