"""The console in a real Chromium: each view shows what there is, each action asks first and is audited. The pictures of
the documentation are taken here."""

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.console.chromium import PHONE, TOKEN, chromium, console_page, keep_picture, needs_chromium, show, sign_in
from tests.console.lively import Lively, lively, make_busy
from tests.support.gateway_process import gateway_process
from tests.support.gateways import eventually

pytestmark = [needs_chromium, pytest.mark.timeout(240)]


async def audit(shown: Lively) -> list[dict[str, Any]]:
    lines = await shown.gateway.app.audit.read(0.0, 100)
    return [{"who": line.event.who, "what": line.event.what, "subject": line.event.subject} for line in lines]


async def test_every_view_shows_a_busy_fleet() -> None:
    async with lively(6) as shown, chromium() as browser:
        await make_busy(shown)
        async with console_page(browser, shown.gateway.admin_url) as page:
            await _finds_within_a_minute(page, shown)
            await page.evaluate("document.activeElement.blur()")
            await keep_picture(page, "now")
            for view in ("fleet", "tenants", "requests", "errors", "changes"):
                await show(page, view)
                await expect(page.locator("main tbody tr").first).to_be_visible()
                await keep_picture(page, view)
            await _reads_the_charts(page)
            await _plays(page, shown)
            refreshes: list[float] = await page.evaluate(
                "performance.getEntriesByName('refresh').map((each) => each.duration)"
            )
            assert refreshes
            print(f"refreshes: {len(refreshes)}, longest {max(refreshes):.1f} ms")
        async with console_page(browser, shown.gateway.admin_url, color_scheme="dark") as page:
            await expect(page.locator(".attention-item").first).to_be_visible()
            await expect(page.locator(".plot path").first).to_be_attached()
            await keep_picture(page, "dark")
        await _fits_a_phone(browser, shown)


async def _finds_within_a_minute(page: Page, shown: Lively) -> None:
    """What a person who has never seen it is asked to find: it stands on the first page."""
    nodes = [node.name for node in shown.gateway.app.fleet.nodes]
    answers = page.locator(".answer")
    await expect(answers.nth(0)).to_contain_text(nodes[0])
    await expect(answers.nth(1)).to_contain_text("search-agents")
    await expect(answers.nth(1)).to_contain_text("$")
    await expect(answers.nth(2)).to_contain_text(nodes[1], timeout=30_000)
    attention = page.locator(".attention")
    await expect(attention).to_contain_text(f"{nodes[-1]} is out")
    await expect(attention).to_contain_text(f"{nodes[0]} is slow")
    await answers.nth(2).click()
    await expect(page.locator(".panel")).to_contain_text("End this request")
    await page.keyboard.press("Escape")
    await expect(page.locator(".panel")).to_be_hidden()


async def _reads_the_charts(page: Page) -> None:
    await show(page, "now")
    charts = page.locator(".chart")
    await expect(charts).to_have_count(5)
    for at in range(3):
        path = await charts.nth(at).locator("path").first.get_attribute("d")
        assert path is not None and path.count("L") > 100, "an hour has many points"
    box = await charts.nth(1).locator("svg").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    await expect(charts.nth(1).locator(".tip")).to_contain_text("thinking")


async def _plays(page: Page, shown: Lively) -> None:
    await show(page, "playground")
    await page.fill("input[name=tenant-key]", shown.keys["code-review"])
    await page.locator("input[name=budget]").fill("2")
    await page.fill("input[name=max_tokens]", "400")
    await page.click("main button[type=submit]")
    ended = page.locator("dl.inline")
    await expect(ended).to_contain_text("stop", timeout=60_000)
    speech = page.locator(".speech")
    assert await speech.nth(0).inner_text() and await speech.nth(1).inner_text()
    told = await ended.inner_text()
    assert re.search(r"Of that thinking\s+12[78]", told) and re.search(r"Cost\s+\$0\.\d+", told)
    headers = await page.locator("dl.mono").inner_text()
    assert "x-request-id" in headers and "x-ratelimit-limit-tokens" in headers
    code = page.locator("main pre")
    for tab, mark in (("curl", "curl -N http"), ("Python", "from openai import"), ("TypeScript", 'from "openai"')):
        await page.get_by_role("tab", name=tab).click()
        await expect(code).to_contain_text(mark)
        await expect(code).to_contain_text("thinking_token_budget")
        assert shown.keys["code-review"] not in await code.inner_text()
    await page.get_by_role("tab", name="Python").click()
    compile(await code.inner_text(), "playground", "exec")
    await page.set_viewport_size({"width": 1360, "height": 1240})
    await keep_picture(page, "playground")
    stored = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert shown.keys["code-review"] not in await page.content()
    assert "fg-" not in stored and "fleetgate" not in stored


