"""The queue of one model: its waiting requests, their order, and what is known of how its places become free."""

import asyncio
from collections import deque
from math import inf

from gateway.admission.waiting import WaitingRequest
from gateway.core.admission.fair_order import UNIT, FairOrder, Turn
from gateway.core.admission.peers import PeerQueues, spell_facts
from gateway.core.admission.queue_facts import QueueFacts
from gateway.core.admission.service_classes import ServiceClasses
from gateway.core.admission.service_time import ServiceTime
from gateway.fleet.fleet import Fleet
from gateway.routing.node_choice import NodeChoice
from gateway.routing.shared_placement import SharedTurn

MOST_REFRESHED = 128
"""Counters that one question to Redis brings up to date."""

MOST_FREE = 64
"""Places that became free and are remembered, to look for conversations that were there."""


class ModelQueue:
    """The waiting requests of one model. Those that only the node tagged `pinned_to` can serve have a queue of their
    own: they would hold up all others while that node is full."""

    def __init__(self, fleet: Fleet, model: str, pinned_to: bytes | None) -> None:
        self.model = model
        self.pinned_to = pinned_to
        self.order: FairOrder[WaitingRequest] = FairOrder()
        self.service = ServiceTime()
        self.peers = PeerQueues()
        self.free: deque[str] = deque(maxlen=MOST_FREE)
        """Nodes of which a place has become free since the last look."""
        self.woken = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.none_since: float | None = None
        """Since when no node has served the model, while requests wait."""
        self._fleet = fleet

    def place_freed(self, node: str) -> None:
        if self.order.size:
            self.free.append(node)
            self.woken.set()

    def expected_wait(self, now: float, turn: Turn | None = None) -> float:
        """Seconds that a request of `turn` would wait if it came now, or any request where None; infinite where too
        little is known of how long places are held."""
        ahead = self.order.size + self.peers.waiting(now)
        if turn is None and not ahead:
            return 0.0
        places = self._places
        wait = self.service.wait_for(ahead, places)
        if turn is None:
            return wait
        own = self.order.count(turn.service_class, turn.tenant)
        return min(wait, self.service.wait_for(own, places * self._share(turn)))

    def yielding(self, classes: ServiceClasses, now: float) -> set[str]:
        """The classes that get no place now, since requests of higher ones wait too long."""
        found: set[str] = set()
        if not self.order.size and not self.peers.waiting(now):
            return found
        above, places = 0, self._places
        for each in classes.all:
            yields_at = inf if each.yields_at is None or not above else each.yields_at
            if self.service.wait_for(above - 1, places) > yields_at:
                found.add(each.name)
            above += self.order.count(each.name) + self.peers.waiting(now, each.name)
        return found

    def shared_turn(self, waiter: WaitingRequest, classes: ServiceClasses) -> SharedTurn:
        """What Redis is told with the question for a place for `waiter`."""
        order = self.order
        waiter.charge.plan()
        waiting = {each.name: order.count(each.name) for each in classes.all}
        # Others would leave free places to a pinned request, which can use none of them.
        mine = 0 if self.pinned_to is not None else order.count(waiter.turn.service_class, waiter.turn.tenant)
        told = f"{mine}|{order.slack}|{spell_facts(waiting)}"
        return SharedTurn(self.model, waiter.turn, told, order.names(MOST_REFRESHED))

    def take_over(self, choice: NodeChoice | None, now: float) -> None:
        """What Redis has said of the order of all gateways."""
        answer = None if choice is None else choice.answer
        if answer is None or not answer.known:
            return
        self.order.begun -= answer.counters.keys()
        self.order.refresh(answer.counters, answer.floors)
        self.peers.update(answer.others, now)

    def facts(self, classes: ServiceClasses, now: float) -> QueueFacts:
        order = self.order
        counters = {
            (waiter.turn.service_class, waiter.turn.tenant): order.counter(waiter.turn.member) / UNIT
            for waiter in order.firsts()
        }
        waiting = {each.name: order.count(each.name) for each in classes.all}
        return QueueFacts(self.model, waiting, self.peers.waiting(now), self.expected_wait(now), counters)

    @property
    def _places(self) -> float:
        """The places of the model's ready nodes, as far as this process may use them."""
        return self._fleet.places(self.model)

    def _share(self, turn: Turn) -> float:
        """The part of the places that a tenant gets, by the shares of all that wait here."""
        classes = {turn.service_class: turn.class_share}
        tenants = {turn.member: turn.tenant_share}
        for waiter in self.order.firsts():
            classes[waiter.turn.service_class] = waiter.turn.class_share
            if waiter.turn.service_class == turn.service_class:
                tenants[waiter.turn.member] = waiter.turn.tenant_share
        return turn.class_share / sum(classes.values()) * turn.tenant_share / sum(tenants.values())
