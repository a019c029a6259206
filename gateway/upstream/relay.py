"""Getting one answer out of a fleet: a node, a connection, an exchange, and another try where that is safe."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import structlog

from gateway.core.bodies import LARGE
from gateway.core.budgets.continuation import SLACK, Overshoot
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.errors import (
    ClientGone,
    GatewayError,
    NodeFailed,
    NodeLeaving,
    ShuttingDown,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.core.plan import Plan
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.attempts import RetryRules
from gateway.core.upstream.node_request import node_request, node_request_steps
from gateway.core.upstream.node_request_kinds import BudgetReport, NodeRequest
from gateway.fleet.fleet import Fleet
from gateway.fleet.hang_detection import silent_at
from gateway.fleet.node import AnotherLease, Lease, Node
from gateway.telemetry.shortages import ResourceShortages
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.exchange import Exchange
from gateway.upstream.failed_answers import pass_on
from gateway.upstream.failover import Failover, RequestTries
from gateway.upstream.node_pools import NodePools
from gateway.upstream.sweep import TimeoutSweep
from gateway.upstream.timeouts import UpstreamTimeouts

log = structlog.get_logger("fleetgate.relay")

Done = TypeVar("Done")


class AttemptPart(NamedTuple):
    """One request of an attempt; `carried` is the filter of the answer that it continues, None for the first."""

    sending: NodeRequest
    method: str
    path: str
    body: bytes
    carried: StreamFilter | None = None


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How long exchanges may take, how many nodes a request may try, what retries may cost a model, and by how much
    a node may overshoot a thinking budget before it counts as one that holds none."""

    timeouts: UpstreamTimeouts
    max_attempts: int
    retries: RetryRules
    overshoot: Overshoot = SLACK


