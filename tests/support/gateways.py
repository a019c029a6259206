"""A gateway in this process: the production `build_app` behind uvicorn and its own protocol, on free ports."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from gateway.app import Gateway, build_app
from gateway.config.tree import Config
from gateway.config.watch import ConfigWatch
from gateway.server.gateway_app import GatewayApp
from gateway.server.process import listen, uvicorn_settings

QUICK: dict[str, Any] = {"health": {"interval": 0.05, "timeout": 2.0}, "budgets": {"canary": False}}
"""Settings that keep a test short: a node is found within 50 ms, and asked nothing that the test did not ask."""

POLL_SECONDS = 0.005

PATIENT: dict[str, Any] = {"headers": 60}
"""Of `timeouts`: a machine that stands still for ten seconds may not cost a test the connection it has just opened."""

ANY_HOST: dict[str, Any] = {"hosts": ["*"]}
"""For a listener's section: tests write requests by hand, to whatever name (tests/api/test_browsers.py does not)."""


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """Where it listens, and the thing itself."""

    url: str
    admin_url: str
    port: int
    app: Gateway
    server: uvicorn.Server

    @property
    def admin_port(self) -> int:
        return int(self.admin_url.rpartition(":")[2])


class QuietServer(uvicorn.Server):
    """Leaves the test runner's signal handlers alone, and polls every 5 ms where uvicorn sleeps for 100 ms.

    The order of a shutdown is uvicorn's. `tests/flow/test_server_process.py` tests uvicorn's own loop in processes.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            await asyncio.sleep(POLL_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(POLL_SECONDS)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@contextlib.asynccontextmanager
async def running_gateway(
    *nodes: str, ready: bool = True, watch: ConfigWatch | None = None, host: str = "127.0.0.1", **settings: Any
) -> AsyncIterator[RunningGateway]:
    """Serve with `nodes` (URLs) and further settings as in a config file; waits until a node is ready. `host` is where
    the public listener is bound."""
    merged = {**QUICK, "nodes": [{"url": url} for url in nodes], **settings}
    merged |= {name: {**ANY_HOST, **merged.get(name, {})} for name in ("listen", "admin")}
    merged["timeouts"] = {**PATIENT, **merged.get("timeouts", {})}
    app = build_app(Config(**merged), watch)
    public, admin = listen(host, 0), listen("127.0.0.1", 0)
    port, admin_port = public.getsockname()[1], admin.getsockname()[1]
    uvicorn_config = uvicorn_settings(app.config, GatewayApp(app, admin_port))
    uvicorn_config.timeout_graceful_shutdown = 1
    server = QuietServer(uvicorn_config)
    serving = asyncio.create_task(server.serve([public, admin]))
    try:
        await eventually(lambda: server.started)
        if ready:
            await eventually(app.fleet.serves)
        yield RunningGateway(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}", port, app, server)
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 60)


async def eventually(condition: Any, seconds: float = 60.0) -> None:
    """Wait until `condition()` holds; fails when it does not within `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(POLL_SECONDS)
