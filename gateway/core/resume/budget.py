"""How often answers are resumed: the bounds of one request, and of all requests for a model.

Theory. A resume has another node compute the prompt, and all that the answer has so far, once more. Where one node
dies that is cheap for the fleet. Where a network breaks every stream every second, each resume adds load to nodes that
fail already, and a request that kills nodes takes down one after the other. So resumes are bounded three times:

- `Resumes`, limit: an answer that is resumed again and again without getting on is given up. One that gets on is not,
  however many nodes it loses: an answer of an hour on spot nodes may lose many.
- `Resumes`, killer rule: a node that dies of a request dies soon after it was sent, or at the token at which another
  died. So a death counts against a request that did not get on there; where a second one does, no third is risked.
  Those that got on are innocent, as are most of the hundred answers that a node takes along.
- `ResumeBudget`: a token bucket for each model paces what the fleet computes again. It refuses nothing, it makes wait.

What `Resumes.judge` makes of a break; "made" are the output tokens since the request's last counted break:

    the break                                  counted   a death   made < PROGRESS: GIVE_UP_...
    NodeLeaving: a drain moved or ended it     no        no        never
    ConnectFailed, StaleConnection: not sent   no        no        never
    NodeBusy: 503, its queue is full           no        no        never
    UpstreamCut: the connection was closed     yes       yes       KILLER at the second node, LIMIT beyond the limit
    NodeFailed: 5xx, or an error event         yes       yes       KILLER at the second node, LIMIT beyond the limit
    UpstreamTimeout: it stalled                yes       no        LIMIT beyond the limit
    BadUpstreamResponse and all others         yes       no        LIMIT beyond the limit

In all other cases: GO_ON. Where `PROGRESS` tokens were made, counts and deaths begin anew with this break, which is no
death then.

The limit bounds the deaths of one node, too. A break that is not counted cost no node any work, so it is no evidence;
how often it may happen is bounded by the nodes there are and by the time that an answer may wait for one. A stall is no
death, since a full queue, a paused machine and a broken network look the same from here.
"""

import math
from enum import Enum

from gateway.core.errors import (
    ConnectFailed,
    NodeBusy,
    NodeFailed,
    NodeLeaving,
    StaleConnection,
    UpstreamCut,
    UpstreamError,
)

PROGRESS = 16
"""Output tokens after which an answer counts as having got on: more than a node makes by chance before it dies of what
it was asked, and less than half a second of a stream."""

CAPACITY = 20
"""The fewest resumes that a model's budget saves up: as many may go at once, however few streams are open."""

MINIMUM_RATE = 1.0
"""The fewest resumes a second that a model's budget earns, however few streams are open."""

_UNCOUNTED = (NodeLeaving, ConnectFailed, StaleConnection, NodeBusy)
_DEATHS = (UpstreamCut, NodeFailed)


class ResumeDecision(Enum):
    GO_ON = "go on"
    GIVE_UP_KILLER = "two nodes died over it"
    GIVE_UP_LIMIT = "resumed too often"


class Resumes:
    """Judges the breaks of one request, those before its first token included. `limit`: resumes with fewer than
    `PROGRESS` tokens made in between."""

    __slots__ = ("_count", "_dead", "_limit", "_tokens")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._tokens = 0
        """Output tokens of the answer at the last counted break."""
        self._dead: tuple[str, ...] = ()
        """The nodes that died over the request since it last got on."""

    def judge(self, error: UpstreamError, node_name: str, tokens: int) -> ResumeDecision:
        """Whether to resume after `error` on the node `node_name`, when the answer had `tokens` output tokens."""
        if isinstance(error, _UNCOUNTED):
            return ResumeDecision.GO_ON
        got_on = tokens - self._tokens >= PROGRESS
        if got_on:
            self._count = 0
            self._dead = ()
        self._tokens = tokens
        self._count += 1
        if isinstance(error, _DEATHS) and not got_on and node_name not in self._dead:
            self._dead = (*self._dead, node_name)
        if len(self._dead) > 1:
            return ResumeDecision.GIVE_UP_KILLER
        return ResumeDecision.GO_ON if self._count <= self._limit else ResumeDecision.GIVE_UP_LIMIT


class ResumeBudget:
    """One model's in one process: a token bucket. Times are in seconds, of any clock that does not go back.

    It holds as many resumes as streams are open (`CAPACITY` at the least) and earns `rate` a second for each of them
    (`MINIMUM_RATE` at the least).
    """

    __slots__ = ("_saved", "_updated", "rate")

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._saved = math.inf
        """Resumes that may go at once; full when first asked."""
        self._updated = 0.0

    def take(self, now: float, open_streams: int) -> float:
        """0.0 if a resume may go at `now`, which is then counted; else the seconds until one may."""
        earned = max(MINIMUM_RATE, self.rate * open_streams)
        passed = max(0.0, now - self._updated)
        self._saved = min(float(max(CAPACITY, open_streams)), self._saved + earned * passed)
        self._updated = now
        if self._saved >= 1.0:
            self._saved -= 1.0
            return 0.0
        return (1.0 - self._saved) / earned

    def give_back(self) -> None:
        """The resume that was taken last does not go after all."""
        self._saved += 1.0
