"""A full fleet: requests wait for their turn, whatever becomes of them, and nothing stays behind."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from gateway.admission import queue as request_queue
from gateway.core.errors import ClientGone
from gateway.routing import places as places_of_gateways
from tests.support.admission import ENDLESS, Setting, drained, leave, setting
from tests.support.crowd import CHAT, Seen, ask, lost, send, text_of
from tests.support.faults import limited_gateway
from tests.support.gateways import eventually
from tests.support.nodes import MODEL
from workers.fake import FakeSettings, Fault, serve_fake

MODES = {"without Redis": (True, 1), "with Redis": (False, 1), "four gateways": (False, 4)}
QUICK = FakeSettings(rate=200, thinking_tokens=8, answer_tokens=8)
KEYS = {name: f"key-of-{name}" for name in ("a", "b", "c")}


def tenants(**more: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "keys": [{"sha256": hashlib.sha256(key.encode()).hexdigest()}], **more.get(name, {})}
        for name, key in KEYS.items()
    ]


def of(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name]}"}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> tuple[bool, int]:
    return MODES[request.param]


@pytest.fixture
async def endless(mode: tuple[bool, int]) -> AsyncIterator[Setting]:
    """Two nodes with two places each, whose answers do not end."""
    alone, gateways = mode
    async with setting(ENDLESS, 2, gateways, bound=2, alone=alone, max_wait=30.0) as made:
        yield made


def waiting(there: Setting) -> int:
    return sum(gateway.app.queue.bounds.size for gateway in there.gateways)


def in_flight(there: Setting) -> int:
    return there.in_flight(0) + there.in_flight(1)


async def test_what_finds_all_nodes_full_waits_and_is_answered(mode: tuple[bool, int]) -> None:
    alone, gateways = mode
    most = 0
    async with setting(QUICK, 2, gateways, bound=2, alone=alone, max_wait=60.0) as there:
        asking = there.ask(40)
        while not all(task.done() for task in asking):
            most = max(most, *(there.in_flight(node) for node in (0, 1)))
            await asyncio.sleep(0.002)
        assert lost([task.result() for task in asking]) == []
        assert most == 2, "no node has more than it can take"
        await there.nothing_held()


async def test_who_leaves_while_it_waits_holds_nothing(endless: Setting) -> None:
    asking = endless.ask(4)
    await eventually(lambda: in_flight(endless) == 4)
    late = endless.ask(20)
    await eventually(lambda: waiting(endless) == 20)
    assert sum(len(gateway.app.limiter.live) for gateway in endless.gateways if gateway.app.limiter) == 24
    await leave(late)
    await eventually(lambda: waiting(endless) == 0)
    assert in_flight(endless) == 4
    await leave(asking)
    await endless.nothing_held()


async def test_a_place_that_becomes_free_goes_to_one_that_waits(endless: Setting) -> None:
    asking = endless.ask(4)
    await eventually(lambda: in_flight(endless) == 4)
    late = endless.ask(8)
    await eventually(lambda: waiting(endless) == 8)
    await leave(asking[:2])
    await eventually(lambda: waiting(endless) == 6 and in_flight(endless) == 4)
    await leave([*asking, *late])
    await endless.nothing_held()


async def test_in_whatever_order_they_come_and_leave_nothing_is_held(endless: Setting) -> None:
    dice = random.Random(20)
    asking: list[asyncio.Task[Seen]] = []
    for _ in range(60):
        asking += endless.ask(dice.randint(1, 3))
        await asyncio.sleep(dice.choice([0, 0, 0.001, 0.02]))
        dice.shuffle(asking)
        gone = [asking.pop() for _ in range(min(len(asking), dice.randint(0, 3)))]
        for task in gone:
            task.cancel()
    assert in_flight(endless) <= 4
    await leave(asking)
    await endless.nothing_held()


async def test_a_stream_that_waits_is_kept_alive_and_comes_whole() -> None:
    async with setting(
        FakeSettings(rate=60, answer_tokens=60), 1, bound=1, alone=True, max_wait=30.0, timeouts={"keep_alive": 0.1}
    ) as there:
        first, second = there.ask(2)
        seen = [await first, await second]
        assert lost(seen) == []
        assert any(b": keep-alive\n" in each.body for each in seen)
        assert all(reasoning and answer for reasoning, answer in map(text_of, seen))
        await there.nothing_held()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/chat/completions", "/v1/completions"])
async def test_the_wait_ends_with_an_error_in_the_clients_dialect(path: str) -> None:
    body = {"model": "nemotron-3-ultra", "max_tokens": 50, "stream": True}
    body |= {"messages": [{"role": "user", "content": "x"}]} if "messages" in path or "chat" in path else {}
    body |= {"input": "x"} if "responses" in path else {"prompt": "x"} if path.endswith("v1/completions") else {}
    for comments in (0.05, 20.0):
        async with setting(ENDLESS, 1, bound=1, alone=True, max_wait=0.4, timeouts={"keep_alive": comments}) as there:
            holder = there.ask(1)
            await eventually(lambda: there.in_flight(0) == 1)
            async with httpx.AsyncClient(timeout=30) as client:
                got = await client.post(there.gateways[0].url + path, json=body)
            assert got.status_code == (200 if comments < 1 else 503)
            assert "no place became free within 0.4 s" in got.text
            assert comments < 1 or int(got.headers["retry-after"]) >= 1
            await leave(holder)
            await there.nothing_held()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/chat/completions", "/v1/completions"])
async def test_what_the_node_refuses_after_the_wait_is_the_clients_error(path: str) -> None:
    """The stream has begun with comments: the node's status can only be told by an event."""
    body = {"model": "nemotron-3-ultra", "max_tokens": 50, "stream": True, "temperature": "hot"}
    body |= {"messages": [{"role": "user", "content": "x"}]} if "messages" in path or "chat" in path else {}
    body |= {"input": "x"} if "responses" in path else {"prompt": "x"} if path.endswith("v1/completions") else {}
    refusal = Fault("status", status=400, path="/v1/", next=1)
    async with setting(ENDLESS, 1, bound=1, alone=True, max_wait=30.0, timeouts={"keep_alive": 0.05}) as there:
        holder = there.ask(1)
        await eventually(lambda: there.in_flight(0) == 1)
        async with httpx.AsyncClient(timeout=30) as client:
            asking = asyncio.create_task(client.post(there.gateways[0].url + path, json=body))
            await eventually(lambda: waiting(there) == 1)
            await asyncio.sleep(0.2)
            there.nodes[0].set_faults(refusal)
            await leave(holder)
            got = await asking
        assert got.status_code == 200
        last = [line for line in got.text.splitlines() if line.startswith("data: {")][-1]
        assert "invalid_request" in last
        assert "upstream_error" not in got.text
        assert there.seen(0)[0].ready
        await there.nothing_held()


