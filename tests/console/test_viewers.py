"""Places of consoles come back: of those that stop reading, and of those that leave before they have begun."""

import asyncio
from asyncio import StreamWriter
from typing import Any

import httpx

from tests.console.chromium import TOKEN
from tests.console.operators import operator, watching
from tests.support.gateways import RunningGateway, eventually, running_gateway

ADMIN: dict[str, Any] = {"admin": {"token": TOKEN, "hosts": []}}
ALL = 16


async def half_open(gateway: RunningGateway, client: httpx.AsyncClient) -> StreamWriter:
    """A console that is asked for, and of which nothing is read."""
    (cookie,) = client.cookies.jar
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.admin_port, limit=1)
    head = f"GET /console/live HTTP/1.1\r\nhost: 127.0.0.1:{gateway.admin_port}\r\ncookie: {cookie.name}={cookie.value}"
    writer.write(f"{head}\r\n\r\n".encode())
    return writer


async def test_one_that_stops_reading_gives_its_place_back() -> None:
    async with running_gateway(ready=False, **ADMIN) as gateway, operator(gateway.admin_url) as client:
        viewers = gateway.app.console_feed.viewers
        writers = [await half_open(gateway, client) for _ in range(ALL)]
        await eventually(lambda: len(viewers) == ALL)
        assert (await client.get("/console/live")).status_code == 503
        event = b"data: " + b"x" * 2_000_000 + b"\n\n"
        while not all(viewer.dropped for viewer in viewers):
            for viewer in viewers:
                viewer.send(event)
            await asyncio.sleep(0.01)
        await eventually(lambda: not len(viewers))
        async with watching(client) as seen:
            await eventually(lambda: seen.events > 0)
        for writer in writers:
            writer.transport.abort()


async def test_one_that_leaves_before_it_has_begun_keeps_no_place() -> None:
    async with running_gateway(ready=False, **ADMIN) as gateway, operator(gateway.admin_url) as client:
        viewers = gateway.app.console_feed.viewers
        for _ in range(2 * ALL):
            writer = await half_open(gateway, client)
            writer.transport.abort()
        async with watching(client) as seen:
            await eventually(lambda: seen.events > 0)
            await eventually(lambda: len(viewers) == 1)
        await eventually(lambda: not len(viewers))


async def test_one_that_asks_for_the_head_alone_keeps_no_place() -> None:
    """The stream would go on for ever; the connection serves the next request at once."""
    async with running_gateway(ready=False, **ADMIN) as gateway, operator(gateway.admin_url) as client:
        viewers = gateway.app.console_feed.viewers
        for _ in range(2 * ALL):
            got = await client.head("/console/live")
            assert (got.status_code, got.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            assert (await client.head("/console/static/app.js")).headers["content-length"] != "0"
        await eventually(lambda: not len(viewers))
        async with watching(client) as seen:
            await eventually(lambda: seen.events > 0)
