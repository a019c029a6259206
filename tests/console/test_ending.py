"""An operator ends a request: in each phase, in each dialect, its client is told, and everything is given back once."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.console.open_requests import phase_of
from gateway.core.access.api_keys import key_digest
from gateway.core.telemetry.request_stats import RequestStats
from gateway.request_record import RequestRecord
from tests.console.chromium import TOKEN
from tests.console.operators import operator, watching
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateways import RunningGateway, eventually
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

MODEL = "nemotron-3-ultra"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
SLOW = FakeSettings(rate=20, thinking_tokens=200, answer_tokens=200)
ADMIN: dict[str, Any] = {"admin": {"token": TOKEN, "hosts": []}, "budgets": {"canary": True}}


@dataclass
class House:
    gateway: RunningGateway
    node: FakeNode
    operator: httpx.AsyncClient
    ended: list[RequestStats]

    @property
    def records(self) -> list[RequestRecord]:
        return list(self.gateway.app.pipeline.open_records)

    async def in_phase(self, phase: str) -> RequestRecord:
        """The one request that is under way, once it is in this phase."""
        await eventually(lambda: any(phase_of(record) == phase for record in self.records))
        return next(record for record in self.records if phase_of(record) == phase)

    async def end(self, record: RequestRecord) -> dict[str, Any]:
        got = await self.operator.delete(f"/admin/requests/{record.stats.request_id}")
        assert got.status_code == 200, got.text
        found: dict[str, Any] = got.json()
        return found


@asynccontextmanager
async def house(node: FakeSettings = SLOW, **settings: Any) -> AsyncIterator[House]:
    async with serve_fake(node) as fake, limited_gateway(fake.url, **{**ADMIN, **settings}) as gateway:
        await eventually(lambda: all(each.capabilities.think_end for each in gateway.app.fleet.nodes))
        ended: list[RequestStats] = []
        gateway.app.pipeline._observers += (ended.append,)
        async with operator(gateway.admin_url) as client:
            yield House(gateway, fake, client, ended)


async def ask(gateway: RunningGateway, path: str = "/v1/chat/completions", **fields: Any) -> tuple[int, str]:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        got = await client.post(
            gateway.url + path, json={**CHAT, **fields}, headers={"anthropic-version": "2023-06-01"}
        )
        return got.status_code, got.text


def waits(found: House, phase: str) -> Callable[[], bool]:
    return lambda: any(phase_of(record) == phase for record in found.records)


@pytest.mark.parametrize(
    ("phase", "fault", "fields"),
    [
        ("prefill", Fault("hang"), {"stream": True}),
        ("thinking", None, {"stream": True}),
        ("thinking", None, {"stream": True, "thinking_token_budget": 100}),
        ("answering", None, {"stream": True, "chat_template_kwargs": {"enable_thinking": False}}),
        ("working", Fault("hang"), {"logprobs": True}),
        ("prefill", Fault("hang"), {"thinking_token_budget": 10}),
    ],
)
async def test_it_is_ended_in_each_phase(phase: str, fault: Fault | None, fields: dict[str, Any]) -> None:
    async with house() as found:
        found.node.set_faults(*([fault] if fault else []))
        task = asyncio.create_task(ask(found.gateway, **fields))
        record = await found.in_phase(phase)
        told = await found.end(record)
        assert told["phase"] == phase and told["tenant"] == "default"
        status, text = await task
        begun = phase in ("thinking", "answering")
        assert status == (200 if begun else 403)
        last = text.strip().rpartition("data: ")[2]
        error = json.loads(last if begun else text)["error"]
        assert error["code"] == "ended_by_operator" and "Ada" in error["message"]
        await nothing_held(found.gateway, *([] if fault else [found.node]))  # one that hangs reads nothing
        assert [event.ending for event in found.ended] == ["ended_by_operator"]
        assert found.records == []


@pytest.mark.parametrize(
    ("path", "mark"),
    [
        ("/v1/messages", '"type":"permission_error"'),
        ("/v1/responses", "ended_by_operator"),
        ("/v1/completions", "ended_by_operator"),
    ],
)
async def test_each_dialect_says_so_in_its_stream(path: str, mark: str) -> None:
    body: dict[str, Any] = {"stream": True, "max_tokens": 400}
    body |= {"input": "x", "messages": None} if path == "/v1/responses" else {}
    body |= {"prompt": "x", "messages": None} if path == "/v1/completions" else {}
    async with house() as found:
        sent = {name: value for name, value in {**CHAT, **body}.items() if value is not None}
        if path == "/v1/responses":
            sent["max_output_tokens"] = sent.pop("max_tokens")
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            headers = {"anthropic-version": "2023-06-01"}
            task = asyncio.create_task(client.post(found.gateway.url + path, json=sent, headers=headers))
            await eventually(lambda: any(record.stats.first_byte for record in found.records))
            await found.end(found.records[0])
            got = await task
        assert got.status_code == 200 and mark in got.text.replace('": "', '":"'), got.text[-400:]
        await nothing_held(found.gateway, found.node)


async def test_one_that_waits_for_a_place_leaves_the_queue() -> None:
    nodes = {"queue": {"max_wait": 60}}
    async with serve_fake(SLOW) as fake:
        settings: dict[str, Any] = {**ADMIN, **nodes, "nodes": [{"url": fake.url, "max_concurrency": 1}]}
        async with limited_gateway(**settings) as gateway, operator(gateway.admin_url) as client:
            found = House(gateway, fake, client, [])
            first = asyncio.create_task(ask(gateway, stream=True))
            await found.in_phase("thinking") if await _knows_ids(gateway) else None
            second = asyncio.create_task(ask(gateway, stream=True))
            record = await found.in_phase("waiting")
            assert (await found.end(record))["phase"] == "waiting"
            status, text = await second
            assert status in (200, 403) and "ended_by_operator" in text
            assert not first.done() and len(found.records) == 1
            await found.end(found.records[0])
            assert "ended_by_operator" in (await first)[1]
            await nothing_held(gateway, fake)


async def _knows_ids(gateway: RunningGateway) -> bool:
    await eventually(lambda: all(each.capabilities.think_end for each in gateway.app.fleet.nodes))
    return True


async def test_one_that_waits_to_be_resumed() -> None:
    """Its only node has broken off; the client has a part of the answer."""
    async with house() as found:
        task = asyncio.create_task(ask(found.gateway, stream=True))
        await found.in_phase("thinking")
        found.node.set_faults(Fault("refuse"))
        found.node.node.faults.set(Fault("refuse"), Fault("status", status=503))
        for connection in list(found.node.connections):
            connection.transport.abort()
        record = await found.in_phase("resuming")
        await found.end(record)
        assert "ended_by_operator" in (await task)[1]
        found.node.set_faults()
        await nothing_held(found.gateway, found.node)


async def test_one_whose_body_is_still_to_come() -> None:
    async with house() as found:
        host, port = "127.0.0.1", found.gateway.port
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n{")
        record = await found.in_phase("reading")
        await found.end(record)
        assert b"403" in await reader.readline()
        writer.close()
        await nothing_held(found.gateway, found.node)


async def test_twice_is_once_and_one_that_has_ended_is_not_found() -> None:
    async with house() as found:
        task = asyncio.create_task(ask(found.gateway, stream=True))
        record = await found.in_phase("thinking")
        path = f"/admin/requests/{record.stats.request_id}"
        both = await asyncio.gather(found.operator.delete(path), found.operator.delete(path))
        assert sorted(got.status_code for got in both) in ([200, 200], [200, 404])
        await task
        assert (await found.operator.delete(path)).status_code == 404
        assert len(found.ended) == 1
        await nothing_held(found.gateway, found.node)


async def test_an_id_that_two_tenants_use_ends_neither_until_one_is_named() -> None:
    """Clients choose ids: nobody hides a request behind that of another, nor has it ended instead."""
    keys = {name: f"fg-of-{name}" for name in ("acme", "beta")}
    tenants = [{"name": name, "keys": [{"sha256": key_digest(key).hex()}]} for name, key in keys.items()]
    async with house(tenants=tenants) as found:
        async with watching(found.operator) as seen, httpx.AsyncClient(timeout=60, trust_env=False) as client:

            def send(tenant: str) -> asyncio.Task[httpx.Response]:
                headers = {"x-request-id": "the-same", "authorization": f"Bearer {keys[tenant]}"}
                url = f"{found.gateway.url}/v1/chat/completions"
                return asyncio.create_task(client.post(url, json={**CHAT, "stream": True}, headers=headers))

            tasks = {"acme": send("acme"), "beta": send("beta"), "again": send("beta")}
            await eventually(lambda: len(found.records) == 3)
            await eventually(lambda: len(seen.tables.get("requests", {})) == 3)
            got = await found.operator.delete("/admin/requests/the-same")
            assert got.status_code == 409 and got.json()["field"] == "tenant" and "acme, beta" in got.json()["detail"]
            got = await found.operator.delete("/admin/requests/the-same", params={"tenant": "nobody"})
            assert got.status_code == 404 and len(found.records) == 3
            got = await found.operator.delete("/admin/requests/the-same", params={"tenant": "beta"})
            assert got.status_code == 200 and got.json()["tenant"] == "beta"
            for name in ("beta", "again"):
                assert "ended_by_operator" in (await tasks[name]).text
            assert [record.stats.tenant for record in found.records] == ["acme"]
            assert (await found.operator.delete("/admin/requests/the-same")).json()["tenant"] == "acme"
            assert "ended_by_operator" in (await tasks["acme"]).text
        await nothing_held(found.gateway, found.node)


async def test_a_client_that_leaves_first_is_not_told() -> None:
    async with house() as found:
        task = asyncio.create_task(ask(found.gateway, stream=True))
        record = await found.in_phase("thinking")
        task.cancel()
        record.end(_error())
        await nothing_held(found.gateway, found.node)
        assert len(found.ended) == 1 and record.ended_with is not None


def _error() -> Any:
    from gateway.core.errors import EndedByOperator

    return EndedByOperator("ended")


async def test_a_console_sees_how_far_a_request_is() -> None:
    async with house() as found, watching(found.operator) as seen:
        task = asyncio.create_task(ask(found.gateway, stream=True, thinking_token_budget=40))
        phases: list[str] = []

        def looked() -> bool:
            for row in seen.tables.get("requests", {}).values():
                if row["phase"] not in phases:
                    phases.append(row["phase"])
                if row["thinking"] is not None:
                    assert row["budget"] == 40 and row["thinking"] <= 41
            return "answering" in phases

        await eventually(looked)
        assert "thinking" in phases
        await eventually(lambda: all(row["thinking"] for row in seen.tables["requests"].values()))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: not seen.tables["requests"])
