"""The page of the admin API, in a real browser without a network: it loads, and its Authorize button works."""

import asyncio
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import httpx
import pytest
from playwright.async_api import ConsoleMessage, Request, async_playwright

from gateway.admin.docs import SHA256, unpack
from tests.support.gateways import running_gateway

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TOKEN = "t" * 20


def test_the_files_are_those_of_the_package() -> None:
    for name in SHA256:
        assert len(unpack(name)) > 100_000


async def test_the_page_and_its_files_ask_for_no_token_and_are_bounded_by_a_policy() -> None:
    async with running_gateway(ready=False, admin={"token": TOKEN}) as gateway:
        async with httpx.AsyncClient(base_url=gateway.admin_url) as client:
            page = await client.get("/docs")
            assert page.status_code == 200
            (policy,) = page.headers.get_list("content-security-policy")
            assert "unsafe" not in policy and "http" not in policy and "default-src 'none'" in policy
            for name in SHA256:
                for coding in ("gzip", "identity"):
                    got = await client.get(f"/docs/{name}", headers={"accept-encoding": coding})
                    assert got.headers.get("content-encoding", "identity") == coding
                    assert got.content == unpack(name)
            for name in ("..%2fdocs.py", "README.md", "%2e%2e"):
                assert (await client.get(f"/docs/{name}")).status_code in (401, 404)


async def test_clients_that_take_no_gzip_share_one_unpacked_file() -> None:
    """They need no token, so anybody may come and read nothing: each holds little of the file."""
    name, many = "swagger-ui-bundle.js", 12
    async with running_gateway(ready=False, admin={"token": TOKEN}) as gateway:

        async def ask() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.admin_port, limit=1)
            writer.write(f"GET /docs/{name} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
            await reader.readexactly(1)
            return reader, writer

        first = await ask()
        await asyncio.sleep(0.1)
        tracemalloc.start()
        others = [await ask() for _ in range(many)]
        await asyncio.sleep(0.1)
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        rest = await first[0].read()
        for _, writer in (first, *others):
            writer.transport.abort()
    assert rest.endswith(unpack(name)), "whoever reads gets all of it"
    assert max(held, most) < many * len(unpack(name)) / 4


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
async def test_a_route_is_tried_with_the_token_that_authorize_was_given() -> None:
    asked: list[str] = []
    told: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error":
            told.append(message.text)

    async with running_gateway(ready=False, admin={"token": TOKEN}) as gateway, async_playwright() as playwright:
        with tempfile.TemporaryDirectory() as home:
            browser = await playwright.chromium.launch_persistent_context(
                Path(home), executable_path=BROWSER, headless=True, args=FLAGS
            )
            page = await browser.new_page()
            page.on("request", note)
            page.on("console", listen)
            await page.goto(f"{gateway.admin_url}/docs")
            tenants = page.locator("#operations-tenants-list_tenants_admin_tenants_get")
            await tenants.locator(".opblock-summary-control").click()
            await tenants.get_by_role("button", name="Execute").click()
            assert "401" in await tenants.locator(".live-responses-table td.response-col_status").last.inner_text()
            await page.get_by_role("button", name="Authorize").first.click()
            await page.locator(".dialog-ux input").fill(TOKEN)
            await page.locator(".dialog-ux").get_by_role("button", name="Apply credentials").click()
            await page.locator(".dialog-ux").get_by_role("button", name="Close").first.click()
            async with page.expect_response("**/admin/tenants") as answered:
                await tenants.get_by_role("button", name="Execute").click()
            assert (await answered.value).status == 200
            kept = await page.evaluate(
                "() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
            )
            await browser.close()
    assert TOKEN not in kept
    assert all(url.startswith((gateway.admin_url, "data:")) for url in asked), asked
    assert [line for line in told if "Content Security Policy" in line or "blocked" in line] == []
