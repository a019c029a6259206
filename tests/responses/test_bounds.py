"""What bounds what is kept, and what becomes of answers whose response cannot be kept, or read."""

import json
from typing import Any

import pytest

from tests.responses.setting import MODEL, RESPONSES, Json, Setting, code, setting, user
from tests.support.gateways import eventually
from workers.fake import FakeSettings

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


async def metric(there: Setting, name: str, at: int = 0) -> dict[str, float]:
    """The values of a metric, by their labels."""
    page = (await there.client.get(f"{there.gateways[at].admin_url}/metrics")).text
    lines = [line.rpartition(" ") for line in page.splitlines() if line.startswith(f"{name}{{")]
    return {labels.removeprefix(name): float(value) for labels, _, value in lines}


@BOTH
async def test_an_answer_is_not_lost_where_redis_is_away(stream: bool) -> None:
    async with setting(1) as there:
        first = await there.create("one", stream=stream)
        there.redis.kill()
        made = await there.create("two", stream=stream)
        assert (made["status"], made["store"]) == ("completed", False)
        assert [item["type"] for item in made["output"]] == ["reasoning", "message"]
        body = {"model": MODEL, "input": "three", "previous_response_id": first["id"], "stream": stream}
        told = await there.ask("POST", RESPONSES, body)
        assert code(told) == (503, "responses_unavailable", None)
        assert told.headers["retry-after"] == "1" and "input items" in told.json()["error"]["message"]
        for method, what in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
            told = await there.ask(method, f"{RESPONSES}/{first['id']}{what}")
            assert code(told) == (503, "responses_unavailable", None)
        body = {"model": MODEL, "input": [{"type": "item_reference", "id": first["output"][0]["id"]}]}
        assert code(await there.ask("POST", RESPONSES, body)) == (503, "responses_unavailable", None)
        there.redis.restart()
        redis = there.gateways[0].app.redis
        assert redis is not None
        await eventually(lambda: redis.up)
        assert (await there.create("four", stream=stream))["store"] is True
        kept = await metric(there, "fleetgate_kept_responses_total")
        assert kept == {'{outcome="redis_unavailable",tenant="me"}': 1.0, '{outcome="stored",tenant="me"}': 2.0}


@BOTH
async def test_the_end_of_an_answer_waits_for_redis_no_longer_than_anything_else(stream: bool) -> None:
    async with setting(1, redis_timeout=0.3) as there:
        await there.create("one")
        there.redis.freeze()
        made = await there.create("two", stream=stream)
        assert (made["status"], made["store"]) == ("completed", False)
        there.redis.thaw()


@BOTH
async def test_a_response_that_is_too_large_is_answered_and_not_kept(stream: bool) -> None:
    async with setting(1, responses={"max_bytes": 4096, "tenant_bytes": 65536}) as there:
        assert (await there.create("small", stream=stream))["store"] is True
        made = await there.create("large " * 700, stream=stream)
        assert (made["status"], made["store"]) == ("completed", False)
        assert (await there.get(made["id"])).status_code == 404
        assert len(there.keys()) == 1
        kept = await metric(there, "fleetgate_kept_responses_total")
        assert kept == {'{outcome="stored",tenant="me"}': 1.0, '{outcome="too_large",tenant="me"}': 1.0}


async def test_a_tenant_has_its_newest_conversations() -> None:
    """The bound holds, the tenant's oldest make room, and nobody else's."""
    async with setting(1, responses={"max_bytes": 65536, "tenant_bytes": 65536}) as there:
        theirs = await there.create("theirs", key="fg-yours")
        noise = [json.dumps([hash((number, word)) for word in range(400)]) for number in range(20)]
        made = [await there.create(each) for each in noise]
        found = [(await there.get(each["id"])).status_code for each in made]
        assert found == sorted(found, reverse=True) and 0 < found.count(200) < 20
        assert all(each["store"] is True for each in made)
        assert int(there.redis.do("HGET", "fg1:{me}:sizes", "total")) <= 65536
        assert (await there.get(theirs["id"], key="fg-yours")).status_code == 200
        evicted = await metric(there, "fleetgate_evicted_conversations_total")
        assert evicted == {'{tenant="me"}': float(found.count(404))}


