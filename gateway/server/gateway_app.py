"""Two listeners, one server: what uvicorn runs in each process."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gateway.app import Gateway

FIRST_ROUND_SECONDS = 2.0
"""How long a process waits for its nodes' first answers before it listens: what comes earlier would be refused."""


class GatewayApp:
    """The ASGI application of a server with two listeners: which one a request came in by decides what it sees."""

    def __init__(
        self,
        gateway: Gateway,
        admin_port: int,
        on_start: Callable[[asyncio.AbstractEventLoop, Gateway], None] | None = None,
    ) -> None:
        """`on_start(loop, gateway)` is called when the gateway runs, before its listeners are open."""
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
        except BaseException:  # failed, or cancelled: what runs by now would go on
            await self._gateway.stop()
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        with suppress(asyncio.CancelledError):
            await self._gateway.stop()
        await send({"type": "lifespan.shutdown.complete"})
