from __future__ import annotations

import pytest
from playwright.async_api import Browser

from .conftest import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_x(browser: Browser, stage: Stage) -> None:
    page = await browser.new_page()
    await page.goto(stage.base + "/u/x")
    assert "work" in await page.title()
