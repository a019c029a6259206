"""What clients ask of responses that the gateway keeps: with budgets on, on any gateway, streamed and plain."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.responses.setting import MODEL, RESPONSES, SETTINGS, YOURS, Json, Setting, code, setting, user
from tests.support.gateways import eventually, running_gateway
from tests.support.meaning import events_of
from workers.fake import FakeSettings, Fault, serve_fake

pytestmark = pytest.mark.asyncio(loop_scope="module")
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
FUNCTION: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,aGVsbG8=", "detail": "auto"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there() -> AsyncIterator[Setting]:
    async with setting() as made:
        yield made


@BOTH
async def test_a_response_is_found_on_every_gateway(there: Setting, stream: bool) -> None:
    made = await there.create("hello", stream=stream)
    assert made["store"] is True and made["status"] == "completed"
    for at in (0, 1):
        found = await there.get(made["id"], at)
        assert (found.status_code, found.json()) == (200, made)


@BOTH
async def test_a_conversation_goes_on_as_if_the_client_had_sent_it(there: Setting, stream: bool) -> None:
    given: list[Any] = [[user("Who are you?")], [user("And [[answer=9]]"), {"role": "system", "content": "Be brief."}]]
    first = await there.create(given[0], stream=stream)
    second = await there.create(given[1], at=1, stream=stream, previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    third = await there.create("More.", stream=stream, previous_response_id=second["id"], instructions="Obey.")
    chained = there.prompt()
    said = [*given[0], *first["output"], *given[1], *second["output"], user("More.")]
    alone = await there.create(said, stream=stream, instructions="Obey.", store=False)
    assert there.prompt() == chained and len(chained) == 7
    texts = [[item.get("content") for item in each["output"]] for each in (third, alone)]
    assert texts[0] == texts[1]
    assert third["usage"]["input_tokens"] == alone["usage"]["input_tokens"]


async def test_the_next_request_always_finds_the_response(there: Setting) -> None:
    """Whoever has the last event may go on at once, elsewhere."""

    async def talk(number: int) -> None:
        previous: str | None = None
        for turn in range(6):
            fields: Json = {"previous_response_id": previous} if previous else {}
            made = await there.create(f"{number}, {turn}", at=(number + turn) % 2, stream=turn % 3 > 0, **fields)
            previous = made["id"]

    await asyncio.gather(*(talk(number) for number in range(8)))


async def test_nothing_is_kept_for_whom_wants_nothing_kept(there: Setting) -> None:
    before = there.keys()
    made = await there.create("hello", store=False)
    assert made["store"] is False and there.keys() == before
    assert code(await there.get(made["id"])) == (404, "response_not_found", "response_id")
    first = await there.create("hello")
    chained = await there.create("more", previous_response_id=first["id"], store=False)
    assert (chained["previous_response_id"], chained["store"]) == (first["id"], False)
    assert there.redis.do("HLEN", next(iter(set(there.keys()) - set(before)))) == 1


@BOTH
async def test_a_tool_loop_by_references(there: Setting, stream: bool) -> None:
    """As SDKs do that store by default: each step names what the model said before by its ids."""
    asked: Json = {"tools": [FUNCTION], "stream": stream}
    called = await there.create([user("weather? [[call]]")], **asked)
    call = next(item for item in called["output"] if item["type"] == "function_call")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "Sunny"}
    named = [{"type": "item_reference", "id": item["id"]} for item in called["output"]]
    answered = await there.create([user("weather? [[call]]"), *named, output], at=1, **asked)
    by_reference = there.prompt()
    said = [user("weather? [[call]]"), *called["output"], output]
    await there.create(said, store=False, **asked)
    assert there.prompt() == by_reference and by_reference[-1]["role"] == "tool"
    listed = await there.get(answered["id"], what="/input_items?order=asc")
    kinds = [item["type"] for item in listed.json()["data"]]
    assert kinds == ["message", *(item["type"] for item in called["output"]), "function_call_output"]


async def test_a_tool_loop_by_the_previous_response(there: Setting) -> None:
    called = await there.create("weather? [[call]]", tools=[FUNCTION])
    call = next(item for item in called["output"] if item["type"] == "function_call")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "Sunny"}
    await there.create([output], at=1, tools=[FUNCTION], previous_response_id=called["id"])
    roles = [message["role"] for message in there.prompt()]
    assert roles == ["user", "assistant", "tool"]


async def test_images_and_encrypted_thoughts_come_back(there: Setting) -> None:
    included: Json = {"include": ["reasoning.encrypted_content"]}
    first = await there.create([{"role": "user", "content": [IMAGE]}], **included)
    assert first["output"][0]["encrypted_content"]
    assert (await there.get(first["id"], 1)).json() == first
    await there.create("And?", at=1, previous_response_id=first["id"])
    prompt = there.prompt()
    assert prompt[0]["content"][0]["image_url"]["url"] == IMAGE["image_url"]
    assert prompt[1]["reasoning"] == first["output"][0]["content"][0]["text"]


async def test_an_answer_that_ran_into_its_limit_is_kept_as_that(there: Setting) -> None:
    for stream in (False, True):
        made = await there.create("hello [[answer=50]]", stream=stream, max_output_tokens=20)
        assert made["status"] == "incomplete"
        assert (await there.get(made["id"], 1)).json() == made
        following = await there.create("go on", previous_response_id=made["id"])
        assert following["status"] == "completed"


async def test_nobody_else_finds_it(there: Setting) -> None:
    made = await there.create("a secret")
    response_id, item = made["id"], made["output"][0]["id"]
    there.node.stats.reset()
    for at in (0, 1):
        for method, what in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
            told = await there.ask(method, f"{RESPONSES}/{response_id}{what}", None, at, YOURS)
            assert code(told) == (404, "response_not_found", "response_id")
        body: dict[str, Any] = {"model": MODEL, "input": "and?", "previous_response_id": response_id}
        told = await there.ask("POST", RESPONSES, body, at, YOURS)
        assert code(told) == (404, "response_not_found", "previous_response_id")
        body = {"model": MODEL, "input": [{"type": "item_reference", "id": item}]}
        told = await there.ask("POST", RESPONSES, body, at, YOURS)
        assert code(told) == (404, "item_not_found", "input.0.id")
    assert there.node.stats.requests["/v1/chat/completions"] == 0
    assert (await there.get(response_id)).status_code == 200


async def test_it_can_be_deleted(there: Setting) -> None:
    first = await there.create("one")
    second = await there.create("two", previous_response_id=first["id"])
    told = await there.ask("DELETE", f"{RESPONSES}/{first['id']}", at=1)
    assert (told.status_code, told.json()) == (200, {"id": first["id"], "object": "response", "deleted": True})
    assert code(await there.get(first["id"])) == (404, "response_not_found", "response_id")
    assert (await there.ask("DELETE", f"{RESPONSES}/{first['id']}")).status_code == 404
    assert (await there.get(second["id"])).json() == second
    body = {"model": MODEL, "input": "three", "previous_response_id": first["id"]}
    assert code(await there.ask("POST", RESPONSES, body)) == (404, "response_not_found", "previous_response_id")
    await there.create("three", previous_response_id=second["id"])
    assert [message["content"] for message in there.prompt()][::2] == ["one", "two", "three"]


async def test_what_it_goes_on_from_may_be_deleted_meanwhile() -> None:
    """Between the reading of a conversation and the storing of its next turn lies a whole answer."""
    slow = FakeSettings(responses_store=False, thinking_tokens=12, answer_tokens=6, rate=20.0)
    async with setting(1, slow) as there:
        first = await there.create("one", max_output_tokens=1)
        body = {"model": MODEL, "input": "two", "previous_response_id": first["id"]}
        waiting = asyncio.create_task(there.ask("POST", RESPONSES, body))
        await eventually(lambda: there.node.stats.requests["/v1/chat/completions"] == 2)
        assert (await there.ask("DELETE", f"{RESPONSES}/{first['id']}")).status_code == 200
        made = (await waiting).json()
        assert (made["status"], made["store"]) == ("completed", False)
        assert (await there.get(made["id"])).status_code == 404 and there.keys() == []


async def test_what_is_done_with_it_is_refused_as_nodes_refuse_it(there: Setting) -> None:
    made = await there.create("one")
    told = await there.ask("POST", f"{RESPONSES}/{made['id']}/cancel")
    assert (told.status_code, told.json()["error"]["message"]) == (400, "Cannot cancel a synchronous response.")
    assert (await there.get(made["id"], what="?stream=true")).json()["error"]["param"] == "stream"
    told = await there.ask("POST", f"{RESPONSES}/{made['id']}")
    assert (told.status_code, told.headers["allow"]) == (405, "DELETE, GET")
    assert (await there.ask("DELETE", f"{RESPONSES}/{made['id']}/input_items")).status_code == 405
    background = {"model": MODEL, "input": "x", "background": True, "previous_response_id": made["id"]}
    assert code(await there.ask("POST", RESPONSES, background)) == (400, "not_over_chat", "background")


async def test_its_input_is_listed_in_pages(there: Setting) -> None:
    first = await there.create([user(f"{number}") for number in range(3)])
    second = await there.create("last", previous_response_id=first["id"])
    path = f"{RESPONSES}/{second['id']}/input_items"
    whole = (await there.ask("GET", f"{path}?order=asc&limit=100", at=1)).json()
    texts = [item["content"][0]["text"] for item in whole["data"] if item.get("role") == "user"]
    assert texts == ["0", "1", "2", "last"] and whole["has_more"] is False
    ids = [item["id"] for item in whole["data"]]
    assert len(set(ids)) == len(ids) == 6 and (whole["first_id"], whole["last_id"]) == (ids[0], ids[-1])
    assert [item["id"] for item in whole["data"] if item in first["output"]] == [each["id"] for each in first["output"]]
    seen, after = [], ""
    while True:
        page = (await there.ask("GET", f"{path}?limit=4{after}")).json()
        seen += [item["id"] for item in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert seen == ids[::-1]
    assert (await there.ask("GET", f"{path}?after={ids[0]}")).json()["data"] == []
    for query in ("limit=0", "limit=101", "limit=x", "limit=-1", "order=up"):
        assert (await there.ask("GET", f"{path}?{query}")).json()["error"]["code"] == "invalid_query"
    assert (await there.ask("GET", f"{path}?after=nobody")).status_code == 404
    reference = [{"type": "item_reference", "id": ids[1]}]
    await there.create(reference)
    assert there.prompt() == [user("1")]


async def test_ids_that_clients_make_up_may_stand_for_several_items(there: Setting) -> None:
    """Some agents give all items one id. Whoever pages through them comes to the end, and finds each by its own."""
    said = [{"type": "message", "id": "__fake_id__", **user(f"{number}")} for number in range(3)]
    made = await there.create([*said, {**said[0], "id": f"msg_{'0' * 44}"}])
    seen: list[Json] = []
    after = ""
    for _ in range(9):
        page = (await there.get(made["id"], what=f"/input_items?order=asc&limit=1{after}")).json()
        seen += page["data"]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert [item["content"][0]["text"] for item in seen] == ["0", "1", "2", "0"]
    await there.create([{"type": "item_reference", "id": item["id"]} for item in seen], at=1)
    assert [message["content"] for message in there.prompt()] == ["0", "1", "2", "0"]


async def test_items_that_are_made_up_cost_no_call_each(there: Setting) -> None:
    """They are looked for before anything is counted against the tenant's limits."""
    made = await there.create("one")
    known = {"type": "item_reference", "id": made["output"][-1]["id"]}
    unknown = [{"type": "item_reference", "id": f"msg_{number:024x}{'0' * 20}"} for number in range(500)]

    def reads() -> int:
        with there.redis.client() as redis:
            return int(redis.info("commandstats")["cmdstat_hget"]["calls"])

    before = reads()
    told = await there.ask("POST", RESPONSES, {"model": MODEL, "input": [user("x"), known, *unknown, known]})
    assert code(told) == (404, "item_not_found", "input.2.id")
    assert reads() - before < 100


