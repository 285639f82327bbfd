"""The book's Sphinx extension: offline MathJax, repository buttons, chapter cards, chapter list."""

from __future__ import annotations

import os
from hashlib import sha256
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from duality_data import Book, BookDirective, Chapter
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.util.fileutil import copy_asset

MATHJAX = "tex-chtml.js"
# The other modules here that hold directives or transforms.
EXTENSIONS = (
    "duality_atlas",
    "duality_citations",
    "duality_exports",
    "duality_glossary",
    "duality_hero",
    "duality_links",
    "duality_map",
    "duality_modalities",
    "duality_opening",
    "duality_plans",
    "duality_replications",
    "duality_tables",
)


def set_repository_buttons(app: Sphinx, config: Config) -> None:
    """Show the repository and launch buttons when DUALITY_REPOSITORY holds the address."""
    address = os.environ.get("DUALITY_REPOSITORY", "").strip().removesuffix("/")
    if not address:
        return
    options = config.html_theme_options
    options["repository_url"] = address.removesuffix(".git")
    # The branch on which the publishing workflow has filled in the setup cells (tools/publish.py).
    options["repository_branch"] = "published"
    options["path_to_docs"] = "book"
    options["use_repository_button"] = True
    options["use_issues_button"] = True
    launch = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
    if urlsplit(address).hostname == "github.com":  # Colab opens notebooks from nowhere else
        launch["colab_url"] = "https://colab.research.google.com"
    options["launch_buttons"] = launch


def set_mathjax_path(app: Sphinx, config: Config) -> None:
    """Point Sphinx at the MathJax that copy_mathjax puts into the built folder."""
    config.mathjax_path = f"mathjax/{MATHJAX}"


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Copy MathJax from the package sphinx-mathjax-offline into ``_static/mathjax``.

    Everything that the chosen bundle can load later (fonts, TeX extensions, accessibility) comes
    along; the other bundles, two thirds of the package, stay behind.
    """
    if exception is not None or app.builder.format != "html":
        return
    spec = find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise ExtensionError("MathJax is missing: pip install sphinx-mathjax-offline")
    copy_asset(
        Path(spec.origin).parent / "static" / "mathjax",
        Path(app.outdir) / "_static" / "mathjax",
        excluded=lambda path: "/" not in path and path.endswith(".js") and path != MATHJAX,
    )


def remove_thebe(app: Sphinx, config: Config) -> None:
    """Unload sphinx-thebe, which Jupyter Book loads even where thebe is off.

    Its scripts name a CDN and a foreign repository on every page, and declare a constant twice,
    which the browser reports as an error.
    """
    for listeners in app.events.listeners.values():
        listeners[:] = [item for item in listeners if item.handler.__module__ != "sphinx_thebe"]
    styles = app.registry.css_files
    styles[:] = [style for style in styles if style[0] != "sphinx-thebe.css"]


def mark_card(app: Sphinx, doctree: nodes.document) -> None:
    """Give a notebook's first table the class ``chapter-card`` and its first column headings.

    The card is a two-column Markdown table between the title and the first section. Markdown wants
    a heading row; an empty one is removed.
    """
    if not app.env.doc2path(app.env.docname).endswith(".ipynb"):
        return
    title = next(doctree.findall(nodes.title), None)
    blocks = title.parent.children if title is not None else []
    table = next((node for node in blocks if isinstance(node, nodes.table)), None)
    if table is None or len(columns := list(table.findall(nodes.colspec))) != 2:
        return
    table["classes"].append("chapter-card")
    columns[0]["stub"] = 1
    for head in list(table.findall(nodes.thead)):
        if not head.astext().strip():
            head.parent.remove(head)


class ChapterList(BookDirective):
    """List the chapters part by part, from the metadata of their notebooks."""

    def draw(self, book: Book) -> list[nodes.Node]:
        numbers = {leaf.chapter: leaf.number for leaf in book.leaves}
        lines: list[str] = []
        for caption, chapters in groupby(book.chapters.values(), lambda chapter: chapter.part):
            lines += [f":::{{rubric}} {caption}", ":::", ""]
            for chapter in chapters:
                lines += _entry(chapter, numbers[chapter.name], book)
        return self.markdown(lines, "chapter-list")


def _entry(chapter: Chapter, number: str, book: Book) -> list[str]:
    """Markdown for one chapter: linked title, summary, one line of facts."""
    facts = chapter.facts
    after = ", ".join(book.chapters[name].link for name in facts["prerequisites"])
    line = [
        facts["leaf"],
        f"review section {number}" if number else None,
        f"after {after}" if after else None,
        "{cite:t}`" + ",".join(facts["papers"]) + "`" if facts["papers"] else None,
    ]
    return [
        "::::{container} chapter-entry",
        f"[{facts['title']}](/{chapter.docname}.ipynb)",
        "",
        facts["summary"],
        "",
        "{.chapter-facts}",
        " · ".join(fact for fact in line if fact),
        "::::",
        "",
    ]


def digest() -> str:
    """Names the code of these extensions, so that a page is built anew when the code changes."""
    folder = Path(__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".html"})
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("duality_code", digest(), "env")
    for extension in EXTENSIONS:
        app.setup_extension(extension)
    app.add_directive("chapter-list", ChapterList)
    app.connect("config-inited", set_repository_buttons)
    app.connect("config-inited", set_mathjax_path)
    app.connect("config-inited", remove_thebe)
    app.connect("doctree-read", mark_card)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
