"""Budgets in messages and responses on nodes that do not hold them: translation over enforcement, one answer."""

import ssl
from typing import Any

import httpx
import pytest

from gateway.core.fleet.capabilities import UNKNOWN
from tests.support.gateways import eventually, running_gateway
from tests.support.meaning import events_of, meaning
from workers.fake import FakeSettings, serve_fake

MODEL = "nemotron-3-ultra"
BUDGET = 5
ASKED = [{"role": "user", "content": "Tell me about Paris."}]
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": MODEL, "max_tokens": 300, "messages": ASKED},
    "/v1/responses": {"model": MODEL, "max_output_tokens": 300, "input": ASKED},
}
MANNERS: dict[str, dict[str, Any]] = {
    "disobeys": {"budget": "disobey"},
    "disobeys as 0.22": {"budget": "disobey", "version": "vllm-0.22"},
    "has no parser": {"budget": "absent", "reasoning_parser": False},
    "sends several tokens an event": {"budget": "disobey", "tokens_per_event": 3},
}
AUTHORITIES = ssl.create_default_context()


async def answers(manners: dict[str, Any], thinking: dict[str, Any]) -> dict[tuple[str, bool], Any]:
    """What each dialect gets, streamed (events) and plain (the answer), from a node with `manners`."""
    made = FakeSettings(thinking_tokens=40, answer_tokens=12, prompt_tokens_details=False, **manners)
    got = {}
    async with (
        serve_fake(made) as node,
        running_gateway(node.url, budgets={"canary": True}, thinking=thinking) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30, verify=AUTHORITIES) as client,
    ):
        await eventually(lambda: gateway.app.fleet.nodes[0].capabilities.marker_shown is not None)
        for path, body in REQUESTS.items():
            for stream in (True, False):
                answer = await client.post(path, json={**body, "stream": stream})
                assert answer.status_code == httpx.codes.OK, answer.text
                got[path, stream] = events_of(answer.content) if stream else answer.json()
    return got


@pytest.mark.parametrize("manners", MANNERS.values(), ids=MANNERS.keys())
async def test_the_answer_of_a_node_that_holds_the_budget(manners: dict[str, Any]) -> None:
    """Word for word what a node that obeys says (vLLM spends one token less than it may), but for events that pass the
    budget with several tokens."""
    held = await answers(manners, {"max_budget": BUDGET})
    obeyed = await answers({"budget": "obey"}, {"max_budget": BUDGET + 1})
    for way, answer in held.items():
        assert 0 < len(thought(answer).split()) <= BUDGET
        assert ended(answer)
        if "tokens_per_event" not in manners:
            assert meaning(answer) == meaning(obeyed[way])


async def test_thinking_forbidden() -> None:
    """Off is off, also where the node would think on."""
    for answer in (await answers({"budget": "disobey"}, {"mode": "forbidden"})).values():
        assert thought(answer) == ""
        assert ended(answer)


async def test_a_refusal_names_the_clients_own_field() -> None:
    made = FakeSettings(budget="disobey")
    async with (
        serve_fake(made) as node,
        running_gateway(node.url, thinking={"max_budget": BUDGET}) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30, verify=AUTHORITIES) as client,
    ):
        gateway.app.fleet.nodes[0].capabilities = UNKNOWN
        body = {**REQUESTS["/v1/responses"], "include": ["message.output_text.logprobs"]}
        refused = await client.post("/v1/responses", json=body)
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "include")
    assert "'include'" in error["message"]


async def test_chat_is_asked_only_where_the_dialect_cannot_say_it() -> None:
    """On a node that holds budgets: messages from 1,024 on are its own, below they are chat's."""
    async with (
        serve_fake(FakeSettings(thinking_tokens=40)) as node,
        running_gateway(node.url, budgets={"canary": True}) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30, verify=AUTHORITIES) as client,
    ):
        await eventually(lambda: gateway.app.fleet.nodes[0].capabilities.marker_shown is not None)
        for budget, path in ((16, "/v1/chat/completions"), (1024, "/v1/messages")):
            before = node.stats.requests.get(path, 0)
            thinking = {"type": "enabled", "budget_tokens": budget}
            body = {**REQUESTS["/v1/messages"], "max_tokens": 2000, "thinking": thinking}
            answer = await client.post("/v1/messages", json=body)
            assert len(thought(answer.json()).split()) <= budget
            assert node.stats.requests[path] == before + 1


def thought(answer: Any) -> str:
    """The thinking in an answer of either dialect."""
    if isinstance(answer, list):
        pieces = [event["delta"] for event in answer if "delta" in event and _is_thinking(event)]
        return "".join(piece if isinstance(piece, str) else piece["thinking"] for piece in pieces)
    for block in answer.get("content") or answer.get("output"):
        if block["type"] == "thinking":
            return str(block["thinking"])
        if block["type"] == "reasoning":
            return str(block["content"][0]["text"])
    return ""


def ended(answer: Any) -> bool:
    """Whether an answer came to its natural end."""
    if isinstance(answer, dict):
        return "end_turn" in answer.values() or "completed" in answer.values()
    kind, response = answer[-1]["type"], answer[-1].get("response") or {}
    return bool(kind == "message_stop" or "completed" in response.values())


def _is_thinking(event: dict[str, Any]) -> bool:
    if event["type"] == "response.reasoning_text.delta":
        return True
    return str(event["type"]) == "content_block_delta" and str(event["delta"]["type"]) == "thinking_delta"
