"""What the prober asks nodes, when, and what it makes of what it is told."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.core.fleet.node_metrics_page import SHORT
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.fleet.node_probes import NodeProbes
from gateway.fleet.node_spec import Drain, NodeSpec
from gateway.fleet.probe_settings import ProbeSettings
from gateway.fleet.prober import CANARIES, Prober
from gateway.telemetry.shortages import ResourceShortages
from tests.support.gateways import eventually
from tests.support.quiet_fleet import QuietNode, quiet_fleet

SETTINGS = ProbeSettings(interval=0.05, timeout=2.0, failure_threshold=2, canary=False)
IMPATIENT = replace(SETTINGS, timeout=0.1)


@contextlib.asynccontextmanager
async def probing(nodes: list[QuietNode], settings: ProbeSettings = SETTINGS) -> AsyncIterator[tuple[Fleet, Prober]]:
    fleet = Fleet([NodeSpec(node.url) for node in nodes])
    prober = Prober(fleet, settings, ResourceShortages())
    prober.sync()
    try:
        yield fleet, prober
    finally:
        await prober.stop()


def rounds(node: QuietNode) -> int:
    return node.asked["/health"]


async def test_a_node_that_is_in_is_asked_for_what_is_due() -> None:
    """Its models, and without requests its metrics, are asked for in every fifth round."""
    async with quiet_fleet(1) as [node], probing([node]) as (fleet, _):
        await eventually(lambda: rounds(node) >= 21)
        assert fleet.nodes[0].ready
        for path in ("/v1/models", "/metrics"):
            assert 2 <= node.asked[path] <= rounds(node) / 2, node.asked
        assert set(node.asked) == {"/health", "/v1/models", "/metrics"}


async def test_the_metrics_of_a_busy_node_are_read_in_every_round_and_say_that_it_lives() -> None:
    async with quiet_fleet(1) as [node], probing([node]) as (fleet, _):
        node.busy = 100  # 5,000 tokens a second: its count grows from page to page
        await eventually(lambda: fleet.nodes[0].load is not None and fleet.nodes[0].load.running)
        before = Counter(node.asked)
        await eventually(lambda: node.asked["/metrics"] - before["/metrics"] >= 20)
        assert node.asked["/health"] - before["/health"] <= 10
        assert fleet.nodes[0].ready


@pytest.mark.parametrize("filters", [True, False])
async def test_metrics_are_asked_for_by_name_where_the_node_can(filters: bool) -> None:
    """Its state is as fresh either way: what the short page lacks is asked for in the same round."""
    async with quiet_fleet(1) as [node], probing([node]) as (fleet, _):
        node.busy, node.filters = 100, filters
        known = fleet.nodes[0]
        await eventually(lambda: known.load is not None and known.load.running)
        before = Counter(node.paths)
        await eventually(lambda: len(known.loads) >= 10 and node.asked["/metrics"] >= 30)
        asked = Counter(node.paths) - before
        assert known.load is not None
        assert known.load.running == 100
        assert known.load.kv_use == 0.0
        if filters:
            assert asked["/metrics"] <= 1 <= asked[SHORT]
        else:
            assert asked[SHORT] <= 1 <= asked["/metrics"]


async def test_a_node_that_is_waited_for_holds_up_no_other() -> None:
    """The end of the wait for its answer is not the next thing to do."""
    settings = ProbeSettings(interval=60.0, timeout=600.0, failure_threshold=2, canary=False)
    async with quiet_fleet(2) as nodes, probing(nodes, settings) as (fleet, prober):
        await eventually(lambda: all(node.ready for node in fleet.nodes))
        await eventually(lambda: not any(probes.task for probes in prober._probes.values()))
        silent, other = prober._probes.values()
        nodes[0].silent = True
        now = asyncio.get_running_loop().time()
        silent.times.asked_at = silent.times.alive_at = now - 100.0
        prober._enqueue(silent, now)
        await eventually(lambda: silent.asking is not None)
        assert silent.queued_at > other.queued_at >= prober._timer_at


async def test_a_node_is_probed_on_where_noting_a_fault_of_our_own_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise RuntimeError("a fault of our own")

    async with quiet_fleet(1) as [node], probing([node]) as (_, prober):
        await eventually(lambda: rounds(node) >= 3)
        [probes] = prober._probes.values()
        with monkeypatch.context() as faults:
            faults.setattr(NodeProbes, "end", fail)
            faults.setattr(Node, "refused", fail)
            probes.queued_at = -1.0  # none of what waits for it counts any more
            with pytest.raises(RuntimeError):
                prober._hear(probes, asyncio.get_running_loop().time())
        asked = rounds(node)
        await eventually(lambda: rounds(node) > asked)


@pytest.mark.parametrize("step", ["round_at", "look_at", "begin", "begin_checks", "tell"])
async def test_a_node_is_looked_at_again_where_one_look_fails(
    step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each step of a look fails once: the node is asked on all the same, others are not held up, and it is logged."""
    async with quiet_fleet(2) as nodes, probing(nodes) as (fleet, prober):
        await eventually(lambda: all(rounds(node) >= 3 for node in nodes))
        first = next(iter(prober._probes.values()))
        failed: list[NodeProbes] = []
        real = getattr(NodeProbes, step)

        def fail(probes: NodeProbes, now: float) -> object:
            if probes is first and not failed:
                failed.append(probes)
                raise RuntimeError("a fault of our own")
            return real(probes, now)

        def not_yet(probes: NodeProbes, now: float) -> float:
            return due(probes, now) if probes is not first or failed else now + 0.01

        due = NodeProbes.round_at
        if step not in ("round_at", "begin"):  # it is looked at before a round of it is due
            monkeypatch.setattr(NodeProbes, "round_at", not_yet)
        monkeypatch.setattr(NodeProbes, step, fail)
        prober._wake(first.node)
        await eventually(lambda: bool(failed))
        asked = [rounds(node) for node in nodes]
        await eventually(lambda: all(rounds(node) > before for node, before in zip(nodes, asked, strict=True)))
        assert all(node.ready for node in fleet.nodes)
    assert capsys.readouterr().out.count("probe_loop_failed") == 1


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models"])
async def test_what_is_not_answered_in_time_is_given_up(path: str) -> None:
    async with quiet_fleet(1) as [node], probing([node], IMPATIENT) as (fleet, _):
        known = fleet.nodes[0]
        await eventually(lambda: known.ready)
        node.holds = frozenset({path})
        if path == "/metrics":  # best effort
            asked = Counter(node.asked)
            await eventually(lambda: node.asked[path] - asked[path] >= 3 and rounds(node) - asked["/health"] >= 5)
            assert known.ready
        else:
            await eventually(lambda: not known.ready)
        node.holds = frozenset()
        await eventually(lambda: known.ready)


