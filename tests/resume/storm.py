"""A gateway process before fake nodes in processes that are harmed all the time, while clients ask and ask again.

    python -m tests.resume.storm [--harm kill stop tear turns faults none] [--streams 200] [--seconds 60]

Each client compares what it got with the answer of a node that is asked directly. What is counted:

| column | |
|---|---|
| harmed | times that a node was killed, stopped, or given faults |
| answers | of all clients |
| resumed | resumes, as the gateway counts them |
| pause | from the break to the next token, on average |
| broken | answers without a proper end |
| lost, doubled | tokens that are missing in answers, and that are too many |
| usage | answers whose `usage` has other counts |
| form | answers that do not have one role event, one finish, one usage, one end and one head, in their order |
| plain refused | plain requests that ended with an error that says so: a plain answer is asked for again once |
"""

import argparse
import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import httptools
import httpx

from tests.resume.storm_harm import HARMS, StormNode
from tests.resume.storm_requests import Said, StormRequest, storm_request, unbroken
from tests.resume.storm_verdict import StormResult, judge_any
from tests.support.gateway_process import GatewayProcess, gateway_process
from workers.fake import serve_fake

PATIENCE = 300.0
"""Seconds that a client waits for its answer: longer than `timeouts.idle`, after which half of a plain answer is given
up."""


@dataclass(frozen=True, slots=True)
class Storm:
    """`every`: seconds between two harms. `rate`: tokens per second of each stream. `length`: of the answers, 1 is
    about 160 tokens. `variables`: of the gateway's environment."""

    harm: str
    streams: int = 200
    seconds: float = 60.0
    every: float = 2.0
    nodes: int = 4
    rate: float = 25.0
    length: float = 1.0
    variables: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Answer:
    """An answer as it comes; httptools calls it."""

    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    status: int = 0

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.ended = True


async def ask(url: str, asked: StormRequest) -> tuple[int, bytes, bool]:
    """Status (0: none), body, and whether the body came to its end."""
    target = urlsplit(url)
    data = json.dumps(asked.body).encode()
    head = f"POST {asked.path} HTTP/1.1\r\nhost: {target.netloc}\r\ncontent-type: application/json\r\n"
    answer = _Answer()
    parser: Any = httptools.HttpResponseParser(answer)
    with contextlib.suppress(OSError, TimeoutError, httptools.HttpParserError):
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(target.hostname, target.port)
            try:
                writer.write(f"{head}connection: close\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
                while not answer.ended and (piece := await reader.read(65536)):
                    parser.feed_data(piece)
                    answer.status = parser.get_status_code()
            finally:
                writer.close()
    return answer.status, bytes(answer.body), answer.ended


async def _clients(url: str, storm: Storm) -> list[tuple[StormRequest, tuple[int, bytes, bool]]]:
    """All answers of all clients: each asks again until the storm is over."""
    loop, numbers = asyncio.get_running_loop(), count()
    end = loop.time() + storm.seconds
    answers: list[tuple[StormRequest, tuple[int, bytes, bool]]] = []

    async def client(place: int) -> None:
        await asyncio.sleep(place / storm.streams)  # not all in the same step
        while loop.time() < end:
            asked = storm_request(next(numbers), storm.length)
            answers.append((asked, await ask(url, asked)))

    await asyncio.gather(*map(client, range(storm.streams)))
    return answers


@contextlib.asynccontextmanager
async def _fleet(storm: Storm) -> AsyncIterator[tuple[GatewayProcess, list[StormNode]]]:
    async with contextlib.AsyncExitStack() as stack:
        nodes = [StormNode(storm.rate) for _ in range(storm.nodes)]
        for node in nodes:
            stack.push_async_callback(node.close)
        await asyncio.gather(*(node.start() for node in nodes))
        arguments = [part for node in nodes for part in ("--node", node.url)]
        gateway = await stack.enter_async_context(gateway_process(*arguments, **storm.variables))
        yield gateway, nodes


async def play(storm: Storm) -> StormResult:
    """One storm; what the clients got beside what they should have got."""
    async with _fleet(storm) as (gateway, nodes):
        harming = asyncio.create_task(HARMS[storm.harm](nodes, storm.every))
        try:
            answers = await _clients(gateway.url, storm)
            assert not harming.done() or harming.exception() is None, harming.exception()
        finally:
            harming.cancel()
            await asyncio.gather(harming, return_exceptions=True)
        resumed, pause = await _resumed(gateway)
        harmed = sum(node.harmed for node in nodes)
    expected = await _expected([asked for asked, _ in answers])
    verdicts = [(asked, judge_any(asked, *got, said)) for (asked, got), said in zip(answers, expected, strict=True)]
    return StormResult(storm.harm, harmed, resumed, pause, verdicts)


async def _expected(asked: list[StormRequest]) -> list[list[Said]]:
    async with serve_fake() as fake, httpx.AsyncClient(base_url=fake.url, timeout=60) as client:
        return [await unbroken(client, one) for one in asked]


async def _resumed(gateway: GatewayProcess) -> tuple[int, float]:
    """How many answers were resumed, and the seconds that it took on average."""
    async with httpx.AsyncClient(timeout=30) as client:
        shown = (await client.get(f"{gateway.admin_url}/metrics")).text

    def total(name: str) -> float:
        return sum(map(float, re.findall(rf"^{name} ([0-9.e+-]+)$", shown, re.MULTILINE)))

    pauses = [total(rf"fleetgate_resume_pause_seconds_{part}\{{.*\}}") for part in ("sum", "count")]
    return int(total(r'fleetgate_resumes_total\{.*outcome="resumed".*\}')), pauses[0] / max(pauses[1], 1)


def table(*results: StormResult) -> str:
    """A line for each storm."""
    rule = "|" + "---|" * (StormResult.HEAD.count("|") + 1)
    return "\n".join([f"| {StormResult.HEAD} |", rule, *(result.row() for result in results)])


def report(result: StormResult) -> str:
    """The table, and below it what was wrong."""
    return "\n".join([table(result), *(f"  {n} x {fault}" for fault, n in result.faults().most_common(12))])


def main() -> None:
    """Play the storms that are named, one after the other, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harm", nargs="+", choices=[*HARMS], default=[*HARMS])
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=2.0)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--rate", type=float, default=25.0)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="the gateway's environment")
    given = parser.parse_args()
    variables: dict[str, Any] = dict(one.split("=", 1) for one in given.set)
    results = []
    for harm in given.harm:
        nodes = 2 if harm == "turns" else given.nodes
        storm = Storm(harm, given.streams, given.seconds, given.every, nodes, given.rate, 1.0, variables)
        results.append(asyncio.run(play(storm)))
        print(report(results[-1]), flush=True)
    if len(results) > 1:
        print(table(*results))


if __name__ == "__main__":
    main()
