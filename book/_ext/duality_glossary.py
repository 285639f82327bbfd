"""Link the first use of each term of the glossary in a chapter's prose to its entry.

The notebooks stay as they are: the links are made when a chapter is written as HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

PAGE, CHAPTERS = "glossary", "chapters/"
# A term is left alone in these, and where no paragraph is around it.
APART = (
    nodes.title,
    nodes.rubric,
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.math_block,
    nodes.reference,
    nodes.table,
    nodes.figure,
    nodes.raw,
    addnodes.pending_xref,
)
NOT_PROSE = {"cell_output", "replications-note"}  # made by tools, not written by the author


@dataclass(frozen=True)
class Entry:
    """An entry of the glossary, under one or more names."""

    names: tuple[str, ...]
    anchor: str
    definition: str


def entries(glossary: nodes.document) -> list[Entry]:
    """The entries of the page that holds the glossary."""
    return [
        Entry(
            tuple(term.astext() for term in item.findall(nodes.term)),
            next(item.findall(nodes.term))["ids"][0],
            " ".join(next(item.findall(nodes.definition)).astext().split()),
        )
        for block in glossary.findall(addnodes.glossary)
        for item in block.findall(nodes.definition_list_item)
    ]


def pattern(name: str) -> str:
    """Matches a name in the singular or the plural, also at the start of a sentence."""
    first, rest = re.escape(name[0]), re.escape(name[1:])
    if name[0].islower():
        first = f"[{name[0]}{name[0].upper()}]"
    rest = re.sub("['\u2019]", "['\u2019]", rest.replace(r"\ ", r"\s+"))
    plural = rf"{rest[:-1]}(?:y|ies)" if name.endswith("y") else rf"{rest}(?:s|es)?"
    return first + plural


@dataclass
class Linker:
    """Links terms in one document, each entry once."""

    entries: Iterable[Entry]
    page: str  # the address of the glossary, seen from the document
    done: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        named = {name: entry for entry in self.entries for name in entry.names}
        # The longest name wins: "diffusion policy" before "policy".
        self.named = dict(sorted(named.items(), key=lambda item: -len(item[0])))
        groups = "|".join(f"({pattern(name)})" for name in self.named)
        self.regex = re.compile(rf"(?<![\w-])(?:{groups})(?![\w-])")

    def link(self, doctree: nodes.document) -> None:
        for text in list(doctree.findall(nodes.Text)):
            if self.named and _is_prose(text):
                parts = list(self._parts(text.astext()))
                if len(parts) > 1:
                    text.parent.replace(text, parts)

    def _parts(self, text: str) -> Iterable[nodes.Node]:
        """The text, cut into plain text and links."""
        start = 0
        for match in self.regex.finditer(text):
            entry = list(self.named.values())[match.lastindex - 1]
            if entry.anchor in self.done:
                continue
            self.done.add(entry.anchor)
            yield nodes.Text(text[start : match.start()])
            yield nodes.reference(
                "",
                match[0],
                internal=True,
                refuri=f"{self.page}#{entry.anchor}",
                reftitle=entry.definition,
                classes=["glossary-link"],
            )
            start = match.end()
        yield nodes.Text(text[start:])


def _is_prose(text: nodes.Text) -> bool:
    node, in_paragraph = text.parent, False
    while node is not None:
        if isinstance(node, APART) or NOT_PROSE.intersection(node.get("classes", [])):
            return False
        in_paragraph = in_paragraph or isinstance(node, nodes.paragraph)
        node = node.parent
    return in_paragraph


def note_glossary(app: Sphinx, doctree: nodes.document) -> None:
    """A chapter is written anew when the glossary changes."""
    if app.env.docname.startswith(CHAPTERS):
        app.env.note_dependency(app.env.doc2path(PAGE))


def link_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if docname.startswith(CHAPTERS) and PAGE in app.env.all_docs:
        page = app.builder.get_relative_uri(docname, PAGE)
        Linker(entries(app.env.get_doctree(PAGE)), page).link(doctree)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", note_glossary)
    app.connect("doctree-resolved", link_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
