"""Acts on nodes that hang: takes them out, and moves their requests."""

from gateway.core.errors import UpstreamTimeout
from gateway.fleet.fleet import Fleet
from gateway.fleet.hang_detection import silent_at
from gateway.fleet.node import Node
from gateway.upstream.exchange_timer import ExchangeTimer
from gateway.upstream.sweep import TimeoutSweep
from gateway.upstream.timeouts import UpstreamTimeouts


class HangWatch:
    """Called by the timers of `exchanges`, the open ones of one relay."""

    def __init__(self, fleet: Fleet, exchanges: TimeoutSweep[ExchangeTimer]) -> None:
        self._fleet = fleet
        self._exchanges = exchanges

    def has_another(self, node: Node) -> bool:
        """Whether what is moved away from `node` has somewhere to go."""
        return self._fleet.has_another(node)

    def check(self, node: Node, now: float, timing: UpstreamTimeouts) -> float:
        """Move the requests of `node` if it hangs. Returns the loop time of the next check."""
        due = silent_at(node, now, timing.node_hang, timing.prefill)
        if due > now:
            return min(due, now + timing.node_hang)
        self.hangs(node, now)
        return now + timing.node_hang

    def hangs(self, node: Node, now: float) -> None:
        """`node` hangs: take it out, and fail what waits on it and what can be resumed, if there is another node. What
        a slow client keeps from being read is left alone: more of it may have come."""
        if not self._fleet.fell_silent(node, now):
            return
        for timer in self._exchanges:
            exchange = timer.exchange
            can_move = exchange.waits or (exchange.resumable and not exchange.progress.paused)
            if can_move and exchange.lease.node is node:
                exchange.fail(UpstreamTimeout("The node hangs, all its answers have stalled; retry."))
