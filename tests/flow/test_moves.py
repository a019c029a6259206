"""A drain moves what can go on elsewhere, in mid-answer, before its deadline and one by one; the client has the whole
answer, as if nothing had been."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from gateway.core.telemetry.request_stats import RequestStats
from gateway.fleet.node import Node
from gateway.fleet.node_spec import Drain
from gateway.fleet.registrations import REGISTERED
from tests.flow.test_drain import CHATS, admin, fleetgate
from tests.flow.test_rolling_restart import undrained
from tests.support.crowd import Seen, ask, lost, send
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateways import RunningGateway, eventually
from workers.fake import FakeNode, FakeSettings, serve_fake

LONG = FakeSettings(rate=25, thinking_tokens=60, answer_tokens=140)
"""Some seconds: longer than a drain needs."""

SHORT = FakeSettings(rate=25, thinking_tokens=15, answer_tokens=25)

LONGER = FakeSettings(rate=25, thinking_tokens=300, answer_tokens=50)

PROMPT = "Tell me about Paris."

FIXED = {"logprobs": True}
"""A stream that cannot go on elsewhere."""


@dataclass(slots=True)
class Fleet:
    settings: FakeSettings
    nodes: list[FakeNode]
    gateway: RunningGateway
    asked: list[asyncio.Task[Seen]] = field(default_factory=list)
    records: list[RequestStats] = field(default_factory=list)

    @property
    def known(self) -> tuple[Node, ...]:
        """The nodes as the gateway sees them."""
        return self.gateway.app.fleet.nodes

    @property
    def served(self) -> int:
        return sum(node.stats.requests[CHATS] for node in self.nodes)

    @property
    def running(self) -> list[int]:
        return [node.running for node in self.nodes]

    async def ask(self, count: int, stream: bool = True, **fields: Any) -> None:
        """Have `count` more requests run."""
        body = ask(PROMPT, stream, **fields)
        before = self.served
        self.asked += [asyncio.create_task(send(self.gateway.url, body)) for _ in range(count)]
        await eventually(lambda: self.served == before + count)
        await eventually(lambda: sum(self.running) >= count)
        if stream:
            await eventually(lambda: all(lease.heard for node in self.known for lease in node.leases))

    async def unbroken(self) -> Seen:
        """The answer from a node of its own, which takes no time for it."""
        async with serve_fake(replace(self.settings, rate=0)) as node:
            return await send(node.url, ask(PROMPT, True))

    async def drain(self, number: int = 0, **order: Any) -> None:
        assert (await admin(self.gateway, "/admin/drain", node=self.nodes[number].url, **order)).status_code == 200

    async def answers(self) -> Sequence[Seen]:
        answers = await asyncio.gather(*self.asked)
        await nothing_held(self.gateway, *self.nodes)
        return answers

    @property
    def causes(self) -> list[str]:
        """Why answers were resumed, of those that have ended."""
        return sorted(note.cause for record in self.records for note in record.resumes)


@asynccontextmanager
async def fleet(settings: FakeSettings = LONG, count: int = 2, **config: Any) -> AsyncIterator[Fleet]:
    """Nodes that answer the same in turn."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(serve_fake(settings)) for _ in range(count)]
        urls = [node.url for node in nodes]
        config = {"routing": {"policy": "round_robin"}, "budgets": {"canary": True}, **config}
        gateway = await stack.enter_async_context(limited_gateway(*urls, **config))
        made = Fleet(settings, nodes, gateway)
        pipeline = gateway.app.pipeline
        pipeline._observers = (made.records.append, *pipeline._observers)
        await eventually(lambda: all(node.capabilities.marker_shown is not None for node in made.known))
        yield made


@dataclass(frozen=True, slots=True)
class Said:
    """What a client has of a stream."""

    ids: frozenset[str]
    reasoning: str
    content: str
    ends: tuple[str, ...]


def said(seen: Seen) -> Said:
    ids, reasoning, content, ends = set(), "", "", []
    for line in seen.body.decode().splitlines():
        if line.startswith("data: {"):
            chunk = json.loads(line[6:])
            ids.add(chunk["id"])
            for choice in chunk["choices"]:
                reasoning += choice["delta"].get("reasoning") or choice["delta"].get("reasoning_content") or ""
                content += choice["delta"].get("content") or ""
                ends += [choice["finish_reason"]] if choice["finish_reason"] else []
    return Said(frozenset(ids), reasoning, content, tuple(ends))


def all_whole(answers: Sequence[Seen], unbroken: Seen) -> None:
    """Each client has one unbroken stream."""
    assert lost(answers) == []
    wanted = said(unbroken)
    for answer in map(said, answers):
        assert (answer.reasoning, answer.content, answer.ends) == (wanted.reasoning, wanted.content, wanted.ends)
        assert len(answer.ids) == 1


async def test_streams_move_before_the_deadline_and_nothing_is_lost() -> None:
    async with fleet() as made:
        await made.ask(8)
        await made.drain(deadline=6)
        (end,) = [node.drain.until for node in made.known if node.drain is not None]
        await eventually(lambda: made.running[0] == 0)
        assert asyncio.get_running_loop().time() < end
        all_whole(await made.answers(), await made.unbroken())
        assert set(made.causes) == {"drained"}
        assert made.gateway.app.relay.resumes._budgets == {}, "the budget is for what breaks by itself"


