"""One fake process carries 1,000 streams at 20 events/s, on time."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.contract.client import CHAT

pytestmark = pytest.mark.prove

STREAMS, RATE, SECONDS = 1000, 20, 6
START = "from workers.cli import main; main()"


class Reader(asyncio.Protocol):
    """Asks for one stream and keeps what comes."""

    def __init__(self, done: asyncio.Semaphore) -> None:
        self.data = bytearray()
        self._done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        ask = {"messages": [{"role": "user", "content": f"{id(self)}"}], "stream": True, "ignore_eos": True}
        body = json.dumps({**ask, "max_tokens": RATE * SECONDS}).encode()
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        transport.write(head.encode() + body)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.data.endswith(b"0\r\n\r\n"):
            self._done.release()


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a paced fake process."""
    command = [sys.executable, "-c", START, "fake", "--rate", str(RATE), "--max-num-seqs", str(STREAMS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(json.loads(process.stdout.readline())["port"])
        process.terminate()


async def test_a_thousand_streams_on_one_process(port: int) -> None:
    done = asyncio.Semaphore(0)
    loop, readers, transports = asyncio.get_running_loop(), [], []
    started = time.monotonic()
    for _ in range(STREAMS):
        transport, reader = await loop.create_connection(lambda: Reader(done), "127.0.0.1", port)
        readers.append(reader)
        transports.append(transport)
    for _ in range(STREAMS):
        await done.acquire()
    took = time.monotonic() - started
    for transport in transports:
        transport.close()
    # A role chunk and [DONE] more than tokens, and nothing for the silent end of thinking.
    assert {r.data.count(b"data: ") for r in readers} == {RATE * SECONDS + 1}
    assert took < SECONDS + 3
