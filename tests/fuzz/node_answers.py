"""A node that may send anything, in every dialect and mode: what clients get, and what is left behind.

    python -m tests.fuzz.node_answers --seconds 300 [--seed 1]

Every case is one request and one answer of a node, bent at one level or several: the JSON (a value of any kind in any
place), the events (dropped, doubled, strange ones between), the head, the framing, single bytes, and where the writes
are cut. Each has to end in its time with an answer or an error that the dialect knows; nothing may be held afterwards,
nothing be logged as unexpected, and nothing of the node's own pass in a header.
"""

import argparse
import asyncio
import contextlib
import io
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvloop
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.node_bends import bent_answers
from tests.fuzz.node_shapes import MODEL, answer_of
from tests.support.faults import held
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import answer

SECONDS = 20.0
"""No request may take longer: its time-outs below add up to a fraction of it."""

TIMEOUTS = {
    "idle": 2,
    "stall": 2,
    "stall_confirmed": 2,
    "non_streaming": 2,
    "first_byte": 2,
    "node_hang": 2,
    "prefill": 0,
    "keep_alive": 0.3,
}
SETTINGS: dict[str, Any] = {
    "timeouts": TIMEOUTS,
    "requests": {"max_attempts": 2},
    "retries": {"minimum": 10_000},
    "health": {"failures": 1_000_000, "interval": 5.0},
    "limits": {"default": {"concurrent_requests": 10_000, "tokens_per_minute": 10**8}},
}
HELD_BY = {"gateway": {"canary": True, "native": False}, "node": {"canary": False}}
"""Who holds a thinking budget: with the first it is enforced here, and such messages go over chat."""

SAY = [{"role": "user", "content": "x"}]
HIDE = {"reasoning": {"exclude": True}}
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": SAY, "max_tokens": 5}),
    ("/v1/chat/completions", {"messages": SAY, "max_tokens": 5, **HIDE}),
    ("/v1/chat/completions", {"messages": SAY, "max_tokens": 90, "thinking_token_budget": 3}),
    ("/v1/chat/completions", {"messages": SAY, "max_tokens": 90, "thinking_token_budget": 3, **HIDE}),
    ("/v1/chat/completions", {"messages": SAY, "max_tokens": 90, "thinking_token_budget": 3, "return_token_ids": True}),
    ("/v1/completions", {"prompt": "x", "max_tokens": 5}),
    ("/v1/completions", {"prompt": "x", "max_tokens": 90, "thinking_token_budget": 3}),
    ("/v1/messages", {"messages": SAY, "max_tokens": 5}),
    ("/v1/messages", {"messages": SAY, "max_tokens": 5, **HIDE}),
    ("/v1/messages", {"messages": SAY, "max_tokens": 90, "thinking": {"type": "enabled", "budget_tokens": 3}}),
    ("/v1/responses", {"input": "x", "max_output_tokens": 5}),
    ("/v1/responses", {"input": "x", "max_output_tokens": 5, **HIDE}),
    ("/v1/responses", {"input": "x", "store": False, "max_output_tokens": 90, "reasoning": {"max_tokens": 3}}),
    ("/v1/embeddings", {"input": "x"}),
    ("/tokenize", {"prompt": "x"}),
    ("/v1/messages/count_tokens", {"messages": SAY}),
]
STREAMED = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")
REQUESTS = [(path, {"model": MODEL, **body}) for path, body in BODIES] + [
    (path, {"model": MODEL, **body, "stream": True}) for path, body in BODIES if path in STREAMED
]
OWN = (b"set-cookie", b"location", b"content-encoding", b"www-authenticate", b"x-fleetgate-max-tokens", b"x-node")