async def test_the_clients_own_deadline_ends_the_wait(endless: Setting) -> None:
    asking = endless.ask(4)
    await eventually(lambda: in_flight(endless) == 4)
    got = await send(endless.gateways[-1].url, ask(), **{"x-request-timeout": "0.2"})
    assert (got.status, got.code) == (504, "deadline_exceeded")
    await leave(asking)
    await endless.nothing_held()


async def test_a_tenant_has_a_bound_of_its_own_and_the_queue_has_one() -> None:
    queue = {"max_waiting": 6, "tenant_share": 0.5}
    async with setting(ENDLESS, 1, bound=1, alone=True, max_wait=30.0, queue=queue, tenants=tenants()) as there:
        url = there.gateways[0].url
        holder = asyncio.create_task(send(url, ask(stream=True), **of("a")))
        await eventually(lambda: there.in_flight(0) == 1)
        asking = [asyncio.create_task(send(url, ask(f"{name} {n}"), **of(name))) for name in "ab" for n in range(3)]
        await eventually(lambda: waiting(there) == 6)
        got = await send(url, ask("one more"), **of("a"))
        assert (got.status, got.code) == (429, "queue_full")
        assert int(got.headers["retry-after"]) >= 1
        got = await send(url, ask("one more"), **of("c"))
        assert (got.status, got.code) == (503, "fleet_full")
        await leave([holder, *asking])
        await there.nothing_held()


async def test_a_wait_that_would_be_too_long_is_told_at_once() -> None:
    """The rate of places is known: one a quarter of a second."""
    settings = FakeSettings(rate=100, thinking_tokens=0, answer_tokens=25)
    async with setting(settings, 1, bound=1, alone=True, max_wait=4.0) as there:
        for _ in range(3):  # of nine at once the last would wait for long on a slow machine
            assert lost([await each for each in there.ask(3)]) == []
        asking = there.ask(60)

        def too_long() -> list[Seen]:
            seen = [each.result() for each in asking if each.done()]
            return [each for each in seen if each.status == 503 and "the expected wait of" in each.body.decode()]

        await eventually(lambda: len(too_long()) > 30)
        assert all(int(each.headers["retry-after"]) >= 4 for each in too_long())
        await leave(asking)
        await there.nothing_held()


