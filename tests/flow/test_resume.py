"""A node that breaks off at any event of an answer: another one goes on, and the client has the unbroken answer."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.support.gateways import RunningGateway, eventually, running_gateway
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

MODEL = "nemotron-3-ultra"
ASK: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "Tell me about Paris."}]},
    "messages": {"messages": [{"role": "user", "content": "Tell me about Paris."}], "max_tokens": 500},
    "responses": {"input": "Tell me about Paris.", "store": False},
    "completions": {"prompt": "<|im_start|>user\nTell me about Paris.<|im_end|>\n<|im_start|>assistant\n<think>\n"},
}
PATH = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
}


UNPACED = {"rate": 100.0}
"""Of `resume`: a model's budget saves up twenty resumes and earns one a second for few streams, and tests make more."""

VARYING = {"id", "created", "created_at", "item_id", "signature", "system_fingerprint", "call_id"}


@dataclass(slots=True)
class Fleet:
    nodes: list[FakeNode]
    gateway: RunningGateway
    client: httpx.AsyncClient
    records: list[Any] = field(default_factory=list)

    async def ask(self, dialect: str, body: dict[str, Any]) -> str:
        answer = await self.client.post(PATH[dialect], json=body)
        assert answer.headers["x-fleetgate-resumable"] == "exact"
        return answer.text

    def break_off(self, fault: Fault) -> None:
        """The node that is asked next meets `fault`: it is the only one that may have new work."""
        for node in self.nodes:
            node.set_faults(fault)

    def heal(self) -> None:
        for node in self.nodes:
            node.set_faults()


@asynccontextmanager
async def fleet(count: int = 2, config: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Fleet]:
    made = FakeSettings(**{"thinking_tokens": 6, "answer_tokens": 6, **settings})
    async with serve_fake(made) as one, serve_fake(made) as other:
        nodes = [one, other][:count]
        chosen = {"budgets": {"canary": True}, "health": {"interval": 0.05, "failures": 1000}, **(config or {})}
        chosen["resume"] = UNPACED | chosen.get("resume", {})
        async with (
            running_gateway(*(node.url for node in nodes), **chosen) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client,
        ):
            known = gateway.app.fleet.nodes
            await eventually(lambda: all(node.capabilities.marker_shown is not None for node in known))
            yield Fleet(nodes, gateway, client)


def normal(text: str) -> list[str]:
    """The lines of a stream, without comments and what differs between two answers to one request."""
    lines = []
    for line in text.splitlines():
        if not line or line.startswith(":"):
            continue
        if line.startswith("data: {"):
            data = json.loads(line[6:])
            _count_cached_as_read(data)
            lines.append(json.dumps(_without(data, VARYING)))
        else:
            lines.append(line)
    return lines


def _count_cached_as_read(data: Any) -> None:
    """What the last node had in its cache is not what the first one had."""
    for place in (data, data.get("response"), data.get("message")):
        usage = place.get("usage") if isinstance(place, dict) else None
        if usage:
            usage.pop("prompt_tokens_details", None)
            usage.pop("input_tokens_details", None)
            cached = usage.pop("cache_read_input_tokens", 0) or 0
            cached += usage.pop("cache_creation_input_tokens", 0) or 0
            usage["input_tokens" if "input_tokens" in usage else "prompt_tokens"] += cached


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(each, names) for key, each in value.items() if key not in names}
    return [_without(each, names) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", ["die", "reset", "error_event"])
@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
async def test_an_answer_goes_on_from_every_event(dialect: str, kind: Any) -> None:
    async with fleet() as made:
        body = {"model": MODEL, "stream": True, **ASK[dialect]}
        expected = normal(await made.ask(dialect, body))
        for after in range(2, 16):
            made.break_off(Fault(kind, after=after, next=1, path="/v1/chat"))
            answer = await made.ask(dialect, body)
            made.heal()
            assert normal(answer) == expected, after


@pytest.mark.parametrize("kind", ["die", "reset", "error_event"])
async def test_completions_go_on_from_every_event(kind: Any) -> None:
    async with fleet() as made:
        body = {"model": MODEL, "stream": True, **ASK["completions"]}
        expected = normal(await made.ask("completions", body))
        for after in range(2, 16):
            served = max(made.nodes, key=lambda node: node.stats.requests.get("/v1/completions", 0))
            served.set_faults(Fault(kind, after=after, next=1, path="/v1/completions"))
            answer = await made.ask("completions", body)
            made.heal()
            assert normal(answer) == expected, after


@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
async def test_a_stream_is_one_though_its_head_is_sent_after_a_break(dialect: str) -> None:
    """Hidden thinking keeps the head back. The tokenizer that is asked meanwhile answers in JSON."""
    async with fleet(config={"thinking": {"hide_reasoning": True, "default_budget": 64}}) as made:
        body = {"model": MODEL, "stream": True, **ASK[dialect]}
        for after in range(2, 10):
            made.break_off(Fault("die", after=after, next=1, path="/v1/chat"))
            answer = await made.client.post(PATH[dialect], json=body)
            made.heal()
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