async def test_tokens_of_its_streams_spare_a_node_its_probes() -> None:
    async with quiet_fleet(2) as nodes, probing(nodes) as (fleet, _):
        await eventually(lambda: all(node.ready for node in fleet.nodes))
        heard, other = nodes
        loop = asyncio.get_running_loop()
        before = [rounds(node) for node in nodes]
        while rounds(other) - before[1] < 10:
            fleet.nodes[0].heard_at = loop.time()
            await asyncio.sleep(0.005)
        assert rounds(heard) - before[0] <= 3


@pytest.mark.parametrize("harm", ["dies", "refuses", "is silent"])
async def test_a_node_that_fails_is_out_and_back_when_it_answers(harm: str) -> None:
    async with quiet_fleet(1) as [node], probing([node], IMPATIENT) as (fleet, _):
        known = fleet.nodes[0]
        await eventually(lambda: known.ready)
        if harm == "dies":
            node.die()
        elif harm == "refuses":
            node.status = 503
        else:
            node.silent = True
        await eventually(lambda: not known.ready)
        node.status, node.silent = 200, False
        if harm == "dies":
            await node.listen()
        await eventually(lambda: known.ready)


@pytest.mark.parametrize("busy", [0, 100])
async def test_another_process_at_the_same_address_is_asked_what_it_serves(busy: int) -> None:
    """However soon it is there: the connection to the one before was closed, or its metrics are another's."""
    settings = ProbeSettings(interval=0.4, timeout=2.0, failure_threshold=2, canary=False)
    async with quiet_fleet(1) as [node], probing([node], settings) as (fleet, _):
        node.busy = busy
        await eventually(lambda: fleet.nodes[0].ready)
        await node.replace("another")
        before = rounds(node)
        await eventually(lambda: "another" in fleet.nodes[0].cards)
        assert rounds(node) - before <= 3, "long before its models were due"


async def test_what_a_request_finds_is_looked_at_at_once() -> None:
    settings = ProbeSettings(interval=60.0, timeout=2.0, failure_threshold=2, canary=False)
    async with quiet_fleet(1) as [node], probing([node], settings) as (fleet, _):
        known, now = fleet.nodes[0], asyncio.get_running_loop().time
        await eventually(lambda: known.ready)
        known.refused("a request found no connection", now())
        assert not known.ready
        await eventually(lambda: known.ready)
        asked = node.asked["/v1/completions"]
        known.doubt("an answer was cut")
        await eventually(lambda: node.asked["/v1/completions"] > asked)


