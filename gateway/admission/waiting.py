"""A request that waits for a place, and what its client sees meanwhile."""

import asyncio
from collections.abc import Mapping
from math import inf

from gateway.admission.turn_charge import TurnCharge
from gateway.aio.inline_future import InlineFuture
from gateway.core.admission.fair_order import Turn
from gateway.core.errors import ClientGone, GatewayError
from gateway.core.http.sse import KEEP_ALIVE, PING
from gateway.core.plan import Plan
from gateway.fleet.node import AnotherLease, Lease
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.request_heads import STREAM_HEADERS, STREAM_TYPE


class WaitingRequest:
    """`place` comes to the lease, or to the error that the wait ends with. It is the listener of its client meanwhile.

    `size`: bytes of its body. `home`: the node where its conversation was last.
    """

    __slots__ = (
        "_comments",
        "_loop",
        "_timers",
        "charge",
        "granted",
        "headers",
        "home",
        "passed",
        "place",
        "plan",
        "request",
        "size",
    )

    def __init__(
        self,
        plan: Plan,
        charge: TurnCharge,
        home: str | None,
        request: DownstreamRequest,
        comments: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`comments`: seconds between two comments to a client that gets a stream; infinite for none."""
        self.plan = plan
        self.charge = charge
        self.home = home
        self.request = request
        self.headers: Mapping[bytes, bytes] = request.headers
        self.size = len(plan.ask.raw)
        self.granted: Lease | None = None
        """The lease that came, set before `place`."""
        self.place: InlineFuture[tuple[Lease, AnotherLease]] = InlineFuture(loop)
        self._loop = loop
        self._comments = comments if plan.ask.stream and plan.dialect.output_fields else inf
        self.passed = 0
        self._timers: list[asyncio.TimerHandle] = []
        request.listener = self
        if self._comments != inf:
            self._timers.append(loop.call_later(self._comments, self._comment))

    @property
    def turn(self) -> Turn:
        return self.charge.turn

    def end_with(self, error: Exception) -> None:
        """The wait is over, without a place. What is no `GatewayError` becomes an internal error (`RequestRecord`)."""
        if not self.place.done():
            self.place.set_exception(error)

    def give(self, lease: Lease, another: AnotherLease) -> None:
        """The last thing to do where it is called: the request goes on within."""
        self.granted = lease
        self.place.set_result((lease, another))

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self.request.listener is self:
            self.request.listener = None

    def end_at(self, when: float, error: GatewayError) -> None:
        """End the wait with `error` at loop time `when`, unless it is over before."""
        self._timers.append(self._loop.call_at(when, self.end_with, error))

    # The listener of the client

    def on_gone(self) -> None:
        self.end_with(ClientGone("The client closed its connection."))

    def on_full(self) -> None:
        pass  # a comment is all that is written

    def on_writable(self) -> None:
        pass

    def _comment(self) -> None:
        """Keep the connection alive: load balancers would cut it."""
        if self.place.done() or self.request.gone:
            return
        if not self.request.started:
            self.request.start(200, [(b"content-type", STREAM_TYPE + b"; charset=utf-8"), *STREAM_HEADERS], stream=True)
        self.request.push(PING if self.plan.dialect.anthropic else KEEP_ALIVE)
        self._timers[0] = self._loop.call_later(self._comments, self._comment)
