"""What a node's failed answer is to the gateway, and to the client where nobody else answers."""

import time
from pathlib import PurePath

from gateway.core.dialects.answers import find_error_message
from gateway.core.errors import (
    DeadlineExceeded,
    GatewayError,
    NodeAnswer,
    NodeBusy,
    NodeFailed,
    UnreadableAnswer,
    UpstreamError,
)
from gateway.core.telemetry.request_stats import RequestStats
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.request_heads import retry_after
from gateway.upstream.response_parser import ResponseHead

FAILED_STATUSES = (500, 502, 503, 504)
"""What a node says that could not do its work, though another might."""


def deadline_exceeded() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The deadline given in x-request-timeout has passed; the work was stopped.",
        param="x-request-timeout",
        code="deadline_exceeded",
    )


def pass_on(answer: NodeAnswer, call: DownstreamRequest, stats: RequestStats) -> None:
    """Give the client a failed answer as the node told it."""
    stats.answered = True
    stats.first_byte = time.perf_counter()
    length = [] if answer.stream else [(b"content-length", b"%d" % len(answer.body))]
    call.start(answer.status, answer.headers + length, stream=answer.stream)
    call.finish(answer.body)


def node_error(
    status: int, body: bytes, head: ResponseHead | None = None, answer: NodeAnswer | None = None
) -> UpstreamError:
    """What a node's error answer is to the gateway; a refusal of the request is nobody else's to answer."""
    message = find_error_message(body) or f"The node answered with status {status}."
    if status == 503:
        return NodeBusy(message, retry_after=None if head is None else retry_after(head), answer=answer)
    if status in FAILED_STATUSES:
        return NodeFailed(message, answer=answer)
    return UpstreamError(message, code="upstream_error")


def unreadable(error: Exception) -> GatewayError:
    """What it is that reading an answer raised `error`: itself, where it is one that clients are told."""
    if isinstance(error, GatewayError):
        return error
    trace, place = error.__traceback__, ""
    while trace is not None:
        place = f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return UnreadableAnswer("The node's answer cannot be parsed.", cause=type(error).__name__, place=place)