async def test_an_unknown_item_names_its_field(there: Setting) -> None:
    for item, param in (
        ({"type": "item_reference", "id": "msg_" + "0" * 44}, "input.1.id"),
        ({"type": "item_reference", "id": "msg_other"}, "input.1.id"),
        ({"id": "rs_unknown"}, "input.1.id"),
    ):
        told = await there.ask("POST", RESPONSES, {"model": MODEL, "input": [user("x"), item]})
        assert code(told) == (404, "item_not_found", param)
    told = await there.ask("POST", RESPONSES, {"model": MODEL, "input": [{"type": "item_reference", "id": 5}]})
    assert code(told) == (400, "invalid_type", "input.0.id")
    told = await there.ask("POST", RESPONSES, {"model": MODEL, "input": [{"type": "item_reference"}]})
    assert code(told) == (400, "invalid_type", "input.0.id")
    first = await there.create("one")
    told = await there.ask("POST", RESPONSES, {"model": MODEL, "input": 5, "previous_response_id": first["id"]})
    assert code(told) == (400, "invalid_type", "input")
    opaque = {"type": "compaction", "encrypted_content": "another vendor's"}
    refused: list[tuple[Any, str, str]] = [
        (None, "invalid_type", "input.1"),
        ({"type": "made_up"}, "not_over_chat", "input.1.type"),
        (opaque, "unknown_compaction", "input.1.encrypted_content"),
    ]
    for given, slug, param in refused:
        body: Json = {"model": MODEL, "input": [user("x"), given], "previous_response_id": first["id"]}
        told = await there.ask("POST", RESPONSES, body)
        assert code(told) == (400, slug, param) and f"{param!r}" in told.json()["error"]["message"]


