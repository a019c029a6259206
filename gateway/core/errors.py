"""The one error tree. Each class says what went wrong; how it looks over HTTP is known to `api.errors` alone.

GatewayError
├── InvalidRequest            the caller's body, header or path cannot be served as it is
│   ├── BodyTooLarge
│   ├── HeadersTooLarge
│   ├── UnsupportedEncoding   a body that is compressed in a way that is not taken
│   ├── RequestTooSlow        the body or the headers trickled in
│   ├── UnknownPath
│   ├── MethodNotAllowed
│   └── NotFound              a model, a response: named, but not there (or not the caller's)
│       └── ModelNotFound
├── CrossSiteRequest          from a web page that may not call, where no key is asked
├── TenantBlocked             its tenant, or its key, is blocked by an administrator
├── Unauthenticated           no key, or one that nobody has
├── RateLimited               too much of something that the caller may do
│   ├── TooManyWrongKeys      from one address in a minute
│   └── LimitExceeded         a limit of the caller's has no room now
│       ├── QuotaExceeded     nor for the rest of the day or month
│       └── LimitTooSmall     nor ever: the request is larger than the limit
├── Overloaded                nothing is wrong with the request: come back later
│   ├── NoNodeReady
│   ├── FleetFull             all nodes have as much as they can take
│   ├── OutOfResources        this machine has no file, port or memory left for a connection to a node
│   ├── KeysUnknown           who the caller is cannot be looked up now
│   ├── TooManyConnections
│   ├── MemoryFull            what the process may hold of requests and answers is used up
│   ├── BodyUnread            the process that reads bodies of many values ended
│   ├── LimitsUnknown         limits cannot be checked, and nothing is served unchecked
│   ├── ResponsesUnavailable  what the gateway keeps of responses cannot be read now
│   └── ShuttingDown
├── UpstreamError             the node's fault
│   ├── ConnectFailed         nothing was sent: another node may be tried
│   ├── StaleConnection       a kept connection was closed before a byte came back
│   ├── NodeBusy              503: its queue is full
│   ├── NodeFailed            500, 502, 504: it did not do the work
│   ├── RequestRefused        it refuses the request itself, behind the head of a stream: its status is the node's
│   ├── NodeLeaving           it is taken away: what has not ended by then is ended
│   ├── UpstreamCut           the answer broke off
│   ├── BadUpstreamResponse   what came back is not HTTP, or not an answer of its dialect
│   │   └── UnreadableAnswer  reading it raised
│   ├── StreamLost            the answer broke off, and cannot go on
│   ├── AnswerTooLarge        one event, or an answer that has to be held, beyond its bound
│   ├── NoSummary             a compaction in which the model wrote none: no room was left for it
│   └── UpstreamTimeout       connect, first byte or silence in mid-answer
├── DeadlineExceeded          the caller's own `x-request-timeout`
├── EndedByOperator           an administrator ended it while it was under way
├── ClientGone                nobody is left to answer
└── InternalError             ours
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(eq=False)
class GatewayError(Exception):
    """Base of everything that a request can end in.

    `message` is for the caller: it names the field and the remedy, never an inner detail.
    `param` is the body field or header at fault; `code` a slug that programs can test.
    `retry_after` is in seconds; None says nothing about coming back.
    """

    default_code: ClassVar[str] = "internal_error"

    message: str
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    @property
    def slug(self) -> str:
        """What logs, metrics and clients' programs call it."""
        return self.code or self.default_code


class InvalidRequest(GatewayError):
    default_code = "invalid_request"


class BodyTooLarge(InvalidRequest):
    default_code = "body_too_large"


class HeadersTooLarge(InvalidRequest):
    default_code = "headers_too_large"


class UnsupportedEncoding(InvalidRequest):
    default_code = "unsupported_content_encoding"


class RequestTooSlow(InvalidRequest):
    default_code = "request_too_slow"


class UnknownPath(InvalidRequest):
    default_code = "unknown_path"


class MethodNotAllowed(InvalidRequest):
    default_code = "method_not_allowed"


