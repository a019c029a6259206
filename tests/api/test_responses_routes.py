"""Stored responses: their ids lead to the node that made them, for the tenant that owns them, and for nobody else."""

import contextlib
import json
import re
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.core.access.api_keys import key_digest
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import (
    LAST_CHUNK,
    MODEL,
    STREAM_HEAD,
    Asked,
    ScriptedNode,
    answer,
    chunk,
    scripted_node,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESPONSES = "/v1/responses"
MINE, YOURS = "fg-mine", "fg-yours"
SETTINGS: dict[str, Any] = {
    "tenants": [
        {"name": name, "keys": [{"sha256": key_digest(key).hex()}]} for name, key in (("me", MINE), ("you", YOURS))
    ],
    "routing": {"policy": "round_robin"},
    "response_secret": "shared between gateways",
}
ID = re.compile(r"resp_[0-9a-f]{48}")


@contextlib.asynccontextmanager
async def storing_node() -> AsyncIterator[ScriptedNode]:
    """Keeps responses under the ids that it is given, as vLLM does, and knows no others."""
    kept: set[str] = set()

    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        path, _, query = asked.path.partition("?")
        if path == RESPONSES:
            body = json.loads(asked.body)
            made = body.get("request_id", "resp_of_the_node")
            if body.get("store") is not False:
                kept.add(made)
            writer.write(answer(json.dumps({"id": made, "object": "response", "node": node.url}).encode()))
            return
        wanted = path.removeprefix(f"{RESPONSES}/").removesuffix("/cancel")
        if wanted not in kept:
            writer.write(answer(b'{"error":{"message":"unknown here"}}', "404 Not Found"))
        elif "stream=true" in query:
            ended = b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n'
            writer.write(STREAM_HEAD + chunk(ended) + LAST_CHUNK)
        else:
            told = {"id": wanted, "node": node.url, "method": asked.method, "path": asked.path}
            writer.write(answer(json.dumps(told).encode()))

    async with scripted_node(reply) as node:
        yield node


Shared = tuple[list[ScriptedNode], RunningGateway]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Shared]:
    async with storing_node() as one, storing_node() as two, running_gateway(one.url, two.url, **SETTINGS) as gateway:
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        yield [one, two], gateway


@pytest.fixture
def served(shared: Shared) -> Shared:
    for node in shared[0]:
        node.asked.clear()
    return shared


async def call(
    gateway: RunningGateway, method: str, path: str, body: dict[str, Any] | None = None, key: str = MINE
) -> httpx.Response:
    async with httpx.AsyncClient(verify=False, timeout=10, headers={"x-api-key": key}) as client:
        return await client.request(method, gateway.url + path, json=body)


async def make(gateway: RunningGateway, key: str = MINE, **fields: Any) -> dict[str, Any]:
    got = await call(gateway, "POST", RESPONSES, {"model": MODEL, "input": "hello", **fields}, key)
    assert got.status_code == 200
    made: dict[str, Any] = got.json()
    return made


async def test_the_gateway_chooses_the_id(served: Shared) -> None:
    nodes, gateway = served
    made = [await make(gateway) for _ in range(6)]
    assert all(ID.fullmatch(response["id"]) for response in made)
    assert len({response["id"] for response in made}) == 6
    assert {response["node"] for response in made} == {node.url for node in nodes}
    sent = json.loads(nodes[0].asked[0].body)
    assert {name: value for name, value in sent.items() if name != "request_id"} == {"model": MODEL, "input": "hello"}


async def test_a_client_cannot_choose_the_id(served: Shared) -> None:
    theirs = (await make(served[1], YOURS))["id"]
    assert (await make(served[1], request_id=theirs))["id"] != theirs


async def test_retrieve_and_cancel_reach_the_node_that_made_it(served: Shared) -> None:
    nodes, gateway = served
    for _ in range(8):
        made = await make(gateway)
        got = await call(gateway, "GET", f"{RESPONSES}/{made['id']}")
        assert got.status_code == 200
        told = got.json()
        assert told == {"id": made["id"], "node": made["node"], "method": "GET", "path": f"{RESPONSES}/{made['id']}"}
        assert got.headers["x-request-id"] == got.headers["request-id"]
        cancelled = await call(gateway, "POST", f"{RESPONSES}/{made['id']}/cancel")
        assert cancelled.status_code == 200
        assert (cancelled.json()["node"], cancelled.json()["path"]) == (
            made["node"],
            f"{RESPONSES}/{made['id']}/cancel",
        )
    assert all(len(node.asked) == 12 for node in nodes)


async def test_the_query_of_a_retrieve_is_passed_on(served: Shared) -> None:
    made = await make(served[1])
    query = "?include[]=x&starting_after=3"
    got = await call(served[1], "GET", f"{RESPONSES}/{made['id']}{query}")
    assert got.json()["path"].startswith(f"{RESPONSES}/{made['id']}?") and "starting_after=3" in got.json()["path"]


async def test_a_stored_stream_is_a_stream(served: Shared) -> None:
    made = await make(served[1])
    got = await call(served[1], "GET", f"{RESPONSES}/{made['id']}?stream=true")
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.content.endswith(b'"response":{}}\n\n')


