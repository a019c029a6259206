"""What the next node's tokenizer does wrong: the answer goes on elsewhere, or its client is told the reason."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.flow.resume_cuts import error_of
from tests.flow.test_resume import ASK, PATH
from tests.support.gateways import eventually, running_gateway
from tests.support.nodes import MODEL, STREAM_HEAD, Asked, ScriptedNode, answer, chunk, scripted_node

PROMPT = [5, 6, 7]


def chat_event(delta: dict[str, Any], **more: Any) -> bytes:
    ids = {} if "role" in delta else {"token_ids": [21]}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **ids}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    return chunk(b"data: " + json.dumps({**head, **more}, separators=(",", ":")).encode() + b"\n\n")


class Tokenizers:
    """Nodes that break off after a word; `/tokenize` is answered with `told`, and never where that is None."""

    def __init__(self, told: bytes | None) -> None:
        self.told = told

    async def reply(
        self, node: ScriptedNode, request: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.path == "/tokenize":
            if self.told is None:
                await node.until_hung_up(reader)
            else:
                writer.write(self.told)
        elif request.path == PATH["chat"]:
            role = chat_event({"role": "assistant", "content": ""}, prompt_token_ids=PROMPT)
            writer.write(STREAM_HEAD + role + chat_event({"reasoning": "a"}))
            await writer.drain()
            writer.transport.abort()
        else:
            writer.write(answer(b'{"choices":[{"index":0,"text":"a","finish_reason":"length"}]}'))


async def told(tokenized: bytes | None, **config: Any) -> tuple[dict[str, Any], list[ScriptedNode]]:
    """The error of an answer whose prompt is tokenized so."""
    nodes = Tokenizers(tokenized)
    chosen = {"budgets": {"canary": False}, "resume": {"max_resumes": 1, "wait": 30}, **config}
    async with (
        scripted_node(nodes.reply) as one,
        scripted_node(nodes.reply) as other,
        running_gateway(one.url, other.url, **chosen) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client,
    ):
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        response = await client.post(PATH["chat"], json={"model": MODEL, "stream": True, **ASK["chat"]})
        assert not any(node.leases for node in gateway.app.fleet.nodes)
        return error_of(response), [one, other]


@pytest.mark.parametrize(
    "tokenized",
    [{"tokens": [5, 6, 8]}, {"tokens": []}, {"tokens": ["5", "6", "7"]}, {}, [5, 6, 7]],
    ids=["others", "none", "text", "nothing", "list"],
)
async def test_a_prompt_that_is_rendered_in_another_way_is_told(tokenized: object) -> None:
    error, _ = await told(answer(json.dumps(tokenized).encode()))
    assert error["code"] == "stream_not_resumable" and error["retry_safe"] is True
    assert "renders its prompt in another way" in error["message"]


async def test_a_tokenizer_that_hangs_is_left() -> None:
    """It needs no engine: the time that a first token may take is not its."""
    error, nodes = await told(None, timeouts={"stall": 0.3, "prefill": 0.1, "node_hang": 300, "keep_alive": 300})
    assert error["code"] == "stream_not_resumable"
    asked = [request.path for node in nodes for request in node.asked]
    assert asked.count("/tokenize") == 1 and sum(node.hung_up for node in nodes) == 1
