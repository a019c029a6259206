"""Which headers of a node's answer reach the client."""

from gateway.relay.downstream import Headers
from gateway.relay.http1 import ResponseHead

_OWN_HEADERS = frozenset(
    {
        b"connection",
        b"content-length",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"request-id",
        b"server",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
    }
)
"""Headers of a node's answer that belong to its connection or that the gateway sets itself."""

STREAM_HEADERS: Headers = [(b"x-accel-buffering", b"no"), (b"cache-control", b"no-cache")]
STREAM_TYPE = b"text/event-stream"


def passed_headers(head: ResponseHead) -> Headers:
    return [item for item in head.headers if item[0] not in _OWN_HEADERS]


def retry_after(head: ResponseHead) -> float | None:
    """The seconds that a node asks to be left alone for; a date is not read."""
    value = next((value for name, value in head.headers if name == b"retry-after"), b"")
    return float(value) if value.isdigit() else None
