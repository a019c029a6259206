"""What a web page of a listed origin sees, in a real browser: it reads limits, and the refusals below the endpoints."""

import asyncio
import contextlib
import json
import os
import shutil
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.access.api_keys import key_digest
from tests.support.gateways import running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node

KEY = "fg-a-key"
LIMITS = {"requests_per_minute": 3, "tokens_per_minute": 100_000}
TENANT = {"name": "one", "keys": [{"sha256": key_digest(KEY).hex()}], "limits": LIMITS}
ASK = {"model": MODEL, "max_tokens": 2, "messages": [{"role": "user", "content": "x"}]}
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

PAGE = """<!doctype html><script>
const seen = {};
async function ask(name, more, body) {
  const headers = {"authorization": "Bearer KEY", "content-type": "application/json", ...more};
  try {
    const got = await fetch("URL/v1/chat/completions", {method: "POST", headers, body: body || JSON.stringify(ASK)});
    const told = Object.fromEntries(got.headers.entries());
    seen[name] = {status: got.status, headers: told, said: await got.text()};
  } catch (error) {
    seen[name] = {status: 0, headers: {}, said: String(error)};
  }
}
async function all() {
  const packed = new Blob([JSON.stringify(ASK)]).stream().pipeThrough(new CompressionStream("gzip"));
  const bytes = await new Response(packed).arrayBuffer();
  await ask("served");
  await ask("compressed", {"content-encoding": "gzip"}, bytes);
  await ask("in another coding", {"content-encoding": "zstd"}, bytes);
  await ask("large head", {"x-pad": "a".repeat(9000)});
  await ask("wrong key", {"authorization": "Bearer fg-wrong"});
  await ask("served too", {});
  await ask("limited", {});
  await fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
}
all();
</script>"""


async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}'))


class PageServer:
    """Serves a page, and gets from it what it saw."""

    def __init__(self) -> None:
        self.page = ""
        self.seen: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def connected(self, reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            asked = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if asked.startswith("post /seen "):
                length = int(asked.partition("content-length: ")[2].split()[0])
                self.seen.set_result(json.loads(await reader.readexactly(length)))
            body = self.page.encode() if asked.startswith("get / ") else b""
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n")
            writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def page_server() -> AsyncIterator[tuple[PageServer, str]]:
    pages = PageServer()
    server = await asyncio.start_server(pages.connected, "127.0.0.1", 0)
    try:
        yield pages, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@contextlib.asynccontextmanager
async def browser(folder: Path, url: str) -> AsyncIterator[None]:
    assert BROWSER is not None
    quiet = asyncio.subprocess.DEVNULL
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    environment = {**os.environ, "HOME": str(folder)}
    process = await asyncio.create_subprocess_exec(
        BROWSER, *flags, f"--user-data-dir={folder}", url, stdout=quiet, stderr=quiet, env=environment
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
@pytest.mark.timeout(240)
async def test_a_page_sees_limits_and_refusals(tmp_path: Path) -> None:
    async with scripted_node(plain) as node, page_server() as (pages, origin):
        settings: dict[str, Any] = {
            "listen": {"cors_origins": [origin]},
            "tenants": [TENANT],
            "requests": {"max_headers": 8192},
        }
        async with running_gateway(node.url, **settings) as gateway:
            pages.page = PAGE.replace("URL", gateway.url).replace("KEY", KEY).replace("ASK", json.dumps(ASK))
            async with browser(tmp_path, origin), asyncio.timeout(200):
                seen = await pages.seen
    statuses = {name: each["status"] for name, each in seen.items()}
    assert statuses == {
        "served": 200,
        "compressed": 200,
        "in another coding": 415,
        "large head": 431,
        "wrong key": 401,
        "served too": 200,
        "limited": 429,
    }, seen
    for name in ("served", "limited"):
        told = seen[name]["headers"]
        assert {"x-request-id", "request-id", "x-ratelimit-remaining-requests", "x-ratelimit-limit-tokens"} <= {*told}
    assert {"retry-after", "retry-after-ms"} <= {*seen["limited"]["headers"]}
    assert seen["in another coding"]["headers"]["accept-encoding"] == "gzip, deflate"
    assert "headers_too_large" in seen["large head"]["said"]
