"""Sends the events of a stream: paced by one timer per step, without a task switch, and with the faults in force.

A step is the list of events that one decoding step makes: usually one, none for a silent token, several at the
beginning and at the end. `Pump.run()` returns when the stream is over; cancelling it stops the stream. Unpaced streams
(interval 0) yield to the event loop every few steps; a slow client stops the pump until its socket has room.
"""

import asyncio
from collections.abc import Iterator, Sequence

from workers.fake.clock import Clock
from workers.fake.faults import BREAKS, Fault, find
from workers.fake.http1 import Exchange

_BURST = 16
_KEEP_ALIVE = b": keep-alive\n\n"
Steps = Iterator[Sequence[bytes]]


class Pump:
    """Writes the events of `steps` (whole SSE events as bytes) to an exchange, one step in `interval` seconds."""

    def __init__(self, exchange: Exchange, steps: Steps, interval: float, clock: Clock) -> None:
        self._exchange = exchange
        self._steps = reshape(steps, exchange.faults)
        self._interval = interval
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        split = find(exchange.faults, "split")
        self._split = max(split.size, 1) if split else 0
        stop = find(exchange.faults, *BREAKS, "error_event")
        self._left = stop.after if stop else -1
        self._torn = stop if stop and stop.part > 0 and stop.kind in BREAKS else None
        self._due = 0.0

    async def run(self) -> bool:
        """Sends until the steps end. True at their end; False where a fault stops the stream in its middle.

        Raises Gone when the client has left.
        """
        self._due = self._loop.time()
        self._turn()
        await self._done
        return self._left != 0

    def _turn(self) -> None:
        if self._done.done():
            return
        try:
            for _ in range(_BURST if self._interval == 0 else 1):
                if not self._step() or self._exchange.connection.full:
                    break
        except Exception as error:  # noqa: BLE001 (handed to the request that awaits the stream)
            self._finish(error)
        else:
            self._schedule()

    def _step(self) -> bool:
        """One step; False where the turn ends with it."""
        step = next(self._steps, None)
        if step is None:
            self._finish()
            return False
        for event in step:
            if self._left == 0:
                self._tear(event)
                break
            self._left -= 1
            if self._split:
                self._write_split(event)
            else:
                self._exchange.write(event)
        if self._left == 0 and self._torn is None:
            self._finish()
        return self._left != 0 or self._torn is not None

    def _schedule(self) -> None:
        if self._done.done():
            return
        if self._exchange.connection.full:
            self._exchange.connection.when_drained(self._turn)
        elif self._interval == 0:
            self._loop.call_soon(self._turn)
        else:
            self._due += self._interval
            self._clock.call_at(self._due, self._turn)

    def _tear(self, event: bytes) -> None:
        # Where the connection breaks, it breaks within an HTTP chunk; a body that ends has whole ones.
        torn, self._torn = self._torn, None
        if torn is not None:
            kept = event[: int(len(event) * torn.part)]
            if torn.kind == "eof":
                self._exchange.write(kept)
            else:
                self._exchange.write_raw(b"%x\r\n%b" % (len(event), kept))

    def _write_split(self, event: bytes) -> None:
        # Each piece is a TCP write and an HTTP chunk of its own: clients see cuts at odd places, as on a real network.
        for start in range(0, len(event), self._split):
            self._exchange.write(event[start : start + self._split])

    def _finish(self, error: Exception | None = None) -> None:
        if self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)


def reshape(steps: Steps, faults: Sequence[Fault]) -> Steps:
    """The steps as the faults have them: with comments, with CR LF, several events in one write."""
    for fault in faults:
        if fault.kind == "comments":
            steps = _commented(steps, max(fault.size, 1))
        elif fault.kind == "crlf":
            steps = ([event.replace(b"\n", b"\r\n") for event in step] for step in steps)
        elif fault.kind == "coalesce":
            steps = _coalesced(steps, max(fault.size, 1))
    return steps


def _commented(steps: Steps, every: int) -> Steps:
    count = 0
    for step in steps:
        with_comments = []
        for event in step:
            with_comments.append(_KEEP_ALIVE + event if count % every == 0 else event)
            count += 1
        yield with_comments


def _coalesced(steps: Steps, size: int) -> Steps:
    held: list[bytes] = []
    for step in steps:
        held += step
        if len(held) < size:
            yield ()
        else:
            yield (b"".join(held),)
            held = []
    yield (b"".join(held),) if held else ()
