"""Opens a page from disk in headless Chromium and records script errors, dialogs and requests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
EXECUTABLES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium() -> str | None:
    """The path of Chromium on this machine (``CHROMIUM`` overrides it), or None."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, EXECUTABLES)), None)


class Watched:
    """A browser with one window. ``troubles``: every event that should not occur, such as a script error.

    ``allowed``: beginnings of the addresses that may be requested.
    """

    def __init__(self, browser: Any, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(120_000)  # milliseconds; a page waits longer on a busy machine
        self.troubles: list[str] = []
        self.allowed: tuple[str, ...] = ("file:", "data:", "blob:")
        self.page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.page.on("console", lambda message: self.troubles.append(f"console: {message.text}"))
        self.page.on("dialog", self._on_dialog)
        self.page.on("request", self._on_request)
        self.page.on("popup", lambda _: self.troubles.append("popup"))

    def open(self, file: Path, address: str = "") -> Any:
        """Open ``file`` at ``#address``."""
        self.page.goto(f"{file.absolute().as_uri()}#{address}", wait_until="commit")
        self.page.wait_for_selector("main > *")
        return self.drawn()

    def go(self, address: str) -> Any:
        """Go to ``#address`` in the open page."""
        self.page.evaluate("address => { location.hash = address }", address)
        return self.drawn()

    def drawn(self) -> Any:
        """Wait for the next frame, because charts are drawn once their size is known. Returns the page."""
        self.page.evaluate(DRAWN)
        return self.page

    def _on_dialog(self, dialog: Any) -> None:
        self.troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith(self.allowed):
            self.troubles.append(f"request: {request.url}")


@contextmanager
def browser(executable: str) -> Iterator[Any]:
    """Headless Chromium without its sandbox, which root cannot use; it only opens our own pages."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield launched
        launched.close()
