"""A model that no node can serve is told as such: in the log, by /ready, in the metrics and in the status."""

import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from typing import Any

import httpx
from structlog.testing import capture_logs

from gateway.cli.status import render_fleet
from gateway.fleet.fleet import Fleet
from gateway.fleet.model_watch import REPEAT_SECONDS, ModelWatch
from gateway.fleet.node_spec import NodeSpec
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


def fleet(nodes: int) -> Fleet:
    made = Fleet([NodeSpec(f"http://n{number}:1") for number in range(nodes)])
    for node in made.nodes:
        node.probe_succeeded({"big": {}})
    return made


def told(watch: ModelWatch, now: float) -> list[tuple[str, str]]:
    with capture_logs() as lines:
        watch.refresh(now)
    return [(line["event"], line["model"]) for line in lines]


def test_it_is_told_once_an_interval_and_again_when_it_is_back() -> None:
    nodes = fleet(2)
    watch = ModelWatch(nodes, ())
    assert told(watch, 0) == []
    nodes.nodes[0].refused("connection failed", 1.0)
    assert told(watch, 1) == []
    nodes.nodes[1].refused("takes no connection", 2.0)
    assert [told(watch, float(now)) for now in range(2, 60)] == [[("model_unavailable", "big")], *[[]] * 57]
    assert told(watch, 2 + REPEAT_SECONDS) == [("model_unavailable", "big")]
    nodes.nodes[0].answered(70.0)
    assert told(watch, 70) == [("model_available", "big")]
    assert told(watch, 71) == []


def test_the_last_node_is_given_requests_and_is_not_green_where_it_fails_them() -> None:
    nodes = fleet(1)
    node, watch = nodes.nodes[0], ModelWatch(nodes, ())
    nodes.check_failed(node, "answers 500", 1.0)
    assert node.ready and not nodes.serves("big")
    assert watch.states() == [("big", False, 1, "answers 500")]
    node.probe_succeeded({"big": {}}, 2.0)
    assert not nodes.serves("big"), "a probe proves nothing of its engine"
    node.check_passed()
    assert nodes.serves("big") and told(watch, 3) == []


def test_a_listed_model_that_no_node_serves_is_told() -> None:
    watch = ModelWatch(fleet(1), ["bg"])
    assert watch.states() == [("bg", False, 0, "no node serves it")]
    assert told(watch, 0) == [("model_unavailable", "bg")]
    watch.configure(["big"])
    assert told(watch, 1) == []


async def ready(gateway: RunningGateway, **query: str) -> tuple[int, dict[str, Any]]:
    async with httpx.AsyncClient() as client:
        answered = await client.get(f"{gateway.url}/ready", params=query)
        return answered.status_code, answered.json()


async def test_a_fleet_whose_nodes_all_fail_is_not_green_and_is_back_without_a_clients_help() -> None:
    """Both answer their probes and no completion, as a vLLM does whose engine is dead."""
    dead = True

    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(answer(b"{}", "500 Internal Server Error") if dead else answer(b'{"choices": [{}]}'))

    async with scripted_node(reply) as one, scripted_node(reply) as two:
        async with running_gateway(one.url, two.url) as gateway, httpx.AsyncClient(timeout=30) as client:
            assert await ready(gateway, model=MODEL) == (200, {"status": "ready", "models": [MODEL]})
            with capture_logs() as lines:
                watch = gateway.app.models
                while watch.states()[0].ready:
                    await client.post(f"{gateway.url}/v1/chat/completions", json=ASK)
                for _ in range(20):
                    await client.post(f"{gateway.url}/v1/chat/completions", json=ASK)
                await eventually(lambda: [line for line in lines if line["event"] == "model_unavailable"])
                status, body = await ready(gateway, model=MODEL)
                assert (status, body["status"]) == (503, "no node is ready")
                assert f"All nodes of the model '{MODEL}' (2) fail" in body["detail"]
                assert one.url.partition("://")[2] not in json.dumps(body)
                assert (await ready(gateway))[0] == 503
                assert "serves the model 'nope'" in (await ready(gateway, model="nope"))[1]["detail"]
                fleet = (await client.get(f"{gateway.admin_url}/admin/fleet")).json()
                assert [(model["name"], model["ready"], model["nodes"]) for model in fleet["models"]] == [
                    (MODEL, False, 2)
                ]
                assert not {"ready", "warming up"} & {node["state"] for node in fleet["nodes"]}
                assert f"No node can serve {MODEL} (2 nodes have it)" in str(render_fleet(fleet).renderables[1])  # type: ignore[union-attr]
                page = (await client.get(f"{gateway.admin_url}/metrics")).text
                assert f'fleetgate_model_ready{{model="{MODEL}"}} 0.0' in page
                dead = False
                await eventually(lambda: [line for line in lines if line["event"] == "model_available"])
            assert len([line for line in lines if line["event"] == "model_unavailable"]) == 1
            assert (await ready(gateway, model=MODEL))[0] == 200
