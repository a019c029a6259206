"""Several requests on one connection, cut anywhere, some sent ahead, some left: each gets its own answer, in order."""

import asyncio
import random

from tests.fuzz import grammar
from tests.fuzz.modes import KEY
from tests.fuzz.trial import PATIENCE, Trial
from tests.fuzz.watch import fault_of
from tests.support.raw import RawClient, head, raw_client

CLIENTS = 8
_GETS = ("/v1/models", "/health", "/nowhere", "/v1/responses/resp_" + "0" * 48, "/v1/chat/completions")


async def fuzz_talks(trial: Trial, numbers: range) -> None:
    """Hold the talks with these numbers."""
    await asyncio.gather(*(_client(trial, numbers[first::CLIENTS]) for first in range(CLIENTS)))


async def _client(trial: Trial, numbers: range) -> None:
    for number in numbers:
        rng = random.Random(f"{trial.seed} {number}")
        requests = [_request(rng, f"talk-{number}-{at}") for at in range(rng.randrange(1, 6))]
        sent = b"".join(raw for _, raw in requests)
        async with raw_client(trial.gateway.port, PATIENCE) as client:
            sending = asyncio.create_task(_send(rng, client, requests))
            try:
                await _listen(trial, client, [path for path, _ in requests], number, sent, rng.random() < 0.2)
            finally:
                sending.cancel()
                await asyncio.wait([sending])
        trial.node.got.clear()
        trial.look("talks", number, sent)


def _request(rng: random.Random, name: str) -> tuple[str, bytes]:
    lines = [f"authorization: Bearer {KEY}" if rng.random() < 0.97 else "authorization: Bearer none"]
    lines.append(f"x-request-id: {name}")
    if rng.random() < 0.2:
        path = rng.choice(_GETS)
        return path, head("GET", path, *lines)
    path, body = grammar.draw(rng)
    if rng.random() < 0.3:
        return path, head("POST", path, "transfer-encoding: chunked", *lines) + _chunked(rng, body)
    if rng.random() < 0.1:
        lines.append("expect: 100-continue")
    return path, head("POST", path, f"content-length: {len(body)}", *lines) + body


def _chunked(rng: random.Random, body: bytes) -> bytes:
    pieces = []
    while body:
        size = rng.choice((1, 7, 100, len(body)))
        piece, body = body[:size], body[size:]
        pieces.append(b"%x%b\r\n%b\r\n" % (len(piece), rng.choice((b"", b"", b";a=b")), piece))
        if len(pieces) == 50:
            pieces, body = [*pieces, b"%x\r\n%b\r\n" % (len(body), body)] if body else pieces, b""
    return b"".join(pieces) + b"0\r\n" + rng.choice((b"", b"x-trailer: 1\r\n")) + b"\r\n"


async def _send(rng: random.Random, client: RawClient, requests: list[tuple[str, bytes]]) -> None:
    """In pieces that end anywhere, often with the beginning of the next request in them."""
    data = b"".join(raw for _, raw in requests)
    while data:
        size = rng.choice((1, 30, 200, 1000, len(data)))
        piece, data = data[:size], data[size:]
        try:
            await client.send(piece)
        except ConnectionError:
            return
        if rng.random() < 0.3:
            await asyncio.sleep(rng.choice((0, 0, 0.001)))
        if len(data) > 20_000:
            rng = random.Random(0)  # long ones go in larger pieces
            await client.send(data[:-1000])
            data = data[-1000:]


async def _listen(trial: Trial, client: RawClient, paths: list[str], number: int, sent: bytes, leaves: bool) -> None:
    for at, path in enumerate(paths):
        if leaves and at == len(paths) - 1:
            trial.done["left"] += 1
            return
        try:
            got = await client.answer()
            while got.status == 100:
                got = await client.answer()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError) as error:
            trial.blame("talks", number, sent, f"request {at} ({path}) has no answer: {type(error).__name__}")
            return
        trial.done[str(got.status)] += 1
        name = got.headers.get("x-request-id")
        if name != f"talk-{number}-{at}" and path != "/health":
            trial.blame("talks", number, sent, f"request {at} ({path}) got the answer of {name}: {got.body[:200]!r}")
        fault = None if path in ("/health", "/v1/models") else fault_of(path, got)
        if fault is not None:
            trial.blame("talks", number, sent, f"{path}: {fault}")
        if got.headers.get("connection") == "close":
            return
