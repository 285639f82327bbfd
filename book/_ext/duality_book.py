"""The book's Sphinx extension: offline MathJax, repository buttons, chapter cards, chapter list."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.fileutil import copy_asset

logger = logging.getLogger(__name__)

MATHJAX = "tex-chtml.js"
METADATA = {"title", "leaf", "review_section", "papers", "prerequisites", "summary"}


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


class ChapterList(SphinxDirective):
    """List the chapters of ``_toc.yml`` part by part, from the metadata of their notebooks."""

    def run(self) -> list[nodes.Node]:
        toc = Path(self.env.srcdir) / "_toc.yml"
        self.env.note_dependency(str(toc))
        toc_parts = yaml.safe_load(toc.read_text(encoding="utf-8")).get("parts", [])
        parts = {part.get("caption", ""): dict(self._notebooks(part)) for part in toc_parts}
        chapters = {name: facts for part in parts.values() for name, facts in part.items()}
        lines: list[str] = []
        for caption, names in parts.items():
            if names:
                lines += [f":::{{rubric}} {caption}", ":::", ""]
            for name in names:
                lines += _entry(name, chapters)
        entries = self.parse_text_to_nodes("\n".join(lines))
        return [nodes.container("", *entries, classes=["chapter-list"])]

    def _notebooks(self, item: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for entry in item.get("chapters", []) + item.get("sections", []):
            path = Path(self.env.srcdir) / f"{entry.get('file', '')}.ipynb"
            if path.is_file():
                self.env.note_dependency(str(path))
                yield entry["file"], self._metadata(path)
            yield from self._notebooks(entry)

    def _metadata(self, path: Path) -> dict[str, Any]:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        facts = notebook["metadata"].get("duality", {})
        if missing := METADATA - facts.keys():
            where = self.get_location()
            logger.warning("%s: no metadata %s", path.name, sorted(missing), location=where)
        return {"title": path.stem, "summary": "", **facts}


def _entry(name: str, chapters: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown for one chapter: linked title, summary, one line of facts."""
    facts = chapters[name]
    after = ", ".join(_link(needed, chapters) for needed in facts.get("prerequisites") or [])
    section, papers = facts.get("review_section"), facts.get("papers")
    line = [
        facts.get("leaf"),
        f"review section {section}" if section not in (None, "", "-") else None,
        f"after {after}" if after else None,
        "{cite:t}`" + ",".join(papers) + "`" if papers else None,
    ]
    return [
        "::::{container} chapter-entry",
        f"[{facts['title']}](/{name}.ipynb)",
        "",
        facts["summary"],
        "",
        "{.chapter-facts}",
        " · ".join(fact for fact in line if fact),
        "::::",
        "",
    ]


def _link(needed: str, chapters: dict[str, dict[str, Any]]) -> str:
    """Link a prerequisite, named by its title or by the end of its path, where the book has it."""
    for name, facts in chapters.items():
        if needed == facts["title"] or f"/{name}".endswith(f"/{needed}"):
            return f"[{facts['title'].partition(':')[0]}](/{name}.ipynb)"
    return needed


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("chapter-list", ChapterList)
    app.connect("config-inited", set_repository_buttons)
    app.connect("config-inited", set_mathjax_path)
    app.connect("config-inited", remove_thebe)
    app.connect("doctree-read", mark_card)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
