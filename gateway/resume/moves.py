"""Moves: what will not end before a drain's deadline goes on on another node, in mid-answer and one by one.

    a drain's deadline   resumable exchanges                   those that wait: the      the others
                                                               client has nothing yet
    none                 stay                                  stay                      stay
    is to come           moved as `MoveSchedule` plans, where  stay, and may end         stay
                         another node has a place now
    comes                left: go on where a place is free     left: asked anew          ended
    had come already     moved within seconds, as above        moved in the same way     ended at once
    is taken back        stay                                  stay                      stay

A move ends the exchange with `NodeLeaving`; the relay does the rest, in the same call: it leases another node and asks
the checkpoint how to go on, or begins anew where nothing has come. Each process moves its own exchanges.
"""

import asyncio
from math import inf

import structlog

from gateway.core.errors import NodeLeaving
from gateway.core.resume.move_schedule import MoveSchedule
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.upstream.exchange import Exchange
from gateway.upstream.relay import Relay

log = structlog.get_logger("fleetgate.drains")

RESPITE = 0.25
"""Seconds until the other nodes are asked again where none has a place."""


class Moves:
    """The moves of all nodes that are drained by a deadline."""

    def __init__(self, fleet: Fleet, relay: Relay) -> None:
        self._fleet = fleet
        self._relay = relay
        self._departures: dict[Node, Departure] = {}

    def follow(self, node: Node) -> None:
        """Go by the node's drain, if any; to be called at every change of it, and every second or so meanwhile."""
        drain, found = node.drain, self._departures.get(node)
        if found is not None and (drain is None or not found.schedule.is_for(drain.until)):
            found.stop()
            del self._departures[node]
            found = None
        if drain is None or drain.until == inf:
            return
        if found is None:
            self._forget_left()
            schedule = MoveSchedule(asyncio.get_running_loop().time(), drain.until)
            found = self._departures[node] = Departure(node, schedule, self._fleet, self._relay)
        found.refresh()

    def stop(self) -> None:
        """Move nothing any more."""
        for departure in self._departures.values():
            departure.stop()
        self._departures.clear()

    def _forget_left(self) -> None:
        """Nobody follows the drain of a node that has left the fleet: its timer alone keeps to the deadline."""
        for node, departure in tuple(self._departures.items()):
            if node.left and departure.over:
                del self._departures[node]


class Departure:
    """One drain of one node."""

    __slots__ = ("_exchanges", "_fleet", "_loop", "_node", "_relay", "_timer", "over", "schedule")

    def __init__(self, node: Node, schedule: MoveSchedule, fleet: Fleet, relay: Relay) -> None:
        self._node = node
        self.schedule = schedule
        self.over = False
        """Whether its deadline has come, and what was left has been ended."""
        self._fleet = fleet
        self._relay = relay
        self._loop = asyncio.get_running_loop()
        self._exchanges: list[Exchange] = []
        """Those on the node when it was last refreshed, the last first: what has run for long may end by itself."""
        self._timer: asyncio.TimerHandle | None = None
        if schedule.overdue:
            self._end_fixed()

    def refresh(self) -> None:
        """See what runs on the node now, and do what is due."""
        self._exchanges = sorted(self._relay.exchanges_on(self._node), key=_beginning, reverse=True)
        self._step()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._exchanges = []

    def _step(self) -> None:
        """Move one exchange if that is due, and set the timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        drain = self._node.drain
        if drain is None or not self.schedule.is_for(drain.until):  # `follow` will be called
            return
        if self.schedule.over(now):
            self._end()
            return
        self._exchanges = [exchange for exchange in self._exchanges if not exchange.done.done()]
        movable = [exchange for exchange in self._exchanges if self._may_move(exchange)]
        due = self.schedule.next_move(len(movable)) if movable else inf
        if due <= now:
            due = self._move(movable, now)
        self._timer = self._loop.call_at(min(due, self.schedule.end), self._step)

    def _may_move(self, exchange: Exchange) -> bool:
        return exchange.resumable or (self.schedule.overdue and exchange.waits)

    def _move(self, movable: list[Exchange], now: float) -> float:
        """Move the first that another node has a place for. Returns when the next one is due."""
        for exchange in movable:
            if self._fleet.has_place_beside(self._node, exchange.model, now):
                self.schedule.moved(now)
                exchange.leave(NodeLeaving("The node is drained, so the answer goes on elsewhere."))
                return self.schedule.next_move(len(movable) - 1)
        return now + RESPITE

    def _end_fixed(self) -> None:
        """End what cannot go on elsewhere: the deadline had come before the drain was seen."""
        for exchange in self._relay.exchanges_on(self._node):
            if not self._may_move(exchange):
                exchange.leave(NodeLeaving("The node was drained before its answer was complete; retry."))

    def _end(self) -> None:
        """End what is left on the node."""
        self.over = True
        self._exchanges = []
        if self._node.leases:
            log.warning("drain_deadline_passed", node=self._node.name, ended=len(self._node.leases))
            self._relay.end_on(self._node)


def _beginning(exchange: Exchange) -> float:
    return exchange.lease.began
