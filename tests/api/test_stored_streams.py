"""Streams of stored responses: fetched again behind any event, they go on with the numbers that the client knows."""

import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
import pytest_asyncio
from pydantic import TypeAdapter, ValidationError

from gateway.core.http.sse import split_events
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import LAST_CHUNK, MODEL, STREAM_HEAD, Asked, ScriptedNode, answer, chunk, scripted_node
from workers.fake.response_events import ResponseEvents

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESPONSES = "/v1/responses"
THOUGHT = "QXZ"


def made() -> list[bytes]:
    """The events of a response that thinks, answers, thinks again and answers, as a node numbers them."""
    writer = ResponseEvents()
    events = [writer.event(f"response.{kind}", {"response": {"output": []}}) for kind in ("created", "in_progress")]
    for kind, text in (("reasoning", THOUGHT), ("message", "de"), ("reasoning", "f"), ("message", "gh")):
        for char in text:
            events += writer.text(kind, char)
    events += writer.close()
    return [*events, writer.event("response.completed", {"response": {"output": writer.output}})]


async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    """As vLLM does: a background response streams its events, and again behind the one that `starting_after` names.
    The query is read as FastAPI does."""
    path, _, query = asked.path.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    try:
        stream = TypeAdapter(bool).validate_python(given.get("stream", False))
        behind = TypeAdapter(int).validate_python(given.get("starting_after", -1))
    except ValidationError:
        writer.write(answer(b'{"error":{"message":"not valid"}}', "400 Bad Request"))
        return
    if path != RESPONSES and not stream:
        whole = made()[-1].partition(b"data: ")[2]
        writer.write(answer(json.dumps(json.loads(whole)["response"]).encode()))
        return
    events = made()[behind + 1 :]
    writer.write(STREAM_HEAD + b"".join(map(chunk, events)) + LAST_CHUNK)


Shared = tuple[ScriptedNode, RunningGateway, RunningGateway]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Shared]:
    hidden: dict[str, Any] = {"thinking": {"hide_reasoning": True}}
    secret: dict[str, Any] = {"response_secret": "shared between gateways"}
    async with (
        scripted_node(reply) as node,
        running_gateway(node.url, **secret) as shows,
        running_gateway(node.url, **secret, **hidden) as hides,
    ):
        for gateway in (shows, hides):
            await eventually(lambda gateway=gateway: all(node.ready for node in gateway.app.fleet.nodes))
        yield node, shows, hides


async def first_stream(gateway: RunningGateway, node: ScriptedNode) -> tuple[str, list[bytes]]:
    """The id of a new response, and the events that its client got."""
    body = {"model": MODEL, "input": "x", "background": True, "stream": True}
    async with httpx.AsyncClient(base_url=gateway.url, timeout=10) as client:
        got = await client.post(RESPONSES, json=body)
    assert got.status_code == 200
    return json.loads(node.asked[-1].body)["request_id"], split_events(got.content)


async def fetch(gateway: RunningGateway, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=10) as client:
        return await client.get(f"{RESPONSES}/{path}")


def number_of(event: bytes) -> int:
    number: int = json.loads(event.partition(b"data: ")[2])["sequence_number"]
    return number


def normal(events: list[bytes]) -> list[bytes]:
    """Without the random ids of items."""
    found = [json.loads(event.partition(b"data: ")[2]) for event in events]
    return [json.dumps(_without_ids(each), sort_keys=True).encode() for each in found]


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_ids(each) for name, each in value.items() if name not in ("id", "item_id")}
    return [_without_ids(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("hides", [True, False])
async def test_a_stored_stream_goes_on_behind_every_event_as_it_was(shared: Shared, hides: bool) -> None:
    node, gateway = shared[0], shared[2] if hides else shared[1]
    response_id, events = await first_stream(gateway, node)
    assert [number_of(event) for event in events] == list(range(len(events)))
    assert any(b"reasoning" in event for event in events) != hides
    for query in ("stream=true", "stream=1&starting_after=-1", "starting_after=7&stream=on&starting_after=-1"):
        assert normal(split_events((await fetch(gateway, f"{response_id}?{query}")).content)) == normal(events)
    for after in range(len(events) - 1):
        got = await fetch(gateway, f"{response_id}?stream=true&starting_after={after}&include_obfuscation=false")
        assert normal(split_events(got.content)) == normal(events[after + 1 :]), after
        assert "include_obfuscation=false" in node.asked[-1].path


SPELLINGS = (
    "starting_after={}",
    "starting%5Fafter={}",
    "starting_after={}.0",
    "starting_after=+{}",
    "starting_after=0{}",
)


@pytest.mark.parametrize(
    "spelled", [*SPELLINGS, "starting_after=x&starting_after={}", "starting_after={}&starting_after="]
)
@pytest.mark.parametrize(
    "stream", ["stream=true", "stream=1", "stream=Yes", "x=stream=true", "stream=false", "stream=%74"]
)
async def test_hidden_reasoning_stays_hidden_however_it_is_fetched(shared: Shared, spelled: str, stream: str) -> None:
    node, _, gateway = shared
    response_id, _ = await first_stream(gateway, node)
    for number in range(len(made())):
        got = await fetch(gateway, f"{response_id}?{stream}&{spelled.format(number)}")
        assert THOUGHT not in got.text and "reasoning_text" not in got.text


async def test_a_number_that_is_none_is_refused(shared: Shared) -> None:
    node, shows, hides = shared
    response_id, _ = await first_stream(hides, node)
    got = await fetch(hides, f"{response_id}?stream=true&starting_after=x")
    assert (got.status_code, got.json()["error"]["param"]) == (400, "starting_after")
    response_id, _ = await first_stream(shows, node)
    got = await fetch(shows, f"{response_id}?stream=true&starting_after=x")
    assert (got.status_code, got.json()["error"]["message"]) == (400, "not valid")


async def test_a_response_is_cancelled_whatever_its_query_says(shared: Shared) -> None:
    node, _, gateway = shared
    response_id, _ = await first_stream(gateway, node)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=10) as client:
        assert (await client.post(f"{RESPONSES}/{response_id}/cancel?starting_after=x")).status_code == 400
    assert node.asked[-1].path == f"{RESPONSES}/{response_id}/cancel?starting_after=x"


async def test_behind_the_last_event_nothing_comes(shared: Shared) -> None:
    node, _, gateway = shared
    response_id, events = await first_stream(gateway, node)
    got = await fetch(gateway, f"{response_id}?stream=true&starting_after={len(events)}")
    assert (got.status_code, got.content) == (200, b"")
