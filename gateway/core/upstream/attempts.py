"""How often and where a request is tried again.

Theory. A try may be repeated only while the client has seen nothing of its answer; after that a resumable answer goes
on from where it was (see `upstream.resumption`), as does one of which anything was made. Where the node never took the
request that is free; where it said that it did not do the work (5xx), or may have died over it, it costs a node's time,
so it is bounded twice: by `limit` for one request and by a `RetryBudget` for all requests of a model, since a failing
fleet that is asked everything thrice fails for good. A request over which a node failed may be the reason, and may have
killed it: it is given one more node, not all of them, unless nodes die without it as well (`NodeDeaths`). What failed
on both is the request's own fault; what one failed and the other answered is that node's (see `breaker`). On the same
node only a connection that had stood idle is tried again (RFC 9110, section 9.2.2: the race between a server's
keep-alive timeout and the next request).

    what the node did                        the client has seen nothing   the client has seen bytes
    ConnectFailed: took no connection        ANOTHER_NODE, free            cannot be
    StaleConnection: closed a kept one       SAME_NODE, once, afresh       cannot be
    NodeLeaving: its drain's time is up      ANOTHER_NODE, free            GIVE_UP
    NodeBusy: 503                            ANOTHER_NODE                  cannot be
    NodeFailed: 500, 502, 504                ANOTHER_NODE, once            cannot be
    BadUpstreamResponse: cannot be read      ANOTHER_NODE, once            GIVE_UP
    AnswerTooLarge, NoSummary: the request's GIVE_UP                       GIVE_UP
    RequestRefused: 4xx                      GIVE_UP                       cannot be
    UpstreamCut, UpstreamTimeout             ANOTHER_NODE, once            GIVE_UP

"Once" is for all of them together; a death of a node does not count where other nodes died without the request.
"""

import math
from dataclasses import dataclass
from enum import Enum

from gateway.core.errors import (
    AnswerTooLarge,
    BadUpstreamResponse,
    ConnectFailed,
    NodeBusy,
    NodeFailed,
    NodeLeaving,
    NoSummary,
    StaleConnection,
    UnreadableAnswer,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)


class RetryDecision(Enum):
    ANOTHER_NODE = "another node"
    SAME_NODE = "same node"
    GIVE_UP = "give up"


FREE = (ConnectFailed, NodeLeaving)
"""Failures before any work was done: trying again is no second request to the fleet."""

_ELSEWHERE = (*FREE, NodeBusy)
_DOUBTFUL = (NodeFailed, BadUpstreamResponse, UpstreamCut, UpstreamTimeout)


def is_doubtful(error: UpstreamError) -> bool:
    """Whether `error` may be the node's fault or the request's own."""
    return isinstance(error, _DOUBTFUL) and not isinstance(error, NodeBusy)


_OUTCOMES: tuple[tuple[type[UpstreamError], str], ...] = (
    (ConnectFailed, "refused"),
    (StaleConnection, "stale"),
    (NodeLeaving, "drained"),
    (NodeBusy, "busy"),
    (NodeFailed, "failed"),
    (UnreadableAnswer, "unreadable"),
    (BadUpstreamResponse, "garbled"),
    (AnswerTooLarge, "too_large"),
    (NoSummary, "passed"),
    (UpstreamCut, "cut"),
    (UpstreamTimeout, "silent"),
)


def outcome(error: UpstreamError) -> str:
    """What metrics call an attempt that ended so."""
    return next((name for kind, name in _OUTCOMES if isinstance(error, kind)), "failed")


@dataclass(slots=True)
class Attempts:
    """Judges the failures of one request; at most `limit` nodes are tried."""

    limit: int
    nodes: int = 1
    stale: bool = False
    doubtful: int = 0

    def judge(self, error: UpstreamError, answered: bool, innocent: bool = False) -> RetryDecision:
        """What to do after `error`; `answered` says whether the client has already got bytes of this answer,
        `innocent` whether the node died as others did without the request."""
        if answered:
            return RetryDecision.GIVE_UP
        if isinstance(error, StaleConnection) and not self.stale:
            self.stale = True  # once a node: a fresh connection cannot be stale
            return RetryDecision.SAME_NODE
        if self.nodes >= self.limit or not self._may_go_on(error, innocent):
            return RetryDecision.GIVE_UP
        self.nodes += 1
        self.stale = False
        return RetryDecision.ANOTHER_NODE

    def _may_go_on(self, error: UpstreamError, innocent: bool) -> bool:
        if is_doubtful(error):
            self.doubtful += not innocent
            return innocent or self.doubtful == 1
        return isinstance(error, _ELSEWHERE)


@dataclass(frozen=True, slots=True)
class RetryRules:
    """Tries beyond the first that a model's requests may cost: `share` of them, and `minimum` a second besides."""

    share: float = 0.2
    minimum: float = 10.0


SAVED_SECONDS = 10.0
"""For how long what was not used is kept (as Finagle's RetryBudget, whose defaults these are)."""


class RetryBudget:
    """One model's. `requests` is counted up by whoever asks the fleet, and `open` are those that are being answered;
    `now` is in seconds."""

    __slots__ = ("_minimum", "_saved", "_updated", "open", "requests", "rules")

    def __init__(self, rules: RetryRules, now: float) -> None:
        self.rules = rules
        self.requests = 0
        self.open = 0
        self._updated = now
        self._saved = 0.0
        self._minimum = rules.minimum * SAVED_SECONDS

    def spend(self, now: float) -> bool:
        """Whether one more try may be made; if so it is spent."""
        self._update(now)
        if self._saved >= 1:
            self._saved -= 1
        elif self._minimum >= 1:
            self._minimum -= 1
        else:
            return False
        return True

    def _update(self, now: float) -> None:
        """Requests since the last time came evenly, and what they earned fades away over `SAVED_SECONDS`."""
        passed = max(now - self._updated, 1e-6)
        kept = math.exp(-passed / SAVED_SECONDS)
        earned = self.rules.share * self.requests / passed
        self._saved = self._saved * kept + earned * SAVED_SECONDS * (1 - kept)
        self._minimum = min(self._minimum + self.rules.minimum * passed, self.rules.minimum * SAVED_SECONDS)
        self.requests = 0
        self._updated = now
