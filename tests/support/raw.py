"""A client whose every byte a test decides, and the answers it gets, taken apart."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection. Every read is given up after `patience` seconds."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float) -> None:
        self.reader = reader
        self.writer = writer
        self._patience = patience

    async def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def post(self, path: str, body: object, *lines: str) -> None:
        """A whole request; `body` is sent as JSON unless it is bytes."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.send(head("POST", path, f"content-length: {len(raw)}", *lines) + raw)

    async def answer(self, method: str = "POST") -> Answer:
        """The next answer, read to its end and no further. Interim answers come as answers of their own."""
        async with asyncio.timeout(self._patience):
            status, headers = await self.answer_head()
            if method == "HEAD" or status in (204, 304) or status < 200:
                body = b""
            elif headers.get("transfer-encoding") == "chunked":
                body = b"".join([piece async for piece in self._chunks()])
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
        return Answer(status, headers, body)

    async def answer_head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(self._patience):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = [line.split(": ", 1) for line in lines]
        names = [name.lower() for name, _ in pairs]
        assert len(names) == len(set(names)), f"a header stands twice: {names}"
        return int(status), {name.lower(): value for name, value in pairs}

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        async with asyncio.timeout(self._patience):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""

    async def closed(self) -> bool:
        """Whether the server closes the connection within the client's patience, saying nothing more."""
        try:
            return await self.rest() == b""
        except TimeoutError:
            return False

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readline(), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)


@contextlib.asynccontextmanager
async def raw_client(port: int, patience: float = 10.0) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield RawClient(reader, writer, patience)
    finally:
        writer.transport.abort()


def head(method: str, path: str, *lines: str, version: str = "1.1") -> bytes:
    """A request's head with a Host and `lines`."""
    return "\r\n".join((f"{method} {path} HTTP/{version}", "host: gateway", *lines, "", "")).encode()


async def blocking_exchange(port: int, pieces: Iterable[bytes], pause: float = 0.0) -> tuple[int, Answer]:
    """What a plain blocking client gets, that writes before it reads: bytes it could send, and its answer.

    asyncio's transports drop what was read already once a write has failed; the system's sockets do not.
    """

    def exchange() -> tuple[int, bytes]:
        sent, got = 0, b""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            with contextlib.suppress(OSError):
                for piece in pieces:
                    sock.sendall(piece)
                    sent += len(piece)
                    time.sleep(pause)
            with contextlib.suppress(ConnectionError):
                while piece := sock.recv(65_536):
                    got += piece
        return sent, got

    sent, got = await asyncio.to_thread(exchange)
    reader = asyncio.StreamReader()
    reader.feed_data(got)
    reader.feed_eof()
    return sent, await RawClient(reader, None, 1.0).answer()  # type: ignore[arg-type]  # it only reads