async def _fits_a_phone(browser: Browser, shown: Lively) -> None:
    async with console_page(browser, shown.gateway.admin_url, **PHONE) as page:
        await expect(page.locator(".plot path").first).to_be_attached()
        await keep_picture(page, "phone")
        for view in ("now", "fleet", "tenants", "requests", "errors", "playground", "changes"):
            await show(page, view)
            await page.wait_for_timeout(100)
            wide, seen = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide <= seen, f"{view} is {wide} px wide on a screen of {seen}"


async def test_signing_in_and_out() -> None:
    async with lively(1) as shown, chromium() as browser:
        async with console_page(browser, shown.gateway.admin_url, None) as page:
            await page.fill("input[name=name]", "Ada")
            await page.fill("input[name=token]", "not-the-token")
            await page.click("button[type=submit]")
            await expect(page.locator(".problem")).to_contain_text("The admin token is invalid")
            await keep_picture(page, "sign-in")
            await page.fill("input[name=name]", "<Ada>")
            await page.click("button[type=submit]")
            await expect(page.locator(".problem")).to_contain_text("has a character that names have not")
            await sign_in(page, "Ada")
            await page.reload()
            await expect(page.locator(".person")).to_have_text("Ada")
            await page.click("text=Sign out")
            await expect(page.locator("h1")).to_have_text("Console")
            await page.reload()
            await expect(page.locator("input[name=token]")).to_be_visible()


async def test_every_action_asks_first_and_the_audit_names_the_person() -> None:
    async with lively(2) as shown, chromium() as browser, console_page(browser, shown.gateway.admin_url, "Zoë") as page:
        node = shown.gateway.app.fleet.nodes[0]
        await _drains(page, node.name)
        await eventually(lambda: node.drain is not None)
        await _confirm(page, "Undrain", "Undrain")
        await eventually(lambda: node.drain is None)
        await _ends(page, shown)
        await _manages_keys(page, shown)
        await _blocks(page, shown)
        await show(page, "errors")
        await expect(page.locator("tbody .why").first).not_to_be_empty()
        await page.locator("tbody .name").first.click()
        await expect(page.locator(".panel > .buttons button")).to_have_count(0)  # none of the tenant's
        await page.keyboard.press("Escape")
        await show(page, "changes")
        changes = page.get_by_role("table", name="changes")
        await expect(changes.locator("tbody")).to_contain_text("key revoked")
        found = await audit(shown)
        assert [line["what"] for line in reversed(found)] == [
            *("node drained", "node undrained", "request ended"),
            *("key created", "key rotated", "key revoked", "blocked", "unblocked"),
        ]
        assert {line["who"] for line in found} == {"Zoë (admin)@127.0.0.1"}


async def _confirm(page: Page, opener: str, label: str) -> None:
    await page.locator(".panel").get_by_role("button", name=opener, exact=False).first.click()
    await page.locator("dialog").get_by_role("button", name=label, exact=True).click()
    await expect(page.locator("dialog")).to_have_count(0)


async def _drains(page: Page, name: str) -> None:
    await show(page, "fleet")
    await page.get_by_role("button", name=name, exact=True).click()
    await page.locator(".panel").get_by_role("button", name="Drain…").click()
    dialog = page.locator("dialog")
    await expect(dialog).to_contain_text(name)
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await page.locator(".panel").get_by_role("button", name="Drain…").click()
    await dialog.locator("select").select_option("300")
    await dialog.get_by_role("button", name="Drain", exact=True).click()
    await expect(page.locator(".toast").last).to_contain_text("is draining")
    await expect(page.locator(".panel .badge")).to_have_text("draining")
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name=name, exact=True))
    await expect(row.locator(".why")).to_have_text("drained")


async def _ends(page: Page, shown: Lively) -> None:
    task = shown.ask("data-science", thinking_token_budget=4096)
    await page.keyboard.press("Escape")
    await show(page, "requests")
    await page.locator("tbody .name").first.click()
    await _confirm(page, "End this request", "End the request")
    _, text = await task
    assert "ended_by_operator" in text and "Zo" in json.loads(text.strip().rpartition("data: ")[2])["error"]["message"]
    await expect(page.locator(".panel .badge")).to_have_text("gone")
    await page.keyboard.press("Escape")


async def _manages_keys(page: Page, shown: Lively) -> None:
    await show(page, "tenants")
    await page.get_by_role("button", name="support-bot", exact=True).click()
    panel = page.locator(".panel")
    await panel.get_by_role("button", name="New key").click()
    await page.fill("dialog input[name=label]", "laptop <b>")
    await page.locator("dialog").get_by_role("button", name="Create the key").click()
    key = await page.locator("dialog .secret code").inner_text()
    assert key.startswith("fg-")
    await page.locator("dialog").get_by_role("button", name="I have kept it").click()
    await expect(panel).to_contain_text("laptop <b>")
    await panel.get_by_role("button", name="Rotate").click()
    await page.locator("dialog select").select_option("0")
    await page.locator("dialog").get_by_role("button", name="Rotate", exact=True).click()
    second = await page.locator("dialog .secret code").inner_text()
    assert second.startswith("fg-") and second != key
    await page.locator("dialog").get_by_role("button", name="Try it in the playground").click()
    assert await page.input_value("input[name=tenant-key]") == second
    await page.keyboard.press("Escape")
    await show(page, "tenants")
    await page.get_by_role("button", name="support-bot", exact=True).click()
    await expect(panel.locator(".key")).to_have_count(3)
    active = panel.locator(".key", has_text="active").filter(has=page.get_by_role("button", name="Revoke"))
    await active.get_by_role("button", name="Revoke").click()
    await page.locator("dialog").get_by_role("button", name="Revoke", exact=True).click()
    await expect(page.locator("dialog")).to_have_count(0)
    await expect(panel.locator(".key")).to_have_count(2)
    await page.keyboard.press("Escape")


