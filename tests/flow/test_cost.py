"""What a request and an event cost, counted in Python calls: the same on every machine, where time is not.

The figures in microseconds are `make bench`'s. These bounds hold the shape in place: they break when somebody
adds work per event, or wakes a task for one.
"""

import asyncio
import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import uvicorn

from gateway.api.protocol import GatewayProtocol
from gateway.app import build_app
from gateway.config.tree import Config
from gateway.core.fleet.capabilities import Capabilities
from gateway.server.gateway_app import GatewayApp
from gateway.upstream.connection import UpstreamConnection

BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}'
PLAIN_BODY = BODY.replace(b'"stream":true,', b"")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"reasoning":" word"},"finish_reason":null}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
THOUGHT_EVENT = EVENT.replace(b'"finish_reason"', b'"logprobs":null,"finish_reason"')  # as vLLM writes it
THOUGHT = b"%x\r\n%b\r\n" % (len(THOUGHT_EVENT), THOUGHT_EVENT)
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
ANSWER = b'{"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
PLAIN_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)

CALLS_PER_EVENT = 12
CALLS_OF_BACKSTOP = 4
CALLS_OF_RULES = 90
RULES: dict[str, Any] = {
    "thinking": {"default": True, "default_budget": 512, "max_budget": 2048, "answer_reserve": 64, "floor": 16},
    "output": {"default_tokens": 1024, "max_tokens": 4096},
}
CALLS_PER_REQUEST = 207
CALLS_OF_NO_TRACE = 1
CALLS_OF_A_TRACE = 70


