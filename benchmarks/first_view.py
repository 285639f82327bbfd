"""How soon a chapter shows: its largest contentful paint in a fresh browser, from localhost."""

from __future__ import annotations

import functools
import http.server
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import Row

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "book" / "_build" / "html"
sys.path.append(str(ROOT / "tools"))

import chromium  # noqa: E402

PAINTED = """() => new Promise((resolve) => {
  new PerformanceObserver((list) => resolve(list.getEntries().at(-1).startTime / 1000))
    .observe({ type: 'largest-contentful-paint', buffered: true });
})"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served() -> Iterator[str]:
    """The built book on a free port of localhost."""
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def first_views(repeats: int) -> dict[str, float]:
    """Median seconds until each chapter shows, with an empty cache every time."""
    from playwright.sync_api import sync_playwright

    pages = sorted((SITE / "chapters").rglob("*.html"))
    seconds: dict[str, list[float]] = {page.stem: [] for page in pages}
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find())
        for _ in range(repeats):
            for path in pages:
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.goto(f"{address}/{path.relative_to(SITE).as_posix()}")
                seconds[path.stem].append(page.evaluate(PAINTED))
                page.close()
        browser.close()
    return {name: statistics.median(values) for name, values in seconds.items()}


def rows(quick: bool) -> tuple[list[Row], list[str]]:
    """The slowest chapter as views a second; nothing where there is no browser or no built book."""
    if chromium.find() is None or not SITE.is_dir():
        return [], ["- First views not measured: run make browser and make book before."]
    seconds = first_views(1 if quick else 5)
    name = max(seconds, key=seconds.get)
    row = Row(f"first view of the slowest chapter ({name})", 1 / seconds[name], "views/s", least=1)
    low, high = min(seconds.values()), max(seconds.values())
    return [row], [f"- First view of a chapter from localhost: {low:.2f} to {high:.2f} s."]
