"""A real Chromium, and the pictures that tests take of the console (`test-artifacts/console/`, which git ignores)."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
PICTURES = Path(__file__).parents[2] / "test-artifacts" / "console"
WIDE: dict[str, Any] = {"viewport": {"width": 1360, "height": 860}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}
TOKEN = "t" * 24

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium on this machine (apt install chromium)"
)


@asynccontextmanager
async def chromium(*flags: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def console_page(
    browser: Browser, admin_url: str, person: str | None = "Ada Lovelace", token: str = TOKEN, **options: Any
) -> AsyncIterator[Page]:
    """The console at `admin_url`, signed in as `person` where there is one. Fails where the page throws, runs what its
    policy forbids, or fetches from elsewhere."""
    context = await browser.new_context(**{**WIDE, "timezone_id": "UTC", **options})
    page = await context.new_page()
    page.set_default_timeout(20_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"threw {error}"))
    page.on(
        "request", lambda request: None if request.url.startswith(admin_url) else wrong.append(f"asked {request.url}")
    )
    page.on(
        "console",
        lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None,
    )
    page.on("dialog", lambda dialog: wrong.append(f"opened a dialog: {dialog.message}"))
    try:
        await page.goto(f"{admin_url}/console")
        if person is not None:
            await sign_in(page, person, token)
        yield page
    finally:
        await context.close()
    assert wrong == []


async def sign_in(page: Page, person: str, token: str = TOKEN) -> None:
    await page.fill("input[name=name]", person)
    if await page.locator("input[name=token]").count():
        await page.fill("input[name=token]", token)
    await page.click("button[type=submit]")
    await page.wait_for_selector("#app:not([aria-busy]) nav")


async def show(page: Page, view: str) -> None:
    await page.click(f"nav a[href='#{view}']")


async def keep_picture(page: Page, name: str, **options: Any) -> Path:
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.png"
    await page.screenshot(path=path, **options)
    return path
