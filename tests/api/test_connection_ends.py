"""Whatever way a connection ends: all that was made for it is freed by reference counting, for nobody looks for rings.

A table of where a connection is, and who ends it; with the collector switched off, no object of any is left.
"""

import asyncio
import contextlib
import gc
import json
import socket
import ssl
import struct
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.aio.inline_task import InlineTask
from gateway.api.asgi import AsgiCycle
from gateway.api.body import RequestBody
from gateway.api.client_request import ClientRequest
from gateway.api.flow_control import FlowControl
from gateway.api.protocol import GatewayProtocol
from gateway.api.queued_request import RefusedRequest
from gateway.api.request_parser import RequestParser
from gateway.api.tls import TlsProtocol
from gateway.api.write_stall import WriteStallTimer
from gateway.core.budgets.backstop import Backstop
from gateway.core.upstream.node_held_budget import NodeHeldBudget
from gateway.upstream.exchange import Exchange
from tests.support.certificates import Certificate, self_signed
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL, STREAM_HEAD, Asked, ScriptedNode, answer, chunk, event, scripted_node
from tests.support.raw import head

MADE = {
    each.__name__
    for each in (
        *(GatewayProtocol, RequestParser, FlowControl, WriteStallTimer, TlsProtocol),
        *(ClientRequest, RequestBody, AsgiCycle, RefusedRequest, InlineTask),
        *(Exchange, NodeHeldBudget, Backstop),
    )
}
"""Classes of the objects that are made for a connection and its requests."""

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}


def body(**more: Any) -> bytes:
    return json.dumps({**ASK, **more}).encode()


def post(raw: bytes, *lines: str, length: int | None = None, path: str = CHAT) -> bytes:
    return head("POST", path, f"content-length: {len(raw) if length is None else length}", *lines) + raw


OFFER = ("connection: upgrade", "upgrade: h2c")
SOON = "x-request-timeout: 0.2"
CHUNKED = head("POST", CHAT, "transfer-encoding: chunked") + b"2\r\n{}\r\n"

PHASES: dict[str, bytes] = {
    "before a head": b"",
    "in a head": b"POST /v1/chat",
    "in a body": post(b"{", length=99),
    "in a long body": post(b" " * 200_000, length=999_999),
    "in a chunked body": CHUNKED,
    "in trailers": CHUNKED + b"0\r\nx: y\r\n",
    "in a body behind an offer": post(b"{", *OFFER, length=99),
    "waiting for a node": post(body(id="silent"), SOON),
    "waiting for a stream": post(body(id="silent", stream=True), SOON),
    "in a stream": post(body(id="stream", stream=True), SOON),
    "in a stream with a budget": post(body(id="stream", stream=True, thinking_token_budget=100), SOON),
    "in a plain answer": post(body(id="plain"), SOON),
    "behind another": post(body(id="silent"), SOON) * 3,
    "in a body behind another": post(body(id="silent"), SOON) + post(b"{" * 100_000, length=999_999),
    "with a backlog": post(body(id="silent"), SOON) * 40,
    "refused and lingering": head("PUT", CHAT, "content-length: 99") + b"{",
    "refused for its bytes": b"NO HTTP\r\n\r\n",
    "refused behind another": post(body(id="silent"), SOON) + b"NO HTTP\r\n\r\n",
    "refused in its body": head("POST", CHAT, "transfer-encoding: chunked") + b"no chunk\r\n",
    "in a body for FastAPI": post(b"{", length=99, path="/nope"),
    "in a body for HEAD": head("HEAD", CHAT, "content-length: 99") + b"{",
    "idle, kept": post(b"{"),
}


