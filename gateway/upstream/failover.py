"""After a failed attempt: what it says about the node, and where the request goes on.

Nothing here sends anything. `Failover` belongs to the relay; `RequestTries` is one request's, made when it first fails.
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
    UnreadableAnswer,
    UpstreamCut,
    UpstreamError,
)
from gateway.core.plan import Plan
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.attempts import FREE, Attempts, RetryBudget, RetryDecision, RetryRules, is_doubtful, outcome
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import AnotherLease, Lease, Node

log = structlog.get_logger("fleetgate.failover")

BUSY_SECONDS = 0.25
"""How long a node whose queue was full is asked last, where it did not say itself."""


class Failure(NamedTuple):
    """A failure by the node's fault or the request's own, at loop time `at`. `cut`: the node broke off.

    Not the error itself: its traceback holds the frame that holds the `RequestTries`: a reference cycle.
    """

    node: Node
    reason: str
    cut: bool
    at: float


@dataclass(slots=True)
class RequestTries:
    """One request's: the nodes it has tried, its doubtful failures, and what full nodes said of their queues."""

    attempts: Attempts
    tried: list[Node] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


class Failover:
    """Tells the fleet what failed, and finds the next place within the request's and its model's bounds."""

    def __init__(self, fleet: Fleet, rules: RetryRules, max_attempts: int) -> None:
        self._fleet = fleet
        self._budgets: dict[str | None, RetryBudget] = {}
        self._unreadable: set[tuple[str, str, str]] = set()
        """What was logged of unreadable answers: node, cause, place."""
        self.configure(rules, max_attempts)

    def configure(self, rules: RetryRules, max_attempts: int) -> None:
        """Go by `rules` from now on; `max_attempts`: nodes that one request may try."""
        self.rules = rules
        self.max_attempts = max_attempts

    def budget(self, model: str | None) -> RetryBudget:
        """What requests for `model` may cost beyond their first tries."""
        budget = self._budgets.get(model)
        if budget is None:
            budget = self._budgets[model] = RetryBudget(self.rules, asyncio.get_running_loop().time())
        budget.rules = self.rules
        return budget

    def tries(self) -> RequestTries:
        return RequestTries(Attempts(self.max_attempts))

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

        Raises `FleetFull` where every node that was asked has said that its queue is full.
        """
        now = asyncio.get_running_loop().time()
        stats.failures += ((lease.node.name, outcome(error)),)
        stats.node_failed = False  # what the next one does will be told
        self._record(error, lease.node, tries, now)
        verdict = tries.attempts.judge(error, stats.answered)
        if verdict is RetryDecision.SAME_NODE:
            return lease
        if verdict is RetryDecision.GIVE_UP:
            _advise_against_retry(error, tries)
            return None
        tries.tried.append(lease.node)
        return self._another(error, plan, tries, stats, another, now)

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
            if not tries.waits or len(tries.waits) < len(tries.tried):
                return None
            waits = [*tries.waits, *([full.retry_after] if isinstance(full, FleetFull) and full.retry_after else ())]
            wait = min(waits)
            raise FleetFull(f"All nodes are at capacity; retry in {math.ceil(wait)} s.", retry_after=wait) from None
        if isinstance(error, FREE) or self.budget(plan.model).spend(now):
            return lease
        lease.release()
        stats.retry_refused = True
        return None

    def conclude(self, tries: RequestTries, lease: Lease) -> None:
        """The request has ended well on the node of `lease`: whatever failed it before is at fault."""
        if not lease.answered:  # it was refused, as what is wrong with it may have been what failed elsewhere
            return
        now = asyncio.get_running_loop().time()
        for failure in tries.failures:
            if failure.node is not lease.node:
                self._fleet.convict(failure.node, failure.reason, failure.at, now)

    def _record(self, error: UpstreamError, node: Node, tries: RequestTries, now: float) -> None:
        if isinstance(error, ConnectFailed):
            node.refused(error.message, now)
        elif isinstance(error, NodeBusy):
            wait = error.retry_after or BUSY_SECONDS
            node.busy_until = now + wait
            tries.waits.append(wait)
        elif is_doubtful(error):
            if isinstance(error, UnreadableAnswer):
                self._log_unreadable(error, node)
            tries.failures.append(Failure(node, error.message, isinstance(error, UpstreamCut), now))
            node.doubt(error.message)

    def _log_unreadable(self, error: UnreadableAnswer, node: Node) -> None:
        """Once for each cause: the rest is counted. Nothing of the answer is told, which may be a tenant's."""
        seen = (node.name, error.cause, error.place)
        if seen not in self._unreadable:
            self._unreadable.add(seen)
            log.warning("node_answer_unparsable", node=node.name, cause=error.cause, place=error.place)


def _advise_against_retry(error: UpstreamError, tries: RequestTries) -> None:
    """Where two nodes vanished over a request, SDKs should not send it to a third and a fourth by themselves."""
    if len(tries.failures) > 1 and all(failure.cut for failure in tries.failures):
        error.headers = {**error.headers, "x-should-retry": "false"}
        error.message = "Two nodes failed on this request, so no other is tried: change it, or retry later."
