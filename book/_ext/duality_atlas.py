"""The paper atlas: its picture, its list with filters, what we changed, and the links to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from docutils import nodes
from duality_data import Book, BookDirective, BookError, Leaf, read_book, sources
from duality_papers import EVIDENCE, SAID, Paper, at, read_papers, topics
from duality_templates import render
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

PAGE = "papers"
COLUMNS = 7  # of years in the picture; the first one holds the years before as well


def years(papers: Iterable[Paper]) -> list[int]:
    """The years that have a column of their own."""
    last = max(paper.year for paper in papers)
    return list(range(last - COLUMNS + 2, last + 1))


def counts(papers: Iterable[Paper], columns: list[int]) -> list[int]:
    """How many of these papers are older than the columns, and of each column's year."""
    found = Counter(max(paper.year, columns[0] - 1) for paper in papers if paper.year)
    return [found[year] for year in (columns[0] - 1, *columns)]


def shade(count: int, most: int) -> int:
    """The strength of a cell's colour, in percent; its text stays readable on all of them."""
    return round(8 + 47 * (count / most) ** 0.5) if count else 0


def picture(papers: list[Paper], book: Book) -> str:
    """A table of papers by leaf and year, whose cells are the darker, the more they hold."""
    columns = years(papers)
    rows = [
        (topic, counts(stand := at(papers, topic.key), columns), len(stand))
        for topic in topics(book).values()
    ]
    most = max(max(row) for _, row, _ in rows)
    groups = groupby(rows, lambda row: row[0].group)
    totals = [*counts(papers, columns), len(papers)]
    return render(
        "papers_picture.html",
        groups=[(name, list(listed)) for name, listed in groups],
        columns=columns,
        totals=totals,
        shade=lambda count: shade(count, most),
    )


def atlas(papers: list[Paper], book: Book, uri: Any) -> str:
    """All papers, grouped by leaf, with the form that filters them."""
    known = topics(book)
    links = {name: (chapter.short, uri(name)) for name, chapter in book.chapters.items()}
    groups = groupby(known.values(), lambda topic: topic.group)
    return render(
        "papers.html",
        groups=[(name, [(t, at(papers, t.key)) for t in listed]) for name, listed in groups],
        papers=papers,
        topics=known,
        links=links,
        years=sorted({paper.year for paper in papers if paper.year}, reverse=True),
        models=sorted({name for paper in papers for name in paper.base_model}, key=str.casefold),
        evidence=EVIDENCE,
        said=SAID,
    )


def changes(papers: list[Paper], book: Book) -> str:
    """What the atlas adds to the review's collection, and what it corrects."""
    listed = [paper for paper in papers if paper.listed]
    return render(
        "papers_changes.html",
        entries=sum(len(paper.listed) for paper in listed),
        listed=len(listed),
        added=len(papers) - len(listed),
        cited=sum(bool(paper.chapters) for paper in papers),
        background=sum(paper.background for paper in papers),
        merged=[paper for paper in listed if len(paper.listed) > 1],
        moved=[(paper, _section(paper, book)) for paper in listed if paper.moved],
        topics=topics(book),
        authors=sum(bool(paper.authors) for paper in papers),
        venues=sum(bool(paper.venue) for paper in papers),
        code=sum(bool(paper.code) for paper in papers),
    )


def _section(paper: Paper, book: Book) -> str:
    """Where the review's collection has a paper."""
    known = topics(book)
    names = {"finetuning": "Fine-tuning", "distillation": "Distillation"}
    return names.get(paper.listed[0]) or known[paper.listed[0]].title


class Papers(BookDirective):
    """A part of the page: `picture`, `list` or `changes`."""

    required_arguments = 1

    def draw(self, book: Book) -> list[nodes.Node]:
        papers = read_papers(Path(self.env.srcdir), book)
        parts = {
            "picture": lambda: picture(papers, book),
            "list": lambda: atlas(papers, book, self.uri),
            "changes": lambda: changes(papers, book),
        }
        if self.arguments[0] not in parts:
            raise BookError(f"no part {self.arguments[0]!r}: {', '.join(parts)}.")
        return [self.html(parts[self.arguments[0]]())]


def links(leaf: Leaf, papers: list[Paper], page: str) -> list[tuple[str, str]]:
    """Text and address of every part of the atlas that belongs to a leaf."""
    found = []
    for key, title in leaf.papers.items():
        number = sum(key in paper.leaves for paper in papers)
        what = "paper" if number == 1 else "papers"
        part = f" on {title[0].lower()}{title[1:]}" if len(leaf.papers) > 1 else ""
        found.append((f"{number} {what}{part}", f"{page}#{key}"))
    return found


@cache
def _read(folder: Path) -> tuple[Book, list[Paper]]:
    book = read_book(folder)
    return book, read_papers(folder, book)


def add_to_card(app: Sphinx, doctree: nodes.document) -> None:
    """Lead from the card under a chapter's title to the papers of its leaf."""
    name = app.env.docname.removeprefix("chapters/")
    cards = [table for table in doctree.findall(nodes.table) if "chapter-card" in table["classes"]]
    if name == app.env.docname or not cards:
        return
    folder = Path(app.srcdir)
    try:
        book, papers = _read(folder)
    except BookError as error:
        raise ExtensionError(str(error)) from None
    for source in sources(folder):
        if source.suffix != ".ipynb":
            app.env.note_dependency(str(source))
    page = app.builder.get_relative_uri(app.env.docname, PAGE)
    leaf = next((leaf for leaf in book.leaves if leaf.chapter == name), None)
    if leaf and (found := links(leaf, papers, page)):
        body = next(cards[0].findall(nodes.tbody))
        body += _row("Paper atlas", found)


def _row(head: str, found: list[tuple[str, str]]) -> nodes.row:
    cell = nodes.paragraph()
    for number, (text, address) in enumerate(found):
        cell += nodes.Text("; ") if number else nodes.Text("")
        cell += nodes.reference("", text, refuri=address, internal=True)
    cells = (nodes.paragraph("", "", nodes.strong("", head)), cell)
    return nodes.row("", *(nodes.entry("", part) for part in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("papers", Papers)
    app.connect("doctree-read", add_to_card, priority=700)  # after the card has its class
    return {"parallel_read_safe": True, "parallel_write_safe": True}
