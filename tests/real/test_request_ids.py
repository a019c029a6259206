"""A real vLLM names requests as the gateway tells it: in the ids of answers, which are those of its log."""

import re

import httpx
import pytest

from tests.real.conftest import Server
from tests.support.gateways import running_gateway

pytestmark = pytest.mark.real


async def test_the_id_of_an_answer_has_the_requests_id(vllm: Server) -> None:
    chat = {"model": vllm.model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    plain = {"model": vllm.model, "prompt": "hello", "max_tokens": 4}
    telemetry = {"node_request_ids": True}
    async with running_gateway(vllm.url, telemetry=telemetry) as gateway, httpx.AsyncClient(timeout=120) as client:
        for path, body, prefix in (("chat/completions", chat, "chatcmpl"), ("completions", plain, "cmpl")):
            got = await client.post(f"{gateway.url}/v1/{path}", json=body)
            assert re.fullmatch(rf"{prefix}-{got.headers['x-request-id']}-[0-9a-f]{{8}}(-0)?", got.json()["id"])
