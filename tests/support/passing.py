"""Passes an event as the connection to a node does: in the HTTP chunk that it came in."""

from gateway.core.dialects.stream_filter import StreamFilter
from tests.support.nodes import chunk


def pass_event(stream_filter: StreamFilter, event: bytes) -> bytes | None:
    """The event that the client is sent for `event`, whose chunk is checked; None where it is to be fed."""
    passed = stream_filter.pass_chunk(chunk(event), event)
    if passed is None:
        return None
    data = passed[passed.index(b"\r\n") + 2 : -2]
    assert passed == chunk(data)
    return data