async def test_compactions_and_counts_know_it_too(there: Setting) -> None:
    first = await there.create("Tell me a story about a lighthouse.")
    counted = await there.ask("POST", f"{RESPONSES}/input_tokens", {"model": MODEL, "input": "on"})
    chained = {"model": MODEL, "input": "on", "previous_response_id": first["id"]}
    more = await there.ask("POST", f"{RESPONSES}/input_tokens", chained, at=1)
    assert more.json()["input_tokens"] > counted.json()["input_tokens"]
    compacted = await there.ask("POST", f"{RESPONSES}/compact", chained)
    assert compacted.json()["object"] == "response.compaction", compacted.text
    assert there.prompt()[0] == user("Tell me a story about a lighthouse.")


async def test_it_lives_as_long_as_its_secret() -> None:
    """A gateway that starts anew finds it; one with another secret does not."""
    async with setting(1) as there:
        made = await there.create("hello")
        redis: Json = {"redis": there.redis.settings}
        async with running_gateway(there.node.url, **SETTINGS, **redis) as anew:
            there.gateways.append(anew)
            assert (await there.get(made["id"], 1)).json() == made
        async with running_gateway(there.node.url, **{**SETTINGS, "response_secret": "another"}, **redis) as other:
            there.gateways.append(other)
            assert code(await there.get(made["id"], 2)) == (404, "response_not_found", "response_id")


