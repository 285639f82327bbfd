"""How a paper is cited: its authors and year, as the text of a link to it.

`([Author et al., 2017](link))` in parentheses, `[Author et al. (2017)](link)` in a sentence. Both
follow from the paper's entry in references.bib; the tools check them, and the book turns them into
references to its bibliography (duality_citations).
"""

from __future__ import annotations

import re

from pybtex.database import Entry
from pybtex.richtext import Text

# The text of a link that cites.
ASIDE, INLINE = r"[^\[\]]+,\s+(?:\d{4}|n\.d\.)", r"[^\[\]]+\s+\((?:\d{4}|n\.d\.)\)"


def link(entry: Entry) -> str:
    """Where the paper is: by its DOI, on arXiv or at its address, or '' where it has none."""
    fields = entry.fields
    if doi := fields.get("doi"):
        return "https://doi.org/" + re.sub(r"^https?://(dx\.)?doi\.org/", "", doi)
    if eprint := fields.get("eprint"):
        return "https://arxiv.org/abs/" + eprint.removeprefix("arXiv:")
    return fields.get("url", "")


def _authors(entry: Entry) -> str:
    people = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [str(Text.from_latex(" ".join(p.prelast_names + p.last_names))) for p in people]
    if len(names) > 2:
        names = [f"{names[0]} et al."]
    return " and ".join(names) or entry.key


def aside(entry: Entry) -> str:
    """`Author et al., 2017`."""
    return f"{_authors(entry)}, {entry.fields.get('year', 'n.d.')}"


def inline(entry: Entry) -> str:
    """`Author et al. (2017)`."""
    return f"{_authors(entry)} ({entry.fields.get('year', 'n.d.')})"


def same(text: str, other: str) -> bool:
    """Whether two texts read the same: on a page, apostrophes are curved and lines not broken."""
    return _plain(text) == _plain(other)


def _plain(text: str) -> str:
    return " ".join(text.replace("\u2019", "'").split())
