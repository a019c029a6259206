"""Tenants are kept apart: in the nodes' caches, and in what they can make a node do."""

import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from typing import Any

import httpx
import pytest

from gateway.core.access.api_keys import key_digest
from gateway.core.dialects.messages import Messages
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.plan import make_plan
from gateway.core.upstream.node_request import node_request
from tests.support.gateways import RunningGateway, running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings")
HELLO = [{"role": "user", "content": "hello"}]
CHAT_ANSWER = {"id": "c", "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]}
NO_PROMPTS_KEPT = ("/v1/messages/count_tokens", "/tokenize", "/detokenize")


def tenant(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "keys": [{"sha256": key_digest(f"fg-{name}").hex()}], **more}


SETTINGS: dict[str, Any] = {
    "tenants": [tenant("one", cache_salt=True), tenant("two", cache_salt=True), tenant("open")],
    "response_secret": "shared between gateways",
}


async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(json.dumps(CHAT_ANSWER if asked.path == "/v1/chat/completions" else {}).encode()))


async def asked_of(node: ScriptedNode, gateway: RunningGateway, key: str, path: str, **body: Any) -> Any:
    """The body that the node gets for a request with `key`."""
    async with httpx.AsyncClient(timeout=10) as client:
        headers = {"authorization": f"Bearer fg-{key}"}
        got = await client.post(
            gateway.url + path, json={"model": MODEL, "messages": HELLO, "max_tokens": 5, **body}, headers=headers
        )
    assert got.status_code == 200, got.text
    return json.loads(node.asked[-1].body)


@pytest.mark.parametrize("path", PATHS)
async def test_each_tenants_prompts_are_kept_apart_in_the_nodes_caches(path: str) -> None:
    async with scripted_node(plain) as node, running_gateway(node.url, **SETTINGS) as gateway:
        salts = [(await asked_of(node, gateway, key, path)).get("cache_salt") for key in ("one", "two", "open")]
        assert None not in salts[:2] and salts[0] != salts[1] and salts[2] is None
        assert all(len(salt) == 64 and "one" not in salt for salt in salts[:2])
        chosen = await asked_of(node, gateway, "one", path, cache_salt=salts[1])
        assert chosen["cache_salt"] == salts[0], "nobody can name another's"
        assert "cache_salt" not in await asked_of(node, gateway, "open", path, cache_salt=salts[0])
        async with running_gateway(node.url, **SETTINGS) as second:
            again = await asked_of(node, second, "one", path)
            assert again["cache_salt"] == salts[0], "else each gateway would fill the caches with its own copies"


@pytest.mark.parametrize(
    ("version", "path"),
    [(None, "/v1/chat/completions"), ((0, 22), "/v1/chat/completions"), ((0, 32), "/v1/messages")],
)
def test_messages_go_over_chat_where_a_node_is_not_known_to_heed_a_salt_in_them(
    version: tuple[int, ...] | None, path: str
) -> None:
    """vLLM 0.22 takes the field in messages and takes no notice of it."""
    dialect = Messages()
    ask = dialect.read(json.dumps({"model": MODEL, "messages": HELLO, "max_tokens": 5}).encode())
    plan = make_plan(ask, dialect, MODEL, None, None, salt="salt")
    sending = node_request(plan, b"node", Capabilities(version=version))
    assert (sending.path, json.loads(sending.body)["cache_salt"]) == (path, "salt")
    unsalted = make_plan(ask, dialect, MODEL, None, None)
    assert node_request(unsalted, b"node", Capabilities(version=version)).path == "/v1/messages"


@pytest.mark.parametrize("path", NO_PROMPTS_KEPT)
async def test_what_keeps_no_prompt_needs_no_salt(path: str) -> None:
    async with scripted_node(plain) as node, running_gateway(node.url, **SETTINGS) as gateway:
        assert "cache_salt" not in await asked_of(node, gateway, "one", path)


async def test_without_a_shared_secret_salts_are_still_nobodys_to_guess() -> None:
    async with scripted_node(plain) as node:
        salts = set()
        for _ in range(2):
            async with running_gateway(node.url, tenants=SETTINGS["tenants"]) as gateway:
                salts.add((await asked_of(node, gateway, "one", PATHS[0]))["cache_salt"])
        assert len(salts) == 2