async def test_hidden_thinking_stays_hidden() -> None:
    async with setting(2, thinking={"default_budget": 8, "hide_reasoning": True}) as there:
        for stream in (False, True):
            made = await there.create("hello", stream=stream)
            assert [item["type"] for item in made["output"]] == ["message"]
            assert (await there.get(made["id"], 1)).json() == made
            await there.create("more", at=1, previous_response_id=made["id"])
            assert [sorted(message) for message in there.prompt()] == [["content", "role"]] * 3


async def test_a_resumed_answer_is_kept_whole() -> None:
    small = FakeSettings(responses_store=False, thinking_tokens=6, answer_tokens=12)
    async with setting(1, small, health={"interval": 0.05, "failures": 1000}, budgets={"canary": True}) as first:
        async with serve_fake(small) as other:
            chosen = {**SETTINGS, "health": {"interval": 0.05, "failures": 1000}, "budgets": {"canary": True}}
            nodes = (first.node.url, other.url)
            async with running_gateway(*nodes, redis=first.redis.settings, **chosen) as gateway:
                await eventually(
                    lambda: all(node.capabilities.marker_shown is not None for node in gateway.app.fleet.nodes)
                )
                first.gateways.append(gateway)
                unbroken = await first.create("hello", at=1, stream=True)
                for node in (first.node, other):
                    node.set_faults(Fault("die", after=9, path="/v1/chat/completions"))
                made = await first.create("hello", at=1, stream=True)
                texts = [[item["content"][0]["text"] for item in each["output"]] for each in (made, unbroken)]
                assert texts[0] == texts[1]
                assert (await first.get(made["id"])).json() == made


async def test_a_client_that_leaves_has_nothing_stored() -> None:
    slow = FakeSettings(responses_store=False, thinking_tokens=12, answer_tokens=400, rate=50.0)
    async with setting(1, slow) as there:
        body = {"model": MODEL, "input": "hello", "stream": True}
        headers = {"authorization": "Bearer fg-mine"}
        url = there.gateways[0].url + RESPONSES
        async with there.client.stream("POST", url, json=body, headers=headers) as answer:
            async for _ in answer.aiter_bytes():
                break
        await eventually(lambda: there.gateways[0].app.relay.open_exchanges == 0)
        assert there.keys() == []


async def test_an_answer_that_fails_is_not_stored() -> None:
    async with setting(1, resume={"enabled": False}) as there:
        there.node.set_faults(Fault("error_event", after=4))
        told = await there.ask("POST", RESPONSES, {"model": MODEL, "input": "hello", "stream": True})
        assert b"event: error" in told.content and b"response.completed" not in told.content
        there.node.set_faults(Fault("die", after=4))
        for stream in (True, False):
            told = await there.ask("POST", RESPONSES, {"model": MODEL, "input": "hello", "stream": stream})
            assert told.status_code != 200 or b"event: error" in told.content
        assert there.keys() == []


