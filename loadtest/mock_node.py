"""A mock vLLM node, as lean as Python allows: a load test measures the proxy, not this.

    python -m loadtest.mock_node --port 8000
    python -m loadtest.mock_node --count 1000    # as many nodes at free ports, which it prints as one line of JSON

No model, no queue, no limits: a chat completion is answered at once with fixed bytes, a stream with
`max_tokens` events at a steady rate. A request says how, inside its prompt, since a proxy passes that through
untouched: `rate=50` events a second, `delay=0.2` seconds before the answer.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import httptools
import uvloop

from loadtest import answers, pages
from loadtest.ticker import Ticker

DEFAULT_RATE = 50.0
DEFAULT_EVENTS = 100
REASONING_SHARE = 0.8
PLAIN = {with_ids: answers.plain(with_ids) for with_ids in (False, True)}


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks of the mock: `rate` in events a second, `delay` in seconds."""

    stream: bool
    events: int
    rate: float
    delay: float
    with_usage: bool
    with_ids: bool


def read_order(body: bytes) -> Order:
    """Read a chat completion's body. Raises ValueError where it is not a JSON object."""
    fields = json.loads(body)
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    prompt = str(fields.get("messages", ""))
    return Order(
        stream=bool(fields.get("stream")),
        events=int(fields.get("max_tokens") or fields.get("max_completion_tokens") or DEFAULT_EVENTS),
        rate=_figure(prompt, "rate", DEFAULT_RATE),
        delay=_figure(prompt, "delay", 0.0),
        with_usage=bool((fields.get("stream_options") or {}).get("include_usage")),
        with_ids=bool(fields.get("return_token_ids")),
    )


def _figure(prompt: str, name: str, otherwise: float) -> float:
    found = re.search(rf"\b{name}=([0-9.]+)", prompt)
    return float(found[1]) if found else otherwise


class Stream:
    """One running answer: each step writes one event, the last one the end of the body."""

    def __init__(self, node: "Connection", completion: str, order: Order) -> None:
        """Nothing is written before the first step, but the opening: the client's TTFT is its arrival."""
        self._node = node
        self._order = order
        self._completion = completion
        self._reasoning = answers.template(completion, "reasoning", order.with_ids)
        self._content = answers.template(completion, "content", order.with_ids)
        self._turn = int(order.events * REASONING_SHARE)
        self._sent = 0

    def step(self) -> bool:
        """Write the next event; false once it is over or the client gone. A slow reader is waited for."""
        if self._node.gone:
            return False
        if self._node.full:
            return True
        if self._sent == self._order.events:
            return self._finish()
        template = self._reasoning if self._sent < self._turn else self._content
        self._node.write(template.at(time.monotonic_ns() // 1000))
        self._sent += 1
        return True

    def _finish(self) -> bool:
        order = self._order
        self._node.write(answers.closing(self._completion, order.events + 1, order.with_usage, order.with_ids))
        return False


class Connection(asyncio.Protocol):
    """One client's connection: requests come one after the other, never two at once."""

    def __init__(self, ticker: Ticker, numbers: Iterator[int]) -> None:
        """`numbers` makes the completions' ids, shared by all connections."""
        self._ticker = ticker
        self._numbers = numbers
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._path = ""
        self._body = b""
        self._transport: asyncio.Transport | None = None
        self.gone = False
        self.full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come. (uvloop's transports are none of asyncio's by class.)"""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: its stream ends at its next step."""
        self.gone = True

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.full = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.full = False

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; what is not HTTP is hung up on."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport:
                self._transport.close()

    def write(self, data: bytes) -> None:
        """Send `data` unless the client has gone."""
        if self._transport and not self.gone:
            self._transport.write(data)

    def on_message_begin(self) -> None:
        """httptools: a new request."""
        self._path, self._body = "", b""

    def on_url(self, url: bytes) -> None:
        """httptools: the request's target, in one piece or several."""
        self._path += url.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        """httptools: a piece of the body."""
        self._body += data

    def on_message_complete(self) -> None:
        """httptools: the request is whole."""
        path = self._path.partition("?")[0]
        if path == "/metrics":
            self.write(pages.metrics(self._ticker.streams))
            return
        if path != "/v1/chat/completions":
            self.write(pages.PAGES.get(path, pages.NOT_FOUND))
            return
        try:
            order = read_order(self._body)
        except ValueError:
            self.write(pages.BAD_REQUEST)
            return
        self._answer(order)

    def _answer(self, order: Order) -> None:
        completion = f"chatcmpl-{next(self._numbers):032x}"
        if order.delay:
            self._loop.call_later(order.delay, self._start, completion, order)
        else:
            self._start(completion, order)

    def _start(self, completion: str, order: Order) -> None:
        if not order.stream:
            self.write(PLAIN[order.with_ids])
            return
        self.write(answers.opening(completion, order.with_ids))
        self._ticker.add(Stream(self, completion, order).step, order.rate)


async def serve(host: str, port: int, count: int = 1) -> None:
    """Serve until cancelled. `count` nodes beyond one listen at free ports and are told on standard output."""
    loop = asyncio.get_running_loop()
    ticker, numbers = Ticker(loop), itertools.count(1)
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                await loop.create_server(
                    lambda: Connection(ticker, numbers), host, port if count == 1 else 0, backlog=2048
                )
            )
            for _ in range(count)
        ]
        if count > 1:
            print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
        await asyncio.get_running_loop().create_future()


def main() -> None:
    """Run one node, or several, until told to stop."""
    parser = argparse.ArgumentParser(description="A mock vLLM node for load tests.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--count", type=int, default=1, help="nodes; beyond one at free ports")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(options.host, options.port, options.count))


if __name__ == "__main__":
    main()
