"""The time limits of an exchange.

    limit                        counted                                  once it has passed
    deadline                     always                                   fails with `DeadlineExceeded`
    first byte, plain, idle      while the client has room                fails with `UpstreamTimeout`
    stall, of a tokenizer        the same                                 the same
    stall (see `stalls`)         of a resumable stream that has begun,    fails with `UpstreamTimeout`, or `hangs` of
                                 while the client has room                  `NodeWatch` is called
    keep-alive                   of a stream, while the client has room   a comment is sent
    silence of the whole node    until the client has a byte, or the      `check` of `NodeWatch` is called
                                 node's first one of a resumed answer

Where load balancers would cut a connection that is silent for long, comments (pings in messages) keep it open; before
the first event, the client's head is sent ahead for them.

The relay's sweep checks a timer once `due` has come. Events do not move `due` (that would cost more than the event), so
it is never set beyond the shortest limit.
"""

from math import inf
from typing import Protocol

from gateway.core.errors import UpstreamTimeout
from gateway.fleet.node import Node
from gateway.upstream.exchange import Exchange
from gateway.upstream.failed_answers import deadline_exceeded, unreadable
from gateway.upstream.stalls import hangs_at, is_alone, stalled_at
from gateway.upstream.timeouts import UpstreamTimeouts

RECHECK = 0.25
"""Seconds between two checks of a stream that may have stalled: what is known of its node changes meanwhile."""


class NodeWatch(Protocol):
    """What timers ask about their nodes, and tell of them (see `HangWatch`)."""

    def has_another(self, node: Node) -> bool: ...
    def check(self, node: Node, now: float, timing: UpstreamTimeouts) -> float:
        """Fail what can be moved if `node` hangs. Returns the loop time of the next such check."""

    def hangs(self, node: Node, now: float) -> None: ...


class ExchangeTimer:
    """`due`: loop time of the next check."""

    __slots__ = ("_check_hang_at", "_deadline", "_nodes", "_timing", "due", "exchange")

    def __init__(self, exchange: Exchange, timing: UpstreamTimeouts, deadline: float, nodes: NodeWatch) -> None:
        """`deadline`: loop time, infinite where the client gave none."""
        self.exchange = exchange
        self._timing = timing
        self._deadline = deadline
        self._nodes = nodes
        now = exchange.progress.sent_at
        self._check_hang_at = now + timing.node_hang
        self.due = min(deadline, now + timing.shortest)

    def check(self, now: float) -> None:
        try:
            self._check(now)
        except Exception as error:  # noqa: BLE001 - what it raises ends this exchange, and no other
            self.exchange.fail(unreadable(error))

    def _check(self, now: float) -> None:
        exchange = self.exchange
        if now >= self._deadline:
            exchange.fail(deadline_exceeded())
        elif not exchange.progress.paused:
            self._check_silence(now)
        if self._can_leave and now >= self._check_hang_at and not exchange.done.done():
            self._check_hang_at = self._nodes.check(exchange.lease.node, now, self._timing)
        self.due = self._next_check(now)

    @property
    def _can_leave(self) -> bool:
        """Whether the request waits for its node's first byte, and can go to another node meanwhile."""
        return self.exchange.waits or (self.exchange.resumable and not self.exchange.progress.begun)

    def _check_silence(self, now: float) -> None:
        exchange = self.exchange
        if now >= self._silent_at() or (now >= self._first_stall() and self._has_stalled(now)):
            silence = now - exchange.progress.last_heard
            exchange.fail(UpstreamTimeout(f"The node sent nothing for {silence:.0f} s; retry."))
        if now >= self._comment_at() and not exchange.done.done():
            exchange.writer.comment(now)

    def _has_stalled(self, now: float) -> bool:
        """Whether the stream has stalled and can go on somewhere. Where its node hangs, it fails with the rest."""
        progress, node, timing = self.exchange.progress, self.exchange.lease.node, self._timing
        another = self._nodes.has_another(node)
        if now >= stalled_at(progress, node, timing):
            return another or is_alone(progress, node)
        if another and now >= hangs_at(progress, node, timing, now):
            self._nodes.hangs(node, now)
        return False

    def _silent_at(self) -> float:
        """The loop time at which the node has been silent too long, given what it has sent so far."""
        exchange, timing = self.exchange, self._timing
        if exchange.answer_begun:
            return exchange.progress.last_heard + timing.idle
        if exchange.asks_tokenizer:
            return exchange.progress.sent_at + timing.stall + timing.prefill * exchange.lease.tokens / 1000
        if not exchange.asked_for_stream:
            return exchange.progress.sent_at + timing.non_streaming
        return exchange.progress.sent_at + timing.first_byte + timing.prefill * exchange.lease.tokens / 1000

    def _first_stall(self) -> float:
        """The first loop time at which the stream may have stalled; infinite where it cannot."""
        progress, timing = self.exchange.progress, self._timing
        if not progress.begun or not self.exchange.resumable:
            return inf
        return progress.last_heard + min(timing.stall, timing.stall_confirmed)

    def _next_stall_check(self, now: float) -> float:
        first = self._first_stall()
        if now < first:
            return first
        progress, node = self.exchange.progress, self.exchange.lease.node
        timing = self._timing
        stalls = min(stalled_at(progress, node, timing), hangs_at(progress, node, timing, now))
        return min(stalls, now + RECHECK) if stalls > now else now + RECHECK

    def _comment_at(self) -> float:
        """The loop time of the next comment."""
        progress = self.exchange.progress
        return max(progress.last_push, progress.last_chunk) + self._timing.keep_alive if self.exchange.streams else inf

    def _next_check(self, now: float) -> float:
        soon = min(self._deadline, now + self._timing.shortest)
        if self.exchange.progress.paused:  # the client has to read first: see `WriteStallTimer`
            return soon
        check_hang_at = self._check_hang_at if self._can_leave else inf
        return min(soon, self._silent_at(), self._next_stall_check(now), self._comment_at(), check_hang_at)
