"""The queue: requests that wait for a place of their model, each until its turn.

Theory. Nodes have no queue of their own worth speaking of: what a node cannot run now waits here, where it can still be
put in order, given up or moved. One task for each model with waiting requests hands out places:

    event                                    what happens
    a request comes, and none waits          it asks for a place like any; where there is none, it waits
    a request comes, and others wait         it waits: none overtakes
    a place becomes free here                the request whose turn it is asks for it (core/admission/fair_order.py)
    a place becomes free elsewhere           the next poll finds it, `POLL` seconds later at the most
    it is the turn of another gateway's      Redis says so; the next poll asks again
    a place comes, and its request has left  the place is given back, and goes to the next one
    its deadline, its client, or a shutdown  the request leaves; it holds nothing by then

Between asking for a place and getting it others may come, leave, or be lifted over: the order is looked at again with
each question, and the answer is for the request that asked.

A request is refused where its expected wait is beyond what it may wait, or where the queue is at its bounds.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from math import ceil, inf

import structlog

from gateway.admission.turn_charge import TurnCharge
from gateway.admission.waiting import WaitingRequest
from gateway.core.admission.fair_order import UNIT, FairOrder, Turn
from gateway.core.admission.peers import PeerQueues, spell_facts
from gateway.core.admission.queue_facts import QueueFacts
from gateway.core.admission.service_classes import USUAL_CLASSES, ServiceClasses
from gateway.core.admission.service_time import ServiceTime
from gateway.core.admission.token_costs import TokenCosts
from gateway.core.errors import FleetFull, Overloaded, QueueFull
from gateway.core.plan import Plan
from gateway.fleet.node import AnotherLease, Lease
from gateway.routing.router import NodeChoice, Router
from gateway.routing.shared_placement import SharedTurn
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.failed_answers import deadline_exceeded

log = structlog.get_logger("fleetgate.admission")

POLL = 0.025
"""Seconds between two looks for a place while somebody waits."""

LONGEST_ADVICE = 3600.0
"""Seconds of `retry-after` at the most."""


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What may wait. `max_wait` in seconds, 0: nothing waits. `max_waiting` requests and `max_bytes` of their bodies,
    in one process; `tenant_share` of both for a single tenant. `comments`: seconds between two comments to a client
    that waits for a stream."""

    max_wait: float = 60.0
    max_waiting: int = 4096
    max_bytes: int = 1 << 28
    tenant_share: float = 0.5
    comments: float = inf
    classes: ServiceClasses = USUAL_CLASSES
    costs: TokenCosts = field(default_factory=TokenCosts)


