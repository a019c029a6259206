"""A model that fails all of one dialect is told, and stays ready: clients are no witnesses. So is a tenant's typo."""

import asyncio
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from typing import Any

import httpx
from structlog.testing import capture_logs

from gateway.cli.status import render_fleet
from gateway.fleet.fleet import Fleet
from gateway.fleet.named_models import PATIENCE, NamedModel, NamedModels
from gateway.fleet.node_spec import NodeSpec
from tests.support.gateways import eventually, running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": MODEL, "prompt": "hi"}


def shown(view: dict[str, Any]) -> str:
    return "\n".join(map(str, render_fleet(view).renderables))  # type: ignore[union-attr]


async def test_a_fleet_that_fails_chat_only_is_told_and_goes_on_with_the_rest() -> None:
    broken = True

    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        fails = broken and "chat" in asked.path
        writer.write(answer(b"{}", "500 Internal Server Error") if fails else answer(b'{"choices": [{}]}'))

    async with scripted_node(reply) as one, scripted_node(reply) as two:
        async with running_gateway(one.url, two.url) as gateway, httpx.AsyncClient(timeout=30) as client:

            async def fleet() -> Any:
                return (await client.get(f"{gateway.admin_url}/admin/fleet")).json()

            with capture_logs() as lines:
                watch = gateway.app.models.dialects
                for _ in range(400):
                    if watch.failing():
                        break
                    got = await client.post(f"{gateway.url}/v1/chat/completions", json=CHAT)
                    assert got.status_code == 500
                    assert (await client.post(f"{gateway.url}/v1/completions", json=COMPLETION)).status_code == 200
                    await asyncio.sleep(0.05)
                await eventually(lambda: [line for line in lines if line["event"] == "model_dialect_failing"])
                assert (await client.get(f"{gateway.url}/ready")).status_code == 200
                view = await fleet()
                (model,) = view["models"]
                assert model["ready"] and [each["dialect"] for each in model["failing"]] == ["chat"]
                assert f"{MODEL}: all requests in chat fail" in shown(view)
                page = (await client.get(f"{gateway.admin_url}/metrics")).text
                assert f'fleetgate_model_failing{{dialect="chat",model="{MODEL}"}} 1.0' in page
                broken = False
                assert (await client.post(f"{gateway.url}/v1/chat/completions", json=CHAT)).status_code == 200
                await eventually(lambda: [line for line in lines if line["event"] == "model_dialect_recovered"])
                assert (await fleet())["models"][0]["failing"] == []
            told = [line for line in lines if line["event"] == "model_dialect_failing"]
            assert len(told) == 1 and told[0]["dialect"] == "chat" and "500" in told[0]["error"]
            assert told[0]["tenant"] is None, "nobody has a key here"
    model["failing"][0]["tenant"] = "acme"
    assert "in a row, all of the tenant acme): The node" in " ".join(shown(view).split())


async def test_a_tenants_model_that_no_node_serves_is_told_once_with_what_was_meant() -> None:
    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(answer(b"{}"))

    typo = MODEL[:-1]
    tenants = [{"name": "acme", "models": [typo, MODEL], "keys": [{"sha256": "0" * 64}]}]
    async with scripted_node(reply) as node:
        with capture_logs() as lines:
            async with running_gateway(node.url, tenants=tenants) as gateway, httpx.AsyncClient() as client:
                await eventually(lambda: gateway.app.models.named.unserved())
                view = (await client.get(f"{gateway.admin_url}/admin/fleet")).json()
        assert view["unserved"] == [{"tenant": "acme", "model": typo, "meant": MODEL}]
        assert f"The tenant acme may use {typo}" in shown(view) and f"did you mean {MODEL}?" in shown(view)
        (told,) = [line for line in lines if line["event"] == "tenant_model_unserved"]
        assert (told["tenant"], told["model"], told["meant"]) == ("acme", typo, MODEL)


def test_nodes_that_have_not_said_what_they_serve_are_waited_for() -> None:
    fleet = Fleet([NodeSpec("http://n0:1"), NodeSpec("http://n1:1")])
    watch = NamedModels(fleet)
    watch.configure([NamedModel("acme", "small")])
    with capture_logs() as lines:
        watch.refresh(0)
        fleet.nodes[0].probe_succeeded({"big": {}})
        watch.refresh(1)
        assert watch.unserved() == [] and not lines
        watch.refresh(PATIENCE)
        watch.refresh(PATIENCE + 1)
        assert [each.model for each in watch.unserved()] == ["small"] and len(lines) == 1
        fleet.nodes[1].probe_succeeded({"small": {}})
        watch.refresh(PATIENCE + 2)
        assert watch.unserved() == []
        fleet.update([NodeSpec("http://n0:1")])
        watch.refresh(PATIENCE + 3)
        assert watch.unserved() == [], "it was served since the start"
    assert len(lines) == 1
