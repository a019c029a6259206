"""Pressure on thinking, through a gateway: what is granted, told and written down, and thoughts that end early."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.config.tree import Config
from gateway.core.telemetry.request_stats import RequestStats
from gateway.pressure.thinking_pressure import ThinkingPressure
from tests.support.gateways import RunningGateway, eventually, running_gateway
from workers.fake import FakeNode, FakeSettings, serve_fake

MODEL = "nemotron-3-ultra"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me about Paris."}]}
BUDGET = "x-fleetgate-thinking-budget"
QUICK: dict[str, Any] = {
    "enabled": True,
    "hold": 0,
    "floor": 0.25,
    "shrink": 1,
    "grow": 1,
    "budget_floor": 8,
    "default_budget": 64,
    "cut": 60,
    "cut_classes": ["batch", "standard"],
}
OBEY = {"budget": "obey"}
DISOBEY = {"budget": "disobey"}
NO_PARSER = {"budget": "absent", "reasoning_parser": False}
MANNERS = pytest.mark.parametrize("manners", [OBEY, DISOBEY, NO_PARSER], ids=["obeys", "disobeys", "has no parser"])


class Hand:
    """The hand at the lever: the expected wait, and the time that the rules see."""

    def __init__(self, pressure: ThinkingPressure) -> None:
        self._pressure = pressure
        self.wait = 0.0
        self._now = 1e6
        pressure.expected_wait = lambda model: self.wait

    async def turn(self, wait: float, seconds: int = 3) -> None:
        self.wait = wait
        for _ in range(seconds):
            self._now += 1.0
            await self._pressure.refresh(self._now)


@asynccontextmanager
async def pressed(
    manners: dict[str, Any], thinking: int = 200, rate: float = 0.0, pressure: dict[str, Any] = QUICK, **settings: Any
) -> AsyncIterator[tuple[FakeNode, RunningGateway, httpx.AsyncClient, Hand, list[RequestStats]]]:
    made = FakeSettings(thinking_tokens=thinking, answer_tokens=12, rate=rate, **manners)
    async with (
        serve_fake(made) as node,
        running_gateway(node.url, budgets={"canary": True}, pressure=pressure, **settings) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=60, trust_env=False) as client,
    ):
        await eventually(lambda: gateway.app.fleet.nodes[0].capabilities.marker_shown is not None)
        ended: list[RequestStats] = []
        gateway.app.pipeline._observers += (ended.append,)
        hand = Hand(gateway.app.pressure)
        await hand.turn(0.0, 1)
        yield node, gateway, client, hand, ended


async def ask(client: httpx.AsyncClient, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
    answer = await client.post(path, json={**ASK, **fields})
    assert answer.status_code == 200, answer.text
    return answer


def thought(answer: httpx.Response) -> int:
    """Tokens of thinking; 0 where the node does not tell them."""
    told = answer.json()["usage"].get("completion_tokens_details") or {}
    return told.get("reasoning_tokens") or 0


@MANNERS
async def test_budgets_shrink_are_told_and_grow_back(manners: dict[str, Any]) -> None:
    async with pressed(manners) as (_, gateway, client, hand, ended):
        assert BUDGET not in (await ask(client)).headers
        whole = await ask(client, thinking_budget=100)
        assert BUDGET not in whole.headers and 99 <= thought(whole) <= 100
        await hand.turn(1000)
        assert gateway.app.pressure.factors == {MODEL: 0.25}
        small = await ask(client, thinking_budget=100)
        assert small.headers[BUDGET] == "25; source=pressure; asked=100"
        assert 24 <= thought(small) <= 25 and small.json()["choices"][0]["message"]["content"]
        bare = await ask(client)
        assert bare.headers[BUDGET] == "16; source=pressure" and 15 <= thought(bare) <= 16
        off = await ask(client, enable_thinking=False)
        assert BUDGET not in off.headers and not thought(off)
        page = (await client.get(f"{gateway.admin_url}/metrics")).text
        assert f'fleetgate_thinking_factor{{model="{MODEL}"}} 0.25' in page
        fleet = (await client.get(f"{gateway.admin_url}/admin/fleet")).json()
        assert fleet["models"][0]["thinking_factor"] == 0.25
        await hand.turn(0, 70)
        assert gateway.app.pressure.factors == {MODEL: 1.0}
        assert BUDGET not in (await ask(client)).headers
        told = [
            (each.thinking_asked, each.thinking_budget, None if each.usage is None else each.usage.reasoning)
            for each in ended
        ]
        assert [pair[:2] for pair in told[:5]] == [(None, None), ("100", 100), ("100", 25), (None, 16), ("off", 0)]
        assert told[2][2] is not None and 24 <= told[2][2] <= 25


async def test_promises_are_kept_and_classes_weigh() -> None:
    promised = {"guaranteed_budget": 60, "max_budget": 90}
    async with pressed(OBEY) as (_, gateway, client, hand, _):
        settings = gateway.app.config.model_dump()
        gateway.app.apply(Config(**{**settings, "thinking": promised}))
        await hand.turn(1000)
        assert (await ask(client, thinking_budget=100)).headers[BUDGET] == "60; source=pressure; asked=100"
        assert (await ask(client, thinking_budget=50)).headers[BUDGET] == "50; source=request"
        gateway.app.apply(Config(**{**settings, "queue": {"default_class": "interactive"}}))
        client.headers["x-fleetgate-class"] = "batch"
        await hand.turn(1000)
        assert (await ask(client, thinking_budget=160)).headers[BUDGET] == "10; source=pressure; asked=160"
        client.headers["x-fleetgate-class"] = "interactive"
        assert (await ask(client, thinking_budget=160)).headers[BUDGET] == "80; source=pressure; asked=160"


@MANNERS
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
async def test_a_running_thought_ends_early_and_is_answered(manners: dict[str, Any], stream: bool) -> None:
    async with pressed(manners, thinking=4000, rate=400) as (node, gateway, client, hand, ended):
        asking = asyncio.create_task(ask(client, thinking_budget=3900, max_tokens=8000, stream=stream))
        relay = gateway.app.relay
        if manners is OBEY and not stream:  # its node holds the budget, and nothing shows how far it is
            await eventually(lambda: relay.exchanges_for(MODEL))
            await hand.turn(1000)
            assert not gateway.app.pressure.ended
            asking.cancel()
            await eventually(lambda: node.running == 0 and not relay.exchanges_for(MODEL))
            return
        await eventually(lambda: any((each.running_thought or (0, 0))[1] > 30 for each in relay.exchanges_for(MODEL)))
        await hand.turn(1000)
        assert not gateway.app.pressure.ended, "it is within what it would be granted now"
        rules = {**QUICK, "weights": {"standard": 10}}
        gateway.app.apply(Config(**{**gateway.app.config.model_dump(), "pressure": rules}))
        await hand.turn(1000)
        answer = await asking
        assert gateway.app.pressure.ended == {MODEL: 1}
        if not stream:
            message = answer.json()["choices"][0]
            assert message["message"]["content"] and message["finish_reason"] == "stop" and 30 < thought(answer) < 3800
        else:
            assert '"content":"' in answer.text and '"finish_reason":"stop"' in answer.text
            assert answer.text.endswith("data: [DONE]\n\n")
        assert ended[-1].thinking_ended_early and ended[-1].ending == "ok"
        page = (await client.get(f"{gateway.admin_url}/metrics")).text
        assert f'fleetgate_thinking_ended_early_total{{model="{MODEL}"}} 1.0' in page
        assert "fleetgate_thinking_cuts_total{" not in page and "fleetgate_budget_overruns_total{" not in page
        assert gateway.app.fleet.nodes[0].capabilities.native_budget is (manners is OBEY)
        await eventually(lambda: node.running == 0)


async def test_thoughts_end_one_by_one_and_a_client_that_leaves_is_forgotten() -> None:
    rules = {**QUICK, "weights": {"standard": 10}, "cut_interval": 2}
    async with pressed(DISOBEY, thinking=4000, rate=200, pressure=rules) as (node, gateway, client, hand, ended):
        fields: dict[str, Any] = {"thinking_budget": 3900, "max_tokens": 8000, "stream": True}
        asking = [asyncio.create_task(ask(client, **fields)) for _ in range(4)]
        relay = gateway.app.relay

        def thinking() -> int:
            return sum((each.running_thought or (0, 0))[1] > 20 for each in relay.exchanges_for(MODEL))

        await eventually(lambda: thinking() == 4)
        await hand.turn(1000, 2)
        assert gateway.app.pressure.ended == {MODEL: 1}
        await hand.turn(1000, 2)
        assert gateway.app.pressure.ended == {MODEL: 2}
        await hand.turn(0, 10)
        assert gateway.app.pressure.ended == {MODEL: 2}
        for each in asking:
            each.cancel()
        await eventually(lambda: not relay.exchanges_for(MODEL) and node.running == 0)
        await hand.turn(1000, 5)
        assert gateway.app.pressure.ended == {MODEL: 2}
        await eventually(lambda: len(ended) == 4)
        assert sum(each.thinking_ended_early for each in ended) == 2


async def test_tools_are_not_ended_where_the_node_holds_no_budget() -> None:
    rules = {**QUICK, "weights": {"standard": 10}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    async with pressed(DISOBEY, thinking=100, rate=200, pressure=rules) as (_, gateway, client, hand, _):
        asking = asyncio.create_task(ask(client, thinking_budget=200, tools=tools, max_tokens=500))
        await eventually(lambda: gateway.app.relay.exchanges_for(MODEL))
        await hand.turn(1000)
        assert thought(await asking) == 100 and not gateway.app.pressure.ended


async def test_turned_off_in_the_middle_nothing_is_less_any_more() -> None:
    async with pressed(DISOBEY, thinking=300, rate=400) as (_, gateway, client, hand, _):
        await hand.turn(1000)
        running = asyncio.create_task(ask(client, thinking_budget=200, max_tokens=900))
        await eventually(lambda: gateway.app.relay.exchanges_for(MODEL))
        off = Config(**{**gateway.app.config.model_dump(), "pressure": {**QUICK, "enabled": False}})
        gateway.app.apply(off)
        assert gateway.app.pressure.factors == {} == gateway.app.pressure.squeezes
        await hand.turn(1000)
        assert gateway.app.pressure.factors == {}
        assert (await running).headers[BUDGET] == "50; source=pressure; asked=200", "what was granted stays"
        whole = await ask(client, thinking_budget=200, max_tokens=900)
        assert BUDGET not in whole.headers and thought(whole) == 200
        page = (await client.get(f"{gateway.admin_url}/metrics")).text
        assert "fleetgate_thinking_factor{" not in page
        fleet = (await client.get(f"{gateway.admin_url}/admin/fleet")).json()
        assert fleet["models"][0]["thinking_factor"] is None
        gateway.app.apply(Config(**{**off.model_dump(), "pressure": QUICK}))
        await hand.turn(0, 1)
        assert gateway.app.pressure.factors == {MODEL: 1.0}, "it begins anew"


async def test_messages_and_responses_shrink_too() -> None:
    async with pressed(DISOBEY, thinking=200) as (_, _, client, hand, _):
        await hand.turn(1000)
        body = {"model": MODEL, "max_tokens": 900, "thinking_budget": 100}
        told = await client.post("/v1/messages", json={**body, "messages": ASK["messages"]})
        assert told.status_code == 200 and told.headers[BUDGET] == "25; source=pressure; asked=100"
        assert json.loads(told.text)["content"][-1]["text"]
        asked = {"model": MODEL, "input": "Tell me about Paris.", "store": False}
        told = await client.post("/v1/responses", json=asked)
        assert told.status_code == 200 and told.headers[BUDGET] == "16; source=pressure"
        assert told.json()["usage"]["output_tokens_details"]["reasoning_tokens"] <= 16
        told = await client.post("/v1/responses", json={**asked, "store": True})
        assert told.status_code == 200 and BUDGET not in told.headers, "chat stores nothing"


async def test_off_is_off() -> None:
    async with pressed(OBEY, pressure={}) as (_, gateway, client, hand, ended):
        await hand.turn(1000)
        assert gateway.app.pressure.squeezes == {} and gateway.app.pressure.factors == {}
        assert BUDGET not in (await ask(client, thinking_budget=100)).headers
        assert ended[-1].claim is None