class Wire(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.written.extend(list_of_data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def resume_reading(self) -> None: ...


class Bench:
    """A gateway between two wires."""

    def __init__(self, **settings: Any) -> None:
        settings = {"nodes": [{"url": "http://127.0.0.1:1"}], "listen": {"hosts": ["*"]}, **settings}
        self.app = build_app(Config(**settings))
        node = self.app.fleet.nodes[0]
        node.capabilities = Capabilities(native_budget=True, splits_reasoning=True)
        node.probe_succeeded({"m": {"id": "m"}})
        pool = self.app.relay.pools.of(node)
        self.node_side = UpstreamConnection(pool._keep)
        self.node_wire = Wire()
        self.node_side.connection_made(self.node_wire)
        pool._keep(self.node_side)
        config = uvicorn.Config(
            GatewayApp(self.app, 9), http=GatewayProtocol, ws="none", lifespan="off", log_config=None, access_log=False
        )
        config.load()
        state = uvicorn.Server(config).server_state
        loop = asyncio.get_running_loop()
        self.client_side = GatewayProtocol(config, state, {"listener_settings": self.app.listener_settings(9)}, loop)
        self.client_wire = Wire()
        self.client_side.connection_made(self.client_wire)

    def ask(self, body: bytes) -> None:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.client_side.data_received(head + body)
        assert self.node_wire.written, "a request goes out on the stack that it came in on"
        self.node_wire.written.clear()

    def plain(self) -> None:
        self.ask(PLAIN_BODY)
        self.node_side.data_received(PLAIN_ANSWER)

    def close(self) -> None:
        self.client_side.connection_lost(None)


class Calls:
    """Counts the Python functions that are called meanwhile."""

    count = 0

    def __enter__(self) -> "Calls":
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _seen(self, frame: FrameType, event: str, argument: object) -> None:
        self.count += event == "call"


def run(measure: Callable[[Bench], None], **settings: Any) -> None:
    """`measure` within a loop, as a callback of it like all that comes from sockets: no task is running then."""

    async def main() -> None:
        bench = Bench(**settings)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def work() -> None:
            measure(bench)
            done.set_result(None)

        loop.set_exception_handler(lambda _, told: done.set_exception(told["exception"]))
        loop.call_soon(work)
        await done
        bench.close()

    asyncio.run(main())


def test_an_event_costs_a_dozen_calls_and_wakes_no_task() -> None:
    def measure(bench: Bench) -> None:
        bench.ask(BODY)
        bench.node_side.data_received(HEAD + CHUNK)
        written = len(bench.client_wire.written)
        with Calls() as calls:
            for _ in range(100):
                bench.node_side.data_received(CHUNK)
        # Nothing was awaited meanwhile, so all of them went out on the stack that they came in on.
        assert bench.client_wire.written[written:] == [CHUNK] * 100
        assert calls.count <= 100 * CALLS_PER_EVENT
        bench.node_side.data_received(END)

    run(measure)


def test_an_event_with_ids_goes_out_as_one_without_in_as_many_calls() -> None:
    """As a chunk whose size is its own."""
    head = b'data: {"id":"c","choices":[{"index":0,"delta":{"reasoning":" word"},"logprobs":null,"finish_reason":null'
    sent, passed = head + b',"token_ids":[48127]}]}\n\n', head + b',"token_ids":null}]}\n\n'
    chunk, expected = b"%x\r\n%b\r\n" % (len(sent), sent), b"%x\r\n%b\r\n" % (len(passed), passed)

    def measure(bench: Bench) -> None:
        bench.ask(BODY)
        bench.node_side.data_received(HEAD + chunk)
        written = len(bench.client_wire.written)
        with Calls() as calls:
            for _ in range(100):
                bench.node_side.data_received(chunk)
        assert bench.client_wire.written[written:] == [expected] * 100
        assert calls.count <= 100 * CALLS_PER_EVENT
        bench.node_side.data_received(END)

    run(measure)


def test_budgets_and_caps_cost_next_to_nothing_per_event() -> None:
    """On a node that holds budgets itself no event is parsed: the backstop counts bytes and keeps a slice."""
    counts = []

    def measure(bench: Bench) -> None:
        bench.ask(BODY)
        bench.node_side.data_received(HEAD + THOUGHT)
        with Calls() as calls:
            for _ in range(100):
                bench.node_side.data_received(THOUGHT)
        counts.append(calls.count)
        told.append(b"x-fleetgate-thinking-budget" in b"".join(bench.client_wire.written))
        bench.node_side.data_received(END)

    told: list[bool] = []
    run(measure)
    run(measure, **RULES)
    assert told == [False, True]
    assert counts[1] - counts[0] <= 100 * CALLS_OF_BACKSTOP


def test_budgets_and_caps_cost_little_per_request() -> None:
    counts = []

    def measure(bench: Bench) -> None:
        bench.plain()
        with Calls() as calls:
            for _ in range(20):
                bench.plain()
        counts.append(calls.count)

    run(measure)
    run(measure, **RULES)
    assert counts[1] - counts[0] <= 20 * CALLS_OF_RULES


def test_a_plain_request_costs_what_it_did() -> None:
    def measure(bench: Bench) -> None:
        bench.plain()
        bench.client_wire.written.clear()
        with Calls() as calls:
            for _ in range(20):
                bench.plain()
        assert len(bench.client_wire.written) == 20, "an answer goes out in one write"
        assert calls.count <= 20 * CALLS_PER_REQUEST

    run(measure)


def counted(bench: Bench, requests: int) -> int:
    """The Python calls of so many plain requests."""
    bench.plain()
    with Calls() as calls:
        for _ in range(requests):
            bench.plain()
    return calls.count


@pytest.mark.parametrize(("ratio", "calls"), [(0, CALLS_OF_NO_TRACE), (1, CALLS_OF_A_TRACE)])
def test_a_trace_costs_next_to_nothing_where_it_is_not_recorded(ratio: float, calls: int) -> None:
    """Spans are made in the export's thread, which is not counted: `sys.setprofile` is of one thread."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="fleetgate[otel] is not installed")
    counts: list[int] = []
    traces = {"endpoint": "http://127.0.0.1:9", "ratio": ratio, "max_queue": 100_000, "flush": 0.1, "timeout": 0.1}

    def plain(bench: Bench) -> None:
        counts.append(counted(bench, 20))

    def traced(bench: Bench) -> None:
        export = bench.app.trace_export
        assert export is not None
        export.start()
        plain(bench)
        assert bool(export.waiting + export.counts["failed"]) == bool(ratio), "each has spans to export, or none has"
        exports.append(export)

    exports: list[Any] = []
    run(plain)
    run(traced, telemetry={"traces": traces})
    asyncio.run(exports[0].stop())
    assert counts[1] - counts[0] <= 20 * calls


def test_a_request_leaves_no_rings_of_references() -> None:
    """`server` tells the garbage collector to look rarely; that is only right while there is nothing to find."""

    def measure(bench: Bench) -> None:
        bench.plain()
        gc.collect()
        for _ in range(20):
            bench.plain()
        assert gc.collect() < 20

    run(measure)
