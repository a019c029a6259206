"""One connection of the load client: ask, read the answer to its end, count, ask again."""

import asyncio
import time
from dataclasses import dataclass
from typing import cast

from loadtest.answers import MARK, STAMP_DIGITS
from loadtest.asks import Target, request
from loadtest.reader import Answer
from loadtest.tally import Tally

OPEN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What to do: `events` 0 is plain; `seconds` 0 lasts until every caller is done; `ramp` spreads the opening.
    `talks`: conversations that the callers have, each one of them."""

    callers: int
    events: int = 0
    rate: float = 50.0
    seconds: float = 3.0
    ramp: float = 0.2
    repeat: bool = True
    delays: bool = False
    watch: int = 0
    talks: int = 1


class Caller(asyncio.Protocol):
    """One connection. It counts into the shared tally."""

    def __init__(self, question: bytes, load: Load, counts: Tally) -> None:
        """`question` is the request's bytes, sent as soon as the connection stands."""
        self._question = question
        self._load = load
        self._counts = counts
        self._answer = Answer()
        self._asked = 0.0
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[bool] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: ask."""
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cut before the end, unless it was this side that ended it."""
        if not self.over.done():
            self.fail()

    def data_received(self, data: bytes) -> None:
        """Count what came; ask again or end where the answer is whole."""
        answer = self._answer
        events, silent = answer.events, not answer.body_bytes
        whole = answer.feed(data)
        self._counts.events += answer.events - events
        if silent and answer.body_bytes:
            self._settle(True)
            self._counts.ttft.append(time.perf_counter() - self._asked)
        if self._load.delays:
            self._note_delay(data)
        if whole:
            self._finish()

    def stop(self) -> None:
        """End now; what is under way is not lost but cut by us."""
        self._settle(False)
        if not self.over.done():
            self.over.set_result(None)
        if self._transport:
            self._transport.abort()

    def fail(self) -> None:
        """Cut, or never connected: what was asked for and did not come is lost."""
        self._lose()
        self.stop()

    def _ask(self) -> None:
        self._answer = Answer()
        self._asked = time.perf_counter()
        if self._transport:
            self._transport.write(self._question)

    def _finish(self) -> None:
        self._counts.latency.append(time.perf_counter() - self._asked)
        if self._is_right():
            self._counts.whole += 1
        else:
            self._lose()
        if self._load.repeat:
            self._ask()
        else:
            self.stop()

    def _lose(self) -> None:
        self._counts.broken += 1
        self._counts.lost_events += max(0, self._load.events - self._answer.events)

    def _is_right(self) -> bool:
        answer = self._answer
        streamed = answer.events == self._load.events and answer.done
        return answer.status == 200 and (streamed or not self._load.events)

    def _settle(self, opened: bool) -> None:
        if not self.opened.done():
            self.opened.set_result(opened)

    def _note_delay(self, data: bytes) -> None:
        """The first event of these bytes is their oldest: the others came no later than it."""
        at = data.find(MARK) + 1
        stamp = data[at : at + STAMP_DIGITS]
        if at and len(stamp) == STAMP_DIGITS and stamp.isdigit():
            self._counts.delay.append((time.monotonic_ns() // 1000 - int(stamp)) / 1e6)


async def open_callers(target: Target, load: Load, counts: Tally) -> list[Caller]:
    """Open all connections, spread over `load.ramp` seconds."""
    loop = asyncio.get_running_loop()
    questions = [request(target, load.events, load.rate, talk=talk) for talk in range(load.talks)]
    callers = [Caller(questions[number % load.talks], load, counts) for number in range(load.callers)]
    start = loop.time()
    for index, caller in enumerate(callers):
        await asyncio.sleep(max(0.0, start + load.ramp * index / load.callers - loop.time()))
        try:
            await loop.create_connection(lambda caller=caller: caller, target.host, target.port)  # type: ignore[misc]
        except OSError:
            caller.fail()
    return callers


async def wait_until_open(callers: list[Caller]) -> int:
    """Wait until every caller has had its first byte or failed, at most OPEN_SECONDS; how many are open."""
    done, _ = await asyncio.wait([caller.opened for caller in callers], timeout=OPEN_SECONDS)
    return sum(opened.result() for opened in done)


async def wait_until_over(callers: list[Caller], load: Load) -> None:
    """Wait out the window: `load.seconds`, or until every caller is done, bounded by twice the time it takes."""
    longest = load.seconds or 2 * load.events / load.rate + OPEN_SECONDS
    await asyncio.wait([caller.over for caller in callers], timeout=longest)
