"""What a connection calls back with an answer."""

from typing import Protocol

from gateway.core.errors import UpstreamError
from gateway.upstream.response_parser import ResponseHead


class Receiver(Protocol):
    """Receives an answer. Exactly one of `on_end`, `on_error` and `on_broken` ends it, unless it was aborted."""

    def on_head(self, head: ResponseHead) -> None: ...
    def on_chunk(self, chunk: bytes, data: bytes) -> None:
        """A part of the body that came as one chunk: the chunk as it came, and its data."""

    def on_data(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_error(self, error: UpstreamError) -> None: ...
    def on_broken(self, error: Exception) -> None:
        """One of the other callbacks raised `error`; the node's connection is closed, or free again."""


def end(receiver: Receiver, error: UpstreamError | None = None) -> None:
    """Call back with the end. The connection may have another receiver by then, whom an exception must not reach."""
    try:
        if error is None:
            receiver.on_end()
        else:
            receiver.on_error(error)
    except Exception as failure:  # noqa: BLE001 - see `UpstreamConnection.data_received`
        receiver.on_broken(failure)
