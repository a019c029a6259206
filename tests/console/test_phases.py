"""A request's phase is what its node makes: thinking, then the answer, in every dialect and however it is asked."""

import asyncio
import contextlib
from typing import Any

import httpx
import pytest

from gateway.console.open_requests import phase_of
from gateway.core.dialects.answer_marks import ends_in_thinking
from tests.support.gateways import RunningGateway, eventually, running_gateway
from workers.fake import FakeSettings, Fault, serve_fake

MODEL = "nemotron-3-ultra"
HALF = 40
"""Tokens of the thinking, and of the answer."""

MESSAGES = [{"role": "user", "content": "hi"}]
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("chat/completions", {"messages": MESSAGES}),
    "messages": ("messages", {"messages": MESSAGES, "max_tokens": 4000}),
    "responses": ("responses", {"input": "hi", "store": False}),
    "stored responses": ("responses", {"input": "hi"}),
}
LEFT_ALONE: dict[str, Any] = {"resume": {"enabled": False}}
OVER_CHAT: dict[str, Any] = {"models": [{"name": MODEL, "over_chat": True}]}
HIDDEN: dict[str, Any] = {"thinking": {"hide_reasoning": True}}


async def shown(gateway: RunningGateway, wanted: str, **fields: Any) -> None:
    """Wait until a request of each dialect is in the phase `wanted`; then all of them leave."""
    records = gateway.app.pipeline.open_records
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60, trust_env=False) as client:
        tasks = [
            asyncio.create_task(client.post(f"/v1/{path}", json={"model": MODEL, "stream": True, **body, **fields}))
            for path, body in BODIES.values()
        ]
        try:
            with contextlib.suppress(TimeoutError):
                await eventually(
                    lambda: [phase_of(each) for each in records] == [wanted] * len(tasks), 10
                )  # the node stops there
            found = {each.stats.dialect: phase_of(each) for each in records}
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    assert found == dict.fromkeys(("chat", "messages", "responses"), wanted)
    await eventually(lambda: not records)


@pytest.mark.parametrize("budget", [None, 1500], ids=["free", "with a budget"])
@pytest.mark.parametrize(
    ("settings", "node"),
    [
        ({}, {}),
        (LEFT_ALONE, {}),
        (LEFT_ALONE | HIDDEN, {}),
        (LEFT_ALONE | OVER_CHAT | HIDDEN, {}),
        (LEFT_ALONE, {"version": "vllm-0.22"}),
        (OVER_CHAT, {"reasoning_parser": False}),
        (LEFT_ALONE, {"budget": "disobey"}),
    ],
    ids=["resumable", "native", "hidden", "hidden over chat", "an old node", "no parser", "enforced"],
)
async def test_thinking_and_answer_are_told_apart(
    settings: dict[str, Any], node: dict[str, Any], budget: int | None
) -> None:
    fields = {} if budget is None else {"thinking_token_budget": budget}
    canary: dict[str, Any] = {"budgets": {"canary": True}} if node else {}
    async with (
        serve_fake(FakeSettings(thinking_tokens=HALF, answer_tokens=HALF, **node)) as fake,
        running_gateway(fake.url, **canary, **settings) as gateway,
    ):
        known = gateway.app.fleet.nodes[0]
        await eventually(lambda: not canary or known.capabilities.native_budget is not None)
        for wanted, after in (("thinking", HALF // 2), ("answering", HALF + HALF // 2)):
            fake.set_faults(Fault("stall", after=after))
            await shown(gateway, wanted, **fields)


@pytest.mark.parametrize(
    ("events", "thinks"),
    [
        (b'data: {"choices":[{"delta":{"reasoning":"a"}}]}\n\n', True),
        (b'data: {"choices":[{"delta":{"reasoning":null,"content":"a"}}]}\n\n', False),
        (b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n', None),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\n\n', False),
        (b'data: {"choices":[{"text":"\\"reasoning\\":\\"a\\""}]}\n\n', False),
        (b'data: {"type":"content_block_start","content_block":{"type":"thinking","thinking":""}}\n\n', True),
        (b'data: {"type":"content_block_start","content_block":{"type":"tool_use","input":{}}}\n\n', False),
        (b'data: {"type":"response.output_item.added","item":{"id":"rs_1","type":"reasoning"}}\n\n', True),
        (b'data: {"type":"response.output_item.added","item":{"id":"m","type":"message"}}\n\n', False),
        (b'data: {"type":"message_start","message":{"type":"message","content":[]}}\n\n', None),
        (b"", None),
    ],
)
def test_what_the_last_event_tells(events: bytes, thinks: bool | None) -> None:
    assert ends_in_thinking(events) is thinks
    if thinks is not None:
        other = b'data: {"choices":[{"delta":{"%b":"a"}}]}\n\n' % (b"content" if thinks else b"reasoning")
        assert ends_in_thinking(other + events) is thinks and ends_in_thinking(events + other) is not thinks
