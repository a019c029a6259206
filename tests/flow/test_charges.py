"""What requests are charged against what a node made, and that everybody is told the same.

The node counts for itself. Each way a request can end is one row; the last test adds a day of them up.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import httpx
import pytest

from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL
from tests.support.redis import RedisServer, redis_server
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
LONG = "[[think=2000]][[answer=200]]"
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {"type": "object", "properties": {"a": {"type": "string", "minLength": 900}}, "required": ["a"]},
    },
}
BIG = 10**9
ANTHROPIC = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def chat(text: str = LONG, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


def message(text: str = LONG, **more: Any) -> dict[str, Any]:
    return {"max_tokens": 2500, **chat(text, **more)}


def response(text: str = LONG, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": text, "max_output_tokens": 2500, **more}


class Stage:
    """A tenant that may take a lot, a node that counts, Redis that adds up."""

    def __init__(self, gateway: RunningGateway, client: httpx.AsyncClient, node: FakeNode, redis: RedisServer) -> None:
        self.client = client
        self._gateway = gateway
        self._node = node
        self._redis = redis

    @property
    def made(self) -> int:
        return self._node.node.engine.generation_tokens

    async def taken(self) -> int:
        """Tokens of the day, once nothing is under way."""
        limiter = self._gateway.app.limiter
        assert limiter is not None
        await eventually(lambda: not limiter.live and not limiter.waiting and not self._node.node.engine.running)
        await eventually(lambda: set(self._redis.do("HVALS", "fg1:{default}:held")) <= {b"s"})
        return int(self._redis.do("HGET", "fg1:{default}:t", "tpd") or 0)

    async def records(self) -> list[dict[str, Any]]:
        ledger = self._gateway.app.ledger
        assert ledger is not None and await ledger.flush()
        found = self._redis.do("XRANGE", "fg1:{usage}:records", "-", "+")
        return [json.loads(fields[b"record"]) for _, fields in found]

    def metric(self, kind: str) -> int:
        page = self._gateway.app.metrics.page().decode()
        start = f'fleetgate_tokens_total{{kind="{kind}",'
        return round(sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(start)))

    async def leave(self, path: str, body: dict[str, Any], seconds: float) -> None:
        """Ask, and hang up so long after the node has begun, unless the answer has come."""
        asking = asyncio.create_task(self._read(path, body))
        await eventually(lambda: self._node.node.engine.running or asking.done())
        await asyncio.wait((asking,), timeout=seconds)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    async def _read(self, path: str, body: dict[str, Any]) -> None:
        with contextlib.suppress(httpx.RemoteProtocolError):
            async with self.client.stream("POST", path, json=body) as answer:
                async for _ in answer.aiter_raw():
                    pass

    def faults(self, *faults: Fault) -> None:
        self._node.set_faults(*faults)


@contextlib.asynccontextmanager
async def stage(rate: float = 0, **more: Any) -> AsyncIterator[Stage]:
    limits = {"tokens_per_day": BIG, "tokens_per_minute": 10**7, "requests_per_minute": 10**5}
    async with redis_server() as redis, serve_fake(FakeSettings(rate=rate, **more)) as node:
        settings: dict[str, Any] = {"redis": redis.settings, "limits": {"default": limits}}
        async with running_gateway(node.url, **settings) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
                yield Stage(gateway, client, node, redis)


COSTLY: list[tuple[str, dict[str, Any]]] = [
    (CHAT, chat("[[answer=40]]", max_tokens="30")),
    (CHAT, chat("[[answer=40]]", max_tokens=3e1, n="3", temperature=1)),
    (CHAT, chat("[[answer=40]]", max_tokens=1, max_completion_tokens="30")),
    (CHAT, chat("[[answer=40]]", max_tokens=30, max_completion_tokens=None, n=True)),
    (CHAT, chat("[[answer=40]]", max_tokens=" 2_0 ", n=" 4 ", temperature=1)),
    (CHAT, chat("[[answer=40]]", max_tokens=20, best_of="3")),
    (CHAT, chat("[[answer=4]]", max_tokens=50, min_tokens="40")),
    (CHAT, chat("[[answer=4]]", max_tokens=50, ignore_eos="yes")),
    (CHAT, chat("[[answer=4]]", max_tokens=50, ignore_eos=True, stop=["x"], length_penalty=5.0)),
    (CHAT, chat("[[answer=40]]", max_tokens=20, logprobs=True, top_logprobs=2)),
    (CHAT, chat("[[answer=4]]", ignore_eos=1)),
    (CHAT, chat("[[answer=4]]", min_tokens="5000")),
    (CHAT, chat("[[answer=40]]", max_tokens=20, documents=[{"text": "word " * 200}])),
    (CHAT, chat("[[answer=40]]", max_tokens=20, tools=[TOOL], tool_choice="none")),
    (COMPLETIONS, {"model": MODEL, "prompt": ["a b c"] * 5, "max_tokens": "20", "ignore_eos": True}),
    (COMPLETIONS, {"model": MODEL, "prompt": [[1, 2, 3]] * 5, "max_tokens": 20, "n": "2", "temperature": 1}),
    (COMPLETIONS, {"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 20, "ignore_eos": True}),
    (COMPLETIONS, {"model": MODEL, "prompt": "a", "max_tokens": 20, "echo": "true", "ignore_eos": 1}),
    (COMPLETIONS, {"model": MODEL, "prompt": "a", "max_tokens": 20, "max_completion_tokens": 1, "ignore_eos": True}),
    (COMPLETIONS, {"model": MODEL, "prompt": "a", "ignore_eos": True}),
    (RESPONSES, {"model": MODEL, "input": "[[answer=40]]", "max_output_tokens": "30", "max_tokens": 1}),
    (RESPONSES, {"model": MODEL, "input": "[[answer=40]]", "max_output_tokens": 30, "truncation": "auto"}),
    (MESSAGES, message("[[answer=40]]", max_tokens="30")),
    (MESSAGES, message("[[answer=40]]", max_tokens=30.0, n=1)),
]


async def test_what_is_reserved_is_at_least_what_is_made() -> None:
    async with stage(max_model_len=8192) as on:
        for path, body in COSTLY:
            before, made = await on.taken(), on.made
            answer = await on.client.post(path, json=body)
            assert answer.status_code == 200, (body, answer.text)
            reserved = 10**7 - int(answer.headers["x-ratelimit-remaining-tokens"])
            assert reserved >= on.made - made > 0, body
            usage = answer.json()["usage"]
            total = usage.get("total_tokens") or sum(usage[kind] for kind in ANTHROPIC)
            assert await on.taken() - before == total, body


def _shown(**more: Any) -> dict[str, Any]:
    return chat(max_tokens=2500, stream=True, **more)


EARLY: dict[str, tuple[str, dict[str, Any]]] = {
    "stream": (CHAT, _shown()),
    "plain": (CHAT, chat(max_tokens=2500)),
    "stream of 8": (CHAT, _shown(n=8, temperature=1)),
    "plain, 8": (CHAT, chat(max_tokens=2500, n=8, temperature=1)),
    "hidden by the gateway": (CHAT, _shown(reasoning={"exclude": True})),
    "hidden by the node": (CHAT, _shown(include_reasoning=False)),
    "messages, hidden": (MESSAGES, message(stream=True, reasoning={"exclude": True})),
    "responses, hidden": (RESPONSES, response(stream=True, reasoning={"exclude": True})),
    "messages": (MESSAGES, message(stream=True)),
    "responses": (RESPONSES, response(stream=True)),
    "completions": (
        COMPLETIONS,
        {"model": MODEL, "prompt": "a", "max_tokens": 2500, "stream": True, "min_tokens": 999},
    ),
    "held tool call": (
        CHAT,
        _shown(tools=[TOOL], tool_choice="required", chat_template_kwargs={"enable_thinking": False}),
    ),
    "logprobs": (CHAT, _shown(logprobs=True, top_logprobs=5)),
}


@pytest.mark.parametrize("late", [False, True], ids=["left", "late"])
async def test_what_ends_early_is_charged_by_what_was_made(late: bool) -> None:
    """Left by the client, or out of the time that it gave: no way costs less than the node's work."""
    async with stage(rate=200) as on:
        for _ in range(3):  # the node's pace is learnt
            for stream in (False, True):
                await on.client.post(CHAT, json=chat("[[think=30]][[answer=30]]", stream=stream))
        for name, (path, body) in EARLY.items():
            before, made = await on.taken(), on.made
            if late:
                await on.client.post(path, json=body, headers={"x-request-timeout": "0.6"})
            else:
                await on.leave(path, body, 0.6)
            charged = await on.taken() - before
            work = on.made - made
            assert work > 20 and charged >= 0.7 * work, (name, work, charged)
            bound = 2500 * body.get("n", 1) + 100
            assert charged <= bound, (name, work, charged)


