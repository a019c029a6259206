"""Whatever way a request ends, what it held is given back, and nothing of it is left that only the collector frees.

A table: how far it has come, who ends it, and how it is answered. The collector rests meanwhile, as it nearly does in a
gateway: what is found afterwards is held by a ring of references, or by somebody who forgot it.
"""

import asyncio
import contextlib
import gc
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gateway.aio.inline_task import InlineTask
from gateway.api.body import RequestBody
from gateway.api.client_request import ClientRequest
from gateway.core.dialects import DIALECTS
from gateway.core.errors import GatewayError
from gateway.core.memory import Holding
from gateway.core.plan import Plan
from gateway.core.telemetry.request_stats import RequestStats
from gateway.fleet.node import Lease
from gateway.limits.arrivals import Arrival
from gateway.limits.reservation import Reservation
from gateway.request_record import RequestRecord
from gateway.routing.node_choice import NodeChoice
from gateway.upstream.answer_progress import AnswerProgress
from gateway.upstream.answer_writer import AnswerWriter
from gateway.upstream.attempt_part import AttemptPart
from gateway.upstream.exchange import Exchange
from gateway.upstream.exchange_timer import ExchangeTimer
from gateway.upstream.plain_answer import PlainAnswer
from gateway.upstream.streamed_answer import StreamedAnswer
from gateway.usage import ledger
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL
from tests.support.raw import RawClient, head, raw_client
from tests.support.redis import redis_server
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake
from workers.fake.faults import Kind

MADE_FOR_A_REQUEST = frozenset(
    (
        *(ClientRequest, RequestBody, InlineTask, Holding, Plan, Lease, NodeChoice, Arrival, Reservation),
        *(RequestRecord, RequestStats, AttemptPart, Exchange, ExchangeTimer),
        *(AnswerProgress, AnswerWriter, StreamedAnswer, PlainAnswer),
    )
)
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": (CHAT, {}),
    "streamed": (CHAT, {"stream": True}),
    "hidden": (CHAT, {"reasoning": {"exclude": True}}),
    "hidden stream": (CHAT, {"reasoning": {"exclude": True}, "stream": True}),
    "messages": (MESSAGES, {}),
    "messages streamed": (MESSAGES, {"stream": True}),
}
GATEWAYS: dict[str, dict[str, Any]] = {
    "as it came": {},
    "over chat": {"models": [{"name": MODEL, "over_chat": True}]},
    "budget held": {"thinking": {"max_budget": 20}, "budgets": {"canary": True, "native": False}},
}
LIMITS = {"default": {"concurrent_requests": 4, "requests_per_minute": 100_000_000, "burst_seconds": 1}}


