"""Corrections of what the theme and other extensions write: valid, accessible, light pages."""

from __future__ import annotations

import re
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

# A browser does not let a page read its neighbours from a folder, which a summary of a search
# result would need: there, results come without, instead of with an error each.
NO_SUMMARY_OFFLINE = (
    'if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;'
)
INTERVAL = re.compile(r"[\d.,]+%?\s\[[-+\d.,%\s]+\]")
ROOM, ROOM_WIDE = 84, 104  # characters of numbers that fit; six columns and more use the margin
UNBROKEN = re.compile(r"<td[^>]*nowrap[^>]*>(.*?)</td>", re.DOTALL)
VERBATIM = (nodes.FixedTextElement, nodes.literal, nodes.math)


def keep_intervals_whole(app: Sphinx, doctree: nodes.document) -> None:
    """Let no line break part an interval such as 0.93 [0.90, 0.95]."""
    for text in list(doctree.findall(nodes.Text)):
        whole = INTERVAL.sub(lambda found: re.sub(r"\s+", "\u00a0", found[0]), text)
        if whole != text and not isinstance(text.parent, VERBATIM):
            text.parent.replace(text, nodes.Text(whole))


def stacked(table: str) -> str:
    """The HTML of a table; one too wide for a page has its intervals below their estimates."""
    rows = [UNBROKEN.findall(row) for row in table.split("</tr>")]
    columns = list(zip_longest(*rows, fillvalue=""))
    room = ROOM if len(columns) < 5 else ROOM_WIDE
    if sum(max(map(len, column)) for column in columns) <= room:
        return table
    return re.sub(r"(?<=[\d%])\s(?=\[)", "<br>", table)


def stack_wide_tables(app: Sphinx, doctree: nodes.document) -> None:
    """Break the cells of wide tables where it does not part a number."""
    for raw in doctree.findall(nodes.raw):
        if raw["format"] == "html" and 'class="dataframe"' in raw.astext():
            raw[:] = [nodes.Text(stacked(raw.astext()))]


def open_folded_cell(translator: HTML5Translator, node: HideCodeCellNode) -> None:
    """Write what MyST-NB writes, with a heading that is valid and that a screen reader reads.

    Paragraphs are not allowed in a summary, and its label hid what the summary says. A cell without
    a text of its own for the open state keeps its label.
    """
    show = escape(node["prompt_show"])
    hide = escape(node["prompt_hide"]) or show
    translator.body.append(
        f'<details class="admonition hide {" ".join(node["classes"])}">\n'
        f'<summary><span class="collapsed">{show}</span>'
        f'<span class="expanded">{hide}</span></summary>\n'
    )


def close_folded_cell(translator: HTML5Translator, node: HideCodeCellNode) -> None:
    translator.body.append("</details>\n")


def name_citations(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Make citations items of the list in which docutils puts them."""
    if "body" in context:
        context["body"] = context["body"].replace(' role="doc-biblioentry"', ' role="listitem"')


def drop_icon_script(app: Sphinx, exception: Exception | None) -> None:
    """Empty the theme's 1.5 MB of icons as a script: it loads the same icons as a font as well."""
    script = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
    if exception is None and script.is_file():
        script.write_text("// The icons come from the font.\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("myst_nb")
    app.add_node(HideCodeCellNode, override=True, html=(open_folded_cell, close_folded_cell))
    app.add_js_file(None, body=NO_SUMMARY_OFFLINE)
    app.connect("doctree-read", keep_intervals_whole)
    app.connect("doctree-read", stack_wide_tables)
    app.connect("html-page-context", name_citations)
    app.connect("build-finished", drop_icon_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
