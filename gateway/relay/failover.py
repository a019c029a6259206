"""After a failed attempt: what it says about the node, and where the request goes on.

Nothing here sends anything. `Failover` belongs to the relay; `Tries` is one request's, made when it first fails.
"""

import asyncio
from dataclasses import dataclass, field

import structlog

from gateway.core.attempts import FREE, Attempts, RetryBudget, RetryRules, Verdict, outcome
from gateway.core.errors import (
    BadUpstreamResponse,
    ConnectFailed,
    FleetFull,
    NodeBusy,
    NodeFailed,
    Overloaded,
    UnreadableAnswer,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.core.plan import Plan
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Lease, Node
from gateway.fleet.router import Route
from gateway.relay.downstream import Trace

log = structlog.get_logger("fleetgate.failover")

BUSY_SECONDS = 0.25
"""How long a node whose queue was full is asked last, where it did not say itself."""

_DOUBTFUL = (NodeFailed, BadUpstreamResponse, UpstreamCut, UpstreamTimeout)
"""Failures that are the node's, or the request's own."""


@dataclass(slots=True)
class Tries:
    """One request's: the nodes it has tried, those that it made doubtful, and what full ones said of their queues."""

    attempts: Attempts
    tried: list[Node] = field(default_factory=list)
    suspects: list[Node] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


class Failover:
    """Tells the fleet what failed, and finds the next place within the request's and its model's bounds."""

    def __init__(self, fleet: Fleet, rules: RetryRules, max_attempts: int) -> None:
        """`max_attempts`: nodes that one request may try."""
        self.max_attempts = max_attempts
        self.rules = rules
        self._fleet = fleet
        self._budgets: dict[str | None, RetryBudget] = {}
        self._unreadable: set[tuple[str, str, str]] = set()
        """What was logged of unreadable answers: node, cause, place."""

    def budget(self, model: str | None) -> RetryBudget:
        """What requests for `model` may cost beyond their first tries."""
        budget = self._budgets.get(model)
        if budget is None:
            budget = self._budgets[model] = RetryBudget(self.rules, asyncio.get_running_loop().time())
        budget.rules = self.rules
        return budget

    def begin(self) -> Tries:
        return Tries(Attempts(self.max_attempts))

    def go_on(
        self, error: UpstreamError, lease: Lease, plan: Plan, tries: Tries, trace: Trace, route: Route
    ) -> Lease | None:
        """The lease to try again with: the same one (on a fresh connection), one of another node, or None to give up.

        Raises `FleetFull` where every node that was asked has said that its queue is full.
        """
        now = asyncio.get_running_loop().time()
        trace.failures += ((lease.node.name, outcome(error)),)
        self._tell(error, lease.node, plan, tries, now)
        verdict = tries.attempts.judge(error, trace.answered)
        if verdict is Verdict.SAME_NODE:
            return lease
        if verdict is Verdict.GIVE_UP:
            return None
        tries.tried.append(lease.node)
        return self._another(error, plan, tries, trace, route, now)

    def _another(
        self, error: UpstreamError, plan: Plan, tries: Tries, trace: Trace, route: Route, now: float
    ) -> Lease | None:
        try:
            another = route.another(tries.tried)
        except Overloaded as full:
            if not tries.waits or len(tries.waits) < len(tries.tried):
                return None
            waits = [*tries.waits, *([full.retry_after] if isinstance(full, FleetFull) and full.retry_after else ())]
            raise FleetFull(
                "All nodes have as much to do as they can take: come back later.", retry_after=min(waits)
            ) from None
        if isinstance(error, FREE) or self.budget(plan.model).take(now):
            return another
        another.release()
        trace.retry_refused = True
        return None

    def _tell(self, error: UpstreamError, node: Node, plan: Plan, tries: Tries, now: float) -> None:
        if isinstance(error, ConnectFailed):
            node.refused(error.message, now)
        elif isinstance(error, NodeBusy):
            wait = error.retry_after or BUSY_SECONDS
            node.busy_until = now + wait
            tries.waits.append(wait)
        elif isinstance(error, _DOUBTFUL):
            if isinstance(error, UnreadableAnswer):
                self._log_unreadable(error, node)
            self._doubt(error, node, hash(plan.ask.raw), tries, now)

    def _doubt(self, error: UpstreamError, node: Node, request: int, tries: Tries, now: float) -> None:
        """Once two nodes have failed over one request, it is the request."""
        self._fleet.failed(node, error.message, request, now)
        tries.suspects.append(node)
        if len(tries.suspects) > 1:
            for suspect in tries.suspects:
                self._fleet.acquit(suspect, request, now)

    def _log_unreadable(self, error: UnreadableAnswer, node: Node) -> None:
        """Once for each cause: the rest is counted. Nothing of the answer is told, which may be a tenant's."""
        seen = (node.name, error.cause, error.place)
        if seen not in self._unreadable:
            self._unreadable.add(seen)
            log.warning("node_answer_unreadable", node=node.name, cause=error.cause, place=error.place)
