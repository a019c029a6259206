"""Which models there are, by which names, and whether one can be had."""

import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from typing import Any

import httpx
import pytest

from tests.support.catalogs import catalog_node
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import Asked, ScriptedNode, answer

ULTRA, NANO = "nemotron-3-ultra", "nvidia/nano"
PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
)


async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(json.dumps({"model": json.loads(asked.body)["model"]}).encode()))


async def get(gateway: RunningGateway, path: str) -> httpx.Response:
    async with httpx.AsyncClient(verify=False, timeout=10) as client:
        return await client.get(gateway.url + path)


async def post(gateway: RunningGateway, body: dict[str, Any], path: str = PATHS[0]) -> httpx.Response:
    async with httpx.AsyncClient(verify=False, timeout=10) as client:
        return await client.post(gateway.url + path, json=body)


async def names(gateway: RunningGateway) -> list[str]:
    return sorted(card["id"] for card in (await get(gateway, "/v1/models")).json()["data"])


async def test_models_are_listed_as_their_nodes_describe_them() -> None:
    async with catalog_node(plain, ULTRA, NANO) as node, running_gateway(node.url) as gateway:
        listed = await get(gateway, "/v1/models")
        assert listed.status_code == 200
        assert listed.headers["x-request-id"] == listed.headers["request-id"] != ""
        assert listed.json() == {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "max_model_len": 4096, "root": f"/models/{name}"}
                for name in (ULTRA, NANO)
            ],
        }


async def test_one_model_by_its_name() -> None:
    async with catalog_node(plain, ULTRA, NANO) as node, running_gateway(node.url) as gateway:
        for path in (ULTRA, NANO, NANO.replace("/", "%2F")):
            one = await get(gateway, f"/v1/models/{path}")
            assert (one.status_code, one.json()["max_model_len"]) == (200, 4096)
        for path in ("none", f"{ULTRA}/", f"{ULTRA}x", "nvidia"):
            missing = await get(gateway, f"/v1/models/{path}")
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_models_of_several_nodes_are_listed_once() -> None:
    async with catalog_node(plain, ULTRA) as one, catalog_node(plain, ULTRA, NANO) as two:
        async with running_gateway(one.url, two.url) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            assert await names(gateway) == [ULTRA, NANO]


async def test_a_request_goes_to_a_node_that_serves_its_model() -> None:
    async with catalog_node(plain, ULTRA) as one, catalog_node(plain, NANO) as two:
        async with running_gateway(one.url, two.url) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            for model in (ULTRA, NANO, NANO, ULTRA, NANO):
                assert (await post(gateway, {"model": model})).json() == {"model": model}
            assert (len(one.asked), len(two.asked)) == (2, 3)


MODELS = [{"name": ULTRA, "aliases": ["gpt-4o", "claude/sonnet"]}, {"name": NANO}]


async def test_an_alias_reaches_the_node_as_the_nodes_own_name() -> None:
    async with catalog_node(plain, ULTRA, NANO) as node, running_gateway(node.url, models=MODELS) as gateway:
        for path in PATHS:
            for name in ("gpt-4o", "claude/sonnet", ULTRA):
                before = {"model": name, "input": "x", "nested": {"model": "gpt-4o"}, "seed": 1.50}
                assert (await post(gateway, before, path)).status_code == 200
                sent = json.loads(node.asked[-1].body)
                sent.pop("request_id", None)  # responses: the gateway chooses it
                assert sent == {**before, "model": ULTRA}


async def test_an_alias_is_rewritten_where_it_stands() -> None:
    """The rest of the body stays as it came, to the letter."""
    async with catalog_node(plain, ULTRA) as node, running_gateway(node.url, models=MODELS) as gateway:
        raw = b'{ "messages" : [1.0, 1e2],\n "model" :  "gpt-4o" , "x":"\xc3\xa9" }'
        async with httpx.AsyncClient(verify=False) as client:
            await client.post(gateway.url + PATHS[0], content=raw)
        assert node.asked[0].body == raw.replace(b"gpt-4o", ULTRA.encode())


async def test_aliases_are_listed_and_described() -> None:
    async with catalog_node(plain, ULTRA, NANO) as node, running_gateway(node.url, models=MODELS) as gateway:
        assert await names(gateway) == ["claude/sonnet", "gpt-4o", ULTRA, NANO]
        one = (await get(gateway, "/v1/models/gpt-4o")).json()
        assert (one["id"], one["root"]) == ("gpt-4o", f"/models/{ULTRA}")


async def test_listed_models_are_the_only_ones() -> None:
    only = [{"name": ULTRA}]
    async with catalog_node(plain, ULTRA, NANO) as node, running_gateway(node.url, models=only) as gateway:
        assert await names(gateway) == [ULTRA]
        assert (await get(gateway, f"/v1/models/{NANO}")).status_code == 404
        for path in PATHS:
            assert (await post(gateway, {"model": NANO}, path)).status_code == 404
        assert node.asked == []


