"""The node that the endpoints speak for: its settings, tokenizer, engine, faults and counts."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from workers.fake.clock import Clock
from workers.fake.errors import bad_json, from_pydantic, malformed
from workers.fake.faults import BREAKS, FaultBoard, find
from workers.fake.generation import Answer, Step, merged
from workers.fake.http1 import Broken, Exchange
from workers.fake.sampling import Sampling
from workers.fake.settings import FakeSettings
from workers.fake.simulation import Engine, Seat
from workers.fake.stats import Stats
from workers.fake.stream import Pump, Steps
from workers.fake.tokens import Tokenizer
from workers.fake.wire import EVENTS, JSON, compact

_Body = TypeVar("_Body", bound=BaseModel)
_TURN = 256


@dataclass(frozen=True, slots=True)
class Plain:
    """A whole answer: one step for each choice, and counts in tokens."""

    steps: tuple[Step, ...]
    cached: int
    made: int
    reasoning_tokens: int


@dataclass(slots=True)
class Kept:
    """A response in the store: as it is shown, the turns that a later one continues, its work if in the background."""

    shown: dict[str, Any]
    turns: list[dict[str, Any]]
    task: asyncio.Task[None] | None = None


class Node:
    """One fake node, whatever the number of its listeners."""

    def __init__(self, settings: FakeSettings, stop: Callable[[], None]) -> None:
        self.settings = settings
        self.tokenizer = Tokenizer()
        self.engine = Engine(settings)
        self.faults = FaultBoard(settings.faults)
        self.stats = Stats()
        self.exit = stop
        self.clock = Clock()
        self.on_faults: Callable[[], None] = lambda: None
        self.count_connections: Callable[[], int] = lambda: 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.responses: dict[str, Kept] = {}
        self._ready_at = asyncio.get_running_loop().time() + settings.slow_start

    def ready(self) -> bool:
        """Whether the slow start is over."""
        return asyncio.get_running_loop().time() >= self._ready_at

    def change(self, settings: FakeSettings) -> None:
        """Other settings from now on; the cache stays as it is."""
        self.settings = settings
        self.engine.change(settings)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs work beside the requests; `settle` ends it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settle(self) -> None:
        """Ends spawned work and lets cancelled requests run out."""
        self.clock.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def read_json(self, exchange: Exchange) -> dict[str, Any]:
        """The request body as an object. Raises Refusal (400)."""
        body = await exchange.read()
        kind = exchange.header(b"content-type").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise malformed(["Unsupported Media Type: Only 'application/json' is allowed"])
        try:
            data = json.loads(body)
        except json.JSONDecodeError as error:
            raise bad_json(error) from None
        except UnicodeDecodeError:
            raise bad_json(json.JSONDecodeError("Expecting value", "", 0)) from None
        if isinstance(data, dict):
            return data
        text = "Input should be a valid dictionary or object to extract fields from"
        raise malformed([{"type": "model_attributes_type", "loc": ("body",), "msg": text, "input": data}])

    def validate(self, model: type[_Body], data: dict[str, Any]) -> _Body:
        """A body by its model. Raises Refusal (400) with pydantic's words."""
        try:
            return model.model_validate(data)
        except ValidationError as error:
            raise from_pydantic(error) from None

    def thought(self, tokens: int) -> int | None:
        """Reasoning tokens as usage tells them: only where the node has a reasoning parser."""
        return tokens if self.settings.reasoning_parser else None

    async def stream(
        self, exchange: Exchange, prompt: Sequence[int], salt: str, steps: Callable[[Seat], Steps]
    ) -> None:
        """Answers with a stream: the head at once, events when the prompt is computed."""
        exchange.start(200, EVENTS)
        async with self.engine.seat(prompt, salt) as seat:
            rate = self.settings.rate
            interval = self.settings.tokens_per_event / rate if rate > 0 else 0.0
            if await Pump(exchange, steps(seat), interval, self.clock).run():
                exchange.end()
            else:
                await self.break_stream(exchange)

    async def break_stream(self, exchange: Exchange) -> None:
        """Does to an answer what its fault says, in its middle. Raises Broken unless an error event ends it."""
        fault = find(exchange.faults, "error_event", *BREAKS)
        kind = fault.kind if fault else "die"
        if kind == "error_event" and exchange.stream_error:
            exchange.write(exchange.stream_error)
            return exchange.end()
        if kind == "eof":
            exchange.end()
        elif kind == "stall":
            await asyncio.Event().wait()
        elif kind == "exit":
            self.exit()
        elif kind == "reset":
            exchange.reset()
        else:
            exchange.cut()
        raise Broken

    async def answer(self, exchange: Exchange, value: Any, status: int = 200) -> None:
        """Sends a whole answer; with a fault in force, half of one, or less than its length says."""
        body = compact(value).encode()
        short = find(exchange.faults, "truncate")
        stop = find(exchange.faults, *BREAKS)
        if short is None and stop is None:
            return exchange.answer(status, body, JSON)
        keep = len(body) - max(short.size, 1) if short else len(body) // 2
        exchange.write_raw(exchange.head(status, JSON, length=len(body)) + body[: max(keep, 0)])
        if stop is None:
            exchange.cut()
            raise Broken
        return await self.break_stream(exchange)

    async def make(self, prompt: Sequence[int], plan: Sampling, *, raw: bool) -> Plain:
        """A whole answer, after the time it takes."""
        async with self.engine.seat(prompt, plan.salt) as seat:
            answers = [Answer(self.tokenizer, prompt, plan, i, raw=raw) for i in range(plan.n)]
            steps = []
            for answer in answers:
                steps.append(await self._whole(answer, seat))
            if self.settings.rate > 0:
                await self._take_time(max(a.made for a in answers) / self.settings.rate, seat)
        made = sum(a.made for a in answers)
        return Plain(tuple(steps), seat.cached, made, sum(a.reasoning_tokens for a in answers))

    async def _take_time(self, seconds: float, seat: Seat) -> None:
        """Waits; a client that leaves ends the work, so that only what was due by then counts as made."""
        began = asyncio.get_running_loop().time()
        try:
            await self.clock.sleep(seconds)
        except asyncio.CancelledError:
            share = (asyncio.get_running_loop().time() - began) / seconds
            del seat.made[round(len(seat.made) * min(1.0, share)) :]
            raise

    async def _whole(self, answer: Answer, seat: Seat) -> Step:
        # A long answer is made in turns, so that other requests are served meanwhile.
        parts: list[Step] = []
        while answer.finish is None:
            parts.append(answer.step(_TURN))
            seat.made += parts[-1].ids
            if answer.finish is None:
                await asyncio.sleep(0)
        return merged(parts)
