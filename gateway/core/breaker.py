"""Whether a node is given requests, by what probes and requests have shown of it.

Theory. Probes prove little: an API server can go on answering them while its engine is dead (seen on a real vLLM:
`/health` 200, every completion 500). Requests prove much, but a failed one may be its own fault: a body that breaks
every node must not take the fleet down. So a failure makes a node suspect, different requests count once each, and a
request that failed elsewhere too is taken back (`acquit`). What is OPEN comes back only through a request that was
answered: the prober's own tiny completion (`trial`), so that no user waits on a node that may be dead; or a user's,
where nobody else was left to ask. After that the node warms up: its places grow from one over `slow_start` seconds.

    state      what was seen                                          next
    OPEN new   a probe answered, node there since the gateway began   CLOSED
    OPEN missing  a probe answered: it was only late                  CLOSED
    OPEN       a trial or a request answered                          PROBATION
    OPEN       a trial failed                                         OPEN, the next one after twice the time
    PROBATION  `slow_start` seconds are over                          CLOSED
    PROBATION  a request failed                                       OPEN failing
    CLOSED     `failures` different requests failed, none answered    OPEN failing
    not OPEN   no byte of any answer for too long                     OPEN silent
    not OPEN   more probes missed than tolerated, and no tokens came  OPEN missing
    any        takes no connection                                    OPEN refused
    OPEN failing  the failures turn out to be the requests'           what it was before

The caller spares the last ready node: `failed` and `fell_silent` are told whether there is another.
"""

from dataclasses import dataclass, field
from enum import Enum


class State(Enum):
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
    """`failures`: different requests in a row; times in seconds: pauses between trials double from `retrial` up to
    `retrial_limit`, places grow over `slow_start`."""

    failures: int = 3
    retrial: float = 1.0
    retrial_limit: float = 30.0
    slow_start: float = 20.0


MAX_SUSPICIONS = 64


@dataclass(slots=True)
class Breaker:
    """One node's. `now` is in seconds of any clock that does not go back, always the same one."""

    rules: BreakerRules = BreakerRules()
    trusted: bool = True
    """There when the gateway began: its first probe is enough, so that a restarted gateway slows nothing down."""
    state: State = State.OPEN
    cause: Cause = Cause.NEW
    since: float = 0.0
    """When the state began."""
    opened: dict[str, int] = field(default_factory=dict)
    """How often it opened, by cause; the beginning is not counted."""
    _suspicions: dict[int, None] = field(default_factory=dict)
    _failed_trials: int = 0
    _next_trial: float = 0.0
    _before: State = State.CLOSED

    @property
    def is_open(self) -> bool:
        return self.state is State.OPEN

    def probed(self, now: float) -> None:
        """A probe was answered."""
        only_late = self.cause is Cause.MISSING or (self.cause is Cause.NEW and self.trusted)
        warm = self.state is State.PROBATION and now - self.since >= self.rules.slow_start
        if warm or (self.is_open and only_late):
            self._enter(State.CLOSED, now)

    def trial_due(self, now: float) -> bool:
        """Whether the prober should ask a tiny completion now: the way back for a node whose probes are answered."""
        return self.is_open and now >= self._next_trial

    def trial_failed(self, now: float) -> None:
        pause = min(self.rules.retrial * 2.0**self._failed_trials, self.rules.retrial_limit)
        self._failed_trials += 1
        self._next_trial = now + pause

    def answered(self, now: float) -> None:
        """A request (or the trial) was answered."""
        if self._suspicions:
            self._suspicions.clear()
        if self.is_open:
            self._failed_trials = 0
            self._enter(State.PROBATION, now)

    def failed(self, now: float, request: int, spare: bool) -> bool:
        """`request` (a number for its body) failed in a way that is the node's fault, or its own; whether this
        opened the breaker. `spare`: there is no other ready node."""
        if len(self._suspicions) < MAX_SUSPICIONS:
            self._suspicions[request] = None
        if self.is_open or spare:
            return False
        if self.state is State.CLOSED and len(self._suspicions) < self.rules.failures:
            return False
        self._open(Cause.FAILING, now)
        return True

    def acquit(self, now: float, request: int) -> None:
        """`request` failed on other nodes as well: it says nothing about this one."""
        self._suspicions.pop(request, None)
        enough = 1 if self._before is State.PROBATION else self.rules.failures
        if self.is_open and self.cause is Cause.FAILING and len(self._suspicions) < enough:
            self._enter(self._before, now)

    def refused(self, now: float) -> bool:
        """It takes no connection; whether this opened the breaker. What comes back is another process: no doubt is
        left over from before."""
        self._failed_trials = 0
        self._next_trial = 0.0
        self._suspicions.clear()
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
        if self.state is State.CLOSED:
            return 1.0
        if self.is_open:
            return 0.0
        if self.rules.slow_start <= 0:
            return 1.0
        return min(1.0, max(0.0, (now - self.since) / self.rules.slow_start))

    def _open(self, cause: Cause, now: float) -> None:
        self._before = self.state
        self.cause = cause
        self.opened[cause.value] = self.opened.get(cause.value, 0) + 1
        self._next_trial = now + (self.rules.retrial if cause in (Cause.FAILING, Cause.SILENT) else 0.0)
        self._enter(State.OPEN, now)

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        self.since = now
