"""A real vLLM names requests as the gateway tells it: in its log, and in the ids of answers."""

import re

import httpx
import pytest

from tests.real.conftest import Server
from tests.support.gateways import eventually, running_gateway

pytestmark = pytest.mark.real

HELLO = [{"role": "user", "content": "hello"}]


async def test_a_request_is_found_in_vllms_log_by_its_id(vllm: Server) -> None:
    """Chat, completions and messages by the client's `x-request-id`; responses by the id of the answer."""
    asks = {
        "chat/completions": ({"messages": HELLO, "max_tokens": 4}, "chatcmpl"),
        "completions": ({"prompt": "hello", "max_tokens": 4}, "cmpl"),
        "messages": ({"messages": HELLO, "max_tokens": 4}, "chatcmpl"),
        "responses": ({"input": "hello", "max_output_tokens": 4}, None),
    }
    telemetry = {"node_request_ids": True}
    async with running_gateway(vllm.url, telemetry=telemetry) as gateway, httpx.AsyncClient(timeout=120) as client:
        for number, (path, (body, prefix)) in enumerate(asks.items()):
            mine = f"find-me-{number}"
            got = await client.post(
                f"{gateway.url}/v1/{path}", json={"model": vllm.model, **body}, headers={"x-request-id": mine}
            )
            answer = got.json()["id"]
            assert got.headers["x-request-id"] == mine
            if prefix is not None:
                assert re.fullmatch(rf"{prefix}-{mine}-[0-9a-f]{{8}}(-0)?", answer)
            received = re.compile(rf"Received request {re.escape(answer)}([-_]0)?:")
            await eventually(lambda found=received: found.search(_log_of(vllm)))


def _log_of(vllm: Server) -> str:
    assert vllm.log is not None
    return vllm.log.read_text(errors="replace")
