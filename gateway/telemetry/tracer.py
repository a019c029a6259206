"""Decides which requests are recorded: those whose client records them, and a share of all others.

OpenTelemetry's library is not known here: `export` gets the requests that have ended.
"""

import random
from collections.abc import Callable, Mapping

from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.telemetry.request_trace import RequestTrace
from gateway.core.telemetry.trace_context import read_context, trace_lines, unrecorded_lines

_LOW = (1 << 64) - 1
"""Of a trace's id: the bits that decide on its share, as OpenTelemetry's samplers use them."""

_NOT_ZERO = 1 << 191 | 1
"""One bit of a trace's id and one of a span's: neither may be zero."""


class Tracer:
    """`begin` is called for every request: it costs little where that is not recorded."""

    def __init__(
        self, ratio: float, follow: bool, content: int, export: Callable[[RequestStats, RequestTrace], None]
    ) -> None:
        """`ratio` of the traces that begin here is recorded, 0 to 1. `follow`: a client's decision holds; else its
        trace is recorded as if it began here. `content`: bytes of texts that are recorded, 0 for none."""
        self._bound = round(ratio * (1 << 64))
        self._follow = follow
        self._content = content
        self._export = export

    def begin(self, stats: RequestStats, headers: Mapping[bytes, bytes], began: float) -> None:
        """Give a request that has come its `trace`, or the `trace_lines` that tell its node not to record it."""
        context = read_context(headers) if b"traceparent" in headers else None
        if context is None:
            ids = random.getrandbits(192) | _NOT_ZERO
            trace = ids >> 64
            if trace & _LOW >= self._bound:
                stats.trace_lines = unrecorded_lines(ids)
                return
            parent, state = None, b""
        else:
            trace, parent, state = context.trace, context.parent, context.state
            if not (context.sampled if self._follow else trace & _LOW < self._bound):
                stats.trace_lines = trace_lines(trace, context.parent, False, state)
                return
        stats.trace = made = RequestTrace(trace, new_span(), parent, state, began, self._content)
        stats.trace_id = made.trace_id

    def request_ended(self, stats: RequestStats) -> None:
        """Hand a request on that was recorded."""
        trace = stats.trace
        if trace is not None:
            stats.trace = None  # the other observers keep `stats` for a while
            self._export(stats, trace)


def new_span() -> int:
    """The id of a span: 64 random bits, not all zero."""
    return random.getrandbits(64) or 1
