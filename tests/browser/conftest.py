"""A real browser, headless; what is missing fails, since a test that was not run tells nothing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

AXE = Path(sys.prefix) / "node" / "node_modules" / "axe-core" / "axe.min.js"
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium")
    assert found, "there is no chromium: make test-browser installs it"
    assert AXE.is_file(), f"there is no {AXE}: make test-browser installs it"
    with sync_playwright() as playwright:
        # as root chromium has no sandbox; what is shown here is our own
        yield playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])


class Watched:
    """A page whose console, errors and requests are listened to."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", lambda dialog: (self.faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))

    def outside(self, own: str = "file:") -> list[str]:
        """What was asked of anybody else."""
        return [url for url in self.asked if not url.startswith((own, "data:", "blob:"))]

    def barriers(self, within: str = "body") -> list[str]:
        """Serious faults that axe-core finds."""
        # not as an element of the page: its own policy would forbid it
        self.page.evaluate(AXE.read_text(encoding="utf-8") + "; null")
        found: Any = self.page.evaluate("within => axe.run(within, {resultTypes: ['violations']})", within)
        return [
            f"{each['id']}: {each['help']}: {node['html'][:200]}"
            for each in found["violations"] if each["impact"] in SERIOUS for node in each["nodes"]
        ]  # fmt: skip

    def overflow(self) -> int:
        """Pixels that the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Opens an address in a window of its own: ``opened(url, width=390, scheme="dark", offline=True)``."""
    contexts: list[BrowserContext] = []

    def open_(url: str, width: int = 1280, scheme: Any = "light", offline: bool = False) -> Watched:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        watched = Watched(contexts[-1].new_page())
        contexts[-1].set_offline(offline)
        watched.page.goto(url)
        return watched

    yield open_
    for context in contexts:
        context.close()