async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    kind = json.loads(asked.body).get("id")
    if kind == "stream":
        writer.write(STREAM_HEAD + chunk(event("a")))
    elif kind == "plain":
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")
    elif kind == "redirect":
        writer.write(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n")
    elif kind == "failure":
        writer.write(STREAM_HEAD + chunk(b'data: {"error":{"message":"out of memory","code":500}}\n\n'))
    elif kind is None:
        writer.write(answer(b"{}"))
        return
    if "leaves" in asked.headers.get("x-request-id", ""):
        await asyncio.sleep(0.02)
        writer.transport.abort()
        return
    await node.until_hung_up(reader)


def left() -> Counter[str]:
    """Objects of a connection that are still there."""
    return Counter(name for each in gc.get_objects() if (name := type(each).__name__) in MADE)


@contextlib.contextmanager
def uncollected() -> Any:
    gc.collect()
    gc.freeze()  # what was there before is not looked through again and again
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


async def by_fin(reader: Reader, writer: Writer) -> None:
    writer.close()


async def by_reset(reader: Reader, writer: Writer) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:  # None: the gateway has closed it by now
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def by_gateway(reader: Reader, writer: Writer) -> None:
    """The client stays until it is closed, or for as long as the gateway's time-outs take and a little more."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(0.6):
            while await reader.read(65_536):
                pass
    writer.close()


LEAVERS: tuple[Any, ...] = (by_fin, by_reset, by_gateway)


async def one(port: int, sent: bytes, leave: Any, tls: ssl.SSLContext | None) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    with contextlib.suppress(OSError):
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(0.03)
    await leave(reader, writer)
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(certificate: Certificate | None = None, **config: Any) -> AsyncIterator[RunningGateway]:
    listen = {"tls": {"cert": certificate.cert, "key": certificate.key}} if certificate else {}
    bounds = {"body": 0.3, "headers": 0.3}
    async with scripted_node(reply) as node:
        async with running_gateway(node.url, timeouts=bounds, listen=listen, **config) as gateway:
            yield gateway


async def check(port: int, phases: dict[str, bytes], leave: Any, count: int, tls: ssl.SSLContext | None = None) -> None:
    """All `phases` at once, `count` connections of each; where something is left each by itself, to name it."""
    found: dict[str, int] = {}
    with uncollected():
        await asyncio.gather(*(one(port, sent, leave, tls) for sent in phases.values() for _ in range(count)))
        try:
            await eventually(lambda: not left(), seconds=8)
        except TimeoutError:
            found = dict(left())  # now: once it may, the collector frees it
    if found and len(phases) > 1:
        gc.collect()
        for phase, sent in phases.items():
            await check(port, {phase: sent}, leave, count, tls)
    if found:
        pytest.fail(f"of {count} connections {[*phases]} there are left: {found}")


@pytest.mark.parametrize("leave", LEAVERS)
async def test_nothing_is_left_of_a_connection(leave: Any) -> None:
    async with serving() as gateway:
        await check(gateway.port, PHASES, leave, 8)


async def test_nothing_is_left_where_a_node_leaves() -> None:
    leaving = {
        name: sent.replace(b"host: gateway", b"host: gateway\r\nx-request-id: leaves") for name, sent in PHASES.items()
    }
    async with serving() as gateway:
        await check(gateway.port, leaving, by_gateway, 8)


async def test_nothing_is_left_where_a_node_fails() -> None:
    failing = {
        "a redirect": post(body(id="redirect")),
        "a stream that begins with an error": post(body(id="failure", stream=True)),
    }
    async with serving() as gateway:
        await check(gateway.port, failing, by_gateway, 8)


async def test_nothing_is_left_of_a_request_beyond_a_limit() -> None:
    async with serving(limits={"default": {"tokens_per_minute": 10}}) as gateway:
        await check(gateway.port, {"too large": post(body(max_tokens=100))}, by_gateway, 8)


@pytest.mark.parametrize("leave", LEAVERS)
async def test_nothing_is_left_of_a_connection_over_tls(leave: Any, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.create_default_context(cafile=certificate.cert)
    async with serving(certificate) as gateway:
        await check(gateway.port, PHASES, leave, 2, context)


@pytest.mark.parametrize("leave", LEAVERS)
async def test_nothing_is_left_of_a_connection_to_the_admin_listener(leave: Any) -> None:
    async with serving() as gateway:
        await check(gateway.admin_port, PHASES, leave, 8)


@pytest.mark.prove
@pytest.mark.parametrize("phase", PHASES)
async def test_thousands_of_connections_leave_the_memory_as_it_was(phase: str) -> None:
    """2,000 of each phase and leaver: no object is left, and the process does not grow by more than 4 KB for each."""
    async with serving() as gateway:
        for leave in (by_fin, by_reset):
            sizes = []
            for _ in range(21):
                await check(gateway.port, {phase: PHASES[phase]}, leave, 100)
                sizes.append(resident())
            assert sizes[-1] - sizes[0] < 2000 * 4096, f"{phase}, {leave.__name__}: {sizes}"


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
