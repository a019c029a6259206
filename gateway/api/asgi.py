"""A request that FastAPI answers: uvicorn's own cycle, taking its turn among those of the data plane."""

from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


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

    def on_writable(self) -> None:
        """uvicorn's flow control has told the application."""

    async def send(self, message: Any) -> None:
        """A body that nobody read would be taken for the next request, or keep the connection for ever."""
        if not self.response_started and self.more_body:
            self.keep_alive = False
        await super().send(message)
