"""Generate each chapter's card, the small table under its title, from the chapter's metadata.

    python tools/card.py [CHAPTER ...]            write the cards
    python tools/card.py [CHAPTER ...] --check    name the chapters whose card is out of date

The card is plain Markdown, so that GitHub, Colab and the book show the same thing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

from nbformat import NotebookNode, v4
from notebooks import (
    Book,
    NotebookError,
    add_root_option,
    closest,
    load,
    metadata_of,
    save,
    tags,
)
from pybtex.database import BibliographyData, Entry, parse_file
from pybtex.exceptions import PybtexError

EXTENSIONS = Path(__file__).resolve().parent.parent / "book" / "_ext"
sys.path.append(str(EXTENSIONS))  # the built pages write citations with the same code

from citations import aside, link  # noqa: E402

CARD_TAG = "card"


def duration(executed: dict[str, Any] | None) -> str:
    """How long a run took, in whole minutes, with the number of cores that it had."""
    if not executed or "seconds" not in executed:
        return "not measured yet"
    minutes = int(executed["seconds"] / 60 + 0.5)
    cores = re.match(r"\d+", executed.get("machine", ""))
    on = f" on {cores[0]} CPU core{'s' * (cores[0] != '1')}" if cores else ""
    return f"{f'about {minutes} min' if minutes else 'under 1 min'}{on} (measured)"


class Cards:
    """Renders cards; reads the bibliography and the titles of prerequisites once."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self._titles: dict[str, str] = {}

    @cached_property
    def bibliography(self) -> BibliographyData:
        try:
            return parse_file(str(self.book.references), bib_format="bibtex")
        except (PybtexError, OSError) as error:
            problem = " ".join(str(error).split())
            raise NotebookError(f"book/references.bib cannot be read: {problem}") from None

    def entry(self, key: str) -> Entry:
        """A paper that has an address, which every citation needs."""
        entries = self.bibliography.entries
        if key not in entries:
            raise closest(key, entries, "paper", "book/references.bib")
        if not link(entries[key]):
            raise NotebookError(f"{key} in book/references.bib needs a doi, an eprint or a url.")
        return entries[key]

    def paper(self, key: str) -> str:
        entry = self.entry(key)
        return f"[{aside(entry)}]({link(entry)})"

    def prerequisite(self, name: str, chapter: str) -> str:
        name = self.book.resolve(name)
        if name not in self._titles:
            title = metadata_of(load(self.book.path(name))).get("title", name)
            self._titles[name] = str(title)
        link = os.path.relpath(self.book.path(name), self.book.path(chapter).parent)
        return f"[{self._titles[name]}]({Path(link).as_posix()})"

    def render(self, chapter: str, meta: dict[str, Any]) -> str:
        """The Markdown of the card of `chapter`."""
        try:
            rows = {
                "Taxonomy leaf": meta["leaf"],
                "Review section": meta["review_section"],
                "Papers": ", ".join(self.paper(key) for key in meta["papers"]),
                "Prerequisites": ", ".join(
                    self.prerequisite(name, chapter) for name in meta["prerequisites"]
                ),
                "Runs in": duration(meta.get("executed")),
            }
        except KeyError as error:
            raise NotebookError(f"metadata has no {error.args[0]!r}: add it.") from None
        lines = [f"| {key} | {_cell_text(value or 'none')} |" for key, value in rows.items()]
        return "\n".join(["| | |", "|:--|:--|", *lines])

    def refresh(self, chapter: str, nb: NotebookNode) -> bool:
        """Put the right card below the title cell of `nb`; tells whether that changed anything."""
        source = self.render(chapter, metadata_of(nb))
        old = [(i, cell) for i, cell in enumerate(nb.cells) if CARD_TAG in tags(cell)]
        if [(i, c.cell_type, c.source) for i, c in old] == [(1, "markdown", source)]:
            return False
        card = v4.new_markdown_cell(source, metadata={"tags": [CARD_TAG]})
        others = [cell for cell in nb.cells if CARD_TAG not in tags(cell)]
        # A fixed id for a new card and the old id for an old one keep the tool deterministic.
        card.id = old[0][1].id if old else CARD_TAG
        nb.cells = [*others[:1], card, *others[1:]]
        return True


def _cell_text(text: str) -> str:
    return " ".join(str(text).split()).replace("|", r"\|")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write or check the cards of the chapters.")
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help="default: all chapters")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if outdated")
    add_root_option(parser)
    options = parser.parse_args(arguments)
    book = Book(options.root)
    cards = Cards(book)
    try:
        names = [book.resolve(name) for name in options.chapters] or book.names
    except NotebookError as error:
        print(error)
        return 1
    failed = False
    for name in names:
        try:
            nb = load(book.path(name))
            if cards.refresh(name, nb):
                if options.check:
                    raise NotebookError("the card is out of date: run python tools/card.py")
                save(nb, book.path(name))
                print(f"{name}: card written")
        except NotebookError as error:
            print(f"{name}: {error}")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