async def test_work_in_the_background_is_charged_whoever_waits_for_it() -> None:
    async with stage(rate=0) as on:
        body = response("[[think=10]][[answer=900]]", background=True, max_output_tokens="1000")
        charges = []
        for stream in (False, True):
            before = await on.taken()
            await on.leave(RESPONSES, {**body, "stream": stream}, 0.05 if stream else 5)
            charges.append(await on.taken() - before)
        assert all(charge >= 910 for charge in charges), charges
        refused = await on.client.post(RESPONSES, json={"model": MODEL, "input": "hi", "background": True})
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "max_tokens_required"
        assert refused.json()["error"]["param"] == "max_output_tokens"


async def test_tokenizers_are_charged_by_their_size() -> None:
    text = "word " * 4000
    async with stage() as on:
        for path, body in (
            ("/tokenize", {"model": MODEL, "prompt": text}),
            ("/detokenize", {"model": MODEL, "tokens": [300] * 5000}),
            (f"{MESSAGES}/count_tokens", chat(text)),
        ):
            before = await on.taken()
            assert (await on.client.post(path, json=body)).status_code == 200
            assert 4900 <= await on.taken() - before <= 5100, path


async def test_a_day_of_all_endings_adds_up_alike_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Limits, ledger, log and metrics tell the same sum, to the token."""
    async with stage(rate=400) as on:
        short = "[[think=10]][[answer=10]]"
        work: list[Callable[[], Any]] = [
            lambda: on.client.post(CHAT, json=chat(short)),
            lambda: on.client.post(MESSAGES, json=message(short, stream=True)),
            lambda: on.client.post("/tokenize", json={"model": MODEL, "prompt": "a b c"}),
            lambda: on.client.post(CHAT, json=chat(short, messages="none")),
            lambda: on.client.post(CHAT, json=chat(short, n="many")),
            lambda: on.client.post(CHAT, json=_shown(), headers={"x-request-timeout": "0.2"}),
            lambda: on.client.post(CHAT, json=chat(), headers={"x-request-timeout": "0.2"}),
            lambda: on.client.post(RESPONSES, json=response(short, background=True)),
            *[partial(on.leave, path, body, 0.15) for path, body in EARLY.values()],
        ]
        await asyncio.gather(*[do() for do in work * 2])
        stored = (await on.client.post(RESPONSES, json=response(short))).json()["id"]
        for _ in range(2):
            assert (await on.client.get(f"{RESPONSES}/{stored}")).status_code == 200
        on.faults(Fault("status", status=500, next=3))
        await on.client.post(CHAT, json=chat(short))
        on.faults(Fault("die", after=20, next=1))
        await on.leave(CHAT, _shown(), 0.3)
        taken, records = await on.taken(), await on.records()
        ledger = sum(record["input"] + record["output"] for record in records)
        metrics = on.metric("input") + on.metric("output")
        await asyncio.sleep(0.1)  # the log is written in batches
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if '"event":"request"' in line]
    log = sum((line["input_tokens"] or 0) + (line["output_tokens"] or 0) for line in lines)
    assert len(lines) == len(records) > 40
    assert taken == ledger == metrics == log > 0
    assert {line["usage_estimated"] for line in lines} == {True, False}
    assert [line["usage_estimated"] for line in lines] == [record["estimated"] for record in records]
