"""The time limits of an exchange.

    limit                        counted                                  once it has passed
    deadline                     always                                   fails with `DeadlineExceeded`
    first byte, plain, idle      while the client has room                fails with `UpstreamTimeout`
    keep-alive                   of a stream, while the client has room   a comment is sent
    silence of the whole node    until the client has a byte              `check_hang` is called

Where load balancers would cut a connection that is silent for long, comments (pings in messages) keep it open; before
the first event, the client's head is sent ahead for them.

The relay's sweep checks a timer once `due` has come. Events do not move `due` (that would cost more than the event), so
it must not be set beyond the shortest limit that could apply by then.
"""

from collections.abc import Callable
from math import inf

from gateway.core.errors import UpstreamTimeout
from gateway.fleet.node import Node
from gateway.upstream.exchange import Exchange
from gateway.upstream.failed_answers import deadline_exceeded, unreadable
from gateway.upstream.timeouts import UpstreamTimeouts


class ExchangeTimer:
    """`due`: loop time of the next check."""

    __slots__ = ("_check_hang", "_check_hang_at", "_deadline", "_timing", "due", "exchange")

    def __init__(
        self, exchange: Exchange, timing: UpstreamTimeouts, deadline: float, check_hang: Callable[[Node, float], float]
    ) -> None:
        """`deadline`: loop time, infinite where the client gave none. `check_hang(node, now)` fails what waits on a
        node that hangs, and returns the loop time of the next such check."""
        self.exchange = exchange
        self._timing = timing
        self._deadline = deadline
        self._check_hang = check_hang
        now = exchange.progress.sent_at
        self._check_hang_at = now + timing.node_hang
        self.due = min(deadline, now + timing.shortest)

    def check(self, now: float) -> None:
        try:
            self._check(now)
        except Exception as error:  # noqa: BLE001 - what it raises ends this exchange, and no other
            self.exchange.fail(unreadable(error))

    def _check(self, now: float) -> None:
        exchange, progress = self.exchange, self.exchange.progress
        if now >= self._deadline:
            exchange.fail(deadline_exceeded())
        elif not progress.paused and now >= self._silent_at():
            exchange.fail(UpstreamTimeout(f"The node sent nothing for {now - progress.last_heard:.0f} s; retry."))
        elif not progress.paused and now >= self._comment_at():
            exchange.writer.comment(now)
        if exchange.waits and now >= self._check_hang_at and not exchange.done.done():
            self._check_hang_at = self._check_hang(exchange.lease.node, now)
        self.due = self._next_check(now)

    def _silent_at(self) -> float:
        """The loop time at which the node has been silent too long, given what it has sent so far."""
        exchange, timing = self.exchange, self._timing
        if exchange.answer_begun:
            return exchange.progress.last_heard + timing.idle
        if not exchange.asked_for_stream:
            return exchange.progress.sent_at + timing.non_streaming
        return exchange.progress.sent_at + timing.first_byte + timing.prefill * exchange.lease.tokens / 1000

    def _comment_at(self) -> float:
        """The loop time of the next comment."""
        progress = self.exchange.progress
        return max(progress.last_push, progress.last_chunk) + self._timing.keep_alive if self.exchange.streams else inf

    def _next_check(self, now: float) -> float:
        soon = now + self._timing.idle
        if self.exchange.progress.paused:  # the client has to read first: see `WriteStallTimer`
            return min(self._deadline, soon)
        check_hang_at = self._check_hang_at if self.exchange.waits else soon
        return min(self._deadline, soon, self._silent_at(), self._comment_at(), check_hang_at)