def request(mode: str, large: bool = False, more: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
    """Head and body."""
    path, options = MODES[mode]
    turns = [{"role": "user", "content": "[[think=60]] [[answer=60]] go" + " x" * (150_000 if large else 0)}]
    body = json.dumps({"model": MODEL, "max_tokens": 200, "messages": turns, **options}).encode()
    return head("POST", path, f"content-length: {len(body)}", *more), body


class Scene:
    """One gateway and its node; each method below is a way to end."""

    def __init__(self, gateway: RunningGateway, fake: FakeNode) -> None:
        self.gateway = gateway
        self.fake = fake

    def _fails(self, kind: Kind, after: int = 0, status: int = 500) -> None:
        """The next request of a client, and none of the gateway's own (completions)."""
        faults = (Fault(kind, after=after, next=1, status=status, path=path) for path in (CHAT, MESSAGES))
        self.fake.set_faults(*faults)

    async def answered(self, client: RawClient, mode: str) -> None:
        await client.send(b"".join(request(mode)))
        assert (await client.answer()).status == 200

    async def left_in_the_head(self, client: RawClient, mode: str) -> None:
        await client.send(request(mode)[0][:50])

    async def left_after_the_head(self, client: RawClient, mode: str) -> None:
        await client.send(request(mode)[0])
        await asyncio.sleep(0.01)

    async def left_in_the_body(self, client: RawClient, mode: str) -> None:
        first, body = request(mode, large=True)
        await client.send(first + body[:-1])
        await asyncio.sleep(0.01)

    async def left_at_once(self, client: RawClient, mode: str) -> None:
        await client.send(b"".join(request(mode)))

    async def left_with_a_large_body(self, client: RawClient, mode: str) -> None:
        await client.send(b"".join(request(mode, large=True)))
        await asyncio.sleep(0)

    async def left_in_the_answer(self, client: RawClient, mode: str) -> None:
        self._fails("stall", after=12)
        await client.send(b"".join(request(mode)))
        await eventually(lambda: self.gateway.app.relay.open_exchanges > 0)
        await asyncio.sleep(0.02)

    async def left_with_others_waiting(self, client: RawClient, mode: str) -> None:
        self._fails("stall", after=12)
        await client.send(b"".join(request(mode)) * 3)
        await eventually(lambda: self.gateway.app.relay.open_exchanges > 0)

    async def refused_for_its_json(self, client: RawClient, mode: str) -> None:
        first, body = request(mode)
        await client.send(first + b"!" + body[1:])
        assert (await client.answer()).status == 400

    async def refused_for_its_model(self, client: RawClient, mode: str) -> None:
        first, body = request(mode)
        await client.send(first + body.replace(MODEL.encode(), b"x" * len(MODEL)))
        assert (await client.answer()).status == 404

    async def node_failed_before(self, client: RawClient, mode: str) -> None:
        self._fails("status", status=500)
        await client.send(b"".join(request(mode)))
        assert (await client.answer()).status >= 500

    async def node_cut(self, client: RawClient, mode: str) -> None:
        self._fails("die", after=12)
        await client.send(b"".join(request(mode)))
        await client.answer()

    async def deadline(self, client: RawClient, mode: str) -> None:
        self._fails("stall", after=12)
        await client.send(b"".join(request(mode, more=("x-request-timeout: 0.2",))))
        await client.answer()

    async def deadline_in_the_body(self, client: RawClient, mode: str) -> None:
        first, body = request(mode, large=True, more=("x-request-timeout: 0.02",))
        await client.send(first + body[:-1])
        assert (await client.answer()).status == 504

    async def drained(self, client: RawClient, mode: str) -> None:
        self._fails("stall", after=12)
        await client.send(b"".join(request(mode)))
        await eventually(lambda: self.gateway.app.relay.open_exchanges > 0)
        self.gateway.app.relay.end_on(self.gateway.app.fleet.nodes[0])
        await client.answer()

    async def observer_failed(self, client: RawClient, mode: str) -> None:
        def fail(_: RequestStats) -> None:
            raise RuntimeError("an observer")

        pipeline = self.gateway.app.pipeline
        before, pipeline._observers = pipeline._observers, (fail, *pipeline._observers)
        try:
            await self.answered(client, mode)
        finally:
            pipeline._observers = before


WAYS = tuple(name for name in vars(Scene) if not name.startswith("_"))


def left_over() -> Counter[str]:
    """What was made for requests and is still there, by kind."""
    return Counter(kind.__name__ for each in gc.get_objects() if (kind := type(each)) in MADE_FOR_A_REQUEST)


@contextlib.contextmanager
def collector_resting() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # what other tests of this run keep is not looked through after each way to end
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextlib.asynccontextmanager
async def scene(kind: str, redis: bool) -> AsyncIterator[Scene]:
    settings: dict[str, Any] = {"limits": LIMITS, "health": {"interval": 0.05, "failures": 10**6}, **GATEWAYS[kind]}
    async with contextlib.AsyncExitStack() as stack:
        if redis:
            settings["redis"] = (await stack.enter_async_context(redis_server())).settings
        manners = FakeSettings(budget="disobey" if kind == "budget held" else "obey")
        fake = await stack.enter_async_context(serve_fake(manners))
        gateway = await stack.enter_async_context(running_gateway(fake.url, **settings))
        if kind == "budget held":
            await eventually(lambda: gateway.app.fleet.nodes[0].capabilities.marker_shown is not None)
        yield Scene(gateway, fake)


async def freed(stage: Scene) -> None:
    """Nothing is held any more, by nobody."""
    app = stage.gateway.app
    assert app.limiter is not None
    limiter = app.limiter
    await eventually(
        lambda: (
            (len(limiter.live), limiter._arrivals._running, app.memory.held, app.relay.open_exchanges) == (0, {}, 0, 0)
            and all(node.in_flight == 0 and not node.leases for node in app.fleet.nodes)
            and limiter.waiting == 0
        )
    )


async def end_all(stage: Scene, times: int) -> None:
    for way in WAYS:
        for mode, _ in itertools.product(MODES, range(times)):
            async with raw_client(stage.gateway.port, patience=20) as client:
                with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                    await getattr(stage, way)(client, mode)
            stage.fake.set_faults()
        await freed(stage)
        stage.gateway.app.metrics.flush()  # they hold the facts of what has ended for five seconds
        for _ in range(20):
            if not (left := left_over()):
                break
            await asyncio.sleep(0.1)
        assert not left, way


@pytest.mark.parametrize(("kind", "redis"), [("as it came", True), ("over chat", False), ("budget held", False)])
async def test_what_ends_is_freed(kind: str, redis: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 0.05)  # until then it holds the facts of what has ended
    async with scene(kind, redis) as stage:
        with collector_resting():
            await end_all(stage, 1)


@pytest.mark.prove
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("redis", [False, True], ids=["alone", "redis"])
@pytest.mark.parametrize("kind", GATEWAYS)
async def test_two_thousand_ends_leave_nothing(kind: str, redis: bool) -> None:
    async with scene(kind, redis) as stage:
        with collector_resting():
            await end_all(stage, 2000 // (len(WAYS) * len(MODES)) + 1)


class FailingCall:
    """A client's side that fails where it is told to, as a broken transport or a header that cannot be sent may."""

    request_id, address, status, gone, weighty, started = "req_1", "127.0.0.1", 0, False, False, False
    listener: Any = None
    headers: dict[bytes, bytes]

    def __init__(self, fails_at: str, body: bytes) -> None:
        self.headers = {}
        self._fails_at = fails_at
        self._body = body

    async def read_body(self, owner: str) -> bytes:
        return self._body

    def _called(self, name: str) -> None:
        if name in self._fails_at.split():
            raise RuntimeError(name)

    def hold(self, length: int, rewritten: bytes | None = None) -> None:
        self._called("hold")

    def tell(self, headers: Any) -> None:
        self._called("tell")

    def start(self, status: int, headers: Any, stream: bool) -> None:
        self._called("start")

    def push(self, data: bytes) -> bool:
        self._called("push")
        return True

    write_chunk = None

    def finish(self, data: bytes = b"") -> None:
        self._called("finish")

    def fail(self, error: GatewayError) -> None:
        self._called("fail")


@pytest.mark.parametrize("fails_at", ["tell", "fail", "tell fail"])
async def test_a_place_comes_back_when_telling_the_client_fails(fails_at: str) -> None:
    async with scene("as it came", False) as stage:
        pipeline = stage.gateway.app.pipeline
        stage.fake.set_faults(Fault("status", status=400))
        for _ in range(5):  # more than may run at once
            call: Any = FailingCall(fails_at, request("plain")[1])
            await pipeline.answer(call, DIALECTS[0])
        await freed(stage)
