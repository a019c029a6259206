"""Faults of the network between a gateway and a node, and of a node's process: partition, half-open, delay, reset,
kill -9, SIGSTOP. `tests/support/faults.py` is the network."""

import asyncio
import os
import re
import signal
from typing import Any

import pytest

from tests.support.crowd import CHAT, crowd, lost, text_of
from tests.support.fake_process import fake_process
from tests.support.faults import broken_network, limited_gateway, nothing_held
from tests.support.gateways import eventually
from workers.fake import FakeSettings, Fault, serve_fake
from workers.fake.faults import Kind

FAST = FakeSettings(thinking_tokens=2, answer_tokens=3)
TIMEOUTS = {"node_hang": 0.3, "prefill": 0.0, "connect": 0.2}
IN_TURN = {"policy": "round_robin"}
"""Where a test needs each node to have its half."""
HEALTH = {"interval": 0.05, "timeout": 0.3, "failure_threshold": 1, "slow_start": 1.0}


async def test_a_partition_costs_no_request_and_heals() -> None:
    async with serve_fake(FAST) as far, serve_fake(FAST) as near, broken_network(far.port) as network:
        async with limited_gateway(network.url, near.url, timeouts=TIMEOUTS, health=HEALTH) as gateway:
            node = gateway.app.fleet.nodes[0]
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            assert lost(await crowd(gateway.url, 8)) == []  # so that there are kept connections
            await network.partition()
            assert lost(await crowd(gateway.url, 12, text="cut off")) == []
            await eventually(lambda: not node.ready)
            await network.heal()
            await eventually(lambda: node.ready)
            assert lost(await crowd(gateway.url, 8, text="healed")) == []
            await nothing_held(gateway, near)


async def test_a_black_hole_on_kept_connections_costs_no_request() -> None:
    """Half-open: what the gateway sends is taken, and nobody is there. Probes go the same way."""
    async with serve_fake(FAST) as far, serve_fake(FAST) as near, broken_network(far.port) as network:
        async with limited_gateway(network.url, near.url, timeouts=TIMEOUTS, health=HEALTH) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            assert lost(await crowd(gateway.url, 8)) == []
            network.hold()
            assert lost(await crowd(gateway.url, 12, stream=True, text="held")) == []
            await nothing_held(gateway, near)


async def test_a_slow_network_is_no_fault() -> None:
    async with serve_fake(FAST) as far, serve_fake(FAST) as near, broken_network(far.port) as network:
        patient = TIMEOUTS | {"node_hang": 10.0, "connect": 10.0}
        async with limited_gateway(network.url, near.url, timeouts=patient, routing=IN_TURN) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            network.delay(0.05)
            network.slow(100_000)
            assert lost(await crowd(gateway.url, 10)) == []
            assert gateway.app.fleet.nodes[0].ready
            assert far.stats.requests["/v1/chat/completions"] == 5, "it did its part"
            await nothing_held(gateway, far, near)


@pytest.mark.parametrize("size", [0, 40])
async def test_a_reset_before_the_first_event_costs_no_request(size: int) -> None:
    """Also in the middle of the answer's head."""
    async with serve_fake(FAST) as far, serve_fake(FAST) as near, broken_network(far.port) as network:
        async with limited_gateway(network.url, near.url, health={"interval": 60}) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            network.reset_after(size)
            assert lost(await crowd(gateway.url, 10, stream=True)) == []
            await nothing_held(gateway, far, near)


BREAKS = [
    (Fault("die", after=3, path=CHAT), "upstream_cut"),
    (Fault("reset", after=3, path=CHAT), "upstream_cut"),
    (Fault("stall", after=3, path=CHAT), "upstream_timeout"),
]
"""Faults in mid-stream, and their codes where the stream cannot be resumed. The trial of a doubted node, a completion,
is left alone: one that stalls is waited for, for 30 seconds."""


def kind(value: object) -> str | None:
    return value.kind if isinstance(value, Fault) else None


