"""What a client is told that broke off its talk with us, in its place behind the requests before it."""

from collections.abc import Callable

from gateway.core.errors import GatewayError


class RefusedRequest:
    """A connection's last `QueuedRequest`. `tell` answers with an error and closes the connection."""

    begun = False
    started = False
    keep_alive = False

    def __init__(self, error: GatewayError, tell: Callable[[GatewayError], None]) -> None:
        self._error = error
        self._tell: Callable[[GatewayError], None] | None = tell

    def begin(self) -> None:
        self.begun = True
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(self._error)

    def lose(self) -> None:
        self._tell = None

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