async def test_a_class_is_lowered_by_the_client_and_never_raised() -> None:
    given = tenants(a={"service_class": "interactive"}, b={"service_class": "batch"})
    async with setting(FakeSettings(), 1, bound=4, alone=True, max_wait=5.0, tenants=given) as there:
        gateway = there.gateways[0]
        cases: list[tuple[str, dict[str, Any], dict[str, str], str]] = [
            ("a", {}, {}, "interactive"),
            ("a", {"service_tier": "flex"}, {}, "batch"),
            ("a", {"service_tier": "default"}, {}, "standard"),
            ("a", {"service_tier": "auto"}, {}, "interactive"),
            ("a", {}, {"x-fleetgate-class": "Batch"}, "batch"),
            ("a", {"service_tier": "default"}, {"x-fleetgate-class": "batch"}, "batch"),
            ("b", {"service_tier": "priority"}, {"x-fleetgate-class": "interactive"}, "batch"),
            ("c", {"service_tier": "priority"}, {}, "standard"),
            ("c", {"service_tier": 7}, {}, "standard"),
        ]
        for name, fields, headers, wanted in cases:
            for stream in (False, True):
                got = await send(gateway.url, ask(stream=stream, **fields), **of(name), **headers)
                if fields.get("service_tier") == 7:
                    continue  # the node's to refuse
                assert got.headers["x-fleetgate-class"] == wanted, (name, fields, headers)
        got = await send(gateway.url, ask(), **of("a"), **{"x-fleetgate-class": "first"})
        assert (got.status, got.code) == (400, "unknown_service_class")
        assert "interactive, standard, batch" in got.body.decode()


async def test_an_answer_that_broke_off_goes_before_those_that_wait() -> None:
    """Its client has waited already, and has a part of it."""
    settings = FakeSettings(rate=60, thinking_tokens=0, answer_tokens=60)
    async with setting(settings, 2, bound=1, alone=True, max_wait=60.0) as there:
        ended: list[str] = []

        async def one(name: str) -> None:
            assert (await send(there.gateways[0].url, ask(name, stream=True))).whole
            ended.append(name)

        asking = [asyncio.create_task(one(f"first {number}")) for number in range(2)]
        await eventually(lambda: in_flight(there) == 2 and all(node.running == 1 for node in there.nodes))
        asking += [asyncio.create_task(one(f"waits {number}")) for number in range(6)]
        await eventually(lambda: waiting(there) == 6)
        await asyncio.sleep(0.3)
        there.nodes[0].crash()
        await asyncio.gather(*asking)
        assert {name.split()[0] for name in ended[:2]} == {"first"}, ended
        await there.nothing_held()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [Fault("die"), Fault("status", status=500)])
async def test_a_node_that_fails_while_all_others_are_full_costs_nobody_an_answer(fault: Fault, stream: bool) -> None:
    settings = FakeSettings(rate=60, thinking_tokens=0, answer_tokens=30)
    async with setting(settings, 3, bound=1, alone=True, max_wait=60.0) as there:
        there.nodes[0].set_faults(fault)
        asking = [
            asyncio.create_task(send(there.gateways[0].url, ask(f"{number}", stream=stream))) for number in range(9)
        ]
        assert lost(await asyncio.gather(*asking)) == []
        await there.nothing_held()


@pytest.mark.parametrize("ends", ["late", "leaves"])
async def test_who_leaves_or_is_late_while_it_waits_for_another_node_holds_nothing(ends: str) -> None:
    async with setting(ENDLESS, 2, bound=1, alone=True, max_wait=60.0) as there:
        gateway, full = there.gateways[0], there.seen(1)[0]
        full.in_flight += 2  # beyond its bound, so that nothing can move there
        there.nodes[0].set_faults(Fault("status", status=500))
        late = {"x-request-timeout": "1"} if ends == "late" else {}
        asking = asyncio.create_task(send(gateway.url, ask(), **late))
        await eventually(lambda: gateway.app.relay.resumes.waiting == 1)
        assert there.in_flight(0) == 0
        if ends == "leaves":
            await leave([asking])
        else:
            assert (await asking).code == "deadline_exceeded"
        await eventually(lambda: gateway.app.relay.resumes.waiting == 0)
        full.in_flight -= 2
        await there.nothing_held()


