"""How often answers are resumed: the bounds of one request, and of all requests for a model.

Theory. A resume has another node compute the prompt, and all that the answer has so far, once more. Where one node
dies that is cheap for the fleet. Where a network breaks every stream every second, each resume adds load to nodes that
fail already, and a request that kills nodes takes down one after the other. So resumes are bounded three times:

- `Resumes`, limit: an answer that is resumed again and again without getting on is given up. One that gets on is not,
  however many nodes it loses: an answer of an hour on spot nodes may lose many.
- `Resumes`, killer rule: a node that dies of a request dies soon after it was sent, or at the token at which another
  died. So a death counts against a request that did not get on there; where a second one does, no third is risked.
  Those that got on are innocent, as are most of the hundred answers that a node takes along. Where nodes die without
  the request as well it goes on, up to `MOST` times. Where other requests may be the reason (`NodeDeaths`), up to
  `MOST_TOGETHER` or `MOST_APART`.
- `ResumeBudget`: a token bucket for each model paces what the fleet computes again. It refuses nothing, it makes wait.

What `Resumes.judge` makes of a break; "made" are the output tokens since the request's last counted break:

    the break                                  counted   a death   made < PROGRESS: GIVE_UP_...
    NodeLeaving: a drain moved or ended it     no        no        never
    ConnectFailed, StaleConnection: not sent   no        no        never
    NodeBusy: 503, its queue is full           no        no        never
    UpstreamCut: the connection was closed     yes       yes       KILLER at the second node that it explains
    NodeFailed: 5xx, or an error event         yes       yes       KILLER at the second node that it explains
    UpstreamTimeout: it stalled                yes       with its  KILLER at the second node that it explains
                                                         node
    BadUpstreamResponse and all others         yes       no        -

LIMIT: more than `limit` were counted, but for those of nodes that it does not explain and that took others along which
had got on, or stalled with any, or left probes unanswered; and at `MOST` counted ones, whatever they were: those of one
death as one, as what comes to a node that stands still stalls as well. Else: GO_ON. Where `PROGRESS` tokens were made,
counts and deaths begin anew with this break. It is no death of the request where so many were made on its node.

The answers that a node takes along break within moments, one after the other, and each is judged by all of them: a
request is given up only where `decide` says the same again after `SETTLING` seconds.

The limit bounds the deaths of one node, too. A break that is not counted cost no node any work, so it is no evidence;
how often it may happen is bounded by the nodes there are and by the time that an answer may wait for one.
"""

import math
from collections.abc import Sequence
from enum import Enum

