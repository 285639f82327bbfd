"""The paper atlas in headless Chromium: filters, keyboard, address, and no JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urldefrag

import built
import pytest
from playwright.sync_api import Browser, Page
from pybtex.database import parse_file

PAGE = "papers.html"
BYTES = 250_000  # the page with its own script and style, as transferred


@pytest.fixture(scope="module")
def opened(browser: Browser, site: Path) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(built.uri(PAGE))
    yield page
    page.close()


@pytest.fixture
def page(opened: Page) -> Page:
    """The page with all its papers."""
    opened.get_by_role("button", name="Show all").click()
    opened.wait_for_function(
        f"document.querySelector('.paper-form output').value == '{total()} papers'"
    )
    return opened


def total() -> int:
    return len(built.html(PAGE).select(".paper-list li[id]"))


def keys(page: Page) -> set[str]:
    """The papers that can be seen."""
    shown = "all => all.filter((e) => e.checkVisibility()).map((e) => e.dataset.key)"
    return set(page.locator(".paper-list li").evaluate_all(shown))


def said(page: Page) -> str:
    return page.locator(".paper-form output").evaluate("output => output.value")


def papers(**facts: str) -> set[str]:
    """The papers of the built page with these facts."""
    items = built.html(PAGE).select(".paper-list li[id]")
    return {
        item["data-key"]
        for item in items
        if all(value in item.get(f"data-{name}", "").split("|") for name, value in facts.items())
    }


def test_the_filters_narrow_the_list_together(page: Page):
    page.get_by_label("Year").select_option("2024")
    assert keys(page) == papers(year="2024")
    page.get_by_label("Shown in or on").select_option("robots")
    wanted = papers(year="2024", evidence="robots")
    assert keys(page) == wanted
    assert said(page) == f"{len(wanted)} of {total()} papers"
    page.get_by_label("Year").select_option("")
    page.get_by_label("Shown in or on").select_option("")
    page.get_by_label("Base model").select_option("CLIP")
    assert keys(page) == papers(models="CLIP")
    sections = page.locator(".paper-list section")
    assert 0 < sections.filter(visible=True).count() < sections.count()


def test_a_leaf_shows_its_papers_and_those_that_stand_elsewhere_as_well(page: Page):
    for leaf in page.locator("select[name=leaf] option").evaluate_all(
        "all => all.map(o => o.value)"
    ):
        page.get_by_label("Leaf").select_option(leaf)
        section = built.html(PAGE).find("section", id=leaf) if leaf else built.html(PAGE)
        assert keys(page) == {item["data-key"] for item in section.select("li[data-key]")}


def test_boxes_ask_for_code_for_a_chapter_and_for_no_background(page: Page):
    marks = {"has code": "data-code", "cited in a chapter": "data-chapter"}
    items = built.html(PAGE).select(".paper-list li[id]")
    for label, mark in marks.items():
        page.get_by_label(label).check()
        assert keys(page) == {item["data-key"] for item in items if item.has_attr(mark)}
        page.get_by_label(label).uncheck()
    page.get_by_label("no background").check()
    left = {item["data-key"] for item in items if not item.has_attr("data-background")}
    assert keys(page) == left < papers()


def test_words_are_looked_for_in_any_order_and_case(page: Page):
    search = page.get_by_label("Words in title, authors or summary")
    search.fill("POLICY Diffusion chi")
    assert "chi2023diffusion" in keys(page)
    assert len(keys(page)) < 5
    search.fill("wordthatnobodywrote")
    assert keys(page) == set()
    assert said(page) == f"0 of {total()} papers"


def test_the_keyboard_does_it_all(page: Page):
    page.get_by_label("Words in title, authors or summary").focus()
    page.keyboard.type("eureka")
    assert "ma2024eureka" in keys(page)
    page.keyboard.press("Enter")  # sends nothing
    assert page.evaluate("location.hash") == "#words=eureka"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")  # the first leaf
    assert page.evaluate("document.activeElement.name") == "leaf"
    assert page.evaluate("document.activeElement.value") != ""
    for name in ("year", "model", "evidence", "code"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == name
    page.keyboard.press("Space")
    assert "code=1" in page.evaluate("location.hash")
    assert page.locator("output[aria-live=polite]").count() == 1


def test_the_address_keeps_the_filters(page: Page, browser: Browser):
    page.get_by_label("Leaf").select_option("reward-llm")
    page.get_by_label("has code").check()
    wanted, address = keys(page), page.evaluate("location.href")
    other = browser.new_page()
    other.goto(address)
    assert keys(other) == wanted != papers()
    other.get_by_role("button", name="Show all").click()
    other.wait_for_function("!location.hash")
    assert keys(other) == papers()
    other.goto(f"{urldefrag(address)[0]}#year=1066&colour=red")
    assert keys(other) == papers()  # an address of another time
    other.close()


def test_a_link_to_a_paper_or_a_leaf_shows_it_whatever_was_filtered(page: Page):
    page.get_by_label("Leaf").select_option("safety")
    link = page.locator("li.also:visible a").first
    key = link.get_attribute("href").removeprefix("#")
    assert not page.locator(f"#{key}").is_visible()
    link.click()
    page.wait_for_function(f"document.getElementById('{key}').checkVisibility()")
    place = page.locator(f"#{key}").bounding_box()
    assert 0 <= place["y"] < page.viewport_size["height"]
    assert keys(page) == papers()


def test_without_javascript_all_papers_stand_in_groups(browser: Browser, site: Path):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{built.uri(PAGE)}#safety")
    assert not page.locator(".paper-form").is_visible()
    assert page.locator(".paper-list li[id]:visible").count() == total()
    assert page.locator("#safety h4").is_visible()
    assert page.locator(".paper-picture td:visible").count() > 100
    context.close()


def test_the_page_is_light(site: Path):
    own = [site / PAGE, site / "_static" / "papers.js", site / "_static" / "papers.css"]
    assert sum(built.transferred(path) for path in own) <= BYTES


def test_the_files_lie_beside_the_page(site: Path):
    links = [a["href"] for a in built.html(PAGE).select("a[download]")]
    assert [Path(link).suffix for link in links] == [".bib", ".csv", ".json"]
    assert set(parse_file(site / links[0]).entries) == papers()
