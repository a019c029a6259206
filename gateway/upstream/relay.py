"""Answers a request from the fleet: a node, a connection, an exchange, and another attempt where that is safe."""

import asyncio
import random
import time
from dataclasses import dataclass
from functools import partial
from math import inf

import structlog

from gateway.core.body_edits import insert_fields
from gateway.core.budgets.continuation import SLACK, Overshoot
from gateway.core.errors import (
    ClientGone,
    FleetFull,
    GatewayError,
    NodeFailed,
    NodeLeaving,
    StreamLost,
    UpstreamError,
)
from gateway.core.plan import Plan
from gateway.core.resume.budget import Resumes
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.resume.followed_request import GENERATING
from gateway.core.resume.resumability import RESUMABLE_HEADER, USUAL_RULES, Resumability, ResumeRules
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.attempts import RetryRules, outcome
from gateway.core.upstream.node_request import node_request, node_request_steps
from gateway.core.upstream.node_request_kinds import BudgetReport, NodeRequest
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import AnotherLease, Lease, Node
from gateway.telemetry.shortages import ResourceShortages
from gateway.telemetry.tracer import new_span
from gateway.upstream.attempt_part import AttemptPart
from gateway.upstream.downstream import DownstreamRequest, in_turns
from gateway.upstream.exchange import Exchange
from gateway.upstream.exchange_timer import ExchangeTimer
from gateway.upstream.failed_answers import deadline_exceeded, pass_on, shutting_down
from gateway.upstream.failover import Failover, RequestTries
from gateway.upstream.hang_watch import HangWatch
from gateway.upstream.node_pools import NodePools
from gateway.upstream.place_wait import check_waiting, wait_for_place
from gateway.upstream.resume_budgets import ResumeBudgets
from gateway.upstream.resumption import AnswerResumption
from gateway.upstream.sweep import TimeoutSweep
from gateway.upstream.timeouts import UpstreamTimeouts

log = structlog.get_logger("fleetgate.relay")


PRIORITISED = (*GENERATING, "/v1/responses")
"""The requests that vLLM takes a `priority` in."""


def node_id_line(request_id: str) -> bytes:
    """The header that names the request in a node's engine. Clients choose ids, and an engine that is given one twice
    at a time mixes them up: so no two are the same."""
    return b"x-request-id: %b-%08x\r\n" % (request_id.encode(), random.getrandbits(32))


RESUMABLE = {each: ((RESUMABLE_HEADER.encode(), each.value.encode()),) for each in Resumability}


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How long exchanges may take, how many nodes a request may try, what retries and resumes may cost a model, and by
    how much a node may overshoot a thinking budget before it counts as one that holds none."""

    timeouts: UpstreamTimeouts
    max_attempts: int
    retries: RetryRules
    overshoot: Overshoot = SLACK
    resume: ResumeRules = USUAL_RULES
    request_ids: bool = False
    """Whether nodes are told the request's id."""


