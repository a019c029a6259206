"""A stream that stalls goes on: alone, with all of its node, by the node's own count, and whoever reads it."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.support.crowd import CHAT, ask, lost, send, text_of
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateways import RunningGateway, eventually
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

PACED = FakeSettings(rate=500, thinking_tokens=40, answer_tokens=400, prompt_tokens_details=False)
"""Two milliseconds between two events, so that 50 usual gaps are 0.1 s."""
NEVER = 600.0
SETTINGS: dict[str, Any] = {
    "budgets": {"canary": True},
    "health": {"interval": 0.05},
    "routing": {"policy": "round_robin"},
}


def timeouts(**seconds: float) -> dict[str, Any]:
    """None of those that decide about silence passes, but for `seconds`."""
    names = ("idle", "stall", "stall_confirmed", "node_hang", "first_byte")
    return {**SETTINGS, "timeouts": {**dict.fromkeys(names, NEVER), "prefill": 0.0, **seconds}}


async def known(gateway: RunningGateway) -> None:
    """Wait until the nodes have shown what a resume needs to know."""
    await eventually(lambda: all(node.capabilities.marker_shown is not None for node in gateway.app.fleet.nodes))


def made(node: FakeNode) -> int:
    """Tokens of the longest answer under way."""
    return max((len(seat.made) for seat in node.node.engine.running), default=0)


async def begun(nodes: tuple[FakeNode, ...], tokens: int) -> FakeNode:
    """The node that has an answer of so many tokens under way."""
    await eventually(lambda: any(made(node) >= tokens for node in nodes))
    return next(node for node in nodes if made(node) >= tokens)


@pytest.mark.parametrize("tokens", [30, 60, 300])
async def test_a_wedged_engine_with_one_stream_is_left_by_its_count(tokens: int) -> None:
    """Its server answers all probes; that its count stands still is the only sign."""
    async with serve_fake(PACED) as a, serve_fake(PACED) as b:
        async with limited_gateway(a.url, b.url, **timeouts(stall_confirmed=0.3)) as gateway:
            await known(gateway)
            expected = text_of(await send(gateway.url, ask(stream=True)))
            asking = asyncio.create_task(send(gateway.url, ask(stream=True)))
            wedged = await begun((a, b), tokens)
            wedged.set_faults(Fault("wedge"))
            assert text_of(await asking) == expected
            (node,) = [node for node in gateway.app.fleet.nodes if node.spec.url == wedged.url]
            assert (node.ready, node.breaker.cause.value) == (False, "silent")
            wedged.set_faults()
            await nothing_held(gateway)


@pytest.mark.parametrize("count", [1, 8])
async def test_a_stall_without_a_count_is_found_by_its_length(count: int) -> None:
    async with serve_fake(PACED) as a, serve_fake(PACED) as b:
        for node in (a, b):
            node.set_faults(Fault("status", status=404, scope="probes", path="/metrics"))
        async with limited_gateway(a.url, b.url, **timeouts(stall=0.5, stall_confirmed=0.1)) as gateway:
            await known(gateway)
            expected = text_of(await send(gateway.url, ask(stream=True)))
            asking = [asyncio.create_task(send(gateway.url, ask(stream=True))) for _ in range(count)]
            wedged = await begun((a, b), 50)
            wedged.set_faults(Fault("wedge"), Fault("status", status=404, scope="probes", path="/metrics"))
            assert [text_of(seen) for seen in await asyncio.gather(*asking)] == [expected] * count
            wedged.set_faults()
            await nothing_held(gateway)


async def test_one_stalled_stream_moves_and_its_node_stays() -> None:
    """The node's other answers go on all the time."""
    async with serve_fake(PACED) as a, serve_fake(PACED) as b:
        settings = timeouts(stall=0.5, stall_confirmed=0.2)
        async with limited_gateway(a.url, b.url, **settings) as gateway:
            await known(gateway)
            expected = text_of(await send(gateway.url, ask(stream=True)))
            long = ask("[[think=5000]] [[answer=5]]", stream=True, max_tokens=6000)
            others = [asyncio.create_task(send(gateway.url, long)) for _ in range(2)]
            await eventually(lambda: all(made(node) > 10 for node in (a, b)))
            for node in (a, b):
                node.set_faults(Fault("stall", after=60, next=1, path=CHAT))
            assert text_of(await send(gateway.url, ask(stream=True))) == expected
            assert not any("silent" in node.breaker.opened for node in gateway.app.fleet.nodes)
            for other in others:
                other.cancel()
            await nothing_held(gateway)


async def test_where_a_node_hangs_what_waits_and_what_streams_both_move() -> None:
    async with serve_fake(PACED) as a, serve_fake(PACED) as b:
        async with limited_gateway(a.url, b.url, **timeouts(node_hang=0.5)) as gateway:
            await known(gateway)
            streams = [asyncio.create_task(send(gateway.url, ask(stream=True))) for _ in range(4)]
            wedged = await begun((a, b), 50)
            wedged.set_faults(Fault("wedge"))
            waits = [send(gateway.url, ask(f"later {number}", stream=number % 2 == 0)) for number in range(4)]
            assert lost(await asyncio.gather(*streams, *waits)) == []
            wedged.set_faults()
            await nothing_held(gateway)


async def test_a_client_that_reads_slowly_stalls_nothing() -> None:
    """Its node waits for it, longer than any limit; its answer is whole all the same, from one node."""
    words = FakeSettings(rate=0, thinking_tokens=0, answer_tokens=30_000, prompt_tokens_details=False)
    limits = timeouts(stall=0.3, stall_confirmed=0.2, idle=0.4)
    async with serve_fake(words) as a, serve_fake(words) as b, limited_gateway(a.url, b.url, **limits) as gateway:
        await known(gateway)
        body = ask("[[think=0]]", stream=True, max_tokens=30_000)
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            async with client.stream("POST", gateway.url + CHAT, json=body) as answer:
                pieces = answer.aiter_raw(65_536)
                content = await anext(pieces)
                for _ in range(3):
                    await asyncio.sleep(0.6)
                    content += await anext(pieces)
                async for piece in pieces:
                    content += piece
        assert content.endswith(b"data: [DONE]\n\n") and b'"error"' not in content and b": resumed" not in content
        assert all(node.ready for node in gateway.app.fleet.nodes)
        await nothing_held(gateway)