async def test_an_alias_of_a_model_that_no_node_serves_is_not_offered() -> None:
    async with catalog_node(plain, ULTRA) as node, running_gateway(node.url, models=MODELS) as gateway:
        assert NANO not in await names(gateway)
        got = await post(gateway, {"model": NANO})
        assert (got.status_code, got.json()["error"]["code"]) == (503, "no_node_ready")
        assert int(got.headers["retry-after"]) >= 1


async def test_a_request_that_names_no_model_gets_the_only_one() -> None:
    async def anything(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(answer(b"{}"))

    async with catalog_node(anything, ULTRA) as node, running_gateway(node.url) as gateway:
        assert (await post(gateway, {"messages": []})).status_code == 200
        assert node.asked[0].body == b'{"messages":[]}'
        node.models.append(NANO)
        await eventually(lambda: NANO in gateway.app.fleet.served)
        got = await post(gateway, {"messages": []})
        assert (got.status_code, got.json()["error"]["param"]) == (400, "model")


async def test_a_model_that_a_node_loads_later_is_offered() -> None:
    async with catalog_node(plain, ULTRA) as node, running_gateway(node.url) as gateway:
        assert (await post(gateway, {"model": NANO})).status_code == 404
        node.models.append(NANO)
        await eventually(lambda: NANO in gateway.app.fleet.served)
        assert (await post(gateway, {"model": NANO})).status_code == 200


# Ready


@pytest.mark.parametrize("url", ["url", "admin_url"])
async def test_ready_says_whether_a_model_can_be_served(url: str) -> None:
    async with catalog_node(plain, ULTRA) as node, running_gateway(node.url, health={"interval": 0.05}) as gateway:
        async with httpx.AsyncClient(verify=False, base_url=getattr(gateway, url)) as client:
            got = await client.get("/ready")
            assert (got.status_code, got.json()) == (200, {"status": "ready", "models": [ULTRA]})
            assert (await client.get(f"/ready?model={ULTRA}")).status_code == 200
            assert (await client.get("/ready?model=")).status_code == 200
            assert (await client.get("/ready?model=none")).status_code == 503
            node.healthy = False
            await eventually(lambda: not gateway.app.fleet.serves())
            assert (await client.get("/ready")).status_code == 503
            assert (await client.get("/health")).json() == {"status": "ok"}
            node.healthy = True
            await eventually(gateway.app.fleet.serves)
            assert (await client.get("/ready")).status_code == 200


async def test_ready_for_an_alias() -> None:
    """A load balancer asks by the name that its clients use."""
    async with catalog_node(plain, ULTRA) as node, running_gateway(node.url, models=MODELS) as gateway:
        assert (await get(gateway, "/ready?model=gpt-4o")).status_code == 200
        assert (await get(gateway, f"/ready?model={NANO}")).status_code == 503


@pytest.mark.parametrize("url", ["url", "admin_url"])
async def test_ready_without_nodes_after_some_seconds(url: str) -> None:
    """For an orchestrator: a gateway of which no node is seen still has the better errors for clients."""
    async with running_gateway("http://127.0.0.1:1", ready=False) as gateway:
        async with httpx.AsyncClient(verify=False, base_url=getattr(gateway, url)) as client:
            at_once = await client.get("/ready?without_nodes_after=0")
            assert (at_once.status_code, at_once.json()["status"]) == (200, "no node is ready")
            assert (await client.get(f"/ready?model={ULTRA}&without_nodes_after=0")).status_code == 200
            assert (await client.get("/ready?without_nodes_after=3600")).status_code == 503
            assert (await client.get("/ready")).status_code == 503
            for wrong in ("", "-1", "soon", "nan"):
                assert (await client.get(f"/ready?without_nodes_after={wrong}")).status_code in (422, 503), wrong
            gateway.app.pipeline.leaving = True
            assert (await client.get("/ready?without_nodes_after=0")).status_code == 503


async def test_while_no_node_has_answered_a_client_is_told_to_come_back() -> None:
    async with running_gateway("http://127.0.0.1:1", ready=False) as gateway:
        assert (await get(gateway, "/ready")).status_code == 503
        assert (await get(gateway, "/health")).status_code == 200
        listed = await get(gateway, "/v1/models")
        assert (listed.status_code, listed.json()) == (200, {"object": "list", "data": []})
        for path in PATHS:
            got = await post(gateway, {"model": ULTRA}, path)
            assert got.status_code == 503
            assert int(got.headers["retry-after"]) >= 1
            kind = got.json()["error"]["type"]
            assert kind == "overloaded_error"


async def test_while_no_node_has_answered_a_request_that_names_no_model_is_told_to_come_back() -> None:
    async with running_gateway("http://127.0.0.1:1", ready=False) as gateway:
        assert (await post(gateway, {})).status_code == 503
