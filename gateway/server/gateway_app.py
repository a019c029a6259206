"""The ASGI application that uvicorn runs in each process: one server with two listeners."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gateway.app import Gateway

FIRST_ROUND_SECONDS = 2.0
"""Seconds for which a process waits for the first probes before it listens: earlier requests would be refused."""


class GatewayApp:
    """Serves requests of the admin port by the admin application, all others by the public one."""

    def __init__(
        self,
        gateway: Gateway,
        admin_port: int,
        on_start: Callable[[asyncio.AbstractEventLoop, Gateway], None] | None = None,
    ) -> None:
        """`on_start(loop, gateway)` is called once the gateway has started, before its listeners are open."""
        self._gateway = gateway
        self._on_start = on_start
        self._admin_port = admin_port

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["server"][1] == self._admin_port:
            await self._gateway.admin(scope, receive, send)
        else:
            await self._gateway.public(scope, receive, send)

    async def _lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["state"]["listener_settings"] = self._gateway.listener_settings(self._admin_port)
        try:
            await self._gateway.start()
            await self._gateway.prober.first_round(FIRST_ROUND_SECONDS)
            if self._on_start is not None:
                self._on_start(asyncio.get_running_loop(), self._gateway)
        except BaseException:  # also where it is cancelled: background work has begun
            await self._gateway.stop()
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        with suppress(asyncio.CancelledError):
            await self._gateway.stop()
        await send({"type": "lifespan.shutdown.complete"})