class NotFound(InvalidRequest):
    default_code = "not_found"


class ModelNotFound(NotFound):
    default_code = "model_not_found"


class CrossSiteRequest(GatewayError):
    default_code = "cross_site_request"


class TenantBlocked(GatewayError):
    default_code = "blocked"


class Unauthenticated(GatewayError):
    default_code = "invalid_api_key"


class RateLimited(GatewayError):
    default_code = "rate_limited"


class TooManyWrongKeys(RateLimited):
    default_code = "too_many_wrong_keys"


@dataclass(eq=False)
class LimitExceeded(RateLimited):
    """`limit`: its name in the log (`core.limits.words.limit_name`)."""

    default_code = "rate_limit_exceeded"

    limit: str = ""


class QuotaExceeded(LimitExceeded):
    default_code = "quota_exceeded"


class QueueFull(RateLimited):
    """As many of a tenant's requests wait for a place as may."""

    default_code = "queue_full"


class LimitTooSmall(LimitExceeded):
    default_code = "request_too_large_for_limit"


class Overloaded(GatewayError):
    default_code = "overloaded"


class NoNodeReady(Overloaded):
    default_code = "no_node_ready"


class FleetFull(Overloaded):
    default_code = "fleet_full"


@dataclass(eq=False)
class OutOfResources(Overloaded):
    """`cause`: the errno's name."""

    default_code = "out_of_resources"

    cause: str = ""


class KeysUnknown(Overloaded):
    default_code = "keys_unknown"


class TooManyConnections(Overloaded):
    default_code = "too_many_connections"


class MemoryFull(Overloaded):
    default_code = "memory_full"


class BodyUnread(Overloaded):
    default_code = "body_unread"


class LimitsUnknown(Overloaded):
    default_code = "limits_unavailable"


class ResponsesUnavailable(Overloaded):
    default_code = "responses_unavailable"


class ShuttingDown(Overloaded):
    default_code = "shutting_down"


class UpstreamError(GatewayError):
    default_code = "upstream_error"


class ConnectFailed(UpstreamError):
    default_code = "upstream_unreachable"


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """An error as a node told it: passed on as it is where no other node answers better. `stream`: as events."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    stream: bool = False


@dataclass(eq=False)
class NodeFailed(UpstreamError):
    """`answer` is None where it cannot be passed on any more: the client's stream has begun."""

    answer: NodeAnswer | None = None


@dataclass(eq=False)
class NodeBusy(NodeFailed):
    """`retry_after`: what the node said, if anything."""


class RequestRefused(UpstreamError):
    default_code = "invalid_request"


class NodeLeaving(UpstreamError):
    default_code = "node_drained"


class StaleConnection(UpstreamError):
    default_code = "upstream_cut"


class UpstreamCut(UpstreamError):
    default_code = "upstream_cut"


class BadUpstreamResponse(UpstreamError):
    default_code = "bad_upstream_response"


@dataclass(eq=False)
class UnreadableAnswer(BadUpstreamResponse):
    """`cause` is the class of the exception that the answer raised, `place` the file and line; neither has a word of
    the answer in it. For logs and metrics, not for the client."""

    cause: str = ""
    place: str = ""


@dataclass(eq=False)
class StreamLost(UpstreamError):
    """`tokens`: those of the answer that had come. `repeatable`: the same request may well succeed."""

    default_code = "stream_not_resumable"

    tokens: int = 0
    repeatable: bool = True


class AnswerTooLarge(UpstreamError):
    default_code = "answer_too_large"


class NoSummary(UpstreamError):
    default_code = "no_summary"


class UpstreamTimeout(UpstreamError):
    default_code = "upstream_timeout"


class DeadlineExceeded(GatewayError):
    default_code = "deadline_exceeded"


class EndedByOperator(GatewayError):
    default_code = "ended_by_operator"


class ClientGone(GatewayError):
    default_code = "client_gone"


class InternalError(GatewayError):
    default_code = "internal_error"
