"""The work that a request adds to its node until its first byte, and what is learnt from that byte and the last."""

import asyncio

from gateway.core.routing.placement import Placement
from gateway.core.routing.selection import NodeScore
from gateway.core.usage.token_usage import Usage
from gateway.fleet.node import Node
from gateway.routing.shared_placement import SharedPlacement


class PendingPrefill:
    """Belongs to a lease. `first_byte` and `close` count once.

    A plain answer's first byte is its last one: there the work counts as done when it should be.
    """

    __slots__ = (
        "_alone",
        "_name",
        "_node",
        "_placement",
        "_sent",
        "_shared",
        "_stream",
        "_timer",
        "_ttft",
        "_waits",
        "placed",
    )

    def __init__(
        self,
        placement: Placement,
        shared: SharedPlacement | None,
        placed: NodeScore,
        name: bytes | None,
        node: Node,
        stream: bool,
        now: float,
        alone: bool = True,
    ) -> None:
        """`shared` and `name` where the choice was made there. `now` is loop time. `alone`: it has one answer."""
        self.placed = placed
        self._placement = placement
        self._shared = shared
        self._name = name
        self._node = node
        self._stream = stream
        self._alone = alone
        self._sent = now
        self._ttft: float | None = None
        self._waits = True
        self._timer: asyncio.TimerHandle | None = None
        if not stream and node.speed.pace is not None:
            seconds = (placed.ahead + placed.work) * node.speed.pace
            self._timer = asyncio.get_running_loop().call_later(seconds, self._done)

    @property
    def reason(self) -> str:
        """Why this node was chosen."""
        return self.placed.reason

    @property
    def cached(self) -> int:
        """Prompt tokens that were expected in the node's cache."""
        return self.placed.cached

    def first_byte(self, now: float) -> None:
        """It came at loop time `now`."""
        if self._waits and self._stream:
            self._ttft = now - self._sent
        self._done()

    def close(self, told: bool = False) -> None:
        """The lease is over, whether a byte came or not. `told`: all gateways hear of it with the end of the lease."""
        if self._timer is not None:
            self._timer.cancel()
        if told:
            self._shared = None
        self._end()

    def learn(self, usage: Usage | None) -> None:
        """The answer has just ended. What the node says that it had in its cache tells how fast it computed the rest,
        and what it made how fast it makes tokens."""
        if self._ttft is None or usage is None:
            return
        placed = self.placed
        if self._alone:
            seconds = asyncio.get_running_loop().time() - self._sent - self._ttft
            self._node.decode.learn(placed.crowd, usage.output - 1, seconds)
        if usage.input <= 0:
            return
        if usage.cached is not None:  # in the estimate's own tokens, since it is those that are weighed
            share = (usage.input - usage.cached) / usage.input
            self._node.speed.learn(placed.ahead, round((placed.work + placed.cached) * share), self._ttft)
        elif placed.cached == 0:
            self._node.speed.learn(placed.ahead, placed.work, self._ttft)

    def _done(self) -> None:
        if self._waits:
            self._end()
            if self._node.on_load is not None:
                self._node.on_load(self._node)

    def _end(self) -> None:
        if not self._waits:
            return
        self._waits = False
        self._placement.prefilled(self.placed)
        if self._shared is not None and self._name is not None:
            self._shared.prefilled(self._name)