@pytest.mark.parametrize("told", [None, True, False])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/messages", "/v1/responses"])
async def test_nodes_are_told_the_priority_of_a_class(path: str, told: bool | None) -> None:
    given = tenants(a={"service_class": "interactive"}, b={"service_class": "batch"})
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(serve_fake(FakeSettings()))
        nodes = [{"url": node.url, **({} if told is None else {"priority_scheduling": told})}]
        setting = limited_gateway(nodes=nodes, tenants=given, budgets={"canary": True})  # which reads the version
        gateway = await stack.enter_async_context(setting)
        await eventually(lambda: gateway.app.fleet.nodes[0].takes_priority is (told is not False))
        given_to = {"input": "hello"} if path == "/v1/responses" else {"prompt": "hello"}
        if path in (CHAT, "/v1/messages"):
            given_to = {"messages": [{"role": "user", "content": "hello"}]}  # type: ignore[dict-item]
        body = {"model": MODEL, "max_tokens": 50, **given_to}
        async with httpx.AsyncClient() as client:
            for name, priority in [("a", -10), ("c", None), ("b", 10)]:
                node.node.stats.reset()
                got = await client.post(gateway.url + path, json={**body, "priority": -99}, headers=of(name))
                assert got.status_code == 200, got.text
                sent = [each.json for each in node.node.stats.recent if b"hello" in each.body]
                expected = None if told is False or path == "/v1/messages" else priority
                assert [each.get("priority") for each in sent] == [expected], (name, sent)


async def test_batch_gives_way_while_others_wait(mode: tuple[bool, int]) -> None:
    alone, gateways = mode
    settings = FakeSettings(rate=200, thinking_tokens=0, answer_tokens=20)
    given = tenants(a={"service_class": "interactive"}, b={"service_class": "batch"})
    classes = [
        {"name": "interactive", "share": 1},
        {"name": "standard"},
        {"name": "batch", "share": 1, "yields_at": 0.1},
    ]
    async with setting(
        settings, 1, gateways, bound=1, alone=alone, max_wait=60.0, tenants=given, queue={"classes": classes}
    ) as there:
        urls = [gateway.url for gateway in there.gateways]
        ended: list[str] = []

        async def one(name: str, number: int) -> None:
            assert (await send(urls[number % len(urls)], ask(f"{name}{number}"), **of(name))).whole
            ended.append(name)

        asking = [asyncio.create_task(one("b", number)) for number in range(8)]
        await eventually(lambda: waiting(there) >= 5)
        asking += [asyncio.create_task(one("a", number)) for number in range(12)]
        await asyncio.gather(*asking)
        last = max(at for at, name in enumerate(ended) if name == "a")
        assert ended[:last].count("b") <= 5, ended
        await there.nothing_held()


@pytest.mark.parametrize(
    ("alone", "gateways"), [(True, 1), (False, 4), pytest.param(False, 1, marks=pytest.mark.prove)]
)
async def test_shares_hold_whoever_floods(alone: bool, gateways: int) -> None:
    """The tenant c has three times the share of the others; each has far more to do than there are places."""
    settings = FakeSettings(rate=1000, thinking_tokens=4, answer_tokens=12)
    given = tenants(c={"share": 3.0})
    async with setting(settings, 2, gateways, bound=2, alone=alone, max_wait=120.0, tenants=given) as there:
        urls = [gateway.url for gateway in there.gateways]
        ended: list[str] = []
        stop = asyncio.Event()

        async def client(name: str, number: int) -> None:
            async with httpx.AsyncClient(timeout=120) as http:
                while not stop.is_set():
                    body = ask(f"{name} {number} {len(ended)}")
                    got = await http.post(
                        urls[number % len(urls)] + "/v1/chat/completions", json=body, headers=of(name)
                    )
                    assert got.status_code == 200, got.text
                    ended.append(name)

        clients = [
            asyncio.create_task(client(name, n)) for name, many in (("a", 24), ("b", 8), ("c", 16)) for n in range(many)
        ]
        await eventually(lambda: len(ended) >= 200)
        ended.clear()
        await eventually(lambda: len(ended) >= 500)
        counted = ended[:500]
        stop.set()
        await asyncio.gather(*clients)
        counts = [counted.count(name) for name in "abc"]
        assert abs(counts[0] - 100) <= 20 and abs(counts[1] - 100) <= 20 and abs(counts[2] - 300) <= 30, counts
        await there.nothing_held()


