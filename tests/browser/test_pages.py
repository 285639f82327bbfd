"""Each page of the built book, opened from its folder in headless Chromium."""

from __future__ import annotations

import built
import pytest
from axe_playwright_python.sync_playwright import Axe
from visits import PHONE, WINDOW, Visit

PAGE_BYTES = 700_000  # a page's own HTML and pictures, as files
LOAD_BYTES = 1_500_000  # a first visit with all that it loads, as transferred
PICTURES = {".png", ".gif", ".svg", ".jpg"}

pytestmark = pytest.mark.parametrize("visit", built.pages(), indirect=True)

# Nine in ten elements of a chapter are coloured words of code. One of each kind is enough; the
# others become plain text.
THIN_OUT_CODE = """() => {
  const seen = new Set();
  for (const span of document.querySelectorAll('.highlight span[class]')) {
    const around = span.closest('.cell_output, details, .cell_input')?.className;
    const kind = `${span.className} in ${around}`;
    if (seen.has(kind)) span.replaceWith(...span.childNodes); else seen.add(kind);
  }
  document.querySelectorAll('.highlight pre').forEach((pre) => pre.normalize());
}"""


def test_nothing_is_asked_for_outside_the_book(visit: Visit):
    inside = (built.SITE.as_uri() + "/", "data:", "blob:")
    assert [url for url in visit.requests if not url.startswith(inside)] == []


def test_the_browser_reports_nothing(visit: Visit):
    assert visit.problems == []


def test_every_formula_is_typeset(visit: Visit):
    formulas = visit.page.locator(".math, .output .text_latex").count()
    assert visit.page.locator("mjx-container").count() >= formulas
    assert visit.page.locator("mjx-merror, [data-mjx-error]").count() == 0


def test_weight(visit: Visit):
    page = built.SITE / visit.name
    own = [file for file in visit.files() if file.suffix in PICTURES]
    assert page.stat().st_size + sum(file.stat().st_size for file in own) <= PAGE_BYTES
    files = {str(file): built.transferred(file) for file in visit.files()}
    heaviest = sorted(files, key=files.get, reverse=True)[:5]
    assert sum(files.values()) <= LOAD_BYTES, {name: files[name] for name in heaviest}


def test_a_phone_shows_the_page_without_scrolling_sideways(visit: Visit):
    visit.page.set_viewport_size(PHONE)
    width = visit.page.evaluate("document.documentElement.scrollWidth")
    visit.page.set_viewport_size(WINDOW)
    assert width <= PHONE["width"]


def test_a_phone_shows_the_first_sentence_without_scrolling(visit: Visit):
    if not visit.name.startswith("chapters/"):
        return
    visit.page.set_viewport_size(PHONE)
    place = "p => { const r = document.createRange(); r.selectNodeContents(p);"
    place += " return r.getClientRects()[0].bottom + scrollY; }"
    bottom = visit.page.locator("article h1 ~ p").first.evaluate(place)
    visit.page.set_viewport_size(WINDOW)
    assert bottom < PHONE["height"] * 0.75


def test_a_table_fits_a_wide_screen(visit: Visit):
    holders = visit.page.locator("article :is(.pst-scrollable-table-container, .text_html)")
    wide = "all => all.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.innerText)"
    assert holders.evaluate_all(wide) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_barrier(visit: Visit, scheme: str):
    visit.page.emulate_media(color_scheme=scheme)
    visit.page.wait_for_function(f"document.documentElement.dataset.theme == '{scheme}'")
    visit.page.evaluate(THIN_OUT_CODE)
    options = {"resultTypes": ["violations"]}
    if scheme == "dark":  # only the colours differ
        options["runOnly"] = ["color-contrast"]
    found = Axe().run(visit.page, options=options)
    serious = [
        f"{violation['id']}: {node['html'][:200]} ({node['failureSummary']})"
        for violation in found.response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"][:3]
    ]
    assert serious == []
