"""Exchanges in a world whose time a test sets: real timers, sweep, fleet and exchanges, without sockets."""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, cast

from gateway.core.dialects.chat import Chat
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.errors import GatewayError
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.fleet.node_metrics import NodeMetrics
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.resume.followed_request import FollowedRequest
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.node_request_kinds import NodeRequest
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Lease, Node
from gateway.fleet.node_spec import NodeSpec
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.downstream import ClientListener, Headers
from gateway.upstream.exchange import Exchange
from gateway.upstream.exchange_timer import ExchangeTimer
from gateway.upstream.hang_watch import HangWatch
from gateway.upstream.response_parser import ResponseHead
from gateway.upstream.sweep import TimeoutSweep
from gateway.upstream.timeouts import UpstreamTimeouts
from tests.support.nodes import DONE, MODEL, chunk, event

ASK = Chat().read(b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}')
HEAD = ResponseHead(200, ((b"content-type", b"text/event-stream"),), b"text/event-stream")
KNOWN = Capabilities(think_start=(98,), think_end=(99,))
ROLE = b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'


class Alarm:
    """A call that is due at a time."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        self.call = None


class StillLoop:
    """What exchanges and sweeps use of an event loop. Its time moves by `run_until` alone."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._numbers = itertools.count()
        self._alarms: list[tuple[float, int, Alarm]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Alarm:
        alarm = Alarm(lambda: callback(*args))
        heapq.heappush(self._alarms, (when, next(self._numbers), alarm))
        return alarm

    def run_until(self, until: float) -> None:
        """Call all that is due, each at its own time."""
        while self._alarms and self._alarms[0][0] <= until:
            when, _, alarm = heapq.heappop(self._alarms)
            self.now = max(self.now, when)
            if alarm.call is not None:
                alarm.call()
        self.now = until


class Client:
    """A client's request that keeps what it is sent."""

    def __init__(self) -> None:
        self.headers: Mapping[bytes, bytes] = {}
        self.request_id = "r"
        self.listener: ClientListener | None = None
        self.stream_filter: StreamFilter | None = None
        self.gone = False
        self.status = 0
        self.pushed: list[bytes] = []
        self.address = ""
        self.weighty = False
        self.values = self.strings = 0

    @property
    def started(self) -> bool:
        return self.status > 0

    def shrink_body(self, size: int) -> None: ...

    def grow_body(self, size: int) -> None: ...

    async def read_body(self, owner: str) -> bytes:
        return b""

    def take_body(self, owner: str) -> bytes:
        return b""

    def add_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None: ...

    def hold(self, length: int, rewritten: bytes | None = None) -> None: ...

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status

    def start(self, status: int, headers: Headers, stream: bool) -> None:
        self.status = status

    def push(self, data: bytes) -> bool:
        self.pushed.append(data)
        return True

    @property
    def write_chunk(self) -> Callable[[bytes], None] | None:
        return self.pushed.append

    def finish(self, data: bytes = b"") -> None: ...

    def fail(self, error: GatewayError) -> None: ...


def node_request(resumable: bool) -> NodeRequest:
    class Resumable(NodeRequest):
        __slots__ = ()
        resumable = True

        def stream_filter(self) -> StreamFilter:
            return Checkpoint(super().stream_filter(), FollowedRequest(self.path, self.body), KNOWN, False, False)

    return (Resumable if resumable else NodeRequest)("/v1/chat/completions", b"{}", ASK, Chat())


class Stream:
    """One streamed exchange. `failed_at`, `error`: its end, unless it is still open."""

    def __init__(self, world: "World", node: Node, resumable: bool, tokens: int, carried: StreamFilter | None) -> None:
        self._world = world
        self.client = Client()
        self.lease = Lease(node, world.now, stream=True, tokens=tokens)
        self.failed_at = inf
        self.error: BaseException | None = None
        connection, stats = UpstreamConnection(lambda _: None), RequestStats()
        stats.first_byte = None if carried is None else 1.0
        asked = node_request(resumable)
        self.exchange = Exchange(asked, self.client, connection, stats, world.loop, self.lease, carried)
        self.timer = ExchangeTimer(self.exchange, world.timing, inf, world.watch)
        world.sweep.add(self.timer, world.loop)
        self.exchange.done.add_done_callback(self._ended)

    def head(self) -> None:
        self.exchange.on_head(HEAD)

    def begin(self) -> None:
        """The head and the first event come."""
        self.head()
        self.exchange.on_data(ROLE)

    def event(self, text: str = "a") -> None:
        data = event(text).replace(b"}]}", b',"logprobs":null,"finish_reason":null,"token_ids":[7]}]}')
        self.exchange.on_chunk(chunk(data), data)

    def events(self, count: int, gap: float) -> None:
        """`count` events, the first one at once; `gap` seconds pass after each."""
        for _ in range(count):
            self.event()
            self._world.wait(gap)

    def done(self) -> None:
        self.exchange.on_data(DONE)

    def pause(self) -> None:
        self.exchange.on_full()

    def resume(self) -> None:
        self.exchange.on_writable()

    @property
    def comments(self) -> int:
        return b"".join(self.client.pushed).count(b": keep-alive")

    def _ended(self, done: Any) -> None:
        self.failed_at = self._world.now
        self.error = done.exception()
        self._world.sweep.discard(self.timer)
        self.lease.release()


class World:
    """Two ready nodes that serve one model, and the exchanges on them."""

    def __init__(self, **timing: float) -> None:
        self.clock = StillLoop()
        self.loop = cast(asyncio.AbstractEventLoop, self.clock)
        self.timing = UpstreamTimeouts(**timing)
        self.fleet = Fleet([NodeSpec("http://127.0.0.1:1"), NodeSpec("http://127.0.0.1:2")])
        for node in self.fleet.nodes:
            node.probe_succeeded({MODEL: {}}, self.now)
        self.node, self.other = self.fleet.nodes
        self.sweep: TimeoutSweep[ExchangeTimer] = TimeoutSweep()
        self.watch = HangWatch(self.fleet, self.sweep)

    @property
    def now(self) -> float:
        return self.clock.now

    def wait(self, seconds: float) -> None:
        self.clock.run_until(self.clock.now + seconds)

    def stream(self, resumable: bool = True, tokens: int = 0, carried: StreamFilter | None = None) -> Stream:
        """One that waits for its first event; of an answer that was begun, where it has `carried` on its filter."""
        return Stream(self, self.node, resumable, tokens, carried)

    def paced(self, gap: float = 0.02, events: int = 50) -> Stream:
        """A resumable one that has had `events`."""
        stream = self.stream()
        stream.begin()
        stream.events(events, gap)
        return stream

    def prompt(self, tokens: int) -> Lease:
        """A prompt that waits on the node."""
        return Lease(self.node, self.now, stream=True, tokens=tokens)

    def page(self, generated: int | None, waiting: int | None = 0) -> None:
        """The node's metrics are read."""
        self.node.load_told(NodeMetrics(self.now, running=1, waiting=waiting, generated=generated))

    def probe(self, seconds: float, generated: int | None, waiting: int | None = 0, interval: float = 2.0) -> None:
        """Read the same page every `interval`, for `seconds`."""
        for _ in range(round(seconds / interval)):
            self.wait(interval)
            self.page(generated, waiting)
