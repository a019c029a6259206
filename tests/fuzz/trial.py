"""One gateway of one mode under fuzz, and what it was found to do wrong."""

import asyncio
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.node import FuzzNode, fuzz_node
from tests.fuzz.watch import Watch, leaks
from tests.support.gateways import RunningGateway, running_gateway

CORPUS = Path("fuzz-corpus")
"""Where failing inputs are kept, one file each."""

PATIENCE = 20.0
"""Seconds that an answer may take: every node answers at once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A failing input: draw it again with `Random(f"{seed} {number}")`."""

    what: str
    fault: str
    mode: str
    seed: int
    number: int
    sent: bytes

    def keep(self) -> Path:
        CORPUS.mkdir(exist_ok=True)
        file = CORPUS / f"{self.what}-{hashlib.sha256(self.sent).hexdigest()[:12]}.json"
        told = {name: getattr(self, name) for name in ("what", "fault", "mode", "seed", "number")}
        file.write_text(json.dumps({**told, "sent": self.sent.decode("latin-1")}, indent=1))
        return file


@dataclass(slots=True)
class Trial:
    """`done` counts inputs by what became of them."""

    mode: str
    seed: int
    node: FuzzNode
    gateway: RunningGateway
    watch: Watch
    done: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def blame(self, what: str, number: int, sent: bytes, fault: str) -> None:
        self.findings.append(Finding(what, fault, self.mode, self.seed, number, sent))

    def look(self, what: str, number: int, sent: bytes) -> None:
        """Blame an input for what has been logged or complained of since the last look."""
        for fault in (*self.watch.new(), *self.node.complaints):
            self.blame(what, number, sent, fault)
        self.node.complaints.clear()


@contextlib.asynccontextmanager
async def trial(mode: str, settings: dict[str, Any], seed: int) -> AsyncIterator[Trial]:
    """A node and a gateway before it; at the end it is looked for what they hold."""
    watch = Watch()
    with watch.watching():
        async with fuzz_node() as node, running_gateway(node.url, **settings) as gateway:
            running = Trial(mode, seed, node, gateway, watch)
            yield running
            await asyncio.sleep(0)
            for leak in await leaks(gateway):
                running.blame("leak", 0, b"", leak)
        running.look("end", 0, b"")