async def _blocks(page: Page, shown: Lively) -> None:
    await page.get_by_role("button", name="intern-demo", exact=True).click()
    panel, dialog = page.locator(".panel"), page.locator("dialog")
    await panel.get_by_role("button", name="Block…").click()
    await expect(dialog).to_contain_text("intern-demo")
    await dialog.get_by_role("button", name="Cancel").click()
    assert shown.gateway.app.blocks is not None and not shown.gateway.app.blocks.subjects
    await panel.get_by_role("button", name="Block…").click()
    await page.fill("dialog input[name=reason]", "a key leaked")
    await dialog.get_by_role("button", name="Block", exact=True).click()
    await expect(panel.locator(".badge").first).to_have_text("blocked")
    status, text = await shown.ask("intern-demo")
    assert status == 403, text
    await _confirm(page, "Unblock", "Unblock")
    await expect(panel.get_by_role("button", name="Block…")).to_be_visible()
    await page.keyboard.press("Escape")


async def test_the_configuration_is_read_again_and_open_consoles_hold_up_no_end(tmp_path: Path) -> None:
    file = tmp_path / "fleetgate.yaml"

    def write(**settings: Any) -> None:
        file.write_text(json.dumps({"nodes": [{"url": "http://127.0.0.1:1"}], "admin": {"token": TOKEN}, **settings}))

    write()
    async with gateway_process("-c", file, ready=False) as gateway, chromium() as browser:
        async with console_page(browser, gateway.admin_url) as page:
            await show(page, "changes")
            button, dialog = page.get_by_role("button", name="Reload the configuration…"), page.locator("dialog")
            write(limits={"requests_per_minute": "many"})
            await button.click()
            await dialog.get_by_role("button", name="Reload", exact=True).click()
            await expect(dialog).to_contain_text("requests_per_minute")
            await dialog.get_by_role("button", name="Cancel").click()
            write(tenants=[{"name": "new-one", "keys": [{"sha256": "0" * 64}]}])
            await button.click()
            await dialog.get_by_role("button", name="Reload", exact=True).click()
            await expect(page.locator(".toast").last).to_contain_text("hanged")
            await show(page, "tenants")
            await expect(page.locator("tbody")).to_contain_text("new-one", timeout=30_000)
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended(30) == 0
            await expect(page.locator(".link-state")).to_have_text("Not connected")


async def test_it_is_used_by_keyboard_alone() -> None:
    async with lively(2) as shown, chromium() as browser, console_page(browser, shown.gateway.admin_url) as page:
        await page.reload()
        await expect(page.locator(".link-state")).to_have_text("Live")
        await page.locator("nav a").first.focus()
        await page.keyboard.press("Shift+Tab")
        await expect(page.locator(":focus")).to_contain_text("Skip to the page")
        for label in ("Now", "Fleet"):
            await page.keyboard.press("Tab")
            await expect(page.locator(":focus")).to_contain_text(label)
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text("Fleet")
        await page.locator("input[type=search]").focus()
        focused = ""
        deadline = time.monotonic() + 30
        while focused != shown.gateway.app.fleet.nodes[0].name and time.monotonic() < deadline:
            await page.keyboard.press("Tab")
            focused = await page.locator(":focus").inner_text()
        await page.keyboard.press("Enter")
        await expect(page.locator(".panel")).to_be_focused()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        await expect(page.locator(":focus")).to_have_text("Drain…")
        await page.keyboard.press("Enter")
        await expect(page.locator("dialog select")).to_be_focused()
        await page.keyboard.press("Escape")
        await page.keyboard.press("Escape")
        await expect(page.locator(":focus")).to_have_text(focused)


async def test_it_says_so_when_it_is_cut_off_and_comes_back() -> None:
    async with lively(1) as shown, chromium() as browser, console_page(browser, shown.gateway.admin_url) as page:
        link = page.locator(".link-state")
        await expect(link).to_have_text("Live")
        viewers = shown.gateway.app.console_feed.viewers
        for viewer in viewers:
            viewer.drop()
        await expect(link).to_have_text("Not connected")
        await expect(link).to_have_text("Live", timeout=20_000)
        await eventually(lambda: len(viewers) == 1)