class Relay:
    """The data plane: the connections to all nodes, and the exchanges that are open now."""

    def __init__(self, fleet: Fleet, settings: RelaySettings, shortages: ResourceShortages) -> None:
        self.large = asyncio.Lock()
        """Held by who does a step with a large body: what is done with one keeps all streams waiting meanwhile."""
        self.failover = Failover(fleet, settings.retries, settings.max_attempts)
        self._fleet = fleet
        self.pools = NodePools(shortages)
        self._open: TimeoutSweep[Exchange] = TimeoutSweep()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.configure(settings)

    def configure(self, settings: RelaySettings) -> None:
        """Go by `settings` from now on; an exchange keeps the times that it began with."""
        self.timing = settings.timeouts
        self.overshoot = settings.overshoot
        self.failover.configure(settings.retries, settings.max_attempts)

    async def serve(
        self,
        plan: Plan,
        call: DownstreamRequest,
        stats: RequestStats,
        deadline: float,
        lease: Lease,
        another: AnotherLease,
        method: str = "POST",
        path: str | None = None,
    ) -> None:
        """Answer `call` from the node of `lease`, or of `another(tried)` where that is safe; raises the `GatewayError`
        that the client has to be told. All leases are released.

        `deadline` is loop time (infinite: none). `stats` are filled in as things happen, also when this raises.
        """
        tries: RequestTries | None = None
        fresh = False
        leg: AttemptPart | None = None
        try:
            self.failover.budget(plan.model).requests += 1
            while True:
                stats.node = lease.node.name
                placed = lease.prefill
                stats.route = None if placed is None else placed.reason
                stats.expected_cached = None if placed is None else placed.cached
                stats.attempts += 1
                try:
                    if leg is None:
                        if len(plan.body) <= LARGE:
                            sending = node_request(plan, lease.node.tag, lease.node.capabilities, self.overshoot)
                        else:
                            sending = await self._prepare_large(plan, lease.node, call)
                        leg = AttemptPart(sending, method, path or sending.path, sending.body)
                    while leg is not None:
                        leg = await self._attempt(leg, lease, call, stats, deadline, fresh, plan.model)
                    if stats.node_failed:  # in mid-answer: by its own fault, or by the request's
                        lease.node.doubt("a stream ended with the node's own error")
                    elif tries is not None:
                        self.failover.conclude(tries, lease)
                    return None
                except UpstreamError as error:
                    tries = tries or self.failover.tries()
                    again = self.failover.next_lease(error, lease, plan, tries, stats, another)
                    if again is None:
                        if isinstance(error, NodeFailed) and error.answer is not None:
                            return pass_on(error.answer, call, stats)
                        raise
                    stats.begin_again()
                    fresh = again is lease
                    if again is not lease:
                        lease.release()
                        lease = again
                        if leg is not None and leg.carried is None:
                            leg = None  # what is sent depends on the node, until an answer has begun
        finally:
            lease.release()
            if lease.prefill is not None:
                lease.prefill.learn(stats.reported)

    @property
    def open_exchanges(self) -> int:
        return len(self._open)

    def close_all(self) -> None:
        """The shutdown's deadline has passed: end what is still open, each with an error its client can read."""
        self._closing = True
        for exchange in self._open:
            exchange.fail(shutting_down())

    def end_on(self, node: Node) -> None:
        """A drained node's time is up: what waits goes elsewhere, what has begun ends with an error."""
        for exchange in self._open:
            if exchange.lease.node is node:
                exchange.fail(NodeLeaving("The node was drained before its answer was complete; retry."))

    async def _prepare_large(self, plan: Plan, node: Node, call: DownstreamRequest) -> NodeRequest:
        """`node_request` in steps, one body at a time."""
        async with self.large:
            return await in_turns(node_request_steps(plan, node.tag, node.capabilities, self.overshoot), call)

    async def _attempt(
        self,
        leg: AttemptPart,
        lease: Lease,
        call: DownstreamRequest,
        stats: RequestStats,
        deadline: float,
        fresh: bool,
        model: str | None,
    ) -> AttemptPart | None:
        """One request on the lease's node; returns the next one where the answer goes on with another. `model` is None
        where no new work is asked for."""
        loop = self._loop
        if loop is None:  # once: to ask for it is a system call
            loop = self._loop = asyncio.get_running_loop()
        node = lease.node
        pool, connection = await self.pools.connection(node, self.timing.connect, deadline, fresh, loop)
        new = model is not None and leg.carried is None
        if call.gone or self._closing or (new and node.closed):  # looked at again, now that there is a connection
            connection.abort()
            raise self._refusal(call)
        exchange = Exchange(
            leg.sending, call, connection, self.timing, stats, deadline, loop, lease, leg.carried, self._check_hang
        )
        self._open.add(exchange, loop)
        try:
            head = pool.head(leg.method, leg.path, call.headers, len(leg.body))
            stats.sent = True
            connection.send((head, leg.body), exchange)
            turn = await exchange.done
        except GatewayError:
            raise
        except BaseException:  # cancelled, or nothing was sent
            exchange.stop()
            raise
        finally:
            self._open.discard(exchange)
        verdict = leg.sending.budget_report
        if verdict is not None and leg.carried is None:
            self._record_budget_report(verdict, node, stats)
        if turn is None:
            return None
        stats.answered = False
        return AttemptPart(leg.sending, "POST", turn.path, turn.body, exchange.stream_filter)

    def _refusal(self, call: DownstreamRequest) -> GatewayError:
        """Why nothing is sent."""
        if call.gone:
            return ClientGone("The client closed its connection.")
        return shutting_down() if self._closing else NodeLeaving("The node was drained; retry.")

    def _record_budget_report(self, verdict: BudgetReport, node: Node, stats: RequestStats) -> None:
        """What an answer showed of the node's thinking."""
        if verdict.pace is not None:
            node.keep_pace(verdict.pace)
        if verdict.overran:
            stats.overran = True
            if verdict.evidence and node.capabilities.native_budget and node.suspect_budget():
                log.warning("thinking_budget_overrun", node=node.name, remedy="none needed: its canary runs again")

    def _check_hang(self, node: Node, now: float) -> float:
        """Whether `node` hangs: then what waits there goes elsewhere. Returns the loop time to look again."""
        due = silent_at(node, now, self.timing.silence, self.timing.prefill)
        if due > now:
            return min(due, now + self.timing.silence)
        if self._fleet.fell_silent(node, now):
            for exchange in self._open:
                if exchange.lease.node is node and exchange.waits:
                    exchange.fail(UpstreamTimeout("The node hangs, all its answers have stalled; retry."))
        return now + self.timing.silence


async def in_turns(steps: Iterator[Done | None], call: DownstreamRequest) -> Done:
    """The last of `steps`, with a turn of the event loop for others after each. Raises `ClientGone` once the client has
    left."""
    done: Done | None = None
    for step in steps:
        done = step
        await asyncio.sleep(0)
        if call.gone:
            raise ClientGone("The client closed its connection.")
    assert done is not None
    return done


def shutting_down() -> GatewayError:
    """What a request ends with that the process does not outlive."""
    return ShuttingDown("The gateway is shutting down; retry in 1 s.", code="shutting_down", retry_after=1.0)
