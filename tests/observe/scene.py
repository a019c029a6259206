"""Everything that can go wrong, at once: gateways, fake nodes and Redis, each alert's cause made for real where a
machine without GPUs has it.

    gateway    what is wrong there
    main       a dead node, a model that nobody serves, full places, tenants at their limits, streams that die, a full
               KV cache, slow first tokens, prompts that are never the same again; traces to a collector
    broken     a node that fails, without retries and resumes; its canary gets no answer
    alone      sees no node of a model that `main` serves
    cut off    its Redis is killed
    refused    its Redis user may run no scripts
    process    `fleetgate serve`: nobody reads its log, its file has a mistake, it has no file descriptor left
    watched    `fleetgate serve` with its log in a file
    stand-ins  GPUs (fleetgate-worker's own page of made-up readings), DCGM's and a node exporter's pages
"""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateway.access.new_keys import make_key
from gateway.core.access.api_keys import key_digest
from tests.flow.test_open_files import shortage
from tests.support.gateway_process import FLEETGATE, gateway_process
from tests.support.gateways import RunningGateway, running_gateway
from tests.support.nodes import answer
from tests.support.redis import RedisServer, redis_server
from tests.telemetry.collector import collector
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake
from workers.gpus.metrics import serve_metrics
from workers.gpus.reading import GpuReading
from workers.gpus.watch import Watched

MODEL = "nemotron-3-ultra"
DEAD = "http://127.0.0.1:1"
KEYS = {name: make_key()[0] for name in ("acme", "small")}
PAGES = {
    "/dcgm": "".join(
        f'{name}{{Hostname="dgx",gpu="{gpu}"}} {value}\n'
        for name, values in {
            "DCGM_FI_DEV_GPU_UTIL": (95, 40),
            "DCGM_FI_PROF_SM_ACTIVE": (0.9, 0.3),
            "DCGM_FI_PROF_DRAM_ACTIVE": (0.7, 0.2),
            "DCGM_FI_PROF_NVLINK_TX_BYTES": (1e9, 2e9),
        }.items()
        for gpu, value in enumerate(values)
    ),
    "/node": "".join(
        f'node_filesystem_{name}_bytes{{mountpoint="/var/log",log_disk="fleetgate"}} {value}\n'
        for name, value in (("avail", 4), ("size", 100))
    ),
}
GPUS = [
    Watched(GpuReading(0, "H200", 0.9, 5, 10, 600, 700, 60, 1, 0), 0.9, ((79, 1),), 79),
    Watched(GpuReading(1, "H200", 0.2, 5, 10, 300, 700, 50, 0, 0), 0.2, (), None),
    Watched(GpuReading(2, "H200", lost=True), None, (), None),
]


@dataclass(slots=True)
class Scene:
    """`jobs`: what Prometheus is to scrape. `go_wrong` makes the causes that have to come later."""

    jobs: dict[str, list[str]]
    redis: RedisServer
    process_pid: int
    file: Path
    nodes: list[FakeNode]
    stack: contextlib.AsyncExitStack
    fallen: asyncio.Event = field(default_factory=asyncio.Event)

    async def go_wrong(self) -> None:
        """Kill a Redis, break a file, take file descriptors away; prompts are new ones from now on."""
        self.fallen.set()
        self.redis.kill()
        self.file.write_text("nodes: [{url: nonsense}]\n")
        os.kill(self.process_pid, signal.SIGHUP)
        await self.stack.enter_async_context(shortage(self.process_pid))


def place(url: str) -> str:
    return url.partition("//")[2]