@pytest.mark.parametrize(
    ("harm", "gateways"),
    [
        ("kill", 1),
        ("flush", 1),
        ("freeze", 3),
        *(pytest.param(*each, marks=pytest.mark.prove) for each in (("kill", 3), ("flush", 3), ("freeze", 1))),
    ],
)
async def test_a_redis_that_goes_and_comes_back_leaves_nothing_stuck(harm: str, gateways: int) -> None:
    settings = FakeSettings(rate=100, thinking_tokens=0, answer_tokens=20)
    async with setting(settings, 2, gateways, bound=2 * gateways, max_wait=60.0) as there:
        redis = there.redis
        assert redis is not None
        asking = there.ask(30)
        await eventually(lambda: waiting(there) >= 10)
        getattr(redis, harm)()
        asking += there.ask(10)
        if harm != "flush":
            await eventually(lambda: not any(each.app.redis and each.app.redis.up for each in there.gateways))
            redis.restart() if harm == "kill" else redis.thaw()
        asking += there.ask(10)
        seen = [await each for each in asking]
        assert lost(seen) == [], {each.body for each in seen if not each.whole}
        await there.nothing_held()


async def test_an_idle_gateways_places_are_used_by_the_others() -> None:
    async with setting(ENDLESS, 1, 3, bound=6, max_wait=30.0) as there:
        url = there.gateways[0].url
        asking = [asyncio.create_task(send(url, ask(f"{n}", stream=True))) for n in range(8)]
        await eventually(lambda: there.in_flight(0) == 6 and waiting(there) == 2)
        late = asyncio.create_task(send(there.gateways[1].url, ask("late", stream=True)))
        await eventually(lambda: waiting(there) == 3)
        assert there.in_flight(0) == 6
        await leave([*asking, late])
        await there.nothing_held()


async def test_a_gateway_that_dies_gives_its_places_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_of_gateways, "FORGOTTEN", 4.0)
    async with setting(ENDLESS, 1, 2, bound=4, max_wait=60.0) as there:
        dying, living = there.gateways
        assert dying.app.router.groups is not None
        places = dying.app.router.groups.common.places
        assert places._task is not None
        asking = [asyncio.create_task(send(dying.url, ask(f"{n}", stream=True))) for n in range(4)]
        await eventually(lambda: there.in_flight(0) == 4)
        late = asyncio.create_task(send(living.url, ask("late", stream=True)))
        await eventually(lambda: living.app.queue.bounds.size == 1)
        places._task.cancel()  # as far as the other one sees, it is dead
        await eventually(lambda: living.app.queue.bounds.size == 0 and living.app.fleet.nodes[0].in_flight == 1, 30)
        places._task = asyncio.create_task(places._run())  # it was only slow: what it has counts again
        redis = there.redis
        assert redis is not None
        await eventually(lambda: redis.do("HVALS", "fg1:{route}:places") == [b"5"])
        await leave([*asking, late])
        await there.nothing_held()


async def test_a_request_that_only_a_full_node_can_serve_holds_up_no_other(mode: tuple[bool, int]) -> None:
    alone, gateways = mode
    stored: dict[str, Any] = {"response_secret": "s", "responses": {"stored": False}}  # by the node
    async with setting(ENDLESS, 2, gateways, bound=1, alone=alone, max_wait=30.0, **stored) as there:
        url = there.gateways[0].url
        async with httpx.AsyncClient(timeout=60) as client:
            ask_once = {"model": "nemotron-3-ultra", "input": "x", "max_output_tokens": 3}
            first = (await client.post(f"{url}/v1/responses", json=ask_once)).json()
            home = next(number for number, node in enumerate(there.nodes) if node.stats.requests["/v1/responses"])
            holders = there.ask(2)
            await eventually(lambda: in_flight(there) == 2)
            pinned = {**ask_once, "previous_response_id": first["id"]}
            asking = asyncio.create_task(client.post(f"{url}/v1/responses", json=pinned))
            await eventually(lambda: waiting(there) == 1)
            other = asyncio.create_task(send(url, ask("other", max_tokens=3)))
            await eventually(lambda: waiting(there) == 2)
            for gateway in there.gateways:
                for exchange in gateway.app.relay.exchanges_on(gateway.app.fleet.nodes[1 - home]):
                    exchange.fail(ClientGone("it left"))
            assert (await other).whole
            assert waiting(there) == 1 and not asking.done()
            await leave(holders)
            assert (await asking).status_code == 200
        await there.nothing_held()


