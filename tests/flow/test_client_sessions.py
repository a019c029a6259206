"""Sessions of real clients through a whole gateway: an agent's turns go to one node, and no node sees their names."""

import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections import defaultdict

import httpx
import pytest

from gateway.core.routing.known_clients import AGENT_HEADERS, SESSION_HEADERS
from tests.support.client_sessions import recorded_sessions
from tests.support.gateways import eventually, running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node

SESSIONS = recorded_sessions(lambda text: text.replace("nemotron-3-ultra", MODEL))
NAMES = (*SESSION_HEADERS, *(name.decode() for name in AGENT_HEADERS), "x_session_id", "x_vllm_priority")


async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(json.dumps({"id": "x", "usage": {"input_tokens": 9, "output_tokens": 1}}).encode()))


@pytest.mark.parametrize("client", SESSIONS)
async def test_an_agent_s_turns_go_to_one_node(client: str) -> None:
    async with scripted_node(reply) as one, scripted_node(reply) as two, running_gateway(one.url, two.url) as gateway:
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        went: dict[str, set[str]] = defaultdict(set)
        async with httpx.AsyncClient(verify=False, timeout=10) as http:
            for shape in SESSIONS[client]:
                before = len(one.asked)
                got = await http.post(gateway.url + shape.path, json=shape.body, headers=shape.headers)
                assert got.status_code == 200, got.text
                went[shape.agent].add("one" if len(one.asked) > before else "two")
        assert {agent: len(nodes) for agent, nodes in went.items()} == dict.fromkeys(went, 1)


async def test_no_header_of_a_session_reaches_a_node() -> None:
    """vLLM's own X-Session-ID steers the engine. A name with `_` is a header of its own, for a node as for us."""
    async with scripted_node(reply) as node, running_gateway(node.url) as gateway:
        async with httpx.AsyncClient(verify=False) as http:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
            headers = dict.fromkeys(NAMES, "some-session")
            assert (await http.post(f"{gateway.url}/v1/messages", json=body, headers=headers)).status_code == 200
        assert set(NAMES).isdisjoint(node.asked[0].headers)
        assert "some-session" not in str(node.asked[0].headers)