async def test_nodes_that_store_are_not_asked_to() -> None:
    """A conversation that a node has stored goes on there; what the gateway keeps goes on anywhere."""
    storing = FakeSettings(thinking_tokens=6, answer_tokens=4)
    async with setting(1, storing, thinking={}) as there:
        chosen = {**SETTINGS, "thinking": {}, "redis": there.redis.settings, "responses": {"stored": False}}
        async with running_gateway(there.node.url, **chosen) as passing:
            there.gateways.append(passing)
            native = await there.create("one", at=1)
            assert len(native["id"]) == 53 and there.keys() == []
            following = await there.create("two", at=0, previous_response_id=native["id"])
            assert len(following["id"]) == 53 and following["previous_response_id"] == native["id"]
            kept = await there.create("one", at=0)
            assert len(kept["id"]) == 69 and len(there.keys()) == 1
            body = {"model": MODEL, "input": "x", "previous_response_id": native["id"], "thinking_token_budget": 5}
            told = await there.ask("POST", RESPONSES, body)
            assert code(told) == (400, "not_over_chat", "previous_response_id")
            assert "a response that a node stores" in told.json()["error"]["message"]
            for method, what in (("DELETE", ""), ("GET", "/input_items")):
                told = await there.ask(method, f"{RESPONSES}/{native['id']}{what}")
                assert code(told) == (400, "stored_by_node", "response_id")
            assert (await there.get(native["id"])).json()["id"] == native["id"]
            told = await there.ask("POST", RESPONSES, {**body, "previous_response_id": kept["id"]}, at=1)
            assert code(told) == (404, "response_not_found", "previous_response_id")


async def test_reading_counts_as_a_request() -> None:
    limited = [{**SETTINGS["tenants"][0], "limits": {"requests_per_minute": 3}}]
    async with setting(1, tenants=limited) as there:
        made = await there.create("one")
        told = [(await there.get(made["id"])).status_code for _ in range(3)]
        assert told == [200, 200, 429]


async def test_without_redis_the_error_says_what_to_do() -> None:
    async with serve_fake(FakeSettings(responses_store=False)) as node:
        async with running_gateway(node.url, thinking={"default_budget": 8}) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as client:
                made = (await client.post(RESPONSES, json={"model": MODEL, "input": "x"})).json()
                assert made["store"] is False
                named: list[dict[str, Any]] = [
                    {"input": "x", "previous_response_id": "resp_" + "0" * 48},
                    {"input": "x", "previous_response_id": made["id"]},
                ]
                for body in named:
                    told = await client.post(RESPONSES, json={"model": MODEL, **body})
                    assert code(told) == (404, "response_not_found", "previous_response_id")
                    assert "redis.url and response_secret" in told.json()["error"]["message"]
                body = {"input": [{"type": "item_reference", "id": made["output"][0]["id"]}]}
                told = await client.post(RESPONSES, json={"model": MODEL, **body})
                assert code(told) == (400, "not_over_chat", "input.0.type")
                assert "redis.url and response_secret" in told.json()["error"]["message"]


@BOTH
async def test_an_error_of_the_node_behind_the_end_changes_nothing(stream: bool) -> None:
    """Wherever it stands, also in one read with the whole answer: the client gets one end, and what is stored is what
    it got."""
    ends = {"response.completed", "error"}
    seen = set()
    small = FakeSettings(responses_store=False, thinking_tokens=6, answer_tokens=6)
    async with setting(1, small, resume={"enabled": False}, budgets={"canary": True}) as there:
        nodes = there.gateways[0].app.fleet.nodes
        await eventually(lambda: all(node.capabilities.marker_shown is not None for node in nodes))
        for after in range(12, 20):
            there.node.set_faults(Fault("error_event", after=after))
            told = await there.ask("POST", RESPONSES, {"model": MODEL, "input": "hello", "stream": stream})
            if not stream and told.status_code != 200:
                continue
            whole = [{"type": "response.completed", "response": told.json()}] if not stream else events_of(told.content)
            last = [event for event in whole if event["type"] in ends]
            assert len(last) == 1 and last[0] is whole[-1], (after, told.text)
            seen.add(last[0]["type"])
            if last[0]["type"] == "response.completed":
                made = last[0]["response"]
                assert made["store"] is True and (await there.get(made["id"])).json() == made
        assert "response.completed" in seen
