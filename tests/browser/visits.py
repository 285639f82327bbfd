"""A visit to one page of the built book."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import built
from playwright.sync_api import ConsoleMessage, Page

WINDOW = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
TYPESET = "() => !window.MathJax?.startup || MathJax.startup.promise.then(() => true)"


@dataclass
class Visit:
    """A page opened from the built folder, and what the browser has to say about it."""

    name: str
    page: Page
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def open(self, query: str = "") -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.problems.append(request.url))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._console)
        self.page.goto(built.uri(self.name) + query)
        self.page.wait_for_function(TYPESET)
        self.page.evaluate("document.fonts.ready.then(() => true)")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def files(self) -> list[Path]:
        """The files that the page has asked for, each once."""
        return [built.file_of(url) for url in dict.fromkeys(self.requests) if url[:5] == "file:"]
