"""Whether a node is given requests, by what probes and requests have shown of it.

Theory. Probes prove little: an API server can go on answering them while its engine is dead (seen on a real vLLM:
`/health` 200, every completion 500). Requests prove much, but a client is no witness: what it sends may fail on every
node. So each failure is looked at with one question: could the client have caused it?

    failure                                      by the client?           what follows
    takes no connection                          no                       out at once
    503, stale connection, drain                 its load at most         nothing (see `attempts`)
    500, 502, 504, garbled, cut, silent,         a body that no node      `doubt`: the gateway asks the node itself
      before or after the first byte               can serve                a tiny completion, at once
    the same, and another node answered it       no, unless nodes differ  `convict`: evidence, each time
    the same, and another node failed as well    yes                      nothing more: evidence against the request
    the same, and nobody else was asked          perhaps                  the tiny completion decides
    its tiny completion fails (not 503, not      no: it is the gateway's  out at once
      late: a full queue makes it late)
    no byte of any answer for too long           a long prompt can        out; its next answer brings it back

An answer after a failure speaks for the node, where a model made it: what it failed before that is no evidence any
more. The tiny completion does not: a node may serve it and nothing else. There is one at a time, and `retrial` seconds
lie between two, so that a client cannot have the gateway flood a node.

What is OPEN comes back only through a request that was answered: the prober's own tiny completion (`probe`), so that
no user waits on a node that may be dead; or a user's, where nobody else was left to ask. After that the node warms up:
its places grow from one over `slow_start` seconds.

    state      what was seen                                          next
    OPEN new   a probe answered, node there since the gateway began   CLOSED
    OPEN missing  a probe answered: it was only late                  CLOSED
    OPEN       a trial or a request answered                          PROBATION
    OPEN       a trial failed                                         OPEN, the next one after twice the time
    PROBATION  `slow_start` seconds are over                          CLOSED
    PROBATION  convicted once                                         OPEN failing
    CLOSED     convicted `failures` times in a row, none answered     OPEN failing
    not OPEN   doubted, and the tiny completion failed                OPEN failing
    not OPEN   no byte of any answer for too long                     OPEN silent
    not OPEN   more probes missed than tolerated, and no tokens came  OPEN missing
    any        takes no connection                                    OPEN refused

The caller spares the last ready node: `convict`, `check_failed` and `fell_silent` are told whether there is another.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final


class BreakerState(Enum):
    CLOSED = "closed"
    PROBATION = "probation"
    OPEN = "open"


class Cause(Enum):
    """Why a breaker is open."""

    NEW = "new"
    REFUSED = "refused"
    MISSING = "missing"
    FAILING = "failing"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """`failures`: requests in a row that another node answered; times in seconds: pauses between trials double from
    `retrial` up to `retrial_limit`, places grow over `slow_start`."""

    failures: int = 3
    retrial: float = 1.0
    retrial_limit: float = 30.0
    slow_start: float = 20.0


NEVER_OPENED: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(slots=True)
class Breaker:
    """One node's. `now` is in seconds of any clock that does not go back, always the same one."""

    rules: BreakerRules = BreakerRules()
    trusted: bool = True
    """There when the gateway began: its first probe is enough, so that a restarted gateway slows nothing down."""
    state: BreakerState = BreakerState.OPEN
    cause: Cause = Cause.NEW
    since: float = 0.0
    """When the state began."""
    opened: Mapping[str, int] = field(default_factory=lambda: NEVER_OPENED)
    """How often it opened, by cause; the beginning is not counted. Replaced when it changes."""
    _convictions: int = 0
    """In a row, with no answer in between."""
    _answered_at: float = -math.inf
    _doubted: bool = False
    _checking: bool = False
    _next_check: float = -math.inf
    _failed_trials: int = 0
    _next_trial: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.state is BreakerState.OPEN

    @property
    def is_doubted(self) -> bool:
        """Whether a check waits for its time."""
        return self._doubted and not self.is_open

    def probed(self, now: float) -> None:
        """A probe was answered."""
        only_late = self.cause is Cause.MISSING or (self.cause is Cause.NEW and self.trusted)
        warm = self.state is BreakerState.PROBATION and now - self.since >= self.rules.slow_start
        if warm or (self.is_open and only_late):
            self._enter(BreakerState.CLOSED, now)

    def trial_due(self, now: float) -> bool:
        """Whether the prober should ask a tiny completion now: the way back for a node whose probes are answered."""
        return self.is_open and now >= self._next_trial

    def trial_failed(self, now: float) -> None:
        pause = min(self.rules.retrial * 2.0**self._failed_trials, self.rules.retrial_limit)
        self._failed_trials += 1
        self._next_trial = now + pause

    def answered(self, now: float) -> None:
        """A client's request was answered, or the trial of a node that was out."""
        self._answered_at = now
        self._convictions = 0
        if self.is_open:
            self._failed_trials = 0
            self._doubted = False
            self._enter(BreakerState.PROBATION, now)

    def doubt(self) -> None:
        """A request failed, by the node's fault or its own: the node is to be asked."""
        self._doubted = True

    def begin_check(self, now: float) -> bool:
        """Whether the prober should ask a tiny completion of a node that is in now; if so `end_check` must follow."""
        if not self._doubted or self._checking or self.is_open or now < self._next_check:
            return False
        self._doubted = False
        self._checking = True
        return True

    def end_check(self, now: float) -> None:
        self._checking = False
        self._next_check = now + self.rules.retrial

    def check_failed(self, now: float, spare: bool) -> bool:
        """The tiny completion failed; whether that opened the breaker. `spare`: there is no other ready node."""
        if self.is_open or spare:
            return False
        self._open(Cause.FAILING, now)
        return True

    def convict(self, now: float, failed_at: float, spare: bool) -> bool:
        """Another node answered a request that failed here at `failed_at`; whether this opened the breaker."""
        if failed_at <= self._answered_at:
            return False
        self._convictions += 1
        if self.is_open or spare:
            return False
        if self.state is BreakerState.CLOSED and self._convictions < self.rules.failures:
            return False
        self._open(Cause.FAILING, now)
        return True

    def refused(self, now: float) -> bool:
        """It takes no connection; whether this opened the breaker. What comes back is another process: no doubt is
        left over from before."""
        self._failed_trials = 0
        self._next_trial = 0.0
        self._doubted = False
        self._convictions = 0
        if self.is_open:
            self.cause = Cause.REFUSED if self.cause is not Cause.NEW else Cause.NEW
            return False
        self._open(Cause.REFUSED, now)
        return True

    def missed_probes(self, now: float) -> bool:
        """More probes went unanswered than tolerated, and no tokens came meanwhile; whether this opened it."""
        if not self.is_open:
            self._open(Cause.MISSING, now)
            return True
        return False

    def fell_silent(self, now: float, spare: bool) -> bool:
        """All its answers stand still; whether this opened it."""
        if self.is_open or spare:
            return False
        self._open(Cause.SILENT, now)
        return True

    def share(self, now: float) -> float:
        """How much of its capacity may be used, from 0 (none) to 1."""
        if self.state is BreakerState.CLOSED:
            return 1.0
        if self.is_open:
            return 0.0
        if self.rules.slow_start <= 0:
            return 1.0
        return min(1.0, max(0.0, (now - self.since) / self.rules.slow_start))

    def _open(self, cause: Cause, now: float) -> None:
        self.cause = cause
        self._doubted = False
        self._convictions = 0
        self.opened = {**self.opened, cause.value: self.opened.get(cause.value, 0) + 1}
        self._next_trial = now + (self.rules.retrial if cause in (Cause.FAILING, Cause.SILENT) else 0.0)
        self._enter(BreakerState.OPEN, now)

    def _enter(self, state: BreakerState, now: float) -> None:
        self.state = state
        self.since = now
