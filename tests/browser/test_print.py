"""A chapter printed as PDF."""

from __future__ import annotations

import shutil
from pathlib import Path

import built
import pdf
import pytest
from notebooks import Book, NotebookError
from playwright.sync_api import Browser
from visits import Visit


def test_a_pdf_is_made_and_names_no_folder_of_this_machine(
    browser: Browser, site: Path, tmp_path: Path
):
    name = "foundations/the_lab"
    for folder in ("chapters/foundations", "_static", "_images"):
        target = tmp_path / "book" / "_build" / "html" / folder
        shutil.copytree(site / folder, target)
    book = Book(tmp_path)
    pdf.print_chapter(browser, book, name)
    data = (book.site / "downloads" / "the_lab.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert b"file:" not in data
    with pytest.raises(NotebookError, match="make book"):
        pdf.print_chapter(browser, book, "foundations/unbuilt")


def test_on_paper_nothing_is_clipped_or_folded(browser: Browser, site: Path):
    page = browser.new_page(viewport={"width": 672, "height": 950})
    page.emulate_media(media="print")
    for chapter in built.chapters():
        visit = Visit(chapter, page)
        visit.open()
        page.evaluate(pdf.READY)
        wide = "all => all.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.innerText)"
        assert page.locator(".bd-article pre").evaluate_all(wide) == []
        assert page.locator(".bd-article details:not([open])").count() == 0
        assert not page.locator(".bd-sidebar-primary, .bd-header-article").first.is_visible()
    page.close()
