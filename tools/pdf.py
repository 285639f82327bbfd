"""Print chapters of the built book as PDF files, through Chromium.

python tools/pdf.py [CHAPTER ...]      default: all chapters, into downloads/ of the built book
"""

from __future__ import annotations

import argparse
import sys

import chromium
from notebooks import Book, NotebookError, add_root_option
from playwright.sync_api import Browser, sync_playwright

# Chromium's own style of header and footer is tiny; it takes none from the page.
FOOTER = """<div style="font: 8pt sans-serif; color: #52606d; width: 100%; margin: 0 16mm;
  display: flex; justify-content: space-between"><span class="title"></span>
  <span><span class="pageNumber"></span> / <span class="totalPages"></span></span></div>"""
MARGIN = {"top": "16mm", "bottom": "20mm", "left": "16mm", "right": "16mm"}
# Solutions are folded on the screen; on paper nobody can unfold them. A link to another page would
# name a folder of this machine.
READY = """async () => {
  document.querySelectorAll('details').forEach((details) => { details.open = true; });
  for (const link of document.querySelectorAll('a[href]')) {
    const leads_away = link.protocol === 'file:' && link.pathname !== location.pathname;
    if (leads_away) link.removeAttribute('href');
  }
  if (window.MathJax?.startup) await MathJax.startup.promise;
  await document.fonts.ready;
}"""


def print_chapter(browser: Browser, book: Book, name: str) -> str:
    """Write one chapter's PDF and say where it is and how large."""
    page_file = book.site / "chapters" / f"{name}.html"
    if not page_file.is_file():
        raise NotebookError(f"{name} is not built: run make book.")
    target = book.site / "downloads" / f"{name.rpartition('/')[2]}.pdf"
    target.parent.mkdir(exist_ok=True)
    page = browser.new_page(color_scheme="light", reduced_motion="reduce")
    page.goto(page_file.as_uri())
    page.evaluate(READY)
    page.pdf(
        path=target,
        format="A4",
        margin=MARGIN,
        print_background=True,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=FOOTER,
        outline=True,
        tagged=True,
    )
    page.close()
    return f"{target.relative_to(book.root)}: {target.stat().st_size / 1e6:.1f} MB"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print chapters as PDF.")
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help="default: all chapters")
    add_root_option(parser)
    options = parser.parse_args(arguments)
    book = Book(options.root)
    try:
        names = [book.resolve(name) for name in options.chapters] or book.names
        if (path := chromium.find()) is None:
            raise NotebookError(f"No browser found: {chromium.HINT}.")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path)
            for name in names:
                print(print_chapter(browser, book, name), flush=True)
            browser.close()
    except NotebookError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
