"""What pages of listed origins may read, and from where."""

from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from typing import Any

import pytest

from gateway.core.api_keys import key_digest
from tests.support.gateways import running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.raw import head, raw_client

PAGE, KEY = "https://app.example", "fg-a-key"
LIMITS = {"requests_per_minute": 1, "tokens_per_day": 10_000, "tokens_per_minute": 5_000}
TENANT = {"name": "one", "keys": [{"sha256": key_digest(KEY).hex()}], "limits": LIMITS}
ALWAYS_SHOWN = {"cache-control", "content-length", "content-type"}  # by the Fetch standard
OF_THE_CONNECTION = {"date", "connection", "transfer-encoding", "vary"}


async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(b"{}"))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/completions", "/v1/models", "/nowhere"])
async def test_a_page_may_read_every_header_of_every_answer(path: str) -> None:
    """Served, refused for its limits, its key or its method: whatever the gateway tells, a script is shown."""
    settings: dict[str, Any] = {"listen": {"cors_origins": [PAGE]}, "tenants": [TENANT]}
    body = {"model": MODEL, "max_tokens": 2, "messages": [{"role": "user", "content": "x"}], "prompt": "x"}
    seen = set()
    async with scripted_node(plain) as node, running_gateway(node.url, **settings) as gateway:
        for method, key in (("POST", KEY), ("POST", KEY), ("POST", "fg-wrong"), ("GET", KEY), ("DELETE", KEY)):
            async with raw_client(gateway.port) as client:
                if method == "POST":
                    await client.post(path, body, f"origin: {PAGE}", f"x-api-key: {key}")
                else:
                    await client.send(head(method, path, f"origin: {PAGE}", f"x-api-key: {key}"))
                got = await client.answer(method)
            seen.add(got.status)
            assert got.headers["access-control-allow-origin"] == PAGE
            shown = set(got.headers["access-control-expose-headers"].lower().replace(" ", "").split(","))
            told = {name for name in got.headers if not name.startswith("access-control-")}
            assert told <= shown | ALWAYS_SHOWN | OF_THE_CONNECTION
    if path.startswith("/v1/chat") or path == "/v1/messages":
        assert seen == {200, 429, 401, 405}


@pytest.mark.parametrize(("origins", "status"), [([PAGE], 200), (["*"], 400), (["https://other.example"], 400)])
async def test_pages_of_listed_origins_may_call_into_a_private_network(origins: list[str], status: int) -> None:
    asks = ("access-control-request-method: POST", "access-control-request-private-network: true")
    async with scripted_node(plain) as node, running_gateway(node.url, listen={"cors_origins": origins}) as gateway:
        async with raw_client(gateway.port) as client:
            await client.send(head("OPTIONS", "/v1/chat/completions", f"origin: {PAGE}", *asks))
            got = await client.answer("OPTIONS")
            if origins == ["*"]:
                assert "access-control-allow-private-network" not in got.headers
            else:
                assert got.status == status
                assert ("access-control-allow-private-network" in got.headers) == (status == 200)
