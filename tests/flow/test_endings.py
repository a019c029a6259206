"""A request that was broken off is told as what it was, to its client and the same in ledger, log and metrics.

A table: where it stands when it is broken off, and by whom (its client leaves, or the server ends what is left at its
shutdown's deadline, by cancelling it as uvicorn does).
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.support.crowd import CHAT, ask
from tests.support.faults import Network, broken_network, limited_gateway, nothing_held
from tests.support.gateways import RunningGateway, eventually
from tests.support.raw import RawClient, head, raw_client
from tests.support.redis import RedisServer, redis_server
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

RECORDS = "fg1:{usage}:records"


@dataclass(slots=True)
class Stage:
    gateway: RunningGateway
    fake: FakeNode
    network: Network
    redis: RedisServer
    client: RawClient

    def cancel(self) -> None:
        """What uvicorn does at its deadline."""
        for story in tuple(self.gateway.server.server_state.tasks):
            story.cancel(msg="Task cancelled, timeout graceful shutdown exceeded")

    async def endings(self, log: str) -> tuple[list[str], list[str], list[str]]:
        """What ledger, log and metrics were told of all requests."""
        ledger = self.gateway.app.ledger
        assert ledger is not None
        await eventually(lambda: self.gateway.app.redis is not None and self.gateway.app.redis.up)
        assert await ledger.flush()
        records = [json.loads(fields[b"record"])["ending"] for _, fields in self.redis.do("XRANGE", RECORDS, "-", "+")]
        logged = re.findall(r'"event":"request".*"ending":"(\w+)"', log)
        page = self.gateway.app.metrics.page().decode()
        counted = re.findall(r'fleetgate_requests_total{.*ending="(\w+)".*} 1\.0', page)
        return records, logged, counted


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    async with redis_server() as redis, serve_fake(FakeSettings()) as fake, broken_network(fake.port) as network:
        settings = {**redis.settings, "timeout": 5.0}
        async with limited_gateway(network.url, redis=settings) as gateway, raw_client(gateway.port, 30) as client:
            yield Stage(gateway, fake, network, redis, client)


Place = Callable[[Stage], Awaitable[None]]


async def _send(there: Stage, stream: bool) -> None:
    await there.client.post(CHAT, ask("[[answer=60]] go", stream=stream))


async def in_its_body(there: Stage) -> None:
    await there.client.send(head("POST", CHAT, "content-length: 1000") + b"{")
    await eventually(lambda: len(there.gateway.server.server_state.tasks) == 1)


async def waiting_for_redis(there: Stage) -> None:
    there.redis.freeze()
    await _send(there, True)
    link = there.gateway.app.redis
    assert link is not None
    await eventually(lambda: "reserve" in [call.name for call in link._connections.in_flight()])


async def connecting(there: Stage) -> None:
    await there.network.partition()
    await _send(there, False)
    await eventually(lambda: there.gateway.app.fleet.nodes[0].in_flight == 1)


async def in_a_plain_answer(there: Stage) -> None:
    there.fake.set_faults(Fault("stall", after=12, path=CHAT))
    await _send(there, False)
    await eventually(lambda: there.gateway.app.relay.open_exchanges == 1)


async def in_a_stream(there: Stage) -> None:
    there.fake.set_faults(Fault("stall", after=12, path=CHAT))
    await _send(there, True)
    assert (await there.client.answer_head())[0] == 200


PLACES = (in_its_body, waiting_for_redis, connecting, in_a_plain_answer, in_a_stream)


async def heal(there: Stage) -> None:
    there.redis.thaw()
    await there.network.heal()


@pytest.mark.parametrize("place", PLACES)
async def test_what_the_servers_deadline_cancels_is_shut_down(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    async with stage() as there:
        await place(there)
        there.cancel()
        if place is in_a_stream:
            said = b"".join([piece async for piece in there.client._chunks()])
        else:
            got = await there.client.answer()
            assert got.status == 503
            said = got.body
        assert b'"shutting_down"' in said
        await heal(there)
        await nothing_held(there.gateway, there.fake)
        there.gateway.app._request_log.flush()
        assert await there.endings(capsys.readouterr().err) == (["shutting_down"],) * 3


@pytest.mark.parametrize("place", PLACES)
async def test_who_left_is_told_as_gone(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    async with stage() as there:
        await place(there)
        there.client.writer.transport.abort()
        await eventually(lambda: not there.gateway.server.server_state.connections)
        if place is connecting:
            await there.network.heal()
            there.gateway.app.relay.close_all()  # nor does a shutdown that comes next make it another end
        await heal(there)
        await nothing_held(there.gateway, there.fake)
        there.gateway.app._request_log.flush()
        assert await there.endings(capsys.readouterr().err) == (["client_gone"],) * 3


@pytest.mark.parametrize("end", ["no node", "no connection"])
async def test_what_fails_after_its_client_left_is_told_as_gone(end: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody was refused, and nobody saw a failure; nothing is charged for what no node was asked."""
    async with stage() as there:
        await (waiting_for_redis if end == "no node" else connecting)(there)
        there.client.writer.transport.abort()
        await eventually(lambda: not there.gateway.server.server_state.connections)
        if end == "no node":
            there.gateway.app.fleet.update(())
        else:
            there.network.refuse()
        await heal(there)
        await nothing_held(there.gateway, there.fake)
        there.gateway.app._request_log.flush()
        log = capsys.readouterr().err
        assert await there.endings(log) == (["client_gone"],) * 3
        assert '"input_tokens":null' in log
