"""The gateway's own requests to nodes. Answers are bounded in bytes and in seconds.

Every failure is an `httpx.HTTPError` or a TimeoutError.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, NamedTuple

import httpx

from gateway.core.json_text import parse_object
from gateway.fleet.node import Node

MAX_ANSWER = 1 << 22
"""Bytes of one answer: a page of metrics of a node with many adapters is a few hundred kilobytes."""


class NodeReply(NamedTuple):
    status: int
    body: bytes

    def json(self) -> dict[str, Any]:
        """The JSON object of the body, empty where it is none."""
        return parse_object(self.body)


def client_of(node: Node) -> httpx.AsyncClient:
    """A client for `node` that decompresses nothing, follows no redirect and keeps no cookies."""
    headers = {"accept-encoding": "identity"}
    if node.spec.api_key:
        headers["authorization"] = f"Bearer {node.spec.api_key}"
    ca_file = node.spec.ca_file
    verify = _public_authorities() if ca_file is None else ssl.create_default_context(cafile=ca_file)
    return httpx.AsyncClient(
        base_url=node.spec.url,
        headers=headers,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        verify=verify,
        timeout=None,
        trust_env=False,
    )


@cache
def _public_authorities() -> ssl.SSLContext:
    """Read once: by default each client reads them, and the event loop stands still for 20 ms for each node."""
    return httpx.create_ssl_context(trust_env=False)


async def get(client: httpx.AsyncClient, path: str) -> NodeReply:
    """The caller bounds the time."""
    async with client.stream("GET", path) as response:
        return await _whole(response)


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any], seconds: float | None = None) -> NodeReply:
    """In at most `seconds`, from the first byte sent to the last one read; None where the caller bounds the time."""
    async with asyncio.timeout(seconds), client.stream("POST", path, json=body) as response:
        return await _whole(response)


async def pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes."""
    coding = response.headers.get("content-encoding", "identity").lower()
    if coding not in ("", "identity"):
        raise httpx.DecodingError("its answer is compressed, although no compression was requested")
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > MAX_ANSWER:
            raise httpx.RemoteProtocolError(f"its answer to {response.url.path} has more than {MAX_ANSWER} bytes")
        yield piece


async def _whole(response: httpx.Response) -> NodeReply:
    return NodeReply(response.status_code, b"".join([piece async for piece in pieces(response)]))
