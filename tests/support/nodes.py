"""A node whose every byte a test decides: for what no well-behaved server would do."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

MODEL = "nemotron-3-ultra"


@dataclass(slots=True)
class Asked:
    """One request as the node got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Reply = Callable[["ScriptedNode", Asked, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class ScriptedNode:
    """Answers probes like a healthy vLLM and everything else by `reply`. Counts what its clients did."""

    reply: Reply
    reads_bodies: bool = True
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    hung_up: int = 0
    """Connections that the gateway closed while a reply was under way."""
    stop: Callable[[], Awaitable[None]] = field(default=lambda: asyncio.sleep(0))
    """Stops listening and cuts what is open, as a killed process would."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (request := await _read(reader, self.reads_bodies)) is not None:
                if (told := self.probed(request)) is not None:
                    writer.write(told)
                else:
                    self.asked.append(request)
                    await self.reply(self, request, reader, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            with contextlib.suppress(ConnectionError):
                writer.close()

    def probed(self, request: Asked) -> bytes | None:
        """The answer to what the gateway asks on its own account; None where it asks for a client."""
        return _probe_answer(request.path) if _is_probe(request) else None

    async def until_hung_up(self, reader: asyncio.StreamReader) -> None:
        """Wait until the gateway closes the connection of this request."""
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
        self.hung_up += 1


Node = TypeVar("Node", bound=ScriptedNode)


@contextlib.asynccontextmanager
async def scripted_node(reply: Reply, reads_bodies: bool = True) -> AsyncIterator[ScriptedNode]:
    """A listening node; its open connections are cut at the end."""
    async with listening(ScriptedNode(reply, reads_bodies)) as node:
        yield node


@contextlib.asynccontextmanager
async def listening(node: Node) -> AsyncIterator[Node]:
    """`node` with a port of its own; its open connections are cut at the end."""
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(node.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def stop() -> None:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    node.stop = stop
    try:
        yield node
    finally:
        await stop()


def answer(body: bytes, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """A whole answer with a content-length."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def event(text: str) -> bytes:
    """One chat chunk with `text`."""
    body = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


async def _read(reader: asyncio.StreamReader, with_body: bool) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0"))) if with_body else b""
    return Asked(method, path, headers, body)


def _is_probe(request: Asked) -> bool:
    """Whether the gateway asks on its own account; of tokens it does so to prove a node's budgets."""
    if request.path == "/tokenize":
        return b"add_special_tokens" in request.body
    return request.path in ("/health", "/v1/models", "/metrics", "/version")


def _probe_answer(path: str) -> bytes:
    if path == "/health":
        return answer(b"")
    if path in ("/metrics", "/version", "/tokenize"):
        return answer(b"", "404 Not Found")
    card = {"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": 4096}
    return answer(json.dumps({"object": "list", "data": [card]}).encode())
