"""Failover after a failed attempt: its evidence about the node, and the node of the next attempt.

Nothing is sent here. There is one `Failover` a relay, and one `RequestTries` a request, made when it first fails.
"""

import asyncio
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from gateway.core.errors import (
    ConnectFailed,
    FleetFull,
    NodeBusy,
    Overloaded,
    RequestRefused,
    UnreadableAnswer,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.core.plan import Plan
from gateway.core.resume.budget import DEATHS, SETTLING
from gateway.core.resume.node_deaths import NodeDeath, NodeDeaths, explain, shared
from gateway.core.telemetry.request_stats import LONGEST_WORD, RequestStats
from gateway.core.upstream.attempts import FREE, Attempts, RetryBudget, RetryDecision, RetryRules, is_doubtful, outcome
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import AnotherLease, Lease, Node
from gateway.upstream.failed_answers import unreachable
from gateway.upstream.resume_budgets import ResumeBudgets

log = structlog.get_logger("fleetgate.failover")

BUSY_SECONDS = 0.25
"""How long a node whose queue was full is chosen last, where its answer had no `retry-after`."""


class Failure(NamedTuple):
    """A failure by the node's fault or the request's own, at loop time `at`. `cut`: the node closed the connection.

    Not the error itself: its traceback holds the frame that holds the `RequestTries`: a reference cycle.
    """

    node: Node
    reason: str
    cut: bool
    at: float


@dataclass(slots=True)
class RequestTries:
    """The nodes that a request has tried, its doubtful failures, and the seconds that full nodes asked it to wait.
    `deaths`: those of its model's nodes."""

    attempts: Attempts
    deaths: NodeDeaths
    tried: list[Node] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    full: bool = False
    """Whether there are other nodes, and none of them had a place: the request may wait for one."""
    own: list[NodeDeath] = field(default_factory=list)
    """The nodes that died before anything of the answer had come."""
    number: int = field(init=False)

    def __post_init__(self) -> None:
        self.number = self.deaths.number()

    def is_innocent(self, error: UpstreamError, node: Node, now: float) -> bool:
        """Note that `node` failed with `error`; whether it died as other nodes did without the request."""
        if not isinstance(error, DEATHS) or isinstance(error, NodeBusy):
            return False
        self.own.append(self.deaths.record(node.name, now, self.number, got_on=False))
        return any(self.deaths.without(self.number, now))

    def convict(self) -> None:
        """The request is ended. Its deaths are explained by that, where there are several and no other request was at
        all of them."""
        own = [death for death in self.own if self.number in death.suspects]
        if len(own) > 1 and not shared(own, self.number):
            explain(own)


class Failover:
    """Records failures with the fleet, and leases the next node within the bounds of the request and its model."""

    def __init__(self, fleet: Fleet, rules: RetryRules, max_attempts: int) -> None:
        self._fleet = fleet
        self._budgets: dict[str | None, RetryBudget] = {}
        self._unreadable: set[tuple[str, str, str]] = set()
        """The unreadable answers that were logged: node, cause, place."""
        self.configure(rules, max_attempts)

    def configure(self, rules: RetryRules, max_attempts: int) -> None:
        """Go by `rules` from now on; `max_attempts`: nodes that one request may try."""
        self.rules = rules
        self.max_attempts = max_attempts

    def budget(self, model: str | None) -> RetryBudget:
        """The retry budget that all requests for `model` share."""
        budget = self._budgets.get(model)
        if budget is None:
            budget = self._budgets[model] = RetryBudget(self.rules, asyncio.get_running_loop().time())
        budget.rules = self.rules
        return budget

    def tries(self, deaths: NodeDeaths) -> RequestTries:
        """`deaths`: those of its model's nodes."""
        return RequestTries(Attempts(self.max_attempts), deaths)

    def next_lease(
        self,
        error: UpstreamError,
        lease: Lease,
        plan: Plan,
        tries: RequestTries,
        stats: RequestStats,
        another: AnotherLease,
    ) -> Lease | None:
        """The lease to try again with: the same one (on a fresh connection), one of another node, or None to give up.

        Raises `FleetFull` where every node that was asked has said that its queue is full, and `ConnectFailed` where
        the last one took no connection.
        """
        now = asyncio.get_running_loop().time()
        innocent = not stats.answered and tries.is_innocent(error, lease.node, now)
        decision = tries.attempts.judge(error, stats.answered, innocent)
        if decision is RetryDecision.SAME_NODE:
            return lease
        again: Lease | None = None
        if decision is not RetryDecision.GIVE_UP:
            tries.tried.append(lease.node)
            again = self._another(error, plan, tries, stats, another, now)
        elif not innocent:
            asyncio.get_running_loop().call_later(SETTLING, tries.convict)  # others break off with it
            _advise_against_retry(error, tries)
        if again is None and not tries.full and isinstance(error, ConnectFailed):
            others = any(each != outcome(error) for _, each in stats.failures)
            raise unreachable(len({*tries.tried, lease.node}), others) from None
        return again

    def _another(
        self,
        error: UpstreamError,
        plan: Plan,
        tries: RequestTries,
        stats: RequestStats,
        another: AnotherLease,
        now: float,
    ) -> Lease | None:
        try:
            lease = another(tries.tried)
        except Overloaded as full:
            if not tries.waits and isinstance(full, FleetFull):
                tries.full = self._pays_for(error, plan, stats, now)
                return None
            if not tries.waits or len(tries.waits) < len(tries.tried):
                return None
            waits = [*tries.waits, *([full.retry_after] if isinstance(full, FleetFull) and full.retry_after else ())]
            wait = min(waits)
            raise FleetFull(f"All nodes are at capacity; retry in {math.ceil(wait)} s.", retry_after=wait) from None
        if self._pays_for(error, plan, stats, now):
            return lease
        lease.release()
        return None

    def _pays_for(self, error: UpstreamError, plan: Plan, stats: RequestStats, now: float) -> bool:
        """Whether there may be one more try after `error`."""
        if isinstance(error, FREE) or self.budget(plan.model).spend(now):
            return True
        stats.retry_refused = True
        return False

    def look_again(
        self, tries: RequestTries, model: str | None, another: AnotherLease, resumes: ResumeBudgets
    ) -> Lease | None:
        """The lease for a request that waits for a place; None where there is none yet."""
        now = asyncio.get_running_loop().time()
        if not resumes.may_look(model, now):
            return None
        try:
            lease = another(tries.tried)
        except FleetFull:
            resumes.looked_in_vain(model, now)
            return None
        resumes.found(model)
        tries.full = False
        return lease

    def record(self, error: UpstreamError, lease: Lease, tries: RequestTries, stats: RequestStats) -> None:
        """Note that an attempt failed, and what that says of its node."""
        stats.failures += ((lease.node.name, outcome(error)),)
        stats.error = None if isinstance(error, RequestRefused) else error.message[:LONGEST_WORD]
        stats.node_failed = False  # the next attempt sets it anew
        self._record(error, lease.node, tries, asyncio.get_running_loop().time())

    def conclude(self, tries: RequestTries, lease: Lease) -> None:
        """The request has succeeded on the node of `lease`: the nodes that failed it before are at fault."""
        if not lease.answered:  # it was refused: its own fault may have been what failed elsewhere
            return
        now = asyncio.get_running_loop().time()
        for failure in tries.failures:
            if failure.node is not lease.node:
                self._fleet.convict(failure.node, failure.reason, failure.at, now)

    def _record(self, error: UpstreamError, node: Node, tries: RequestTries, now: float) -> None:
        if isinstance(error, ConnectFailed):
            self._fleet.refused(node, error.message, now)
        elif isinstance(error, NodeBusy):
            wait = error.retry_after or BUSY_SECONDS
            node.busy(now + wait)
            tries.waits.append(wait)
        elif is_doubtful(error):
            if isinstance(error, UnreadableAnswer):
                self._log_unreadable(error, node)
            tries.failures.append(Failure(node, error.message, isinstance(error, UpstreamCut), now))
            if isinstance(error, UpstreamTimeout):
                node.stalled(now)
            node.doubt(error.message)

    def _log_unreadable(self, error: UnreadableAnswer, node: Node) -> None:
        """Log each cause once; the rest is counted. Nothing of the answer is logged, which may be a tenant's."""
        seen = (node.name, error.cause, error.place)
        if seen not in self._unreadable:
            self._unreadable.add(seen)
            log.warning("node_answer_unparsable", node=node.name, cause=error.cause, place=error.place)


def _advise_against_retry(error: UpstreamError, tries: RequestTries) -> None:
    """Ask SDKs not to retry a request over which two nodes closed their connections."""
    if len(tries.failures) > 1 and all(failure.cut for failure in tries.failures):
        error.headers = {**error.headers, "x-should-retry": "false"}
        error.message = "Two nodes failed on this request, so no other is tried: change it, or retry later."
