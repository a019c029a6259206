"""One request of an attempt to answer: the first, one that a stream filter asks for, or one that resumes the answer."""

from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.errors import StaleConnection, UpstreamError
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.node_request_kinds import NodeRequest
from gateway.upstream.resumption import AnswerResumption


class AttemptPart:
    """One request of an attempt; `carried` is the filter of the answer that it continues, None for the first.
    `resumption`: the answer broke off, and nothing has come of it since."""

    __slots__ = ("body", "carried", "method", "node_request", "path", "resumption", "stream_filter")

    def __init__(
        self,
        node_request: NodeRequest,
        method: str,
        path: str,
        body: bytes,
        carried: StreamFilter | None = None,
        resumption: AnswerResumption | None = None,
    ) -> None:
        self.node_request = node_request
        self.method = method
        self.path = path
        self.body = body
        self.carried = carried
        self.resumption = resumption
        self.stream_filter: StreamFilter | None = None
        """The filter of its answer, once that has begun."""

    def checkpoint(self, stats: RequestStats) -> Checkpoint | None:
        """What its answer goes on from elsewhere; None where it cannot, or where nothing is lost by asking anew."""
        found = self.stream_filter or self.carried
        if not isinstance(found, Checkpoint) or not found.has_ids:
            return None
        return found if found.begun or self.carried is not None or stats.first_byte is not None else None

    def may_be_stale(self, error: UpstreamError, fresh: bool) -> bool:
        """Whether it met a kept connection that was closed, and is to be sent on a fresh one. First parts are the
        failover's."""
        return self.carried is not None and not fresh and isinstance(error, StaleConnection)

    @property
    def comments(self) -> bool:
        """Whether its client gets a stream, and so comments."""
        return self.node_request.ask.stream and not self.node_request.assembles