async def test_the_command_moves_at_once_and_returns_when_the_node_is_empty() -> None:
    async with fleet(LONGER) as made:
        await made.ask(24)
        status, told = await fleetgate("drain", made.nodes[0].url, "--now", "--admin", made.gateway.admin_url)
        assert status == 0 and "has no running requests: it can be stopped" in told
        assert made.running[0] == 0
        made.nodes[0].crash()
        all_whole(await made.answers(), await made.unbroken())
        assert set(made.causes) == {"drained"}


@pytest.mark.parametrize("stream", [True, False])
async def test_what_moves_at_once_moves_one_by_one(stream: bool) -> None:
    """Streams go on; plain requests, of which the client has nothing, are asked anew."""
    async with fleet() as made:
        await made.ask(24, stream)
        seen: set[int] = set()
        watching = asyncio.create_task(watch(made.known[0], seen))
        await made.drain(deadline=0)
        await watching
        assert len(seen) > 6, "many at once would hold up the other node"
        assert lost(await made.answers()) == []


async def watch(node: Node, seen: set[int]) -> None:
    """Note the requests that `node` has in flight, until it has none."""
    while node.in_flight:
        seen.add(node.in_flight)
        await asyncio.sleep(0.005)


async def test_the_command_takes_one_deadline() -> None:
    status, told = await fleetgate("drain", "node", "--now", "--deadline", "3")
    assert status == 2 and "one of --now and --deadline" in told


async def test_what_cannot_move_stays_until_the_deadline_and_is_ended_then() -> None:
    async with fleet() as made:
        await made.ask(2, **FIXED)
        await made.ask(2)
        await made.drain(deadline=5)
        await eventually(lambda: made.running == [1, 3])
        await asyncio.sleep(0.6)
        assert made.running == [1, 3], "its time is not up"
        await made.drain(deadline=0)
        await eventually(lambda: made.running[0] == 0)
        answers = await made.answers()
        assert lost(answers) == [(200, "node_drained")]


async def test_without_resume_streams_stay_until_the_deadline() -> None:
    async with fleet(SHORT, resume={"enabled": False}) as made:
        await made.ask(2)
        await made.drain(deadline=60)
        await asyncio.sleep(0.6)
        assert made.running == [1, 1]
        await made.drain(deadline=0)
        assert lost(await made.answers()) == [(200, "node_drained")]


async def test_a_drain_without_a_deadline_moves_nothing() -> None:
    async with fleet(SHORT) as made:
        await made.ask(4)
        await made.drain()
        await asyncio.sleep(0.6)
        assert made.running == [2, 2]
        all_whole(await made.answers(), await made.unbroken())
        assert made.causes == []


async def test_a_drain_that_is_taken_back_moves_nothing_more() -> None:
    async with fleet() as made:
        await made.ask(8)
        node = made.known[0]
        await made.drain(deadline=5)
        await eventually(lambda: node.in_flight < 4)
        await admin(made.gateway, "/admin/undrain", node=node.name)
        moved = 4 - node.in_flight
        await asyncio.sleep(1.5)
        all_whole(await made.answers(), await made.unbroken())
        assert made.causes == ["drained"] * moved


async def test_nothing_moves_while_no_other_node_has_a_place() -> None:
    async with fleet() as made:
        await made.ask(4)
        other = made.known[1]
        other.share(replace(other.spec, max_concurrency=2), 1)
        await made.drain(deadline=5)
        await asyncio.sleep(0.6)
        assert made.running == [2, 2], "it would wait for a place, and may end by itself here"
        other.share(replace(other.spec, max_concurrency=3), 1)
        await eventually(lambda: other.places == 3 and made.running == [1, 3])
        all_whole(await made.answers(), await made.unbroken())
        assert set(made.causes) == {"drained"}


async def test_a_node_whose_registration_tells_a_deadline_is_left_in_time() -> None:
    """A spot notice: the record has the second at which its machine is taken."""
    async with fleet() as made:
        await made.ask(4)
        now = asyncio.get_running_loop().time()
        made.known[0].drain_for(REGISTERED, Drain(now, now + 5.5), now)
        await eventually(lambda: made.running == [0, 4])
        assert made.known[0].drain is not None
        assert asyncio.get_running_loop().time() < made.known[0].drain.until
        all_whole(await made.answers(), await made.unbroken())


async def test_a_node_that_leaves_the_fleet_in_the_middle_of_a_drain_is_left_in_time() -> None:
    async with fleet() as made:
        await made.ask(4)
        await made.drain(deadline=5)
        await eventually(lambda: made.running[0] == 1)
        gone = made.known[0]
        made.gateway.app._update_fleet([made.known[1].spec])
        await eventually(lambda: made.running == [0, 4])
        assert gone.left and gone.drain is not None
        all_whole(await made.answers(), await made.unbroken())


@pytest.mark.parametrize("deadline", [pytest.param(0, marks=pytest.mark.prove), 4])
async def test_a_rolling_restart_of_all_nodes_breaks_no_long_thought(deadline: float) -> None:
    async with fleet(LONGER, count=3) as made:
        await made.ask(12)
        for number, node in enumerate(made.nodes):
            await made.drain(number, deadline=deadline)
            await drained_empty(made, number)
            node.crash()
            await node.restart()
            await undrained(made.gateway.admin_url, node.url)
        all_whole(await made.answers(), await made.unbroken())
        assert len(made.causes) >= 4 and set(made.causes) == {"drained"}


async def drained_empty(made: Fleet, number: int) -> None:
    """Wait as `fleetgate drain` does."""
    name = made.known[number].name
    async with httpx.AsyncClient(timeout=10) as client, asyncio.timeout(60):
        while not (await client.get(f"{made.gateway.admin_url}/admin/drain/{name}")).json()["empty"]:
            await asyncio.sleep(0.1)
