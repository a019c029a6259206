"""Usage in a stream whose thinking budget the gateway holds: an event of its own for who asked for it, and nobody else.

A client reads `choices[0]` of every event where it asked for no usage.
"""

import json
from typing import Any

import httpx
import pytest

from tests.support.gateways import running_gateway
from workers.fake import FakeSettings, serve_fake

PROMPTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "<think>\n"},
}
UNASKED: list[dict[str, Any]] = [
    {},
    {"stream_options": None},
    {"stream_options": {}},
    {"stream_options": {"include_usage": False}},
    {"stream_options": {"continuous_usage_stats": True}},
]
CUT, KEPT = 8, 500
"""Budgets: the thought of 40 tokens is longer than the first."""


@pytest.mark.parametrize("path", PROMPTS)
async def test_usage_has_an_event_for_who_asked_for_it_alone(path: str) -> None:
    settings = FakeSettings(thinking_tokens=40, answer_tokens=12, budget="disobey")
    async with serve_fake(settings) as node, running_gateway(node.url, budgets={"native": False}) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client:

            async def events(budget: int, options: dict[str, Any]) -> list[dict[str, Any]]:
                body = {"model": "nemotron-3-ultra", "stream": True, "max_tokens": 100, **PROMPTS[path], **options}
                answered = await client.post(path, json=body | {"thinking_token_budget": budget})
                assert answered.status_code == 200, answered.text
                lines = [line[6:] for line in answered.text.splitlines() if line.startswith("data: ")]
                assert lines.pop() == "[DONE]" and len(lines) > 5
                return [json.loads(line) for line in lines]

            for budget in (CUT, KEPT):
                for options in UNASKED:
                    found = await events(budget, options)
                    assert all(len(each["choices"]) == 1 and each.get("usage") is None for each in found), options
                *others, last = await events(budget, {"stream_options": {"include_usage": True}})
                assert all(each["choices"] for each in others)
                assert last["choices"] == [] and last["usage"]["completion_tokens"] > 0
