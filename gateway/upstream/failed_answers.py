"""The errors of failed answers: to the gateway, and to the client where no other node answers."""

import time
from pathlib import PurePath
from typing import Final

from gateway.core.dialects.answers import find_error_message, find_error_status
from gateway.core.errors import (
    ConnectFailed,
    DeadlineExceeded,
    GatewayError,
    NodeAnswer,
    NodeBusy,
    NodeFailed,
    RequestRefused,
    ShuttingDown,
    UnreadableAnswer,
    UpstreamError,
)
from gateway.core.http.sse import event_data, split_events
from gateway.core.telemetry.request_stats import RequestStats
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.request_heads import STREAM_HEADERS, passed_headers, retry_after
from gateway.upstream.response_parser import ResponseHead

FAILED_STATUSES: Final = (500, 502, 503, 504)
"""The statuses of a node that failed by itself: another may succeed."""


NOT_THE_CLIENTS = (401, 403, 407, 408, 429)
"""The statuses of a node that refused the gateway, or had no time: no client can do anything about it."""

UNREACHABLE_RETRY_SECONDS: Final = 2.0
"""After which a client whose nodes took no connection may retry: probes find one that is back within a second."""


def unreachable(tried: int, others: bool) -> ConnectFailed:
    """The client's error where `tried` nodes were tried and the last one took no connection; `others`: some failed in
    another way. Their addresses are the operator's to know."""
    wait = UNREACHABLE_RETRY_SECONDS
    if others:
        return ConnectFailed(f"The node failed, and no other could be reached; retry in {wait:g} s.", retry_after=wait)
    return ConnectFailed(f"No node could be reached ({tried} tried); retry in {wait:g} s.", retry_after=wait)


def deadline_exceeded() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The deadline given in x-request-timeout has passed; the work was stopped.",
        param="x-request-timeout",
        code="deadline_exceeded",
    )


def pass_on(answer: NodeAnswer, request: DownstreamRequest, stats: RequestStats) -> None:
    """Send the client a failed answer as it came from its node."""
    stats.answered = True
    stats.first_byte = time.perf_counter()
    length = [] if answer.stream else [(b"content-length", b"%d" % len(answer.body))]
    request.start(answer.status, answer.headers + length, stream=answer.stream)
    request.finish(answer.body)


def node_error(
    status: int,
    body: bytes,
    head: ResponseHead | None = None,
    answer: NodeAnswer | None = None,
    clients: bool = True,
) -> UpstreamError:
    """The error of a node's error answer. `clients`: it was the client's own request, and none that goes on with it."""
    message = find_error_message(body) or f"The node answered with status {status}."
    if status == 503:
        return NodeBusy(message, retry_after=None if head is None else retry_after(head), answer=answer)
    if status in FAILED_STATUSES:
        return NodeFailed(message, answer=answer)
    if clients and 400 <= status < 500 and status not in NOT_THE_CLIENTS:
        return RequestRefused(message)
    return UpstreamError(message, code="upstream_error")


def check_beginning(events: bytes, prelude: bytes, head: ResponseHead | None) -> None:
    """Raises the error of a stream that begins with `events`, by which its node reports its own failure; nothing where
    another node would answer alike. `prelude`: the events before. `head`: the answer's, None where the client has
    one."""
    errors = [found for event in split_events(events) if b'"error"' in (found := event_data(event))]
    data = errors[-1] if errors else b""
    status = find_error_status(data)
    if status not in FAILED_STATUSES:
        return
    answer = None
    if head is not None:
        answer = NodeAnswer(200, passed_headers(head) + STREAM_HEADERS, prelude + events, stream=True)
    raise node_error(status, data, None, answer)


def unreadable(error: Exception) -> GatewayError:
    """The error of an answer that could not be read because of `error`; itself where it is one for clients."""
    if isinstance(error, GatewayError):
        return error
    trace, place = error.__traceback__, ""
    while trace is not None:
        place = f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return UnreadableAnswer("The node's answer cannot be parsed.", cause=type(error).__name__, place=place)


def shutting_down() -> GatewayError:
    """The error of a request that is cut off by the shutdown."""
    return ShuttingDown("The gateway is shutting down; retry in 1 s.", code="shutting_down", retry_after=1.0)
