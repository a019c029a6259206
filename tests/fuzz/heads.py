"""Request lines and headers, mutated byte by byte, each over a connection of its own: answered or closed, never 500.

How requests are told apart in a stream of bytes is proven elsewhere (tests/api); here it is looked for what breaks.
"""

import asyncio
import contextlib
import json
import random
import re

from tests.fuzz.modes import KEY
from tests.fuzz.trial import PATIENCE, Trial
from tests.support.nodes import MODEL
from tests.support.raw import RawClient, raw_client

CLIENTS = 64

QUIET = 0.3
"""Seconds after which a client that has no answer says that nothing more will come."""

_BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}).encode()
_PATHS = (
    *("/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions", "/tokenize", "/v1/models"),
    *(
        "/v1/responses/resp_" + "0" * 48,
        "/v1/responses/resp_1/cancel",
        "/health",
        "/ready?model=x",
        "/",
        "*",
        "//",
        "/%00",
    ),
    *(
        "http://else.example/v1/chat/completions",
        "/v1/chat/completions?a=b#c",
        "/v1/models/%ff",
        "/v1/models/" + "é" * 9,
    ),
    *("/v1/responses/resp_1?stream=true&starting_after=x", "/%2e%2e/v1/models", "/v1/chat/completions/", "x:y", "@:/"),
)
_METHODS = (
    "POST",
    "POST",
    "POST",
    "POST",
    "GET",
    "HEAD",
    "OPTIONS",
    "PUT",
    "DELETE",
    "PATCH",
    "CONNECT",
    "PRI",
    "post",
)
_LINES = (
    *("accept: */*", "connection: keep-alive", "connection: close", "connection: upgrade", "expect: 100-continue"),
    *("upgrade: h2c", "upgrade: websocket", "transfer-encoding: chunked", "transfer-encoding: gzip", "te: trailers"),
    *("content-length: 0", "content-length: 5", "content-length: +5", "content-length: 0x5", "content-length: -1"),
    *("content-length: " + "9" * 4300, "content-length: 18446744073709551616", "content-type: text/plain"),
    *("authorization: Bearer", "authorization: Basic eDp5", "authorization: ", "x-api-key: " + KEY, "x-api-key: \xff"),
    *("x-request-timeout: 1e400", "x-request-timeout: nan", "x-request-timeout: \u0663", "x-request-timeout: 0.5"),
    *("x-request-id: " + "r" * 200, "x-request-id: \t", "x-session-id: " + "s" * 3000, "x-session-id: "),
    *("content-encoding: gzip", "content-encoding: deflate", "content-encoding: zstd", "content-encoding: , identity"),
    *("forwarded: for=::ffff:1.2.3.4", "x-forwarded-for: ::ffff:1.2.3.4%eth0", "x-real-ip: \xff"),
    *("origin: https://a.example", "origin: null", "access-control-request-method: POST", "origin: \xff\xfe"),
    *(
        "x-forwarded-for: 1.2.3.4, 5.6.7.8",
        "x-forwarded-for: [::1]:80",
        "x-forwarded-for: \xff",
        "x-forwarded-proto: x",
    ),
    *(
        "traceparent: \x80",
        "anthropic-version: 2023-06-01",
        "anthropic-beta: \xe9",
        "host: other",
        "host: ",
        "cookie: a=b",
    ),
    *(
        "x-long: " + "v" * 5000,
        "n" * 300 + ": v",
        "no colon",
        ": no name",
        "sp ace: v",
        "tab\t: v",
        "a: b\r\n c",
        "\0: v",
    ),
)
_BYTES = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b":",
    b"\r\n\r\n",
    b"\xff",
    b"%",
    b"HTTP/1.1",
    b"\x1b",
    b";",
    b"\t",
    b"0\r\n\r\n",
)


def draw(rng: random.Random) -> bytes:
    """The bytes of one request: a likely head, some odd lines, and up to five mutations of its bytes."""
    version = rng.choice(("HTTP/1.1",) * 40 + ("HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.10", "http/1.1"))
    likely = rng.random() < 0.5
    method, path = ("POST", rng.choice(_PATHS[:5])) if likely else (rng.choice(_METHODS), rng.choice(_PATHS))
    lines = [f"{method} {path} {version}", "host: gateway", f"authorization: Bearer {KEY}"]
    lines += rng.sample(_LINES, rng.choice((0, 0, 0, 1, 1, 2)))
    body = b"" if rng.random() < 0.2 else _BODY
    if body and rng.random() < 0.8:
        lines.append(f"content-length: {len(body)}")
    rng.shuffle(rest := lines[1:])
    raw = bytearray(
        "\r\n".join((lines[0], *rest, "", "")).encode("utf-8" if rng.random() < 0.5 else "latin-1", "replace")
    )
    for _ in range(rng.choice((0, 0, 0, 1, 1, 3))):
        _mutate(rng, raw)
    return bytes(raw) + body


def _mutate(rng: random.Random, raw: bytearray) -> None:
    at = rng.randrange(len(raw)) if raw else 0
    match rng.randrange(6):
        case 0:
            raw[at : at + 1] = bytes([rng.randrange(256)])
        case 1:
            del raw[at : at + rng.randrange(1, 30)]
        case 2:
            raw[at:at] = rng.choice(_BYTES)
        case 3:
            raw[at:at] = raw[at : at + rng.randrange(1, 60)]
        case 4:
            raw[at:at] = rng.randbytes(rng.randrange(1, 20))
        case _:
            raw[at:at] = rng.choice(_LINES).encode("utf-8") + b"\r\n"


async def fuzz_heads(trial: Trial, numbers: range) -> None:
    """Send the heads with these numbers."""
    await asyncio.gather(*(_client(trial, numbers[first::CLIENTS]) for first in range(CLIENTS)))


async def _client(trial: Trial, numbers: range) -> None:
    for number in numbers:
        rng = random.Random(f"{trial.seed} {number}")
        raw = draw(rng)
        cut = rng.randrange(len(raw)) if raw and rng.random() < 0.3 else None
        async with raw_client(trial.gateway.port, PATIENCE) as client:
            try:
                _judge(trial, number, raw, await _exchange(client, raw, cut))
            except TimeoutError:
                trial.blame("heads", number, raw, f"neither answered nor closed in {PATIENCE:g} s")
            except OSError:
                trial.done["reset"] += 1
        trial.node.got.clear()
        trial.look("heads", number, raw)


async def _exchange(client: RawClient, raw: bytes, cut: int | None) -> bytes:
    """What is answered to `raw`, sent in one piece or two, and then to the end of what the client sends."""
    if cut is not None:
        await client.send(raw[:cut])
        await asyncio.sleep(0)
    await client.send(raw[cut or 0 :])
    told = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(QUIET):
            told = await client.reader.read(65_536)
    if not client.reader.at_eof():
        client.writer.write_eof()
    return told + await client.rest()


def _judge(trial: Trial, number: int, raw: bytes, told: bytes) -> None:
    statuses = re.findall(rb"(?:^|\r\n|})HTTP/1\.1 (\d\d\d) ", told)
    trial.done.update(status.decode() for status in statuses or [b"closed"])
    if told and not told.startswith(b"HTTP/1.1 "):
        trial.blame("heads", number, raw, f"no HTTP: {told[:300]!r}")
    # Of /ready, for a model that nobody serves; HEAD tells the status alone.
    unready = b"no node is ready" in told or raw[:4].upper() == b"HEAD"
    if b"internal_error" in told or any(int(status) >= 500 and not unready for status in statuses):
        trial.blame("heads", number, raw, f"answered {told[:600]!r}")
