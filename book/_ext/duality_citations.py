"""Turn the links with which a notebook cites papers into references to the bibliography.

A notebook is also read where no bibliography is, so it links the paper itself (see citations). A
link is a citation where its address and its text are those of one entry; others stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from citations import aside, inline, link, same
from docutils import nodes
from pybtex.database import Entry
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinxcontrib.bibtex.citation_target import CitationTarget
from sphinxcontrib.bibtex.roles import CitationRef


class Citer:
    """Replaces the citations of one page by what the roles of sphinxcontrib-bibtex leave."""

    def __init__(self, app: Sphinx, doctree: nodes.document) -> None:
        self.env, self.doctree = app.env, doctree
        self.domain = app.env.get_domain("cite")
        entries = self.domain.bibdata.data.entries.values()
        self.papers = {link(entry): entry for entry in entries if link(entry)}

    def cite(self) -> None:
        for node in list(self.doctree.findall(nodes.reference)):
            if not _is_free(node):
                continue
            place = node.parent.index(node)
            if self._cites(node, inline):
                self._replace(node.parent, place, place + 1, "t")
            elif self._cites(node, aside):
                end = self._end_of_group(node.parent, place)
                self._replace(node.parent, place, end or place + 1, "p" if end else "alp")

    def _cites(self, node: nodes.Node, form: Callable[[Entry], str]) -> bool:
        is_link = isinstance(node, nodes.reference) and node.get("refuri") in self.papers
        return is_link and same(node.astext(), form(self.papers[node["refuri"]]))

    def _end_of_group(self, parent: nodes.Element, start: int) -> int:
        """Where the citations end that stand in parentheses with nothing else, or 0.

        The parentheses go: the style of the bibliography has brackets of its own.
        """
        end, between = start + 1, ""
        for place in range(start + 1, len(parent)):
            node = parent[place]
            if isinstance(node, nodes.Text):
                between += node
            elif self._cites(node, aside) and between.strip() == ";":
                end, between = place + 1, ""
            else:
                break
        before = parent[start - 1] if start else None
        if not (isinstance(before, nodes.Text) and before.endswith("(") and between[:1] == ")"):
            return 0
        # By place: docutils finds a text by what it says, and another one may say the same.
        parent[start - 1], parent[end] = nodes.Text(before[:-1]), nodes.Text(parent[end][1:])
        return end

    def _replace(self, parent: nodes.Element, start: int, end: int, role: str) -> None:
        """Put what the role would leave in the place of these citations."""
        cited = [node for node in parent[start:end] if isinstance(node, nodes.reference)]
        keys = [self.papers[node["refuri"]].key for node in cited]
        target = ",".join(keys)
        xref = addnodes.pending_xref("", reftype=role, refdomain="cite", reftarget=target)
        xref += nodes.inline("", target)
        self.doctree.note_explicit_target(xref, xref)  # gives it an id
        targets = [CitationTarget(key, "", "") for key in keys]
        name, line = self.env.docname, parent.line or 0
        self.domain.citation_refs.append(CitationRef(xref["ids"][0], name, line, targets))
        parent[start:end] = [xref]


def _is_free(node: nodes.reference) -> bool:
    """Whether it still stands where it was, and not in a chapter's card, which links the papers."""
    if not any(child is node for child in node.parent):
        return False  # a group has taken it
    table = node.parent
    while table is not None and not isinstance(table, nodes.table):
        table = table.parent
    return table is None or "chapter-card" not in table["classes"]


def cite_papers(app: Sphinx, doctree: nodes.document) -> None:
    for path in app.config.bibtex_bibfiles:
        app.env.note_dependency(str(Path(app.srcdir) / path))
    Citer(app, doctree).cite()


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", cite_papers, priority=600)  # after the card has its class
    return {"parallel_read_safe": True, "parallel_write_safe": True}
