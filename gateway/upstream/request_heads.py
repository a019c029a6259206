"""The head of a node's answer: which heads are accepted, and which of their headers reach the client.

    status                                      the client gets
    200                                         the answer
    400 to 599                                  the error as the node sent it, or another node's answer
    3xx                                         502: a redirect is not followed, and its `location` is not passed on
    every other (1xx without end, 204, 600)     502 that names the status

Only two headers pass: the content type as it is, and `retry-after` as a number of seconds within `LONGEST_WAIT`. All
others (`set-cookie`, `location`, `server`, limits of the node's own, headers of its connection) stay here.
"""

import math
import re
from typing import Final

from gateway.core.errors import BadUpstreamResponse
from gateway.upstream.downstream import Headers
from gateway.upstream.response_parser import ResponseHead

STREAM_HEADERS: Headers = [(b"x-accel-buffering", b"no"), (b"cache-control", b"no-cache")]
STREAM_TYPE: Final = b"text/event-stream"

LONGEST_WAIT = 60.0
"""The most seconds of a node's `retry-after`: after that it is asked again."""

_PRINTABLE: Final = re.compile(rb"[ -~]{0,256}")
_SECONDS = re.compile(rb"0*([0-9]{1,15})(?:\.[0-9]{0,15})?|0*([0-9]{16,})(?:\.[0-9]*)?")


def check_head(head: ResponseHead) -> None:
    """Raises `BadUpstreamResponse` for an answer that no client is sent."""
    if head.checked:  # one that is known again (`node_head_cache`)
        return
    status = head.status
    if status != 200 and not 400 <= status <= 599:
        if 300 <= status <= 399:
            raise BadUpstreamResponse(f"The node answered with a redirect (status {status}): it is not followed.")
        raise BadUpstreamResponse(f"The node answered with status {status}, which is neither a success nor an error.")
    if head.coding:
        name, value = head.coding
        coding = value[:40].decode() if _PRINTABLE.fullmatch(value[:40]) else "unknown"
        raise BadUpstreamResponse(
            f"The node sent a compressed answer ({name.decode()}: {coding}), although no compression was requested."
        )
    if not _PRINTABLE.fullmatch(head.content_type):
        raise BadUpstreamResponse("The node sent an invalid content-type.")
    head.checked = True


def is_stream(head: ResponseHead) -> bool:
    return head.content_type[: len(STREAM_TYPE)].lower() == STREAM_TYPE


def passed_headers(head: ResponseHead) -> Headers:
    """The headers of the client's answer, for a head that was checked."""
    headers = [(b"content-type", head.content_type)] if head.content_type else []
    if head.status >= 400 and (wait := retry_after(head)) is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(wait))))
    return headers


def retry_after(head: ResponseHead) -> float | None:
    """The seconds of `retry-after`, at most `LONGEST_WAIT`; None for a date or anything else that is not a number."""
    for name, value in head.headers:
        if name == b"retry-after-ms":
            return None if (ms := _number(value)) is None else min(ms / 1000, LONGEST_WAIT)
    for name, value in head.headers:
        if name == b"retry-after":
            return None if (seconds := _number(value)) is None else min(seconds, LONGEST_WAIT)
    return None


def _number(value: bytes) -> float | None:
    """A number of any length; one that is too long to be read is very large."""
    match = _SECONDS.fullmatch(value)
    if match is None:
        return None
    return float(value) if match[1] else math.inf
