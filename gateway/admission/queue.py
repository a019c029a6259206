"""The queue: requests that wait for a place of their model, each until its turn.

Theory. Nodes have no queue of their own worth speaking of: what a node cannot run now waits here, where it can still be
put in order, given up or moved. One task for each model with waiting requests hands out places:

    event                                    what happens
    a request comes, and none waits          it asks for a place like any; where there is none, it waits
    a request comes, and others wait         it waits: none overtakes
    a place becomes free here                the request whose turn it is asks for it (core/admission/fair_order.py)
    the same, and an answer that broke off   that answer gets it: it looks for one by itself
    waits for one, too (upstream/resumption)
    a place becomes free elsewhere           the next poll finds it, `POLL` seconds later at the most
    it is the turn of another gateway's      Redis says so; the next poll asks again
    a place comes, and its request has left  the place is given back, and goes to the next one
    its deadline, its client, or a shutdown  the request leaves; it holds nothing by then

Between asking for a place and getting it others may come, leave, or be lifted over: the order is looked at again with
each question, and the answer is for the request that asked.

A request is refused where its expected wait is beyond what it may wait, or where the queue is at its bounds
(`QueueBounds`).
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from math import inf

import structlog

from gateway.admission.model_queue import ModelQueue
from gateway.admission.queue_bounds import QueueBounds, QueueRules, full
from gateway.admission.turn_charge import TurnCharge
from gateway.admission.waiting import WaitingRequest
from gateway.core.admission.queue_facts import QueueFacts
from gateway.core.errors import FleetFull, NoNodeReady, Overloaded
from gateway.core.plan import Plan
from gateway.fleet.node import AnotherLease, Lease
from gateway.routing.node_choice import NodeChoice
from gateway.routing.router import Router
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.failed_answers import deadline_exceeded, shutting_down

log = structlog.get_logger("fleetgate.admission")

NO_NODE_SECONDS = 5.0
"""How long requests wait where no node serves their model."""

POLL = 0.025
"""Seconds between two looks for a place while somebody waits."""


class RequestQueue:
    """All queues of one process."""

    def __init__(self, router: Router, rules: QueueRules) -> None:
        self.bounds = QueueBounds(rules)
        self.closing = False
        self.queues: dict[tuple[str, bytes | None], ModelQueue] = {}
        """By model, and by the node where requests are pinned to one."""
        self.is_wanted: Callable[[str, float], bool] = lambda model, now: False
        """Whether a place of this model is wanted, at this loop time, by an answer that has begun already."""
        self._router = router
        self._turns = itertools.count()
        router.fleet.on_free = self._freed
        self.configure(rules)

    def configure(self, rules: QueueRules) -> None:
        """Go by `rules` from now on. What waits keeps its class and its deadline."""
        self.rules = self.bounds.rules = rules
        for queue in self.queues.values():
            queue.woken.set()

    def of(self, model: str, pinned_to: bytes | None = None) -> ModelQueue:
        queue = self.queues.get((model, pinned_to))
        if queue is None:
            queue = self.queues[model, pinned_to] = ModelQueue(self._router.fleet, model, pinned_to)
        return queue

    def holds_back(self, charge: TurnCharge, pinned_to: bytes | None) -> bool:
        """Whether a request that comes now has to wait: behind others, or since its class gives way to higher ones."""
        queue = self.queues.get((charge.model, pinned_to))
        if queue is None or queue.order.size:
            return queue is not None
        return charge.turn.service_class in queue.yielding(self.rules.classes, self._router.now())

    async def wait(
        self, plan: Plan, charge: TurnCharge, request: DownstreamRequest, deadline: float
    ) -> tuple[Lease, AnotherLease]:
        """A lease on a node, once it is this request's turn, and how to get another. `deadline` is loop time.

        Raises `FleetFull` or `QueueFull` where the request may not wait, or has waited too long; `ClientGone`, and
        `DeadlineExceeded`.
        """
        loop = asyncio.get_running_loop()
        queue = self.of(charge.model, plan.pinned_to)
        ends = loop.time() + self.rules.max_wait
        expected = queue.expected_wait(self._router.now(), charge.turn)
        if self.closing:
            raise full(expected)
        self.bounds.check(charge.turn, len(plan.ask.raw), expected, min(deadline, ends) - loop.time())
        home = self._router.home(plan, charge.turn.tenant, request.headers)
        waiter = WaitingRequest(plan, charge, home, request, self.rules.comments, loop)
        try:
            if deadline <= ends:
                waiter.end_at(deadline, deadline_exceeded())
            else:
                waiter.end_at(ends, self._timed_out(self.rules.max_wait))
            self._add(queue, waiter)
            if request.gone:
                waiter.on_gone()
            return await waiter.place
        except BaseException:
            self._leave(queue, waiter)
            raise
        finally:
            self._remove(queue, waiter)
            waiter.close()

    def facts(self) -> list[QueueFacts]:
        """Of each model of which places are counted. Requests that are pinned to a node are waiting, too."""
        now = self._router.now()
        found: dict[str, QueueFacts] = {}
        for queue in sorted(self.queues.values(), key=lambda each: each.pinned_to is not None):
            facts = queue.facts(self.rules.classes, now)
            before = found.get(queue.model)
            if before is not None:
                waiting = {name: count + before.waiting.get(name, 0) for name, count in facts.waiting.items()}
                facts = before._replace(waiting=waiting)
            if queue.model:
                found[queue.model] = facts
        return list(found.values())

    def close(self) -> None:
        """The process ends: nobody waits any longer."""
        self.closing = True
        for queue in self.queues.values():
            for waiter in queue.order.everybody():
                waiter.end_with(shutting_down())

    async def stop(self) -> None:
        tasks = [queue.task for queue in self.queues.values() if queue.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def expected_wait_for(self, model: str) -> float:
        """Seconds that a request for `model` waits for a place if it comes now; 0 where none waits, or too little is
        known."""
        queue = self.queues.get((model, None))
        wait = 0.0 if queue is None else queue.expected_wait(self._router.now())
        return 0.0 if wait == inf else wait

    def _timed_out(self, seconds: float) -> FleetFull:
        return FleetFull(
            f"All nodes are at capacity, and no place became free within {seconds:g} s; retry in 1 s.", retry_after=1.0
        )

    # Those that wait

    def _add(self, queue: ModelQueue, waiter: WaitingRequest) -> None:
        queue.order.add(waiter)
        self.bounds.add(waiter.turn.tenant, waiter.size)
        if queue.task is None or queue.task.done():
            queue.task = asyncio.create_task(self._hand_out(queue), name="queue")
        queue.woken.set()

    def _remove(self, queue: ModelQueue, waiter: WaitingRequest) -> None:
        queue.order.remove(waiter)
        self.bounds.remove(waiter.turn.tenant, waiter.size)

    def _leave(self, queue: ModelQueue, waiter: WaitingRequest) -> None:
        """It ends without a place; where one came at the same time, that is given back."""
        waiter.end_with(FleetFull("The request has left the queue."))  # no place comes from now on
        if waiter.granted is not None:
            waiter.granted.release()
            self.correct(waiter.charge, 0.0)

    # Places

    def _freed(self, lease: Lease) -> None:
        """A request on a node with a bound has ended."""
        node = lease.node
        if lease.model is not None and lease.answered:
            self.of(lease.model).service.note(self._router.now() - lease.began)
        models = list(node.cards)
        turn = next(self._turns) % len(models) if models else 0
        for model in models[turn:] + models[:turn]:  # each in turn: the first to be woken gets the place
            for pinned_to in (None, node.tag):
                queue = self.queues.get((model, pinned_to))
                if queue is not None:
                    queue.place_freed(node.name)

    async def _hand_out(self, queue: ModelQueue) -> None:
        """Give places to those whose turn it is, as long as somebody waits. The queue of a node goes with the last."""
        while queue.order.size:
            try:
                served = await self._serve_next(queue)
            except Exception:
                log.exception("background_task_failed", task="queue")
                served = False
            if not served:
                queue.woken.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await queue.woken.wait()
        if queue.pinned_to is not None:
            self.queues.pop((queue.model, queue.pinned_to), None)

    async def _serve_next(self, queue: ModelQueue) -> bool:
        """Ask for a place for the request whose turn it is; whether it got one."""
        if self.is_wanted(queue.model, self._router.now()):
            return False
        near = queue.free.popleft() if queue.free else None
        waiter = queue.order.next(queue.yielding(self.rules.classes, self._router.now()), near)
        if waiter is None:
            return False
        choice = None
        try:
            turn = queue.shared_turn(waiter, self.rules.classes)
            choice = NodeChoice(self._router, waiter.plan, waiter.turn.tenant, waiter.headers, turn)
            lease = await choice.lease()
        except BaseException as error:
            if choice is not None:  # what Redis chose may have left meanwhile
                choice.cancel()
            match error:
                case NoNodeReady():
                    self._none_ready(queue, error)
                case Overloaded():
                    queue.none_since = None
                    queue.take_over(choice, self._router.now())
                case Exception():  # it is this request's, and holds up no other
                    waiter.end_with(error)
                case _:
                    raise
            return False
        queue.none_since = None
        queue.take_over(choice, self._router.now())
        waiter.charge.shared = choice.answer is not None and choice.answer.score is not None
        if waiter.place.done():  # it left while Redis was asked
            lease.release()
            queue.order.charge(waiter.turn, waited=True)
            self.correct(waiter.charge, 0.0)
            return True
        queue.order.charge(waiter.turn, waited=True)
        queue.order.remove(waiter)
        waiter.give(lease, choice.another)
        return True

    def _none_ready(self, queue: ModelQueue, error: NoNodeReady) -> None:
        """No node serves the model. One may come back: requests wait for it, but not for long."""
        now = self._router.now()
        queue.none_since = queue.none_since or now
        if queue.pinned_to is not None or now >= queue.none_since + NO_NODE_SECONDS:
            queue.none_since = None
            for waiter in queue.order.everybody():
                waiter.end_with(NoNodeReady(error.message, code=error.code, retry_after=error.retry_after))

    # Turns

    def charge(self, charge: TurnCharge, choice: NodeChoice) -> None:
        """A request that had not to wait has got a place."""
        order = self.of(charge.model).order
        answer = choice.answer
        if answer is not None and answer.known:
            order.refresh({}, answer.floors)
        charge.shared = answer is not None and answer.score is not None
        order.charge(charge.turn, waited=False)

    def correct(self, charge: TurnCharge, tokens: float) -> None:
        """The request of `charge` has used `tokens` in place of those that were planned."""
        turn, model = charge.turn, charge.model
        of_class, of_tenant = self.of(model).order.correct(turn, tokens)
        groups = self._router.groups
        if groups is not None and charge.shared:
            places = groups.of(model).places
            places.correct(model, turn.service_class, of_class)
            places.correct(model, turn.member, of_tenant)
