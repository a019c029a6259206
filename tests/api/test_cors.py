"""What pages of listed origins may read, and from where."""

from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from typing import Any

import pytest

from gateway.api.errors import _HTTP, error_headers
from gateway.api.middleware import SHOWN_HEADERS
from gateway.core.access.api_keys import key_digest
from gateway.core.errors import GatewayError
from tests.support.gateways import running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.raw import head, raw_client

PAGE, KEY = "https://app.example", "fg-a-key"
LIMITS = {"requests_per_minute": 1, "tokens_per_day": 10_000, "tokens_per_minute": 5_000}
TENANT = {"name": "one", "keys": [{"sha256": key_digest(KEY).hex()}], "limits": LIMITS}
ALWAYS_SHOWN = {"cache-control", "content-length", "content-type"}  # by the Fetch standard
OF_THE_CONNECTION = {"date", "connection", "transfer-encoding", "vary"}


async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(b"{}"))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/completions", "/v1/models", "/nowhere"])
async def test_a_page_may_read_every_header_of_every_answer(path: str) -> None:
    """Served, refused for its limits, its key or its method: whatever the gateway tells, a script is shown."""
    settings: dict[str, Any] = {"listen": {"cors_origins": [PAGE]}, "tenants": [TENANT]}
    body = {"model": MODEL, "max_tokens": 2, "messages": [{"role": "user", "content": "x"}], "prompt": "x"}
    seen = set()
    async with scripted_node(plain) as node, running_gateway(node.url, **settings) as gateway:
        for method, key in (("POST", KEY), ("POST", KEY), ("POST", "fg-wrong"), ("GET", KEY), ("DELETE", KEY)):
            async with raw_client(gateway.port) as client:
                if method == "POST":
                    await client.post(path, body, f"origin: {PAGE}", f"x-api-key: {key}")
                else:
                    await client.send(head(method, path, f"origin: {PAGE}", f"x-api-key: {key}"))
                got = await client.answer(method)
            seen.add(got.status)
            assert got.headers["access-control-allow-origin"] == PAGE
            shown = set(got.headers["access-control-expose-headers"].lower().replace(" ", "").split(","))
            told = {name for name in got.headers if not name.startswith("access-control-")}
            assert told <= shown | ALWAYS_SHOWN | OF_THE_CONNECTION
    if path.startswith("/v1/chat") or path == "/v1/messages":
        assert seen == {200, 429, 401, 405}


@pytest.mark.parametrize("kind", [*_HTTP])
def test_no_error_has_a_header_that_pages_may_not_read(kind: type[GatewayError]) -> None:
    error = kind("no", retry_after=1.0, headers={"allow": "POST"})
    assert {name.decode() for name, _ in error_headers(error, b"")} <= {*SHOWN_HEADERS, *ALWAYS_SHOWN}


ORIGIN = f"origin: {PAGE}\r\n".encode()
BEGUN = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\n"
SMALL = b"POST /v1/models HTTP/1.1\r\nhost: x\r\n"
REFUSED: dict[str, tuple[int, bytes]] = {
    "head too large": (431, BEGUN + ORIGIN + b"x-a: " + b"a" * 5000 + b"\r\n\r\n"),
    "head too large, its end not there": (431, BEGUN + ORIGIN + b"x-a: " + b"a" * 5000),
    "head too large, whole, the origin last": (431, BEGUN + b"x-a: " + b"a" * 5000 + b"\r\n" + ORIGIN + b"\r\n"),
    "head late": (408, BEGUN + ORIGIN),
    "head late, in the middle of a line": (408, BEGUN + ORIGIN + b"x-a: a"),
    "head late, the origin first": (408, b"POST / HTTP/1.1\r\n" + ORIGIN + b"x-"),
    "no host": (400, b"POST / HTTP/1.1\r\n" + ORIGIN + b"\r\n"),
    "two lengths": (400, BEGUN + ORIGIN + b"content-length: 1\r\ncontent-length: 1\r\n\r\n"),
    "a coding": (400, BEGUN + ORIGIN + b"transfer-encoding: gzip, chunked\r\n\r\n"),
    "no chunk": (400, BEGUN + ORIGIN + b"transfer-encoding: chunked\r\n\r\nxyz\r\n"),
    "trailers without end": (
        431,
        BEGUN + ORIGIN + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"a: bbbbbbbb\r\n" * 500 + b"\r\n",
    ),
    "a body for a small route": (413, SMALL + ORIGIN + b"content-length: 9999999\r\n\r\n"),
}
SETTINGS: dict[str, Any] = {"requests": {"max_headers": 4096}, "timeouts": {"headers": 0.3}}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("origins", [[PAGE], ["*"], ["https://other.example"]])
async def test_what_the_protocol_refuses_a_page_can_read(name: str, origins: list[str]) -> None:
    """As far as its Origin came. Cut before that, or from a page that is not listed, it is told nothing."""
    status, sent = REFUSED[name]
    async with scripted_node(plain) as node:
        async with running_gateway(node.url, listen={"cors_origins": origins}, **SETTINGS) as gateway:
            for before in (b"", head("GET", "/health")):
                async with raw_client(gateway.port) as client:
                    await client.send(before + sent)
                    if before:
                        assert (await client.answer("GET")).status == 200
                    got = await client.answer()
                    assert got.status == status, got.body
                    told = got.headers.get("access-control-allow-origin")
                    assert told == (None if "other" in origins[0] else origins[0])
                    if told:
                        assert "retry-after" in got.headers["access-control-expose-headers"]


async def test_an_origin_that_did_not_come_whole_is_nobodys() -> None:
    """Neither the one of a line that was cut, nor what would have been put behind it."""
    async with scripted_node(plain) as node:
        listed = [PAGE, f"{PAGE}x:", f"{PAGE}x"]
        async with running_gateway(node.url, listen={"cors_origins": listed}, **SETTINGS) as gateway:
            for cut in (ORIGIN[:-2], ORIGIN[:-1], ORIGIN[:9]):
                async with raw_client(gateway.port) as client:
                    await client.send(BEGUN + cut)
                    got = await client.answer()
                    assert (got.status, got.headers.get("access-control-allow-origin")) == (408, None)


@pytest.mark.parametrize(("origins", "status"), [([PAGE], 200), (["*"], 400), (["https://other.example"], 400)])
async def test_pages_of_listed_origins_may_call_into_a_private_network(origins: list[str], status: int) -> None:
    asks = ("access-control-request-method: POST", "access-control-request-private-network: true")
    async with scripted_node(plain) as node, running_gateway(node.url, listen={"cors_origins": origins}) as gateway:
        async with raw_client(gateway.port) as client:
            await client.send(head("OPTIONS", "/v1/chat/completions", f"origin: {PAGE}", *asks))
            got = await client.answer("OPTIONS")
            if origins == ["*"]:
                assert "access-control-allow-private-network" not in got.headers
            else:
                assert got.status == status
                assert ("access-control-allow-private-network" in got.headers) == (status == 200)