async def test_a_conversation_that_fills_its_tenants_part_goes_on_unkept() -> None:
    long = FakeSettings(responses_store=False, max_model_len=1 << 20)
    async with setting(1, long, responses={"max_bytes": 65536, "tenant_bytes": 65536}) as there:
        previous: Json = {}
        stored = []
        for number in range(14):
            noise = json.dumps([hash((number, word)) for word in range(400)])
            made = await there.create(noise, **previous)
            stored.append(made["store"])
            if made["store"]:
                previous = {"previous_response_id": made["id"]}
        assert stored == sorted(stored, reverse=True) and False in stored
        kept = await metric(there, "fleetgate_kept_responses_total")
        assert kept['{outcome="no_room",tenant="me"}'] == stored.count(False)


async def test_a_client_that_changes_its_history_always_has_its_newest_turn_stored() -> None:
    """It drops the thoughts, as many agents do, so that each turn is stored whole, among those of earlier ones."""
    long = FakeSettings(responses_store=False, max_model_len=1 << 20)
    async with setting(1, long, responses={"max_bytes": 65536, "tenant_bytes": 65536}) as there:
        said: list[Any] = []
        for number in range(8):
            said.append(user(json.dumps([hash((number, word)) for word in range(200)])))
            made = await there.create(said)
            assert made["store"] is True and (await there.get(made["id"])).status_code == 200
            said += [item for item in made["output"] if item["type"] == "message"]
        assert int(there.redis.do("HGET", "fg1:{me}:sizes", "total")) <= 65536
        evicted = await metric(there, "fleetgate_evicted_conversations_total")
        assert evicted['{tenant="me"}'] > 0


async def test_a_conversation_may_grow_as_large_as_a_body() -> None:
    async with setting(1, requests={"max_body": 20_000}) as there:
        first = await there.create("x" * 9_000)
        second = await there.create("y" * 9_000, previous_response_id=first["id"])
        body: Json = {"model": MODEL, "input": "z" * 9_000, "previous_response_id": second["id"]}
        told = await there.ask("POST", RESPONSES, body)
        assert code(told) == (413, "conversation_too_large", None)
        assert (await there.get(second["id"], what="/input_items")).status_code == 200
        named = {"type": "item_reference", "id": (await _items(there, second["id"]))[0]["id"]}
        body = {"model": MODEL, "input": [named] * 4}
        assert code(await there.ask("POST", RESPONSES, body)) == (413, "conversation_too_large", None)


async def test_a_conversation_of_very_many_values_can_be_compacted_from_an_earlier_response() -> None:
    """Each of its requests was small."""
    long = FakeSettings(responses_store=False, max_model_len=1 << 22)
    async with setting(1, long) as there:
        previous, made = Json(), list[str]()
        for _ in range(3):
            made.append((await there.create([user("")] * 6000, **previous))["id"])
            previous = {"previous_response_id": made[-1]}
        body: Json = {"model": MODEL, "input": "on", **previous}
        for path in (RESPONSES, f"{RESPONSES}/compact"):
            told = await there.ask("POST", path, body)
            assert code(told) == (413, "conversation_too_large", None), told.text
            assert "an earlier response" in told.json()["error"]["message"]
        body["previous_response_id"] = made[-2]
        compacted = await there.ask("POST", f"{RESPONSES}/compact", body)
        assert compacted.json()["object"] == "response.compaction", compacted.text


async def _items(there: Setting, response_id: str) -> list[Json]:
    return list((await there.get(response_id, what="/input_items")).json()["data"])


