"""Contrast and structure of every view, light and dark, by axe (WCAG 2.2, A and AA)."""

from pathlib import Path
from typing import Any, Literal

import axe_playwright_python
import pytest
from playwright.async_api import Page, expect

from tests.console.chromium import chromium, console_page, needs_chromium, show
from tests.console.lively import lively, make_busy

pytestmark = [needs_chromium, pytest.mark.timeout(240)]

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
RUN = """async (tags) => {
  const found = await axe.run(document, {runOnly: tags, resultTypes: ["violations"]});
  const words = (node) => `${node.target}: ${node.failureSummary}`;
  return found.violations.map((each) => [each.id, each.nodes.map(words).slice(0, 3)]);
}"""


async def violations(page: Page) -> list[Any]:
    if not await page.evaluate("typeof axe !== 'undefined'"):
        await page.evaluate(AXE)
    found: list[Any] = await page.evaluate(RUN, TAGS)
    return found


async def test_every_view_light_and_dark() -> None:
    async with lively(4) as shown, chromium() as browser:
        await make_busy(shown)
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for scheme in schemes:
            options: dict[str, Any] = {"color_scheme": scheme, "bypass_csp": True, "reduced_motion": "reduce"}
            async with console_page(browser, shown.gateway.admin_url, **options) as page:
                await expect(page.locator(".attention-item").first).to_be_visible()
                assert await violations(page) == [], f"now, {scheme}"
                await page.route("**/admin/audit*", lambda route: route.abort())
                await show(page, "changes")
                assert await violations(page) == [], f"nothing was read, {scheme}"
                await page.unroute("**/admin/audit*")
                for view in ("fleet", "tenants", "requests", "errors", "changes", "playground"):
                    await show(page, view)
                    await page.wait_for_timeout(150)
                    assert await violations(page) == [], f"{view}, {scheme}"
                await show(page, "fleet")
                await page.locator("tbody .name").first.click()
                assert await violations(page) == [], f"details, {scheme}"
                await page.locator(".panel").get_by_role("button", name="rain").first.click()
                assert await violations(page) == [], f"dialog, {scheme}"