@contextlib.asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    """All of it, with clients that go on until the end."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.push_async_callback(asyncio.sleep, 0)
        redis, doomed, strict = [await enter(redis_server()) for _ in range(3)]
        strict.do("ACL", "SETUSER", "gateway", "on", ">secret", "~*", "&*", "+@all", "-evalsha", "-eval", "-script")
        spans = await enter(collector())
        quick = FakeSettings(rate=300, prefill_rate=2000, max_num_seqs=2, capacity=4)
        one, two = [await enter(serve_fake(quick)) for _ in range(2)]
        broken = await enter(serve_fake(FakeSettings(rate=300, prefill_rate=2000)))
        broken.set_faults(Fault("die", after=5))
        wordless = await enter(serve_fake(FakeSettings(rate=300, prefill_rate=2000)))
        wordless.set_faults(Fault("reset", after=-1))
        fine = await enter(serve_fake(FakeSettings(rate=300, prefill_rate=2000)))
        limits = {"requests_per_minute": 100_000, "concurrent_requests": 500}
        tenants = [
            {"name": "acme", "keys": [{"sha256": key_digest(KEYS["acme"]).hex()}], "limits": limits},
            {
                "name": "small",
                "keys": [{"sha256": key_digest(KEYS["small"]).hex()}],
                "limits": {"requests_per_minute": 5},
            },
        ]
        prices = {"input": 1.0, "output": 4.0}
        main = await enter(
            running_gateway(
                nodes=[*({"url": each.url, "max_concurrency": 2} for each in (one, two)), {"url": DEAD}],
                models=[{"name": MODEL, "price": prices}, {"name": "ghost"}],
                redis=redis.settings,
                tenants=tenants,
                budgets={"canary": True},
                pressure={"enabled": True},
                resume={"rate": 100, "max_resumes": 100},
                telemetry={"traces": {"endpoint": spans.url, "ratio": 1}},
            )
        )
        cut_off = await enter(running_gateway(fine.url, redis=doomed.settings, tenants=tenants))
        user = {**strict.settings, "url": strict.url.replace("//", "//gateway:secret@")}
        refused = await enter(running_gateway(fine.url, redis=user, tenants=tenants))
        bare = await enter(
            running_gateway(
                *(broken.url, wordless.url),
                budgets={"canary": True},
                retries={"share": 0, "minimum": 0},
                resume={"max_resumes": 0},
            )
        )
        alone = await enter(running_gateway(DEAD, ready=False, models=[{"name": MODEL}]))
        file = folder / "fleetgate.yaml"
        file.write_text(f"nodes: [{{url: '{fine.url}'}}]\n")
        process = await enter(gateway_process("-c", file))
        admin_url = process.admin_url
        process.stop_reading()
        watched = await enter(_watched(folder, fine))
        end = serve_metrics("127.0.0.1", port := _free_port(), lambda: GPUS)
        stack.callback(end)
        pages = await enter(_pages())
        gateways = [each.admin_url for each in (main, cut_off, refused, bare, alone)] + [admin_url, watched]
        jobs = {
            "gateway": [place(each) for each in gateways],
            "node": [place(each.url) for each in (one, two)],
            "gpu": [f"127.0.0.1:{port}"],
            "dcgm": [f"{pages}/dcgm"],
            "exporter": [f"{pages}/node"],
        }
        made = Scene(jobs, doomed, process.process.pid, file, [one, two], stack)
        clients = [
            *(_client(main, "acme", made, number) for number in range(12)),
            *(_client(each, "small", made, 1) for each in (main, cut_off, refused)),
            *(_client(each, "acme", made, 1) for each in (cut_off, refused)),
            *(_client(bare, None, made, number) for number in range(3)),
            _knocks(process.url),
            _dying(made),
        ]
        tasks = [asyncio.create_task(each) for each in clients]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _client(gateway: RunningGateway, tenant: str | None, scene: Scene, number: int) -> None:
    """Asks again and again, every kind of request; the prompts of before are known, those after `fallen` never."""
    headers = {} if tenant is None else {"authorization": f"Bearer {KEYS[tenant]}"}
    words = f"{tenant} {number} " + "shared words of the system " * 8
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=60, trust_env=False) as client:
        for turn in itertools.count():
            if scene.fallen.is_set():
                words = "".join(random.choices("abcdefghij ", k=200))
            body: dict[str, Any] = {
                "model": MODEL,
                "messages": [{"role": "user", "content": f"{words} [[think=12]] [[answer=12]]"}],
                "stream": turn % 4 != 3,
                "thinking_token_budget": 64,
            }
            with contextlib.suppress(httpx.HTTPError):
                await client.post("/v1/chat/completions", json=body)
            await asyncio.sleep(0.05)


async def _knocks(url: str) -> None:
    """New connections to the process that has no file left for them."""
    while True:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(timeout=1, trust_env=False) as client:
                await client.post(f"{url}/v1/chat/completions", json={"model": MODEL, "messages": []})
        await asyncio.sleep(0.2)


async def _dying(scene: Scene) -> None:
    """Some streams of the main gateway break off."""
    while True:
        await asyncio.sleep(0.5)
        for node in scene.nodes:
            node.set_faults(Fault("die", after=10, next=1))


@contextlib.asynccontextmanager
async def _watched(folder: Path, node: FakeNode) -> AsyncIterator[str]:
    """A gateway whose log is a file; its admin listener's URL."""
    path = folder / "log"
    port, admin = _free_port(), _free_port()
    with path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(FLEETGATE), "serve", "--node", node.url, "--port", str(port), "--admin-port", str(admin)),
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{admin}"
    finally:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def _pages() -> AsyncIterator[str]:
    """Serves `PAGES`; the place of the server."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode().removesuffix("/metrics")
                writer.write(answer(PAGES[path].encode(), content_type="text/plain; version=0.0.4"))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