async def test_a_request_that_its_limits_refuse_is_charged_nothing() -> None:
    given = tenants(a={"limits": {"requests_per_minute": 1, "burst_seconds": 60}})
    async with setting(FakeSettings(), 2, bound=2, max_wait=5.0, tenants=given) as there:
        redis, url = there.redis, there.gateways[0].url
        assert redis is not None and (await send(url, ask("first"), **of("a"))).whole
        counter = f"fg1:{{route}}:turns:{MODEL}"
        await eventually(lambda: not there.gateways[0].app.router.groups.common.places._corrections)  # type: ignore[union-attr]
        await asyncio.sleep(0.5)  # they have been sent
        before = redis.do("HGET", counter, "standard|a")
        assert [(await send(url, ask(f"{n}"), **of("a"))).status for n in range(5)] == [429] * 5
        await there.nothing_held()
        assert redis.do("HGET", counter, "standard|a") == before


@pytest.mark.parametrize("alone", [True, False])
async def test_who_was_busy_while_others_idled_owes_them_nothing(alone: bool) -> None:
    settings = FakeSettings(rate=1000, thinking_tokens=4, answer_tokens=12)
    async with setting(settings, 2, bound=1, alone=alone, max_wait=60.0, tenants=tenants()) as there:
        url = there.gateways[0].url
        for number in range(60):
            assert (await send(url, ask(f"alone {number}"), **of("a"))).whole
        ended: list[str] = []

        async def one(name: str, number: int) -> None:
            assert (await send(url, ask(f"{name} {number}"), **of(name))).whole
            ended.append(name)

        await asyncio.gather(*(one(name, number) for number in range(60) for name in "ab"))
        assert 20 <= ended[:80].count("a") <= 60, ended
        await there.nothing_held()


async def test_two_models_on_one_node_take_turns() -> None:
    settings = FakeSettings(models=("one", "two"), rate=400, thinking_tokens=4, answer_tokens=12)
    async with setting(settings, 1, bound=1, alone=True, max_wait=60.0) as there:
        ended: list[str] = []

        async def ask_for(model: str, number: int) -> None:
            assert (await send(there.gateways[0].url, {**ask(f"{number}"), "model": model})).whole
            ended.append(model)

        await asyncio.gather(*(ask_for(model, number) for number in range(20) for model in ("one", "two")))
        assert 8 <= ended[:20].count("one") <= 12, ended
        await there.nothing_held()


async def test_requests_do_not_wait_for_a_model_that_no_node_serves_any_more(
    endless: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_queue, "NO_NODE_SECONDS", 1.0)
    asking = endless.ask(4)
    await eventually(lambda: in_flight(endless) == 4)
    late = endless.ask(2)
    await eventually(lambda: waiting(endless) == 2)
    for gateway in endless.gateways:
        gateway.app.fleet.update(())
    assert {(each.status, each.code) for each in await asyncio.gather(*late)} == {(503, "no_node_ready")}
    await leave(asking)


async def test_a_place_on_a_node_that_left_meanwhile_is_given_back_uncharged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis chose it while it was drained; nobody is served."""
    monkeypatch.setattr(request_queue, "NO_NODE_SECONDS", 1.0)
    async with setting(ENDLESS, 1, bound=1, max_wait=30.0) as there:
        redis, counters = there.redis, f"fg1:{{route}}:turns:{MODEL}"
        assert redis is not None
        holder = there.ask(1)
        await eventually(lambda: there.in_flight(0) == 1)
        late = there.ask(1)
        await eventually(lambda: waiting(there) == 1)
        before = redis.do("HGET", counters, "standard|default")
        app = there.gateways[0].app
        assert app.router.groups is not None
        places = app.router.groups.common.places
        redis.freeze()
        await leave(holder)
        await eventually(lambda: there.in_flight(0) == 0 and len(places.asked) > 0)
        drained(there)
        there.thaw()
        assert [(each.status, each.code) for each in await asyncio.gather(*late)] == [(503, "no_node_ready")]
        await there.nothing_held()
        await asyncio.sleep(0.5)  # corrections have been sent
        assert int(redis.do("HGET", counters, "standard|default")) <= int(before)
