"""Everything is restarted under load, one after the other, and no client loses a request.

Clients behave as behind a load balancer: whoever cannot connect to one gateway goes to the next. Nothing that was
sent is sent again.
"""

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.support.crowd import CHAT, Seen, ask, lost
from tests.support.fake_process import FakeProcess, fake_process
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateway_process import GatewayProcess, gateway_process
from tests.support.gateways import eventually
from tests.support.raw import raw_client
from workers.fake import FakeSettings, serve_fake

FEW, MANY = 3, 8


@dataclass(slots=True)
class Load:
    """Clients that ask one request after the other, of the gateways on `ports`, until `stop`. Whoever is refused goes
    to the next one, if `again`."""

    ports: list[int]
    clients: int
    again: bool = True
    seen: list[Seen] = field(default_factory=list)
    _stopped: bool = False
    _count: "itertools.count[int]" = field(default_factory=itertools.count)

    async def run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))

    def stop(self) -> None:
        self._stopped = True

    async def more(self, count: int = 20) -> None:
        """Wait until so many further requests have been answered."""
        wanted = len(self.seen) + count
        await eventually(lambda: len(self.seen) >= wanted, 60)

    async def _client(self, number: int) -> None:
        while not self._stopped:
            count = next(self._count)
            self.seen.append(await self._ask(ask(f"load {count}", stream=count % 2 == 0), number + count))

    async def _ask(self, body: dict[str, object], turn: int) -> Seen:
        ports = self.ports[turn % len(self.ports) :] + self.ports[: turn % len(self.ports)]
        for port in ports:
            try:
                async with raw_client(port, 60) as client:
                    await client.post(CHAT, body, "connection: close")
                    got = await client.answer()
            except ConnectionRefusedError:
                if self.again:
                    continue
                return Seen(0, False, b"refused", httpx.Headers())
            except (ConnectionError, asyncio.IncompleteReadError, TimeoutError) as error:
                return Seen(0, False, repr(error).encode(), httpx.Headers())
            whole = got.status == 200 and (not body["stream"] or got.body.endswith(b"data: [DONE]\n\n"))
            return Seen(got.status, whole, got.body, httpx.Headers(got.headers))
        return Seen(0, False, b"no gateway", httpx.Headers())


@contextlib.asynccontextmanager
async def under_load(clients: int, *ports: int, again: bool = True) -> AsyncIterator[Load]:
    load = Load(list(ports), clients, again)
    running = asyncio.create_task(load.run())
    try:
        await load.more()
        yield load
        await load.more()
    finally:
        load.stop()
        await running


async def drained(admin_url: str, node: str) -> None:
    """As `fleetgate drain` does: take the node out of work, and wait until it is empty."""
    async with httpx.AsyncClient(timeout=10) as client:
        name = (await client.post(f"{admin_url}/admin/drain", json={"node": node})).json()["node"]
        async with asyncio.timeout(60):
            while not (await client.get(f"{admin_url}/admin/drain/{name}")).json()["empty"]:
                await asyncio.sleep(0.1)


async def undrained(admin_url: str, node: str) -> None:
    async with httpx.AsyncClient(timeout=10) as client:
        name = (await client.post(f"{admin_url}/admin/undrain", json={"node": node})).json()["node"]
        async with asyncio.timeout(60):
            while not any(
                each["name"] == name and each["ready"] for each in (await client.get(f"{admin_url}/admin/nodes")).json()
            ):
                await asyncio.sleep(0.1)


async def test_nodes_are_restarted_one_after_the_other_and_nobody_notices() -> None:
    paced = FakeSettings(rate=100, thinking_tokens=4, answer_tokens=8)
    async with serve_fake(paced) as a, serve_fake(paced) as b, limited_gateway(a.url, b.url) as gateway:
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        async with under_load(FEW, gateway.port) as load:
            for node in (a, b):
                await drained(gateway.admin_url, node.url)
                assert node.running == 0
                node.crash()
                await load.more()
                await node.restart()
                await undrained(gateway.admin_url, node.url)
                await load.more()
        assert lost(load.seen) == []
        await nothing_held(gateway, a, b)


async def test_a_gateway_is_replaced_by_another_and_nobody_notices() -> None:
    paced = FakeSettings(rate=100, thinking_tokens=4, answer_tokens=8)
    async with serve_fake(paced) as node, contextlib.AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(gateway_process("--node", node.url)) for _ in range(2)]
        async with under_load(FEW, *(gateway.port for gateway in gateways)) as load:
            load.ports.append((await stack.enter_async_context(gateway_process("--node", node.url))).port)
            gateways[0].signal(signal.SIGTERM)
            assert await gateways[0].ended() == 0
            await load.more()
        assert lost(load.seen) == []
        await eventually(lambda: node.running == 0)


async def test_a_gateway_leaves_a_load_balancer_that_sends_nothing_twice() -> None:
    """It looks at `/ready` now and then, and believes it until it looks again."""
    paced = FakeSettings(rate=100, thinking_tokens=4, answer_tokens=8)
    async with serve_fake(paced) as node, contextlib.AsyncExitStack() as stack:
        command = ("--node", node.url)
        leaving, staying = [
            await stack.enter_async_context(gateway_process(*command, FLEETGATE_TIMEOUTS__SHUTDOWN_DELAY="2"))
            for _ in range(2)
        ]
        async with under_load(FEW, leaving.port, staying.port, again=False) as load:
            looking = asyncio.create_task(look_around(load, leaving, staying))
            leaving.signal(signal.SIGTERM)
            await eventually(lambda: load.ports == [staying.port])
            assert await leaving.ended() == 0
            await load.more()
            looking.cancel()
        assert lost(load.seen) == []


async def look_around(load: Load, *gateways: GatewayProcess) -> None:
    """Have the load go to those that say that they are ready."""
    async with httpx.AsyncClient(timeout=5) as client:
        while True:
            ready = []
            for gateway in gateways:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{gateway.url}/ready")).status_code == 200:
                        ready.append(gateway.port)
            load.ports = ready
            await asyncio.sleep(0.1)


@pytest.mark.prove
@pytest.mark.timeout(900)
async def test_the_whole_fleet_is_restarted_under_load() -> None:
    """Three nodes and two gateways of two processes each, all of them processes, 8 clients, half of them streaming."""
    flags = ("--rate", "50", "--thinking-tokens", "20", "--answer-tokens", "40")
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[FakeProcess] = [await stack.enter_async_context(fake_process(*flags)) for _ in range(3)]
        urls = [argument for node in nodes for argument in ("--node", node.url)]

        async def another() -> GatewayProcess:
            return await stack.enter_async_context(gateway_process(*urls, "--workers", "2"))

        gateways = [await another(), await another()]
        async with under_load(MANY, *(gateway.port for gateway in gateways)) as load:
            for node in nodes:
                for gateway in gateways:  # they share no Redis: each is told
                    await drained(gateway.admin_url, node.url)
                await node.kill()
                await load.more(40)
                await stack.enter_async_context(fake_process(*flags, port=node.port))
                for gateway in gateways:
                    await undrained(gateway.admin_url, node.url)
                await load.more(40)
            for old in gateways:
                load.ports.append((await another()).port)
                old.signal(signal.SIGTERM)
                assert await old.ended(60) == 0
                await load.more(40)
        assert lost(load.seen) == []
        assert len(load.seen) > 300
