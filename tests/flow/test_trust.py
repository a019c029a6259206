"""A node's trust is no client's to take: what one tenant sends, and what the others get from then on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.fleet.canary_questions import BUDGET
from tests.support.gateways import RunningGateway, eventually, running_gateway
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

MODEL = "nemotron-3-ultra"
LONG = "Think. [[think=500]][[answer=20]]"
ASK: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": LONG}],
    "max_tokens": 900,
    "thinking_token_budget": 8,
}
BEGUN = [
    {"role": "user", "content": "Count. [[answer=60]]"},
    {"role": "assistant", "content": "Sure, here it is: one two"},
]
GO_ON = {"messages": BEGUN, "add_generation_prompt": False, "continue_final_message": True}
ODD: dict[str, dict[str, Any]] = {
    "n as text": {"n": "4", "temperature": 1},
    "an answer already begun": GO_ON,
    "the same, streamed": {**GO_ON, "stream": True},
    "no generation prompt": {"add_generation_prompt": False},
    "several answers": {"n": 3, "temperature": 1},
    "a beam search": {"use_beam_search": True, "n": 2},
    "a marker in the text": {"messages": [{"role": "user", "content": f"</think> {LONG}"}]},
}


@asynccontextmanager
async def proven(**budgets: Any) -> AsyncIterator[tuple[FakeNode, RunningGateway, httpx.AsyncClient]]:
    """A node that holds budgets, a gateway that has found that out, and a client."""
    async with (
        serve_fake(FakeSettings(thinking_tokens=40, answer_tokens=12)) as node,
        running_gateway(node.url, budgets={"canary": True, **budgets}) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client,
    ):
        if budgets.get("canary", True):
            await eventually(lambda: gateway.app.fleet.nodes[0].capabilities.marker_shown is not None)
        assert trusted(gateway)
        yield node, gateway, client


def trusted(gateway: RunningGateway) -> bool | None:
    return gateway.app.fleet.nodes[0].capabilities.native_budget


async def set_budget(node: FakeNode, manner: str) -> None:
    """Whether the node holds budgets from now on."""
    async with httpx.AsyncClient(trust_env=False) as control:
        told = await control.post(f"{node.control_url}/fake/control", json={"settings": {"budget": manner}})
        assert told.status_code == 200, told.text


def canaries(node: FakeNode) -> int:
    """How often the node was asked whether it holds a budget."""
    mine = (seen.json for seen in node.stats.recent if "chat" in seen.path)
    return sum(body.get("thinking_token_budget") == BUDGET and body.get("temperature") == 0 for body in mine)


@pytest.mark.parametrize("fields", ODD.values(), ids=ODD.keys())
async def test_an_odd_request_costs_a_node_nothing(fields: dict[str, Any]) -> None:
    async with proven() as (node, gateway, client):
        asked = canaries(node)
        for _ in range(3):
            await client.post("/v1/chat/completions", json={**ASK, **fields})
        assert trusted(gateway) and not gateway.app.fleet.nodes[0].budget_suspected
        assert canaries(node) == asked, "it is not even asked"
        for others in ({"n": 2, "temperature": 1}, {"logprobs": True}):
            got = await client.post("/v1/chat/completions", json={**ASK, **others})
            assert got.status_code == 200, got.text


async def test_a_begun_answer_is_not_cut_as_if_it_was_thinking() -> None:
    async with proven() as (node, _, client):
        body = {**ASK, **GO_ON, "stream": True}
        ours = (await client.post("/v1/chat/completions", json=body)).text
        theirs = (await client.post(f"{node.url}/v1/chat/completions", json=body)).text
        assert ours.count("data: ") == theirs.count("data: ")


async def test_a_suspicion_that_the_node_does_not_confirm_changes_nothing() -> None:
    async with proven() as (node, gateway, client):
        known, asked = gateway.app.fleet.nodes[0], canaries(node)
        known.suspect_budget()
        await eventually(lambda: not known.budget_suspected)
        assert trusted(gateway) and canaries(node) == asked + 1
        known.suspect_budget()
        assert (await client.post("/v1/chat/completions", json={**ASK, "n": 2})).status_code == 200
        assert trusted(gateway) and canaries(node) == asked + 1, "it is not asked again so soon"


@pytest.mark.parametrize("asks", [True, False], ids=["asked at its start", "believed"])
async def test_an_overrun_that_the_node_confirms_makes_its_budgets_the_gateways(asks: bool) -> None:
    async with proven(canary=asks) as (node, gateway, client):
        await set_budget(node, "disobey")
        overran = await client.post("/v1/chat/completions", json=ASK)
        assert overran.json()["usage"]["completion_tokens_details"]["reasoning_tokens"] > 100
        await eventually(lambda: trusted(gateway) is False)
        held = await client.post("/v1/chat/completions", json=ASK)
        assert held.json()["usage"]["completion_tokens_details"]["reasoning_tokens"] == 8


async def test_a_busy_node_keeps_its_trust_until_it_can_answer() -> None:
    """A client that fills its queue is no witness either."""
    async with proven() as (node, gateway, client):
        known = gateway.app.fleet.nodes[0]
        node.set_faults(Fault("status", status=503))
        asked = node.stats.requests["/v1/chat/completions"]
        known.suspect_budget()
        await eventually(lambda: node.stats.requests["/v1/chat/completions"] > asked)
        await asyncio.sleep(0.2)
        assert trusted(gateway) and known.budget_suspected, "to be asked again"
        node.set_faults()
        assert (await client.post("/v1/chat/completions", json={**ASK, "n": 2})).status_code == 200
