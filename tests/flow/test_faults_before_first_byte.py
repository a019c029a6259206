"""Faults that show before a client has seen a byte: another node answers, the client notices nothing.

Two nodes, one of them bad, as in the comparison with other proxies (loadtest/faults.py). Every test ends with
`nothing_held`: whatever way a request took, its lease, its exchange and its connections were given back.
"""

import asyncio
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer

import httpx
import pytest

from tests.support.crowd import ask, crowd, lost, send
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateways import eventually
from tests.support.nodes import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    Asked,
    ScriptedNode,
    answer,
    chunk,
    event,
    scripted_node,
)
from workers.fake import FakeSettings, Fault, serve_fake

FAST = FakeSettings(thinking_tokens=2, answer_tokens=3)
SOON = {"node_hang": 0.3, "prefill": 0.0}
"""Timeouts with which a node that hangs is given up after 0.3 seconds."""


IN_TURN = {"policy": "round_robin"}
"""Where a test needs each node to have its half."""


async def metrics(admin_url: str) -> str:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{admin_url}/metrics")).text


@pytest.mark.parametrize(
    ("fault", "stream"),
    [
        (Fault("refuse"), True),
        (Fault("reset", after=-1), True),
        (Fault("status", status=500), True),
        (Fault("status", status=502), False),
        (Fault("status", status=503), False),
        (Fault("status", status=504), True),
        (Fault("zombie"), False),
        (Fault("garbage"), False),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else None,
)
async def test_a_node_that_fails_at_once_costs_no_request(fault: Fault, stream: bool) -> None:
    async with serve_fake(FAST) as bad, serve_fake(FAST) as good, limited_gateway(bad.url, good.url) as gateway:
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        bad.set_faults(fault)
        assert lost(await crowd(gateway.url, 40, stream)) == []
        await nothing_held(gateway, bad, good)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_node_that_takes_requests_and_says_nothing_costs_none(stream: bool) -> None:
    async with serve_fake(FAST) as bad, serve_fake(FAST) as good:
        async with limited_gateway(bad.url, good.url, timeouts=SOON) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            bad.set_faults(Fault("hang"))
            assert lost(await crowd(gateway.url, 8, stream)) == []
            assert gateway.app.fleet.nodes[0].breaker.is_open, "it is not asked again until it has answered"
            await nothing_held(gateway, bad, good)


async def test_what_waits_on_a_wedged_node_and_what_streams_there_moves_on() -> None:
    """Its engine stands still in mid-stream; what waits finds that out."""
    paced = FakeSettings(rate=50, answer_tokens=100)
    async with serve_fake(paced) as bad, serve_fake(FAST) as good:
        timeouts = {**SOON, "stall": 600.0, "stall_confirmed": 600.0}
        async with limited_gateway(bad.url, good.url, timeouts=timeouts, routing=IN_TURN) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            under_way = asyncio.create_task(crowd(gateway.url, 4, stream=True))
            await eventually(lambda: bad.running == 2)
            await eventually(lambda: all(lease.heard for lease in gateway.app.fleet.nodes[0].leases))
            bad.set_faults(Fault("wedge"))
            assert lost(await crowd(gateway.url, 8, stream=True, text="later")) == []
            assert lost(await under_way) == []
            bad.set_faults()
            await nothing_held(gateway)


async def test_a_zombie_comes_back_only_through_an_answered_request() -> None:
    """Its probes are green all the time."""
    async with serve_fake(FAST) as bad, serve_fake(FAST) as good, limited_gateway(bad.url, good.url) as gateway:
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        node = gateway.app.fleet.nodes[0]
        bad.set_faults(Fault("zombie"))
        assert lost(await crowd(gateway.url, 40)) == []
        assert (node.ready, node.breaker.cause.value) == (False, "failing")
        asked = bad.stats.requests["/v1/completions"]
        probed = bad.stats.requests["/health"]
        await eventually(lambda: bad.stats.requests["/v1/completions"] > asked)
        assert bad.stats.requests["/health"] > probed
        assert not node.ready, "probes are green, and the trial was not answered"
        bad.set_faults()
        await eventually(lambda: node.ready)
        assert node.breaker.state.value == "probation"
        assert lost(await crowd(gateway.url, 10)) == []
        await nothing_held(gateway, bad, good)


async def test_a_body_that_breaks_every_node_takes_none_out() -> None:
    """An agent may send it again and again, and each time a little longer."""

    async def poisoned(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(answer(b'{"error":{"message":"ouch","code":500}}', "500 Internal Server Error"))

    async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        await (poisoned(node, asked, reader, writer) if b"poison" in asked.body else asyncio.sleep(0))
        if b"poison" not in asked.body:
            writer.write(answer(b"{}"))

    async with scripted_node(plain) as a, scripted_node(plain) as b, scripted_node(plain) as c:
        async with limited_gateway(a.url, b.url, c.url) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            seen = await crowd(gateway.url, 30, text="poison", at_once=3)
            assert {(one.status, one.body) for one in seen} == {(500, b'{"error":{"message":"ouch","code":500}}')}
            assert all(node.ready for node in gateway.app.fleet.nodes)
            assert lost(await crowd(gateway.url, 9)) == []
            await nothing_held(gateway)


async def test_the_last_ready_node_is_never_taken_out() -> None:
    async with serve_fake(FAST) as only, limited_gateway(only.url, timeouts=SOON) as gateway:
        only.set_faults(Fault("zombie"))
        seen = await crowd(gateway.url, 20)
        assert {one.status for one in seen} == {500}
        assert all(b"cannot schedule new futures" in one.body for one in seen), "the node's own words"
        assert gateway.app.fleet.nodes[0].ready
        only.set_faults()
        assert lost(await crowd(gateway.url, 20)) == []
        await nothing_held(gateway, only)


async def test_a_full_fleet_says_when_to_come_back() -> None:
    async with serve_fake(FAST) as a, serve_fake(FAST) as b, limited_gateway(a.url, b.url) as gateway:
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        a.set_faults(Fault("status", status=503, seconds=7))
        b.set_faults(Fault("status", status=503, seconds=3))
        got = await send(gateway.url, ask())
        assert (got.status, got.code, got.headers["retry-after"]) == (503, "fleet_full", "3")
        assert all(node.ready for node in gateway.app.fleet.nodes), "to be full is not to be ill"
        await nothing_held(gateway, a, b)


async def test_a_node_is_given_no_more_than_it_can_take() -> None:
    paced = FakeSettings(rate=20, answer_tokens=10)
    async with serve_fake(paced) as a, serve_fake(paced) as b:
        nodes = [{"url": node.url, "max_concurrency": 2} for node in (a, b)]
        async with limited_gateway(nodes=nodes, queue={"max_wait": 0}) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            seen = await crowd(gateway.url, 10, stream=True)
            assert sum(one.whole for one in seen) == 4
            turned_away = [one for one in seen if not one.whole]
            assert {(one.status, one.code, one.headers["retry-after"]) for one in turned_away} == {
                (503, "fleet_full", "1")
            }
            await nothing_held(gateway, a, b)


async def test_a_failing_fleet_is_not_stormed() -> None:
    """Ten tries may be made beyond the first ones, and then no more."""
    async with serve_fake(FAST) as a, serve_fake(FAST) as b:
        retries = {"share": 0, "minimum": 1}
        async with limited_gateway(a.url, b.url, retries=retries) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            for node in (a, b):
                node.set_faults(Fault("zombie"))
            before = [node.stats.requests["/v1/chat/completions"] for node in (a, b)]
            await crowd(gateway.url, 40)
            after = [node.stats.requests["/v1/chat/completions"] for node in (a, b)]
            assert 50 <= sum(after) - sum(before) <= 53, "forty, and ten more, and what comes in by the second"
            page = await metrics(gateway.admin_url)
            (line,) = [line for line in page.splitlines() if line.startswith("fleetgate_retries_refused_total{")]
            assert float(line.rpartition(" ")[2]) >= 27
            await nothing_held(gateway, a, b)


async def test_a_client_that_leaves_is_not_asked_for_elsewhere() -> None:
    async with serve_fake(FAST) as bad, serve_fake(FAST) as good:
        async with limited_gateway(bad.url, good.url, timeouts=SOON) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            bad.set_faults(Fault("hang"))
            good.set_faults(Fault("hang"))
            asking = [asyncio.create_task(send(gateway.url, ask(str(n)))) for n in range(4)]
            await eventually(lambda: sum(node.in_flight for node in gateway.app.fleet.nodes) == 4)
            for task in asking:
                task.cancel()
            await nothing_held(gateway, bad, good)
            told = [node.stats.requests["/v1/chat/completions"] for node in (bad, good)]
            assert sum(told) == 4


async def test_a_stream_that_begins_with_an_error_has_not_begun() -> None:
    """vLLM opens a stream before it asks its engine: a dead one is told as an event, under a 200."""
    error = b'data: {"error":{"message":"engine dead","type":"InternalServerError","code":500}}\n\n'

    async def broken(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + chunk(error) + chunk(DONE) + LAST_CHUNK)

    async def fine(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + chunk(event("a")) + chunk(DONE) + LAST_CHUNK)

    async with scripted_node(broken) as bad, scripted_node(fine) as good:
        async with limited_gateway(bad.url, good.url) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            assert lost(await crowd(gateway.url, 10, stream=True)) == []
            await nothing_held(gateway)
        async with limited_gateway(bad.url) as gateway:
            got = await send(gateway.url, ask(stream=True))
            assert (got.status, got.body) == (200, error + DONE), "where nobody else is there, it passes as it came"
            await nothing_held(gateway)


async def test_a_long_prompt_is_not_a_hang() -> None:
    """Two seconds of prefill where a node is given up after 0.3 seconds and one more for 1000 tokens."""
    slow = FakeSettings(prefill_rate=4000, answer_tokens=2, thinking_tokens=0, max_model_len=100_000)
    async with serve_fake(slow) as a, serve_fake(slow) as b:
        async with limited_gateway(a.url, b.url, timeouts={"node_hang": 0.3, "prefill": 1.0}) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            got = await send(gateway.url, ask("ten letters " * 2000, stream=True))
            assert got.whole
            assert all(node.ready for node in gateway.app.fleet.nodes)
            assert sum(node.stats.requests["/v1/chat/completions"] for node in (a, b)) == 1
            await nothing_held(gateway, a, b)


async def test_a_first_byte_may_take_as_long_as_its_prompt_is_long() -> None:
    """The same silence is a long prompt's prefill and a short one's hang: that one goes to the other node."""
    late = Fault("slow_head", seconds=0.8, next=1)
    timeouts = {"first_byte": 0.3, "prefill": 1.0}
    async with serve_fake(FAST) as a, serve_fake(FAST) as b:
        async with limited_gateway(a.url, b.url, timeouts=timeouts, routing=IN_TURN) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            a.set_faults(late)
            b.set_faults(late)
            assert (await send(gateway.url, ask("ten letters " * 2000, stream=True))).whole
            asked = [node.stats.requests["/v1/chat/completions"] for node in (a, b)]
            assert sorted(asked) == [0, 1], "whoever had it was waited for"
            first, second = (a, b) if asked == [1, 0] else (b, a)
            first.set_faults()
            assert (await send(gateway.url, ask("ten letters", stream=True))).whole
            told = [node.stats.requests["/v1/chat/completions"] for node in (first, second)]
            assert told == [2, 1], "its turn was the second's, which was too late"
            await nothing_held(gateway, a, b)


async def test_a_busy_node_is_healthy_whatever_its_probes_say() -> None:
    paced = FakeSettings(rate=50, answer_tokens=60)
    health = {"interval": 0.05, "timeout": 0.1, "failure_threshold": 0}
    async with serve_fake(paced) as busy, limited_gateway(busy.url, health=health) as gateway:
        node = gateway.app.fleet.nodes[0]
        asking = asyncio.create_task(crowd(gateway.url, 2, stream=True))
        await eventually(lambda: busy.running == 2 and all(lease.heard for lease in node.leases))
        busy.set_faults(Fault("hang", scope="probes"))
        probed = busy.stats.requests["/health"]
        await eventually(lambda: busy.stats.requests["/health"] >= probed + 4)
        assert node.ready
        assert lost(await asking) == []
        await eventually(lambda: not node.ready)  # nothing comes any more, and its probes fail
        assert lost(await crowd(gateway.url, 2)) == [], "a request tells more than a probe"
        await nothing_held(gateway)


async def test_stale_metrics_never_stop_dispatch() -> None:
    async with serve_fake(FAST) as node, limited_gateway(node.url) as gateway:
        await eventually(lambda: gateway.app.fleet.nodes[0].load is not None)
        node.set_faults(Fault("hang", scope="probes", path="/metrics"))
        assert lost(await crowd(gateway.url, 10)) == []
        assert gateway.app.fleet.nodes[0].ready
        await nothing_held(gateway)


async def test_a_restarted_node_is_found_at_once_and_warmed_up_gently() -> None:
    health = {"interval": 60.0, "slow_start": 300.0}
    async with serve_fake(FAST) as a, serve_fake(FAST) as b, limited_gateway(a.url, b.url, health=health) as gateway:
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        node = gateway.app.fleet.nodes[0]
        a.crash()
        assert lost(await crowd(gateway.url, 4)) == []
        assert not node.ready
        loop = asyncio.get_running_loop()
        await a.restart()
        back = loop.time()
        await eventually(lambda: node.ready)
        assert loop.time() - back < 30.0
        assert (node.breaker.state.value, node.places) == ("probation", 1)
        assert lost(await crowd(gateway.url, 40)) == [], "and what it may not have yet goes to the others"
        await nothing_held(gateway, a, b)


async def test_a_single_node_that_came_back_is_not_held_to_its_slow_start() -> None:
    """Gentle where somebody else can do the work; else it is better asked than not."""
    paced = FakeSettings(rate=50, answer_tokens=5)
    async with serve_fake(paced) as only, limited_gateway(only.url) as gateway:
        node = gateway.app.fleet.nodes[0]
        only.crash()
        await eventually(lambda: not node.ready)
        await only.restart()
        await eventually(lambda: node.ready)
        assert lost(await crowd(gateway.url, 20, stream=True)) == []
        await nothing_held(gateway, only)


async def test_metrics_tell_what_became_of_nodes_and_attempts() -> None:
    async with serve_fake(FAST) as bad, serve_fake(FAST) as good, limited_gateway(bad.url, good.url) as gateway:
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        bad.set_faults(Fault("zombie"))
        assert lost(await crowd(gateway.url, 20)) == []
        page = await metrics(gateway.admin_url)
        name = f"127.0.0.1:{bad.port}"
        assert f'fleetgate_node_taken_out_total{{cause="failing",node="{name}"}} 1.0' in page
        assert f'fleetgate_node_breaker{{node="{name}",state="open"}} 1.0' in page
        assert f'fleetgate_node_breaker{{node="{name}",state="closed"}} 0.0' in page
        assert f'fleetgate_node_draining{{node="{name}"}} 0.0' in page
        (failed,) = [line for line in page.splitlines() if f'node="{name}",outcome="failed"' in line]
        assert float(failed.rpartition(" ")[2]) >= 3
        assert f'node="127.0.0.1:{good.port}",outcome="passed"}} 20.0' in page
