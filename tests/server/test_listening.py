"""What a start that goes no further has taken is given back: ports, connections, tasks."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.app import build_app
from gateway.config.tree import Config
from gateway.server.gateway_app import GatewayApp
from gateway.server.process import ListenError, listen, serve
from tests.support.faults import broken_network
from tests.support.gateways import QUICK, eventually
from tests.support.redis import redis_server
from workers.fake import serve_fake


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def open_files() -> set[str]:
    return {place.name for place in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
def test_a_second_listener_that_cannot_be_had_gives_the_first_one_back(host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        admin = {"host": host, "port": taken.getsockname()[1], "token": "t" * 40}
        settings: dict[str, Any] = {"listen": {"host": "127.0.0.1", "port": 0}, "admin": admin}
        config = Config(**settings)
        before = open_files()
        with pytest.raises(ListenError, match="cannot listen on"):
            serve(config, None, {})
        assert open_files() == before


@pytest.mark.parametrize("shared", [False, True])
def test_an_address_that_is_none_is_told_and_leaves_no_socket(shared: bool) -> None:
    before = open_files()
    for host in ("256.1.1.1", "two..dots"):
        with pytest.raises(ListenError, match=f"cannot listen on {host}:0: "):
            listen(host, 0, shared)
    assert open_files() == before


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_a_start_that_is_given_up_leaves_nothing_running(end: str) -> None:
    async with redis_server() as redis, serve_fake() as node, broken_network(node.port) as network:
        network.hold()  # the first round of probes waits
        settings: dict[str, Any] = {"redis": redis.settings, "limits": {"default": {"concurrent_requests": 9}}}
        app = build_app(Config(**{**QUICK, "nodes": [{"url": network.url}], **settings}))
        tasks, files = asyncio.all_tasks(), open_files()

        def fail(*_: object) -> None:
            raise RuntimeError("it cannot be begun")

        began = asyncio.Event()

        async def receive() -> dict[str, str]:
            began.set()
            return {"type": "lifespan.startup"}

        async def send(message: dict[str, str]) -> None:
            raise AssertionError(message)

        scope = {"type": "lifespan", "state": {}}
        starting = asyncio.create_task(GatewayApp(app, 1, fail)(scope, receive, send))
        await eventually(lambda: app.redis is not None and app.prober._probes)
        if end == "cancelled":
            starting.cancel()
        else:
            await network.heal()
        with pytest.raises(asyncio.CancelledError if end == "cancelled" else RuntimeError):
            await starting
        await network.stop()
        await eventually(lambda: asyncio.all_tasks() <= tasks)
        await eventually(lambda: open_files() <= files)