class Relay:
    """The data plane: the connections to all nodes, and the timers of the open exchanges."""

    def __init__(self, fleet: Fleet, settings: RelaySettings, shortages: ResourceShortages) -> None:
        self.large = asyncio.Lock()
        """Held for each request with a large body while it is prepared: every step of that delays all streams."""
        self.failover = Failover(fleet, settings.retries, settings.max_attempts)
        self.resumes = ResumeBudgets(settings.resume)
        self.pools = NodePools(shortages)
        self._open: TimeoutSweep[ExchangeTimer] = TimeoutSweep()
        self._hangs = HangWatch(fleet, self._open)
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.configure(settings)

    def configure(self, settings: RelaySettings) -> None:
        """Go by `settings` from now on; an exchange keeps the times that it began with."""
        self.timing = settings.timeouts
        self.overshoot = settings.overshoot
        self._request_ids = settings.request_ids
        self.failover.configure(settings.retries, settings.max_attempts)
        self.resumes.configure(settings.resume)

    async def serve(
        self,
        plan: Plan,
        request: DownstreamRequest,
        stats: RequestStats,
        deadline: float,
        lease: Lease,
        another: AnotherLease,
        method: str = "POST",
        path: str | None = None,
    ) -> None:
        """Answer `request` from the node of `lease`, or of `another(tried)` where that is safe. Raises the
        `GatewayError` that the client has to be sent. All leases are released.

        `deadline` is loop time (infinite: none). `stats` are filled in as things happen, also when this raises.
        """
        tries: RequestTries | None = None
        resumption: AnswerResumption | None = None
        fresh = False
        part: AttemptPart | None = None
        failed: UpstreamError | None = None
        costs = self.failover.budget(plan.model)
        costs.requests += 1
        costs.open += 1
        try:
            while True:
                failed = None
                stats.node = lease.node.name
                placed = lease.prefill
                stats.route = None if placed is None else placed.reason
                stats.expected_cached = None if placed is None else placed.cached
                stats.attempts += 1
                if stats.trace is not None:
                    resumes = resumption is not None and part is not None and part.resumption is not None
                    stats.trace.begin_attempt(lease.node.name, new_span(), time.perf_counter(), resumes)
                try:
                    if part is None:
                        prepared = (
                            node_request(plan, lease.node.tag, lease.node.capabilities, self.overshoot)
                            if not plan.ask.long
                            else await self._prepare_large(plan, lease.node, request)
                        )
                        if plan.resumes and plan.ask.stream and stats.attempts == 1:
                            request.add_headers(RESUMABLE[prepared.resumability])
                        part = AttemptPart(prepared, method, path or prepared.path, prepared.body)
                    while part is not None:
                        part = await self._attempt(part, lease, request, stats, deadline, fresh, plan.model)
                    if stats.trace is not None:
                        stats.trace.end_attempt("failed" if stats.node_failed else "passed", time.perf_counter())
                    if resumption is not None:
                        resumption.ended()
                    if stats.node_failed:  # in mid-answer: by its own fault, or by the request's
                        lease.node.doubt("a stream ended with the node's own error")
                    elif tries is not None:
                        self.failover.conclude(tries, lease)
                    return None
                except UpstreamError as error:
                    failed = error  # compiled, a handler must not wait: docs/architecture.md
                if stats.trace is not None:
                    stats.trace.end_attempt(outcome(failed), time.perf_counter())
                if part is not None and part.may_be_stale(failed, fresh):
                    fresh = True
                    continue
                tries = tries or self.failover.tries(self.resumes.deaths(plan.model))
                self.failover.record(failed, lease, tries, stats)
                if part is not None and (checkpoint := part.checkpoint(stats)) is not None:
                    if resumption is None:
                        comments = self.timing.keep_alive if part.comments else inf
                        limit = self.resumes.rules.max_resumes
                        bounds = Resumes(limit, tries.deaths, tries.number, tries.own)
                        resumption = AnswerResumption(self.resumes, bounds, request, stats, another, costs, comments)
                    gone_on = await self._go_on(failed, checkpoint, part, lease, resumption, plan.model, deadline)
                    if gone_on is not None:
                        lease, part = gone_on
                        fresh = False
                        continue
                if plan.kept is not None:
                    plan.kept.forget()
                again = self.failover.next_lease(failed, lease, plan, tries, stats, another)
                if again is None and tries.full:
                    lease.release()
                    again = await self._wait_for_another(tries, plan, request, another, deadline)
                if again is None:
                    if isinstance(failed, NodeFailed) and failed.answer is not None:
                        return pass_on(failed.answer, request, stats)
                    raise failed
                stats.begin_again()
                if resumption is not None:
                    resumption.begin_again()
                fresh = again is lease
                if again is not lease:
                    lease.release()
                    lease = again
                    if part is not None and part.carried is None:
                        part = None  # what is sent depends on the node, until an answer has begun
        finally:
            failed = None  # its traceback holds this frame
            costs.open -= 1
            lease.release()
            if lease.prefill is not None and not stats.resumes:
                lease.prefill.learn(stats.reported)

    async def _wait_for_another(
        self, tries: RequestTries, plan: Plan, request: DownstreamRequest, another: AnotherLease, deadline: float
    ) -> Lease:
        """The lease of another node, once one has a place. Raises `FleetFull` where none has in time."""
        ends = asyncio.get_running_loop().time() + self.resumes.rules.wait

        def check(now: float) -> None:
            check_waiting(request, self._closing, deadline, now)
            if now >= ends:
                raise FleetFull("Its node failed, and no other had a place in time; retry in 1 s.", retry_after=1.0)

        def look() -> Lease | None:
            return self.failover.look_again(tries, plan.model, another, self.resumes)

        return await wait_for_place(self.resumes, request, self.timing.keep_alive, look, check)

    async def _go_on(
        self,
        error: UpstreamError,
        checkpoint: Checkpoint,
        part: AttemptPart,
        lease: Lease,
        resumption: AnswerResumption,
        model: str | None,
        deadline: float,
    ) -> tuple[Lease, AttemptPart] | None:
        """Where and how the answer of `checkpoint`, which broke off with `error`, goes on. None where it does not, and
        can be asked for from its beginning. `lease` is released, but for that."""
        try:
            await resumption.judge(error, checkpoint, lease.node)
        except StreamLost as lost:
            if resumption.anew and lost.repeatable:
                return None
            raise
        lease.release()
        following, follow_up = await resumption.next_node(model, deadline)
        return following, AttemptPart(part.node_request, "POST", follow_up.path, follow_up.body, checkpoint, resumption)

    @property
    def open_exchanges(self) -> int:
        return len(self._open)

    def close_all(self) -> None:
        """Fail all open exchanges, each with an error for its client: the shutdown's deadline has passed."""
        self._closing = self.resumes.closing = True
        for timer in self._open:
            timer.exchange.fail(shutting_down())

    def exchanges_on(self, node: Node) -> list[Exchange]:
        """The open exchanges on `node`."""
        return [timer.exchange for timer in self._open if timer.exchange.lease.node is node]

    def exchanges_for(self, model: str) -> list[Exchange]:
        """The open exchanges in which `model` is asked."""
        return [timer.exchange for timer in self._open if timer.exchange.model == model]

    def end_on(self, node: Node) -> None:
        """Fail the exchanges on `node`, whose drain has reached its deadline: those that can go on elsewhere do."""
        for exchange in self.exchanges_on(node):
            exchange.leave(NodeLeaving("The node was drained before its answer was complete; retry."))

    async def _prepare_large(self, plan: Plan, node: Node, request: DownstreamRequest) -> NodeRequest:
        """`node_request` in steps, one body at a time."""
        async with self.large:
            return await in_turns(node_request_steps(plan, node.tag, node.capabilities, self.overshoot), request)

    async def _attempt(
        self,
        part: AttemptPart,
        lease: Lease,
        request: DownstreamRequest,
        stats: RequestStats,
        deadline: float,
        fresh: bool,
        model: str | None,
    ) -> AttemptPart | None:
        """One request on the lease's node; returns the follow-up that continues the answer, if any. `model` is None
        where no new work is asked for."""
        loop = self._loop
        if loop is None:  # once: asking for it is a system call
            loop = self._loop = asyncio.get_running_loop()
        node = lease.node
        if loop.time() >= deadline:  # while its body was prepared, say: the node need not begin
            raise deadline_exceeded()
        pool = self.pools.of(node)
        connection = None if fresh else pool.acquire()
        if connection is None:
            connection = await self.pools.connect(pool, self.timing.connect, deadline, loop)
        resumption = part.resumption
        new = model is not None and (part.carried is None or resumption is not None)
        if request.gone or self._closing or (new and node.closed):  # looked at again, now that there is a connection
            connection.abort()
            raise self._refusal(request)
        on_first = None
        if resumption is not None and part.path in GENERATING:
            on_first = partial(resumption.went_on, lease)
        exchange = Exchange(part.node_request, request, connection, stats, loop, lease, part.carried, on_first, model)
        timer = ExchangeTimer(exchange, self.timing, deadline, self._hangs)
        self._open.add(timer, loop)
        try:
            body = part.body
            if stats.priority and node.takes_priority and part.path in PRIORITISED:
                body = insert_fields(body, {"priority": stats.priority})
            trace, lines = stats.trace, stats.trace_lines
            if trace is not None:
                lines = trace.node_lines()
                trace.sent(time.perf_counter())
            if self._request_ids:
                lines += node_id_line(request.request_id)
            head = pool.head(part.method, part.path, request.headers, len(body), lines)
            stats.sent = True
            connection.send((head, body), exchange)
            follow_up = await exchange.done
        except GatewayError:
            part.stream_filter = exchange.stream_filter
            raise
        except BaseException:  # cancelled, or nothing was sent
            exchange.stop()
            raise
        finally:
            self._open.discard(timer)
        report = part.node_request.budget_report
        if report is not None and part.carried is None:
            self._record_budget_report(report, node, stats)
        if follow_up is None:
            return None
        stats.answered = False
        if resumption is not None and part.path in GENERATING:
            resumption = None
        return AttemptPart(
            part.node_request, "POST", follow_up.path, follow_up.body, exchange.stream_filter, resumption
        )

    def _refusal(self, request: DownstreamRequest) -> GatewayError:
        """The error of a request that is not sent."""
        if request.gone:
            return ClientGone("The client closed its connection.")
        return shutting_down() if self._closing else NodeLeaving("The node was drained; retry.")

    def _record_budget_report(self, report: BudgetReport, node: Node, stats: RequestStats) -> None:
        """Apply what an answer showed of its node's thinking."""
        if report.pace is not None:
            node.keep_pace(report.pace)
        if report.overran:
            stats.overran = True
            if report.evidence and node.capabilities.native_budget and node.suspect_budget():
                log.warning("thinking_budget_overrun", node=node.name, remedy="none needed: its canary runs again")