class ModelQueue:
    """The waiting requests of one model, and how its places become free."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.order: FairOrder[WaitingRequest] = FairOrder()
        self.service = ServiceTime()
        self.peers = PeerQueues()
        self.free: list[str] = []
        """Nodes of which a place has become free since the last look."""
        self.woken = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        self.woken.set()


class RequestQueue:
    """All queues of one process. `size` and `held` (bytes of bodies) of all that wait."""

    def __init__(self, router: Router, rules: QueueRules) -> None:
        self.size = 0
        self.held = 0
        self.closing = False
        self.models: dict[str, ModelQueue] = {}
        self._router = router
        self._by_tenant: dict[str, tuple[int, int]] = {}
        """Requests and bytes that wait."""
        router.fleet.on_free = self._freed
        self.configure(rules)

    def configure(self, rules: QueueRules) -> None:
        """Go by `rules` from now on. What waits keeps its class and its deadline."""
        self.rules = rules
        for queue in self.models.values():
            queue.wake()

    def of(self, model: str) -> ModelQueue:
        queue = self.models.get(model)
        if queue is None:
            queue = self.models[model] = ModelQueue(model)
        return queue

    def holds_back(self, charge: TurnCharge) -> bool:
        """Whether a request that comes now has to wait: behind others, or since its class gives way to higher ones."""
        queue = self.models.get(charge.model)
        return queue is not None and (queue.order.size > 0 or charge.turn.service_class in self._yielding(queue))

    async def wait(
        self, plan: Plan, charge: TurnCharge, request: DownstreamRequest, deadline: float
    ) -> tuple[Lease, AnotherLease]:
        """A lease on a node, once it is this request's turn, and how to get another. `deadline` is loop time.

        Raises `FleetFull` or `QueueFull` where the request may not wait, or has waited too long; `ClientGone`, and
        `DeadlineExceeded`.
        """
        loop = asyncio.get_running_loop()
        queue = self.of(charge.model)
        ends = loop.time() + self.rules.max_wait
        self._check(queue, charge.turn, len(plan.ask.raw), min(deadline, ends) - loop.time())
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
        """Of each model of which places are counted."""
        now = self._router.now()
        return [
            QueueFacts(
                model,
                {each.name: queue.order.count(each.name) for each in self.rules.classes.all},
                queue.peers.waiting(now),
                self.expected_wait(queue),
                {
                    (waiter.turn.service_class, waiter.turn.tenant): queue.order.counter(waiter.turn.member) / UNIT
                    for waiter in queue.order.firsts()
                },
            )
            for model, queue in self.models.items()
            if model
        ]

    def close(self) -> None:
        """The process ends: nobody waits any longer."""
        self.closing = True
        for queue in self.models.values():
            for waiter in queue.order.everybody():
                waiter.end_with(FleetFull("The gateway is shutting down; retry.", retry_after=1.0))

    async def stop(self) -> None:
        tasks = [queue.task for queue in self.models.values() if queue.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Bounds

    def _check(self, queue: ModelQueue, turn: Turn, size: int, patience: float) -> None:
        """Raises the error of a request that may not wait."""
        rules = self.rules
        wait = self.expected_wait(queue, turn)
        if rules.max_wait <= 0 or self.closing:
            raise FleetFull(f"All nodes are at capacity; retry in {_advice(wait)} s.", retry_after=_advice(wait))
        tenant = turn.tenant
        count, held = self._by_tenant.get(tenant, (0, 0))
        share = rules.tenant_share
        if count >= max(1, rules.max_waiting * share) or held + size > rules.max_bytes * share:
            raise QueueFull(
                f"The tenant {tenant} has {count} requests waiting, which is its bound; retry in {_advice(wait)} s.",
                retry_after=_advice(wait),
            )
        if self.size >= rules.max_waiting or self.held + size > rules.max_bytes:
            raise FleetFull(
                f"All nodes are at capacity, and the queue is full; retry in {_advice(wait)} s.",
                retry_after=_advice(wait),
            )
        if wait > patience and wait != inf:
            raise FleetFull(
                f"All nodes are at capacity: the expected wait of {wait:.0f} s is longer than the "
                f"{max(0.0, patience):.0f} s that the request may wait; retry in {_advice(wait)} s.",
                retry_after=_advice(wait),
            )

    def expected_wait_for(self, model: str) -> float:
        """Seconds that a request for `model` waits for a place if it comes now; 0 where none waits, or too little is
        known."""
        queue = self.models.get(model)
        wait = 0.0 if queue is None else self.expected_wait(queue)
        return 0.0 if wait == inf else wait

    def expected_wait(self, queue: ModelQueue, turn: Turn | None = None) -> float:
        """Seconds that a request of `turn` would wait if it came now, or any request where None; infinite where too
        little is known of how long places are held."""
        places = self._places(queue)
        ahead = queue.order.size + queue.peers.waiting(self._router.now())
        wait = queue.service.wait_for(ahead, places)
        if turn is None:
            return wait if ahead else 0.0
        own = queue.order.count(turn.service_class, turn.tenant)
        return min(wait, queue.service.wait_for(own, places * self._share(queue, turn)))

    def _places(self, queue: ModelQueue) -> float:
        """The places of the model's ready nodes, as far as this process may use them."""
        return sum(node.bound for node in self._router.fleet.nodes if node.ready and queue.model in node.cards)

    def _share(self, queue: ModelQueue, turn: Turn) -> float:
        """The part of the places that a tenant gets, by the shares of all that wait here."""
        classes = {turn.service_class: turn.class_share}
        tenants = {turn.member: turn.tenant_share}
        for waiter in queue.order.firsts():
            classes[waiter.turn.service_class] = waiter.turn.class_share
            if waiter.turn.service_class == turn.service_class:
                tenants[waiter.turn.member] = waiter.turn.tenant_share
        return turn.class_share / sum(classes.values()) * turn.tenant_share / sum(tenants.values())

    def _timed_out(self, seconds: float) -> FleetFull:
        return FleetFull(
            f"All nodes are at capacity, and no place became free within {seconds:g} s; retry in 1 s.", retry_after=1.0
        )

    # Those that wait

    def _add(self, queue: ModelQueue, waiter: WaitingRequest) -> None:
        queue.order.add(waiter)
        self.size += 1
        self.held += waiter.size
        count, held = self._by_tenant.get(waiter.turn.tenant, (0, 0))
        self._by_tenant[waiter.turn.tenant] = count + 1, held + waiter.size
        if queue.task is None or queue.task.done():
            queue.task = asyncio.create_task(self._hand_out(queue), name="queue")
        queue.wake()

    def _remove(self, queue: ModelQueue, waiter: WaitingRequest) -> None:
        queue.order.remove(waiter)
        self.size -= 1
        self.held -= waiter.size
        count, held = self._by_tenant[waiter.turn.tenant]
        if count == 1:
            del self._by_tenant[waiter.turn.tenant]
        else:
            self._by_tenant[waiter.turn.tenant] = count - 1, held - waiter.size

    def _leave(self, queue: ModelQueue, waiter: WaitingRequest) -> None:
        """It ends without a place; where one came at the same time, that is given back."""
        waiter.end_with(FleetFull("The request has left the queue."))  # no place comes from now on
        if waiter.granted is not None:
            waiter.granted.release()
            self.correct(waiter.charge, 0.0)

    # Places

    def _freed(self, lease: Lease) -> None:
        """A request has ended."""
        node = lease.node
        if not node.bounded:
            return
        for model in node.cards:
            queue = self.of(model)
            queue.service.note(self._router.now() - lease.began)
            if queue.order.size:
                queue.free.append(node.name)
                queue.wake()

    async def _hand_out(self, queue: ModelQueue) -> None:
        """Give places to those whose turn it is, as long as somebody waits."""
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

    async def _serve_next(self, queue: ModelQueue) -> bool:
        """Ask for a place for the request whose turn it is; whether it got one."""
        near = queue.free.pop(0) if queue.free else None
        waiter = queue.order.next(self._yielding(queue), near)
        if waiter is None:
            return False
        choice = None
        try:
            turn = self._shared_turn(queue, waiter)
            choice = self._router.choose(waiter.plan, waiter.turn.tenant, waiter.headers, turn)
            lease = await choice.lease()
        except Overloaded:
            self._take_over(queue, choice)
            return False
        except BaseException:
            if choice is not None:
                choice.cancel()
            raise
        self._take_over(queue, choice)
        if waiter.place.done():  # it left while Redis was asked
            lease.release()
            queue.order.charge(waiter.turn, waited=True)
            self.correct(waiter.charge, 0.0)
            return True
        queue.order.charge(waiter.turn, waited=True)
        queue.order.remove(waiter)
        waiter.give(lease, choice.another)
        return True

    # Turns

    def charge(self, charge: TurnCharge, choice: NodeChoice) -> None:
        """A request that had not to wait has got the place that was chosen. Where Redis chose it, all gateways know."""
        if choice.answer is None or choice.answer.score is None:
            self.of(charge.model).order.charge(charge.turn, waited=False)

    def correct(self, charge: TurnCharge, tokens: float) -> None:
        """The request of `charge` has used `tokens` in place of those that were planned."""
        turn, model = charge.turn, charge.model
        of_class, of_tenant = self.of(model).order.correct(turn, tokens)
        places = self._router.places
        if places is not None and places.known:
            places.correct(model, turn.service_class, of_class)
            places.correct(model, turn.member, of_tenant)

    def _take_over(self, queue: ModelQueue, choice: NodeChoice | None) -> None:
        """What Redis said of the order of all gateways."""
        answer = None if choice is None else choice.answer
        if answer is None or not answer.known:
            return
        for name in answer.counters:
            queue.order.lifted.pop(name, None)
        queue.order.refresh(answer.counters, answer.floors)
        queue.peers.update(answer.others, self._router.now())

    def _shared_turn(self, queue: ModelQueue, waiter: WaitingRequest) -> SharedTurn:
        order = queue.order
        waiter.charge.plan()
        waiting = {each.name: order.count(each.name) for each in self.rules.classes.all}
        names = {name: order.lifted.get(name, 0) for name in order.names[:MOST_REFRESHED]}
        return SharedTurn(waiter.plan.model or "", waiter.turn, f"{order.size}|{spell_facts(waiting)}", names)

    def _yielding(self, queue: ModelQueue) -> set[str]:
        """The classes that get no place now, since higher ones wait too long."""
        now, found, above = self._router.now(), set(), 0
        for each in self.rules.classes.all:
            yields_at = inf if each.yields_at is None or not above else each.yields_at
            if queue.service.wait_for(above - 1, self._places(queue)) > yields_at:
                found.add(each.name)
            above += queue.order.count(each.name) + queue.peers.waiting(now, each.name)
        return found


MOST_REFRESHED = 128
"""Counters that one question to Redis brings up to date."""


def _advice(wait: float) -> int:
    """Whole seconds after which to come again."""
    return 1 if wait == inf else max(1, ceil(min(wait, LONGEST_ADVICE)))
