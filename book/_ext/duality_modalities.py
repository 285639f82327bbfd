"""Every chapter by what goes in, what comes out and how it is joined: the review's modality axis.

The metadata of a chapter say it in the words below: ``"modality": {"input": [...], "output": [...],
"fusion": [...]}``. The directive ``modalities`` draws the table on a page. In a notebook, which
must read well without the book's builder, the comment ``<!-- modalities -->`` stands for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from duality_data import Book, BookDirective, BookError, Chapter, read_book, sources
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

WORDS = {
    "input": ("state", "action", "picture", "film", "words", "noise"),
    "output": (
        *("action", "action tokens", "trajectory", "waypoint", "skill"),
        *("state", "score", "reward", "words", "film"),
    ),
    "fusion": ("none", "concatenation", "sum", "FiLM", "attention", "mixture", "product"),
}
MARK = "<!-- modalities -->"


def modality(chapter: Chapter) -> dict[str, list[str]]:
    """What a chapter says of its modalities, checked against `WORDS`."""
    said = chapter.facts.get("modality")
    if not isinstance(said, dict) or said.keys() != WORDS.keys():
        raise BookError(f"{chapter.name}: its metadata 'modality' need {', '.join(WORDS)}.")
    for key, known in WORDS.items():
        values = said[key]
        if not isinstance(values, list) or not values:
            raise BookError(f"{chapter.name}: its modality {key!r} must be a list of words.")
        if odd := [value for value in values if value not in known]:
            raise BookError(f"{chapter.name}: no {key} {odd[0]!r}, but {', '.join(known)}.")
    return said


def rows(book: Book) -> list[tuple[Chapter, list[str]]]:
    """A row for each chapter, in reading order."""
    said = [(chapter, modality(chapter)) for chapter in book.chapters.values()]
    return [(chapter, [", ".join(found[key]) for key in WORDS]) for chapter, found in said]


def table(book: Book, page: str, app: Sphinx) -> nodes.container:
    """The table as it stands on a page."""
    heads = ("Chapter", *(key.capitalize() for key in WORDS))
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in heads), cols=len(heads))
    group += nodes.thead("", _row(*(nodes.Text(head) for head in heads)))
    body = nodes.tbody()
    for chapter, cells in rows(book):
        address = app.builder.get_relative_uri(page, chapter.docname)
        link = nodes.reference("", chapter.short, refuri=address, internal=True)
        body += _row(link, *(nodes.Text(cell) for cell in cells))
    group += body
    return nodes.container("", nodes.table("", group), classes=["facts"])


def _row(*contents: nodes.Node) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", x)) for x in contents))


class Modalities(BookDirective):
    """The table, where a page asks for it."""

    def draw(self, book: Book) -> list[nodes.Node]:
        return [table(book, self.env.docname, self.env.app)]


def replace_marks(app: Sphinx, doctree: nodes.document) -> None:
    """Put the table where the text of a notebook has the comment."""
    marks = [node for node in doctree.findall(nodes.raw) if node.astext().strip() == MARK]
    folder = Path(app.srcdir)
    for mark in marks:
        for path in sources(folder):
            app.env.note_dependency(str(path))
        try:
            mark.replace_self(table(read_book(folder), app.env.docname, app))
        except BookError as error:
            raise ExtensionError(str(error)) from None


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("modalities", Modalities)
    app.connect("doctree-read", replace_marks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
