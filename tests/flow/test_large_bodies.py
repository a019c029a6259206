"""Large bodies are read and made ready in steps, each in a turn of the loop of its own: streams go on in between.

`pytest -s -m prove` tells the longest turn for each shape of a body, in CPU time of the loop's thread; docs/proofs.md
shows the last figures.
"""

import asyncio
import gc
import http.client
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from gateway import pipeline
from gateway.config.requests import Requests
from gateway.core import bodies
from gateway.core.dialects import messages
from gateway.core.reading.outline import REWRITABLE
from gateway.core.upstream import node_request as sending
from tests.support.catalogs import catalog_node
from tests.support.gateways import running_gateway
from tests.support.nodes import Asked, ScriptedNode, answer

MODEL = "m"
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
BYTES = Requests().max_body - 300
VALUES = REWRITABLE - 60

ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": MODEL,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
}


async def chat_answer(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(orjson.dumps(ANSWER)))


def text(piece: str, *more: str) -> bytes:
    """A body whose one prompt is `piece`, over and over."""
    prompt = piece.encode() * (BYTES // len(piece.encode()))
    fields = "".join(f",{field}" for field in more).encode()
    return b'{"model":"m","max_tokens":10,"messages":[{"role":"user","content":"' + prompt + b'"}]' + fields + b"}"


def body(**fields: Any) -> bytes:
    return orjson.dumps({"model": MODEL, **fields})


ASKED = {"role": "user", "content": "a"}
THINKS = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000, "messages": [ASKED]}
BLOCKS = [{"role": "user", "content": [{"type": "text", "text": "a"}] * (VALUES // 3)}]
TURNS = [ASKED, {"role": "assistant", "content": "b"}] * (VALUES // 6)
CALLS = [
    turn
    for number in range(VALUES // 18)
    for turn in (
        {"role": "assistant", "content": [{"type": "tool_use", "id": f"t{number}", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": f"t{number}", "content": "a"}]},
    )
]

DENSE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "messages, text blocks": (MESSAGES, lambda: body(**THINKS | {"messages": [*BLOCKS, ASKED]})),
    "messages, turns": (MESSAGES, lambda: body(**THINKS | {"messages": [*TURNS, ASKED]})),
    "messages, tool calls": (MESSAGES, lambda: body(**THINKS | {"messages": [ASKED, *CALLS, ASKED]})),
    "messages, tools": (
        MESSAGES,
        lambda: body(**THINKS, tools=[{"name": f"f{number}", "input_schema": {}} for number in range(VALUES // 4)]),
    ),
    "responses, turns": (RESPONSES, lambda: body(input=[ASKED] * (VALUES // 3))),
    "responses, tools": (
        RESPONSES,
        lambda: body(
            input="a",
            reasoning={"effort": "low"},
            tools=[{"type": "function", "name": f"f{number}"} for number in range(VALUES // 3)],
        ),
    ),
    "chat, turns": (CHAT, lambda: body(thinking_token_budget=5, messages=[ASKED] * (VALUES // 3))),
}
"""Of many small objects, each with as many values as are read in the gateway's own process."""

LONG: dict[str, tuple[str, Callable[[], bytes]]] = {
    "plain text": (CHAT, lambda: text("a")),
    "escaped quotes": (CHAT, lambda: text('\\"')),
    "escaped quotes, a field taken out": (CHAT, lambda: text('\\"', '"priority":3')),
    "quotes as \\u0022": (CHAT, lambda: text("\\u0022")),
    "line ends, over chat": (MESSAGES, lambda: text("\\n")),
    "emoji": (CHAT, lambda: text("😀")),
    "a number": (CHAT, lambda: body(messages=[ASKED])[:-1] + b',"x":' + b"1" * BYTES + b"}"),
    "cut off": (CHAT, lambda: text("a")[:-1]),
}
"""Of long texts, each with as many bytes as are allowed."""


def many(piece: str, *more: str) -> bytes:
    """A body of ten million bytes: `piece` over and over, as elements of `documents`."""
    fields = "".join(f"{field}," for field in more)
    elements = ",".join([piece] * (10**7 // (len(piece) + 1)))
    return f'{{"model":"m",{fields}"messages":[],"documents":[{elements}]}}'.encode()


MANY: dict[str, tuple[str, Callable[[], bytes]]] = {
    "small objects": (CHAT, lambda: many('{"a":1}')),
    "small objects, a field taken out": (CHAT, lambda: many('{"a":1}', '"priority":3')),
    "small objects, a \\u0022": (CHAT, lambda: many('{"a":1}', '"user":"\\u0022"')),
    "small objects, a key twice": (CHAT, lambda: many('{"a":1}', '"documents":1')),
    "empty arrays": (CHAT, lambda: many("[]")),
    "numbers": (CHAT, lambda: many("12345")),
    "short texts": (CHAT, lambda: many('"abcdefg"')),
}
"""Of millions of values, which another process reads."""

REFUSED = {"a number", "cut off", "small objects, a key twice"}


class Turns:
    """Counts the turns of the loop, and tells in which of them long work was done."""

    def __init__(self) -> None:
        self.number = 0
        self.done: list[tuple[str, int]] = []

    async def count(self) -> None:
        while True:
            self.number += 1
            await asyncio.sleep(0)

    def watch(self, patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        work = getattr(owner, name)

        def watched(*given: Any, **named: Any) -> Any:
            self.done.append((name, self.number))
            return work(*given, **named)

        patch.setattr(owner, name, watched)


@pytest.mark.skipif(bodies.__file__.endswith(".so"), reason="compiled modules call each other past their names")
async def test_each_step_of_a_large_body_has_a_turn_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    for owner, name in (
        (bodies, "_has_no_duplicate_keys"),
        (messages.Messages, "read"),
        (pipeline, "make_plan"),
        (sending, "parse_trusted"),
        (messages, "messages_over_chat"),
        (sending, "_as_chat"),
    ):
        turns.watch(monkeypatch, owner, name)
    path, make = DENSE["messages, turns"]
    async with catalog_node(chat_answer, MODEL) as node:
        async with running_gateway(node.url, models=[{"name": MODEL, "over_chat": True}]) as gateway:
            counting = asyncio.create_task(turns.count())
            async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
                got = await asyncio.gather(*(client.post(gateway.url + path, content=make()) for _ in range(2)))
            counting.cancel()
    assert [answered.status_code for answered in got] == [200, 200]
    assert len(turns.done) == 12
    numbers = [number for _, number in turns.done]
    assert sorted(set(numbers)) == numbers, "two steps in one turn, of one body or of two"


@pytest.mark.prove
def test_the_longest_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = timed_turns(monkeypatch)
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, 20, 50)  # as in production
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(tell_longest_turns(spent))
    gc.set_threshold(*thresholds)


async def tell_longest_turns(spent: list[float]) -> None:
    """For each body: MiB, status, ms. The least of three: what else the machine does adds to a turn, and takes nothing
    away."""
    async with catalog_node(chat_answer, MODEL) as node:
        over_chat = [{"name": MODEL, "over_chat": True}]
        async with running_gateway(
            node.url, models=over_chat, requests={"memory": 2**32, "max_json_values": 10**7}
        ) as gateway:
            for name, (path, make) in {**LONG, **DENSE, **MANY}.items():
                content = make()
                worst = []
                for _ in range(3):
                    await asyncio.sleep(0.2)
                    spent.clear()
                    status = await asyncio.to_thread(post, gateway.port, path, content)
                    worst.append(max(spent) * 1000)
                print(f"| {name} | {len(content) / 2**20:.1f} | {status} | {min(worst):.0f} |")
                assert status == (400 if name in REFUSED else 200)


def timed_turns(patch: pytest.MonkeyPatch) -> list[float]:
    """CPU seconds of each turn of the loop, from now on: what waits for others, or for its core, takes none."""
    spent: list[float] = []
    run = asyncio.BaseEventLoop._run_once  # type: ignore[attr-defined]

    def timed(loop: asyncio.AbstractEventLoop) -> None:
        began = time.thread_time()
        run(loop)
        spent.append(time.thread_time() - began)

    patch.setattr(asyncio.BaseEventLoop, "_run_once", timed)
    return spent


def post(port: int, path: str, content: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, content, {"content-type": "application/json"})
    status = connection.getresponse().status
    connection.close()
    return status
