"""Make chapters read well outside the book: what is shown there must not need the book's builder.

    python tools/portable.py [CHAPTER ...]      default: all chapters

Exports, Colab and GitHub show the role of a citation as it stands. Written here as a link to the
paper, it reads well everywhere, and the built pages make a reference to the bibliography of it
(book/_ext/duality_citations.py). The pictures take the alternative texts of their cells.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from copy import deepcopy

from card import CARD_TAG, Cards
from citations import ASIDE, INLINE, aside, inline, link, same
from nbformat import NotebookNode
from notebooks import Book, NotebookError, add_root_option, load, save, tags
from outputs import settle_pictures

_FENCE = re.compile(r"^(```+|~~~+).*?^\1", re.DOTALL | re.MULTILINE)
_ROLE = re.compile(r"(?<!`)\{([a-z][\w:.+-]*)\}`([^`]+)`")
_ADDRESS = r"((?:[^()\s]|\([^()\s]*\))+)"
CITATION = re.compile(rf"\[({ASIDE}|{INLINE})\]\({_ADDRESS}\)")


def linked(source: str, cards: Cards) -> str:
    """The Markdown with every role that cites as links; blocks of code stay as they are."""
    blocks = [range(*block.span()) for block in _FENCE.finditer(source)]

    def links(role: re.Match[str]) -> str:
        if role[1] not in {"cite:p", "cite:t"} or any(role.start() in block for block in blocks):
            return role[0]
        papers = [cards.entry(key.strip()) for key in role[2].split(",")]
        if role[1] == "cite:t":
            return ", ".join(f"[{inline(paper)}]({link(paper)})" for paper in papers)
        return f"({'; '.join(f'[{aside(paper)}]({link(paper)})' for paper in papers)})"

    return _ROLE.sub(links, source)


def problems(source: str, cards: Cards) -> Iterator[str]:
    """What is wrong with the citations of some Markdown, and roles that only the book resolves."""
    prose = _FENCE.sub("", source)
    for role, target in _ROLE.findall(prose):
        how = "run python tools/portable.py" if role.startswith("cite") else "write plain Markdown"
        yield f"{{{role}}}`{target}` shows as it stands outside the book: {how}."
    entries = list(cards.bibliography.entries.values())
    for text, address in CITATION.findall(prose):
        form = inline if text.endswith(")") else aside
        meant = [entry for entry in entries if link(entry) == address]
        if not (meant := meant or [entry for entry in entries if same(form(entry), text)]):
            yield f"[{text}]({address}) is not in book/references.bib: add it, or mend the link."
        elif not any(same(form(e), text) and link(e) == address for e in meant):
            right = f"[{form(meant[0])}]({link(meant[0])})"
            yield f"[{text}]({address}) should be {right}."


def rewrite(nb: NotebookNode, cards: Cards) -> bool:
    """Make the cells of a chapter portable; tells whether that changed anything."""
    before = deepcopy(nb.cells)
    for cell in nb.cells:
        if cell.cell_type == "code":
            settle_pictures(cell)
        elif cell.cell_type == "markdown" and CARD_TAG not in tags(cell):
            cell.source = linked(cell.source, cards)
    return before != nb.cells


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make chapters read well outside the book.")
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help="default: all chapters")
    add_root_option(parser)
    options = parser.parse_args(arguments)
    book = Book(options.root)
    cards = Cards(book)
    failed = False
    for given in options.chapters or book.names:
        try:
            name = book.resolve(given)
            nb = load(book.path(name))
            if rewrite(nb, cards):
                save(nb, book.path(name))
                print(f"{name}: written")
        except NotebookError as error:
            print(f"{given}: {error}")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
