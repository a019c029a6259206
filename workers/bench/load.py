"""One load on the node, for a while: a closed loop of users, or an open one of arrivals.

Closed: each of N users sends its next question when its last answer has ended. A slow node is asked less, so this shows
what N users get, not what happens when more come than it can take. Open: questions are sent at their times whether
earlier ones were answered or not; a node that is too slow gets a queue.

Users of a closed loop begin one after the other during the ramp. Then the window opens. What comes within the window is
counted, and at its end the answers under way are cut off: the load is the same from its first to its last second.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from workers.bench.answers import Answer, ask, body_of
from workers.bench.pages import NodePage, get_page
from workers.bench.workloads import Asker, Question

PAUSE_AFTER_FAILURE = 0.5
HOPELESS = 10
"""Failures without one answer after which a load ends."""


@dataclass(frozen=True, slots=True)
class Load:
    """`users` of a closed loop, or `rate` in requests a second of an open one. `ramp` and `window` in seconds;
    `requests`: at most; `in_flight`: at most at once in an open loop; `timeout` of one request in seconds."""

    users: int | None
    rate: float | None
    ramp: float
    window: float
    requests: int
    timeout: float
    in_flight: int = 512

    @property
    def told(self) -> str:
        """As it is shown."""
        if self.users is not None:
            return f"{self.users} user{'s' if self.users > 1 else ''}"
        return f"{self.rate:g} a second"


@dataclass(slots=True)
class Heard:
    """What a load heard. The window is `since`..`until` (monotonic seconds), between the node's two pages. `unsent`:
    arrivals that the bound on requests in flight kept back. `ended`: why it ended before its time, empty if it did
    not."""

    load: Load
    answers: list[Answer] = field(default_factory=list)
    since: float = 0.0
    until: float = 0.0
    before: NodePage | None = None
    after: NodePage | None = None
    unsent: int = 0
    in_flight: int = 0
    cpu_seconds: float = 0.0
    ended: str = ""


class Driver:
    """Sends a load's questions. `run` may be called once."""

    def __init__(self, client: httpx.AsyncClient, model: str, asker: Asker, load: Load, seed: str) -> None:
        """`seed` draws the arrivals of an open loop."""
        self._client = client
        self._model = model
        self._asker = asker
        self._load = load
        self._chance = random.Random(seed)
        self._over = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._given = 0
        self.heard = Heard(load)

    async def run(self) -> Heard:
        """Warm up, ramp up, measure, cut off. When cancelled, `heard` has what came until then."""
        load, heard = self._load, self.heard
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._warm_up()
            heard.before, heard.since = await get_page(self._client), time.monotonic()
            cpu = time.process_time()
            tasks = self._start()
            await self._wait(load.ramp)
            if not self._over.is_set():
                heard.before, heard.since = await get_page(self._client), time.monotonic()
                cpu = time.process_time()
                await self._wait(load.window)
            heard.until = time.monotonic()
            heard.cpu_seconds = time.process_time() - cpu
            heard.after = await get_page(self._client)
        except asyncio.CancelledError:
            heard.ended = "interrupted"
            heard.until = heard.until or time.monotonic()
            raise
        finally:
            heard.in_flight = sum(not answer.whole and answer.failure is None for answer in heard.answers)
            for task in (*tasks, *self._under_way):
                task.cancel()
            await asyncio.gather(*tasks, *self._under_way, return_exceptions=True)
        return heard

    def _start(self) -> list[asyncio.Task[None]]:
        load = self._load
        if load.users is None:
            return [asyncio.create_task(self._arrive())]
        pause = load.ramp / load.users
        return [asyncio.create_task(self._be_user(user, user * pause)) for user in range(load.users)]

    async def _warm_up(self) -> None:
        """Send what the users of a closed loop have sent before, so that the node may have it in its cache."""
        questions = [self._asker.warm_up(user) for user in range(self._load.users or 0)]
        await asyncio.gather(*[self._send(question) for question in questions if question is not None])
        self.heard.answers = [answer for answer in self.heard.answers if answer.failure is not None]

    async def _be_user(self, user: int, delay: float) -> None:
        await asyncio.sleep(delay)
        while (question := self._take(lambda: self._asker.next(user))) is not None:
            answer = await self._send(question)
            if answer.failure is not None:
                await asyncio.sleep(PAUSE_AFTER_FAILURE)

    async def _arrive(self) -> None:
        began, first, at = time.monotonic(), None, 0.0
        rate = self._load.rate or 1.0
        while (question := self._take(lambda: self._asker.next(0))) is not None:
            if question.at is None:
                at += self._chance.expovariate(rate)
            else:  # a trace's own times; its asker has put them to the wanted rate
                first = question.at if first is None else first
                at = question.at - first
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            if len(self._under_way) >= self._load.in_flight:
                self.heard.unsent += 1
                continue
            task = asyncio.create_task(self._send_alone(question))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _send_alone(self, question: Question) -> None:
        await self._send(question)

    def _take(self, draw: Callable[[], Question | None]) -> Question | None:
        """The next question; None, and the window ends, where there is none or the bound is reached."""
        question = draw() if self._given < self._load.requests and not self._over.is_set() else None
        if question is None:
            self._end("no more requests" if self._given else "no request")
            return None
        self._given += 1
        return question

    async def _send(self, question: Question) -> Answer:
        answer = Answer(sent=time.monotonic())
        self.heard.answers.append(answer)
        await ask(self._client, body_of(question, self._model), self._load.timeout, answer)
        failed = sum(each.failure is not None for each in self.heard.answers)
        if failed >= HOPELESS and not any(each.whole for each in self.heard.answers):
            self._end(f"the first {failed} requests failed")
        return answer

    def _end(self, reason: str) -> None:
        if not self._over.is_set():
            self.heard.ended = reason
            self._over.set()

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            return