class AnyNode(asyncio.Protocol):
    """Answers probes well, and what clients ask by `bend`, which gets the good answer; None is the good one."""

    bend: Any = None

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            length = int(
                next((line[15:] for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0)
            )
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._answer(head.split(b" ")[1].decode(), rest[:length])

    def _answer(self, path: str, body: bytes) -> None:
        if path in ("/health", "/v1/models", "/metrics", "/version"):
            self._transport.write(_probe(path))
            return
        asked = json.loads(body) if body else {}
        bend = type(self).bend
        if bend is None or "add_special_tokens" in asked or asked.get("temperature") == 0:  # the canary's
            self._transport.write(answer_of(path, asked).whole())
            return
        pieces, close = bend(path, asked)
        for piece in pieces:
            self._transport.write(piece)
        if close:
            self._transport.close()


def _probe(path: str) -> bytes:
    if path == "/v1/models":
        return answer(json.dumps({"object": "list", "data": [{"id": MODEL, "max_model_len": 4096}]}).encode())
    return answer(json.dumps({"version": "0.22.0"}).encode() if path == "/version" else b"")


@dataclass
class Trial:
    """Two gateways in front of the node, and what went wrong in them."""

    gateways: dict[str, RunningGateway]
    logged: io.StringIO
    causes: set[str] = field(default_factory=set)
    unhandled: list[Any] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    async def ask(self, who: str, path: str, body: dict[str, Any]) -> bytes:
        gateway, raw = self.gateways[who], json.dumps(body).encode()
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" % path.encode())
            writer.write(b"content-length: %d\r\n\r\n" % len(raw) + raw)
            got = await reader.read()
            writer.close()
            await eventually(lambda: not held(gateway), SECONDS)
        return got

    def judge(self, got: bytes) -> None:
        head, _, body = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 "), got[:100]
        status = int(head[9:12])
        self.statuses[status] = self.statuses.get(status, 0) + 1
        assert status == 200 or 400 <= status <= 599, head
        assert b'"internal_error"' not in body, body[-300:]
        names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
        assert not set(names) & set(OWN), head
        assert len(names) == len(set(names)), head
        waits = [line[12:] for line in head.split(b"\r\n") if line.startswith(b"retry-after:")]
        assert all(int(wait) <= 60 for wait in waits), head
        assert not self.unhandled, self.unhandled
        # The node answers the prober's own request as bent: that it serves nothing then is true. A request that ends in
        # 5xx has its own line at that level.
        told = (" model_unavailable ", '{"event":"request",')
        logged = "".join(line for line in self.take_log().splitlines(True) if not any(word in line for word in told))
        assert not any(word in logged for word in ("[error", "[critical", '"level":"error"', "unexpected")), logged

    def take_log(self) -> str:
        logged = self.logged.getvalue()
        self.logged.seek(0)
        self.logged.truncate()
        self.causes.update(re.findall(r"cause\S*=\S+ .*place\S*=\S+", logged))
        return logged


@contextlib.asynccontextmanager
async def trial() -> Any:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(AnyNode, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with contextlib.AsyncExitStack() as stack:
        gateways = {
            who: await stack.enter_async_context(running_gateway(url, **SETTINGS, budgets=budgets))
            for who, budgets in HELD_BY.items()
        }
        capabilities = gateways["gateway"].app.fleet.nodes
        await eventually(
            lambda: capabilities[0].capabilities.think_end and capabilities[0].capabilities.native_budget is False
        )
        with contextlib.redirect_stdout(io.StringIO()) as logged, contextlib.redirect_stderr(logged):
            found = Trial(gateways, logged)
            loop.set_exception_handler(lambda _, context: found.unhandled.append(context))
            yield found
    server.close()


@contextlib.contextmanager
def running_trial() -> Iterator[tuple[asyncio.Runner, Trial]]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack = contextlib.AsyncExitStack()
        found = runner.run(stack.enter_async_context(trial()))
        try:
            yield runner, found
        finally:
            AnyNode.bend = None
            runner.run(stack.aclose())


def attack(runner: asyncio.Runner, found: Trial, cases: int, number: int) -> None:
    """`cases` cases from the seed `number`; raises what the smallest one that fails has shown."""

    @seed(number)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        print_blob=False,
    )
    @given(st.sampled_from(sorted(HELD_BY)), st.sampled_from(REQUESTS), bent_answers())
    def one(who: str, request: tuple[str, dict[str, Any]], bend: Any) -> None:
        AnyNode.bend = staticmethod(bend)
        found.take_log()
        found.unhandled.clear()
        found.judge(runner.run(found.ask(who, *request)))

    one()


def serve_again(runner: asyncio.Runner, found: Trial) -> None:
    """After all that: good answers of the node are served, to every request."""
    AnyNode.bend = None
    for who in HELD_BY:
        for path, body in REQUESTS:
            got = runner.run(found.ask(who, path, body))
            if got.startswith(b"HTTP/1.1 504"):  # this machine stood still for longer than the time-outs
                got = runner.run(found.ask(who, path, body))
            assert got.startswith(b"HTTP/1.1 200"), (who, path, body, got)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    end, number, cases = time.monotonic() + asked.seconds, asked.seed, 0
    with running_trial() as (runner, found):
        while time.monotonic() < end:
            try:
                attack(runner, found, 200, number)
            except BaseException:
                print(f"seed {number}", file=sys.__stdout__)
                raise
            number, cases = number + 1, cases + 200
        serve_again(runner, found)
        print(
            f"{cases} answers of a node, seeds {asked.seed} to {number - 1}: all ended well; "
            f"statuses {found.statuses}; unreadable by {sorted(found.causes)}",
            file=sys.__stdout__,
        )


if __name__ == "__main__":
    main()
