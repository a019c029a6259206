"""What nodes are asked before they are trusted, and how a node that dies of the question is spared."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway.core.fleet.capabilities import Capabilities
from gateway.fleet.canary import FIRST_PAUSE, Canary
from gateway.fleet.node_client import NodeRequestError
from tests.support.gateways import eventually, running_gateway
from tests.support.node_clients import asking
from tests.support.nodes import DONE, MODEL, STREAM_HEAD, Asked, ScriptedNode, answer, chunk, listening, scripted_node
from workers.fake import FakeSettings, Fault, serve_fake

CARDS = {MODEL: {"id": MODEL, "max_model_len": 4096}}


async def asked(settings: FakeSettings) -> Capabilities:
    async with serve_fake(settings) as node, asking(node.url) as client:
        canary = Canary()
        learnt = await canary.read_capabilities(client, CARDS)
        assert learnt.native_budget is None and learnt.think_end and learnt.window == 4096
        return await canary.prove(client, MODEL, 0.0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"native_budget": True, "splits_reasoning": True, "native_off": True, "version": (0, 32, 0)}),
        ({"version": "vllm-0.22"}, {"native_budget": True, "version": (0, 22, 0)}),
        ({"budget": "disobey"}, {"native_budget": False, "splits_reasoning": True, "native_off": True}),
        ({"budget": "absent"}, {"native_budget": False, "splits_reasoning": True}),
        ({"budget": "absent", "reasoning_parser": False}, {"native_budget": False, "splits_reasoning": False}),
        ({"tokens_per_event": 3}, {"native_budget": True, "splits_reasoning": True}),
        ({"reasoning_field": "reasoning_content"}, {"native_budget": True, "splits_reasoning": True}),
        ({"responses_store": True}, {"stores_responses": True}),
        ({"responses_store": False}, {"stores_responses": False}),
    ],
    ids=[
        "0.32",
        "0.22",
        "disobeys",
        "refuses",
        "no parser",
        "several tokens an event",
        "older name",
        "stores responses",
        "stores none",
    ],
)
async def test_a_node_is_known_by_what_it_does(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    found = await asked(FakeSettings(**settings))
    assert {name: getattr(found, name) for name in expected} == expected


async def _dies_of_budgets(
    node: ScriptedNode, request: Asked, _: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    if request.path != "/v1/chat/completions":
        known = {"/version": {"version": "0.22.0"}, "/tokenize": {"tokens": [9]}}
        writer.write(answer(json.dumps(known.get(request.path, {})).encode()))
        return
    if "thinking_token_budget" in json.loads(request.body):
        writer.close()
        return
    choice = {"index": 0, "delta": {"content": "yes"}, "token_ids": [9, 1], "finish_reason": "stop"}
    event = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
    writer.write(STREAM_HEAD + chunk(event) + chunk(DONE) + b"0\r\n\r\n")


async def test_a_node_that_dies_of_a_budget_is_not_asked_at_every_start() -> None:
    async with (
        scripted_node(_dies_of_budgets) as node,
        asking(node.url) as client,
    ):
        canary = Canary()

        async def start(now: float) -> int:
            """It starts (again), and is asked; how often it was asked for a budget so far."""
            canary.restarted()
            due = [canary.due]
            await canary.read_capabilities(client, CARDS)
            due.append(canary.due)
            try:
                await canary.prove(client, MODEL, now)
            except NodeRequestError:
                canary.died()
            assert [*due, canary.due] == [False, True, False]
            assert canary.capabilities.native_budget is False
            assert canary.capabilities.native_off is True, "what it showed before it died is kept"
            return sum(b"thinking_token_budget" in request.body for request in node.asked)

        assert await start(0.0) == 1
        assert await start(1.0) == 1
        assert await start(FIRST_PAUSE - 1) == 1
        assert await start(FIRST_PAUSE) == 2
        assert await start(2 * FIRST_PAUSE) == 2, "the pause is twice as long after each death"
        assert await start(3 * FIRST_PAUSE) == 3


@pytest.mark.parametrize("question", ["prove", "recheck"])
async def test_what_one_process_shows_is_not_noted_for_the_next_one(question: str) -> None:
    """A question may take two minutes; the node may be another version before its answer has come."""
    may_answer, version = asyncio.Event(), "0.22.0"

    async def reply(_: ScriptedNode, request: Asked, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.path != "/v1/chat/completions":
            known = {"/version": {"version": version}, "/tokenize": {"tokens": [9]}}
            writer.write(answer(json.dumps(known.get(request.path, {})).encode()))
            return
        if "thinking_token_budget" in json.loads(request.body):
            await may_answer.wait()
        choice = {"index": 0, "delta": {"content": "yes"}, "token_ids": [9, 1], "finish_reason": "stop"}
        event = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
        writer.write(STREAM_HEAD + chunk(event) + chunk(DONE) + b"0\r\n\r\n")

    class Told(ScriptedNode):
        def probed(self, request: Asked) -> None:
            """`reply` answers everything."""

    async with listening(Told(reply)) as node, asking(node.url) as client:
        canary = Canary()
        await canary.read_capabilities(client, CARDS)

        async def ask() -> None:
            if question == "prove":
                await canary.prove(client, MODEL, 0.0)
            else:
                assert canary.begin_recheck(0.0, suspected=True)
                canary.end_recheck(1.0, await canary.recheck(client, CARDS))

        task = asyncio.create_task(ask())
        await eventually(lambda: any(b"thinking_token_budget" in request.body for request in node.asked))
        canary.restarted()
        version = "0.32.0"
        learnt = await canary.read_capabilities(client, CARDS)
        may_answer.set()
        await task
        assert canary.capabilities == learnt
        assert (learnt.version, learnt.native_budget) == ((0, 32, 0), None)
        assert canary.due


async def test_trust_comes_back_as_it_went_by_asking_the_node() -> None:
    async with (
        serve_fake(FakeSettings()) as node,
        httpx.AsyncClient(trust_env=False) as control,
        asking(node.url) as client,
    ):

        async def node_is(manner: str) -> None:
            told = await control.post(f"{node.control_url}/fake/control", json={"settings": {"budget": manner}})
            assert told.status_code == 200, told.text

        async def ask(now: float, suspected: bool) -> bool | None:
            assert canary.begin_recheck(now, suspected)
            assert not canary.begin_recheck(now, suspected), "one at a time"
            holds = await canary.recheck(client, CARDS)
            canary.end_recheck(now, holds)
            return holds

        def trusts() -> bool | None:
            return canary.capabilities.native_budget

        canary = Canary()
        await canary.read_capabilities(client, CARDS)
        await canary.prove(client, MODEL, 0.0)
        assert not canary.begin_recheck(0.0, suspected=False)
        await node_is("disobey")
        assert await ask(0.0, suspected=True) is False
        assert not canary.begin_recheck(59.0, suspected=True)
        assert await ask(60.0, suspected=False) is False, "nobody has to ask for it"
        assert not canary.begin_recheck(60.0 + 119.0, suspected=False)
        node.set_faults(Fault("status", status=429))
        assert await ask(180.0, suspected=False) is None, "to be busy is no answer"
        assert trusts() is False
        node.set_faults()
        await node_is("obey")
        assert await ask(1000.0, suspected=False) is True
        assert trusts() is True
        assert not canary.begin_recheck(2000.0, suspected=False)
        assert not canary.begin_recheck(1029.0, suspected=True)
        await node_is("absent")
        assert await ask(1030.0, suspected=True) is False, "it refuses budgets now"


async def test_a_node_is_asked_anew_after_a_restart_and_serves_meanwhile() -> None:
    settings = FakeSettings(rate=200)
    async with serve_fake(settings) as node, running_gateway(node.url, budgets={"canary": True}) as gateway:
        known = gateway.app.fleet.nodes[0]
        await eventually(lambda: known.capabilities.native_budget)
        node.crash()
        await eventually(lambda: not known.ready)
        node.stats.reset()
        await node.restart()
        await eventually(lambda: known.ready)
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        await eventually(lambda: known.capabilities.native_budget)
        assert any(b"thinking_token_budget" in seen.body for seen in node.stats.recent)
