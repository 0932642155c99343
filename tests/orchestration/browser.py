"""A page of the Dagster UI in a real browser, with what went wrong in it.

With LAKEHOUSE_SCREENSHOTS set to a directory, pictures of pages are left there.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

CHROMIUM_OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
ERRORS = ("Unexpected error", "PythonError", "Traceback", "404", "Could not load", "Failed to load")
TIMEOUT_MS = 90_000


@dataclass
class Ui:
    """An open page, and what went wrong in it."""

    page: Page
    url: str
    problems: list[str]

    def open(self, path: str, *texts: str) -> None:
        """Open a page and wait until it shows these texts; fails if anything on it looks like an error."""
        self.page.goto(f"{self.url}/{path}", wait_until="domcontentloaded")
        for text in texts:
            self.page.get_by_text(text).first.wait_for(timeout=TIMEOUT_MS)
        body = self.page.inner_text("body")
        assert not [error for error in ERRORS if re.search(rf"\b{error}\b", body)], body
        assert self.problems == []

    def keep_picture(self, name: str) -> None:
        if directory := os.environ.get("LAKEHOUSE_SCREENSHOTS"):
            self.page.wait_for_timeout(6000)  # until the last numbers have come in
            self.page.screenshot(path=Path(directory) / f"{name}.png")


@contextmanager
def chromium_page() -> Iterator[Page]:
    """A page of a browser of its own."""
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert executable, "Chromium is missing: make test installs it, or python -m engines.install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_OPTIONS)
        yield browser.new_page(viewport={"width": 1500, "height": 900})
        browser.close()


@contextmanager
def watched(page: Page, url: str) -> Iterator[Ui]:
    """The page as a UI whose errors are noted."""
    problems: list[str] = []

    def note(error: object) -> None:
        problems.append(str(error))

    page.on("pageerror", note)
    yield Ui(page, url, problems)
    page.remove_listener("pageerror", note)
