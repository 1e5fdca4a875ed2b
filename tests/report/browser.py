"""A page in a real browser, and all that it must not do there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

WIDTHS = (1280, 420)
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
PATIENCE_SECONDS = 20
INSIDE = ("data:", "blob:")


@dataclass
class Watched:
    """An open page, and what it did that it must not."""

    page: Page
    faults: list[str] = field(default_factory=list[str])

    def require_clean(self) -> None:
        """Raises AssertionError where the page wrote an error, failed, or asked for anything but itself."""
        assert self.faults == []

    def wait_until(self, expression: str) -> None:
        """Raises AssertionError where the expression does not become true. The page's own policy forbids it to ask."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.page.wait_for_timeout(20)

    def require_no_sideways_scrolling(self) -> None:
        wide = self.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], wide


@contextmanager
def browser() -> Generator[Browser]:
    """Chromium without a window."""
    with sync_playwright() as playwright:
        # Whoever runs the tests may be root, for whom there is no sandbox; the pages are our own.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1280, scheme: Scheme = "light") -> Generator[Watched]:
    """The page from the disk, at that width, when it has drawn itself."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    try:
        watched = Watched(context.new_page())
        url = path.absolute().as_uri()

        def on_console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                watched.faults.append(f"console: {message.text}")

        def on_request(request: Request) -> None:
            if request.url.partition("#")[0] != url and not request.url.startswith(INSIDE):
                watched.faults.append(f"request: {request.url}")

        def on_failure(request: Request) -> None:
            watched.faults.append(f"failed: {request.url}: {request.failure}")

        watched.page.on("requestfailed", on_failure)
        watched.page.on("console", on_console)
        watched.page.on("pageerror", lambda error: watched.faults.append(f"error: {error}"))
        watched.page.on("request", on_request)
        watched.page.goto(url, wait_until="load")
        yield watched
    finally:
        context.close()
