"""A proxy before a bad and a good node, and a client that knows what it should get."""

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import httpx

from loadtest import proxies
from loadtest.answers import MODEL
from loadtest.processes import HOST, Child, free_port, wait_until_answers
from loadtest.said import read_plain, read_stream

PATIENCE = 20.0
START_SECONDS = 60.0
CHAT = "/v1/chat/completions"
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
WORKER = Path(proxies.FLEETGATE.program).with_name("fleetgate-worker")


class FakeNode:
    """A node in a process, at a port that it keeps over restarts."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._flags = flags
        self.control = ""
        self.start()

    def start(self) -> None:
        log = self._folder / f"node-{self.port}.log"
        self.child = Child([str(WORKER), "fake", "--port", str(self.port), *self._flags], log)
        wait_until_answers(self.child, self.port, HEALTH, START_SECONDS)
        self.control = json.loads(log.read_text().splitlines()[0])["control"]

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        self.child.stop()

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.child.pid, signal.SIGKILL)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def set_fault(self, **fault: Any) -> None:
        """Exactly this fault from now on; none at all heals the node."""
        body = json.dumps({"faults": [fault] if fault else []}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.control}/fake/control", body), timeout=5).close()

    def count(self, name: str) -> int:
        with urllib.request.urlopen(f"{self.control}/fake/stats", timeout=5) as answer:
            found: int = json.load(answer)[name]
        return found


class Got(Enum):
    """What a client got."""

    WHOLE = "whole"
    WRONG = "wrong"
    NOTHING = "lost"


@dataclass(frozen=True, slots=True)
class Stage:
    """One proxy in front of a bad and a good node; `admin` is the gateway's, empty for rivals. `reference`: a node that
    the proxy does not know."""

    url: str
    admin: str
    bad: FakeNode
    good: FakeNode
    reference: FakeNode

    async def ask(self, text: str, stream: bool) -> Got:
        """What the client gets, beside what the reference says."""
        plain: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
        body = {**plain, "stream": True, "stream_options": {"include_usage": True}} if stream else plain
        try:
            async with asyncio.timeout(PATIENCE), httpx.AsyncClient(timeout=None) as client:
                got = await client.post(self.url + CHAT, json=body)
        except (httpx.HTTPError, TimeoutError):
            return Got.NOTHING
        said = None
        if got.status_code == 200:
            said = read_stream(got.content) if stream else read_plain(got.content)
        if said is None:
            return Got.NOTHING
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            expected = read_plain((await client.post(self.reference.url + CHAT, json=plain)).content)
        return Got.WHOLE if said.equals(expected) else Got.WRONG

    def asking(self, count: int, stream: bool, text: str = "request") -> "asyncio.Future[list[Got]]":
        return asyncio.gather(*(self.ask(f"{text} {number}", stream) for number in range(count)))


def tell(got: Sequence[Got]) -> str:
    """How many were lost or wrong."""
    wrong = f", {got.count(Got.WRONG)} wrong" if Got.WRONG in got else ""
    return f"{got.count(Got.NOTHING)} of {len(got)} lost{wrong}"