from gateway.core.errors import (
    ConnectFailed,
    NodeBusy,
    NodeFailed,
    NodeLeaving,
    StaleConnection,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.core.resume.node_deaths import NodeDeath, NodeDeaths, explain, shared

PROGRESS = 16
"""Output tokens after which an answer counts as having got on: more than a node makes by chance before it dies of what
it was asked, and less than half a second of a stream."""

PASSED = 4
"""Output tokens behind the one at which a node died, with which another has passed it: more than an event has."""

MOST_TOGETHER = 4
"""The deaths at which a request is given up though another was there each time, where no other node has died: they may
be two copies of one that kills."""

MOST_APART = 5
"""The same where other nodes have died, each of another request, as it seems: several that kill, at once."""

MOST = 8
"""The counted breaks in a row at which a request is given up, whatever else broke off: a fleet in which no node lives
long enough is not asked for ever."""

SETTLING = 0.25
"""Seconds until all answers that a node took along have broken off."""

CAPACITY = 20
"""The fewest resumes that a model's budget saves up: as many may go at once, however few streams are open."""

MINIMUM_RATE = 1.0
"""The fewest resumes a second that a model's budget earns, however few streams are open."""

_UNCOUNTED = (NodeLeaving, ConnectFailed, StaleConnection, NodeBusy)
DEATHS = (UpstreamCut, NodeFailed)
"""The errors by which a node may have died."""


class ResumeDecision(Enum):
    GO_ON = "go on"
    GIVE_UP_KILLER = "two nodes died over it"
    GIVE_UP_LIMIT = "resumed too often"


class Resumes:
    """Judges the breaks of one request. `limit`: resumes with fewer than `PROGRESS` tokens made in between. `deaths`:
    those of its model's nodes. `number`: the request's. `before`: the deaths before its first token."""

    __slots__ = ("_before", "_begun", "_breaks", "_deaths", "_late", "_limit", "_number", "_passed_at", "_tokens")

    def __init__(self, limit: int, deaths: NodeDeaths, number: int, before: Sequence[NodeDeath] = ()) -> None:
        self._limit = limit
        self._deaths = deaths
        self._number = number
        self._before = tuple(before)
        self._tokens = 0
        """Output tokens of the answer at the last counted break."""
        self._begun = 0
        """The same at the last break."""
        self._breaks: list[NodeDeath | None] = []
        """The counted breaks since the request last got on, that one included. None: of no node."""
        self._late: NodeDeath | None = None
        """The last death of a node on which the request had got on."""
        self._passed_at = 0
        """Output tokens with which the answer is past the token at which `_late` happened."""

    def judge(
        self, error: UpstreamError, node_name: str, tokens: int, now: float, missing: bool = False
    ) -> ResumeDecision:
        """Whether to resume after `error` on the node `node_name`, when the answer had `tokens` output tokens, at `now`
        (seconds of the clock of `deaths`). `missing`: the node does not answer probes either."""
        made_here, self._begun = tokens - self._begun, tokens
        if isinstance(error, _UNCOUNTED):
            return ResumeDecision.GO_ON
        if tokens - self._tokens >= PROGRESS:
            self._get_on()
        self._tokens = tokens
        death = self._record(error, node_name, made_here >= PROGRESS, now)
        if death is not None and missing:
            death.missing = True
        self._breaks.append(death)
        return self.decide(now)

    def begin_again(self, tokens: int) -> None:
        """The answer goes on with `tokens` output tokens, where it had more."""
        self._begun, self._tokens = tokens, min(self._tokens, tokens)

    def decide(self, now: float) -> ResumeDecision:
        """What is known now of the break that was judged last."""
        own = self._own()
        explains = bool(own) and self._explains(own, now)
        if explains and len({death.node_name for death in own}) > 1:
            return ResumeDecision.GIVE_UP_KILLER
        alone = sum(death is None or not death.is_the_nodes(self._number) for death in self._breaks)
        if alone > self._limit or (explains and _died(own) > self._limit):
            return ResumeDecision.GIVE_UP_LIMIT
        if self._distinct() < MOST:
            return ResumeDecision.GO_ON
        return ResumeDecision.GIVE_UP_KILLER if own else ResumeDecision.GIVE_UP_LIMIT

    def _distinct(self) -> int:
        """The counted breaks, those of one death as one."""
        return self._breaks.count(None) + len({id(death) for death in self._breaks if death is not None})

    def convict(self, now: float) -> None:
        """The request is ended. Its deaths are explained by that, where there are several and it may be the reason."""
        own = self._own()
        if len(own) < 2 or not self._explains(own, now):
            return
        explain(own)
        if self._late is not None and self._tokens < self._passed_at:
            self._late.explained = True

    def _record(self, error: UpstreamError, node_name: str, got_on: bool, now: float) -> NodeDeath | None:
        stalled = isinstance(error, UpstreamTimeout)
        if not (stalled or isinstance(error, DEATHS)):
            return None
        death = self._deaths.record(node_name, now, self._number, got_on, stalled)
        if got_on:
            self._late, self._passed_at = death, self._tokens + PASSED
        elif self._late is not None:
            if self._tokens < self._passed_at:  # it may have died at the same token
                self._late.suspects.add(self._number)
            else:
                self._late.suspects.discard(self._number)
        return death

    def _get_on(self) -> None:
        """It was no reason for the deaths before."""
        for death in (*self._before, *self._breaks, self._late):
            if death is not None:
                death.suspects.discard(self._number)
        self._before = ()
        self._breaks.clear()

    def _own(self) -> list[NodeDeath]:
        """The deaths of nodes on which the request did not get on, since it last did, as far as no other request is
        known to be the reason."""
        return [
            death
            for death in (*self._before, *self._breaks)
            if death is not None
            and death is not self._late
            and self._number in death.suspects
            and (death.took_along(self._number) or not death.stalled)
        ]

    def _explains(self, own: list[NodeDeath], now: float) -> bool:
        """Whether the request is taken to be what the nodes of `own` died of."""
        others = [*self._deaths.without(self._number, now)]
        if not others:
            return _died(own) >= MOST_TOGETHER or not shared(own, self._number)
        if _died(own) < MOST_APART:
            return False
        killers = self._deaths.repeated(len(own) - 1)
        return all(death.suspects & killers for death in others)


def _died(own: Sequence[NodeDeath]) -> int:
    """How many of these deaths were no stalls: what comes to a node that stands still already stalls as well."""
    return sum(not death.stalled for death in own)


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
