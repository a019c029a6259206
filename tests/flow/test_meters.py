"""What one tenant sends never changes what another one's prompts and answers are taken for."""

import asyncio
import hashlib
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from typing import Any

import httpx
import pytest

from tests.support.gateways import running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node

CHAT = "/v1/chat/completions"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
ATTACKS: dict[str, dict[str, Any]] = {
    "images": {"messages": [{"role": "user", "content": [{"type": "text", "text": "what is this"}, IMAGE]}]},
    "truncated prompts": {"messages": [{"role": "user", "content": "x" * 50_000}], "truncate_prompt_tokens": 1},
    "dense text": {"messages": [{"role": "user", "content": "\u4e00" * 2000}]},
    "several answers": {"messages": [{"role": "user", "content": "x" * 2000}], "n": 8, "logprobs": True},
}


async def counted(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    """As a vision model counts: four bytes a token, 2500 tokens a picture, three for each CJK character."""
    body = json.loads(asked.body)
    text = json.dumps(body["messages"], ensure_ascii=False)
    tokens = len(text) // 4 + 3 * text.count("\u4e00") + 2500 * text.count("image/png")
    tokens = min(tokens, body.get("truncate_prompt_tokens", tokens))
    usage = {"prompt_tokens": tokens, "completion_tokens": 40, "total_tokens": tokens + 40}
    writer.write(answer(json.dumps({"choices": [], "usage": usage}).encode()))


def tenant(name: str) -> dict[str, Any]:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return {"name": name, "keys": [{"sha256": digest}], "limits": {"input_tokens_per_minute": 10**8}}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
async def test_one_tenants_requests_move_nobody_elses_estimates(attack: dict[str, Any]) -> None:
    tenants = [tenant("attacker"), tenant("victim")]
    async with scripted_node(counted) as node, running_gateway(node.url, tenants=tenants) as gateway:
        limiter = gateway.app.limiter
        assert limiter is not None
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:

            async def send(who: str, count: int, **fields: Any) -> None:
                prompt = [{"role": "user", "content": "lorem ipsu" * 400}]
                body = {"model": MODEL, "max_tokens": 50, "messages": prompt, **fields}
                headers = {"authorization": f"Bearer {who}"}
                got = await asyncio.gather(*(client.post(CHAT, json=body, headers=headers) for _ in range(count)))
                assert {each.status_code for each in got} == {200}

            await send("victim", 20)
            before = limiter.bytes_per_token("victim", MODEL)
            assert before == pytest.approx(4, rel=0.05)
            for _ in range(4):
                await send("attacker", 20, **attack)
            assert limiter.bytes_per_token("victim", MODEL) == before
            assert limiter.bytes_per_token("newcomer", MODEL) == 4.0
            assert 1.0 <= limiter.bytes_per_token("attacker", MODEL) <= 16.0
            await send("victim", 20)
            assert limiter.bytes_per_token("victim", MODEL) == pytest.approx(before, rel=0.01)