async def test_another_tenant_finds_nothing(served: Shared) -> None:
    nodes, gateway = served
    made = (await make(gateway, YOURS))["id"]
    for node in nodes:
        node.asked.clear()
    for method, path, body in (
        ("GET", f"{RESPONSES}/{made}", None),
        ("POST", f"{RESPONSES}/{made}/cancel", None),
        ("POST", RESPONSES, {"model": MODEL, "input": "x", "previous_response_id": made}),
    ):
        got = await call(gateway, method, path, body, MINE)
        assert (got.status_code, got.json()["error"]["code"]) == (404, "response_not_found")
    assert all(node.asked == [] for node in nodes)


GARBAGE = (
    "resp_",
    "resp_00",
    "resp_" + "0" * 48,
    "resp_" + "g" * 48,
    "0" * 53,
    "x",
    "resp_of_the_node",
    "resp_" + "a" * 5000,
)


async def test_an_id_that_was_never_given_finds_nothing(served: Shared) -> None:
    nodes, gateway = served
    made = (await make(gateway))["id"]
    tampered = [made[:at] + ("0" if made[at] != "0" else "1") + made[at + 1 :] for at in range(5, len(made), 6)]
    for node in nodes:
        node.asked.clear()
    for unknown in (*GARBAGE, *tampered, made + "00", made[:-2], f"{made}_"):
        for method, path in (("GET", f"{RESPONSES}/{unknown}"), ("POST", f"{RESPONSES}/{unknown}/cancel")):
            got = await call(gateway, method, path)
            assert got.status_code == 404
            assert got.json()["error"]["code"] in ("response_not_found", "unknown_path")
        got = await call(gateway, "POST", RESPONSES, {"model": MODEL, "previous_response_id": unknown})
        assert (got.status_code, got.json()["error"]["code"]) == (404, "response_not_found")
    assert all(node.asked == [] for node in nodes)


@pytest.mark.parametrize("tail", ["%2e%2e/health", "..%2fhealth", "x%0d%0ay", "%C3%A9", "a?b#c", "a%20b"])
async def test_an_id_cannot_lead_elsewhere(tail: str, served: Shared) -> None:
    nodes, gateway = served
    assert (await call(gateway, "GET", f"{RESPONSES}/{tail}")).status_code == 404
    assert all(node.asked == [] for node in nodes)


async def test_a_conversation_stays_on_its_node(served: Shared) -> None:
    nodes, gateway = served
    first = await make(gateway)
    for number in range(6):
        following = await make(gateway, previous_response_id=first["id"], input=f"{number}")
        assert following["node"] == first["node"]
        assert following["id"] != first["id"]
    node = next(node for node in nodes if node.url == first["node"])
    assert json.loads(node.asked[-1].body)["previous_response_id"] == first["id"]


async def test_a_bad_previous_id_names_its_field(served: Shared) -> None:
    got = await call(served[1], "POST", RESPONSES, {"model": MODEL, "previous_response_id": "resp_00"})
    assert got.json()["error"]["param"] == "previous_response_id"


@pytest.mark.parametrize("fields", [{}, {"input": "x"}, {"stream": False}])
async def test_what_is_not_stored_goes_as_it_came(fields: dict[str, Any], served: Shared) -> None:
    nodes, gateway = served
    raw = json.dumps({"model": MODEL, "store": False, **fields}, indent=1).encode()
    async with httpx.AsyncClient(verify=False, headers={"x-api-key": MINE}) as client:
        got = await client.post(gateway.url + RESPONSES, content=raw)
    assert got.json()["id"] == "resp_of_the_node"
    assert [asked.body for node in nodes for asked in node.asked] == [raw]
    assert (await call(gateway, "GET", f"{RESPONSES}/resp_of_the_node")).status_code == 404


async def test_gateways_with_one_secret_know_each_others_ids(served: Shared) -> None:
    nodes, gateway = served
    made = await make(gateway)
    async with running_gateway(*(node.url for node in nodes), **SETTINGS) as other:
        await eventually(lambda: all(node.ready for node in other.app.fleet.nodes))
        assert (await call(other, "GET", f"{RESPONSES}/{made['id']}")).json()["node"] == made["node"]
    stranger = {**SETTINGS, "response_secret": "another"}
    async with running_gateway(*(node.url for node in nodes), **stranger) as other:
        assert (await call(other, "GET", f"{RESPONSES}/{made['id']}")).status_code == 404


async def test_an_id_outlives_neither_its_node_nor_a_wrong_turn() -> None:
    """Its node gone: 404 where the fleet does not have it any more, 503 while it only does not answer."""
    async with storing_node() as one, storing_node() as two:
        async with running_gateway(one.url, two.url, **SETTINGS) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            made = [await make(gateway) for _ in range(2)]
            lost = next(response["id"] for response in made if response["node"] == one.url)
            await one.stop()
            await eventually(lambda: not gateway.app.fleet.nodes[0].ready)
            two.asked.clear()
            got = await call(gateway, "GET", f"{RESPONSES}/{lost}")
            assert got.status_code in (502, 503)
            got = await call(gateway, "POST", RESPONSES, {"model": MODEL, "previous_response_id": lost})
            assert got.status_code in (502, 503)
            assert two.asked == []
        async with running_gateway(two.url, **SETTINGS) as gateway:
            assert (await call(gateway, "GET", f"{RESPONSES}/{lost}")).status_code == 404


async def test_without_tenants_ids_are_sealed_for_everybody() -> None:
    async with storing_node() as node, running_gateway(node.url) as gateway:
        made = await make(gateway)
        assert ID.fullmatch(made["id"])
        assert (await call(gateway, "GET", f"{RESPONSES}/{made['id']}")).status_code == 200
