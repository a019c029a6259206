"""The entries of a connection's queue: requests in the order in which they came, and the refusal behind the last."""

from collections.abc import Callable
from typing import Protocol

from gateway.core.errors import GatewayError


class QueuedRequest(Protocol):
    """One entry: a `ClientRequest`, an `AsgiCycle` or a `RefusedRequest`. The first one is answered."""

    begun: bool
    keep_alive: bool

    @property
    def started(self) -> bool:
        """Whether its answer has begun."""

    def begin(self) -> None:
        """All entries before it have been answered."""

    def proceed(self) -> None:
        """More of its body may have come."""

    def feed(self, piece: bytes) -> None:
        """A piece of its body."""

    def end_of_body(self) -> None: ...

    def on_gone(self) -> None:
        """The client closed the connection before the answer was complete."""

    def on_full(self) -> None:
        """More was written than the client has room for. Called within the write."""

    def on_writable(self) -> None:
        """The client has room again, after `on_full`."""


class RefusedRequest:
    """The last entry: `answer` sends the error and closes the connection."""

    begun = False
    started = False
    keep_alive = False

    def __init__(self, error: GatewayError, answer: Callable[[GatewayError], None]) -> None:
        self._error = error
        self._answer: Callable[[GatewayError], None] | None = answer

    def begin(self) -> None:
        self.begun = True
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(self._error)

    def on_gone(self) -> None:
        self._answer = None

    def proceed(self) -> None:
        """It waits for nothing."""

    def feed(self, piece: bytes) -> None:
        """Nothing is read any more."""

    def end_of_body(self) -> None:
        """Nothing is read any more."""

    def on_full(self) -> None:
        """It is short."""

    def on_writable(self) -> None:
        """It is short."""
