"""Headless Chromium for the checks of the built book.

Where Chromium or the built book is missing the checks are skipped, and fail under CI, which has to
bring both. `make test` runs them in a process of their own, since Playwright keeps an event loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import built
import chromium
import pytest
from playwright.sync_api import Browser, sync_playwright
from visits import WINDOW, Visit


def need(there: object, what: str) -> None:
    """Skip where something is missing; CI has to install it, so there it is a failure."""
    if not there:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    need(chromium.find(), f"no browser: run 'make browser' ({chromium.HINT})")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium.find())
        yield found
        found.close()


@pytest.fixture(scope="session")
def site() -> Path:
    need(built.pages(), "the book is not built: run 'make book'")
    return built.SITE


@pytest.fixture(scope="session")
def checker() -> list[str]:
    """The command of the W3C's HTML checker."""
    need(chromium.VNU.is_file(), "no HTML checker: run 'make browser'")
    return ["java", "-jar", str(chromium.VNU)]


@pytest.fixture(scope="module")
def visit(request: pytest.FixtureRequest, browser: Browser, site: Path) -> Iterator[Visit]:
    """One page, opened once for all checks of it."""
    page = browser.new_page(viewport=WINDOW, reduced_motion="reduce")
    visit = Visit(request.param, page)
    visit.open()
    yield visit
    page.close()