async def test_the_memory_of_a_conversation_is_its_tenants() -> None:
    """A body of 200 bytes that stands for 1.6 MB is counted as these."""
    long = FakeSettings(responses_store=False, max_model_len=1 << 22)
    async with setting(1, long, requests={"memory": 1 << 24, "max_body": 1 << 23}) as there:
        previous: Json = {}
        for letter in "xy":
            made = await there.create(letter * 800_000, **previous)
            previous = {"previous_response_id": made["id"]}
        body: Json = {"model": MODEL, "input": "on", **previous}
        told = await there.ask("POST", RESPONSES, body)
        assert told.status_code == 413 and "memory" in told.json()["error"]["message"], told.text
        await eventually(lambda: there.gateways[0].app.memory.held == 0)


@pytest.mark.parametrize("turns", [50, pytest.param(200, marks=pytest.mark.prove)])
async def test_a_long_conversation_grows_by_its_turns(turns: int) -> None:
    """A chain of many turns is not kept many times: not where each names the one before, nor where the client sends all
    of it each time, as agents do that store by default."""
    brief = FakeSettings(responses_store=False, thinking_tokens=2, answer_tokens=2, max_model_len=1 << 20)
    async with setting(1, brief, thinking={"default_budget": 2}) as there:
        chained = [there.redis.do("MEMORY", "USAGE", key, "SAMPLES", 0) for key in await _chain(there, turns)]
        whole = [there.redis.do("MEMORY", "USAGE", key, "SAMPLES", 0) for key in await _whole(there, turns)]
        assert len(chained) == len(whole) == 1
        for memory in (chained[0], whole[0]):
            print(f"{turns} turns: {memory / turns:.0f} bytes of Redis each")
            assert memory / turns < 1700
        assert sum(chained + whole) < int(there.redis.do("HGET", "fg1:{me}:sizes", "total"))


async def _chain(there: Setting, turns: int) -> list[bytes]:
    """The keys of a conversation by `previous_response_id`; each turn brings a text of 300 characters."""
    before, previous = set(there.keys()), Json()
    lengths = []
    for number in range(turns):
        made = await there.create(_text(number), **previous)
        previous = {"previous_response_id": made["id"]}
        lengths.append(made["usage"]["input_tokens"])
    assert lengths == sorted(lengths)
    assert len(there.prompt()) == 2 * turns - 1
    return sorted(set(there.keys()) - before)


async def _whole(there: Setting, turns: int) -> list[bytes]:
    """The same of a client that sends the whole conversation each time, with the ids that it was given."""
    before = set(there.keys())
    said: list[Any] = []
    for number in range(turns):
        said.append(user(_text(number)))
        made = await there.create(said)
        said += [{name: value for name, value in item.items() if name != "status"} for item in made["output"]]
    items = await there.get(made["id"], what="/input_items?order=asc&limit=100")
    assert [item["type"] for item in items.json()["data"][:4]] == ["message", "reasoning", "message", "message"]
    assert len(there.prompt()) == 2 * turns - 1
    await there.create("on", previous_response_id=made["id"])
    assert len(there.prompt()) == 2 * turns + 1
    return sorted(set(there.keys()) - before)


def _text(number: int) -> str:
    return " ".join(f"{number * word % 977:03d}" for word in range(75))


async def test_what_a_client_says_otherwise_is_kept_as_it_says_it() -> None:
    """A conversation that only looks like an earlier one does not go on from it."""
    async with setting(1) as there:
        first = await there.create([user("one")])
        changed = [{**first["output"][0]}, {**first["output"][1], "content": [{"type": "output_text", "text": "No."}]}]
        for said in ([user("other"), *first["output"]], [user("one"), *changed], first["output"]):
            made = await there.create([*said, user("two")])
            assert made["store"] is True
            await there.create("three", previous_response_id=made["id"])
            prompt = [message["content"] for message in there.prompt()]
            await there.create([*said, user("two"), *made["output"], user("three")], store=False)
            assert prompt == [message["content"] for message in there.prompt()]