async def test_a_drained_node_is_probed_on() -> None:
    async with quiet_fleet(1) as [node], probing([node]) as (fleet, _):
        await eventually(lambda: fleet.nodes[0].ready)
        fleet.nodes[0].drain_for("test", Drain(), 0.0)
        before = rounds(node)
        await eventually(lambda: rounds(node) > before + 2)
        node.die()
        await eventually(lambda: not fleet.nodes[0].ready_but_for_drain)


async def test_a_node_that_left_is_asked_nothing_and_costs_nothing() -> None:
    async with quiet_fleet(2) as nodes, probing(nodes) as (fleet, prober):
        await eventually(lambda: all(node.ready for node in fleet.nodes))
        fleet.update([NodeSpec(nodes[0].url)])
        prober.sync()
        await eventually(lambda: not nodes[1].connections)
        before, other = rounds(nodes[1]), rounds(nodes[0])
        await eventually(lambda: rounds(nodes[0]) > other + 5)
        assert rounds(nodes[1]) == before
        assert len(prober._probes) == 1
        await eventually(lambda: all(entry[2].node is fleet.nodes[0] for entry in prober._queue))


async def test_a_node_that_is_reached_in_another_way_is_asked_anew() -> None:
    async with quiet_fleet(1) as [node], probing([node]) as (fleet, prober):
        await eventually(lambda: fleet.nodes[0].ready)
        fleet.update([NodeSpec(node.url, api_key="new")])
        assert not fleet.nodes[0].ready
        prober.sync()
        await eventually(lambda: fleet.nodes[0].ready)
        await eventually(lambda: len(node.connections) == 1)


@pytest.mark.source_only("a compiled attribute takes no value of another type")
async def test_a_failure_of_our_own_takes_a_node_out_and_is_got_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with quiet_fleet(1) as [node], probing([node]) as (fleet, _):
        await eventually(lambda: fleet.nodes[0].ready)

        def fail(page: bytes) -> None:
            raise RuntimeError("a fault")

        with monkeypatch.context() as patched:
            patched.setattr(fleet, "known_cards", type("Broken", (), {"read": staticmethod(fail)})())
            await eventually(lambda: not fleet.nodes[0].ready)
        await eventually(lambda: fleet.nodes[0].ready)


async def test_a_fleet_that_appears_at_once_is_ready_before_it_is_proven() -> None:
    settings = ProbeSettings(interval=2.0, timeout=5.0, failure_threshold=2)
    async with quiet_fleet(100) as nodes, probing([], settings) as (fleet, prober):
        fleet.update([NodeSpec("http://127.0.0.1:1")])  # the gateway had a fleet before: these are not trusted
        for node in nodes:
            node.holds = frozenset({"/v1/chat/completions"})
        fleet.update([NodeSpec(node.url) for node in nodes])
        prober.sync()
        await eventually(lambda: all(node.ready for node in fleet.nodes))
        assert all(node.asked["/v1/completions"] == 1 for node in nodes), "each has passed its trial"
        assert not any(node.capabilities.native_off for node in fleet.nodes)


async def test_few_nodes_are_proven_at_once() -> None:
    settings = ProbeSettings(interval=2.0, timeout=5.0, failure_threshold=2)
    async with quiet_fleet(3 * CANARIES) as nodes, probing(nodes, settings) as (fleet, _):
        for node in nodes:
            node.holds = frozenset({"/v1/chat/completions"})
        await eventually(lambda: all(node.ready for node in fleet.nodes))
        await eventually(lambda: sum(node.asked["/v1/chat/completions"] for node in nodes) == CANARIES)
        await asyncio.sleep(0.2)
        assert sum(node.asked["/v1/chat/completions"] for node in nodes) == CANARIES


async def test_what_waits_for_its_time_is_looked_at_again() -> None:
    """A second doubt within the pause between two checks is not lost."""
    settings = ProbeSettings(interval=60.0, timeout=2.0, failure_threshold=2, canary=False)
    async with quiet_fleet(1) as [node], probing([node], settings) as (fleet, _):
        known: Node = fleet.nodes[0]
        await eventually(lambda: known.ready)
        known.doubt("one")
        await eventually(lambda: node.asked["/v1/completions"] == 1)
        known.doubt("two")
        await eventually(lambda: node.asked["/v1/completions"] == 2)
