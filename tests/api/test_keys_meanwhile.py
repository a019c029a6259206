"""Whose key it is was found out by the head; what holds is what is true when the body is there."""

import json
import os
import signal
from typing import Any

import pytest

from gateway.config.tree import Config
from gateway.core.access.api_keys import key_digest
from gateway.core.reading.outline import REWRITABLE
from tests.support.crowd import CHAT, ask
from tests.support.gateways import eventually, running_gateway
from tests.support.raw import head, raw_client
from workers.fake import FakeSettings, serve_fake

KEY = "fg-a-key"
TENANT: dict[str, Any] = {"name": "chat", "keys": [{"sha256": key_digest(KEY).hex()}]}
OTHER: dict[str, Any] = {"name": "other", "keys": [{"sha256": key_digest("fg-another").hex()}]}
AUTHORIZED = f"authorization: Bearer {KEY}"


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("tenants", "status", "code"),
    [
        ([{**TENANT, "keys": [{**TENANT["keys"][0], "expires": "2020-01-01T00:00:00Z"}]}], 401, "invalid_api_key"),
        ([OTHER], 401, "invalid_api_key"),
        ([{**TENANT, "models": ["another-model"]}, OTHER], 404, "model_not_found"),
        ([TENANT, OTHER], 200, None),
    ],
    ids=["expired", "revoked", "may use less", "as before"],
)
async def test_a_key_is_judged_again_once_the_body_is_there(
    tenants: list[dict[str, Any]], status: int, code: str | None, large: bool
) -> None:
    roomy = FakeSettings(max_model_len=4_000_000, capacity=4_000_000)
    async with serve_fake(roomy) as node, running_gateway(node.url, tenants=[TENANT, OTHER]) as gateway:
        body = json.dumps(ask("x" * (2_000_000 if large else 10), max_tokens=1)).encode()
        async with raw_client(gateway.port, 30) as client:
            await client.send(head("POST", CHAT, f"content-length: {len(body)}", AUTHORIZED) + body[:10])
            await eventually(lambda: gateway.server.server_state.tasks)
            settings = gateway.app.config.model_dump() | {"tenants": tenants}
            gateway.app.apply(Config(**settings))  # as a reload does
            await client.send(body[10:])
            got = await client.answer()
            assert (got.status, got.json().get("error", {}).get("code")) == (status, code)


@pytest.mark.parametrize(("tenants", "status"), [([OTHER], 401), ([TENANT, OTHER], 200)])
async def test_so_it_is_once_another_process_has_read_it(tenants: list[dict[str, Any]], status: int) -> None:
    async with serve_fake() as node, running_gateway(node.url, tenants=[TENANT, OTHER]) as gateway:
        many = ask("hi", max_tokens=1) | {"documents": [[]] * (REWRITABLE + 10), "user": "x" * 1_000_000}
        async with raw_client(gateway.port, 60) as client:
            await client.post(CHAT, many, AUTHORIZED)
            assert (await client.answer()).status == 200
            pid = gateway.app.reader.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            await client.post(CHAT, many, AUTHORIZED)
            await eventually(lambda: gateway.app.reader.unwritten > 0)
            gateway.app.apply(Config(**(gateway.app.config.model_dump() | {"tenants": tenants})))
            os.kill(pid, signal.SIGCONT)
            assert (await client.answer()).status == status


@pytest.mark.parametrize(("tenants", "status"), [([OTHER], 401), ([TENANT, OTHER], 400)])
async def test_so_is_that_of_who_asks_for_a_stored_response(tenants: list[dict[str, Any]], status: int) -> None:
    async with serve_fake() as node, running_gateway(node.url, tenants=[TENANT, OTHER]) as gateway:
        async with raw_client(gateway.port, 30) as client:
            made = {"model": ask()["model"], "input": "hi", "max_output_tokens": 20, "background": True}
            await client.post("/v1/responses", made, AUTHORIZED)
            id = (await client.answer()).json()["id"]
            await client.send(head("POST", f"/v1/responses/{id}/cancel", "content-length: 2", AUTHORIZED))
            await eventually(lambda: gateway.server.server_state.tasks)
            gateway.app.apply(Config(**(gateway.app.config.model_dump() | {"tenants": tenants})))
            await client.send(b"{}")
            assert (await client.answer()).status == status, "the node says that there is nothing to cancel"