@pytest.mark.parametrize("why", ["resume is off", "logprobs"])
@pytest.mark.parametrize(("fault", "code"), BREAKS, ids=kind)
async def test_what_breaks_in_mid_stream_ends_with_a_clear_error(fault: Fault, code: str, why: str) -> None:
    """Where it is not resumed. The node is doubted for it: it gets a trial, and the other one does not."""
    settings: dict[str, Any] = {"timeouts": {"idle": 2.0}, "routing": IN_TURN, "resume": {"enabled": why == "logprobs"}}
    fields: dict[str, Any] = {"logprobs": True} if why == "logprobs" else {}
    async with serve_fake(FAST) as bad, serve_fake(FAST) as good:
        async with limited_gateway(bad.url, good.url, **settings) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            bad.set_faults(fault)
            broken = lost(await crowd(gateway.url, 8, stream=True, **fields))
            assert broken == [(200, code)] * 4
            await eventually(lambda: bad.stats.requests["/v1/completions"] > 0)
            assert good.stats.requests["/v1/completions"] == 0
            bad.set_faults()
            await nothing_held(gateway, bad, good)


KINDS: tuple[Kind, ...] = ("die", "reset", "stall", "eof", "abort", "error_event", "exit")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_breaks_in_mid_stream_goes_on_elsewhere(kind: Kind) -> None:
    async with serve_fake(FAST) as bad, serve_fake(FAST) as good:
        async with limited_gateway(bad.url, good.url, timeouts={"idle": 2.0}, routing=IN_TURN) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            whole = [text_of(seen) for seen in await crowd(gateway.url, 8, stream=True)]
            bad.set_faults(Fault(kind, after=3, path=CHAT))
            seen = await crowd(gateway.url, 8, stream=True)
            assert [text_of(one) for one in seen] == whole
            page = gateway.app.metrics.page().decode()
            resumed = sum(map(int, re.findall(r'fleetgate_resumes_total\{.*outcome="resumed"\} (\d+)', page)))
            assert resumed == 4 or (kind == "exit" and resumed >= 1), "a node that is gone may get fewer"
            bad.set_faults()
            await nothing_held(gateway, good)


async def test_a_plain_answer_that_breaks_off_is_asked_for_again() -> None:
    """It is held back until it is whole, so the client has seen nothing."""
    async with serve_fake(FAST) as bad, serve_fake(FAST) as good, limited_gateway(bad.url, good.url) as gateway:
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        bad.set_faults(Fault("truncate", size=20))
        assert lost(await crowd(gateway.url, 10)) == []
        await nothing_held(gateway, bad, good)


async def test_a_node_that_is_killed_costs_none_of_those_that_wait() -> None:
    async with fake_process("--prefill-rate", "20") as doomed, serve_fake(FAST) as good:
        timeouts = TIMEOUTS | {"node_hang": 20}
        async with limited_gateway(doomed.url, good.url, timeouts=timeouts, routing=IN_TURN) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            asking = asyncio.create_task(crowd(gateway.url, 10, stream=True))
            await eventually(lambda: gateway.app.fleet.nodes[0].in_flight == 5)
            os.kill(doomed.pid, signal.SIGKILL)
            assert lost(await asking) == []
            await nothing_held(gateway, good)


async def test_a_node_that_is_stopped_costs_none_and_comes_back() -> None:
    """SIGSTOP: connections are taken by the kernel, and nothing is ever said."""
    async with fake_process() as frozen, serve_fake(FAST) as good:
        async with limited_gateway(frozen.url, good.url, timeouts=TIMEOUTS, health=HEALTH) as gateway:
            await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
            os.kill(frozen.pid, signal.SIGSTOP)
            try:
                assert lost(await crowd(gateway.url, 10)) == []
                await eventually(lambda: not gateway.app.fleet.nodes[0].ready)
            finally:
                os.kill(frozen.pid, signal.SIGCONT)
            await eventually(lambda: gateway.app.fleet.nodes[0].ready)
            assert lost(await crowd(gateway.url, 10)) == []
            await nothing_held(gateway, good)
