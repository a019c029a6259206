"""What others may have a say in is shown as text: names, answers, errors, agents. And no other page gets at it."""

import asyncio
import contextlib
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, expect

from gateway.core.access.api_keys import key_digest
from gateway.core.telemetry.request_stats import RequestStats
from tests.console.chromium import TOKEN, chromium, console_page, needs_chromium, show, sign_in
from tests.console.operators import operator
from tests.support.gateways import running_gateway
from tests.support.nodes import DONE, LAST_CHUNK, MODEL, STREAM_HEAD, Asked, ScriptedNode, chunk, event, scripted_node
from tests.support.redis import redis_server

pytestmark = [needs_chromium, pytest.mark.timeout(240)]

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
SHORT = "<svg/onload=alert(1)>"
KEY = "fg-a-key-of-a-tenant"


async def says_evil(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(STREAM_HEAD + chunk(event(EVIL)) + chunk(event("</pre>" + SHORT)) + chunk(DONE) + LAST_CHUNK)


async def unhurt(page: Page) -> None:
    """Nothing that was said has become an element, nor has run."""
    assert await page.title() != "owned"
    assert await page.locator("main img, main script, .panel img, .panel script, [onerror], [onload]").count() == 0


async def test_nothing_that_is_said_becomes_markup() -> None:
    labels = {"pool": SHORT, "zone": EVIL[:60]}
    async with redis_server() as redis, scripted_node(says_evil) as node, chromium() as browser:
        settings: dict[str, Any] = {
            "redis": redis.settings,
            "access": {"stored": True},
            "usage": {"stored": False},
            "admin": {"token": TOKEN, "hosts": []},
            "tenants": [{"name": "acme", "keys": [{"sha256": key_digest(KEY).hex(), "label": EVIL[:90]}]}],
            "nodes": [{"url": node.url, "labels": labels}],
        }
        async with running_gateway(**settings) as gateway:
            feed, app = gateway.app.console_feed, gateway.app
            app.fleet.nodes[0].last_error = EVIL
            wrong = RequestStats(request_id=SHORT, tenant=EVIL, model=EVIL, node=EVIL, status=502, ending=SHORT)
            wrong.error, wrong.user_agent, wrong.at = EVIL, EVIL.encode(), 1e9
            feed.note([wrong])
            async with operator(gateway.admin_url, "Eve") as client:
                await client.post("/admin/tenants", json={"name": "beta"})
                await client.post("/admin/block", json={"tenant": "beta", "reason": EVIL})
            async with console_page(browser, gateway.admin_url) as page:
                await unhurt(page)
                marks = {"fleet": node.url[7:], "tenants": "<img", "errors": SHORT, "changes": "<img"}
                for view, mark in marks.items():
                    await show(page, view)
                    await expect(page.locator("tbody").first).to_contain_text(mark)
                    await unhurt(page)
                    await page.locator("tbody .name").first.click()
                    await page.wait_for_timeout(200)
                    await unhurt(page)
                    await page.keyboard.press("Escape")
                await show(page, "playground")
                await page.fill("input[name=tenant-key]", KEY)
                await page.fill("textarea[name=prompt]", EVIL)
                await page.click("main button[type=submit]")
                await expect(page.locator(".speech").nth(1)).to_contain_text("<svg/onload", timeout=30_000)
                await expect(page.locator("main pre")).to_contain_text("onerror")
                await unhurt(page)


async def test_hostile_headers_of_a_request_under_way() -> None:
    async def waits(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + chunk(event("x")))
        await node.until_hung_up(reader)

    async with scripted_node(waits) as node, chromium() as browser:
        async with running_gateway(node.url, admin={"token": TOKEN, "hosts": []}) as gateway:
            headers = {"user-agent": EVIL, "x-request-id": "req-evil"}
            body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": EVIL}]}
            async with httpx.AsyncClient(timeout=60) as client:
                url = f"{gateway.url}/v1/chat/completions"
                task = asyncio.create_task(client.post(url, json=body, headers=headers))
                async with console_page(browser, gateway.admin_url) as page:
                    await show(page, "requests")
                    await page.locator("tbody .name").first.click()
                    await expect(page.locator(".panel")).to_contain_text("<img src=x")
                    await unhurt(page)
                    await page.locator(".panel").get_by_role("button", name="End this request").click()
                    await page.locator("dialog").get_by_role("button", name="End the request").click()
                    await expect(page.locator(".panel .badge")).to_have_text("gone")
                await task


@asynccontextmanager
async def other_site(page: str) -> AsyncIterator[str]:
    """A site of somebody else, on another port of this machine: the nearest that one can be."""

    async def answer(reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            body = page.encode()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            writer.write(head % len(body) + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


ATTACK = """<!doctype html><iframe src="ADMIN/console" id="frame"></iframe>
<form method="post" action="ADMIN/admin/reload" target="hole" id="form"><input name="node" value="NODE"></form>
<iframe name="hole"></iframe>
<script>
const seen = window.seen = {};
async function attempt(name, path, options) {
  try {
    const got = await fetch("ADMIN" + path, {credentials: "include", ...options});
    seen[name] = [got.type, got.status, (await got.text()).slice(0, 80)];
  } catch (error) { seen[name] = ["failed"]; }
}
(async () => {
  document.getElementById("form").submit();
  const json = JSON.stringify({node: "NODE"});
  await attempt("drain", "/admin/drain", {method: "POST", body: json, headers: {"content-type": "application/json"}});
  await attempt("simple drain", "/admin/drain", {method: "POST", body: json, mode: "no-cors"});
  await attempt("read", "/admin/fleet", {});
  await attempt("blind read", "/admin/fleet", {mode: "no-cors"});
  await attempt("stream", "/console/live", {});
  await attempt("sign out", "/console/session", {method: "DELETE"});
  await new Promise((resolve) => {
    const source = new EventSource("ADMIN/console/live", {withCredentials: true});
    source.onmessage = source.onopen = () => { seen.events = ["opened"]; resolve(); };
    source.onerror = () => { seen.events = ["failed"]; source.close(); resolve(); };
  });
  const script = document.createElement("script");
  script.src = "ADMIN/admin/fleet";
  await new Promise((resolve) => {
    script.onload = () => { seen.script = ["loaded"]; resolve(); };
    script.onerror = () => { seen.script = ["failed"]; resolve(); };
    document.head.append(script);
  });
  window.done = true;
})();
</script>"""


async def test_a_page_of_another_port_cannot_use_the_session() -> None:
    """It is the same site, so that SameSite=Strict does not keep the cookie back: Origin and Sec-Fetch-Site do."""

    async def nothing(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(b"")

    async with scripted_node(nothing) as node, chromium() as browser:
        async with running_gateway(node.url, admin={"token": TOKEN, "hosts": []}) as gateway:
            name = gateway.app.fleet.nodes[0].name
            attack = ATTACK.replace("ADMIN", gateway.admin_url).replace("NODE", name)
            async with other_site(attack) as url:
                context = await browser.new_context()
                page = await context.new_page()
                await page.goto(f"{gateway.admin_url}/console")
                await sign_in(page, "Ada")
                other = await context.new_page()
                await other.goto(url)
                await other.wait_for_function("window.done")
                seen: dict[str, list[Any]] = await other.evaluate("window.seen")
                frame = other.frames[1]
                assert await frame.locator("nav").count() == 0 and "/console" not in frame.url
                await page.reload()
                await expect(page.locator(".person")).to_have_text("Ada")
                await context.close()
            assert gateway.app.fleet.nodes[0].drain is None
            readable = {name: each for name, each in seen.items() if each[0] not in ("failed", "opaque")}
            assert readable == {}, seen


async def test_a_rebound_name_shows_nothing() -> None:
    """The browser is told that evil.example is this machine, as a name server of somebody else would."""
    async with running_gateway(ready=False, admin={"token": TOKEN, "hosts": []}) as gateway:
        rules = f"--host-resolver-rules=MAP evil.example 127.0.0.1:{gateway.admin_port}"
        async with chromium(rules) as browser:
            page = await browser.new_page()
            got = await page.goto(f"http://evil.example:{gateway.admin_port}/console")
            assert got is not None and got.status == 403
            status = await page.evaluate(
                "fetch('/console/session', {method: 'POST', headers: {'content-type': 'application/json'},"
                f" body: JSON.stringify({{name: 'Eve', token: '{TOKEN}'}})}}).then((got) => got.status, () => 403)"
            )
            assert status == 403, "or the policy of that answer has kept it from being asked"
