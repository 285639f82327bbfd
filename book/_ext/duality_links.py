"""A form that writes the links with which a teacher hands chapters to a JupyterHub."""

from __future__ import annotations

import os
from typing import Any

from docutils import nodes
from duality_data import Book, BookDirective
from duality_templates import render
from sphinx.application import Sphinx


class HubLinks(BookDirective):
    """The form, with the repository in DUALITY_REPOSITORY filled in where it is set."""

    def draw(self, book: Book) -> list[nodes.Node]:
        address = os.environ.get("DUALITY_REPOSITORY", "").strip()
        text = render("hub_links.html", chapters=book.chapters.values(), repository=address)
        return [self.html(text)]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("hub-links", HubLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
