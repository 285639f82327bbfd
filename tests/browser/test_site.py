"""The built book as a whole: valid HTML, links that lead somewhere, order, and search."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag, urljoin

import built
import pytest
from playwright.sync_api import Browser, Page
from visits import Visit

SEARCHED = "document.querySelector('.search-summary')?.textContent"
ADDRESSES = ("href", "src", "data", "poster", "xlink:href")


def test_every_page_is_valid_html(site: Path, checker: list[str]):
    files = [str(site / page) for page in built.pages()]
    command = [*checker, "--errors-only", "--format", "json", *files]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    found = json.loads(output)["messages"]
    assert [f"{m['url']}:{m['lastLine']}: {m['message']}" for m in found] == []


@pytest.mark.parametrize("page", built.pages())
def test_every_link_and_anchor_leads_somewhere(site: Path, page: str):
    dead = []
    for tag in built.html(page).find_all(True):
        for address in [tag[name] for name in ADDRESSES if tag.has_attr(name)]:
            if not address.startswith(("http:", "https:", "mailto:", "data:")):
                dead += [address] if is_dead(page, address) else []
    assert dead == []


def is_dead(page: str, address: str) -> bool:
    target, anchor = urldefrag(urljoin(built.uri(page), address))
    path = built.file_of(target)
    if not path.is_file() or not path.is_relative_to(built.SITE):
        return True
    if not anchor or path.suffix != ".html":
        return False
    soup = built.html(path.relative_to(built.SITE).as_posix())
    return soup.find(id=unquote(anchor)) is None


def test_previous_and_next_follow_the_table_of_contents(site: Path):
    order = [page for page, _ in built.reading_order()]
    for before, page, after in zip([None, *order], order, [*order[1:], None], strict=False):
        for rel, wanted in (("prev", before), ("next", after)):
            link = built.html(page).find("link", rel=rel)
            found = built.file_of(urljoin(built.uri(page), link["href"])) if link else None
            assert found == (built.SITE / wanted if wanted else None), (page, rel)


def test_chapters_are_numbered_in_reading_order(site: Path):
    numbered = [page for page, has_number in built.reading_order() if has_number]
    for number, page in enumerate(numbered, 1):
        shown = built.html(page).select_one("h1 .section-number")
        assert shown is not None, page
        assert shown.get_text(strip=True) == f"{number}.", page


def test_search_finds_each_chapter_by_its_title(browser: Browser, site: Path):
    page = browser.new_page()
    for chapter, title in built.chapters().items():
        assert built.uri(chapter) in search(page, title.partition(":")[0])
    assert search(page, "wordthatnobodywrote") == []
    page.close()


def search(page: Page, words: str) -> list[str]:
    """Search as a reader does, and return the pages that are found."""
    visit = Visit("search.html", page)
    visit.open("?q=" + quote(words))
    page.wait_for_function(SEARCHED)
    assert visit.problems == []
    links = page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    return [urldefrag(link).url.partition("?")[0] for link in links]
