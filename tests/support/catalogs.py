"""A scripted node that serves the models a test names, which may change while it runs."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.nodes import Asked, Reply, ScriptedNode, answer


@dataclass(slots=True)
class CatalogNode(ScriptedNode):
    """Lists `models` under /v1/models; unhealthy while `healthy` is False."""

    models: list[str] = field(default_factory=list)
    healthy: bool = True


@contextlib.asynccontextmanager
async def catalog_node(reply: Reply, *models: str) -> AsyncIterator[CatalogNode]:
    """A listening node; its open connections are cut at the end."""
    node = CatalogNode(reply, models=list(models))
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked = await _read(reader)
                if asked.path == "/health":
                    writer.write(answer(b"", "200 OK" if node.healthy else "503 Service Unavailable"))
                elif asked.path == "/metrics":
                    writer.write(answer(b"", "404 Not Found"))
                elif asked.path == "/v1/models":
                    writer.write(answer(_listing(node.models)))
                else:
                    node.asked.append(asked)
                    await node.reply(node, asked, reader, writer)
                await writer.drain()
        writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield node
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _listing(models: list[str]) -> bytes:
    cards = [{"id": name, "object": "model", "max_model_len": 4096, "root": f"/models/{name}"} for name in models]
    return json.dumps({"object": "list", "data": cards}).encode()


async def _read(reader: asyncio.StreamReader) -> Asked:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
