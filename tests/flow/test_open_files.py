"""A gateway whose machine gives it no more files: that is its own fault, and no node's."""

import asyncio
import contextlib
import itertools
import json
import resource
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.api.open_files import connections_within, files_for
from tests.support.catalogs import CatalogNode, catalog_node
from tests.support.gateway_process import STARTED_SECONDS, GatewayProcess, gateway_process
from tests.support.gateways import eventually
from tests.support.nodes import Asked, ScriptedNode, answer, listening
from tests.support.raw import RawClient, raw_client

pytestmark = pytest.mark.asyncio(loop_scope="module")

A, B, C = "model-a", "model-b", "model-c"
CHAT = "/v1/chat/completions"
SETTINGS: dict[str, Any] = {"FLEETGATE_BUDGETS__CANARY": "false"}


async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    await asyncio.sleep(0.2)  # so that requests at once need connections of their own
    writer.write(answer(b"{}"))


def with_limit(soft: int, hard: int) -> tuple[str, ...]:
    return ("sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "sh")


def limit_of(pid: int) -> tuple[int, int]:
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)


def files_of(pid: int) -> set[int]:
    return {int(file.name) for file in Path(f"/proc/{pid}/fd").iterdir()}


@contextlib.asynccontextmanager
async def shortage(pid: int) -> AsyncIterator[None]:
    """Gives `pid` not one file more, until it is over: those that it closes for good are taken away, too."""
    soft, hard = limit_of(pid)

    def take_away() -> None:
        files = files_of(pid)
        first_free = next(number for number in itertools.count() if number not in files)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(first_free, limit_of(pid)[0]), hard))

    async def go_on() -> None:
        while True:
            await asyncio.sleep(0.1)  # a connection for one probe is closed meanwhile
            take_away()

    take_away()
    going_on = asyncio.create_task(go_on())
    try:
        await asyncio.sleep(0.3)
        yield
    finally:
        going_on.cancel()
        await asyncio.gather(going_on, return_exceptions=True)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


async def metric(gateway: GatewayProcess, name: str) -> dict[str, float]:
    """A metric's values by their labels."""
    async with httpx.AsyncClient(trust_env=False) as client:
        page = (await client.get(f"{gateway.admin_url}/metrics")).text
    lines = [line.removeprefix(name).rsplit(" ", 1) for line in page.splitlines() if line.startswith(f"{name}{{")]
    return {labels: float(value) for labels, value in lines if float(value)}


async def ask(client: RawClient, model: str) -> tuple[int, dict[str, str], bytes]:
    await client.post(CHAT, {"model": model, "messages": []})
    got = await client.answer()
    return got.status, got.headers, got.body


async def test_the_soft_limit_is_raised_in_every_process() -> None:
    nobody = ("--node", "http://127.0.0.1:9", "--workers", "2")
    async with gateway_process(*nobody, ready=False, under=with_limit(256, 4096)) as gateway:
        await eventually(lambda: len(gateway.events("max_connections_set")) == 2, 2 * STARTED_SECONDS)
        for pid in (gateway.process.pid, *gateway.workers()):
            assert limit_of(pid) == (4096, 4096)
        for told in gateway.events("max_connections_set"):
            assert told["level"] == "warning" and told["open_files"] == 4096
            assert told["max_connections"] == connections_within(4096) < told["configured"] == 10_000
            assert str(files_for(10_000)) in told["remedy"]


async def test_as_many_clients_are_taken_as_the_limit_has_room_for() -> None:
    """And each of them is served, with a connection to a node of its own; more are told to come back."""
    room = connections_within(160)
    async with catalog_node(plain, A) as node:
        async with gateway_process("--node", node.url, under=with_limit(160, 160), **SETTINGS) as gateway:
            await asyncio.sleep(0.5)  # until the connections that asked whether it is ready are closed
            async with httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits()) as client:
                body = {"model": A, "messages": []}
                asked = [client.post(gateway.url + CHAT, json=body) for _ in range(room)]
                answers = await asyncio.gather(*asked)
                assert {got.status_code for got in answers} == {200}
                async with raw_client(gateway.port) as late:
                    status, headers = await late.answer_head()
                    assert status == 503 and int(headers["retry-after"]) >= 1
            assert await metric(gateway, "fleetgate_node_taken_out_total") == {}


@dataclass(slots=True)
class Closing(CatalogNode):
    """While `closing`, it closes its connection after each answer to a probe, so that each probe has to make one."""

    closing: bool = False

    def probed(self, request: Asked) -> bytes | None:
        told = CatalogNode.probed(self, request)
        return told.replace(b"\r\n", b"\r\nconnection: close\r\n", 1) if told and self.closing else told


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def short() -> AsyncIterator["Short"]:
    """A gateway with three nodes, one of them by a name, whose looking up needs a file as well; and two clients."""
    async with catalog_node(plain, A) as a, catalog_node(plain, B) as b, listening(Closing(plain, models=[C])) as c:
        urls = (a.url, b.url.replace("127.0.0.1", "localhost"), c.url)
        nodes = [word for url in urls for word in ("--node", url)]
        async with gateway_process(*nodes, **SETTINGS) as gateway:
            for model in (A, B, C):
                await gateway.ready(model)
            async with raw_client(gateway.port) as one, raw_client(gateway.port) as other:
                for client in (one, other):  # they are accepted
                    await client.send(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
                    assert (await client.answer()).status == 200
                yield gateway, one, other, c


Short = tuple[GatewayProcess, RawClient, RawClient, Closing]


async def test_a_connection_that_cannot_be_made_is_no_fault_of_the_node(short: Short) -> None:
    gateway, one, other, _ = short
    async with shortage(gateway.process.pid):
        for _ in range(4):
            for model in (A, B):
                status, headers, body = await ask(one, model)
                assert (status, headers["retry-after"]) == (503, "1")
                assert json.loads(body)["error"]["code"] == "out_of_resources"
        await other.post("/v1/messages", {"model": A, "messages": [], "max_tokens": 1})
        got = await other.answer()
        assert (got.status, got.json()["type"]) == (503, "error")
    for model in (A, B):
        assert (await ask(one, model))[0] == 200
    assert await metric(gateway, "fleetgate_node_taken_out_total") == {}
    attempts = await metric(gateway, "fleetgate_attempts_total")
    assert all('outcome="passed"' in labels for labels in attempts), "nothing is tried elsewhere"
    assert (await metric(gateway, "fleetgate_shortages_total"))['{cause="EMFILE"}'] >= 9
    told = [line for line in gateway.events("out_of_resources") if line["where"] == "connecting to a node"]
    assert len(told) == 1 and "ulimit" in told[0]["remedy"]


async def test_idle_connections_make_room_for_one_that_is_needed(short: Short) -> None:
    gateway, one, other, _ = short
    for got in await asyncio.gather(ask(one, A), ask(other, A)):
        assert got[0] == 200
    async with shortage(gateway.process.pid):
        for _ in range(2):
            for model in (B, A):
                assert (await ask(one, model))[0] == 200


async def test_probes_that_cannot_be_made_take_no_node_out(short: Short) -> None:
    gateway, one, _, node = short
    node.closing = True
    async with shortage(gateway.process.pid):
        await eventually(lambda: any(line["where"] == "probing a node" for line in gateway.events("out_of_resources")))
        await asyncio.sleep(0.5)  # some more of them: ten a second
        await one.send(b"GET /ready?model=model-c HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await one.answer()).status == 200
    assert (await ask(one, C))[0] == 200
    assert gateway.events("node_not_ready") == []
    assert await metric(gateway, "fleetgate_node_taken_out_total") == {}
